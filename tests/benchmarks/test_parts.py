"""Each part of the benchmark, on tiny sizes: what is compared, and that forms which differ are refused."""

from __future__ import annotations

import math
import pkgutil
from importlib import import_module

import pytest
import torch

import indexnet.benchmarks
from indexnet.benchmarks import PARTS, fast, inference, metrics, networks
from indexnet.benchmarks.base import BenchOptions, check_equal
from indexnet.benchmarks.literal import literal_network
from indexnet.benchmarks.parts import threads
from indexnet.networks import create_network

ONCE = BenchOptions(turns=1)
SMALL = {"name": "matting_unet", "context": "none", "encoder": {"name": "mobilenetv2_released", "width": 0.25}}
UNCOMPILED = {name: how for name, how in fast.FORMS.items() if "compile" not in how}


def pairs(figures, quantity):
    return {(figure.form, figure.reference) for figure in figures if figure.quantity == quantity}


def test_the_parts_are_the_modules_that_have_figures():
    modules = {each.name for each in pkgutil.iter_modules(indexnet.benchmarks.__path__)}
    assert {name for name in modules if hasattr(import_module(f"indexnet.benchmarks.{name}"), "figures")} == set(PARTS)


def test_a_form_that_gives_something_else_is_not_timed():
    expected = torch.ones(10)
    check_equal("stages", "hin", "shipped", expected + 1e-5, expected)
    for wrong in (expected + 0.01, expected * float("nan")):
        with pytest.raises(RuntimeError, match="stages, hin: the form 'shipped' gives something else"):
            check_equal("stages", "hin", "shipped", wrong, expected)


def test_the_matting_step_is_compared_with_literal_stages():
    case = networks.Case("matting", SMALL, networks.ADAM, 4, 96, 96)
    found = networks.matting(case, ONCE, lambda _: None)
    wanted = {("shipped", "literal"), ("channels-last", "literal")}
    assert pairs(found, "time") == pairs(found, "memory") == wanted
    assert all(0 < figure.ratio < math.inf and figure.case == "matting" for figure in found)
    targets = {(figure.form, figure.quantity): figure.target for figure in found}
    assert targets["shipped", "time"] == targets["shipped", "memory"] == 0.75
    assert targets["channels-last", "time"] is None


def test_fast_steps_are_compared_with_the_default_one():
    few = {name: fast.FORMS[name] for name in (fast.PLAIN, "bf16, channels-last, fused", "recomputed")}
    found = fast.measure({**fast.NETWORK, **SMALL}, few, 32, ONCE, lambda _: None)
    wanted = {(name, "as by default") for name in few if name != "as by default"}
    assert pairs(found, "time") == pairs(found, "memory") == wanted
    assert all(0 < figure.ratio < math.inf for figure in found)


@pytest.mark.parametrize("options", [BenchOptions(quick=True), BenchOptions(brief=True), BenchOptions()])
def test_the_compiled_form_is_measured_where_there_is_time(options, monkeypatch):
    monkeypatch.setattr(fast, "measure", lambda network, forms, *rest: list(forms))
    left_out = options.quick or options.brief
    assert fast.figures(options, lambda _: None) == list(UNCOMPILED if left_out else fast.FORMS)


def test_a_fast_step_with_another_loss_is_refused(monkeypatch):
    real = fast.training_step

    def other(network, how, batch):
        step = real(network, how, batch)
        return lambda turn: step(turn) * (1.1 if how else 1)

    monkeypatch.setattr(fast, "training_step", other)
    with pytest.raises(RuntimeError, match="fast, matting: the form 'fused optimizer' gives something else"):
        fast.measure({**fast.NETWORK, **SMALL}, UNCOMPILED, 32, ONCE, lambda _: None)


@pytest.mark.parametrize("case", networks.CASES[2:], ids=lambda case: case.task)
def test_shared_rows_are_compared_with_the_baseline_of_their_table(case):
    small = networks.Case(case.task, case.network, case.optimizer, 2, 32, 32, case.unguided)
    found = networks.shared_rows(small, ONCE, lambda _: None)
    reference = case.unguided[0]
    assert pairs(found, "time") == {("o2o_shared, linear", reference), ("hin, linear", reference)}
    assert all(figure.value > 0 and figure.case == case.task for figure in found)


def test_a_prediction_is_compared_with_literal_stages():
    found = inference.measure((32, 64), ONCE, lambda _: None)
    assert pairs(found, "time") == {("shipped", "literal"), ("channels-last", "literal")}
    memory = {(figure.form, figure.reference): figure for figure in found if figure.quantity == "memory"}
    held = memory["shipped", "literal, maps held"]
    assert held.reference_value > memory["shipped", "literal"].reference_value
    assert held.target == 0.7


def test_held_maps_are_let_go_when_the_pass_ends():
    network = create_network("matting_unet", resampling="indexnet").eval()
    literal = literal_network(network, hold=True)
    stages = list(literal.resampling.stages)
    with torch.inference_mode():
        x = torch.rand(1, 4, 32, 32)
        torch.testing.assert_close(literal(x), network(x), rtol=1e-4, atol=1e-5)
    assert len({id(stage.held) for stage in stages}) == 1
    assert stages[0].held == []


@pytest.mark.parametrize("kind", metrics.KINDS)
@pytest.mark.parametrize("name", metrics.TARGETS)
def test_metrics_are_compared_with_their_published_form(name, kind):
    arrays = metrics.mattes(kind, 0, (48, 64))
    found = metrics.measure(name, kind, arrays, ONCE)
    references = ("published", "published, lean")
    assert pairs(found, "time") == {(form, reference) for form in metrics.SEMANTICS for reference in references}


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with threads(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
