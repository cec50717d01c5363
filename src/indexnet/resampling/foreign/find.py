"""Finds where a network resamples, and which map guides each upsampling."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.core.errors import UserError, shown
from indexnet.resampling.foreign.plan import CONV, OPTIONAL, REPLACE, UPWARDS, Plan, Site, Source, site_id
from indexnet.resampling.foreign.recording import Call, Occurrence, Recording, Value, tensors
from indexnet.resampling.foreign.verdicts import halves, how, verdict_down, verdict_up

FIRST = "example"
GROWTH = 32
"""Pixels by which the second example is larger: a multiple of the strides of most encoders."""

_COMBINES = {
    "cat", "concat", "concatenate", "stack", "hstack", "add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_",
}  # fmt: skip


def find_sites(model: nn.Module, example: Any, second: Any = None) -> Plan:
    """Find where a network enlarges and halves maps, by running it at two sizes; it stays as it is.

    Args:
        model: any module whose code is Python; run in evaluation mode without gradients.
        example: what it is called with: a tensor, a tuple of arguments, or a dictionary of named ones.
        second: the same at another size; default ``example`` with 32 rows and columns more. ``example`` itself where
            the network takes no other size.

    Returns:
        Every call of ``F.interpolate`` on maps (also that of ``nn.Upsample``), of max and average pooling, and of
        convolutions that make maps smaller. An upsampling is to be replaced where it doubles both sizes in both runs
        and does not enlarge the network's output; its guide is the map that its result is next concatenated with or
        added to, followed back to what there was before the call.

    Raises:
        UserError: the network is wrapped or scripted, it cannot be run, or its sites are already replaced.
    """
    return Finder(model, example, second).plan


class Finder:
    """The two runs of a network and the plan that follows.

    Args:
        model: see :func:`find_sites`.
        example: likewise.
        second: likewise.

    Attributes:
        plan: see :func:`find_sites`.
    """

    def __init__(self, model: nn.Module, example: Any, second: Any = None) -> None:
        check_model(model)
        self._first = _run(model, example, FIRST)
        larger = _enlarged(example) if second is None else second
        what = f"example, enlarged by {GROWTH} pixels" if second is None else "second example"
        self._second = self._first if second is example else _run(model, larger, what)
        self._groups, others = _grouped(self._first), _grouped(self._second)
        sites = [self._site(key, group, others.get(key, [])) for key, group in self._groups.items()]
        self.plan = Plan(type(model).__name__, tuple(site for site in sites if site is not None))

    def _site(self, key: str, group: list[Occurrence], others: list[Occurrence]) -> Site | None:
        first = group[0]
        in_size, out_size = first.map.size, first.result.size
        if in_size is None or out_size is None or (first.kind not in UPWARDS and not halves(first)):
            return None
        guide = self._common_guide(group, others) if first.kind in UPWARDS else None
        verdict, why = (verdict_up if first.kind in UPWARDS else verdict_down)(group, others)
        if verdict == REPLACE and guide is None and self._is_final(first):
            verdict, why = OPTIONAL, "x2, but it enlarges the network's output"
        if verdict == REPLACE and first.options.get("align_corners"):
            why = "x2; its corners are aligned, those of operators are not"
        channels = (first.result if first.kind == CONV else first.map).tensor.shape[1]
        return Site(
            key, first.owner.path, type(first.owner.module).__name__, first.index, first.kind, in_size, out_size,
            channels, how(first), guide, verdict, why, len(group),
        )  # fmt: skip

    def _common_guide(self, group: list[Occurrence], others: list[Occurrence]) -> Source | None:
        """Return what is the guide at each time that the call happens, at both sizes; None where they differ."""
        found = {find_guide(self._first, each) for each in group} | {find_guide(self._second, each) for each in others}
        return found.pop() if len(found) == 1 else None

    def _is_final(self, occurrence: Occurrence) -> bool:
        """Whether the result reaches the network's output and meets no weights on the way."""
        reached = {id(occurrence.result)}
        for value in self._first.values:
            if not value.weighted and any(id(each) in reached for each in value.inputs):
                reached.add(id(value))
        return any(id(each) in reached for each in self._first.results)

    def _occurrence(self, site: Site) -> Occurrence:
        if site.id not in self._groups:
            raise UserError(f"the plan's site {site.id} is not called with this example; find the sites anew.")
        return self._groups[site.id][0]

    def module_guide(self, site: Site, path: str) -> Source:
        """Return the output of a module as the guide of a site.

        Raises:
            UserError: no such module ran before the site, or its maps have another size.
        """
        occurrence = self._occurrence(site)
        ran = [call for call in self._first.calls if call.path == path and -1 < call.ended <= occurrence.time]
        if not ran:
            raise UserError(f"guides: no module {shown(path)} runs before {site.id}; give the path of one that does.")
        for value in self._first.values:
            for call, keys in value.outputs:
                if call is ran[-1] and value.size == site.out_size:
                    around = {id(each) for each in call.chain()}
                    scope = next(each for each in occurrence.owner.chain() if id(each) in around)
                    return _output_source(self._first, scope, call, keys, value)
        height, width = site.out_size
        raise UserError(f"guides: {path} gives no map of {height}x{width}, which {site.id} needs; name another module.")

    def function_guide(self, site: Site, function: Callable[..., Any]) -> Source:
        """Return what a function of the owner's call gives as the guide of a site.

        Raises:
            UserError: it gives no map of the site's result's size.
        """
        owner = self._occurrence(site).owner
        with torch.no_grad():
            guide = function(owner.module, owner.args, owner.kwargs)
        if not isinstance(guide, Tensor) or guide.ndim != 4 or tuple(guide.shape[-2:]) != site.out_size:
            height, width = site.out_size
            raise UserError(
                f"guides: the function for {site.id} must return a map (N, C, {height}, {width}) for the example, got "
                f"{tuple(guide.shape) if isinstance(guide, Tensor) else type(guide).__name__}."
            )
        return Source(owner.path, "", -1, "", (), guide.shape[1])

    def input_guide(self, site: Site) -> Source:
        """Return the network's input, averaged to the size of a site's result, as its guide.

        Raises:
            UserError: no argument of the network is a map.
        """
        for place, keys, value in self._first.root.arguments:
            if value.size is not None and value.tensor.is_floating_point():
                source = _argument_source(self._first.root, place, keys, value)
                return dataclasses.replace(source, pooled=True)
        raise UserError(
            "unguided=input needs a network that is given a map (N, C, H, W); name a blind operator instead."
        )


