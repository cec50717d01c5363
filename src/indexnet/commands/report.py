"""``indexnet report``: what the runs of an experiment have shown, as a page, Markdown, CSV, LaTeX, and here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.console import busy, create_console
from indexnet.core.errors import UserError
from indexnet.core.paths import runs_folder

if TYPE_CHECKING:
    from indexnet.report.table import Table

HELP = "make the result table of an experiment: report.html, report.md, table.csv, table.tex"

FILES = ("report.html", "report.md", "table.csv", "table.tex")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "experiment",
        metavar="EXPERIMENT",
        nargs="?",
        help="an experiment, as in `indexnet list experiments`, or a sweep; without one, those with runs are named",
    )
    parser.add_argument("--runs", metavar="DIR", help="folder of the runs (default: runs)")
    parser.add_argument("--output", metavar="DIR", help="default: reports/EXPERIMENT/DATA-BUDGET")
    parser.add_argument(
        "--data", metavar="DATA-BUDGET", help="which runs, e.g. photos-small (default: the most complete, then newest)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are not an earlier report")


def main(args: argparse.Namespace) -> int:
    """Make the report and print its table.

    Raises:
        UserError: unknown experiment or data, no folder of runs where one was named, or files in the way.
    """
    from indexnet.report import terminal
    from indexnet.report.build import build
    from indexnet.report.provenance import check_protocol
    from indexnet.run.experiments.tables import experiments_with_runs, load_experiment
    from indexnet.run.run_sets import choose, find_run_sets

    base = runs_folder(args.runs)
    if args.experiment is None:
        known = ", ".join(experiments_with_runs(base)) or "nothing"
        raise UserError(f"name an experiment or a sweep; under {base} there are runs of {known}.")
    experiment = load_experiment(args.experiment, base)
    sets = find_run_sets(base, experiment.name)
    runs = choose(sets, args.data, str(base / experiment.name))
    others = [each.name for each in sets if each is not runs]
    folder = Path(args.output or Path("reports") / experiment.name / (runs.name if runs else "no-runs"))
    with busy("making the report"):
        table = build(experiment, runs, others, check_protocol(experiment, runs, _find_changes))
        write(table, folder, overwrite=args.overwrite)
    console = create_console(highlight=False)
    terminal.show(table, console)
    console.print(f"Report: {folder / FILES[0]}", soft_wrap=True, markup=False)
    return 0


def _find_changes(config: Mapping[str, Any]) -> list[list[str]] | None:
    from indexnet.core.readers import DamagedFileError
    from indexnet.run.config import find_changes  # only for runs of earlier versions: it composes their rows
    from indexnet.run.schema import check_frozen

    try:
        check_frozen(config, "config.yaml")
    except DamagedFileError:  # the report says that it cannot be told
        return None
    return find_changes(config)


def write(table: Table, folder: Path, *, overwrite: bool) -> None:
    """Write ``report.html``, ``report.md``, ``table.csv`` and ``table.tex`` into a folder, replacing an earlier report.

    Raises:
        UserError: the folder holds files of these names that are no report of ours, and ``overwrite`` is not set.
    """
    from indexnet.core.files import atomic_write, prepare_folder
    from indexnet.report.html import page
    from indexnet.report.latex import table_tex
    from indexnet.report.markdown import markdown, table_csv

    there = [name for name in FILES if os.path.exists(folder / name)]
    if there and not overwrite and not _is_report(folder / "report.html"):
        raise UserError(
            f"{folder} already holds {', '.join(there)}, not made by indexnet report; "
            "give another --output, or --overwrite."
        )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"--output {folder} is a file; give a folder.")
    prepare_folder(folder)
    time = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    contents = (page(table, time), markdown(table), table_csv(table), table_tex(table))
    for name, content in zip(FILES, contents, strict=True):
        atomic_write(folder / name, content)


def _is_report(path: Path) -> bool:
    from indexnet.report.html import GENERATOR

    try:
        with path.open(encoding="utf-8") as file:
            return f'name="generator" content="{GENERATOR}"' in file.read(2000)
    except (OSError, UnicodeDecodeError):
        return False
