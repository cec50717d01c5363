"""Where the sweep of an experiment stands, from what lies in its folders."""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.core.locks import held
from indexnet.core.paths import DEFAULT_RUNS
from indexnet.run.experiments.experiment import Experiment, key_of
from indexnet.run.experiments.tables import experiments_with_runs, load_experiment
from indexnet.run.folder import RunFolder
from indexnet.run.record import is_number, read_progress
from indexnet.run.resume import resumed_step
from indexnet.run.run_sets import borrowed_folders, read_config, read_run, run_folders, seed_of
from indexnet.sweep.launch import LOCK, read_requests
from indexnet.sweep.order import source_folder

_SELECT = ("experiments", "rows", "seeds", "seed")
STATUS_WORDS = {
    "done": "done",
    "running": "running",
    "interrupted": "interrupted",
    "failed": "failed",
    "diverged": "diverged",
    "unreadable": "not readable",
    "new": "not started",
}


@dataclass(frozen=True)
class RunState:
    """Where one run stands.

    Attributes:
        row: table row.
        seed: its seed.
        status: ``done``; ``running`` (a process is at work); ``interrupted`` (was killed, and goes on); ``failed``;
            ``diverged``; ``unreadable`` (its record cannot be read); ``new`` (not started).
        reason: why there is no result, one line; empty where there is nothing to explain.
        metric: the table's first metric, of a finished run.
        step: optimizer steps that it has come to; of an interrupted run, those that it goes on from.
        steps: of the whole run.
        eta_s: seconds that training still takes, as the run itself estimates.
        changed: source files that have changed since the run, or while it ran; of one that has ended.
    """

    row: str
    seed: int
    status: str
    reason: str = ""
    metric: float | None = None
    step: int | None = None
    steps: int | None = None
    eta_s: float | None = None
    changed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``ROW/seed=N``, as its folder is called."""
        return f"{self.row}/seed={self.seed}"


@dataclass(frozen=True)
class Setting:
    """Where the runs of one experiment on one data set at one budget stand.

    Attributes:
        name: ``<data>-<budget>``, as its folder is called.
        runs: of every row and seed that was asked for or is there; in the table's order.
        at_work: whether a launcher is at work there.
        commands: those that go on with what has no result, and the folder that each was given in.
        reruns: those that do again what ended with code that has changed since.
        changed: when a run last changed, seconds since the epoch; 0 where there is none.
        absent: names of rows that can be run there, and that nobody has asked for.
    """

    name: str
    runs: tuple[RunState, ...]
    at_work: bool
    commands: tuple[tuple[str, str], ...]
    changed: float
    reruns: tuple[tuple[str, str], ...] = ()
    absent: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return how many runs stand where, in the order of a summary; only what there is."""
        found = Counter(run.status for run in self.runs)
        return {status: found[status] for status in STATUS_WORDS if found[status]}


def find_all(runs: Path) -> list[tuple[str, list[Setting] | str]]:
    """Read where every experiment and sweep stands that has runs below a folder.

    Returns:
        Its name, and its settings or, where its file is wrong, why they are not known; by name.
    """
    found: list[tuple[str, list[Setting] | str]] = []
    for name in experiments_with_runs(runs):
        try:
            found.append((name, find_settings(runs, load_experiment(name, runs))))
        except UserError as error:
            found.append((name, str(error)))
    return found


def find_settings(runs: Path, experiment: Experiment) -> list[Setting]:
    """Read where all runs of an experiment stand, below ``<runs>/<experiment>/<data>-<budget>/<row>/seed=<n>``.

    Returns:
        One for each data set and budget, newest first; empty where there are none.
    """
    settings: dict[Path, dict[str, Path]] = {}
    for path in run_folders(runs / experiment.name):
        settings.setdefault(path.parent.parent, {})[f"{path.parent.name}/{path.name}"] = path
    for row, path in borrowed_folders(runs, experiment.borrowed):
        folder = runs / experiment.name / path.parent.parent.name
        settings.setdefault(folder, {})[f"{row}/{path.name}"] = path
    found = [_setting(runs, folder, experiment, there) for folder, there in settings.items()]
    return sorted(found, key=lambda each: each.changed, reverse=True)


def _setting(runs: Path, folder: Path, experiment: Experiment, there: Mapping[str, Path]) -> Setting:
    on_data = experiment.rows_on(folder.name.rpartition("-")[0])
    possible = [row.name for row in on_data if not row.runs_never]
    requests = read_requests(folder)
    others = _requests_elsewhere(runs, folder.name, experiment)
    asked = [name for request in (*requests, *others) for name in request["runs"]]
    if not requests:  # launched by something that keeps no notes, or only as runs of another table: then all it has
        asked = [f"{row}/seed={seed}" for row in possible for seed in experiment.seeds]
    guess = None if requests else _guess(folder, experiment, others, possible)
    requests = [*others, *requests]
    names = [name for name in dict.fromkeys([*asked, *there]) if seed_of(Path(name)) is not None]
    order = {row.name: index for index, row in enumerate(experiment.rows)}

    def place(name: str) -> tuple[int, str, int]:
        row = name.rpartition("/")[0]
        return order.get(row, order.get(row.partition("--")[0], len(order))), row, seed_of(Path(name)) or 0

    column = experiment.columns[0].metric
    states = tuple(
        replace(read_state(there.get(name, folder / name), column), row=name.rpartition("/")[0])
        for name in sorted(names, key=place)
    )
    open_runs = {state.name for state in states if state.status not in ("done", "diverged")}
    failed = {state.name for state in states if state.status == "failed"}
    commands = _commands(requests, open_runs, guess, "retry_failed=true", failed)
    stale = {state.name for state in states if state.changed}
    reruns = _commands(requests, stale, guess, "rerun=changed", stale)
    at_work = False
    with contextlib.suppress(UserError):  # a file system without locks: nobody can be
        at_work = held(folder / LOCK)
    shown = {state.row.partition("--")[0] for state in states}
    absent = tuple(row for row in possible if row not in shown)
    return Setting(folder.name, states, at_work, tuple(commands), _changed(there.values()), tuple(reruns), absent)


