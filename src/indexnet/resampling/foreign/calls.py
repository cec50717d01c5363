"""What a network with replaced sites does when it is called.

Modules that own a site get a subclass whose ``forward`` runs under a function mode. The mode sees every call that torch
lets modes see, counts the resampling ones, and gives those that are replaced to their stage. Guides travel the same
way: a module whose output guides another announces it to the modes around it, and a mode keeps what its sites need
until they have used it. So nothing is kept on modules, and threads and replicas do not meet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, handle_torch_function

from indexnet.core.errors import UserError
from indexnet.resampling.base import ResamplingStage
from indexnet.resampling.foreign.plan import Source
from indexnet.resampling.foreign.recording import undisturbed
from indexnet.resampling.functional import pad_to_even
from indexnet.resampling.pooling import GuidedStage


@dataclass
class Role:
    """What a module has to do with replaced sites.

    Attributes:
        path: of the module.
        is_owner: whether it makes resampling calls, which are counted.
        stages: attribute of the stage for each of its replaced calls.
        guides: where their guides come from.
        functions: those that give a guide of the owner's call.
        keeps: for each output that its sites or those inside need: how many sites use it in one call.
        is_scope: whether guides of sites inside of it are asked of it.
        announces: whether its output is a guide.
    """

    path: str
    is_owner: bool = False
    stages: dict[int, str] = field(default_factory=dict)
    guides: dict[int, Source] = field(default_factory=dict)
    functions: dict[int, Callable[..., Any]] = field(default_factory=dict)
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
        self.count = 0
        self.calls: dict[str, int] = {}
        self.kept: dict[tuple[str, int], Any] = {}
        self.uses = dict(role.keeps)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {} if kwargs is None else kwargs
        if func is F.interpolate:
            return self._interpolate(args, kwargs)
        if func is announce:
            self._hear(*args[1:])
        elif func is ask and args[1].scope == self.role.path:
            return self._find(args[1])
        return func(*args, **kwargs)

    def _interpolate(self, args: Any, kwargs: Any) -> Any:
        index = self.count
        self.count += 1
        if index not in self.role.stages:
            with undisturbed():  # modes of owners around must not count this call
                return F.interpolate(*args, **kwargs)
        stage = getattr(self.module, self.role.stages[index])
        x = args[0]
        size = target_size(x, *args[1:3], **kwargs)
        if (x.shape[-2], x.shape[-1]) != ((size[0] + 1) // 2, (size[1] + 1) // 2):
            raise UserError(
                f"{self.role.path or 'the network'}, call {index}: a map of {x.shape[-2]}x{x.shape[-1]} is to become "
                f"{size[0]}x{size[1]}, which is not x2; give images whose sizes the network's strides divide."
            )
        guide, source = self._guide(index), self.role.guides.get(index)
        with undisturbed():
            if source is not None and source.pooled:
                guide = F.adaptive_avg_pool2d(guide, size)
            return _upsample(stage, x, guide, size, f"{self.role.path or 'the network'}, call {index}")

    def _guide(self, index: int) -> Any:
        function = self.role.functions.get(index)
        if function is not None:
            return function(self.module, self.args, self.kwargs)
        source = self.role.guides.get(index)
        if source is None:
            return None
        guide = self._find(source) if source.scope == self.role.path else ask(_Message(), source)
        if guide is None:
            raise UserError(
                f"{self.role.path or 'the network'}, call {index}: its guide, {source}, is not there; call the whole "
                f"network as in the example, not a part of it."
            )
        return guide

    def _hear(self, output: Any, path: str) -> None:
        call = self.calls.get(path, 0)
        self.calls[path] = call + 1
        if (path, call) in self.uses:
            self.kept[path, call] = output

    def _find(self, source: Source) -> Any:
        if source.module is None:
            value = self._argument(source)
        else:
            key = (source.module, source.call)
            value = self.kept.get(key)
            self.uses[key] = self.uses.get(key, 1) - 1
            if self.uses[key] <= 0:
                self.kept.pop(key, None)
        for step in source.keys:
            value = None if value is None else value[step]
        return value

    def _argument(self, source: Source) -> Any:
        if 0 <= source.call < len(self.args):
            return self.args[source.call]
        return self.kwargs.get(source.name)


def _upsample(stage: ResamplingStage, x: Tensor, guide: Tensor | None, size: tuple[int, int], where: str) -> Tensor:
    if guide is None or not isinstance(stage, GuidedStage):
        return stage.up(x, guide, size)
    if tuple(guide.shape[-2:]) != size:
        height, width = guide.shape[-2:]
        raise UserError(
            f"{where}: its guide has {height}x{width} pixels but the map becomes {size[0]}x{size[1]}; give images "
            "whose sizes the network's strides divide."
        )
    return stage.up(x, stage.create_guide(pad_to_even(guide)), size)


def target_size(x: Tensor, size: Any = None, scale_factor: Any = None, **_: Any) -> tuple[int, int]:
    """Return the (height, width) that ``F.interpolate`` gives for its arguments."""
    if size is not None:
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return height, width
    rows, columns = scale_factor if isinstance(scale_factor, list | tuple) else (scale_factor, scale_factor)
    return int(x.shape[-2] * rows), int(x.shape[-1] * columns)


def play(module: nn.Module, role: Role) -> None:
    """Give a module its role: its class becomes a subclass with another ``forward``."""
    plain = type(module)

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

    names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    module.resampling_role = role  # type: ignore[assignment]
    module.__class__ = type(plain.__name__, (plain,), {"forward": forward, **names})


def stop_playing(module: nn.Module) -> None:
    """Take away a module's role and the stages of its sites; of a module without one, nothing."""
    role = vars(module).get("resampling_role")
    if role is None:
        return
    for name in role.stages.values():
        delattr(module, name)
    module.__class__ = type(module).__bases__[0]
    del module.resampling_role