def check_model(model: Any) -> None:
    """Refuse what cannot be looked into.

    Raises:
        UserError: no module, one that wraps another, a compiled or scripted one, or one with replaced sites.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"a network must be a torch.nn.Module, got {type(model).__name__}.")
    wrapper = next((each.__name__ for each in type(model).__mro__ if each.__name__ in _WRAPPERS), None)
    if wrapper:
        raise UserError(f"the network is wrapped by {wrapper}; replace before wrapping, or give the module inside.")
    for path, module in model.named_modules():
        where = f"the module {path}" if path else "the network"
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(f"{where} is scripted, so that its calls cannot be replaced; give the Python module.")
        if type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
            raise UserError(f"{where} is compiled; replace first, then compile.")
        if "resampling_role" in vars(module):
            raise UserError(f"{where} has replaced sites already; undo them first, or choose all sites in one call.")
        if "forward" in vars(module):
            raise UserError(f"{where} has a forward of its own beside its class, which would win; remove it first.")


class ExampleError(UserError):
    """A network cannot be run on an example.

    Args:
        what: which example.
        reason: what it said.

    Attributes:
        reason: likewise.
        is_first: whether it is the one that was given first.
    """

    def __init__(self, what: str, reason: str) -> None:
        self.reason, self.is_first = reason, what == FIRST
        remedy = "give an example that it takes"
        if not self.is_first:
            remedy = "give as second another size that it takes, or the example again where it takes no other"
        super().__init__(f"the network cannot be run on the {what}: {reason}; {remedy}.")


_WRAPPERS = {"DistributedDataParallel", "DataParallel", "FullyShardedDataParallel", "FSDPModule"}


def find_guide(recording: Recording, site: Occurrence) -> Source | None:
    """Return where the map comes from that a result is next concatenated with or added to; None where there is none."""
    derived = {id(site.result)}
    for value in recording.values:
        if not any(id(each) in derived for each in value.inputs):
            continue
        derived.add(id(value))
        partners = [
            each
            for each in value.inputs
            if id(each) not in derived and not each.weight and each.size == site.result.size
        ]
        if partners and value.made_by in _COMBINES:
            return _trace_back(recording, site, partners, derived)
    return None


def _trace_back(recording: Recording, site: Occurrence, partners: Sequence[Value], derived: set[int]) -> Source | None:
    waiting, seen = deque(partners), set(derived)
    while waiting:
        value = waiting.popleft()
        if id(value) in seen or value.weight:
            continue
        seen.add(id(value))
        if value.time < site.time and value.size == site.result.size and value.native:
            source = _source(recording, site, value)
            if source is not None:
                return source
        waiting.extend(value.inputs)
    return None


def _source(recording: Recording, site: Occurrence, value: Value) -> Source | None:
    """Say where a map is found when the site is called: nearest scope first, and there arguments first."""
    for scope in site.owner.chain():
        for place, keys, each in scope.arguments:
            if each is value:
                return _argument_source(scope, place, keys, value)
        inside = [
            (call, keys)
            for call, keys in value.outputs
            if call.ended < site.time and call is not scope and any(each is scope for each in call.chain())
        ]
        if inside:  # the outermost module comes last
            return _output_source(recording, scope, *inside[-1], value)
    return None


def _argument_source(scope: Call, place: int | str, keys: tuple[Any, ...], value: Value) -> Source:
    position = place if isinstance(place, int) else -1
    return Source(scope.path, None, position, scope.argument_name(place), keys, value.tensor.shape[1])


def _output_source(recording: Recording, scope: Call, call: Call, keys: tuple[Any, ...], value: Value) -> Source:
    before = [
        each
        for each in recording.calls
        if each.path == call.path and each.began < call.began and any(one is scope for one in each.chain())
    ]
    return Source(scope.path, call.path, len(before), "", keys, value.tensor.shape[1])


def _run(model: nn.Module, example: Any, what: str) -> Recording:
    args, kwargs = as_arguments(example)
    recording = Recording(model)
    try:
        recording.run(args, kwargs)
    except Exception as error:
        reason = f"{type(error).__name__}: {shown(' '.join(str(error).split()))}"
        raise ExampleError(what, reason) from error
    return recording


def as_arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and named arguments of an example: a tensor (or list), a tuple, or a dictionary."""
    if isinstance(example, tuple):
        return example, {}
    if isinstance(example, Mapping):
        return (), dict(example)
    if not any(True for _ in tensors(example)):
        raise UserError(
            f"the example must be a tensor, a tuple of arguments or a dictionary of named ones, got {shown(example)}."
        )
    return (example,), {}


def _enlarged(nested: Any) -> Any:
    if isinstance(nested, Tensor):
        if nested.ndim < 3 or not nested.is_floating_point():
            return nested
        size = [each + GROWTH for each in nested.shape[-2:]]
        maps = nested if nested.ndim == 4 else nested.unsqueeze(0)
        larger = F.interpolate(maps, size=size, mode="nearest")
        return larger if nested.ndim == 4 else larger.squeeze(0)
    if isinstance(nested, Mapping):
        return {key: _enlarged(each) for key, each in nested.items()}
    if isinstance(nested, list | tuple):
        return type(nested)([_enlarged(each) for each in nested])
    return nested


def _grouped(recording: Recording) -> dict[str, list[Occurrence]]:
    groups: dict[str, list[Occurrence]] = {}
    for each in recording.occurrences:
        groups.setdefault(site_id(each.owner.path, each.kind, each.index), []).append(each)
    return groups
