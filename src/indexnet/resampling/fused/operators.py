"""The tail as operators of PyTorch that run Triton kernels: compilers, exporters and vmap know ``indexnet::...``.

They run on CUDA, and on the CPU in Triton's interpreter (``TRITON_INTERPRET=1``), for tests. Maps are float32, bfloat16
or float16 and calculated with in float32. Gradients of gradients and ``torch.func.grad`` or ``jvp`` need another form.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from indexnet.resampling.functional import is_channels_last

_DEVICES = ("cuda", "cpu") if os.environ.get("TRITON_INTERPRET") == "1" else ("cuda",)
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_INSTALLED = find_spec("triton") is not None

_on = os.environ.get("INDEXNET_TRITON") == "1"  # a plain value, which compilers can read

Dims = tuple[int | None, ...]


@contextmanager
def triton_form(on: bool = True) -> Iterator[None]:
    """Let index networks run by Triton kernels meanwhile, in the whole process, or not (``on=False``).

    That is where they can: on CUDA, where Triton is installed, in single and half precision; elsewhere nothing changes.
    Code that :func:`torch.compile` has compiled follows. ``INDEXNET_TRITON=1`` in the environment switches it on from
    the start.
    """
    global _on
    before, _on = _on, on
    try:
        yield
    finally:
        _on = before


def by_triton(x: Tensor, indices: Tensor) -> bool:
    """Whether the operators below are to be used for such a map and such packed indices or logits."""
    return _on and _INSTALLED and x.device.type in _DEVICES and x.dtype in _DTYPES and indices.dtype in _DTYPES


@custom_op("indexnet::pool_by_logits", mutates_args=(), device_types=_DEVICES)
def pool_by_logits(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`indexnet.resampling.fused.tail.pool_by_logits`."""
    from indexnet.resampling.fused import kernels  # not before it runs: it imports Triton

    out = _pooled(x, logits)
    kernels.pool(x, logits, *out)
    return out


def _pooled(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n, c, height, width = x.shape
    return _map(x, n, c, height // 2, width // 2), _map(x, *x.shape), torch.empty_like(logits, dtype=torch.float32)


@custom_op("indexnet::pool_by_logits_backward", mutates_args=(), device_types=_DEVICES)
def pool_by_logits_backward(
    x: Tensor, decoder: Tensor, pooled: Tensor, weighted: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the map and of the logits, these in single precision, from those of the three results."""
    from indexnet.resampling.fused import kernels

    out = _pooled_backward(x, decoder, pooled, weighted, indices)
    kernels.pool_backward(x, decoder, (pooled, weighted, indices), *out)
    return out


def _pooled_backward(
    x: Tensor, decoder: Tensor, pooled: Tensor, weighted: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    return _map(x, *x.shape), torch.empty_like(decoder)


@custom_op("indexnet::upsample_by_indices", mutates_args=(), device_types=_DEVICES)
def upsample_by_indices(x: Tensor, decoder: Tensor) -> Tensor:
    """As :func:`indexnet.resampling.fused.tail.upsample_by_indices`."""
    from indexnet.resampling.fused import kernels

    out = _upsampled(x, decoder)
    kernels.upsample(x, decoder, out)
    return out


def _upsampled(x: Tensor, decoder: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return _map(x, n, c, 2 * h, 2 * w)


@custom_op("indexnet::upsample_by_indices_backward", mutates_args=(), device_types=_DEVICES)
def upsample_by_indices_backward(x: Tensor, decoder: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the map and of the indices, from that of the result."""
    from indexnet.resampling.fused import kernels

    out = _upsampled_backward(x, decoder, gradient)
    kernels.upsample_backward(x, decoder, gradient, *out)
    return out


def _upsampled_backward(x: Tensor, decoder: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    return _map(x, *x.shape), torch.empty_like(decoder)


def _map(like: Tensor, *shape: int) -> Tensor:
    form = torch.channels_last if is_channels_last(like) else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=form)


def _keep_for_pool(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[2])  # not the logits: upsampling keeps the decoder's map, too


def _through_pool(ctx: Any, pooled: Tensor, weighted: Tensor, indices: Tensor) -> Any:
    return pool_by_logits_backward(*ctx.saved_tensors, pooled, weighted, indices)


def _keep_for_upsampling(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _through_upsampling(ctx: Any, gradient: Tensor) -> Any:
    return upsample_by_indices_backward(*ctx.saved_tensors, gradient)


pool_by_logits.register_fake(_pooled)
pool_by_logits_backward.register_fake(_pooled_backward)
upsample_by_indices.register_fake(_upsampled)
upsample_by_indices_backward.register_fake(_upsampled_backward)
pool_by_logits.register_autograd(_through_pool, setup_context=_keep_for_pool)
upsample_by_indices.register_autograd(_through_upsampling, setup_context=_keep_for_upsampling)


def as_one_batch(size: int, dims: Dims, function: Callable[..., Any], *tensors: Tensor) -> Any:
    """Run a function of batches on a batch of them, as vmap asks for it; return its results and their dimensions."""
    wide = [
        tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, dims, strict=True)
    ]
    found = function(*(tensor.flatten(0, 1) for tensor in wide))
    if isinstance(found, Tensor):
        return found.unflatten(0, (size, -1)), 0
    return tuple(part.unflatten(0, (size, -1)) for part in found), (0,) * len(found)


def _register_vmap(operator: Any) -> None:
    def batched(info: Any, dims: Dims, *args: Tensor) -> Any:
        return as_one_batch(info.batch_size, dims, operator, *args)

    operator.register_vmap(batched)


if hasattr(pool_by_logits, "register_vmap"):  # PyTorch 2.5
    for _operator in (pool_by_logits, pool_by_logits_backward, upsample_by_indices, upsample_by_indices_backward):
        _register_vmap(_operator)
