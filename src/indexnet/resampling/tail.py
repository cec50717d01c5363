"""What follows an index network in one pass: pooling, the weighted skip and the decoder's map, from its logits.

The functions of :mod:`indexnet.resampling.functional` are the readable form of the same arithmetic. Here nothing is
gathered cell by cell first, so that no map is copied for the sake of its order, in either memory format, and of the
maps between only the decoder's indices are kept for the backward pass: the rest is made again from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from indexnet.resampling import tail_ops
from indexnet.resampling.functional import is_channels_last, unpack_cells
from indexnet.resampling.tail_ops import Dims, as_one_batch, by_triton, triton_form

_READABLE = ContextVar("readable", default=False)


@contextmanager
def readable_form() -> Iterator[None]:
    """Let index networks run by the functions of :mod:`indexnet.ops` meanwhile, operation by operation.

    Results agree within rounding. Forward-mode differentiation (``torch.func.jvp``) needs this form.
    """
    before = _READABLE.set(True)
    try:
        with triton_form(on=False):
            yield
    finally:
        _READABLE.reset(before)


def in_one_pass(x: Tensor, indices: Tensor) -> bool:
    """Whether the functions below are for such a map and such packed indices or logits.

    They are where they are faster: for one index map for all channels, and in channels-last. They are not for half
    precision, whose sums need more of it, nor under a compiler or an exporter, which fuse the readable form themselves;
    but Triton's kernels, where :func:`indexnet.ops.triton_form` chooses them, are for all of these.
    """
    if by_triton(x, indices):
        return True
    if torch.compiler.is_compiling():  # asked first: a compiler knows the answer, and reads no further
        return False
    plain = {type(x), type(indices)} <= {Tensor, torch.nn.Parameter} and not x.is_meta  # no fake tensors
    single = x.dtype == indices.dtype and x.dtype in (torch.float32, torch.float64)
    faster = indices.shape[1] == 1 or is_channels_last(x)
    return faster and plain and single and not (_READABLE.get() or torch.jit.is_tracing())  # type: ignore[attr-defined]


def pool_by_logits(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pool a map by the indices softmax(sigmoid(logits)), the first pair of ``NORMALIZATIONS``.

    Args:
        x: (N, C, 2h, 2w), float32 or float64, channels-first or channels-last.
        logits: packed, (N, C or 1, 4, h, w), of the same dtype.

    Returns:
        The sums over cells, (N, C, h, w), and the weighted map, (N, C, 2h, 2w), in the memory format of ``x``; and the
        decoder's index map sigmoid(logits), packed.
    """
    if by_triton(x, logits):
        return tail_ops.pool_by_logits(x, logits)  # type: ignore[no-any-return]
    return _Pool.apply(x, logits)  # type: ignore[no-any-return]


def upsample_by_indices(x: Tensor, decoder: Tensor) -> Tensor:
    """Repeat each value over its 2x2 cell, weighted with a decoder's index map.

    Args:
        x: (N, C, h, w), float32 or float64.
        decoder: packed index map, (N, C or 1, 4, h, w), of the same dtype.

    Returns:
        (N, C, 2h, 2w), in the memory format of ``x``.
    """
    if by_triton(x, decoder):
        return tail_ops.upsample_by_indices(x, decoder)  # type: ignore[no-any-return]
    return _Upsample.apply(x, decoder)  # type: ignore[no-any-return]


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decoder = torch.sigmoid(logits)
        weighted = _weigh(x, _encoder(decoder))
        return _sum_cells(weighted), weighted, decoder

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[2])

    @staticmethod
    def backward(ctx: Any, pooled: Tensor, weighted: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        x, decoder = ctx.saved_tensors
        encoder = _encoder(decoder)
        both = _into(x, torch.add, _cells(weighted), pooled[:, :, None, None])
        into_encoder = _products(x, _cells(both), decoder)
        into_x = _weigh(both, encoder)
        del both
        inner = _sum_positions(into_encoder * encoder)  # through the softmax, then through the sigmoid
        return into_x, ((into_encoder - inner) * encoder + indices) * (decoder * (1 - decoder))

    @staticmethod
    def vmap(info: Any, dims: Dims, x: Tensor, logits: Tensor) -> Any:
        return as_one_batch(info.batch_size, dims, pool_by_logits, x, logits)


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, decoder: Tensor) -> Tensor:
        n, c, h, w = x.shape
        form = torch.channels_last if is_channels_last(x) else torch.contiguous_format
        out = torch.empty((n, c, 2 * h, 2 * w), dtype=x.dtype, device=x.device, memory_format=form)
        torch.mul(_positions(decoder), x[:, :, None, None], out=_cells(out))
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, decoder = ctx.saved_tensors
        into_x = _sum_cells(_weigh(gradient, decoder))
        return into_x, _products(gradient, x[:, :, None, None], decoder)

    @staticmethod
    def vmap(info: Any, dims: Dims, x: Tensor, decoder: Tensor) -> Any:
        return as_one_batch(info.batch_size, dims, upsample_by_indices, x, decoder)


# Below, maps are seen by cells without a copy: (N, C, 2, 2, h, w). What is made is written where it belongs, but where
# gradients of gradients are wanted: that needs results of operations.


def _cells(x: Tensor) -> Tensor:
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4)  # type: ignore[no-any-return]


def _positions(packed: Tensor) -> Tensor:
    return packed.unflatten(2, (2, 2))  # type: ignore[no-any-return]


def _into(like: Tensor, operation: Callable[..., Tensor], one: Tensor, other: Tensor) -> Tensor:
    """Write an operation of two maps by cells as a map like another."""
    if torch.is_grad_enabled():
        return unpack_cells(operation(one, other).flatten(2, 3), is_channels_last(like))
    out = torch.empty_like(like)
    operation(one, other, out=_cells(out))
    return out


def _weigh(x: Tensor, packed: Tensor) -> Tensor:
    """Multiply a map with a packed one."""
    if packed.shape[1] == 1:
        return x * unpack_cells(packed)
    return _into(x, torch.mul, _cells(x), _positions(packed))


def _products(x: Tensor, cells: Tensor, like: Tensor) -> Tensor:
    """Multiply two maps, the second by cells, into a packed one; summed over channels where that has one."""
    if like.shape[1] != x.shape[1]:
        return _cells(_into(x, torch.mul, _cells(x), cells).sum(1, keepdim=True)).flatten(2, 3)
    if torch.is_grad_enabled():
        return (_cells(x) * cells).flatten(2, 3)
    out = torch.empty_like(like)
    torch.mul(_cells(x), cells, out=_positions(out))
    return out


def _sum_cells(x: Tensor) -> Tensor:
    if is_channels_last(x) or torch.is_grad_enabled():
        return F.avg_pool2d(x, 2, divisor_override=1)
    rows = x[..., ::2, :] + x[..., 1::2, :]  # along rows, as they lie: several times faster than the pooling
    return rows[..., ::2] + rows[..., 1::2]


def _sum_positions(packed: Tensor) -> Tensor:
    if packed.stride(-1) == 1:
        return packed.sum(2, keepdim=True)
    one, two, three, four = packed.split(1, 2)  # a sum in channels-last does not run along the channels
    return one + two + three + four  # type: ignore[no-any-return]


def _encoder(decoder: Tensor) -> Tensor:
    if decoder.is_contiguous() or torch.is_grad_enabled():
        return torch.softmax(decoder, 2)
    weights = torch.exp(decoder)  # at most e; softmax would copy it to its own order
    return weights.div_(_sum_positions(weights))
