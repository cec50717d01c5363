"""Hyperparameter search: what a command line asks for, what the storage keeps, and a real search that is killed."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.indexnet_plugins.optuna_sweeper import examples, read_range, read_request
from indexnet.cli import main
from indexnet.core.errors import UserError
from launch_support import killed_when
from run_support import command, refused

optuna = pytest.importorskip("optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402

from indexnet.sweep.search import Measured, Search, describe, open_study, run_search  # noqa: E402

LR = {"optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True)}
FAMILY = {"resampling.family": CategoricalDistribution(("hin", "m2o"))}
TINY = ["task=reconstruction", "data=scenes", "data.validation_count=3", "network.in_channels=3", "budget=smoke",
        "network.widths=[4,8]", "training.batch_size=2", "data.train_count=8", "trainer.accelerator=cpu",
        "trainer.num_workers=0"]  # fmt: skip


def _overrides(*texts):
    return OverridesParser.create().parse_overrides(list(texts))


@pytest.mark.parametrize(
    ("text", "expected", "said"),
    [
        ("optimizer.lr=tag(log,interval(1e-4,1e-1))", LR["optimizer.lr"], "0.0001 to 0.1, log"),
        ("a=interval(1,8)", FloatDistribution(1.0, 8.0), "1 to 8"),
        ("a=int(interval(1,8))", IntDistribution(1, 8), "whole numbers 1 to 8"),
        ("a=range(1,9,2)", IntDistribution(1, 7, step=2), "whole numbers 1 to 7, step 2"),
        ("a=tag(log,range(1,9))", IntDistribution(1, 8, log=True), "whole numbers 1 to 8, log"),
        ("a=range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1), "0.1 to 0.4, step 0.1"),
        ("a=range(0.1,1.3,0.1)", FloatDistribution(0.1, 1.2, step=0.1), "0.1 to 1.2, step 0.1"),
        ("+a=x,y,x", CategoricalDistribution(("x", "y")), "x | y"),
        ("a=choice('x y',3)", CategoricalDistribution(("x\\ y", "3")), "x\\ y | 3"),
        ("a=shuffle(2,3,1)", CategoricalDistribution(("1", "2", "3")), "1 | 2 | 3"),
    ],
)
def test_ranges(text, expected, said):
    (override,) = _overrides(text)
    found = read_range(override)
    assert found == expected
    assert describe(found) == said
    ((example,), *_) = examples({override.get_key_element(): found})
    assert example.startswith(f"{text.split('=')[0]}=")
    assert _overrides(example)[0].key_or_group == text.split("=")[0].lstrip("+")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a=interval(3,1)", "from a smaller to a larger"),
        ("a=tag(log,interval(0,1))", "lower end above 0"),
        ("a=tag(quick,interval(0,1))", "the tag 'quick' says nothing here"),
        ("a=tag(log,choice(x,y))", "choices have no logarithm"),
        ("a=tag(log,range(1,9,2))", "logarithm of a range with steps"),
        ("a=choice(x,x)", "at least two different"),
        ("a=range(1,2)", "at least two numbers"),
        ("a=glob(x*)", "cannot be searched"),
    ],
)
def test_ranges_that_cannot_be_searched(text, sentence):
    (override,) = _overrides(text)
    with refused(sentence, text):
        read_range(override)


def test_a_plain_search():
    space, fixed = read_request(_overrides("task=depth", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "seed=3"))
    assert space == LR
    assert fixed == ["task=depth", "seed=3", "split=validation"]


def test_the_protocol_of_a_row_but_for_what_is_searched():
    arguments = ["experiments=quickstart", "rows=hin", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "budget=smoke"]
    space, fixed = read_request(_overrides(*arguments, "resampling.family=hin,m2o"))
    assert space == {**LR, **FAMILY}
    assert fixed == [
        "experiments=quickstart", "resampling=indexnet", "resampling.nonlinear=true", "resampling.context=true",
        "budget=smoke", "seed=0", "experiment.name=null", "experiment.row=null", "experiment.label=null",
        "split=validation",
    ]  # fmt: skip
    assert list(space) == ["optimizer.lr", "resampling.family"]
    _, fixed = read_request(_overrides(*arguments, "resampling=indexnet,carafe"))  # a group, and all that is in it
    assert not [text for text in fixed if text.startswith("resampling")]
    assert "budget=smoke" in fixed


def test_every_choice_is_composed_before_the_first_trial():
    space = {**LR, **FAMILY, "a": CategoricalDistribution(("1", "2", "3"))}
    points = [("hin", 1), ("m2o", 1), ("hin", 2), ("hin", 3)]
    assert examples(space) == [["optimizer.lr=0.0001", f"resampling.family={name}", f"a={a}"] for name, a in points]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["task=depth"], "nothing to search"),
        (["a=1,2", "split=test"], "so that the test split stays unseen"),
        (["a=1,2", "split=test,validation"], "so that the test split stays unseen"),
        (["a=1,2", "seed=0,1"], "one row and one seed"),
        (["a=1,2", "experiments=quickstart"], "one row and one seed"),
        (["a=1,2", "experiments=quickstart", "rows=hin,m2o"], "one row and one seed"),
        (["a=1,2", "experiments=quickstart", "rows=hni"], "Did you mean 'hin'"),
        (["a=1,2", "a=interval(0,1)"], "a is searched twice"),
    ],
)
def test_requests_that_cannot_be_searched(arguments, sentence):
    with refused(sentence):
        read_request(_overrides(*arguments))


def _search(tmp_path, **values):
    given = {"task": "depth", "space": {**LR, **FAMILY}, "fixed": ["task=depth", "seed=0"], "metric": "depth_rmse",
             "maximize": False, "n_trials": 5, "folder": tmp_path, "startup_trials": 2,
             "say": lambda line: None}  # fmt: skip
    return Search(**{**given, **values})


def _value(point):
    """A bowl over the logarithm of the learning rate; the better family lies lower."""
    import math

    lr, family = float(point[0].partition("=")[2]), point[1].partition("=")[2]
    return (math.log10(lr) + 2.5) ** 2 + (0.0 if family == "m2o" else 1.0)


def _measure(points):
    return [Measured("done", _value(point), folder=f"runs/{point[0]}") for point in points]


def _params(search):
    return [trial.params for trial in open_study(search).trials]


def test_a_search_comes_to_its_trials_and_names_the_best(tmp_path):
    lines = []
    search = _search(tmp_path, say=lines.append)
    found = run_search(search, _measure)
    trials = open_study(search).trials
    assert found.finished == len(trials) == 5
    assert found.value == min(trial.value for trial in trials)
    assert found.value == _value(found.overrides)
    assert found.folder == f"runs/{found.overrides[0]}"
    assert lines[0] == f"search {search.name}: 5 trials; kept in {tmp_path}/{search.name}.db"
    assert lines[1].startswith("trial 1 of 5: optimizer.lr=")
    assert run_search(search, lambda points: pytest.fail("nothing is left to run")) == found


def test_more_trials_go_on_with_the_study_and_other_searches_have_others(tmp_path):
    search = _search(tmp_path, n_trials=2)
    run_search(search, _measure)
    more = _search(tmp_path, n_trials=4, fixed=["task=depth", "seed=0", "paths.runs=x", "logger=wandb"])
    assert more.name == search.name
    assert run_search(more, _measure).finished == 4
    assert _search(tmp_path, space=FAMILY).name != search.name


def test_an_interrupted_search_ends_as_if_it_had_not_been(tmp_path):
    whole = _search(tmp_path / "whole")
    run_search(whole, _measure)
    search, stops = _search(tmp_path / "killed"), [1, 3]
    seen = []

    def stop(points):
        seen.extend(points)
        if stops and len(open_study(search).trials) == stops[0] + 1:
            stops.pop(0)
            raise KeyboardInterrupt
        return _measure(points)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_search(search, stop)
        assert open_study(search).trials[-1].state == optuna.trial.TrialState.RUNNING
    assert run_search(search, stop).finished == 5
    assert len(seen) == 7
    assert seen[1] == seen[2]  # the trial that was stopped, again
    assert _params(search) == _params(whole)
    assert [trial.value for trial in open_study(search).trials] == [trial.value for trial in open_study(whole).trials]


def test_a_trial_killed_while_it_was_drawn_is_drawn_again(tmp_path):
    search = _search(tmp_path, n_trials=2)
    half = open_study(search).ask()
    half.suggest_categorical("resampling.family", ("hin", "m2o"))
    assert run_search(search, _measure).finished == 2
    states = [trial.state.name for trial in open_study(search).trials]
    assert states == ["FAIL", "COMPLETE", "COMPLETE"]


def test_failed_and_diverged_trials(tmp_path):
    results = iter([Measured("done", 2.0), Measured("diverged", reason="nan at step 3"), Measured("failed", reason="x"),
                    Measured("done", None), Measured("done", 1.0)])  # fmt: skip
    lines = []
    search = _search(tmp_path, say=lines.append)
    found = run_search(search, lambda points: [next(results) for _ in points])
    assert (found.finished, found.failed, found.value) == (3, 2, 1.0)
    states = [trial.state.name for trial in open_study(search).trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "COMPLETE"]
    assert "trial 2: diverged: nan at step 3" in lines
    assert "trial 4: failed: depth_rmse is not measurable" in lines
    assert run_search(search, _measure).finished == 5  # the same command tries two more


def test_a_search_in_which_all_fails_gives_up(tmp_path):
    found = run_search(_search(tmp_path, n_trials=9), lambda points: [Measured("failed", reason="no data")])
    assert (found.finished, found.failed, found.value) == (0, 3, None)
    found = run_search(_search(tmp_path, fail_fast=True), lambda points: [Measured("failed", reason="no data")])
    assert found.failed == 1


def test_trials_at_a_time_and_equal_ones_once(tmp_path):
    sizes = []

    def measure(points):
        assert len(set(map(tuple, points))) == len(points)
        sizes.append(len(points))
        return [Measured("done", 1.0) for _ in points]

    search = _search(tmp_path, space=FAMILY, n_jobs=3, n_trials=7)
    assert run_search(search, measure).finished == 7
    assert len(sizes) == 3
    assert max(sizes) <= 2  # of three there are at most two different ones


def test_another_search_in_the_same_study_is_refused(tmp_path):
    run_search(_search(tmp_path, name="mine", n_trials=1), _measure)
    for values, said in (
        ({"space": LR}, "its space is optimizer.lr: 0.0001 to 0.1, log; resampling.family: hin | m2o there"),
        ({"fixed": ["task=depth", "seed=1"]}, "its fixed is seed=0 task=depth there and seed=1 task=depth here"),
        ({"maximize": True}, 'its direction is "minimize" there and "maximize" here'),
    ):
        with refused(said, "give hydra.sweeper.study=ANOTHER_NAME"):
            run_search(_search(tmp_path, name="mine", **values), _measure)


def test_a_storage_that_is_none(tmp_path):
    file = tmp_path / "study.db"
    file.write_text("no database at all, but long enough to look like one" * 20)
    with refused(str(file), "hydra.sweeper.storage=ANOTHER_FILE"):
        run_search(_search(tmp_path, storage=str(file)), _measure)


def test_only_one_command_at_a_time(tmp_path):
    shared = tmp_path / "kept" / "all.db"
    first = _search(tmp_path / "a", storage=str(shared))

    def meanwhile(points):
        with pytest.raises(UserError, match="another search is at work on study"):
            run_search(_search(tmp_path / "b", storage=f"sqlite:///{shared}"), _measure)
        other = _search(tmp_path / "b", storage=str(shared), name="other", n_trials=1)
        assert run_search(other, _measure).finished == 1  # studies of one file do not disturb each other
        return _measure(points)

    assert run_search(_search(tmp_path / "a", storage=str(shared), n_trials=1), meanwhile).finished == 1
    assert first.lock.parent == shared.parent  # whatever paths.runs is
    assert _search(tmp_path, storage="mysql://host/db", name="n").lock == tmp_path / ".n.lock"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["optimizer.lr=0.1,0.2", "data=photos"], "has no validation split"),
        (["optimizer.lr=0.1,0.2", "~data.validation_count"], "data.validation_count"),
        (["optimizer.lr=0.1,0.2", "hydra.sweeper.metric=psrn"], "Did you mean 'psnr'"),
        (["optimizer.lr=0.1,0.2", "hydra.sweeper.direction=up"], "must be maximize or minimize"),
        (["optimizer.lr=0.1,0.2", "hydra.sweeper.n_trials=0"], "n_trials=0 must be at least 1"),
        (["optimizer.lr=0.1,0.2", "hydra/launcher=basic"], "leave hydra/launcher out"),
        (["optimizer.lr=0.1,0.2", "hydra.sweeper.study=a/b"], "without a slash"),
        (["optimizer.lr=0.1,0.2", "rerun=true"], "a search keeps what its trials came to"),
        (["optimizer.lrr=0.1,0.2"], "Did you mean 'lr'"),
        (["resampling=carafe,max_unpol"], "Did you mean 'max_unpool'"),
        (["optimizer.lr=interval(-1,-0.5)"], "optimizer.lr=-1.0 must be a positive number"),
    ],
)
def test_a_mistake_starts_nothing(arguments, sentence, mistake):
    tiny = [text for text in TINY if "data" not in "".join(arguments) or not text.startswith(("data", "+data"))]
    if "~data.validation_count" in arguments:
        tiny, arguments = [text for text in TINY if "validation" not in text], arguments[:1]
    mistake(main(["train", "-m", "hydra/sweeper=optuna", *tiny, *arguments]), sentence)
    assert not Path("runs").exists()


def test_without_optuna_the_extra_is_named(monkeypatch, mistake):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "optuna" else find(name, *more))
    words = ["train", "-m", "hydra/sweeper=optuna", *TINY, "optimizer.lr=0.1,0.2"]
    mistake(main(words), "pip install 'indexnet[sweep]'")


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="needs the parent-death signal")
def test_a_real_search_on_two_processes_is_killed_and_goes_on(tmp_path):
    words = ["train", "-m", "hydra/sweeper=optuna", *TINY, "trainer.devices=2",
             "optimizer.lr=tag(log,interval(1e-3,1e-2))", "hydra.sweeper.n_trials=3",
             "hydra.sweeper.study=small"]  # fmt: skip
    storage = f"sqlite:///{tmp_path}/runs/search/small.db"

    def trials():
        try:
            return optuna.load_study(study_name="small", storage=storage).trials
        except Exception:  # not made yet
            return []

    killed_when(
        command(*words), lambda: len(trials()) == 2 and len(list(Path("runs/single").glob("*/record.json"))) == 2
    )
    before = [trial.params for trial in trials()]
    assert [trial.state.name for trial in trials()] == ["COMPLETE", "RUNNING"]
    again = subprocess.run(command(*words), capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "3 trials, 1 done before, 1 interrupted" in again.stdout
    found = trials()
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 3
    assert [trial.params for trial in found[:2]] == before
    records = [json.loads(path.read_text()) for path in Path("runs/single").glob("*/record.json")]
    assert len(records) == 3
    assert {(record["status"], record["split"], record["test_count"]) for record in records} == {
        ("done", "validation", 2)
    }
    assert {record["batch"]["devices"] for record in records} == {2}
    assert sorted(record["metrics"]["psnr"] for record in records) == sorted(trial.value for trial in found)
    # the command that is printed trains the same thing, measured on the test split
    (line,) = re.findall(r"^On the test split: indexnet train (.*)$", again.stdout, re.MULTILINE)
    from indexnet.run.config import compose, freeze

    config = freeze(compose(shlex.split(line)))
    best = max(found, key=lambda trial: trial.value)
    assert (config["split"], config["optimizer"]["lr"]) == ("test", best.params["optimizer.lr"])
