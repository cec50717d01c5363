"""What follows an index network, so that little is kept: pooling, the weighted skip and the decoder's map.

The functions of :mod:`indexnet.resampling.functional` are the readable form of the same arithmetic. Here maps are gone
through in parts of a few megabytes, no full-resolution index map is made, and nothing is kept for the backward pass but
what comes in and the decoder's indices: the rest is made again from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.functional import full_precision, is_channels_last, pack_cells, unpack_cells
from indexnet.resampling.fused import operators
from indexnet.resampling.fused.operators import Dims, as_one_batch, by_triton, triton_form

_READABLE = ContextVar("readable", default=False)
_PART = {"cpu": 2**20, "cuda": 2**25}
"""Values of a map that are worked on at once: few enough to take little, many enough that starting is no matter."""


@contextmanager
def readable_form() -> Iterator[None]:
    """Let index networks run by the functions of :mod:`indexnet.ops` meanwhile, operation by operation.

    Results agree within rounding. Forward-mode differentiation (``torch.func.jvp``) needs this form. It ends
    :func:`indexnet.ops.triton_form` meanwhile for all threads, so that one thread at a time may choose forms.
    """
    before = _READABLE.set(True)
    try:
        with triton_form(on=False):
            yield
    finally:
        _READABLE.reset(before)


def in_one_pass(x: Tensor, indices: Tensor) -> bool:
    """Whether the functions below are for such a map and such packed indices or logits.

    They are not under a compiler or an exporter, which fuse the readable form themselves; but Triton's kernels, where
    :func:`indexnet.ops.triton_form` chooses them, are for these, too.
    """
    return by_triton(x, indices) or runs_as_written(x, indices)


def runs_as_written(*tensors: Tensor) -> bool:
    """Whether operations on such tensors are run as they are written, and no one asks for the readable form."""
    if torch.compiler.is_compiling():  # asked first: a compiler knows the answer, and reads no further
        return False
    plain = all(type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta for tensor in tensors)  # no fake ones
    return plain and not (_READABLE.get() or torch.jit.is_tracing())  # type: ignore[attr-defined]


def pool_by_logits(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pool a map by the indices softmax(sigmoid(logits)), the first pair of ``NORMALIZATIONS``.

    Args:
        x: (N, C, 2h, 2w), floating point, channels-first or channels-last.
        logits: packed, (N, C or 1, 4, h, w), floating point.

    Returns:
        The sums over cells, (N, C, h, w), and the weighted map, (N, C, 2h, 2w), in the memory format and the dtype of
        ``x``; and the decoder's index map sigmoid(logits), packed. Indices, products and sums are in single precision
        where what comes in is in half.
    """
    if by_triton(x, logits):
        return operators.pool_by_logits(x, logits)  # type: ignore[no-any-return]
    return _Pool.apply(x, logits)  # type: ignore[no-any-return]


