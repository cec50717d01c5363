"""Triton kernels of :mod:`indexnet.resampling.fused.operators`: each map is read once or written once.

A program takes some cells of one row, for some channels, as tiles (channels, cells, 4) in float32, whatever the maps
are stored in. Maps are of three kinds, and all of a kind have the same strides: *full* (N, C, 2h, 2w), *low*
(N, C, h, w) and *packed* (N, C or 1, 4, h, w). Where channels share one index map, one program sums over all of them,
block by block, so that gradients are the same every time.
"""
# ruff: noqa: ANN001, ANN202, N803
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from indexnet.resampling.functional import is_channels_last

TILE = 256
"""Channels times cells of a tile."""


def pool(x: Tensor, logits: Tensor, pooled: Tensor, weighted: Tensor, decoder: Tensor, tile: int = TILE) -> None:
    """Write the last three maps, see :func:`indexnet.resampling.fused.tail.pool_by_logits`."""
    _launch(_pool, (weighted, x), (pooled,), (decoder, logits), tile, sums=False)


def pool_backward(
    x: Tensor, decoder: Tensor, upstream: tuple[Tensor, Tensor, Tensor], into_x: Tensor, into_logits: Tensor,
    tile: int = TILE,
) -> None:  # fmt: skip
    """Write the last two maps, from the gradients of the three that :func:`pool` writes."""
    pooled, weighted, indices = upstream
    _launch(_pool_backward, (into_x, x, weighted), (pooled,), (into_logits, decoder, indices), tile, sums=True)


def upsample(x: Tensor, decoder: Tensor, out: Tensor, tile: int = TILE) -> None:
    """Write the last map, see :func:`indexnet.resampling.fused.tail.upsample_by_indices`."""
    _launch(_upsample, (out,), (x,), (decoder,), tile, sums=False)


def upsample_backward(
    x: Tensor, decoder: Tensor, upstream: Tensor, into_x: Tensor, into_decoder: Tensor, tile: int = TILE
) -> None:
    """Write the last two maps, from the gradient of the one that :func:`upsample` writes."""
    _launch(_upsample_backward, (upstream,), (into_x, x), (into_decoder, decoder), tile, sums=True)


