"""``indexnet status``: where a sweep stands, from its files alone; nothing is written, nothing disturbed."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.console import create_console
from indexnet.core.paths import DEFAULT_RUNS, runs_folder
from indexnet.sweep.status import STATUS_WORDS, RunState, Setting, find_all, find_settings

if TYPE_CHECKING:
    from rich.text import Text

    from indexnet.run.experiments.experiment import Experiment


HELP = "say where the sweep of an experiment stands, and which command goes on with it"
_LISTED = 4  # runs that a line names
_COLOURS = {"done": "green", "running": "cyan", "new": "dim", "failed": "red", "unreadable": "red"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "experiment",
        metavar="EXPERIMENT",
        nargs="?",
        help="an experiment, as in `indexnet list experiments`, or a sweep (default: a line for each that has runs)",
    )
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
    from indexnet.core.errors import UserError
    from indexnet.core.registry import unknown_name
    from indexnet.run.experiments.tables import load_experiment

    runs = runs_folder(args.runs)
    if args.experiment is None:
        if args.data is not None:
            raise UserError("--data chooses among the runs of one experiment; name that too.")
        _show_all(runs, find_all(runs), as_json=args.json)
        return 0
    experiment = load_experiment(args.experiment, runs)
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


def _show_all(runs: Path, found: Sequence[tuple[str, Sequence[Setting] | str]], *, as_json: bool) -> None:
    """Print a line for every experiment and sweep that has runs, one for each data set and budget."""
    lines: list[tuple[dict[str, Any], str]] = []
    for name, settings in found:
        if isinstance(settings, str) or not settings:
            reason = settings or "no runs yet"
            lines.append(({"experiment": name, "reason": reason}, f"{name}: {reason}"))
            continue
        for each in settings:
            facts = {"experiment": name, "setting": each.name, "counts": each.counts(), "at_work": each.at_work}
            lines.append((facts, f"{name} {_summary(each)}{'; a launcher is at work' if each.at_work else ''}"))
    single = sum(1 for _ in runs.glob("single/*/config.yaml"))
    if as_json:
        import json

        content = {"folder": str(runs), "experiments": [facts for facts, _ in lines], "single": single}
        print(json.dumps(content, indent=1))
        return
    texts = [text for _, text in lines] or [f"No experiment or sweep has runs under {runs}."]
    if single:
        texts.append(f"{single} run{'' if single == 1 else 's'} of no table: {runs / 'single'}")
    console = create_console(highlight=False)
    for text in texts:
        console.print(text, markup=False, soft_wrap=True)


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
                "reruns": [{"command": command, "directory": where} for command, where in each.reruns],
            }
            for each in settings
        ],
    }


def _show(experiment: Experiment, runs: Path, settings: Sequence[Setting]) -> None:
    console = create_console(highlight=False)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    say(f"{experiment.name}: {experiment.title}")
    if not settings:
        place = [] if str(runs) == DEFAULT_RUNS else [f"paths.runs={runs}"]
        start = shlex.join(["indexnet", "train", "-m", experiment.chosen_by, *place])
        say(f"No runs under {runs / experiment.name}. This starts them: {start}")
        return
    first = settings[0]
    say(f"{first.name}; numbers are {experiment.columns[0].title} of runs that are done")
    console.print(_table(experiment, first))
    for run in first.runs:
        if run.reason:
            say(f"{STATUS_WORDS[run.status]}: {run.name}: {run.reason}")
    for files, names in _changed(first).items():
        more = f" and {len(names) - _LISTED} more" if names[_LISTED:] else ""
        say(f"code has changed since: {', '.join(names[:_LISTED])}{more}: {', '.join(files)}")
    for command, directory in first.reruns:
        say(f"This does again what ended with other code{_at(directory)}: {command}")
    for each in settings:
        say(_summary(each))
    if first.absent:
        say(f"Rows that nobody has asked for ({len(first.absent)}): {', '.join(first.absent)}")
    if first.at_work:
        say("A launcher is at work.")
    for command, directory in first.commands:
        say(f"{'If it is stopped, this' if first.at_work else 'This'} goes on with it{_at(directory)}: {command}")
    if not first.commands:
        more = "" if str(runs) == DEFAULT_RUNS else f" --runs {shlex.quote(str(runs))}"
        say(f"The table: indexnet report {experiment.name} --data {first.name}{more}")


def _changed(setting: Setting) -> dict[tuple[str, ...], list[str]]:
    """Return the names of runs by the source files that have changed since."""
    found: dict[tuple[str, ...], list[str]] = {}
    for run in setting.runs:
        if run.changed:
            found.setdefault(run.changed, []).append(run.name)
    return found


def _at(directory: str) -> str:
    return "" if Path(directory) == Path.cwd() else f" (in {directory})"


def _summary(setting: Setting) -> str:
    counts = setting.counts()
    rest = [f"{count} {STATUS_WORDS[status]}" for status, count in counts.items() if status != "done"]
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

    from indexnet.sweep.progress import duration

    if run is None:
        return Text("")
    text = STATUS_WORDS[run.status]
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
