"""What a network with replaced sites does when it is called.

Modules that own a site get a subclass whose ``forward`` runs under a function mode. The mode sees every call that torch
lets modes see, counts the resampling ones, and gives those that are replaced to their stage. Guides travel the same
way: a module whose output guides another announces it to the modes around it, and a mode keeps what its sites need
until they have used it. So nothing is kept on modules, and threads and replicas do not meet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, handle_torch_function

from indexnet.core.errors import UserError
from indexnet.resampling.base import Downsampled, ResamplingStage
from indexnet.resampling.foreign.plan import CONV, TRANSPOSED, UPSAMPLE, Source, site_id
from indexnet.resampling.foreign.recording import call_options, kind_of, undisturbed
from indexnet.resampling.functional import pad_to_even


@dataclass
class Use:
    """A replaced call.

    Attributes:
        stage: attribute of the owner that holds the stage; or the stage, where another owner holds it: that of the
            upsampling that belongs to a downsampling.
        guide: where the guide of an upsampling comes from.
        function: gives the guide of the owner's call.
        hands_on: whether the guide that a downsampling makes is needed.
        idle: the owner's parameters that nothing uses meanwhile, and that get no gradients.
    """

    stage: str | ResamplingStage
    guide: Source | None = None
    function: Callable[..., Any] | None = None
    hands_on: bool = False
    idle: tuple[str, ...] = ()


@dataclass
class Role:
    """What a module has to do with replaced sites.

    Attributes:
        path: of the module.
        is_owner: whether it makes resampling calls, which are counted.
        uses: its replaced calls, by kind and number.
        keeps: for each output that its sites or those inside need: how many sites use it in one call.
        is_scope: whether guides of sites inside of it are asked of it.
        announces: whether its output is a guide.
    """

    path: str
    is_owner: bool = False
    uses: dict[tuple[str, int], Use] = field(default_factory=dict)
    keeps: dict[tuple[str, int], int] = field(default_factory=dict)
    is_scope: bool = False
    announces: bool = False


class _Message:
    """What makes torch hand a call to the modes around: with it among the arguments nobody checks for one."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return None  # no mode is left


def announce(message: _Message, output: Any, path: str) -> Any:
    """Tell the calls around that a module gave its output."""
    return handle_torch_function(announce, (message,), message, output, path)


def ask(message: _Message, source: Source) -> Any:
    """Ask the calls around for a guide; None where nobody has it."""
    return handle_torch_function(ask, (message,), message, source)


