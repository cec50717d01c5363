"""Optimizer, schedule and encoder of a configuration: by any name, with what a task sets for others left out."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from indexnet.cli import main
from indexnet.run.config import compose, freeze
from indexnet.run.identity import config_hash
from indexnet.run.job import run_job
from indexnet.tasks.base import Task
from resume_support import die_at, forks, result_of, start
from run_support import MATTING, RECONSTRUCTION, curve, prepare_run, refused, same, weights


def _frozen(words):
    return freeze(compose(words.split()))


@pytest.mark.parametrize(
    ("words", "group", "node"),
    [
        ("optimizer=adamw", "optimizer", {"name": "adamw", "lr": 0.01, "betas": [0.9, 0.999], "weight_decay": 0.01}),
        ("optimizer=adan", "optimizer", {"name": "adan", "lr": 0.01, "weight_decay": 0.0}),
        ("optimizer=rprop", "optimizer", {"name": "rprop", "lr": 0.01}),
        ("optimizer=adam optimizer.name=adopt", "optimizer", {"name": "adopt", "lr": 0.01, "betas": [0.9, 0.999],
                                                              "weight_decay": 0.0}),
        ("optimizer=sgd optimizer.nesterov=true", "optimizer", {"name": "sgd", "lr": 0.01, "momentum": 0.9,
                                                                "weight_decay": 0.0, "nesterov": True}),
        ("schedule=cosine", "schedule", {"name": "cosine", "end_factor": 0.0}),
        ("schedule=poly schedule.warmup=0.1", "schedule", {"name": "poly", "power": 0.9, "end_factor": 0.0,
                                                           "warmup": 0.1, "warmup_start": 0.01}),
        ("schedule.warmup=0", "schedule", {"name": "multistep", "milestones": [50, 70, 85], "gamma": 0.1}),
    ],
)  # fmt: skip
def test_what_is_chosen_is_what_is_frozen(words, group, node):
    found = _frozen(f"task=reconstruction {words}")[group]
    found.pop("encoder_lr_multiplier", None)
    assert found == node


def test_any_encoder_of_timm_goes_by_its_name(capsys):
    words = "task=matting resampling=max_unpool"
    short, long = _frozen(f"{words} encoder=resnet18"), _frozen(f"{words} encoder=timm encoder.name=resnet18")
    assert short == long
    assert short["encoder"] == {"name": "resnet18", "pretrained": False, "freeze_bn": False}
    assert main(["train", "task=matting", "encoder=resnet18", "--cfg", "job"]) == 0  # read by Hydra's own command line
    assert "encoder:\n  name: resnet18\n" in capsys.readouterr().out


def test_a_tables_setting_for_another_optimizer_is_left_out():
    words = "experiments=tpami/table7_nyudv2 data=scenes experiment.row=x encoder.pretrained=false"
    assert _frozen(words)["optimizer"]["momentum"] == 0.9
    assert "momentum" not in _frozen(f"{words} optimizer=adamw")["optimizer"]


def test_a_tables_setting_for_another_data_set_is_left_out():
    words = "experiments=thesis/table4_6_alphamatting experiment.row=x encoder.pretrained=false resampling=a2u"
    assert not {"pipeline", "train_on"} & _frozen(words)["data"].keys()
    found = _frozen(f"{words} data=composition1k data.root=nowhere")["data"]
    assert (found["pipeline"], found["train_on"]) == ("a2u", "all")
    assert "train_on" not in _frozen(f"{words} data=distinctions646 data.root=nowhere")["data"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("data=mnist +data.pipeline=gca", "data.pipeline means nothing to data=mnist; leave it out"),
        (
            "schedule=cosine schedule.milestones=[1]",
            "schedule.milestones means nothing to schedule=cosine; leave it out",
        ),
        ("schedule=cosine schedule.factor=0.5", "schedule.factor means nothing to schedule=cosine; leave it out"),
        ("schedule.warmup_start=0.1", "schedule.warmup_start means nothing without schedule.warmup"),
        ("schedule=onecycle schedule.max_momentum=0.9", "means nothing without schedule.cycle_momentum"),
        ("schedule=onecycle schedule.cycle_momentum=true optimizer=adagrad", "optimizer=adagrad has no momentum"),
        ("optimizer=adamw optimizer.momentum=0.9", "optimizer.momentum means nothing to optimizer=adamw; leave it out"),
        ("optimizer=adamw +optimizer.momentum=0.9", "optimizer.momentum means nothing to optimizer=adamw"),
        (
            "optimizer=adamw optimizer.amsgrda=true",
            "optimizer 'adamw' has no option 'amsgrda'. Did you mean 'amsgrad'?",
        ),
        ("optimizer=adamw optimizer.betas=[0.9]", "optimizer.betas=[0.9] must be a list of numbers"),
        ("optimizer=adamw optimizer.eps=-1", "optimizer.eps=-1 cannot work: Invalid epsilon value: -1"),
        ("optimizer=admw", "unknown optimizer 'admw'. Did you mean 'adamw'?"),
        ("optimizer=lbfgs", "optimizer=lbfgs cannot be used here"),
        ("optimizer=timm", "optimizer.name is missing; give optimizer=NAME"),
        ("optimizer=rprop optimizer.no_decay_norms_and_biases=true", "optimizer=rprop has no weight decay"),
        ("optimizer.no_decay_norms_and_biases=1", "optimizer.no_decay_norms_and_biases=1 must be true or false"),
        ("schedule=plateau", "schedule=plateau follows validation while training, and there is none"),
        ("training.epochs=60", "schedule.milestones=[50, 70, 85] is longer than the run: with training.epochs=60"),
        ("training.steps=50 schedule.warmup=51", "schedule.warmup=51 is longer than the run, which has 50 steps"),
        ("schedule.warmup=1.5", "schedule.warmup=1.5 must be a number of optimizer steps, or a fraction of the run"),
        ("task=matting encoder=timm", "encoder.name is missing; give encoder=NAME with the name of any timm model"),
        ("task=matting encoder=resnet43", "unknown encoder 'resnet43'. Did you mean 'resnet34'?"),
        ("task=matting encoder=convnext_atto", "encoder 'convnext_atto' cannot be opened at its strides: its layer"),
        ("task=segmentation encoder=efficientnet_b0", "segnet doubles what its encoder's last halving gives"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(words, sentence):
    with refused(sentence):
        freeze(compose(["task=reconstruction", *words.split()] if "task=" not in words else words.split()))


def test_new_keys_at_their_defaults_change_no_hash():
    plain = _frozen("task=depth")
    assert "no_decay_norms_and_biases" not in plain["optimizer"]
    same = _frozen("task=depth schedule.warmup=0 optimizer.no_decay_norms_and_biases=false")
    assert config_hash(same) == config_hash(plain)
    assert config_hash(_frozen("task=depth schedule.warmup=2")) != config_hash(plain)


@pytest.mark.long
@pytest.mark.nightly
def test_a_sweep_over_names():
    words = [word for word in MATTING if word != "encoder.width=0.25"]
    words += ["encoder=resnet18", "resampling=max_unpool", "budget=smoke", "logger=none"]
    assert main(["train", "-m", *words, "optimizer=adan,adamw", "schedule=cosine"]) == 0
    assert len(list(Path("runs/single").glob("matting-*/record.json"))) == 2


REAL = {
    "adamw-cosine": ["optimizer=adamw", "optimizer.no_decay_norms_and_biases=true", "optimizer.weight_decay=0.1",
                     "schedule=cosine", "schedule.warmup=0.4"],
    "lamb-onecycle": ["optimizer=lamb", "schedule=onecycle", "schedule.cycle_momentum=true"],
    "lion-plateau": ["optimizer=lion", "schedule=plateau", "schedule.patience=0", "schedule.threshold=10",
                     "schedule.warmup=2", "training.validate_every=2"],
}  # fmt: skip


@forks
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "step"),
    [("adamw-cosine", "training_step"), ("lamb-onecycle", "training_step"),
     ("lion-plateau", "training_step"), ("lion-plateau", "validation_step")],
)  # fmt: skip
def test_a_killed_run_keeps_its_rates(name, step, tmp_path):
    words = [*RECONSTRUCTION, *REAL[name], "trainer.checkpoint_every=2", "optimizer.lr=0.01", "training.steps=8",
             "callbacks=lr_monitor"]  # fmt: skip
    whole, cut = prepare_run(tmp_path / "whole", *words), prepare_run(tmp_path / "cut", *words)
    assert run_job(whole.path) == 0

    assert result_of(start(cut, die_at(Task, step, 5 if step == "training_step" else 3))) == -signal.SIGKILL
    assert run_job(cut.path) == 0
    assert same(weights(whole), weights(cut))
    assert whole.record().metrics == cut.record().metrics
    assert _rates(whole) == _rates(cut)
    assert len({value for *_, value in _rates(whole)}) > 2


def _rates(folder):
    return [(key, row["step"], row[key]) for row in curve(folder) for key in row if key.startswith("lr-") and row[key]]
