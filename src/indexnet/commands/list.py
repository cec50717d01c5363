"""``indexnet list``: what there is: operators, networks, encoders, data sets, tasks, optimizers, metrics, tables."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from indexnet.core.console import output_console
from indexnet.core.errors import UserError
from indexnet.core.paths import runs_folder

if TYPE_CHECKING:
    from rich.table import Table


HELP = "list operators, networks, encoders, data sets, tasks, optimizers, schedules, metrics or experiments"

Rows = list[tuple[str, ...]]
Listing = tuple[tuple[str, ...], Rows]
"""Headings and rows; the first cell of a row is the name that the other commands take."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("what", nargs="?", choices=sorted(LISTINGS), help="default: all of them, by name only")
    parser.add_argument(
        "--runs", metavar="DIR", help="folder of the runs, whose sweeps are experiments too (default: runs)"
    )
    parser.add_argument("--names", action="store_true", help="names only, one a line, for scripts")


def main(args: argparse.Namespace) -> int:
    """Print the tables."""
    listings = {**LISTINGS, "experiments": lambda: _experiments(runs_folder(args.runs))}
    if args.names:
        for what in [args.what] if args.what else sorted(listings):
            print("\n".join(row[0] for row in listings[what]()[1]))
        return 0
    console = output_console()
    if args.what is None:
        for what in sorted(listings):
            names = ", ".join(row[0] for row in listings[what]()[1])
            names += ", and any timm model whose strides can be opened" if what == "encoders" else ""
            console.print(f"[bold]{what}[/]: {names}", soft_wrap=True)
        console.print("[dim]More about each: indexnet list operators, indexnet list networks, ...[/]")
        return 0
    console.print(_table(args.what, *listings[args.what]()))
    return 0


def _table(what: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=what, title_justify="left", title_style="bold", show_lines=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", style="bold" if index == 0 else None, no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _operators() -> Listing:
    from indexnet.resampling import list_resampling

    rows: Rows = [
        (
            info.name,
            f"{info.title} ({info.paper})",
            info.downsampling,
            _yes(info.learned),
            _yes(info.guided),
            "equal" if info.equal_widths else "any",
            info.parameters,
        )
        for info in list_resampling()
    ]
    return ("name", "what", "halves by", "learned", "guided", "widths", "parameters a stage"), rows


def _networks() -> Listing:
    from indexnet.networks import list_networks

    rows: Rows = [
        (info.name, info.title, info.paper, info.description, ", ".join(info.tasks)) for info in list_networks()
    ]
    return ("name", "title", "paper", "what", "tasks"), rows


def _data() -> Listing:
    from indexnet.data import list_data

    rows: Rows = [
        (info.name, info.title, ", ".join(info.tasks), info.source, info.layout or "nothing to download")
        for info in list_data()
    ]
    return ("name", "title", "tasks", "source", "files"), rows


def _metrics() -> Listing:
    from indexnet.run.experiments.experiment import known_metrics  # without torch, unless a plugin needs it

    rows: Rows = [
        (info.name, info.title, info.unit, "higher" if info.higher_is_better else "lower", info.task)
        for _, info in sorted(known_metrics().items())
    ]
    return ("name", "title", "unit", "better", "task"), rows


def _tasks() -> Listing:
    from indexnet.tasks import get_task, list_tasks

    rows: Rows = []
    for name in list_tasks():
        task = get_task(name)
        summary = (task.__doc__ or "").strip().splitlines()
        rows.append((name, summary[0] if summary else "", ", ".join(task.needs), ", ".join(task.metric_names)))
    return ("name", "what", "reads", "metrics"), rows


def _encoders() -> Listing:
    from indexnet.networks import list_encoders, list_pyramids

    own = ("mobilenetv1_fastdepth", "mobilenetv2_released")
    rows: Rows = [(name, "exact layers of released networks" if name in own else "timm") for name in list_encoders()]
    rows += [(name, "here; for networks that take a pyramid of maps: rmat") for name in list_pyramids()]
    return ("name", "from (any other timm model goes by its name too, as far as its strides can be opened)"), rows


def _optimizers() -> Listing:
    from indexnet.tasks.optimizers import list_optimizers

    return ("name", "what"), sorted(list_optimizers().items())


def _schedules() -> Listing:
    from indexnet.core.schedules import SCHEDULES, schedule_options

    rows: Rows = [
        (name, (schedule.__doc__ or "").splitlines()[0].replace("`", ""), ", ".join(schedule_options(name)))
        for name, schedule in SCHEDULES.items()
    ]
    return ("name", "the learning rate", "options"), rows


def _experiments(runs: Path | None = None) -> Listing:
    from indexnet.run.experiments.tables import list_experiments, load_experiment

    rows: Rows = []
    for name in list_experiments(runs):
        try:
            experiment = load_experiment(name, runs)
        except UserError as error:
            rows.append((name, str(error), "", "", ""))
            continue
        idle = {"pending": sum(bool(row.pending) for row in experiment.rows)}
        idle["cited"] = sum(bool(row.cited) for row in experiment.rows)
        said = ", ".join(f"{number} {what}" for what, number in idle.items() if number)
        count = f"{len(experiment.rows)}" + (f" ({said})" if said else "")
        source = f"a sweep in {runs}" if experiment.is_sweep else experiment.source
        rows.append((name, experiment.title, experiment.task, count, source))
    return ("name", "title", "task", "rows", "published in"), rows


LISTINGS: dict[str, Callable[[], Listing]] = {
    "data": _data,
    "encoders": _encoders,
    "experiments": _experiments,
    "metrics": _metrics,
    "networks": _networks,
    "operators": _operators,
    "optimizers": _optimizers,
    "schedules": _schedules,
    "tasks": _tasks,
}