class SiteMode(TorchFunctionMode):
    """Acts while the ``forward`` of a module with replaced sites runs, see the top of this file."""

    def __init__(self, module: nn.Module, role: Role, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.module, self.role, self.args, self.kwargs = module, role, args, kwargs
        self.counts: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.kept: dict[tuple[str, int], Any] = {}
        self.waiting = dict(role.keeps)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {} if kwargs is None else kwargs
        kind = kind_of(func)
        if kind:
            return self._resample(kind, func, args, kwargs)
        if func is announce:
            self._hear(*args[1:])
        elif func is ask and args[1].scope == self.role.path:
            return self._find(args[1])
        return func(*args, **kwargs)

    def _resample(self, kind: str, func: Any, args: Any, kwargs: Any) -> Any:
        index = self.counts.get(kind, 0)
        self.counts[kind] = index + 1
        use = self.role.uses.get((kind, index))
        if use is None:
            with undisturbed():  # modes of owners around must not count this call
                return func(*args, **kwargs)
        stage = getattr(self.module, use.stage) if isinstance(use.stage, str) else use.stage
        named = call_options(kind, args, kwargs)
        x = named["input"]
        if kind == UPSAMPLE:
            return self._up(stage, use, x, target_size(**named), index)
        if kind == TRANSPOSED:
            x = self._up(stage, use, x, (2 * x.shape[-2], 2 * x.shape[-1]), index)
            project: Any = getattr(stage, "project", None)
            with undisturbed():
                return x if project is None else project(x)
        with undisturbed():
            if kind == CONV:
                x = _unstrided(func, **named)
            elif _floors(**named):
                x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
            _check_width(x, stage.channels, "map", site_id(self.role.path, kind, index))
            down: Downsampled = stage.down(x)
        if use.hands_on:
            name = site_id(self.role.path, kind, index)
            self._hear((down.guide, down.size), name)
            announce(_Message(), (down.guide, down.size), name)
        return down.features

    def _up(self, stage: Any, use: Use, x: Tensor, size: tuple[int, int], index: int) -> Tensor:
        where = f"{self.role.path or 'the network'}, call {index}"
        if (x.shape[-2], x.shape[-1]) != ((size[0] + 1) // 2, (size[1] + 1) // 2):
            raise UserError(
                f"{where}: a map of {x.shape[-2]}x{x.shape[-1]} is to become {size[0]}x{size[1]}, which is not x2; "
                "give images whose sizes the network's strides divide."
            )
        _check_width(x, stage.decoder_channels, "map", where)
        guide = self._guide(use, where)
        with undisturbed():
            result: Tensor = stage.up(x, _finished(stage, guide, use.guide, size, where), size)
        return result

    def _guide(self, use: Use, where: str) -> Any:
        if use.function is not None:
            return use.function(self.module, self.args, self.kwargs)
        source = use.guide
        if source is None:
            return None
        guide = self._find(source) if source.scope == self.role.path else ask(_Message(), source)
        if guide is None:
            raise UserError(
                f"{where}: its guide, {source}, is not there; call the whole network as in the example, not a part."
            )
        return guide

    def _hear(self, output: Any, path: str) -> None:
        call = self.calls.get(path, 0)
        self.calls[path] = call + 1
        if (path, call) in self.waiting:
            self.kept[path, call] = output

    def _find(self, source: Source) -> Any:
        if source.module is None:
            value = self._argument(source)
        else:
            key = (source.module, source.call)
            value = self.kept.get(key)
            self.waiting[key] = self.waiting.get(key, 1) - 1
            if self.waiting[key] <= 0:
                self.kept.pop(key, None)
        for step in source.keys:
            value = None if value is None else value[step]
        return value

    def _argument(self, source: Source) -> Any:
        if 0 <= source.call < len(self.args):
            return self.args[source.call]
        return self.kwargs.get(source.name)


def _finished(stage: Any, guide: Any, source: Source | None, size: tuple[int, int], where: str) -> Any:
    """Return what ``up`` takes as its guide: made of a map, unless a downsampling has made it."""
    if guide is None:
        return None
    if source is not None and source.made:
        guide, guided = guide
    else:
        guide = F.adaptive_avg_pool2d(guide, size) if source is not None and source.pooled else guide
        guided = (guide.shape[-2], guide.shape[-1])
    if guided != size:
        raise UserError(
            f"{where}: its guide is for {guided[0]}x{guided[1]} pixels but the map becomes {size[0]}x{size[1]}; give "
            "images whose sizes the network's strides divide."
        )
    if source is not None and source.made:
        return guide
    _check_width(guide, stage.channels, "guide", where)
    return stage.create_guide(pad_to_even(guide))


def _check_width(x: Tensor, wanted: int, what: str, where: str) -> None:
    if x.shape[1] != wanted:
        raise UserError(
            f"{where}: its {what} has {x.shape[1]} channels, and in the plan {wanted}: the plan is that of another "
            "network; find the sites anew."
        )


def _floors(kernel_size: Any, ceil_mode: bool = False, **_: Any) -> bool:
    """Whether a pool leaves a last row or column without partner out, which a stage would not."""
    first = kernel_size[0] if isinstance(kernel_size, list | tuple) else kernel_size
    return not ceil_mode and first == 2


def _unstrided(func: Any, input: Any, weight: Any, **options: Any) -> Tensor:
    result: Tensor = func(input, weight, **options | {"stride": 1})
    return result


def target_size(input: Tensor, size: Any = None, scale_factor: Any = None, **_: Any) -> tuple[int, int]:
    """Return the (height, width) that ``F.interpolate`` gives for its arguments."""
    if size is not None:
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return height, width
    rows, columns = scale_factor if isinstance(scale_factor, list | tuple) else (scale_factor, scale_factor)
    return int(input.shape[-2] * rows), int(input.shape[-1] * columns)


@functools.cache
def _playing(plain: Any) -> Any:
    """Return the subclass of a module's class that has a role; it prints, copies and pickles as the class does."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        role = self.resampling_role
        if role.is_owner or role.is_scope:
            with SiteMode(self, role, args, kwargs):
                output = plain.forward(self, *args, **kwargs)
        else:
            output = plain.forward(self, *args, **kwargs)
        if role.announces:
            announce(_Message(), output, role.path)
        return output

    def reduce(self: Any, protocol: Any) -> Any:
        reduced = plain.__reduce_ex__(self, protocol)  # (function, (class, ...), state, ...)
        return _revive, (plain, *reduced[1][1:]), *reduced[2:]

    names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    return type(plain.__name__, (plain,), {"forward": forward, "__reduce_ex__": reduce, **names})


def _revive(plain: Any, *arguments: Any) -> Any:
    subclass = _playing(plain)
    return subclass.__new__(subclass, *arguments)


def play(module: nn.Module, role: Role) -> None:
    """Give a module its role: its class becomes a subclass with another ``forward``."""
    for use in role.uses.values():
        for name in use.idle:
            module.get_parameter(name).requires_grad_(False)
    module.resampling_role = role  # type: ignore[assignment]
    plain: Any = type(module)
    module.__class__ = _playing(plain)


def stop_playing(module: nn.Module) -> None:
    """Take away a module's role and the stages of its sites; of a module without one, nothing."""
    role = vars(module).get("resampling_role")
    if role is None:
        return
    for use in role.uses.values():
        if isinstance(use.stage, str):
            delattr(module, use.stage)
        for name in use.idle:
            module.get_parameter(name).requires_grad_(True)
    module.__class__ = type(module).__bases__[0]
    del module.resampling_role
