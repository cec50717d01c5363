"""Further test data sets of a run, ``tests=[aim500,distinctions646]``: what each is, and its samples.

They are measured after the run's own test split, with the same weights; their metrics are called ``aim500/sad``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.errors import UserError, shown
from indexnet.run.experiments.experiment import hydra_value
from indexnet.run.schema import Config

if TYPE_CHECKING:
    from indexnet.data import Data, Dataset
    from indexnet.tasks import Task

ComposeData = Callable[[tuple[str, ...]], Mapping[str, Any]]
"""Composes overrides, and returns the group ``data``."""


def compose_tests(config: Mapping[str, Any], compose: ComposeData) -> list[dict[str, Any]]:
    """Return the name and all options of each further test data set: what is said, and the rest as its file has it.

    Args:
        config: composed, plain. Each entry of its ``tests`` is a name or a mapping with ``name`` and options.
        compose: see :data:`ComposeData`.

    Raises:
        UserError: an entry is neither, there is no such data set, or one is named twice.
    """
    found: list[dict[str, Any]] = []
    for entry in config["tests"]:
        own = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(own, Mapping) or not isinstance(own.get("name"), str):
            raise UserError(f"tests: {shown(entry)} must be the name of a data set, or a mapping with its name.")
        name = own["name"]
        if any(each["name"] == name for each in found):
            raise UserError(f"tests: {name} is there twice; its metrics would have one name.")
        try:
            data = compose((f"data={hydra_value(name)}", f"paths.data={hydra_value(config['paths']['data'])}"))
        except UserError as error:
            raise UserError(f"tests: {error}") from error
        found.append({**data, **own})
    return found


def check_tests(config: Mapping[str, Any], check: Callable[[Mapping[str, Any]], None]) -> None:
    """Check the further test data sets of a configuration.

    Args:
        config: composed, plain, with the options of each.
        check: refuses a group ``data`` with an option that there is not.

    Raises:
        UserError: an option is wrong, or the run is not measured on test data at all.
    """
    tests = config.get("tests") or ()
    if tests and config.get("split", "test") != "test":
        names = ",".join(each["name"] for each in tests)
        raise UserError(
            f"tests=[{names}] are test data, and split={config['split']} measures on none; give one of them."
        )
    for each in tests:
        try:
            check(each)
        except UserError as error:
            raise UserError(f"tests, {each['name']}: {error}") from error


def open_tests(config: Config) -> dict[str, Data]:
    """Return the further test data sets, by name.

    Raises:
        UserError: one cannot be had; the message says that it can be left out.
    """
    from indexnet.run.loader import build_data

    task, size = config.task["name"], config.training.size
    return {each["name"]: _opened(each["name"], partial(build_data, each, task, size)) for each in _of(config)}


def further_splits(config: Config, task: Task | None = None) -> dict[str, Dataset]:
    """Return all test splits of the further data sets, by name: ``aim500``, or ``NAME/SPLIT`` where one has several.

    Args:
        config: of the run.
        task: which is to measure them; None: whether it can is not looked at.

    Raises:
        UserError: files are missing, the task cannot use what is there, or the run trains on it without labels.
    """
    from indexnet.data.matting.unlabelled import find_photographs, refuse_tests

    found: dict[str, Dataset] = {}
    unlabelled = config.data.get("unlabelled")
    for name, data in open_tests(config).items():
        splits = _opened(name, data.tests)
        if unlabelled is not None:
            photographs = find_photographs(Path(unlabelled))
            for split in splits.values():
                _opened(name, partial(refuse_tests, photographs, split))
        if task is not None:
            _opened(name, partial(_check, task, data))
        found |= {f"{name}/{split}" if split else name: each for split, each in splits.items()}
    return found


def describe_further(splits: Mapping[str, Dataset]) -> dict[str, Any] | None:
    """Describe them for the record: of each how many samples, and their fingerprint; None where there are none."""
    return {name: {"count": len(each), "fingerprint": each.fingerprint()} for name, each in splits.items()} or None


def missing_folder(config: Mapping[str, Any], exists: Callable[[str], bool]) -> tuple[str, str, str] | None:
    """Return key, name and folder of the first data set of a frozen configuration whose folder is not there."""
    groups = [("data.root", config["data"]), *(("tests", each) for each in config.get("tests") or ())]
    roots = ((key, str(group["name"]), group.get("root")) for key, group in groups)
    return next(((key, name, root) for key, name, root in roots if root is not None and not exists(root)), None)


def _of(config: Config) -> Iterator[Mapping[str, Any]]:
    yield from (each for each in config.tests if isinstance(each, Mapping))


def _opened(name: str, get: Callable[[], Any]) -> Any:
    try:
        return get()
    except UserError as error:
        said = str(error).rstrip(".")
        raise UserError(f"tests, {name}: {said}; or leave {name} out of tests=[...].") from error


def _check(task: Task, data: Data) -> None:
    """Refuse samples that the task cannot measure, before anything is trained."""
    import numpy as np

    task.check_data(data)
    for split in data.tests().values():
        sample = split.sample(0, np.random.default_rng(0))
        given, wanted = task.input_channels(sample), task.network.in_channels
        if given != wanted:
            raise UserError(f"its images give the network {given} input channels, and it takes {wanted}")
        task.check_target(sample)
