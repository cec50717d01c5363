"""Networks on images that are larger than the memory at hand: overlapping tiles, of which the cores are kept.

What looks at the whole image (the context module with its global pooling) is not cut: a first pass over the tiles
gathers its input, exactly as the whole image would give it, the module runs once on that, and the second pass takes
its tile's part of the result. So tiles differ from the whole image only by what the encoder and the decoder see beyond
a tile's margin.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from indexnet.core.console import note
from indexnet.networks.tiled.memory import uncompiled

MARGIN = 224
"""Pixels that a tile sees around its core; what that leaves of seams is in docs/large_images.md."""

_POOLING = re.compile(r"Squeeze|SEModule|SELayer|EcaModule|GlobalContext")  # names of timm's

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Box:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, array: Any, origin: tuple[int, int] = (0, 0), stride: int = 1) -> Any:
        """Return this part of an array (..., H, W) whose first element is at ``origin``, one for ``stride`` pixels."""
        row, column = origin
        return array[
            ...,
            (self.top - row) // stride : (self.bottom - row) // stride,
            (self.left - column) // stride : (self.right - column) // stride,
        ]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True)
class Tile:
    """A part of an image.

    Attributes:
        core: what is kept.
        window: what the network sees: the core and a margin, cut at the image's border.
    """

    core: Box
    window: Box

    @property
    def origin(self) -> tuple[int, int]:
        """The window's first pixel."""
        return self.window.top, self.window.left


def tile_of(core: Box, size: tuple[int, int], margin: int) -> Tile:
    """Put a margin around a core, inside an image of ``size`` (H, W)."""
    top, left = max(0, core.top - margin), max(0, core.left - margin)
    return Tile(core, Box(top, min(size[0], core.bottom + margin), left, min(size[1], core.right + margin)))


def smallest_tile(size: tuple[int, int], multiple: int, margin: int) -> int:
    """Return the pixels of the smallest window that :func:`plan_tiles` can make; arguments as there."""
    return math.prod(min(side, multiple + 2 * margin) for side in size)


def plan_tiles(size: tuple[int, int], pixels: int, multiple: int, margin: int) -> list[Tile]:
    """Cut an image into the grid of tiles that costs least, margins included, with windows of at most ``pixels``.

    Args:
        size: (H, W), multiples of ``multiple``.
        pixels: the most that a window may have; at least :func:`smallest_tile`.
        multiple: what all edges are multiples of.
        margin: pixels around a core, a multiple of ``multiple``.
    """
    rows, columns = _cuts(size[0], multiple, margin), _cuts(size[1], multiple, margin)
    fitting = [(high * wide, r, c) for r, high, largest_r in rows for c, wide, largest_c in columns
               if largest_r * largest_c <= pixels]  # fmt: skip
    _, row_edges, column_edges = min(fitting, key=lambda cut: (cut[0], len(cut[1]) * len(cut[2])))
    return [
        tile_of(Box(top, bottom, left, right), size, margin)
        for top, bottom in pairwise(row_edges)
        for left, right in pairwise(column_edges)
    ]


def _cuts(side: int, multiple: int, margin: int) -> list[tuple[list[int], int, int]]:
    """Return every even cut of one side: its edges, the sum of its windows and the largest of them."""
    units, found = side // multiple, []
    for parts in range(1, units + 1):
        edges = [round(part * units / parts) * multiple for part in range(parts + 1)]
        windows = [min(side, end + margin) - max(0, begin - margin) for begin, end in pairwise(edges)]
        found.append((edges, sum(windows), max(windows)))
    return found


