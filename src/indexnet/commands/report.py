"""``indexnet report``: what the runs of an experiment have shown, as a page, Markdown, CSV, LaTeX, and here."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.console import busy, create_console
from indexnet.core.errors import UserError
from indexnet.core.paths import runs_folder

if TYPE_CHECKING:
    from indexnet.report.table import Protocol, Table
    from indexnet.run.experiments.experiment import Experiment
    from indexnet.run.run_sets import RunSet

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
    parser.add_argument(
        "--across", action="store_true", help="EXPERIMENT is a folder of them, such as zoo: all tables on one page"
    )
    parser.add_argument("--runs", metavar="DIR", help="folder of the runs (default: runs)")
    parser.add_argument("--output", metavar="DIR", help="default: reports/EXPERIMENT/DATA-BUDGET")
    parser.add_argument(
        "--data",
        metavar="DATA-BUDGET",
        help="which runs, e.g. photos-small (default: the most complete, then newest); with --across A,B,... for those "
        "tables that have them",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are not an earlier report")


def main(args: argparse.Namespace) -> int:
    """Make the report and print its table.

    Raises:
        UserError: unknown experiment or data, no folder of runs where one was named, or files in the way.
    """
    from indexnet.report import terminal
    from indexnet.report.build import build
    from indexnet.run.experiments.tables import experiments_with_runs, list_experiments, load_experiment
    from indexnet.run.run_sets import choose, find_run_sets

    base = runs_folder(args.runs)
    if args.experiment is None:
        with_runs = ", ".join(experiments_with_runs(base)) or "nothing"
        raise UserError(f"name an experiment or a sweep; under {base} there are runs of {with_runs}.")
    if args.across:
        return report_across(args, base)
    if args.experiment not in (known := list_experiments(base)) and _inside(args.experiment, known):
        folder = args.experiment.strip("/")
        raise UserError(f"{folder} is a folder of experiments: name one, or give --across for all on one page.")
    experiment = load_experiment(args.experiment, base)
    sets = find_run_sets(base, experiment.name, experiment.borrowed)
    runs = choose(sets, args.data, str(base / experiment.name))
    others = [each.name for each in sets if each is not runs]
    folder = Path(args.output or Path("reports") / experiment.name / (runs.name if runs else "no-runs"))
    with busy("making the report"):
        table = build(experiment, runs, others, _protocol(experiment, runs))
        write(table, folder, overwrite=args.overwrite)
    console = create_console(highlight=False)
    terminal.show(table, console)
    console.print(f"Report: {folder / FILES[0]}", soft_wrap=True, markup=False)
    return 0


def _inside(folder: str, names: Iterable[str]) -> list[str]:
    """Return the experiments of a folder."""
    return [name for name in names if name.startswith(f"{folder.strip('/')}/")]


def report_across(args: argparse.Namespace, base: Path) -> int:
    """Put all tables of a folder of experiments on one page.

    Raises:
        UserError: there is no such folder, no such data, or files are in the way.
    """
    from indexnet.report import across_files
    from indexnet.report.across import put_together
    from indexnet.report.build import build
    from indexnet.run.experiments.tables import list_experiments, load_experiment
    from indexnet.run.run_sets import find_run_sets

    known, folder = list_experiments(), args.experiment.strip("/")
    names = _inside(folder, known)
    if not names:
        folders = ", ".join(sorted({name.rpartition("/")[0] for name in known} - {""}))
        raise UserError(f"--across puts the tables of a folder of experiments on one page: {folders}; not {folder!r}.")
    wanted = args.data.split(",") if args.data else []
    sets = {name: find_run_sets(base, name, load_experiment(name).borrowed) for name in names}
    present = sorted({each.name for found in sets.values() for each in found})
    for name in wanted:
        if name not in present:
            there = f"present: {', '.join(present)}" if present else "there are no runs at all; leave --data out"
            raise UserError(f"--data {name!r}: no table of {folder} has such data and budget; {there}.")
    output = Path(args.output or Path("reports") / folder / "across")
    with busy("making the report"):
        tables = []
        for name, found in sets.items():
            chosen = sorted(found, key=lambda each: wanted.index(each.name) if each.name in wanted else len(wanted))
            experiment = load_experiment(name)
            parts: dict[str, RunSet | None] = {}
            for each in chosen:  # the first of all, or of each data set where rows name theirs
                parts.setdefault(each.data if experiment.names_data else "", each)
            for _, runs in sorted(parts.items()) or [("", None)]:
                others = [each.name for each in chosen if each is not runs]
                tables.append(build(experiment, runs, others, _protocol(experiment, runs)))
        across = put_together(folder, tables)
        time = _now()
        contents = (across_files.page(across, time), across_files.markdown(across), across_files.table_csv(across))
        _write(output, dict(zip(FILES, contents, strict=False)), overwrite=args.overwrite)
    console = create_console(highlight=False)
    across_files.show(across, console)
    console.print(f"Report: {output / FILES[0]}", soft_wrap=True, markup=False)
    return 0


def _protocol(experiment: Experiment, runs: RunSet | None) -> Protocol:
    """Return what is known of the protocol of a table's runs, and of those that are another table's."""
    from indexnet.report.provenance import check_protocol

    found = check_protocol(experiment, runs, _find_changes)
    if runs is None or not experiment.borrowed:
        return found
    from indexnet.run.borrowed import borrowed_remarks

    return dataclasses.replace(found, borrowed=tuple(borrowed_remarks(experiment)))


def _find_changes(config: Mapping[str, Any]) -> list[list[str]] | None:
    from indexnet.core.readers import DamagedFileError
    from indexnet.run.config import find_changes  # only for runs of earlier versions: it composes their rows
    from indexnet.run.schema_checks import check_frozen

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
    from indexnet.report.html import page
    from indexnet.report.latex import table_tex
    from indexnet.report.markdown import markdown, table_csv

    contents = (page(table, _now()), markdown(table), table_csv(table), table_tex(table))
    _write(folder, dict(zip(FILES, contents, strict=True)), overwrite=overwrite)


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")


def _write(folder: Path, contents: Mapping[str, str], *, overwrite: bool) -> None:
    from indexnet.core.files import atomic_write, prepare_folder

    there = [name for name in FILES if os.path.exists(folder / name)]
    if there and not overwrite and not _is_report(folder / "report.html"):
        raise UserError(
            f"{folder} already holds {', '.join(there)}, not made by indexnet report; "
            "give another --output, or --overwrite."
        )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"--output {folder} is a file; give a folder.")
    prepare_folder(folder)
    for name, content in contents.items():
        atomic_write(folder / name, content)


def _is_report(path: Path) -> bool:
    from indexnet.report.html import GENERATOR

    try:
        with path.open(encoding="utf-8") as file:
            return f'name="generator" content="{GENERATOR}"' in file.read(2000)
    except (OSError, UnicodeDecodeError):
        return False
