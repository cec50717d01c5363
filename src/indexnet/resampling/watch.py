"""Stages looked at while a network runs: what they hand over, and whether they double what they should."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from indexnet.resampling.base import Downsampled, Kept, Resampling, ResamplingStage
from indexnet.resampling.functional import SizeError

_WATCHED = ("down", "pass_through", "up", "up_and_skip")


@contextmanager
def watch_stages(resampling: Resampling) -> Iterator[list[list[Downsampled]]]:
    """Collect what every stage's ``down`` or ``pass_through`` returns while the block runs, and check its ``up``.

    For cost counts and pictures of index maps.

    Yields:
        One list per stage, with an entry for each forward pass inside the block; all are what the last one gave, so
        that no more than one map of a stage is held.

    Raises:
        UserError: a stage makes a map of another size than it was asked for; names the operator and both sizes.
    """
    seen: list[list[Downsampled]] = [[] for _ in resampling.stages]
    stages = [stage for stage in resampling.stages if isinstance(stage, ResamplingStage)]
    before = [{name: vars(stage)[name] for name in _WATCHED if name in vars(stage)} for stage in stages]
    try:
        for stage, results in zip(stages, seen, strict=True):
            _watch(stage, results)
        yield seen
    finally:
        for stage, own in zip(stages, before, strict=True):
            for name in _WATCHED:
                vars(stage).pop(name, None)
            vars(stage).update(own)


def _watch(stage: ResamplingStage, results: list[Downsampled]) -> None:
    doubling, fusing = stage.up, stage.up_and_skip

    def watched(method: Callable[..., Downsampled]) -> Callable[..., Downsampled]:
        def call(*args: Tensor, **kwargs: Tensor) -> Downsampled:
            result = method(*args, **kwargs)
            results[:] = [result] * (len(results) + 1)
            return result

        return call

    def up(x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        try:
            return _of_size(doubling(x, guide, size), size)
        except SizeError as error:
            stage.refuse(str(error).rstrip("."))

    def up_and_skip(x: Tensor, down: Kept) -> tuple[Tensor, Tensor]:
        try:
            result, skip = fusing(x, down)
            return _of_size(result, down.size), skip
        except SizeError as error:
            stage.refuse(str(error).rstrip("."))

    own = {"down": watched(stage.down), "pass_through": watched(stage.pass_through)}
    vars(stage).update(own, up=up, up_and_skip=up_and_skip)


def _of_size(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[-2:] != tuple(size):
        raise SizeError(f"up made a map of {x.shape[-2]}x{x.shape[-1]}, and was asked for one of {size[0]}x{size[1]}.")
    return x
