"""The record of a run: everything that a report needs, in one JSON file. Needs no torch, so that it is read quickly."""

from __future__ import annotations

import contextlib
import csv
import datetime
import functools
import importlib.metadata
import io
import math
import os
import platform
import subprocess
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeGuard, get_args, get_origin

from indexnet import __version__
from indexnet.core.annotations import fits
from indexnet.core.errors import UserError
from indexnet.core.escape import csv_cell
from indexnet.core.files import atomic_write, sha256_file, write_json
from indexnet.core.readers import DamagedFileError, read_json
from indexnet.core.sources import changed_files

SCHEMA = 1
"""Version of the records that this program writes, and the newest that it reads."""

Status = Literal["running", "done", "failed", "diverged"]

_NULLABLE = ("experiment", "row", "label", "git", "error")  # written as null; other fields without a value are left out
_UNSAID = ("units", "tags", "code", "code_folders", "code_before")  # left out where they are empty
_LISTED = 3  # files that a sentence names
_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "hydra-core", "numpy")


class DamagedRunError(UserError):
    """The folder of a run cannot be made, or what is in it cannot be used. It concerns that run alone."""


@dataclass
class Samples:
    """Samples of a split: how many, their fingerprint, and where there are several splits the same of each by name."""

    count: int | None = None
    fingerprint: str | None = None
    splits: dict[str, Any] | None = None


@dataclass
class DataRecord:
    """The data set of a run: its name, and the samples that it trains, is measured and validated on.

    Attributes:
        tests: of the splits of further test data sets, by name, how many samples and their fingerprint.
    """

    name: str | None = None
    train: Samples = field(default_factory=Samples)
    test: Samples = field(default_factory=Samples)
    validation: Samples | None = None
    tests: dict[str, Any] | None = None


