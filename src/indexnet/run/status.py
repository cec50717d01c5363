"""``indexnet status``: where a sweep stands, from its files alone; nothing is written, nothing disturbed."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.errors import UserError

if TYPE_CHECKING:
    from rich.text import Text

    from indexnet.run.experiments import Experiment

HELP = "say where the sweep of an experiment stands, and which command goes on with it"

DEFAULT_RUNS = "runs"
"""The folder of all runs, unless ``paths.runs`` names another."""

_WORDS = {
    "done": "done",
    "running": "running",
    "interrupted": "interrupted",
    "failed": "failed",
    "diverged": "diverged",
    "unreadable": "not readable",
    "new": "not started",
}
_COLOURS = {"done": "green", "running": "cyan", "new": "dim", "failed": "red", "unreadable": "red"}


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
    """

    row: str
    seed: int
    status: str
    reason: str = ""
    metric: float | None = None
    step: int | None = None
    steps: int | None = None
    eta_s: float | None = None

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
        changed: when a run last changed, seconds since the epoch; 0 where there is none.
    """

    name: str
    runs: tuple[RunState, ...]
    at_work: bool
    commands: tuple[tuple[str, str], ...]
    changed: float

    def counts(self) -> dict[str, int]:
        """Return how many runs stand where, in the order of a summary; only what there is."""
        found = Counter(run.status for run in self.runs)
        return {status: found[status] for status in _WORDS if found[status]}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("experiment", metavar="EXPERIMENT", help="an experiment, as in `indexnet list experiments`")
    parser.add_argument("--runs", metavar="DIR", help=f"folder of the runs (default: {DEFAULT_RUNS})")
    parser.add_argument(
        "--data", metavar="DATA-BUDGET", help="which runs to show in detail, e.g. photos-small (default: the newest)"
    )
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


def main(args: argparse.Namespace) -> int:
    """Run with parsed arguments.

    Raises:
        UserError: unknown experiment or data, or no folder of runs where one was named.
    """
    from indexnet._names import unknown_name
    from indexnet.run.experiments import load_experiment

    experiment = load_experiment(args.experiment)
    runs = Path(args.runs or DEFAULT_RUNS)
    if args.runs is not None and not runs.is_dir():
        raise UserError(f"--runs {args.runs}: there is no such folder; give the one that the runs were written to.")
    settings = find_settings(runs, experiment)
    if args.data is not None:
        chosen = [each for each in settings if each.name == args.data]
        if not chosen:
            raise unknown_name(
                f"data and budget under {runs / experiment.name}:", args.data, [s.name for s in settings]
            )
        settings = [*chosen, *(each for each in settings if each.name != args.data)]
    if args.json:
        import json

        print(json.dumps(_plain(experiment, runs, settings), indent=1))
    else:
        _show(experiment, runs, settings)
    return 0


def find_settings(runs: Path, experiment: Experiment) -> list[Setting]:
    """Read where all runs of an experiment stand, below ``<runs>/<experiment>/<data>-<budget>/<row>/seed=<n>``.

    Returns:
        One for each data set and budget, newest first; empty where there are none.
    """
    found = []
    for folder in sorted((runs / experiment.name).glob("*")):
        if folder.is_dir() and any(folder.glob("*/seed=*")):
            found.append(_setting(folder, experiment))
    return sorted(found, key=lambda each: each.changed, reverse=True)


def _setting(folder: Path, experiment: Experiment) -> Setting:
    from indexnet.run.folder import held
    from indexnet.run.launch import LOCK, read_requests

    requests = read_requests(folder)
    there = {
        f"{path.parent.name}/{path.name}": path for path in folder.glob("*/seed=*") if _seed(path.name) is not None
    }
    asked = [name for request in requests for name in request["runs"]]
    if not requests:  # launched by something that keeps no notes: then all that the table has
        asked = [f"{row.name}/seed={seed}" for row in experiment.select(None) for seed in experiment.seeds]
    names = [name for name in dict.fromkeys([*asked, *there]) if _seed(name.rpartition("/")[2]) is not None]
    order = {row.name: index for index, row in enumerate(experiment.rows)}

    def place(name: str) -> tuple[int, str, int]:
        row, _, seed = name.rpartition("/")
        return order.get(row, order.get(row.partition("--")[0], len(order))), row, _seed(seed) or 0

    column = experiment.columns[0].metric
    states = tuple(read_state(there.get(name, folder / name), column) for name in sorted(names, key=place))
    open_runs = {state.name for state in states if state.status not in ("done", "diverged")}
    failed = {state.name for state in states if state.status == "failed"}
    commands: list[tuple[str, str]] = []
    left = set(open_runs)
    for request in reversed(requests):  # a newer command often asks for what an older one did, and more
        if left & set(request["runs"]):
            left -= set(request["runs"])
            more = ["retry_failed=true"] if failed & set(request["runs"]) else []
            commands.append((shlex.join(["indexnet", "train", *request["arguments"], *more]), request["directory"]))
    if not requests and open_runs:
        commands.append((_guess(folder, experiment), str(Path.cwd())))
    at_work = False
    with contextlib.suppress(UserError):  # a file system without locks: nobody can be
        at_work = held(folder / LOCK)
    return Setting(folder.name, states, at_work, tuple(commands), _changed(there.values()))


def _guess(folder: Path, experiment: Experiment) -> str:
    """Return the command that the name of a folder stands for."""
    data, _, budget = folder.name.rpartition("-")
    runs = str(folder).removesuffix(f"/{experiment.name}/{folder.name}")
    words = ["indexnet", "train", "-m", f"experiments={experiment.name}", f"data={data}", f"budget={budget}"]
    return shlex.join([*words, *([] if runs == DEFAULT_RUNS else [f"paths.runs={runs}"])])


def read_state(folder: Path, column: str) -> RunState:
    """Read where the run of a folder stands.

    Args:
        folder: ``<row>/seed=<n>``; it need not exist.
        column: name of the metric to show, as in a record.

    Returns:
        Its state; one that cannot be read says so and raises nothing.
    """
    from indexnet.run.folder import RunFolder

    state = RunState(folder.parent.name, _seed(folder.name) or 0, "new")
    try:
        record = RunFolder(folder).record()
    except (UserError, OSError, ValueError) as error:
        return replace(state, status="unreadable", reason=" ".join(str(error).split()))
    if record is None:
        return state
    status, reason = str(record.get("status")), " ".join(str(record.get("error") or "").split())
    if status not in ("done", "running", "failed", "diverged"):
        return replace(state, status="unreadable", reason=f"{folder / 'record.json'} has no known status")
    if status == "done":
        return replace(state, status=status, metric=_metric(record.get("metrics"), column))
    if status != "running":
        return replace(state, status=status, reason=reason or "console.log in its folder says more")
    try:
        at_work = RunFolder(folder).locked()
    except UserError as error:  # no locks here
        return replace(state, status="unreadable", reason=str(error))
    progress = _progress(folder)
    if at_work:
        return replace(state, status="running", **progress)
    step = RunFolder(folder).resumed_step()
    return replace(state, status="interrupted", step=step, steps=progress.get("steps"))


def _metric(metrics: object, column: str) -> float | None:
    """Return a metric; where the data set has other test splits than the table, that of the first one."""
    if not isinstance(metrics, Mapping):
        return None
    name = column.rpartition("/")[2]
    values = [metrics.get(column), *(value for key, value in metrics.items() if str(key).rpartition("/")[2] == name)]
    return next((float(value) for value in values if isinstance(value, int | float)), None)


def _progress(folder: Path) -> dict[str, Any]:
    from indexnet.files import read_json

    try:
        found = read_json(folder / "progress.json")
        return {"step": int(found["step"]), "steps": int(found["steps"]), "eta_s": float(found["eta_s"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _seed(name: str) -> int | None:
    text = name.removeprefix("seed=")
    return int(text) if name.startswith("seed=") and text.isdecimal() else None


def _changed(folders: Any) -> float:
    times = [0.0]
    for folder in folders:
        for name in ("record.json", "progress.json", "config.yaml"):
            with contextlib.suppress(OSError):
                times.append((folder / name).stat().st_mtime)
    return max(times)


def _plain(experiment: Experiment, runs: Path, settings: Sequence[Setting]) -> dict[str, Any]:
    return {
        "experiment": experiment.name,
        "folder": str(runs / experiment.name),
        "metric": experiment.columns[0].metric,
        "settings": [
            {
                "name": each.name,
                "at_work": each.at_work,
                "counts": each.counts(),
                "runs": [dict(vars(run)) for run in each.runs],
                "commands": [{"command": command, "directory": where} for command, where in each.commands],
            }
            for each in settings
        ],
    }


def _show(experiment: Experiment, runs: Path, settings: Sequence[Setting]) -> None:
    from rich.console import Console

    console = Console(highlight=False)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    say(f"{experiment.name}: {experiment.title}")
    if not settings:
        place = [] if str(runs) == DEFAULT_RUNS else [f"paths.runs={runs}"]
        start = shlex.join(["indexnet", "train", "-m", f"experiments={experiment.name}", *place])
        say(f"No runs under {runs / experiment.name}. This starts them: {start}")
        return
    first = settings[0]
    say(f"{first.name}; numbers are {experiment.columns[0].title} of runs that are done")
    console.print(_table(experiment, first))
    for run in first.runs:
        if run.reason:
            say(f"{_WORDS[run.status]}: {run.name}: {run.reason}")
    for each in settings:
        say(_summary(each))
    shown = {run.row.partition("--")[0] for run in first.runs}
    absent = [row.name for row in experiment.select(None) if row.name not in shown]
    if absent:
        say(f"Rows that nobody has asked for ({len(absent)}): {', '.join(absent)}")
    if first.at_work:
        say("A launcher is at work.")
    for command, directory in first.commands:
        at = "" if Path(directory) == Path.cwd() else f" (in {directory})"
        say(f"{'If it is stopped, this' if first.at_work else 'This'} goes on with it{at}: {command}")
    if not first.commands:
        more = "" if str(runs) == DEFAULT_RUNS else f" --runs {runs}"
        say(f"The table: indexnet report {experiment.name} --data {first.name}{more}")


def _summary(setting: Setting) -> str:
    counts = setting.counts()
    rest = [f"{count} {_WORDS[status]}" for status, count in counts.items() if status != "done"]
    done = f"{counts.get('done', 0)} of {len(setting.runs)} runs done"
    return f"{setting.name}: {', '.join([done, *rest])}"


def _table(experiment: Experiment, setting: Setting) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    column = experiment.columns[0]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("row", overflow="fold")
    seeds = sorted({run.seed for run in setting.runs})
    for seed in seeds:
        table.add_column(f"seed {seed}", justify="right")
    states = {(run.row, run.seed): run for run in setting.runs}
    for row in dict.fromkeys(run.row for run in setting.runs):
        cells = [_cell(states.get((row, seed)), column.digits) for seed in seeds]
        table.add_row(Text(row), *cells)
    return table


def _cell(run: RunState | None, digits: int) -> Text:
    from rich.text import Text

    from indexnet.run.progress import duration

    if run is None:
        return Text("")
    text = _WORDS[run.status]
    if run.status == "done":
        text = "done" if run.metric is None else f"{run.metric:.{digits}f}"
    elif run.status == "running":
        text = "starting"
        if run.step is not None and run.steps is not None:
            left = "" if run.eta_s is None else f", {duration(run.eta_s)} left"
            text = "testing" if run.step >= run.steps else f"{run.step} / {run.steps}{left}"
    elif run.status == "interrupted" and run.steps is not None:
        text = f"interrupted at {run.step} / {run.steps}"
    return Text(text, style=_COLOURS.get(run.status, "yellow"))
