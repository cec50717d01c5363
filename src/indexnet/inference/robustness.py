"""Trimap robustness: how a matting method fares as trimaps get coarser.

Trimaps are made again from the true alpha with a random width per image, drawn from one range after the other, as in
the study of robust matting by Dai et al. (CVPR 2022), and every method sees the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from indexnet.data import Dataset
from indexnet.data.base import Sample, digest, planes
from indexnet.data.io.trimaps import eroded_trimap, quantise
from indexnet.inference.evaluation import Scores, evaluate
from indexnet.inference.methods import Method, Setup

_STREAM = 2022  # keeps these draws apart from others of the same seed

Range = tuple[int, int]


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

    @property
    def one_size(self) -> bool:
        return self.inner.one_size

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


def measure(setup: Setup, ranges: Sequence[Range], seed: int) -> list[tuple[Method, str, Scores]]:
    """Measure every method on every range.

    Returns:
        Method, name of the range, and scores; range by range for each method.
    """
    found = []
    for method in setup.methods:
        task = method.task.to(setup.device)
        for widths in ranges:
            tests = {split: RemadeTrimaps(dataset, widths, seed) for split, dataset in setup.tests.items()}
            name = range_name(widths)
            scores = evaluate(task, tests, setup.counts, title=f"{method.caption}, widths {name}")
            found.append((method, name, scores))
        task.to("cpu")
    return found