def shrink_to(tile: Tile, wanted: NDArray[np.bool_], multiple: int, margin: int) -> Tile | None:
    """Cut a tile down to what is wanted of its core; None where that is nothing.

    Args:
        tile: of an image like ``wanted``.
        wanted: (H, W), which pixels are.
        multiple: what all edges are multiples of.
        margin: pixels around a core.
    """
    part = tile.core.of(wanted)
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    if not rows.size:
        return None
    core = Box(
        tile.core.top + rows[0] // multiple * multiple,
        tile.core.top + (rows[-1] // multiple + 1) * multiple,
        tile.core.left + columns[0] // multiple * multiple,
        tile.core.left + (columns[-1] // multiple + 1) * multiple,
    )
    return tile_of(core, (wanted.shape[0], wanted.shape[1]), margin)


@torch.no_grad()
def run_tiled(
    network: nn.Module,
    x: Tensor,
    wanted: NDArray[np.bool_],
    pixels: int,
    multiple: int,
    margin: int = MARGIN,
) -> NDArray[np.float32]:
    """Run a network of one output channel tile by tile.

    Args:
        network: in evaluation mode. Modules in it with a true attribute ``whole_image`` run once on the whole image;
            each maps one tensor (N, C, h, w) to one of the same height and width, in the order of ``modules()``.
        x: (1, C, H, W), on any device; height and width are multiples of ``multiple``.
        wanted: (H, W), which pixels of the result are needed; what no tile with such pixels holds is zero.
        pixels: the most that a tile may have.
        multiple: what tiles are aligned to: a multiple of the network's total stride.
        margin: pixels that a tile sees around its core; rounded up to ``multiple``.

    Returns:
        (H, W), float32.
    """
    margin = math.ceil(margin / multiple) * multiple
    size = (x.shape[2], x.shape[3])
    parameter = next(network.parameters())
    tiles = plan_tiles(size, pixels, multiple, margin)
    result = np.zeros(size, np.float32)
    current = tiles[0]
    whole_image = [module for module in network.modules() if getattr(module, "whole_image", False)]
    total, done = len(tiles) * (1 + len(whole_image)), 0

    def run(tile: Tile) -> Tensor:
        nonlocal current, done
        current = tile
        done += 1
        note(f"tile {done} of {total}")
        part = tile.window.of(x).to(device=parameter.device, dtype=parameter.dtype)
        with _AlignedCorners(tile, size):
            return network(part)  # type: ignore[no-any-return]

    def of_whole(output: Tensor, _: Tensor) -> Tensor:
        return current.window.of(output, stride=size[0] // output.shape[2])  # type: ignore[no-any-return]

    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        for module in whole_image:
            whole = module(_gather(module, run, tiles, size))
            stack.enter_context(_replaced(module, partial(of_whole, whole)))
        for cell in tiles:
            tile = shrink_to(cell, wanted, multiple, margin)
            if tile is None:
                total -= 1
                continue
            core = tile.core.of(run(tile)[0, 0], tile.origin)
            tile.core.of(result)[...] = core.float().cpu().numpy()
    return result


_AVERAGING = (nn.AdaptiveAvgPool2d, nn.GroupNorm, nn.InstanceNorm2d)


def needs_whole_image(network: nn.Module) -> bool:
    """Return whether tiles would give a network other results: whether it says so (``takes_tiles``), or pools.

    Pooling over the whole image by parts that do not run once on it, as squeeze-and-excitation in an encoder's blocks,
    the kernels of A2U, or group normalisation in an operator: tiles have other means.
    """
    if not getattr(network, "takes_tiles", True):
        return True
    once = {part for module in network.modules() if getattr(module, "whole_image", False) for part in module.modules()}
    return any(
        module not in once and (isinstance(module, _AVERAGING) or _POOLING.search(type(module).__name__))
        for module in network.modules()
    )


class _Reached(Exception):  # noqa: N818  nothing is wrong
    """The module whose input is wanted has been reached."""


def _gather(module: nn.Module, run: Callable[[Tile], Tensor], tiles: Sequence[Tile], size: tuple[int, int]) -> Tensor:
    """Return what a module inside a network would get for the whole image."""
    seen: list[Tensor] = []

    def stop(x: Tensor) -> Tensor:
        seen.append(x)
        raise _Reached

    whole: Tensor | None = None
    with _replaced(module, stop):
        for tile in tiles:
            try:
                run(tile)
            except _Reached:
                part = seen.pop()
            stride = tile.window.size[0] // part.shape[2]
            if whole is None:
                whole = part.new_empty((*part.shape[:2], *(side // stride for side in size)))
            tile.core.of(whole, stride=stride)[...] = tile.core.of(part, tile.origin, stride)
    assert whole is not None
    return whole


@contextmanager
def _replaced(module: nn.Module, forward: Run) -> Iterator[None]:
    """Let a module compute something else for a while; its hooks stay."""
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]


class _AlignedCorners(TorchFunctionMode):
    """Bilinear interpolation with aligned corners as the whole image has it: its positions depend on the size."""

    def __init__(self, tile: Tile, size: tuple[int, int]) -> None:
        super().__init__()
        self.tile, self.whole = tile, size

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.interpolate or not kwargs.get("align_corners") or kwargs.get("mode") != "bilinear":
            return func(*args, **kwargs)
        x, size = args[0] if args else kwargs["input"], kwargs.get("size")
        if size is None:
            factor = kwargs["scale_factor"]
            size = [int(side * factor) for side in x.shape[2:]]
        for axis in (0, 1):
            x = self._resize(x, axis, size[axis])
        return x

    def _resize(self, x: Tensor, axis: int, target: int) -> Tensor:
        """Interpolate along one axis of a window to ``target`` values."""
        dim, source = axis + 2, x.shape[axis + 2]
        window, whole, begin = self.tile.window.size[axis], self.whole[axis], self.tile.origin[axis]
        all_source, all_target = whole * source // window, whole * target // window
        position = torch.arange(target, device=x.device, dtype=torch.float64) + begin * target / window
        position = position * ((all_source - 1) / max(1, all_target - 1)) - begin * source / window
        position = position.clamp(0, source - 1)
        first = position.floor()
        weight = (position - first).to(x.dtype)
        shape = [-1 if other == dim else 1 for other in range(x.dim())]
        low = first.long()
        high = (low + 1).clamp(max=source - 1)
        return torch.lerp(x.index_select(dim, low), x.index_select(dim, high), weight.reshape(shape))