def upsample_by_indices(x: Tensor, decoder: Tensor) -> Tensor:
    """Repeat each value over its 2x2 cell, weighted with a decoder's index map.

    Args:
        x: (N, C, h, w), floating point.
        decoder: packed index map, (N, C or 1, 4, h, w), floating point.

    Returns:
        (N, C, 2h, 2w), in the memory format and the dtype of ``x``.
    """
    if by_triton(x, decoder):
        return operators.upsample_by_indices(x, decoder)  # type: ignore[no-any-return]
    return _Upsample.apply(x, decoder)  # type: ignore[no-any-return]


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decoder = torch.empty_like(logits, dtype=full_precision(logits.dtype))
        if logits.shape[1] > 1 and not is_channels_last(x):
            decoder = decoder.new_empty(decoder.shape)  # in one piece by channels
        weighted, pooled = torch.empty_like(x), _empty(x, x.shape[2] // 2, x.shape[3] // 2)
        for part in _parts(x, decoder):
            own = torch.sigmoid(part.indices(logits), out=part.packed(decoder))
            product = part.product(x, part.weights(_encoder(own)))
            part.half(pooled).copy_(part.sum(product))
            part.write(product, weighted)
        return pooled, weighted, decoder

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[2])
        ctx.logits = torch.empty_like(inputs[1], device="meta")

    @staticmethod
    def backward(ctx: Any, pooled: Tensor, weighted: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        x, decoder = ctx.saved_tensors
        if torch.is_grad_enabled():
            into_x, into_logits = _pool_gradients(x, decoder, pooled, weighted, indices)
            return into_x.to(x.dtype), into_logits.to(ctx.logits.dtype)
        into_x = torch.empty_like(x)
        into_logits = torch.empty_like(ctx.logits, device=x.device)
        for part in _parts(x, decoder):
            own = part.indices(decoder)
            encoder, both = _encoder(own), part.by_cell(torch.add, part.values(weighted), pooled)
            into_encoder = part.pack(part.product(x, both), encoder)
            part.write(both.mul_(part.weights(encoder)), into_x)
            inner = _sum_positions(into_encoder * encoder)  # through the softmax, then through the sigmoid
            into_decoder = into_encoder.sub_(inner).mul_(encoder).add_(part.packed(indices))
            part.packed(into_logits).copy_(torch.ops.aten.sigmoid_backward(into_decoder, own))
        return into_x, into_logits

    @staticmethod
    def vmap(info: Any, dims: Dims, x: Tensor, logits: Tensor) -> Any:
        return as_one_batch(info.batch_size, dims, pool_by_logits, x, logits)


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, decoder: Tensor) -> Tensor:
        out = _empty(x, 2 * x.shape[2], 2 * x.shape[3])
        torch.mul(decoder.unflatten(2, (2, 2)), x[:, :, None, None], out=_cells(out))
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, decoder = ctx.saved_tensors
        if torch.is_grad_enabled():
            packed = pack_cells(gradient.to(decoder.dtype))
            into_decoder = packed * x[:, :, None]
            if decoder.shape[1] == 1:
                into_decoder = into_decoder.sum(1, keepdim=True)
            return (packed * decoder).sum(2).to(x.dtype), into_decoder
        into_x, into_decoder = torch.empty_like(x), torch.empty_like(decoder)
        for part in _parts(gradient, decoder):
            own, values = part.indices(decoder), part.values(gradient)
            part.half(into_x).copy_(part.sum(values * part.weights(own)))
            part.packed(into_decoder).copy_(part.pack(part.by_cell(torch.mul, values, x), own))
        return into_x, into_decoder

    @staticmethod
    def vmap(info: Any, dims: Dims, x: Tensor, decoder: Tensor) -> Any:
        return as_one_batch(info.batch_size, dims, upsample_by_indices, x, decoder)


