"""Files of figures: what was measured, with what, and whether it is slower than in an earlier file."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from indexnet import __version__
from indexnet.benchmarks.base import BenchOptions, Figure
from indexnet.core.errors import UserError
from indexnet.core.machine import device_name
from indexnet.core.readers import read_json


@dataclass(frozen=True)
class Comparison:
    """Figures beside those of a baseline.

    Attributes:
        compared: how many are in both.
        worse: key, ratio of the baseline and ratio now of those that are worse than is tolerated.
        missing: keys of the baseline that were not measured, among the parts and threads that were.
        unknown: keys of what was measured that the baseline lacks.
    """

    compared: int
    worse: list[tuple[str, float, float]]
    missing: list[str]
    unknown: list[str]


def hardware(device: torch.device) -> str:
    """Return the name of a device, without the threads or memory that :func:`device_name` gives in brackets."""
    return device_name(device).rpartition(" (")[0]


def about(options: Sequence[BenchOptions]) -> dict[str, Any]:
    """Return what was measured with, one of the options for each number of threads, and when."""
    first = options[0]
    return {
        "device": hardware(first.device),
        "type": first.device.type,
        "versions": {
            "indexnet": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": {"quick": first.quick, "turns": first.turns, "threads": [each.threads for each in options]},
    }


def rows(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Return figures as plain data, with their ratios and keys."""
    return [{"key": figure.key, "ratio": figure.ratio, **asdict(figure)} for figure in figures]


def read_baseline(path: Path, options: BenchOptions) -> dict[str, Any]:
    """Read a file of figures that others are to be compared with.

    Raises:
        UserError: there is none, it holds something else, or it was measured at other sizes.
    """
    try:
        found = read_json(path)
    except FileNotFoundError:
        raise UserError(f"there is no baseline {path}; write one with --write-baseline.") from None
    try:
        quick = found["options"]["quick"]
        known = isinstance(found["device"], str) and isinstance(quick, bool)
        known &= all(isinstance(row["key"], str) and row["ratio"] > 0 and row["threads"] for row in found["figures"])
    except (KeyError, TypeError):
        known = False
    if not known:
        raise UserError(f"{path} is no file of `indexnet bench`; give one that --json or --write-baseline wrote.")
    if quick != options.quick:
        raise UserError(
            f"{path} was measured {'with' if quick else 'without'} --quick, so that no figure can be compared; "
            f"{'give it, too' if quick else 'leave it out'}."
        )
    return dict(found)


def remark(path: Path, baseline: Mapping[str, Any], device: torch.device) -> str:
    """Return the sentence about a baseline of other hardware; empty where it is this one's."""
    own, other = hardware(device), baseline["device"]
    if own == other:
        return ""
    return f"{path} was measured on {other}, this is {own}: ratios are compared all the same, but may differ by nature."


def compare(figures: Sequence[Figure], baseline: Mapping[str, Any], tolerance: float) -> Comparison:
    """Compare ratios with those of a baseline."""
    before = {row["key"]: row for row in baseline["figures"]}
    now = {figure.key: figure.ratio for figure in figures}
    both = [key for key in now if key in before]
    worse = [(key, before[key]["ratio"], now[key]) for key in both]
    measured = {(figure.part, figure.threads) for figure in figures}
    return Comparison(
        len(both),
        [each for each in worse if each[2] > each[1] * (1 + tolerance)],
        [key for key, row in before.items() if key not in now and (row.get("part"), row["threads"]) in measured],
        [key for key in now if key not in before],
    )


def better_of(figures: Sequence[Figure], again: Sequence[Figure]) -> list[Figure]:
    """Return figures, those that were measured again and are better then in their places."""
    second = {figure.key: figure for figure in again}
    return [min(figure, second.get(figure.key, figure), key=lambda each: each.ratio) for figure in figures]


def check_replaced(path: Path, options: BenchOptions, parts: Collection[str], threads: Collection[int]) -> None:
    """Refuse to put figures of some parts and threads into a file that holds something else.

    Raises:
        UserError: it is none of figures, or others of it would stay that were measured on other hardware or at other
            sizes.
    """
    if not path.exists():
        return
    before = read_baseline(path, options)
    if before["device"] != hardware(options.device) and _kept(before, parts, threads):
        raise UserError(
            f"{path} holds other figures of {before['device']}; measure all parts here, or give another name."
        )


def _kept(before: Mapping[str, Any], parts: Collection[str], threads: Collection[int]) -> list[dict[str, Any]]:
    return [row for row in before["figures"] if row.get("part") not in parts or row["threads"] not in threads]


def merged(path: Path, figures: Sequence[Figure], options: Sequence[BenchOptions]) -> dict[str, Any]:
    """Return a baseline in which figures are in the places of those of the same parts and threads.

    Raises:
        UserError: as :func:`check_replaced`.
    """
    new = about(options) | {"figures": rows(figures)}
    if not path.exists():
        return new
    parts, threads = {figure.part for figure in figures}, {each.threads for each in options}
    check_replaced(path, options[0], parts, threads)
    return new | {"figures": [*_kept(read_baseline(path, options[0]), parts, threads), *new["figures"]]}
