"""Pooling and upsampling by logits in one pass, against the readable form."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch.func import grad, jvp, vmap
from torch.nn import functional as F

from indexnet.ops import indexed_pool_with_skip, readable_form
from indexnet.resampling import create_resampling
from indexnet.resampling.fused.hidden import hidden_layer, may_recompute
from indexnet.resampling.fused.tail import in_one_pass, pool_by_logits, upsample_by_indices
from indexnet.resampling.indexnet import FAMILIES

FORMATS = {"first": torch.contiguous_format, "last": torch.channels_last}
KINDS = [(False, False), (True, False), (True, True)]


def stage_of(family, nonlinear=True, context=True):
    torch.manual_seed(0)
    resampling = create_resampling("indexnet", [6], family=family, nonlinear=nonlinear, context=context)
    stage = resampling.double().stages[0]
    stage.first_state = copy.deepcopy(stage.index_network.state_dict())
    return stage


def everything(stage, x, upstream):
    """Results of a stage; the gradients of its input and its weights, and its running statistics."""
    stage.index_network.load_state_dict(copy.deepcopy(stage.first_state))
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    stage.zero_grad()
    features, skip, guide, size = stage.down(x)
    results = [features, skip, stage.up(1.5 * features, guide, size)]
    torch.autograd.backward(
        results, [gradient[..., : r.shape[-2], : r.shape[-1]] for gradient, r in zip(upstream, results, strict=True)]
    )
    gradients = [x.grad, *(parameter.grad for parameter in stage.index_network.parameters())]
    return results, [*gradients, *(buffer.clone() for buffer in stage.index_network.buffers())]


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


@pytest.mark.parametrize("family", ["hin", "m2o"])
@pytest.mark.parametrize("memory", FORMATS)
def test_parts_of_a_large_map_join(family, memory):
    """More values than are worked on at once, in each direction of a cut: images, channels and rows."""
    torch.manual_seed(0)
    stage = create_resampling("indexnet", [24], family=family, nonlinear=False).stages[0]
    for shape in ((1, 24, 250, 190), (75, 24, 24, 26)):
        x = torch.randn(shape).contiguous(memory_format=FORMATS[memory]).requires_grad_()
        results = []
        for form in (nullcontext(), readable_form()):
            x.grad = None
            with form:
                down = stage.down(x)
                up = stage.up(down.features, down.guide, down.size)
            (down.skip * up.detach().roll(1)).sum().backward(retain_graph=True)
            up.square().mean().backward()
            results.append([down.features, down.skip, up, x.grad.clone()])
        for found, wanted in zip(*results, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("groups", [1, 4, 6])
def test_hidden_layer(groups, memory):
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(12).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 4)
        norm.bias.uniform_(-1, 3)
    reference = copy.deepcopy(norm)
    x = torch.randn(2, 12, 3, 4, dtype=torch.float64).contiguous(memory_format=FORMATS[memory]).requires_grad_()
    second = torch.randn(groups, 3, 12 // groups, dtype=torch.float64, requires_grad=True)
    literal = F.conv2d(F.relu6(reference(x)), second.flatten(0, 1)[..., None, None], groups=groups)
    found = hidden_layer(x, norm, second)
    torch.testing.assert_close(found.flatten(1, 2), literal)
    upstream = torch.randn_like(found)
    wanted = torch.autograd.grad(literal, [x, second, *reference.parameters()], upstream.flatten(1, 2))
    for own, other in zip(torch.autograd.grad(found, [x, second, *norm.parameters()], upstream), wanted, strict=True):
        torch.testing.assert_close(own, other)
    for own, other in zip(norm.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(own, other)
    if groups == 4:
        small = x.detach()[:1, :, :2, :2].requires_grad_()
        assert torch.autograd.gradgradcheck(lambda *given: hidden_layer(given[0], norm, given[1]), (small, second))


def test_frozen_parts_of_a_hidden_layer_have_second_gradients():
    stage = stage_of("m2o", context=False)
    stage.index_network.second.weight.requires_grad_(False)
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(stage.down(x).features.square().sum(), x, create_graph=True)
    (found,) = torch.autograd.grad(first.square().sum(), x)
    with readable_form():
        (first,) = torch.autograd.grad(stage.down(x).features.square().sum(), x, create_graph=True)
        (wanted,) = torch.autograd.grad(first.square().sum(), x)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("family", ["hin", "o2o_unshared", "m2o"])
@pytest.mark.parametrize("memory", FORMATS)
def test_half_precision_rounds_results_alone(family, memory):
    """Pooling and upsampling of half-precision maps are those of single precision, rounded."""
    torch.manual_seed(0)
    stage = create_resampling("indexnet", [6], family=family).stages[0]
    x = torch.randn(2, 6, 8, 10).bfloat16().contiguous(memory_format=FORMATS[memory])
    logits = torch.randn(2, 1 if family == "hin" else 6, 4, 4, 5).bfloat16()
    whole = [t.float().requires_grad_() for t in (x, logits.float().sigmoid())]
    encoder = torch.softmax(whole[1], 2)
    pooled, weighted = indexed_pool_with_skip(whole[0], encoder)
    x, logits = x.requires_grad_(), logits.requires_grad_()
    found = pool_by_logits(x, logits)
    torch.testing.assert_close(found[0], pooled.bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(found[1], weighted.bfloat16(), rtol=0, atol=0)
    (pooled.sum() + weighted.square().sum()).backward()
    torch.autograd.backward(found[:2], [torch.ones_like(found[0]), 2 * weighted.detach().bfloat16()])
    torch.testing.assert_close(x.grad, whole[0].grad.bfloat16(), rtol=1e-2, atol=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        down = stage.down(torch.randn(2, 6, 8, 10).bfloat16().requires_grad_())
        down.features.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in stage.index_network.parameters())


def test_stages_in_training_are_transformed_like_functions():
    """Normalisation by the batch, without running statistics, of each batch of a batch of them."""
    stage = stage_of("m2o")
    norm = stage.index_network.norm
    norm.track_running_stats, norm.running_mean, norm.running_var, norm.num_batches_tracked = False, None, None, None
    batches = torch.randn(3, 2, 6, 4, 6, dtype=torch.float64)
    found = vmap(grad(lambda x: stage.down(x).features.square().sum()))(batches)
    with readable_form():
        wanted = vmap(grad(lambda x: stage.down(x).features.square().sum()))(batches)
    torch.testing.assert_close(found, wanted)
    x = batches[0].clone().requires_grad_()
    stage.down(x).features.square().sum().backward()
    torch.testing.assert_close(x.grad, found[0])


@pytest.mark.parametrize("family", ["hin", "m2o"])
def test_a_single_value_cannot_be_normalised(family):
    stage = create_resampling("indexnet", [6], family=family).stages[0]
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        stage.down(torch.randn(1, 6, 2, 2))
    assert stage.index_network.norm.running_var.isfinite().all()
    assert stage.index_network.norm.num_batches_tracked == 0


def test_hooks_on_the_norm_are_called():
    stage, seen = stage_of("m2o"), []
    stage.index_network.norm.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    stage.down(torch.randn(2, 6, 4, 4, dtype=torch.float64))
    assert seen == [(2, 48, 2, 2)]


def test_where_each_form_runs():
    x, logits, norm = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 2, 2), torch.nn.BatchNorm2d(3)
    assert in_one_pass(x, logits)
    assert may_recompute(x, norm)
    assert in_one_pass(x.bfloat16(), logits.bfloat16())
    assert not in_one_pass(x.to("meta"), logits.to("meta"))
    assert not may_recompute(x, torch.nn.SyncBatchNorm(3))
    assert not may_recompute(x, torch.nn.BatchNorm2d(3, momentum=None))
    with torch.no_grad():
        assert not may_recompute(x, norm)
    with readable_form():
        assert not in_one_pass(x, logits)
        assert not may_recompute(x, norm)
    assert not may_recompute(x, norm.eval())
