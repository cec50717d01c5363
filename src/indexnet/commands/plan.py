"""``indexnet plan EXPERIMENT``: what a table will take in time, memory and disk, measured before anything is spent."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from indexnet.core.console import error_console, output_console, warn
from indexnet.core.errors import UserError
from indexnet.core.files import prepare_file

if TYPE_CHECKING:
    from indexnet.sweep.plan_probe import Say


HELP = "measure a few steps of every row of an experiment and say what the table takes: time, memory and disk"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.usage = "indexnet plan [-h] [--devices N,N] [--limit SECONDS] [--json FILE] EXPERIMENT [override ...]"
    parser.add_argument(
        "experiment",
        metavar="EXPERIMENT",
        help="an experiment, as in `indexnet list experiments`, or a sweep; or the overrides of one: ... sweep=NAME",
    )
    parser.add_argument(
        "overrides", metavar="override", nargs="*", help="as for `indexnet train -m`: rows=, seeds=, budget=, data= ..."
    )
    parser.add_argument("--devices", default="1,2,4,8", metavar="N,N", help="device counts to plan for (%(default)s)")
    parser.add_argument(
        "--limit",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="seconds of measured training for each row (%(default)g); where a few steps of the real batch take "
        "longer, smaller ones are measured and a straight line is drawn",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan as JSON too")
    parser.epilog = (
        "exit codes: 0 all rows measured; 2 a mistake in what was given; 3 some rows cannot run here, or runs are "
        "damaged, listed"
    )


def main(args: argparse.Namespace) -> int:
    """Measure and print.

    Returns:
        0; 3 where rows could not be measured or runs are damaged, which is said.
    """
    from indexnet.sweep.plan import compose_table, group_rows

    counts = _device_counts(args.devices)
    if not args.limit > 0:
        raise UserError(f"--limit {args.limit:g}: the time to measure must be more than 0 seconds.")
    if args.json is not None and os.path.isdir(args.json):
        raise UserError(f"--json {args.json} is a folder; give the name of a file.")
    if args.json is not None:
        prepare_file(args.json)
    begun = time.monotonic()
    sweep = compose_table(args.experiment, args.overrides)
    from indexnet.run.borrowed import borrowed_remarks
    from indexnet.sweep.launch import PARTLY  # what needs torch, after what a person may have mistyped
    from indexnet.sweep.plan_estimate import add_up
    from indexnet.sweep.plan_probe import measure_rows
    from indexnet.sweep.plan_table import as_json, remarks, table

    rows = group_rows(sweep)
    before = time.monotonic() - begun
    console = output_console()
    with _said(sum(bool(row.left) for row in rows)) as say:
        gpus = measure_rows(sweep, rows, args.limit, say)
    totals = add_up(rows, counts, n_jobs=sweep.n_jobs, gpus=gpus, before=before)
    console.print(table(sweep, rows))
    borrowed = borrowed_remarks(sweep.experiment, (config.content for config in sweep.configs))
    for text, is_warning in (*((each, True) for each in borrowed), *remarks(sweep, rows, totals, args.limit)):
        console.print(text, style="yellow" if is_warning else None, markup=False, soft_wrap=True)
    if args.json is not None:
        from indexnet.core.files import write_json

        write_json(args.json, as_json(sweep, rows, totals))
    return PARTLY if any(row.error or row.damaged for row in rows) else 0


def _device_counts(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--devices {text}: give whole numbers above 0 with commas between, like 1,2,4.")
    return list(dict.fromkeys(map(int, parts)))


@contextmanager
def _said(total: int) -> Iterator[Say]:
    """Show on standard error what is being measured: a bar in a terminal, else lines."""
    from rich.progress import Progress

    console = error_console()
    if not console.is_terminal:
        yield warn
        return
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("measuring", total=total)
        begun = 0

        def say(text: str) -> None:
            nonlocal begun
            begun += text.startswith("measuring")
            progress.update(bar, description=text, completed=max(0, begun - 1))

        yield say