def _launch(
    kernel: Any, full: tuple[Tensor, ...], low: tuple[Tensor, ...], packed: tuple[Tensor, ...], tile: int, *, sums: bool
) -> None:
    """Run a kernel on maps of the three kinds; those that lie otherwise than the first of their kind are copied."""
    n, channels, h, w = low[0].shape
    shared = packed[0].shape[1] != channels
    if is_channels_last(full[0]):
        block = _block(channels)
        cells = min(tile // block, triton.next_power_of_2(w))
    else:
        cells = _block(w)
        block = min(tile // cells, triton.next_power_of_2(channels))
    grid = (n * h * triton.cdiv(w, cells), 1 if shared and sums else triton.cdiv(channels, block))
    maps = [_laid_out(each, kind[0]) for kind in (full, low, packed) for each in kind]
    strides = (*full[0].stride(), *low[0].stride(), *packed[0].stride())
    with torch.cuda.device_of(full[0]):
        kernel[grid](*maps, channels, h, w, *strides, SHARED=shared, C=block, J=cells)


def _block(size: int) -> int:
    """Return how much of the dimension along the memory a tile takes: a power of two that leaves little idle."""
    if size <= 32:
        return int(triton.next_power_of_2(size))
    return min((128, 64, 32), key=lambda block: triton.cdiv(size, block) * block)


def _laid_out(x: Tensor, like: Tensor) -> Tensor:
    return x if x.stride() == like.stride() else torch.empty_like(like, dtype=x.dtype).copy_(x)


@triton.jit
def _pool(
    weighted, x, pooled, decoder, logits, channels, h, w,
    fn, fc, fh, fw, ln, lc, lh, lw, pn, pc, pk, ph, pw, SHARED: tl.constexpr, C: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    full, low, there, packed, inside = _where(
        tl.program_id(1) * C, channels, h, w, fn, fc, fh, fw, ln, lc, lh, lw, pn, pc, pk, ph, pw, SHARED, C, J
    )  # fmt: skip
    indices = tl.sigmoid(tl.load(logits + packed, mask=inside, other=0.0).to(tl.float32))
    product = tl.load(x + full, mask=there, other=0.0).to(tl.float32) * _encoder(indices)
    tl.store(weighted + full, product, mask=there)
    tl.store(pooled + low, tl.sum(product, 2, keep_dims=True), mask=there)
    if SHARED:
        inside = inside & (tl.program_id(1) == 0)
    tl.store(decoder + packed, indices, mask=inside)


@triton.jit
def _pool_backward(
    into_x, x, of_weighted, of_pooled, into_logits, decoder, of_decoder, channels, h, w,
    fn, fc, fh, fw, ln, lc, lh, lw, pn, pc, pk, ph, pw, SHARED: tl.constexpr, C: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    begin = 0 if SHARED else tl.program_id(1) * C
    width = channels if SHARED else C
    full, low, there, packed, inside = _where(
        begin, channels, h, w, fn, fc, fh, fw, ln, lc, lh, lw, pn, pc, pk, ph, pw, SHARED, C, J
    )  # fmt: skip
    indices = tl.load(decoder + packed, mask=inside, other=0.0).to(tl.float32)
    encoder = _encoder(indices)
    into_encoder = tl.zeros((C, J, 4), tl.float32)
    for further in range(0, width, C):
        full, low, there, packed, inside = _where(
            begin + further, channels, h, w, fn, fc, fh, fw, ln, lc, lh, lw, pn, pc, pk, ph, pw, SHARED, C, J
        )  # fmt: skip
        both = tl.load(of_weighted + full, mask=there, other=0.0).to(tl.float32)
        both += tl.load(of_pooled + low, mask=there, other=0.0).to(tl.float32)
        into_encoder += both * tl.load(x + full, mask=there, other=0.0).to(tl.float32)
        tl.store(into_x + full, both * encoder, mask=there)
    if SHARED:
        into_encoder = tl.sum(into_encoder, 0, keep_dims=True)
    # through the softmax, then through the sigmoid
    into_indices = (into_encoder - tl.sum(into_encoder * encoder, 2, keep_dims=True)) * encoder
    into_indices += tl.load(of_decoder + packed, mask=inside, other=0.0).to(tl.float32)
    tl.store(into_logits + packed, into_indices * indices * (1 - indices), mask=inside)


@triton.jit
def _upsample(
    out, x, decoder, channels, h, w,
    fn, fc, fh, fw, ln, lc, lh, lw, pn, pc, pk, ph, pw, SHARED: tl.constexpr, C: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    full, low, there, packed, inside = _where(
        tl.program_id(1) * C, channels, h, w, fn, fc, fh, fw, ln, lc, lh, lw, pn, pc, pk, ph, pw, SHARED, C, J
    )  # fmt: skip
    indices = tl.load(decoder + packed, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + full, tl.load(x + low, mask=there, other=0.0).to(tl.float32) * indices, mask=there)


@triton.jit
def _upsample_backward(
    of_out, into_x, x, into_decoder, decoder, channels, h, w,
    fn, fc, fh, fw, ln, lc, lh, lw, pn, pc, pk, ph, pw, SHARED: tl.constexpr, C: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    begin = 0 if SHARED else tl.program_id(1) * C
    width = channels if SHARED else C
    full, low, there, packed, inside = _where(
        begin, channels, h, w, fn, fc, fh, fw, ln, lc, lh, lw, pn, pc, pk, ph, pw, SHARED, C, J
    )  # fmt: skip
    indices = tl.load(decoder + packed, mask=inside, other=0.0).to(tl.float32)
    into_indices = tl.zeros((C, J, 4), tl.float32)
    for further in range(0, width, C):
        full, low, there, packed, inside = _where(
            begin + further, channels, h, w, fn, fc, fh, fw, ln, lc, lh, lw, pn, pc, pk, ph, pw, SHARED, C, J
        )  # fmt: skip
        gradient = tl.load(of_out + full, mask=there, other=0.0).to(tl.float32)
        into_indices += gradient * tl.load(x + low, mask=there, other=0.0).to(tl.float32)
        tl.store(into_x + low, tl.sum(gradient * indices, 2, keep_dims=True), mask=there)
    if SHARED:
        into_indices = tl.sum(into_indices, 0, keep_dims=True)
    tl.store(into_decoder + packed, into_indices, mask=inside)


@triton.jit
def _encoder(indices):
    weights = tl.exp(indices)  # at most e: needs no maximum taken off
    return weights / tl.sum(weights, 2, keep_dims=True)


@triton.jit
def _where(
    start, channels, h, w,
    fn, fc, fh, fw, ln, lc, lh, lw, pn, pc, pk, ph, pw, SHARED: tl.constexpr, C: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """Return the places of this program's values in a full and in a low map, with those that there are, and packed.

    A tile begins at the channel ``start``; of a packed map that channels share it has one. Places are counted in 64
    bits: a large map has more than 32 count.
    """
    parts = tl.cdiv(w, J)
    row = tl.program_id(0) // parts
    n, i = (row // h).to(tl.int64), (row % h).to(tl.int64)
    j = ((tl.program_id(0) % parts) * J + tl.arange(0, J))[None, :, None].to(tl.int64)
    c = (start + tl.arange(0, C))[:, None, None].to(tl.int64)
    k = tl.arange(0, 4)[None, None, :].to(tl.int64)
    there = (c < channels) & (j < w)
    full = n * fn + (2 * i + k // 2) * fh + c * fc + (2 * j + k % 2) * fw
    low = n * ln + i * lh + c * lc + j * lw
    if SHARED:
        packed, inside = n * pn + k * pk + i * ph + j * pw, j < w
    else:
        packed, inside = n * pn + k * pk + i * ph + j * pw + c * pc, there
    return full, low, there, packed, inside
