"""The index stage's tail by Triton kernels against the readable form, for the interpreter and for a GPU."""

from __future__ import annotations

import torch

from indexnet.ops import indexed_pool_with_skip, indexed_upsample, normalise_indices, triton_form
from indexnet.resampling.fused.tail import in_one_pass, pool_by_logits, upsample_by_indices

FORMATS = {"first": torch.contiguous_format, "last": torch.channels_last}
SHAPES = {  # (N, C, h, w)
    "small": (2, 3, 2, 5),
    "one value a cell": (1, 1, 1, 1),
    "parts of a row": (1, 3, 1, 70),
    "blocks of channels, first": (1, 6, 1, 37),
    "blocks of channels, last": (1, 70, 1, 2),
}
HALVES = {  # of the map and of the logits
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "float16": (torch.float16, torch.float16),
    "half logits": (torch.float32, torch.bfloat16),
    "half map": (torch.float16, torch.float32),
}


def readable(x, logits):
    """Return the results of pooling and upsampling in double precision."""
    x, logits = x.double(), logits.double()
    encoder, decoder = normalise_indices(logits)
    pooled, weighted = indexed_pool_with_skip(x, encoder)
    return pooled, weighted, decoder, indexed_upsample(pooled, decoder)


def by_triton(x, logits):
    """Return the same by the kernels."""
    with triton_form():
        assert in_one_pass(x, logits)
        pooled, weighted, decoder = pool_by_logits(x, logits)
        return pooled, weighted, decoder, upsample_by_indices(pooled, decoder)


def check(x, logits, upstream=None, **tolerance):
    """Compare results, gradients, dtypes and formats of the two."""
    x, logits = x.detach().requires_grad_(), logits.detach().requires_grad_()
    results, expected = by_triton(x, logits), readable(x, logits)
    if upstream is None:
        upstream = [torch.randn_like(each) for each in results]
    assert results[2].dtype == torch.float32
    for found, wanted in zip(results, expected, strict=True):
        assert found.dtype == x.dtype or found is results[2]
        torch.testing.assert_close(found.double(), wanted, **tolerance)
    for found in (results[0], results[1], results[3]):
        assert found.stride() == torch.empty_like(found, memory_format=format_of(x)).stride()
    gradients = torch.autograd.grad(results, (x, logits), upstream)
    wanted = torch.autograd.grad(expected, (x, logits), [each.double() for each in upstream])
    for found, want, leaf in zip(gradients, wanted, (x, logits), strict=True):
        assert found.dtype == leaf.dtype
        torch.testing.assert_close(found, want, **tolerance)


def format_of(x):
    """Return the memory format of results for a map."""
    first = x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last)
    return torch.contiguous_format if first else torch.channels_last


def maps(shape, shared, memory="first", dtypes=(torch.float32, torch.float32), device="cpu"):
    """Return a map and its packed logits; in channels-last, logits lie as a convolution leaves them."""
    torch.manual_seed(0)
    n, c, h, w = shape
    x = torch.randn(n, c, 2 * h, 2 * w).to(device, dtypes[0], memory_format=FORMATS[memory])
    columns = torch.randn(n, 4 * (1 if shared else c), h, w).to(device, dtypes[1], memory_format=FORMATS[memory])
    return x, columns.unflatten(1, (4, -1)).transpose(1, 2)


def check_shape(shape, shared, memory, device="cpu"):
    """Compare the two in single precision."""
    check(*maps(SHAPES[shape], shared, memory, device=device), rtol=1e-5, atol=1e-5)


def check_half(halves, shared, memory, device="cpu"):
    """Compare the two in half precision, whose results are rounded once, and the indices kept for gradients."""
    check(*maps((1, 5, 1, 3), shared, memory, HALVES[halves], device), rtol=2e-2, atol=2e-2)


def check_foreign_strides(shared, device="cpu"):
    """Compare the two for maps that lie in neither format, or the gradients in the other."""
    x, logits = maps((1, 4, 2, 6), shared, device=device)
    other = maps((1, 4, 2, 3), shared, device=device)[1]
    cut = x[..., 2:8]
    low = torch.randn(1, 1, 1, 1, device=device).expand(1, 4, 2, 3)
    upstream = [low, torch.randn_like(cut).contiguous(memory_format=torch.channels_last), other.clone(), cut.clone()]
    check(cut, logits[..., ::2], upstream, rtol=1e-5, atol=1e-5)
    check(cut, other[..., :1].expand_as(other), upstream, rtol=1e-5, atol=1e-5)
