"""Random overrides: whatever one says is seen in the frozen configuration, or refused in a sentence that names its key.

    python benchmarks/random_overrides.py [COUNT] [SEED]    default 1000 0; prints what is wrong and how many went how

Keys come from the schema, from the options of the parts that a configuration names, and from mistakes that people make;
values are of every kind that YAML and Hydra know. Everything is composed and frozen in this process; nothing is run.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from typing import Any

from hydra.core.global_hydra import GlobalHydra

from indexnet.core.errors import UserError
from indexnet.core.registry import option_names
from indexnet.data import get_data
from indexnet.networks import get_network
from indexnet.resampling import get_resampling
from indexnet.run.config import check_single, compose, composing, freeze, parse_overrides, to_plain
from indexnet.run.identity import without_new_defaults
from indexnet.run.schema import OPEN_GROUPS, OPEN_TYPES, known_keys
from indexnet.sweep.expand import expand
from indexnet.tasks import get_task

BASE = ("task=reconstruction",)
NUMBERS = ("7", "-3", "0", "1.5", "-0.0", "nan", "inf", "1e400", "123456789012345678901234567890", "0x10", "1_000")
TEXTS = ("x", "é", "'日本 語'", "'😀'", "''", "' '", "'a\tb'", "@", "../x", "/", "auto", "true", "null", "x" * 5000)
PARTS = ("[1,2]", "[]", "[x]", "[null]", "[[1]]", "{a:1}", "{}", "{a:{b:[1]}}", "a,b", "interval(1,2)", "range(0,2)")
REFERENCES = ("???", "${nosuch}", "${oc.env:NOSUCH}", "${seed}", "${x:y}", "${paths}", "${", "[", "glob(no*)")
VALUES = (*NUMBERS, *TEXTS, *PARTS, *REFERENCES)
MISTAKES = (
    *("nosuch", "task.foo", "network.foo", "data.task", "resampling.channels", "optimizer.params", "training"),
    *("trainer.max_epochs", "experiment.title", "experiment.rows", "hydra.nosuch", "schedule.gamma"),
)
SWEEP = ("rows", "seeds", "fail_fast", "retry_failed", "experiments")
"""What acts on a sweep, or stands for many keys: seen elsewhere than under its own name."""


def keys() -> list[str]:
    """Return the keys to draw from: of the schema, of the parts' constructors, and mistakes."""
    config = freeze(compose(list(BASE)))
    options = [f"{group}.name" for group in OPEN_GROUPS] + list(OPEN_TYPES)
    parts = {"task": get_task, "network": get_network, "resampling": get_resampling, "data": get_data}
    for group, find in parts.items():
        options += [f"{group}.{name}" for name in option_names(find(config[group]["name"]))]
    options += [f"optimizer.{name}" for name in ("betas", "momentum", "weight_decay", "eps")]
    return [*dict.fromkeys((*known_keys(), *options, *MISTAKES, "experiments"))]


def draw(count: int, seed: int) -> list[tuple[str, bool]]:
    """Return overrides of all kinds, each with whether it is one of a sweep."""
    rng, known, drawn = random.Random(seed), keys(), []
    composed = to_plain(compose(list(BASE)))
    for _ in range(count):
        key, prefix = rng.choice(known), rng.choice(("", "", "", "", "+", "++", "~"))
        own, value = value_of(composed, key), rng.choice(VALUES)
        if rng.random() < 0.3 and not isinstance(own, dict | str):  # something that may well be accepted
            value = json.dumps(2 * own if isinstance(own, int | float) and not isinstance(own, bool) else own)
        text = f"~{key}" if prefix == "~" and rng.random() < 0.7 else f"{prefix}{key}={value}"
        drawn.append((text, rng.random() < 0.3))
    return drawn


def made_of(override: str, in_sweep: bool) -> list[tuple[dict[str, Any], dict[str, Any], str]]:
    """Return what an override makes of a run, or of the runs of a sweep: frozen, composed, and its own text."""
    jobs = [[*BASE, override]]
    if in_sweep:
        jobs = list(expand(parse_overrides(jobs[0], GlobalHydra.instance().config_loader())))
    composed = [compose(job) for job in jobs]
    if not in_sweep:
        check_single(composed[0])
    return [(freeze(each), to_plain(each), job[-1]) for each, job in zip(composed, jobs, strict=True)]


def value_of(config: Any, key: str) -> Any:
    """Return the value of a dotted key, None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def judge(override: str, in_sweep: bool) -> tuple[str, str]:
    """Return how an override was treated, ``accepted`` or ``refused``, and what is wrong with that, if something is."""
    key = override.lstrip("+~").partition("=")[0]
    try:
        made = made_of(override, in_sweep)
    except UserError as error:
        said, named = str(error), key.removesuffix(".name").rpartition(".")[2].removesuffix("s")
        if named not in said:
            return "refused", f"does not name {key}: {said[:300]}"
        if "\n" in said or len(said) > 1000 or not said.endswith((".", "?")):
            return "refused", f"is not one sentence: {said[:300]!r}"
        return "refused", ""
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {str(error)[:300]}"
    for config, composed, text in made:
        wanted, known = value_of(without_new_defaults(composed), key), value_of(config, key)
        if key in SWEEP:
            continue
        if text.startswith("~"):
            if known is not None:
                return "accepted", f"left out, but {key} is {known!r}"
        elif wanted != known and wanted not in (None, "auto", []) and key != "schedule":
            return "accepted", f"{key} is {known!r} in the frozen configuration, and {wanted!r} was asked for"
    return "accepted", ""


def main(count: int = 1000, seed: int = 0) -> int:
    """Draw, judge and print; return the exit code."""
    ways: Counter[str] = Counter()
    wrong = 0
    with composing():
        for override, in_sweep in draw(count, seed):
            way, said = judge(override, in_sweep)
            ways[way] += 1
            if said:
                wrong += 1
                print(f"{'-m ' if in_sweep else ''}{override[:100]}: {way}: {said}", flush=True)
    print(f"{count} overrides of seed {seed}: {dict(ways)}, {wrong} treated wrongly")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
