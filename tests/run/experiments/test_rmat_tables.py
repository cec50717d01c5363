"""The tables of the thesis on robust matting: which trainings they share, and by which protocol these run."""

from __future__ import annotations

import pytest

from indexnet.core.schedules import create_schedule, in_steps
from indexnet.run.config import compose, freeze
from indexnet.run.experiments.tables import list_experiments, load_experiment

TABLES = [name for name in list_experiments() if name.startswith("thesis/table5_")]


def test_each_training_is_done_once():
    trainings = set()
    for name in TABLES:
        table = load_experiment(name)
        for row in table.select(None):
            of = row.run_of
            trainings.add((of.experiment.name, of.row.name) if of else (name, row.name))
    own = {each for each in trainings if each[0] in TABLES}
    assert len(TABLES) == 10
    assert len(own) == 27
    assert trainings - own == {
        ("tpami/table3_matting", "m2o_nl_c"), ("thesis/table4_2_upsamplers", "dynamic_cs_d_norms")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "steps", "batch"), [pytest.param("n3", 90_000, 32, marks=pytest.mark.long), ("m7_sa", 120_000, 64)]
)
def test_the_protocol_is_that_of_the_text(row, steps, batch):
    table = load_experiment("thesis/table5_5_generalization")
    (found,) = table.select([row])
    config = freeze(compose([*table.composed_of(found), f"experiment.row={row}", "tests=[]"]))
    assert (config["training"]["steps"], config["training"]["batch_size"]) == (steps, batch)
    assert config["training"]["size"] == 512
    assert config["task"]["alignment"] == "reflect"
    terms = {key: weight for key, weight in config["task"]["loss"].items() if weight}
    assert terms == {"alpha": 0.5, "composition": 0.5, "laplacian": 1, "gradient_penalty": 1}
    optimizer = config["optimizer"]
    assert (optimizer["name"], optimizer["lr"], optimizer["weight_decay"]) == ("adamw", 6e-4, 0.01)
    assert (optimizer["encoder_lr_multiplier"], optimizer["no_decay_norms_and_biases"]) == (1, True)
    spec = in_steps(config["schedule"], steps, steps, None)
    schedule = create_schedule({key: value for key, value in spec.items() if key != "total_steps"})
    for step in (0, 1, 499, 998, 999):
        assert schedule.scale(step, steps) == pytest.approx((step + 1) / 1000)
    assert schedule.scale((steps + 999) // 2, steps) == pytest.approx(0.5, abs=1e-4)
    assert schedule.scale(steps, steps) == pytest.approx(0)
    assert "pooling" not in config["resampling"]  # its encoder halves by itself


@pytest.mark.long
def test_the_pipeline_is_left_to_data_sets_that_have_one():
    words = ["experiments=thesis/table5_2_decoder_skip", "experiment.row=b3", "network.decoder=conv"]
    assert "pipeline" not in freeze(compose(words))["data"]
    assert freeze(compose([*words, "data=composition1k"]))["data"]["pipeline"] == "gca"
