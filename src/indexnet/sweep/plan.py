"""The runs of a table, as its sweep would make them, gathered by what costs the same."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from indexnet.core.errors import UserError
from indexnet.core.paths import DEFAULT_RUNS
from indexnet.run.experiments.experiment import Experiment, Row, key_of
from indexnet.run.experiments.tables import experiment_files, load_experiment, read_file, sweep_files
from indexnet.run.folder import RunFolder, run_path
from indexnet.run.identity import config_hash
from indexnet.run.resume import resumed_step
from indexnet.run.schema import Config, Rerun, read_config

if TYPE_CHECKING:
    from indexnet.data import Data
    from indexnet.sweep.plan_estimate import PlannedRow


@dataclass(frozen=True)
class Sweep:
    """The runs that ``indexnet train -m`` with the same words would make.

    Attributes:
        experiment: the table.
        configs: frozen, one for each run, in the sweep's order.
        n_jobs: runs at a time.
        retry_failed: whether runs that failed before are tried again.
        rerun: which finished runs are done again.
    """

    experiment: Experiment
    configs: tuple[Config, ...]
    n_jobs: int
    retry_failed: bool
    rerun: Rerun = False


def compose_table(name: str, overrides: Sequence[str]) -> Sweep:
    """Expand, compose and freeze a table's runs, exactly as the sweep does; nothing is written.

    Args:
        name: of an experiment or a sweep; or the first override of a command with ``sweep=``.
        overrides: of ``indexnet train -m``.

    Raises:
        UserError: what ``indexnet train -m`` would refuse as well.
    """
    from indexnet.sweep.frozen import compose_sweep

    words = [name, *overrides]
    if "=" not in name:
        runs = next((text.partition("=")[2] for text in overrides if key_of(text) == "paths.runs"), DEFAULT_RUNS)
        is_sweep = name not in experiment_files() and name in sweep_files(runs)
        read_file(name, runs)  # mistakes in it are said with its name; its columns only once all plugins are there
        words[0] = f"{'sweep' if is_sweep else 'experiments'}={name}"
    elif not any(key_of(text) == "sweep" for text in words):
        raise UserError("a plan is of a table; name an experiment, or give sweep=NAME with what is swept over.")
    for text in overrides:
        if text.startswith("-") or ("=" not in text and not text.startswith("~")):
            raise UserError(f"{text!r} is no override; give group=option or group.key=value.")
        if key_of(text) == "experiments":
            raise UserError(f"{text}: the experiment is {name}, named before the overrides; plan one at a time.")
    configs, n_jobs, retry_failed, rerun, named = compose_sweep(words)
    if n_jobs < 1:
        raise UserError(f"hydra.launcher.n_jobs={n_jobs} must be at least 1.")
    table = load_experiment(name) if named is None else named.experiment(configs)
    return Sweep(table, tuple(map(read_config, configs)), n_jobs, retry_failed, rerun)


def group_rows(sweep: Sweep) -> list[PlannedRow]:
    """Gather runs that cost the same, look what is done already, and count steps and test images.

    Raises:
        UserError: data are missing, or a folder holds a run with another configuration.
    """
    from indexnet.run.loader import build_data, total_steps
    from indexnet.run.record import DamagedRunError
    from indexnet.sweep.plan_estimate import PlannedRow

    known = _rows_by_run(sweep.experiment)
    rows: dict[str, PlannedRow] = {}
    counts: dict[str, tuple[int, int, tuple[int, ...]]] = {}
    for config in sweep.configs:
        name, training, budget = str(config.experiment.row), config.training, config.budget
        own, _, more = name.partition("--")
        row = known[str(config.experiment.name), own]
        name = "--".join(filter(None, [row.name, more]))
        shared = {k: v for k, v in config.content.items() if k not in ("seed", "experiment", "paths", "logger", "init")}
        if row.block and row.run_of is None:  # a table's repetitions cost the same, as its printed costs say
            group, _, key = row.overrides[-1].partition("=")[0].rpartition(".")
            if group:  # else another data set or network, which costs something else
                shared[group] = {k: v for k, v in shared[group].items() if k != key}
                name = f"{row.base}--{more}" if more else row.base
        place = json.dumps([name, shared], sort_keys=True)
        if place not in rows:
            asked = config.data, config.task["name"], training.size
            validation = training.validate_every is not None, training.holdout
            data = json.dumps([asked, config.split, budget.max_test, validation, config.tests], sort_keys=True)
            if data not in counts:
                counts[data] = _counts(build_data(*asked), config, budget.max_test)
            train, validated, tests = counts[data]
            rows[place] = PlannedRow(name, config, total_steps(training, budget, train), tests, validated=validated)
        found = rows[place]
        found.runs += 1
        folder = RunFolder(run_path(config.content))
        try:
            status, step = _progress(folder, config_hash(config.content))
            again = folder.runs_again(sweep.rerun)
        except DamagedRunError as error:  # the sweep would leave it, too
            found.damaged.append(str(error))
            continue
        if status == "failed" and not sweep.retry_failed:
            found.failed += 1
        elif status not in ("done", "diverged") or again:
            found.left.append(step)
    return list(rows.values())


def _rows_by_run(table: Experiment) -> dict[tuple[str, str], Row]:
    """Return the rows of a table, and those that they start from, by the table and the row that their runs name."""
    found = {(table.name, row.name): row for row in table.rows}
    for row in table.rows:
        if row.run_of is not None:
            found.setdefault((row.run_of.experiment.name, row.run_of.row.name), row)
    for row in table.rows:
        source = (row if row.run_of is None else row.run_of.row).start
        while source is not None:
            found.setdefault((source.experiment.name, source.row.name), source.row)
            source = source.row.start
    return found


def _counts(data: Data, config: Config, limit: int | None) -> tuple[int, int, tuple[int, ...]]:
    """Return the samples of a run's training and validation splits and of each split that it is measured on."""
    from indexnet.run.further_tests import further_splits
    from indexnet.run.loader import measured_splits, training_splits

    training = config.training
    train, validation = training_splits(data, training)
    validated = 0 if validation is None or not training.validate_every else len(validation)
    counts = [validated, *map(len, measured_splits(data, config.split).values())]
    counts += map(len, further_splits(config).values())
    validated, *tests = counts if limit is None else [min(limit, count) for count in counts]
    return len(train), validated, tuple(tests)


def _progress(folder: RunFolder, digest: str) -> tuple[str, int]:
    """Return a run's status and the step that it goes on from.

    Raises:
        UserError: the folder holds a run with another configuration.
        DamagedRunError: what it holds cannot be read.
    """
    folder.check_places()
    if not os.path.isfile(folder.path / "config.yaml"):
        return "new", 0
    if config_hash(folder.config()) != digest:
        if folder.came_to_nothing():
            return "new", 0
        raise UserError(
            f"{folder.path} holds a run with another configuration, which `indexnet train` would refuse; give "
            "paths.runs=ANOTHER_FOLDER, or move or delete that folder."
        )
    status = folder.status()
    return status, resumed_step(folder) if status in ("running", "failed") else 0


def nearest_folder(path: Path) -> Path:
    """Return the innermost folder of a path that exists: the path itself, or one above."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if os.path.isdir(folder))
