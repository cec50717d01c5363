"""Keep measured results with the project: which commands make them, their records and reports, the page about them.

``docs/results/results.yaml`` lists the tables: an experiment, its data set and budget, the command. Trainings go on
where they were stopped, so a command is given again until its runs are done. On a machine that has none of them yet,
begin with `cp -r docs/results/runs runs`: what is recorded is not trained again, and is in the report. Then:

    python benchmarks/results.py                                # every command, and how many of its runs are recorded;
                                                                # `before`: what makes their data, `after`: what
                                                                # measures more of them
    python benchmarks/results.py collect NAME --runs RUNS       # report and records of a table, from the runs' folder
    python benchmarks/results.py page                           # docs/results/index.md anew, from its template
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import gzip
import io
import json
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from indexnet.cli import main as indexnet
from indexnet.core.errors import UserError
from indexnet.report.build import build
from indexnet.report.table import Table
from indexnet.run.experiments.tables import load_experiment
from indexnet.run.run_sets import RunSet, choose, find_run_sets

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results"
MANIFEST = FOLDER / "results.yaml"
RUNS = FOLDER / "runs"
"""The committed part of run folders, laid out as ``runs/`` is, so that ``indexnet report ... --runs`` reads it."""
KEPT = ("record.json", "config.yaml", "csv/metrics.csv", "per_image.csv")
"""Files of a run, the last two where it has them: what a report's numbers and learning curves come from."""
FEW_IMAGES = 1000  # per-image results of larger test sets would be megabytes a table


@dataclass(frozen=True)
class Command:
    """What made something of the page.

    Attributes:
        name: of its folder.
        command: the whole command.
    """

    name: str
    command: str

    @property
    def shown(self) -> str:
        """The command in lines that fit a page."""
        lines, line = [], ""
        for word in re.findall(r"'[^']*'|\S+", self.command):
            if line and len(line) + len(word) > 76:
                lines, line = [*lines, f"{line} \\"], " "
            line = f"{line} {word}" if line else word
        return "\n".join([*lines, line])


@dataclass(frozen=True)
class Result(Command):
    """A table of the manifest, in a folder of ``docs/results``.

    Attributes:
        experiment: the experiment file.
        set: ``<data>-<budget>`` of its runs.
        short: what it is called where several tables stand side by side.
        before: what makes its data, where data sets alone are not enough; "" for nothing.
        after: what measures more of its runs, once they are there; "" for nothing.
        is_check: whether it tests a reason for what another table shows, and ranks no operators.
    """

    experiment: str
    set: str
    short: str = ""
    before: str = ""
    after: str = ""
    is_check: bool = False

    @property
    def folder(self) -> Path:
        """Where its report lies."""
        return FOLDER / self.name

    @property
    def overrides(self) -> list[str]:
        """What follows ``indexnet train -m``."""
        words = shlex.split(self.command)
        if words[:3] != ["indexnet", "train", "-m"]:
            raise UserError(f"{MANIFEST}, {self.name}: the command does not begin with `indexnet train -m`.")
        return words[3:]

    def run_sets(self, runs: Path) -> list[RunSet]:
        """Return its runs in a folder: one set, or none."""
        return [each for each in find_run_sets(runs, self.experiment) if each.name == self.set]

    @functools.cached_property
    def table(self) -> Table:
        """Its table, from the records that are committed."""
        return build(load_experiment(self.experiment), choose(self.run_sets(RUNS), None, str(RUNS)))

    @functools.cached_property
    def reported(self) -> Mapping[str, Mapping[str, str]]:
        """The lines of ``table.csv`` by row: they also say which rows images cannot tell from the best."""
        with (self.folder / "table.csv").open(encoding="utf-8", newline="") as file:
            return {line["row"]: line for line in csv.DictReader(file)}

    @functools.cached_property
    def statistics(self) -> Mapping[str, Any]:
        """What ``batch_statistics.py`` measured of its runs, by ``ROW/seed=N``; nothing before."""
        path = FOLDER / "evaluations" / f"{self.name}_statistics.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @property
    def runs(self) -> int:
        """How many runs its command makes, on its data and budget."""
        given = dict(word.split("=", 1) for word in self.overrides)
        seeds = given["seeds"].strip("[]").split(",") if "seeds" in given else self.table.seeds
        on_data = self.table.experiment.rows_on(self.set.rpartition("-")[0])
        rows = [row for row in on_data if not row.runs_never and not row.intermediate]
        if "rows" in given:
            named = given["rows"].strip("[]").split(",")
            rows = [row for row in rows if row.name in named]
        return len(rows) * len(seeds)

    def configs(self) -> list[dict[str, Any]]:
        """Return the frozen configurations of the runs of its command, on its data and budget."""
        from indexnet.run.folder import run_path
        from indexnet.sweep.frozen import compose_sweep

        return [each for each in compose_sweep(self.overrides)[0] if run_path(each).parts[-3] == self.set]