def _requests_elsewhere(runs: Path, setting: str, experiment: Experiment) -> list[dict[str, Any]]:
    """Return the commands that asked for the runs of other tables which are rows of this one, by the names of these."""
    found: list[dict[str, Any]] = []
    borrowed = experiment.borrowed
    for table in dict.fromkeys(table for table, _ in borrowed.values()):
        rows = {there: row for row, (other, there) in borrowed.items() if other == table}
        for request in read_requests(runs / table / setting):
            names = [
                f"{rows[own]}{name.removeprefix(own)}"
                for name in request["runs"]
                if (own := name.partition("/")[0].partition("--")[0]) in rows
            ]
            found += [{**request, "runs": names}] if names else []
    return found


def _commands(
    requests: Sequence[Mapping[str, Any]], runs: set[str], guess: tuple[str, str] | None, option: str, where: set[str]
) -> list[tuple[str, str]]:
    """Return the commands that asked for runs, with the folder that each was given in, newest first.

    Args:
        requests: all that were given, oldest first; a newer one often asks for what an older one did, and more.
        runs: names of runs.
        guess: the command for what none of these asked for, and its folder; None: there is none.
        option: is added to some of these commands.
        where: runs; to those that asked for one of them.
    """
    found, left = [], set(runs)
    for request in reversed(requests):
        if left & set(request["runs"]):
            left -= set(request["runs"])
            more = [option] if where & set(request["runs"]) else []
            found.append((shlex.join(["indexnet", "train", *request["arguments"], *more]), str(request["directory"])))
    if guess and left:
        command, directory = guess
        found.append((f"{command} {option}" if where & left else command, directory))
    return list(dict.fromkeys(found))


def _guess(
    folder: Path, experiment: Experiment, others: Sequence[Mapping[str, Any]], rows: Sequence[str]
) -> tuple[str, str]:
    """Return the command for these rows, all that a table has on its data, and the folder to give it in.

    Where other tables' commands asked for rows of it, it is the newest of these with this table's name, as what else it
    said must be the same; otherwise what the name of the folder stands for.
    """
    if others:
        said = [word for word in others[-1]["arguments"] if key_of(word) not in _SELECT]
        return shlex.join(["indexnet", "train", experiment.chosen_by, *said]), str(others[-1]["directory"])
    data, _, budget = folder.name.rpartition("-")
    runs = str(folder).removesuffix(f"/{experiment.name}/{folder.name}")
    which = f"rows={','.join(rows)}" if experiment.names_data else f"data={data}"
    words = ["indexnet", "train", "-m", experiment.chosen_by, which, f"budget={budget}"]
    return shlex.join([*words, *([] if runs == DEFAULT_RUNS else [f"paths.runs={runs}"])]), str(Path.cwd())


def read_state(folder: Path, column: str) -> RunState:
    """Read where the run of a folder stands.

    Args:
        folder: ``<row>/seed=<n>``; it need not exist.
        column: name of the metric to show, as in a record.

    Returns:
        Its state; one that cannot be read says so and raises nothing.
    """
    run = read_run(folder)
    state = RunState(run.row, run.seed, run.status)
    if run.status in ("done", "diverged"):
        state = replace(state, changed=tuple(run.record.changed_code()))
    if run.status == "done":
        return replace(state, metric=_metric(run.record.metrics, column))
    if run.status in ("unreadable", "failed", "diverged"):
        return replace(state, reason=run.reason)
    if run.status == "new":
        config = read_config(run) or {}
        source = source_folder(config)
        stands = read_state(source, column).status if source else ""
        if stands in ("failed", "diverged"):
            said = f"it starts from {config['init']['row']}, which has {stands}"
            return replace(state, status="failed", reason=said)
        return state
    progress = read_progress(folder)
    steps = int(progress["steps"]) if "steps" in progress else None
    try:
        at_work = RunFolder(folder).locked()
    except UserError as error:  # no locks here
        return replace(state, status="unreadable", reason=str(error))
    if not at_work:
        return replace(state, status="interrupted", step=resumed_step(RunFolder(folder)), steps=steps)
    step = int(progress["step"]) if "step" in progress else None
    return replace(state, step=step, steps=steps, eta_s=progress.get("eta_s"))


def _metric(metrics: Mapping[str, float | None], column: str) -> float | None:
    """Return a metric; where the data set has other test splits than the table, that of the first one."""
    name = column.rpartition("/")[2]
    values = [metrics.get(column), *(value for key, value in metrics.items() if key.rpartition("/")[2] == name)]
    return next((float(value) for value in values if is_number(value)), None)


def _changed(folders: Iterable[Path]) -> float:
    times = [0.0]
    for folder in folders:
        for name in ("record.json", "progress.json", "config.yaml"):
            with contextlib.suppress(OSError):
                times.append((folder / name).stat().st_mtime)
    return max(times)
