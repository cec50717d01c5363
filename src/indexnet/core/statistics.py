"""Statistics over images and seeds: intervals, paired differences, ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Scores = Mapping[int, Mapping[str, float]]
"""Per-image scores of one table row: seed -> image name -> score."""

REPLICATES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval of the difference of two rows' means.

    Attributes:
        low: lower bound, in the score's unit.
        high: upper bound.
        images: images that both rows were tested on.
        seeds: seeds that were resampled; 1 means that the interval covers the images only.
    """

    low: float
    high: float
    images: int
    seeds: int

    @property
    def contains_zero(self) -> bool:
        """Whether the two rows cannot be told apart at this level."""
        return self.low <= 0.0 <= self.high


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean of one or more numbers.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("the mean of no values is not defined")
    return math.fsum(values) / len(values)


def sample_sd(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (divisor n - 1); None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def ranks(values: Sequence[float | None], higher_is_better: bool) -> list[int | None]:
    """Return competition ranks (1 is best, equal values share the better rank); None stays None."""
    known = [value for value in values if value is not None]

    def rank(value: float) -> int:
        return 1 + sum((other > value) if higher_is_better else (other < value) for other in known)

    return [None if value is None else rank(value) for value in values]


def kendall_tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two equally long sequences, in [-1, 1].

    None where it is not defined: fewer than two pairs of values, or a sequence that is constant.

    Raises:
        ValueError: the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"kendall_tau_b needs sequences of one length, got {len(first)} and {len(second)}")
    score = first_pairs = second_pairs = 0
    for i in range(len(first)):
        for j in range(i):
            a = (first[i] > first[j]) - (first[i] < first[j])
            b = (second[i] > second[j]) - (second[i] < second[j])
            score += a * b
            first_pairs += a != 0
            second_pairs += b != 0
    if first_pairs == 0 or second_pairs == 0:
        return None
    return score / math.sqrt(first_pairs * second_pairs)


@lru_cache(maxsize=2)
def _counts(items: int, replicates: int, seed: int) -> NDArray[np.float32]:
    """How often each item occurs in each bootstrap sample: (replicates, items), each line sums to ``items``."""
    generator = np.random.default_rng(seed)
    counts = np.empty((replicates, items), dtype=np.float32)
    for line in counts:  # a sample at a time: a (replicates, items) table of integers would be twice as large
        line[:] = np.bincount(generator.integers(0, items, size=items), minlength=items)
    return counts


def _matrix(scores: Scores, seeds: Sequence[int], images: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[scores[seed][image] for image in images] for seed in seeds], dtype=np.float64)


def _replicates(
    table: NDArray[np.float64], images: NDArray[np.float32], seeds: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Means of a (seeds, images) table under every pair of resampled images and seeds: (replicates,)."""
    per_seed = images @ table.T.astype(np.float32) / table.shape[1]
    return np.asarray((per_seed * seeds).sum(axis=1, dtype=np.float64) / table.shape[0])


def paired_bootstrap(
    first: Scores, second: Scores, *, level: float = LEVEL, replicates: int = REPLICATES, seed: int = 0
) -> Interval | None:
    """Bound the difference of two rows' means by a paired bootstrap over images and seeds.

    Every replicate draws images with replacement, the same for both rows. Seeds that both rows have are drawn in pairs
    as well (one seed means one order of the training data); rows without a common seed get independent draws. The
    interval holds the central ``level`` of the replicates. The result is the same every time for one ``seed``.

    Args:
        first: scores of one row; images missing from any seed are left out.
        second: scores of the other row.
        level: share of replicates inside the interval, in (0, 1).
        replicates: number of bootstrap samples.
        seed: of the random numbers.

    Returns:
        The interval of mean(first) - mean(second), or None where there are no common images.
    """
    if not first or not second:
        return None
    common = set.intersection(*(set(images) for images in (*first.values(), *second.values())))
    images = sorted(common)
    if not images:
        return None
    weights = _counts(len(images), replicates, seed)
    paired = sorted(set(first) & set(second))
    if paired:
        table = _matrix(first, paired, images) - _matrix(second, paired, images)
        differences = _replicates(table, weights, _counts(len(paired), replicates, seed + 1))
        seeds = len(paired)
    else:
        a, b = sorted(first), sorted(second)
        differences = _replicates(
            _matrix(first, a, images), weights, _counts(len(a), replicates, seed + 1)
        ) - _replicates(_matrix(second, b, images), weights, _counts(len(b), replicates, seed + 2))
        seeds = min(len(a), len(b))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(differences, [tail, 1.0 - tail])
    return Interval(float(low), float(high), len(images), seeds)


def interval(replicates: NDArray[np.float64] | None, level: float = LEVEL) -> tuple[float, float] | None:
    """Return the central share of bootstrap replicates; None where there are none, or not all are finite."""
    if replicates is None or not np.isfinite(replicates).all():
        return None
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