@dataclass
class Record:
    """The content of ``record.json``; a field that is not known (yet) is None or empty.

    Attributes:
        schema: version of the format.
        status: ``running`` also where a run was killed.
        experiment, row, label: the table that the run belongs to, its row, and the row's name for a person; None for
            a run without a table.
        task: name of the task.
        seed: its seed.
        budget: name of the budget.
        training, resampling: these groups of the configuration.
        batch: ``global`` batch, ``devices``, ``accumulate``, ``per_device``, and the ``printed`` global batch or None.
        changes: in which of the settings of its table the run differs, a sentence each.
        tags: the person's own.
        code: digests of the source files that it ran, by name, and ``code_folders``, where plugins of the person's own
            lie, see :class:`indexnet.core.sources.Sources`; empty where an earlier version made the record.
        code_before: of files that changed between the tries of the run, the digests of earlier tries, oldest first.
        split: what it was measured on, ``test`` or ``validation``.
        metrics: by name; None for one that nothing could be measured for.
        units: of metrics whose unit is not their usual one, by name without the split.
        versions: of Python and packages.
        git: revision of the checkout.
        config_hash: see :func:`indexnet.run.identity.config_hash`.
        started, finished: times, ISO 8601.
        pid: process id of a run that is at work.
        error: why it failed or diverged.
        steps: optimizer steps of the whole run.
        best: ``step``, ``metric`` and ``value`` of the best validation; None where there was none.
        tested: ``last`` or ``best``: the checkpoint that was measured, where there was a choice.
        stopped: the step at which training ended early; None where it did not.
        initial: ``path`` and ``sha256`` of the weights that it started from; of those that only parts took also which
            were ``loaded`` and which were ``left`` as they are, and why, see :mod:`indexnet.run.initial`; None: fresh.
        data: what it trained and was measured on.
        parameters, resampling_parameters, paper_gflops, true_gmacs: see :class:`indexnet.networks.costs.Costs`.
        costs_input: shape (C, H, W) that they were counted for.
        test_count: images that it was measured on, those of further test data sets included.
        skipped_files: see :func:`skipped_files`; None where all files were whole.
        train_samples_per_s, peak_memory_mb: measured over all tries of the run.
        test_samples_per_s: images per second of its test, all devices together.
        train_peak_memory_mb: the peak before its test.
        device: what it ran on.
        wall_time_s: of all tries.
        curve_from: the step before which the learning curve is not known; None where it is from its beginning.
    """

    schema: int = SCHEMA
    status: Status = "running"
    experiment: str | None = None
    row: str | None = None
    label: str | None = None
    task: str | None = None
    seed: int | None = None
    budget: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    resampling: dict[str, Any] = field(default_factory=dict)
    batch: dict[str, Any] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    split: str = "test"
    metrics: dict[str, float | None] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git: str | None = None
    code: dict[str, str] = field(default_factory=dict)
    code_folders: dict[str, str] = field(default_factory=dict)
    code_before: dict[str, list[str]] = field(default_factory=dict)
    config_hash: str | None = None
    started: str | None = None
    pid: int | None = None
    error: str | None = None
    steps: int | None = None
    best: dict[str, Any] | None = None
    tested: str | None = None
    stopped: int | None = None
    initial: dict[str, Any] | None = None
    data: DataRecord = field(default_factory=DataRecord)
    parameters: int | None = None
    resampling_parameters: int | None = None
    paper_gflops: float | None = None
    true_gmacs: float | None = None
    costs_input: list[int] | None = None
    test_count: int | None = None
    skipped_files: dict[str, Any] | None = None
    train_samples_per_s: float | None = None
    test_samples_per_s: float | None = None
    train_peak_memory_mb: float | None = None
    peak_memory_mb: float | None = None
    device: str | None = None
    finished: str | None = None
    wall_time_s: float | None = None
    curve_from: int | None = None

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read ``record.json`` of a run folder; None where there is none yet.

        Of a field that somebody has edited into something else, the value is dropped, of a mapping each entry; what is
        no field is left out.

        Raises:
            DamagedRunError: it is damaged, or a newer version of this program wrote it.
        """
        file = folder / "record.json"
        try:
            content = read_json(file)
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            raise DamagedRunError(f"{error} Restore it, or move it away to run again.") from error
        schema = content.get("schema", SCHEMA) if isinstance(content, dict) else None
        if type(schema) is not int:
            raise DamagedRunError(f"{file} is no record of a run; move it away to run again.")
        if schema > SCHEMA:
            raise DamagedRunError(
                f"{file} has schema {schema}, and this version of indexnet knows {SCHEMA}: update indexnet."
            )
        if content.get("status") not in get_args(Status):
            raise DamagedRunError(f"{file} has no known status; move it away to run again.")
        found: Self = _build(cls, content)
        return found

    def write(self, folder: Path) -> None:
        """Write ``record.json`` of a run folder, atomically.

        Raises:
            DiskFullError: there is no room.
        """
        write_json(folder / "record.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        found = asdict(self, dict_factory=lambda items: {k: v for k, v in items if v is not None or k in _NULLABLE})
        if self.data.name is None:
            del found["data"]
        for key in _UNSAID:
            if not found[key]:
                del found[key]
        return found

    def changed_code(self) -> list[str]:
        """Return the source files, and the file of initial weights, that have changed since the run or while it ran."""
        folders = {top: folder for top, folder in self.code_folders.items() if isinstance(folder, str)}
        changed = changed_files(self.code, folders)
        if self.initial:  # the weights that it started from; gone, they are not needed any more
            path = Path(str(self.initial.get("path", "")))
            with contextlib.suppress(PermissionError):
                if os.path.isfile(path) and sha256_file(path) != self.initial.get("sha256"):
                    changed = [*changed, str(path)]
        return list(dict.fromkeys((*changed, *self.code_before)))

    def code_remark(self) -> str:
        """Say which source files have changed since the run, or while it ran; "" where none has, or nothing is known.

        ``indexnet/resampling/indexnet.py has changed since``
        """
        changed = self.changed_code()
        during = [name for name in changed if name in self.code_before]
        since = [name for name in changed if name not in during]
        parts = [f"{_listed(since)} {'has' if len(since) == 1 else 'have'} changed since"] if since else []
        parts += [f"{_listed(during)} changed while it ran"] if during else []
        return "; ".join(parts)

    def metrics_line(self) -> str:
        """Return the metrics in one line, as a person reads them."""
        found = self.metrics.items()
        return ", ".join(f"{name} {'not measurable' if value is None else f'{value:.4g}'}" for name, value in found)

    def throughput(self, name: str) -> float | None:
        """Return how fast the run trained, None where that is not known.

        Args:
            name: ``images_per_second``; ``ms_per_step``, of an optimizer step of the whole batch; or ``hours``, what
                all steps took at that speed, validation and tests not counted.
        """
        speed, steps = self.number("train_samples_per_s"), self.number("steps")
        size = next(
            (each for each in (self.batch.get("global"), self.training.get("batch_size")) if is_number(each)), 0
        )
        if not speed:
            return None
        ms = 1000 * size / speed if size else None
        found = {"images_per_second": speed, "ms_per_step": ms, "hours": ms * steps / 3.6e6 if ms and steps else None}
        return found[name]

    @property
    def test_counts(self) -> dict[str, int | None]:
        """Images that the run was tested on: of its own data set under ``""``, of further ones under their names.

        Where a budget caps tests, what was measured is known in all, and stands under ``""``.
        """
        further = {name: each.get("count") for name, each in (self.data.tests or {}).items() if isinstance(each, dict)}
        counts = {"": self.data.test.count, **further}
        known = [count for count in counts.values() if isinstance(count, int)]
        if self.test_count is None or (len(known) == len(counts) and sum(known) == self.test_count):
            return counts
        return {"": self.test_count}

    def number(self, name: str) -> float | None:
        """Return the finite number of a field, None where there is none."""
        value = getattr(self, name)
        return float(value) if is_number(value) else None


def _listed(names: Sequence[str]) -> str:
    shown = names if len(names) <= _LISTED else [*names[: _LISTED - 1], f"{len(names) - _LISTED + 1} more files"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number (and not a truth value)."""
    return fits(value, float)


