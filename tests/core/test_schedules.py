"""Learning-rate schedules as numbers: against torch's own, with a warm-up, in epochs and in steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, PolynomialLR, SequentialLR, StepLR

from indexnet.core.errors import UserError
from indexnet.core.paths import conf_dir
from indexnet.core.schedules import SCHEDULES, check_length, create_schedule, in_steps, schedule_options

STEPS = 40


def _torch_rates(build):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = build(optimizer), []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def _rates(**spec):
    schedule = create_schedule(spec)
    return [schedule.scale(step, STEPS) for step in range(STEPS)]


@pytest.mark.parametrize(
    ("spec", "theirs"),
    [
        ({"name": "cosine"}, lambda o: CosineAnnealingLR(o, STEPS)),
        ({"name": "cosine", "end_factor": 0.2}, lambda o: CosineAnnealingLR(o, STEPS, eta_min=0.2)),
        ({"name": "poly", "power": 0.9}, lambda o: PolynomialLR(o, STEPS, power=0.9)),
        ({"name": "step", "step_size": 7, "gamma": 0.5}, lambda o: StepLR(o, 7, gamma=0.5)),
        ({"name": "constant", "warmup": 8, "warmup_start": 0.1}, lambda o: LinearLR(o, 0.1, total_iters=8)),
        (
            {"name": "cosine", "warmup": 8, "warmup_start": 0.1},
            lambda o: SequentialLR(o, [LinearLR(o, 0.1, total_iters=8), CosineAnnealingLR(o, STEPS - 8)], [8]),
        ),
        (
            {"name": "poly", "power": 2, "warmup": 0.2, "warmup_start": 0.1},
            lambda o: SequentialLR(o, [LinearLR(o, 0.1, total_iters=8), PolynomialLR(o, STEPS - 8, power=2)], [8]),
        ),
    ],
)
def test_rates_are_torchs(spec, theirs):
    assert _rates(**spec) == pytest.approx(_torch_rates(theirs), abs=1e-9)


def test_milestones_keep_their_place_beside_a_warm_up():
    rates = _rates(name="multistep", milestones=[10, 20], gamma=0.1, warmup=4, warmup_start=0.5)
    assert rates[:5] == [0.5, 0.625, 0.75, 0.875, 1]
    assert (rates[9], rates[10], rates[19], rates[20]) == pytest.approx((1, 0.1, 0.1, 0.01))


def test_a_warm_up_that_is_the_whole_run_ends_at_the_full_rate():
    assert create_schedule({"name": "cosine", "warmup": STEPS}).scale(STEPS - 1, STEPS) < 1
    assert create_schedule({"name": "constant", "warmup": 0.5}).scale(10**9, STEPS) == 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_files_name_every_option_with_its_default(name):
    node = yaml.safe_load((conf_dir() / "schedule" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert node.pop("name") == name
    assert set(node) == set(schedule_options(name))
    schedule = create_schedule({"name": name, **node})
    for key, value in vars(type(schedule)).items():
        if key in node:  # what a class has beside required fields are its defaults
            assert node[key] == value


def test_the_page_has_every_schedule_with_its_options():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (`.*`) \|$", page, flags=re.MULTILINE)
    assert {name: tuple(re.findall(r"\w+", options)) for name, options in rows} == {
        name: tuple(sorted(schedule_options(name), key=lambda option: option.startswith("warmup")))
        for name in SCHEDULES
    }


def test_epochs_become_steps_and_a_budget_shrinks_a_warm_up_too():
    spec = {"name": "multistep", "milestones": [20, 26], "gamma": 0.1, "warmup": 300}
    whole = in_steps(spec, 3000, 3000, 30)
    assert whole == {**spec, "milestones": [2000, 2600], "total_steps": 3000}
    assert in_steps(spec, 30, 3000, 30) == {**spec, "milestones": [20, 26], "warmup": 3, "total_steps": 30}
    assert in_steps({"name": "cosine", "warmup": 0.1}, 30, 3000, None)["warmup"] == 3
    assert in_steps({"name": "step", "step_size": 3, "gamma": 0.1}, 50, 50, 10)["step_size"] == 15
    assert in_steps({"name": "constant"}, 5, 5, None) == {"name": "constant", "total_steps": 5}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"name": "cosin"}, "unknown schedule 'cosin'. Did you mean 'cosine'?"),
        ({"name": "cosine", "end_facto": 0}, "schedule 'cosine' has no option 'end_facto'. Did you mean 'end_factor'?"),
        ({"name": "multistep", "gamma": 0.1}, "schedule.milestones is missing; schedule=multistep needs it"),
        ({"name": "cosine", "warmup": 1.5}, "schedule.warmup=1.5 must be a number of optimizer steps, or a fraction"),
        ({"name": "cosine", "warmup_start": 0}, "schedule.warmup_start=0 must be a number above 0 and at most 1"),
        ({"name": "plateau", "factor": 1}, "schedule.factor=1 must be a number between 0 and 1"),
        ({"name": "multistep", "gamma": 0.1, "milestones": [3, 10]}, "milestones=[3, 10] is longer than the run: with"),
        ({"name": "step", "gamma": 0.1, "step_size": 10}, "schedule.step_size=10 is longer than the run"),
        ({"name": "poly", "warmup": 101}, "schedule.warmup=101 is longer than the run, which has 100 steps"),
    ],
)
def test_mistakes_are_one_sentence(spec, sentence):
    with pytest.raises(UserError) as error:
        check_length(spec, 100, 10)
    assert sentence in str(error.value)
