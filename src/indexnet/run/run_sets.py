"""Read what runs left behind: records, per-image results, learning curves and pictures. Nothing is written here."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from indexnet.core.console import warn
from indexnet.core.errors import UserError
from indexnet.core.escape import csv_text
from indexnet.core.readers import DamagedFileError, read_csv, read_json, read_mapping
from indexnet.core.registry import did_you_mean
from indexnet.run.record import DamagedRunError, Record, is_number, read_progress

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_SEED = re.compile(r"seed=(-?\d+)")


@dataclass(frozen=True)
class Picture:
    """One picture that a run saved.

    Attributes:
        path: the PNG file; it exists.
        sample: name of the test sample that it shows.
        kind: ``input | target | output | error | index | trimap | legend``.
        stage: the resampling stage of an index map, 0 = full resolution; None for the others.
        caption: a person's line about it, may be empty.
        entries: of a legend, (what a colour means, the colour as ``#rrggbb``); empty where only the picture says it.
    """

    path: Path
    sample: str
    kind: str
    stage: int | None
    caption: str
    entries: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Run:
    """One run folder of an experiment.

    Attributes:
        path: the folder.
        row: table row that it belongs to.
        seed: its seed.
        status: ``done | running | failed | diverged``, ``new`` (nothing recorded yet) or ``unreadable``.
        reason: why there is no result, one line; empty for a finished run.
        record: content of ``record.json``; without values where there is none.
    """

    path: Path
    row: str
    seed: int
    status: str
    reason: str = ""
    record: Record = field(default_factory=Record)

    @property
    def metrics(self) -> dict[str, float]:
        """Finite metrics of a finished run by name; empty for any other."""
        found = self.record.metrics if self.status == "done" else {}
        return {name: float(value) for name, value in found.items() if is_number(value)}


@dataclass(frozen=True)
class RunSet:
    """All runs of one experiment on one data set at one budget.

    Attributes:
        experiment: name of the experiment.
        data: name of the data set.
        budget: name of the budget.
        runs: its runs by row folder and seed.
    """

    experiment: str
    data: str
    budget: str
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """``<data>-<budget>``, as in the folder name."""
        return f"{self.data}-{self.budget}" if self.budget else self.data

    @property
    def done(self) -> int:
        """Number of finished runs."""
        return sum(run.status == "done" for run in self.runs)

    @property
    def newest(self) -> str:
        """Time at which the last run started or finished, ISO 8601; empty where nothing says."""
        times = [run.record.finished or run.record.started or "" for run in self.runs]
        return max(times, default="")


def find_run_sets(
    runs: str | Path, experiment: str, borrowed: Mapping[str, tuple[str, str]] = MappingProxyType({})
) -> list[RunSet]:
    """Find the runs of an experiment below ``<runs>/<experiment>/<data>-<budget>/<row>/seed=<n>``.

    Args:
        runs: the folder of all runs.
        experiment: its name.
        borrowed: of its rows that are runs of other rows, the experiment and the name of the row there.

    Returns:
        One set per data and budget, best first: most finished runs, then the newest. Empty where there are none.
    """
    sets: dict[str, list[Run]] = {}
    for folder in run_folders(Path(runs) / experiment):
        sets.setdefault(folder.parent.parent.name, []).append(read_run(folder))
    for row, folder in borrowed_folders(Path(runs), borrowed):
        sets.setdefault(folder.parent.parent.name, []).append(dataclasses.replace(read_run(folder), row=row))
    found = []
    for name, members in sets.items():
        data, _, budget = name.rpartition("-")
        members.sort(key=lambda run: (run.row, run.seed))
        found.append(RunSet(experiment, data or budget, budget if data else "", tuple(members)))
    found.sort(key=lambda each: (each.done, each.newest, each.name), reverse=True)
    return found


def borrowed_folders(runs: Path, borrowed: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, Path]]:
    """Yield the run folders of rows that are runs of other rows, with their names here; of what is swept over, too."""
    there = {table: run_folders(runs / table) for table, _ in borrowed.values()}
    for name, (table, row) in borrowed.items():
        for path in there[table]:
            own, swept, more = path.parent.name.partition("--")
            if own == row:
                yield f"{name}{swept}{more}", path


def run_folders(base: Path) -> list[Path]:
    """Return the folders ``<data>-<budget>/<row>/seed=<n>`` below that of an experiment, sorted.

    A folder above them that may not be read is said: what is in it is not known, which is not the same as nothing.
    """
    level = [base]
    for _ in range(3):
        below: list[Path] = []
        for folder in level:
            try:
                below += [folder / name for name in os.listdir(folder)]
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                above = (each for each in reversed(folder.parents) if not os.access(each, os.X_OK))
                place = next(above, folder)  # one sentence for all that lies in it
                _warn_once(f"indexnet: {place} cannot be read ({error.strerror}); the runs in it are left out.")
        level = below
    return sorted(path for path in level if seed_of(path) is not None and not os.path.isfile(path))


def choose(sets: list[RunSet], name: str | None, where: str) -> RunSet | None:
    """Return the set called ``name``, or the best one where no name is given; None where there are no runs.

    Raises:
        UserError: there is no such set.
    """
    if name is None:
        return sets[0] if sets else None
    for each in sets:
        if each.name == name:
            return each
    known = [each.name for each in sets]
    present = f"present: {', '.join(sorted(known))}" if known else "there are no runs at all; leave --data out"
    raise UserError(f"--data {name!r}: no such data and budget under {where};{did_you_mean(name, known)} {present}.")


def seed_of(folder: Path) -> int | None:
    """Return the seed that a run folder is named after, None where it is none."""
    match = _SEED.fullmatch(folder.name)
    return int(match.group(1)) if match else None


def read_run(folder: Path) -> Run:
    """Read one run folder. A record that cannot be read makes an ``unreadable`` run, never an exception."""
    row, seed = folder.parent.name, seed_of(folder) or 0
    try:
        record = Record.read(folder)
    except DamagedRunError as error:
        return Run(folder, row, seed, "unreadable", " ".join(str(error).split()))
    if record is None:
        return Run(folder, row, seed, "new", _progress(folder) or "not started, or stopped before its first record")
    message = " ".join((record.error or "").split())
    reasons = {
        "done": "",
        "running": _progress(folder) or "started, no result yet",
        "failed": message or "console.log in its folder says more",
        "diverged": message or "console.log in its folder says more",
    }
    return Run(folder, row, seed, record.status, reasons[record.status], record)


def read_config(run: Run) -> Mapping[str, Any] | None:
    """Read the run's frozen configuration; None where there is none, or ``config.yaml`` is not one, which is said."""

    def read(file: Path) -> dict[str, Any]:
        config = read_mapping(file)
        if not isinstance(config.get("training"), Mapping):
            raise DamagedFileError(f"{file} is no configuration of a run.")
        return config

    found: dict[str, Any] | None = _read(run.path / "config.yaml", read, None)
    return found


def _read(file: Path, read: Callable[[Path], Any], empty: Any) -> Any:
    """Return what a file beside a record holds; ``empty`` where there is none, or it is damaged, which is said."""
    try:
        return read(file)
    except FileNotFoundError:
        return empty
    except DamagedFileError as error:
        _warn_once(f"indexnet: {error} It is left out.")
        return empty


@functools.cache  # a curve is read for each of its columns
def _warn_once(text: str) -> None:
    warn(text)


def _progress(folder: Path) -> str:
    match read_progress(folder):
        case {"step": step, "steps": steps}:
            return f"running or interrupted at step {int(step)} of {int(steps)}"
    return ""


def finite(text: str) -> float | None:
    """Return the finite number that a text is, None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_per_image(run: Run) -> dict[str, dict[str, float]]:
    """Read ``per_image.csv``: metric -> image name -> value. Empty where there is none.

    An image name that occurs more than once gets its occurrence appended, so that nothing is lost. Cells that are empty
    or no finite number are left out: a metric of another test split, or an image in which nothing counts.
    """
    scores: dict[str, dict[str, float]] = {}
    seen: dict[str, int] = {}
    for line in _read(run.path / "per_image.csv", read_csv, ()):
        name = csv_text(line.pop("name", ""))
        seen[name] = seen.get(name, 0) + 1
        key = name if seen[name] == 1 else f"{name}#{seen[name]}"
        for metric, text in line.items():
            value = finite(text)
            if value is not None:
                scores.setdefault(metric, {})[key] = value
    return scores


def read_curve(run: Run, column: str = "train/loss") -> list[tuple[int, float]]:
    """Read one column of ``csv/metrics.csv`` as (step, value), by step; the last value of a step that occurs twice."""
    points: dict[int, float] = {}
    for line in _read(run.path / "csv" / "metrics.csv", read_csv, ()):
        step, value = finite(line.get("step", "")), finite(line.get(column, ""))
        if step is not None and value is not None:
            points[int(step)] = value
    return sorted(points.items())


def read_pictures(run: Run) -> list[Picture]:
    """Read ``pictures/pictures.json``; entries whose file is missing or outside the folder are left out."""
    folder = run.path / "pictures"
    entries = _read(folder / "pictures.json", read_json, [])
    pictures = []
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("file"), str):
            continue
        path = folder / Path(entry["file"]).name  # the name only: a record must not reach outside its folder
        stage = entry.get("stage")
        if os.path.isfile(path):
            sample, kind = str(entry.get("sample", "")), str(entry.get("kind", ""))
            caption = str(entry.get("caption") or "")
            number = stage if isinstance(stage, int) else None
            pictures.append(Picture(path, sample, kind, number, caption, _entries(entry.get("entries"))))
    return pictures


def _entries(value: object) -> tuple[tuple[str, str], ...]:
    """Return the legend's entries that are pairs of a text and a colour."""
    found = []
    for pair in value if isinstance(value, list) else []:
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], str) and _COLOUR.fullmatch(pair[1]):
            found.append((str(pair[0]), pair[1]))
    return tuple(found)