@dataclass(frozen=True)
class Evaluation(Command):
    """Methods that ``indexnet evaluate`` measured on a test set, in a folder of ``docs/results/evaluations``."""

    @functools.cached_property
    def found(self) -> dict[str, Any] | None:
        """What the command wrote; None before."""
        path = FOLDER / "evaluations" / self.name / "evaluation.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _manifest(part: str) -> list[dict[str, Any]]:
    listed = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))[part]
    return [{key: " ".join(str(value).split()) for key, value in each.items()} for each in listed]


def results() -> list[Result]:
    """Read the tables of the manifest."""
    checks = [Result(**each, is_check=True) for each in _manifest("checks")]
    return [*(Result(**each) for each in _manifest("tables")), *checks]


def find(name: str) -> Result:
    """Return a table of the manifest.

    Raises:
        UserError: there is none of that name.
    """
    known = {result.name: result for result in results()}
    if name not in known:
        raise UserError(f"{name}: no table of {MANIFEST}; there are {', '.join(known)}.")
    return known[name]


def evaluations() -> list[Evaluation]:
    """Read the evaluations of the manifest."""
    return [Evaluation(**each) for each in _manifest("evaluations")]


def list_commands() -> None:
    """Print every command, and how many of its runs are recorded here."""
    for result in results():
        if result.before:
            print(f"# {result.name}, its data\n{result.before}\n")
        print(f"# {result.name}: {result.table.done} runs recorded of {result.runs}\n{result.shown}\n")
        if result.after:
            print(f"# {result.name}, measured further: {len(result.statistics)} runs\n{result.after}\n")
    for each in evaluations():
        print(f"# {each.name}: {'recorded' if each.found else 'not recorded yet'}\n{each.shown}\n")
    for published in (Command(**each) for each in _manifest("published")):
        print(f"# {published.name}, the published budget, on a GPU\n{published.shown}\n")


def collect(names: Sequence[str], runs: Path) -> None:
    """Copy the report of tables and the records of their runs from where they were trained.

    Raises:
        UserError: a name is none of the manifest's, or there are no runs.
    """
    for result in [find(name) for name in names] or results():
        _collect(result, runs)


def _collect(result: Result, runs: Path) -> None:
    kept, where = (folder / result.experiment / result.set for folder in (RUNS, runs))
    if not (found := result.run_sets(runs)):
        raise UserError(f"{where}: there are no runs; train them first: {result.command}")
    done = [run.path.relative_to(where) for run in found[0].runs if run.status == "done"]
    if lost := sorted({path.parent.relative_to(kept) for path in kept.glob("*/*/record.json")}.difference(done)):
        raise UserError(
            f"{where}: {len(lost)} of the runs that {kept} has are not finished there, such as {lost[0]}; collect from "
            "a folder that has all runs, or delete these records."
        )
    with tempfile.TemporaryDirectory(dir=FOLDER) as made:
        report, taken = Path(made, "report"), Path(made, "runs")
        command = ["report", result.experiment, "--runs", str(runs), "--data", result.set, "--output", str(report)]
        with contextlib.redirect_stdout(io.StringIO()):  # it names a folder that is moved
            failed = indexnet(command) != 0
        if failed:
            raise UserError(f"{result.name}: no report could be made of {where}.")
        (report / "table.tex").unlink()
        page = report / "report.html"
        page.with_suffix(".html.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()
        for source in (where / run / file for run in done for file in KEPT):
            many = source.name == "per_image.csv" and source.exists() and source.read_bytes().count(b"\n") > FEW_IMAGES
            if source.exists() and not many:
                copy = taken / source.relative_to(where)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
        for new, old in ((report, result.folder), (taken, kept)):
            shutil.rmtree(old, ignore_errors=True)
            old.parent.mkdir(parents=True, exist_ok=True)
            new.rename(old)
    print(f"{result.name}: {len(done)} of {result.runs} runs; the report is in {result.folder}")


def _write_page() -> None:
    from results_page import write_page

    write_page()


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(do=lambda _: list_commands())
    commands = parser.add_subparsers()
    each = commands.add_parser("collect", help="reports and records from a folder of runs")
    each.add_argument("names", nargs="*", metavar="NAME")
    each.add_argument("--runs", type=Path, default=Path("runs"))
    each.set_defaults(do=lambda args: collect(args.names, args.runs))
    commands.add_parser("page", help="write the page").set_defaults(do=lambda _: _write_page())
    args: Any = parser.parse_args(arguments)
    try:
        args.do(args)
    except UserError as error:
        print(f"results: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
