"""The index stage's tail on a GPU: by Triton kernels, operation by operation, and as ``torch.compile`` makes it.

Pooling and the weighted skip at all resolutions at which the matting network has index stages, then upsampling at all
of them, forward and backward, from logits that are there already. In a compiled form pooling is one graph and
upsampling another, as far apart as in a network. Triton's form is to be used where it takes at most 0.9 of the time
that the compiled readable form takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from indexnet.benchmarks.base import BenchOptions, Figure, Progress, check_equal, time_figures
from indexnet.benchmarks.stages import SITES
from indexnet.core.errors import UserError
from indexnet.inference.operator_costs import clock_of
from indexnet.resampling.functional import indexed_pool_with_skip, indexed_upsample, normalise_indices
from indexnet.resampling.fused import operators, tail

PART = "kernels"
COMPILED, READABLE, ONE_PASS = "compiled", "readable", "one pass"
TRITON, TRITON_COMPILED, MOVED = "Triton", "Triton, compiled", "bytes moved"
TARGET = 0.9
CASES = {  # as runs are by default, and as fast ones
    "channels-first, float32": (torch.contiguous_format, torch.float32, 1e-3),
    "channels-last, bfloat16": (torch.channels_last, torch.bfloat16, 2e-2),
}
"""Formats, and how much forms may differ, in norm."""

TILES = (256, 128, 512, 1024)
"""Sizes of the kernels' tiles: the one that is in use, and others."""

Maps = list[Tensor]
Pool = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
Upsample = Callable[[Tensor, Tensor], Tensor]


class Sites:
    """The maps of all resolutions, and the gradients that come back.

    Args:
        shared: whether one index map serves all channels.
        memory: format of the maps and, as a convolution leaves them, of the logits.
        dtype: of all.
        batch: images.
        crop: side of the image in pixels, a multiple of 32.
        device: where.
    """

    def __init__(
        self, shared: bool, memory: torch.memory_format, dtype: torch.dtype, batch: int, crop: int, device: torch.device
    ) -> None:
        torch.manual_seed(0)

        def maps(columns: int, factor: int, own: bool = True) -> Maps:
            return [
                torch.randn(
                    batch,
                    columns * (c if own else 1),
                    crop // stride // factor,
                    crop // stride // factor,
                    device=device,
                ).to(dtype, memory_format=memory)
                for c, stride in SITES
            ]

        def packed() -> Maps:
            return [each.unflatten(1, (4, -1)).transpose(1, 2) for each in maps(4, 2, not shared)]

        self.inputs = maps(1, 1), packed(), maps(1, 2)
        self.upstream = [*maps(1, 2), *maps(1, 1), *packed(), *maps(1, 1)]

    def run(self, pool: Pool, upsample: Upsample, compiler: str | None = None) -> Callable[[], Maps]:
        """Return what pools and upsamples at all sites, and hands out results and gradients."""

        def pool_all(x: Maps, logits: Maps) -> tuple[Maps, Maps, Maps]:
            found = [pool(*each) for each in zip(x, logits, strict=True)]
            return [one for one, _, _ in found], [one for _, one, _ in found], [one for _, _, one in found]

        def upsample_all(low: Maps, decoders: Maps) -> Maps:
            return [upsample(*each) for each in zip(low, decoders, strict=True)]

        first, second = _compiled(pool_all, compiler), _compiled(upsample_all, compiler)

        def once() -> Maps:
            x, logits, low = ([each.detach().requires_grad_() for each in all_] for all_ in self.inputs)
            pooled, weighted, decoders = first(x, logits)
            results = [*pooled, *weighted, *decoders, *second(low, decoders)]
            return [*results, *torch.autograd.grad(results, [*x, *logits, *low], self.upstream)]

        return once

    def moved(self) -> Callable[[], object]:
        """Return what copies as many bytes as the kernels have to read and to write, the least that they can take."""
        x, logits, low = (sum(each.nbytes for each in all_) for all_ in self.inputs)
        pool, upsample = 2 * x + low + 2 * logits, x + low + logits
        pool_backward, upsample_backward = 3 * x + low + 3 * logits, x + 2 * low + 2 * logits
        size = (pool + upsample + pool_backward + upsample_backward) // 2
        source, target = (torch.empty(size, dtype=torch.uint8, device=self.upstream[0].device) for _ in range(2))
        return lambda: target.copy_(source)

    def by_tiles(self, tile: int) -> Callable[[], object]:
        """Return what runs all four kernels at all sites in tiles of a size."""
        from indexnet.resampling.fused import kernels

        places = range(len(SITES))
        pooled, weighted, decoders, out = (self.upstream[k * len(SITES) :][: len(SITES)] for k in range(4))
        to_low, to_full, to_packed = ([torch.empty_like(each) for each in kind] for kind in (pooled, out, decoders))

        def once() -> None:
            for k, x, logits, low in zip(places, *self.inputs, strict=True):
                kernels.pool(x, logits, to_low[k], to_full[k], to_packed[k], tile)
                kernels.upsample(low, decoders[k], to_full[k], tile)
                kernels.upsample_backward(low, decoders[k], out[k], to_low[k], to_packed[k], tile)
                upstream = (pooled[k], weighted[k], decoders[k])
                kernels.pool_backward(x, decoders[k], upstream, to_full[k], to_packed[k], tile)

        return once


