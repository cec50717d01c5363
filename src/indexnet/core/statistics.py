"""Statistics over images and seeds: intervals of differences, ranks and their agreement, the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = Mapping[int, Mapping[str, float]]
"""Per-image scores of one table row: seed -> image name -> score."""

REPLICATES, LEVEL = 2000, 0.95
INTERVAL = f"{100 * LEVEL:.0f} % interval"
"""What intervals are called."""
FEWEST = 6  # groups; of fewer the bootstrap knows too few draws, and its intervals are far too narrow
_CHUNK = 250  # replicates at once: keeps the sums of segmentation with many classes small


@dataclass(frozen=True)
class Interval:
    """A confidence interval of the difference of two rows' means.

    Attributes:
        low: lower bound, in the score's unit.
        high: upper bound.
        images: images that both rows were tested on.
        seeds: seeds of the row with fewer; 1 means that the interval covers the images only.
    """

    low: float
    high: float
    images: int
    seeds: int

    @property
    def contains_zero(self) -> bool:
        """Whether the difference of the two rows is not significant at this level."""
        return self.low <= 0.0 <= self.high


def sample_sd(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (divisor n - 1); None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = fmean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def ranks(values: Sequence[float | None], higher_is_better: bool) -> list[int | None]:
    """Return competition ranks (1 is best, equal values share the better rank); None stays None."""
    best_first = sorted((value for value in values if value is not None), reverse=higher_is_better)
    return [None if value is None else 1 + best_first.index(value) for value in values]


def kendall_tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two equally long sequences, in [-1, 1].

    None where it is not defined: fewer than two pairs of values, or a sequence that is constant.

    Raises:
        ValueError: the lengths differ.
    """
    if len(first) < 2:
        return None
    from scipy.stats import kendalltau  # takes a second to import

    tau = float(kendalltau(first, second).statistic)
    return None if math.isnan(tau) else tau


def paired_means(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[float, float] | None:
    """Return the means of two rows over the seeds that both have.

    A seed that only one of them has would move their difference by how easy that seed is for every row.

    Args:
        first: seed -> value of one row.
        second: seed -> value of the other row.

    Returns:
        The two means, each of all its seeds where none is common; None where a row has no seed.
    """
    if not first or not second:
        return None
    common = first.keys() & second.keys()
    a, b = (fmean(row[seed] for seed in sorted(common or row)) for row in (first, second))
    return a, b


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> float | None:
    """Return the difference of :func:`paired_means`, None where there are none."""
    means = paired_means(first, second)
    return None if means is None else means[0] - means[1]


def paired_interval(first: Scores, second: Scores, *, level: float = LEVEL) -> Interval | None:
    """Bound the difference of two rows' means over images and seeds.

    Images are paired, and so are seeds that both rows have (one seed means one order of the training data). The
    images tested and the seeds trained are two samples: each has a standard error, of the images from differences
    averaged over seeds, of the seeds from differences averaged over images, and each counts with Student's t for its
    own number. The half width is the root of the sum of their squares; it covers at least ``level`` of normal
    differences, however few the seeds (more where both vary as much). One seed, and one image, say nothing of others:
    then the other sample alone is covered.

    Args:
        first: scores of one row; images missing from any seed are left out.
        second: scores of the other row.
        level: of confidence, in (0, 1).

    Returns:
        The interval of mean(first) - mean(second); None where there are no common images, or neither two images nor
        two seeds.
    """
    if not first or not second:
        return None
    images = sorted(set.intersection(*(set(scores) for scores in (*first.values(), *second.values()))))
    if not images:
        return None

    def table(scores: Scores, seeds: Sequence[int]) -> Floats:
        return np.array([[scores[seed][image] for image in images] for seed in seeds], dtype=np.float64)

    if paired := sorted(set(first) & set(second)):
        seeds = len(paired)
        samples = [table(first, paired) - table(second, paired)]
    else:
        seeds = min(len(first), len(second))
        samples = [table(first, sorted(first)), -table(second, sorted(second))]
    per_image = np.sum([sample.mean(axis=0) for sample in samples], axis=0)
    errors = [_error(per_image, level)] if len(images) > 1 else []
    errors += [_error(sample.mean(axis=1), level) for sample in samples] if seeds > 1 else []
    if not errors:
        return None
    centre, half = float(per_image.mean()), math.hypot(*errors)
    return Interval(centre - half, centre + half, len(images), seeds)


def _error(values: Floats, level: float) -> float:
    """Half the width of Student's interval of a mean."""
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, (1 + level) / 2))
    return quantile * float(values.std(ddof=1)) / math.sqrt(len(values))


def bootstrap(
    sums: Mapping[str, Floats],
    groups: Mapping[str, str],
    value: Callable[[Floats], Floats],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Floats | None:
    """Draw groups of images with replacement, and compute a metric from the sums over each draw.

    The metric need not be a mean over images. Two methods measured on the same images get the same draws, so that the
    difference of their replicates is that of a paired bootstrap.

    Args:
        sums: what every image adds to the metric's sums, by name, (K,).
        groups: the group of every image; images of a group stay together.
        value: the metric of sums: (n, K) to (n,).
        replicates: number of draws.
        seed: of the draws.

    Returns:
        (replicates,), or None where there are fewer than :data:`FEWEST` groups, which say too little of others.
    """
    table: dict[str, Floats] = {}
    for name in sorted(sums):
        table[groups[name]] = table.get(groups[name], 0.0) + sums[name]
    if len(table) < FEWEST:
        return None
    stacked = np.stack([table[group] for group in sorted(table)])
    chances = np.full(len(table), 1 / len(table))
    counts = np.random.default_rng(seed).multinomial(len(table), chances, size=replicates).astype(np.float64)
    return np.concatenate([value(counts[i : i + _CHUNK] @ stacked) for i in range(0, replicates, _CHUNK)])


def interval(replicates: Floats | None, level: float = LEVEL) -> tuple[float, float] | None:
    """Return the central share of bootstrap replicates; None where there are none, or not all are finite."""
    return None if replicates is None or not np.isfinite(replicates).all() else _central(replicates, level)


def _central(replicates: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
