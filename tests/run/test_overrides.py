"""Whatever an override says, it is seen in the frozen configuration or refused in one sentence that names its key."""

from __future__ import annotations

import random
import re

import pytest

from indexnet.core.errors import UserError
from indexnet.run.config import compose, composing, freeze, parse_overrides, to_plain
from indexnet.run.schema import known_keys
from indexnet.sweep.expand import expand

VALUES = (
    *(
        "7",
        "-3",
        "0",
        "1.5",
        "nan",
        "true",
        "null",
        "???",
        "''",
        "' '",
        "x",
        "é",
        "'日本 語'",
        "@",
        "../x",
        "/",
        "x" * 5000,
    ),
    *("[1,2]", "[]", "[x]", "{a:1}", "{}", "auto", "1e400", "123456789012345678901234567890"),
    *(
        "${nosuch}",
        "${oc.env:NOSUCH}",
        "${seed}",
        "${x:y}",
        "${paths}",
        "${",
        "[",
        "a,b",
        "interval(1,2)",
        "range(0,2)",
    ),
)
INNER = (
    *(
        "task.name",
        "task.costs_size",
        "task.foo",
        "network.name",
        "network.widths",
        "network.in_channels",
        "network.foo",
    ),
    *("encoder.name", "encoder.width", "resampling.name", "resampling.family", "resampling.nonlinear"),
    *(
        "data.name",
        "resampling.channels",
        "data.test_count",
        "data.size",
        "data.task",
        "data.root",
        "optimizer.lr",
        "optimizer.betas",
    ),
    *("optimizer.name", "optimizer.momentum", "optimizer.weight_decay", "optimizer.params", "schedule.name"),
    *("schedule.milestones", "schedule.gamma", "experiment.title", "experiment.rows", "trainer.max_epochs", "nosuch"),
)
# what acts on a sweep, or stands for many keys: seen elsewhere than under its own name
SWEEP = ("rows", "seeds", "fail_fast", "retry_failed", "experiments")


def draw(count: int, seed: int) -> list[tuple[str, bool]]:
    """Return overrides of all kinds, each with whether it is one of a sweep."""
    rng = random.Random(seed)
    keys = [*known_keys(), *INNER, "experiments"]
    drawn = []
    for _ in range(count):
        key, prefix = rng.choice(keys), rng.choice(("", "", "", "+", "++", "~"))
        text = f"~{key}" if prefix == "~" and rng.random() < 0.7 else f"{prefix}{key}={rng.choice(VALUES)}"
        drawn.append((text, rng.random() < 0.25))
    return drawn


def made_of(override: str, in_sweep: bool) -> list[tuple[dict, dict, str]]:
    """Return what an override makes of a small run, composed and frozen; a sweep may make several runs."""
    base = ["task=reconstruction", "training.epochs=3"]
    jobs = list(expand(parse_overrides([*base, override]))) if in_sweep else [[*base, override]]
    composed = [compose(job) for job in jobs]
    return [(freeze(each), to_plain(each), job[-1]) for each, job in zip(composed, jobs, strict=True)]


def value_of(config: dict, key: str):
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return None
        config = config[part]
    return config


def complaint(override: str, in_sweep: bool) -> str:
    """Return what is wrong with how an override is treated; "" where nothing is."""
    key = override.lstrip("+~").partition("=")[0]
    try:
        made = made_of(override, in_sweep)
    except UserError as error:
        said = str(error)
        named = key.removesuffix(".name").rpartition(".")[2].removesuffix("s")
        if named not in said:
            return f"does not name {key}: {said}"
        return f"more than a line: {said}" if "\n" in said or len(said) > 1000 else ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    for config, composed, text in made:
        if key in SWEEP:
            continue
        wanted, known = value_of(composed, key), value_of(config, key)
        if text.startswith("~"):
            if known is not None:
                return f"left out, but {key} is {known!r}"
        elif wanted != known and wanted not in (None, "auto", []) and key != "schedule":
            return f"{key} is {known!r} in the frozen configuration, and {wanted!r} was asked for"
    return ""


def test_no_override_is_ignored_or_ends_in_a_traceback():
    with composing():
        found = [
            (override[:80], sweep, said) for override, sweep in draw(100, 0) if (said := complaint(override, sweep))
        ]
    assert not found


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+trainer.max_epochs=1", "unknown config key 'trainer.max_epochs'. Did you mean 'training.epochs'?"),
        ("+trainer.limit_train_batches=2", "unknown config key 'trainer.limit_train_batches'."),
        ("+logger.entity=me", "unknown config key 'logger.entity'."),
        ("+budget.max_epochs=1", "unknown config key 'budget.max_epochs'."),
        ("+paths.root=x", "unknown config key 'paths.root'."),
        ("+debug.fast=true", "unknown config key 'debug.fast'."),
        ("+encoder.width=2", "encoder.width belongs to an encoder"),
        ("+experiment.foo=1", "unknown config key 'experiment.foo'."),
        ("++experiment.title=x", "experiment.title=x: the file of an experiment says this"),
        ("+data.task=depth", "has no option 'task'"),
        ("~schedule", "schedule.name is missing; name one of the options of conf/schedule."),
        ("~trainer.accumulate", "trainer.accumulate is missing; it must be a positive integer."),
        ("~training.batch_size", "training.batch_size is missing"),
        ("~optimizer", "optimizer.name is missing"),
        ("~optimizer.lr", "optimizer.lr is missing"),
        ("~seed", "seed is missing; it must be an integer of at least 0."),
        ("data.name=null", "data.name=None must be a name; data=NAME chooses one."),
        ("resampling.name=1.5", "resampling.name=1.5 must be a name"),
        ("data.test_count=[1,2]", "data.test_count=[1, 2] must be an integer."),
        ("data.test_count=abc", "data.test_count='abc' must be an integer."),
        ("optimizer=adam optimizer.betas=null", "optimizer.betas=None must be a list of numbers."),
        ("optimizer=adam optimizer.betas=[]", "optimizer.betas=[] must be a list of numbers."),
        ("network.widths=[4,x]", "network.widths=[4, 'x'] must be a list of integers."),
        ("resampling=[bilinear,nearest]", "the config group resampling is chosen by the name of one option"),
        ("network=[1,2]", "the config group network is chosen by the name of one option"),
        ("paths.runs=null", "paths.runs=None must be a text."),
        ("experiment=x", "experiment"),
        ("rows=???", "rows cannot be resolved: Missing mandatory value: rows."),
        ("seeds=${nosuch}", "seeds cannot be resolved: Interpolation key 'nosuch' not found."),
        ("rows=hin", "rows=... selects runs of a sweep; give -m too."),
    ],
)
def test_what_used_to_be_ignored_or_to_end_in_a_traceback(override, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        freeze(compose(["task=reconstruction", *override.split(" ")]))


@pytest.mark.parametrize("override", ["rows=[]", "seeds=[]", "rows=glob(nosuch*)", "seeds=range(3,3)"])
def test_a_selection_of_nothing_is_refused(override):
    with pytest.raises(UserError, match="selects nothing"):
        list(expand(parse_overrides(["experiments=quickstart", override])))


def test_rows_by_a_pattern():
    jobs = list(expand(parse_overrides(["experiments=quickstart", "rows=glob(hi*)", "seeds=0"])))
    assert [text for job in jobs for text in job if text.startswith("experiment.row=")] == ["experiment.row=hin"]