def _pool_gradients(
    x: Tensor, decoder: Tensor, pooled: Tensor, weighted: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """As the backward pass of :class:`_Pool`, by operations that have gradients of their own."""
    both = pack_cells(weighted.to(decoder.dtype)) + pooled[:, :, None]
    encoder = torch.softmax(decoder, 2)
    into_encoder = pack_cells(x.to(decoder.dtype)) * both
    if decoder.shape[1] == 1:
        into_encoder = into_encoder.sum(1, keepdim=True)
    into_decoder = (into_encoder - (into_encoder * encoder).sum(2, keepdim=True)) * encoder + indices
    into_x = unpack_cells(both * encoder, is_channels_last(x))
    return into_x, into_decoder * decoder * (1 - decoder)


class _Part:
    """Some images, channels and rows of cells of a channels-first map with indices of its own for each channel.

    Values are worked on in single precision at least, packed: (n, c, 4, r, w).
    """

    def __init__(self, images: slice, channels: slice, rows: slice, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.part, self.packed_part = (images, channels, rows), (images, channels, slice(None), rows)
        self.full_part = (images, channels, slice(2 * rows.start, 2 * rows.stop))

    def half(self, x: Tensor) -> Tensor:
        """Return the part of a map of half the size."""
        return x[self.part]

    def packed(self, x: Tensor) -> Tensor:
        """Return the part of a packed map."""
        return x[self.packed_part]

    def indices(self, x: Tensor) -> Tensor:
        """Return the part of a packed map in full precision."""
        return x[self.packed_part].to(self.dtype)

    def values(self, x: Tensor) -> Tensor:
        """Return the values of a map, a copy here."""
        cells = _cells(x[self.full_part])
        return cells.to(self.dtype, memory_format=torch.contiguous_format, copy=True).flatten(2, 3)

    def weights(self, packed: Tensor) -> Tensor:
        """Return a part of a packed map in the form of values."""
        return packed

    def by_cell(self, operation: Callable[..., Tensor], values: Tensor, small: Tensor) -> Tensor:
        """Apply an operation to values, which are lost, and to what their cell has in a map of half the size."""
        return operation(values, self.half(small)[:, :, None], out=values)

    def product(self, x: Tensor, other: Tensor) -> Tensor:
        """Return the product of the values of a map with others."""
        return self.values(x).mul_(other)

    def sum(self, values: Tensor) -> Tensor:
        """Sum the values of each cell."""
        return values.sum(2)

    def pack(self, values: Tensor, like: Tensor) -> Tensor:
        """Return values as a packed map that lies as another; summed over channels where that has one."""
        return values

    def write(self, values: Tensor, out: Tensor) -> None:
        """Put values where they belong in a map."""
        _cells(out[self.full_part]).copy_(values.unflatten(2, (2, 2)))


class _CellsPart(_Part):
    """The same of a map in channels-last, of which values are a view: (n, C, 2, 2, r, w)."""

    def values(self, x: Tensor) -> Tensor:
        return _cells(x[self.full_part]).to(self.dtype)

    def weights(self, packed: Tensor) -> Tensor:
        return packed.unflatten(2, (2, 2))  # type: ignore[no-any-return]

    def by_cell(self, operation: Callable[..., Tensor], values: Tensor, small: Tensor) -> Tensor:
        return operation(values, self.half(small)[:, :, None, None])

    def product(self, x: Tensor, other: Tensor) -> Tensor:
        return self.values(x) * other

    def sum(self, values: Tensor) -> Tensor:
        return values[:, :, 0, 0] + values[:, :, 0, 1] + values[:, :, 1, 0] + values[:, :, 1, 1]

    def pack(self, values: Tensor, like: Tensor) -> Tensor:
        out = torch.empty_like(like)
        out.unflatten(2, (2, 2)).copy_(values)
        return out

    def write(self, values: Tensor, out: Tensor) -> None:
        _cells(out[self.full_part]).copy_(values)


class _HolisticPart(_Part):
    """The same of a map with one index map for all channels; values are as they lie in the map, (n, C, 2r, W)."""

    def packed(self, x: Tensor) -> Tensor:
        return x[self.part[0], :, :, self.part[2]]

    def indices(self, x: Tensor) -> Tensor:
        return self.packed(x).to(self.dtype)

    def values(self, x: Tensor) -> Tensor:
        return x[self.full_part].to(self.dtype)

    def weights(self, packed: Tensor) -> Tensor:
        return unpack_cells(packed)

    def by_cell(self, operation: Callable[..., Tensor], values: Tensor, small: Tensor) -> Tensor:
        out = torch.empty_like(values)
        operation(_cells(values), self.half(small)[:, :, None, None], out=_cells(out))
        return out

    def product(self, x: Tensor, other: Tensor) -> Tensor:
        return self.values(x) * other

    def sum(self, values: Tensor) -> Tensor:
        if is_channels_last(values):
            return F.avg_pool2d(values, 2, divisor_override=1)
        rows = values[..., ::2, :] + values[..., 1::2, :]  # along rows, as they lie: several times faster than pooling
        return rows[..., ::2] + rows[..., 1::2]

    def pack(self, values: Tensor, like: Tensor) -> Tensor:
        return _cells(values.sum(1, keepdim=True)).flatten(2, 3)

    def write(self, values: Tensor, out: Tensor) -> None:
        out[self.full_part].copy_(values)


def _parts(x: Tensor, packed: Tensor) -> Iterator[_Part]:
    """Go through a map (N, C, 2h, 2w) and its indices."""
    n, channels, height, width = x.shape
    dtype = full_precision(torch.promote_types(x.dtype, packed.dtype))
    kind = _HolisticPart if packed.shape[1] == 1 else _CellsPart if is_channels_last(x) else _Part
    most = max(1, _PART.get(x.device.type, x.numel()) // (height * width))  # channels of whole images
    images, some, rows = max(1, most // channels), channels, height // 2
    if most < channels and kind is _Part:
        some = most  # what is packed lies in one piece so
    elif most < channels:
        rows = max(1, rows * most // channels)
    for image in range(0, n, images):
        for channel in range(0, channels, some):
            for row in range(0, height // 2, rows):
                ends = slice(image, image + images), slice(channel, channel + some)
                yield kind(*ends, slice(row, min(row + rows, height // 2)), dtype)


def _cells(x: Tensor) -> Tensor:
    """See a map by cells: (N, C, 2, 2, h, w)."""
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4)  # type: ignore[no-any-return]


def _empty(like: Tensor, height: int, width: int) -> Tensor:
    form = torch.channels_last if is_channels_last(like) else torch.contiguous_format
    return torch.empty((*like.shape[:2], height, width), dtype=like.dtype, device=like.device, memory_format=form)


def _sum_positions(packed: Tensor) -> Tensor:
    if packed.stride(-1) == 1:
        return packed.sum(2, keepdim=True)
    one, two, three, four = packed.split(1, 2)  # a sum in channels-last does not run along the channels
    return one + two + three + four  # type: ignore[no-any-return]


def _encoder(decoder: Tensor) -> Tensor:
    if decoder.stride(-1) == 1:
        return torch.softmax(decoder, 2)
    weights = torch.exp(decoder)  # at most e; softmax would copy it to its own order
    return weights.div_(_sum_positions(weights))
