"""One recorded run of a network: which module called what, and what every map was made of."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from indexnet.resampling.foreign.plan import CONV, POOL, TRANSPOSED, UPSAMPLE

Keys = tuple[str | int, ...]


@dataclass(eq=False)
class Value:
    """A tensor of the run.

    Attributes:
        tensor: itself, so that its identity is not given to another one.
        time: when it was made.
        made_by: name of the function that made it; empty for what came from outside.
        inputs: what it was made of.
        weight: whether it is a parameter, or made of parameters alone.
        weighted: whether a parameter took part in the last step.
        native: whether it has details of its own size, and is not just an enlarged smaller map.
        outputs: calls of modules that gave it, inner ones first, and the way to it in their outputs.
    """

    tensor: Tensor
    time: int
    made_by: str = ""
    inputs: tuple[Value, ...] = ()
    weight: bool = False
    weighted: bool = False
    native: bool = True
    outputs: list[tuple[Call, Keys]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of a map, None for what is no map."""
        return (self.tensor.shape[-2], self.tensor.shape[-1]) if self.tensor.ndim == 4 else None


@dataclass(eq=False)
class Call:
    """A call of a module.

    Attributes:
        path: of the module.
        module: itself.
        parent: the call in which it happened.
        arguments: position or name, way and value of each tensor that was given.
        args: what was given.
        kwargs: likewise, by name.
        began: when.
        ended: when; -1 while it runs.
        counts: how many calls of each kind it made itself.
    """

    path: str
    module: nn.Module
    parent: Call | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    began: int
    arguments: list[tuple[int | str, Keys, Value]] = field(default_factory=list)
    ended: int = -1
    counts: dict[str, int] = field(default_factory=dict)

    def chain(self) -> Iterator[Call]:
        """Give this call and those around it, innermost first."""
        call: Call | None = self
        while call is not None:
            yield call
            call = call.parent

    def argument_name(self, place: int | str) -> str:
        """Return the name of an argument given by position."""
        if isinstance(place, str):
            return place
        names = [
            f"*{each.name}" if each.kind is each.VAR_POSITIONAL else each.name
            for each in inspect.signature(self.module.forward).parameters.values()
        ]
        if names and names[-1].startswith("*") and place >= len(names) - 1:
            return f"{names[-1][1:]}[{place - len(names) + 1}]"
        return names[place] if place < len(names) else str(place)


@dataclass(eq=False)
class Occurrence:
    """One resampling call: the owner's call, its number there, the map, the result, and the function's arguments."""

    owner: Call
    index: int
    kind: str
    time: int
    map: Value
    result: Value
    options: dict[str, Any]


class Recording(TorchFunctionMode):
    """Runs a network once and keeps what happened.

    Attributes:
        values: every tensor, in the order of time.
        calls: every call of a module, likewise.
        occurrences: every resampling call, likewise.
        root: the call of the network.
        results: the maps that it returned.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.values: list[Value] = []
        self.calls: list[Call] = []
        self.occurrences: list[Occurrence] = []
        self.results: list[Value] = []
        self._latest: dict[int, Value] = {}
        self._stack: list[Call] = []
        self._time = 0

    @property
    def root(self) -> Call:
        return self.calls[0]

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Call the network in evaluation mode, without gradients; its state and random numbers stay as they are."""
        modes = {module: module.training for module in self.model.modules()}
        paths = {module: path for path, module in self.model.named_modules()}
        handles = []
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        try:
            self.model.eval()
            for module, path in paths.items():
                handles.append(module.register_forward_pre_hook(self._enter(path), with_kwargs=True, prepend=True))
                handles.append(module.register_forward_hook(self._leave, with_kwargs=True))
            with torch.no_grad(), torch.random.fork_rng(devices), self:
                self.model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
            for module, training in modes.items():
                module.training = training

    def _enter(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            parent = self._stack[-1] if self._stack else None
            call = Call(path, module, parent, args, kwargs, self._tick())
            given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
            call.arguments = [(place, keys, self._value(each)) for place, one in given for keys, each in tensors(one)]
            self.calls.append(call)
            self._stack.append(call)

        return hook

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call = self._stack.pop()
        call.ended = self._tick()
        for keys, tensor in tensors(output):
            self._value(tensor).outputs.append((call, keys))
            if not self._stack:
                self.results.append(self._value(tensor))

    def _tick(self) -> int:
        self._time += 1
        return self._time

    def _value(self, tensor: Tensor) -> Value:
        value = self._latest.get(id(tensor))
        if value is None:
            value = Value(tensor, self._tick(), weight=isinstance(tensor, nn.Parameter))
            self._add(value)
        return value

    def _add(self, value: Value) -> Value:
        self._latest[id(value.tensor)] = value
        self.values.append(value)
        return value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        begun = self._tick()
        inputs = tuple(
            self._value(each) for _, each in tensors((args, kwargs))
        )  # before: an operation in place makes a new value of one
        output = func(*args, **kwargs)
        made = [self._made(func, each, inputs) for _, each in tensors(output)]
        kind = kind_of(func)
        if kind and self._stack and made and inputs:
            owner = self._stack[-1]
            index = owner.counts.get(kind, 0)
            owner.counts[kind] = index + 1
            given = call_options(kind, args, kwargs)
            options = {"function": func, **{name: one for name, one in given.items() if not isinstance(one, Tensor)}}
            self.occurrences.append(Occurrence(owner, index, kind, begun, inputs[0], made[0], options))
        return output

    def _made(self, func: Any, tensor: Tensor, inputs: tuple[Value, ...]) -> Value:
        known = self._latest.get(id(tensor))
        if known is not None and known not in inputs:  # an attribute, such as a weight's data
            return known
        maps = [each.size for each in inputs if each.size is not None and not each.weight]
        enlarged = tensor.ndim == 4 and bool(maps) and all(_larger(tensor, size) for size in maps)
        others = [each for each in inputs if not each.weight]
        value = Value(
            tensor,
            self._tick(),
            made_by=getattr(func, "__name__", ""),
            inputs=inputs,
            weight=bool(inputs) and not others,
            weighted=any(each.weight for each in inputs),
            native=not enlarged and any(each.native for each in others),
        )
        return self._add(value)


def tensors(nested: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Tensor]]:
    """Give every tensor inside of lists, tuples and dictionaries, with the way to it."""
    if isinstance(nested, Tensor):
        yield keys, nested
    elif isinstance(nested, Mapping):
        for key, each in nested.items():
            yield from tensors(each, (*keys, key))
    elif isinstance(nested, list | tuple):
        for index, each in enumerate(nested):
            yield from tensors(each, (*keys, index))


def _larger(tensor: Tensor, size: tuple[int, int]) -> bool:
    return tensor.shape[-2] > size[0] and tensor.shape[-1] > size[1]


def kind_of(func: Any) -> str:
    """Return which kind of site a call of a function is; empty: none."""
    if func is F.interpolate:
        return UPSAMPLE
    if func is F.max_pool2d or func is F.avg_pool2d:
        return POOL
    if func is torch.conv_transpose2d:
        return TRANSPOSED
    return CONV if func is torch.conv2d else ""


_POSITIONS = {
    UPSAMPLE: ("input", "size", "scale_factor", "mode", "align_corners"),
    POOL: ("input", "kernel_size", "stride", "padding"),
    CONV: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    TRANSPOSED: ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
}


def call_options(kind: str, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a resampling call by their names."""
    return {**dict(zip(_POSITIONS[kind], args, strict=False)), **kwargs}


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Run a block in which none of torch's function modes acts."""
    with torch._C.DisableTorchFunction():
        yield
