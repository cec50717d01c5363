"""Tests of the tail's Triton kernels that ``test_tail_triton.py`` runs in a process of their own, in the interpreter.

By hand: ``TRITON_INTERPRET=1 INDEXNET_TRITON=1 python -m pytest tests/resampling/interpreted_tail.py``.
"""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.backends.registry import lookup_backend
from torch.func import vmap

from indexnet.benchmarks import kernels
from indexnet.ops import readable_form, triton_form
from indexnet.resampling import create_resampling
from indexnet.resampling.fused import operators
from tail_cases import HALVES, SHAPES, check_foreign_strides, check_half, check_shape, maps

OPERATORS = ["indexnet.pool_by_logits.default", "indexnet.upsample_by_indices.default"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("memory", ["first", "last"])
def test_values_and_gradients(shape, shared, memory):
    check_shape(shape, shared, memory)


@pytest.mark.parametrize("halves", HALVES)
@pytest.mark.parametrize(("shared", "memory"), [(False, "first"), (True, "last")])
def test_half_precision(halves, shared, memory):
    check_half(halves, shared, memory)


@pytest.mark.parametrize("shared", [False, True])
def test_maps_that_lie_otherwise(shared):
    check_foreign_strides(shared)


def test_the_environment_switches_it_on():
    x, logits = maps((1, 1, 1, 1), shared=True)
    assert operators.by_triton(x, logits)
    assert not operators.by_triton(x.double(), logits.double())
    with readable_form():
        assert not operators.by_triton(x, logits)
        with triton_form():
            assert operators.by_triton(x, logits)
    with triton_form(on=False):
        assert not operators.by_triton(x, logits)


class Stage(torch.nn.Module):
    def __init__(self, family="hin"):
        super().__init__()
        torch.manual_seed(0)
        self.resampling = create_resampling("indexnet", [2], family=family, nonlinear=False)

    def forward(self, x):
        stage = self.resampling.stages[0]
        down = stage.down(x)
        return down.skip, stage.up(down.features, down.guide, down.size)


def gradient_of(module, x):
    x = x.detach().requires_grad_()
    skip, up = module(x)
    return torch.autograd.grad(skip.square().sum() + up.square().sum(), x)[0]


@pytest.mark.parametrize("family", ["hin", "m2o"])
def test_a_stage_of_odd_size(family):
    stage, x = Stage(family), torch.randn(1, 2, 3, 5)
    with readable_form():
        expected = [*stage(x), gradient_of(stage, x)]
    torch.testing.assert_close([*stage(x), gradient_of(stage, x)], expected)


def test_a_compiler_sees_operators_and_follows_the_switch():
    graphs = []

    def backend(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes if "indexnet." in str(node.target)])
        return lookup_backend("aot_eager")(graph, inputs)

    stage, x = Stage(), torch.randn(1, 2, 3, 4)
    compiled = torch.compile(stage, backend=backend, fullgraph=True)
    torch.testing.assert_close(gradient_of(compiled, x), gradient_of(stage, x))
    with triton_form(on=False):
        torch.testing.assert_close(gradient_of(compiled, x), gradient_of(stage, x))
    assert graphs == [OPERATORS, []]


def test_an_exporter_sees_operators():
    stage, n = Stage(), torch.export.Dim("n")
    program = torch.export.export(stage, (torch.randn(2, 2, 2, 4),), dynamic_shapes=({0: n},))
    assert [str(node.target) for node in program.graph.nodes if "indexnet." in str(node.target)] == OPERATORS
    x = torch.randn(3, 2, 2, 4)
    torch.testing.assert_close(program.module()(x), stage(x))


def test_batches_of_batches():
    stage, batch = Stage(), torch.randn(2, 1, 2, 2, 4)
    torch.testing.assert_close(vmap(stage)(batch), tuple(map(torch.stack, zip(*map(stage, batch), strict=True))))
    x, logits = maps((1, 2, 1, 2), shared=False)
    many = torch.stack([logits, -logits], 1)
    found = vmap(lambda indices: gradients(x, indices), in_dims=1)(many)
    torch.testing.assert_close(
        found, tuple(map(torch.stack, zip(*(gradients(x, one) for one in many.unbind(1)), strict=True)))
    )


def gradients(x, decoder):
    pooled, weighted, indices = operators.pool_by_logits(x, decoder)
    into_x, into_logits = operators.pool_by_logits_backward(x, decoder, pooled, weighted, indices)
    return into_x, into_logits, *operators.upsample_by_indices_backward(pooled, decoder, weighted)


@pytest.mark.parametrize("memory", ["first", "last"])
def test_operators_are_what_they_say(memory):
    x, logits = maps((2, 3, 1, 2), False, memory)
    pooled, weighted, decoder = operators.pool_by_logits(x, logits)
    for operator, *tensors in (
        (operators.pool_by_logits, x, logits), (operators.upsample_by_indices, pooled, decoder)
    ):  # fmt: skip
        torch.library.opcheck(operator, [each.clone().requires_grad_() for each in tensors])
    torch.library.opcheck(operators.pool_by_logits_backward, (x, decoder, pooled, weighted, decoder))
    torch.library.opcheck(operators.upsample_by_indices_backward, (pooled, decoder, weighted))


def test_gradients_of_gradients_are_refused():
    x, logits = (each.requires_grad_() for each in maps((1, 1, 1, 1), shared=True))
    (gradient,) = torch.autograd.grad(operators.pool_by_logits(x, logits)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_measured_on_a_gpu(shared, monkeypatch):
    monkeypatch.setattr(kernels, "SITES", ((2, 1), (3, 2)))
    memory, dtype, tolerance = kernels.CASES["channels-last, bfloat16"]
    sites = kernels.Sites(shared, memory, dtype, 1, 8, torch.device("cpu"))
    kernels.check_forms("tiny", kernels.forms(sites, "eager"), tolerance)
    sites.by_tiles(16)()
    sites.moved()()