def _compiled(function: Callable[..., Any], compiler: str | None) -> Callable[..., Any]:
    return torch.compile(function, backend=compiler, fullgraph=True, dynamic=False) if compiler else function


def readable_pool(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pool by the functions of :mod:`indexnet.ops`, as an index network does."""
    encoder, decoder = normalise_indices(logits)
    return *indexed_pool_with_skip(x, encoder.to(x.dtype)), decoder


def forms(sites: Sites, compiler: str = "inductor") -> dict[str, Callable[[], Maps]]:
    """Return every form, by name; the readable one first."""
    found = {READABLE: sites.run(readable_pool, indexed_upsample)}
    with operators.triton_form(on=False):
        one_pass = all(map(tail.in_one_pass, *sites.inputs[:2]))
    if one_pass:
        found[ONE_PASS] = sites.run(tail.pool_by_logits, tail.upsample_by_indices)
    found[COMPILED] = sites.run(readable_pool, indexed_upsample, compiler)
    kernels: tuple[Any, Any] = (operators.pool_by_logits, operators.upsample_by_indices)
    return {**found, TRITON: sites.run(*kernels), TRITON_COMPILED: sites.run(*kernels, compiler)}


def check_forms(case: str, found: dict[str, Callable[[], Maps]], tolerance: float) -> None:
    """Compare results and gradients of all forms with those of the readable one.

    Raises:
        RuntimeError: they differ.
    """
    expected = found[READABLE]()
    for name, form in found.items():
        for value, wanted in zip(form(), expected, strict=True):
            check_equal(PART, case, name, value.float(), wanted.float(), tolerance)


def figures(options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure with 16 crops of 320 pixels, with an index map for each channel and with one for all; ``quick``: 2 of 64.

    Raises:
        UserError: the device is none of CUDA.
        RuntimeError: two forms give different results.
    """
    if options.device.type != "cuda":
        raise UserError(f"bench {PART} measures kernels for CUDA, not for {options.device}; give a CUDA device.")
    batch, crop = (2, 64) if options.quick else (16, 320)
    found: list[Figure] = []
    for shared in (False, True):
        for name, (memory, dtype, tolerance) in CASES.items():
            case = f"{'one map' if shared else 'a map each'}, {name}"
            progress(case)
            torch.compiler.reset()
            sites = Sites(shared, memory, dtype, batch, crop, options.device)
            timed = forms(sites)
            check_forms(case, timed, tolerance)
            tiles = {f"tiles of {tile}": sites.by_tiles(tile) for tile in TILES}
            groups: tuple[tuple[Mapping[str, Callable[[], object]], str], ...] = (
                ({**timed, MOVED: sites.moved()}, COMPILED),
                (tiles, next(iter(tiles))),
            )
            for group, reference in groups:
                repeated = {form: partial(_repeat, function) for form, function in group.items()}
                found += time_figures(
                    PART, case, repeated, options.turns, options.threads, reference=reference,
                    targets=dict.fromkeys((TRITON, TRITON_COMPILED), TARGET), clock=clock_of(options.device),
                )  # fmt: skip
    return found


def _repeat(form: Callable[[], object], turn: int, times: int = 10) -> None:
    for _ in range(times):
        form()
