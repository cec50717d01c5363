"""The hidden layer of an index network, of which nothing is kept for the backward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.functional import is_channels_last
from indexnet.resampling.fused.tail import runs_as_written


def may_recompute(first: Tensor, norm: nn.Module) -> bool:
    """Whether :func:`hidden_layer` is for such a map and such a normalisation: by the batch, of this process alone.

    Where somebody watches the normalisation by hooks, and in transformations of :mod:`torch.func`, it runs as written.
    """
    usual = type(norm) is nn.BatchNorm2d and norm.training and norm.affine and norm.momentum is not None
    if not usual or is_watched(norm) or not torch.is_grad_enabled() or not runs_as_written(first):
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(first)  # there is no public way to ask


def is_watched(module: nn.Module) -> bool:
    """Whether a module has hooks, which want it to be called."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(vars(module)[kind] for kind in kinds)


def hidden_layer(first: Tensor, norm: nn.BatchNorm2d, second: Tensor) -> Tensor:
    """Normalise a map by its batch, clip it to [0, 6] and apply a grouped 1x1 convolution.

    For the backward pass the hidden map is made again, from ``first`` and the statistics of the batch.

    Args:
        first: (N, G * I, h, w), floating point.
        norm: in training; its running statistics take the batch in.
        second: weights of G groups, (G, O, I).

    Returns:
        As :func:`grouped_product`.

    Raises:
        ValueError: each channel has a single value, which no batch normalises.
    """
    if first.numel() == first.shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {first.shape}")
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    running = (norm.running_mean, norm.running_var, norm.momentum, norm.eps)
    return _Hidden.apply(first, norm.weight, norm.bias, second, *running)[0]  # type: ignore[no-any-return]


def grouped_product(x: Tensor, weights: Tensor) -> Tensor:
    """Apply a grouped 1x1 convolution as matrix products, one for each group: faster than a grouped convolution.

    Args:
        x: (N, G * I, h, w).
        weights: of G groups, (G, O, I).

    Returns:
        (N, G, O, h, w).
    """
    n, _, h, w = x.shape
    groups = weights.shape[0]
    if is_channels_last(x) and groups <= 4:
        pixels = x.permute(0, 2, 3, 1).reshape(n * h * w, groups, -1).transpose(0, 1)
        return torch.bmm(pixels, weights.transpose(1, 2)).reshape(groups, n, h, w, -1).permute(1, 0, 4, 2, 3)
    return torch.matmul(weights, x.reshape(n, groups, -1, h * w)).reshape(n, groups, -1, h, w)


class _Hidden(torch.autograd.Function):
    @staticmethod
    def forward(
        first: Tensor, scale: Tensor, shift: Tensor, second: Tensor, *running: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance, momentum, eps = running
        hidden, own_mean, own_rate = torch.native_batch_norm(first, scale, shift, mean, variance, True, momentum, eps)
        return grouped_product(hidden.clamp_(0, 6), second.to(hidden.dtype)), own_mean, own_rate

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:4], *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.eps = inputs[-1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        first, scale, shift, second, mean, rate = ctx.saved_tensors
        if torch.is_grad_enabled():  # gradients of gradients are wanted
            hidden = F.relu6(F.batch_norm(first, None, None, scale, shift, True, 0.0, ctx.eps))
            result = grouped_product(hidden, second.to(hidden.dtype))
            needed = [t for t, need in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False) if need]
            found = iter(torch.autograd.grad(result, needed, gradient, create_graph=True))
            return tuple(next(found) if need else None for need in ctx.needs_input_grad)
        into_first, into_second = torch.empty_like(first), torch.empty_like(second)
        into_scale, into_shift = torch.empty_like(scale), torch.empty_like(shift)
        groups, _, width = second.shape
        last = is_channels_last(first)
        some = groups if last else math.ceil(groups / 4)  # a quarter at a time, where groups lie apart
        for start in range(0, groups, some):
            these, own = slice(start, start + some), slice(start * width, (start + some) * width)
            part, upstream, norm = first[:, own], gradient[:, these], (mean[own], rate[own])
            part = part if last else part.contiguous()
            variance = norm[1].pow(-2) - ctx.eps
            hidden = torch.native_batch_norm(part, scale[own], shift[own], norm[0], variance, False, 0.0, ctx.eps)[0]
            hidden.clamp_(0, 6)
            into_second[these] = _weight_gradient(hidden, upstream)
            weights = second[these].to(first.dtype).transpose(1, 2)
            back = _merge(grouped_product(_merge(upstream, last), weights), last)
            back = torch.ops.aten.hardtanh_backward(back, hidden, 0.0, 6.0)
            del hidden
            into_first[:, own], into_scale[own], into_shift[own] = torch.ops.aten.native_batch_norm_backward(
                back, part, scale[own], None, None, *norm, True, ctx.eps, [True] * 3
            )
        return into_first, into_scale, into_shift, into_second, None, None, None, None


def _merge(x: Tensor, channels_last: bool) -> Tensor:
    """Return channels by groups, (N, G, C, h, w), as channels, (N, G * C, h, w), in a memory format."""
    if channels_last:
        return x.permute(0, 3, 4, 1, 2).flatten(3).permute(0, 3, 1, 2)
    return x.flatten(1, 2)


def _weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of a grouped product's weights, (G, O, I)."""
    n, groups, _, h, w = gradient.shape
    if is_channels_last(x) and groups <= 4:
        pixels = x.permute(0, 2, 3, 1).reshape(n * h * w, groups, -1).transpose(0, 1)
        upstream = gradient.permute(1, 0, 3, 4, 2).reshape(groups, n * h * w, -1)
        return torch.bmm(upstream.transpose(1, 2), pixels)
    return torch.matmul(gradient.flatten(3), x.reshape(n, groups, -1, h * w).transpose(2, 3)).sum(0)
