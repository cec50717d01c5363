"""Trimap robustness: how a matting method fares as trimaps get coarser.

Trimaps are made again from the true alpha with a random width per image, drawn from one range after the other, as in
the study of robust matting by Dai et al. (CVPR 2022), and every method sees the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from indexnet.core.errors import UserError
from indexnet.data import Dataset
from indexnet.data.base import Sample, digest, planes
from indexnet.data.io.trimaps import eroded_trimap, quantise

if TYPE_CHECKING:
    from torch import Tensor

    from indexnet.inference.comparison_table import Comparison
    from indexnet.inference.evaluation import Scores
    from indexnet.inference.methods import Setup


DEFAULT_RANGES = "11-20,21-30,31-40,41-50"
_STREAM = 2022  # keeps these draws apart from others of the same seed

Range = tuple[int, int]


def parse_ranges(text: str) -> list[Range]:
    """Read ``LOW-HIGH,LOW-HIGH,...``; a single number is a range of one width.

    Raises:
        UserError: it is not that, a range is empty, or one stands there twice.
    """
    ranges: list[Range] = []
    for word in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", word)
        low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= low <= high:
            raise UserError(
                f"--ranges {text} is not understood at {word!r}; give widths in pixels from 1 up, as {DEFAULT_RANGES}."
            )
        ranges.append((low, high))
    if len(set(ranges)) < len(ranges):
        raise UserError(f"--ranges {text} has a range twice; give each once.")
    return ranges


def range_name(widths: Range) -> str:
    """Write a range as a person gives it."""
    low, high = widths
    return str(low) if low == high else f"{low}-{high}"


@dataclass
class RemadeTrimaps(Dataset):
    """A split of matting samples whose trimaps are made again from alpha.

    The sets alpha = 1 and alpha = 0 are eroded by ellipses whose sizes are drawn independently and uniformly; the draw
    depends on the seed, the range and the sample's place alone.

    Args:
        inner: the split; its samples need ``alpha``.
        widths: smallest and largest size of the ellipses, in pixels.
        seed: of the draws.
    """

    inner: Dataset
    widths: Range
    seed: int = 0

    def __post_init__(self) -> None:
        self.split = self.inner.split

    def __len__(self) -> int:
        return len(self.inner)

    def name(self, index: int) -> str:
        return self.inner.name(index)

    def group(self, index: int) -> str:
        return self.inner.group(index)

    def sizes(self, index: int) -> tuple[int, int]:
        """Return the sizes of the ellipses for foreground and background, in pixels."""
        low, high = self.widths
        foreground, background = np.random.default_rng((_STREAM, self.seed, low, high, index)).integers(
            low, high + 1, size=2
        )
        return int(foreground), int(background)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the inner sample with another ``trimap``; one without ``alpha`` as it is."""
        sample = dict(self.inner.sample(index, rng))
        if "alpha" in sample:
            alpha: Tensor = sample["alpha"]  # type: ignore[assignment]
            sample["trimap"] = planes(eroded_trimap(quantise(alpha[0].numpy()), *self.sizes(index)))
        return sample

    def fingerprint(self) -> str:
        """SHA-256 over the inner split, the range and the seed."""
        return digest("remade trimaps", self.inner.fingerprint(), list(self.widths), self.seed)


def measure(setup: Setup, ranges: Sequence[Range], seed: int) -> list[dict[Range, Scores]]:
    """Measure every method on every range.

    Returns:
        One mapping from ranges to scores per method.
    """
    from indexnet.inference.evaluation import evaluate

    found = []
    for method in setup.methods:
        task = method.task.to(setup.device)
        levels = {}
        for widths in ranges:
            tests: Mapping[str, Dataset] = {
                split: RemadeTrimaps(dataset, widths, seed) for split, dataset in setup.tests.items()
            }
            title = f"{method.caption}, widths {range_name(widths)}"
            levels[widths] = evaluate(task, tests, setup.counts, title=title)
        method.task.to("cpu")
        found.append(levels)
    return found


def rows_of(setup: Setup, found: Sequence[Mapping[Range, Scores]]) -> list[dict[str, Any]]:
    """Return every measured image of every method and range, one row each."""
    return [
        {"method": method.caption, "range": range_name(widths), **row}
        for method, levels in zip(setup.methods, found, strict=True)
        for widths, scores in levels.items()
        for row in scores.rows
    ]


def curve_rows(comparison: Comparison, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row per method and range for CSV; a metric's columns are its value and its interval.

    Args:
        comparison: every method on every range, range by range.
        names: of the ranges.
    """
    from indexnet.inference.comparison_table import bounds_columns

    rows = []
    for place, line in enumerate(comparison.lines):
        row: dict[str, Any] = {"method": line.caption, "source": line.source, "range": names[place % len(names)]}
        row |= {"images": comparison.images, "groups": comparison.groups}
        for key in comparison.keys:
            row |= {key: line.cells[key].value, **bounds_columns(key, line.cells[key].bounds)}
        rows.append(row)
    return rows