_hints = functools.cache(typing.get_type_hints)


def _build(cls: Any, content: Mapping[str, Any]) -> Any:
    """Build a dataclass from JSON: of each field, the value that has its type."""
    found: dict[str, Any] = {}
    for name, hint in _hints(cls).items():
        value = content.get(name)
        kind = next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)
        if kind is not None and isinstance(value, dict):
            found[name] = _build(kind, value)
        elif isinstance(value, dict) and (mapping := _mapping(hint)) is not None:
            found[name] = {key: each for key, each in value.items() if fits(each, get_args(mapping)[1])}
        elif fits(value, hint):
            found[name] = value
    return cls(**found)


def _mapping(hint: Any) -> Any:
    """Return the ``dict[...]`` of a hint, None where it has none."""
    return next((each for each in (hint, *get_args(hint)) if get_origin(each) is dict), None)


def read_progress(folder: Path) -> dict[str, float]:
    """Read ``progress.json`` of a run folder, which a run writes while it is at work.

    Returns:
        The numbers in it: ``step``, ``steps``, ``loss``, ``eta_s``, ``elapsed_s``, and the metrics of the last
        validation, ``val/psnr``, the task's first one first; empty where there are none.
    """
    try:
        content = read_json(folder / "progress.json")
    except (FileNotFoundError, DamagedFileError):
        return {}
    return {key: value for key, value in content.items() if is_number(value)} if isinstance(content, dict) else {}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version(), "indexnet": __version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Return the revision of the checkout that runs; None outside a checkout.

    It ends with ``-dirty`` where a file differs from it, or where git does not know a file of the code, the
    configuration or the experiments.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        new = git("ls-files", "--others", "--exclude-standard", "--", "src", "conf", "experiments")
        return git("rev-parse", "HEAD") + ("-dirty" if changed or new else "")
    except (OSError, subprocess.SubprocessError):
        return None


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def skipped_files(found: Mapping[str, int]) -> dict[str, Any]:
    """Describe the damaged files that a run went without.

    Args:
        found: what is wrong with each, naming it, and how many training samples have met it.
    """
    return {"count": len(found), "files": [{"problem": line, "samples": found[line]} for line in sorted(found)]}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``per_image.csv``, atomically: a line per image, a column per metric; a cell without a number is empty.

    Args:
        path: the file.
        rows: ``name`` and metrics; rows of different test splits have different metrics. Text is read back by
            :func:`indexnet.core.escape.csv_text`.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        empty = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        writer.writerow({key: csv_cell(value) for key, value in {**row, **dict.fromkeys(empty, "")}.items()})
    atomic_write(path, text.getvalue())
