"""Pooling and upsampling by logits in one pass, against the readable form."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, jvp, vmap

from indexnet.ops import readable_form
from indexnet.resampling import create_resampling
from indexnet.resampling.indexnet import FAMILIES
from indexnet.resampling.tail import in_one_pass, pool_by_logits, upsample_by_indices

FORMATS = {"first": torch.contiguous_format, "last": torch.channels_last}
KINDS = [(False, False), (True, False), (True, True)]


def stage_of(family, nonlinear=True, context=True):
    torch.manual_seed(0)
    resampling = create_resampling("indexnet", [6], family=family, nonlinear=nonlinear, context=context)
    return resampling.double().stages[0]


def everything(stage, x, upstream):
    """Results of a stage and the gradients of its input and its weights."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    stage.zero_grad()
    features, skip, guide, size = stage.down(x)
    results = [features, skip, stage.up(1.5 * features, guide, size)]
    torch.autograd.backward(
        results, [gradient[..., : r.shape[-2], : r.shape[-1]] for gradient, r in zip(upstream, results, strict=True)]
    )
    return results, [x.grad, *(parameter.grad for parameter in stage.index_network.parameters())]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("nonlinear", "context"), KINDS)
@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("size", [(10, 8), (7, 9)])
def test_both_forms_agree(family, nonlinear, context, memory, size):
    stage = stage_of(family, nonlinear, context)
    x = torch.randn(2, 6, *size, dtype=torch.float64).contiguous(memory_format=FORMATS[memory])
    upstream = [torch.randn(2, 6, *size, dtype=torch.float64) for _ in range(3)]
    results, gradients = everything(stage, x, upstream)
    with readable_form():
        expected, expected_gradients = everything(stage, x, upstream)
    for found, wanted in zip(results + gradients, expected + expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted)
    assert results[0].is_contiguous(memory_format=FORMATS[memory]) == expected[0].is_contiguous(
        memory_format=FORMATS[memory]
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory", FORMATS)
def test_gradients_of_gradients(channels, memory):
    x = torch.randn(1, 3, 4, 6, dtype=torch.float64).contiguous(memory_format=FORMATS[memory]).requires_grad_()
    logits = torch.randn(1, channels, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    small = torch.randn(1, 3, 2, 3, dtype=torch.float64).contiguous(memory_format=FORMATS[memory]).requires_grad_()
    assert torch.autograd.gradcheck(pool_by_logits, (x, logits))
    assert torch.autograd.gradgradcheck(pool_by_logits, (x, logits))
    assert torch.autograd.gradcheck(upsample_by_indices, (small, logits))
    assert torch.autograd.gradgradcheck(upsample_by_indices, (small, logits))


def test_transformations_of_functions():
    stage = stage_of("hin")
    batch = torch.randn(3, 1, 6, 4, 6, dtype=torch.float64)

    def through(x):
        down = stage.eval().down(x)
        return stage.up(down.features, down.guide, down.size)

    torch.testing.assert_close(vmap(through)(batch), torch.stack([through(x) for x in batch]))
    per_sample = vmap(grad(lambda x: through(x).square().sum()))(batch)
    x = batch.clone().requires_grad_()
    through(x.flatten(0, 1)).square().sum().backward()
    torch.testing.assert_close(per_sample, x.grad)
    with readable_form():
        _, slope = jvp(through, (batch[0],), (torch.ones_like(batch[0]),))
    assert slope.isfinite().all()


def test_where_each_form_runs():
    x, logits = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 2, 2)
    assert in_one_pass(x.contiguous(memory_format=torch.channels_last), logits)
    assert in_one_pass(x, logits[:, :1])
    assert not in_one_pass(x, logits)
    assert not in_one_pass(x.bfloat16(), logits[:, :1].bfloat16())
    assert not in_one_pass(x.to("meta"), logits[:, :1].to("meta"))
    with readable_form():
        assert not in_one_pass(x, logits[:, :1])
