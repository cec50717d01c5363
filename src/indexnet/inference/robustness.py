"""Robustness: how a method fares as trimaps get coarser, or as images are damaged.

Trimaps are made again from the true alpha with a random width per image, drawn from one range after the other, as in
the study of robust matting by Dai et al. (CVPR 2022), and every method sees the same ones. Damage is that of
:mod:`indexnet.data.degradations`: it is done to the image alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from indexnet.data import Dataset
from indexnet.data.base import Sample, digest, planes
from indexnet.data.degradations import DEGRADATIONS
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
class _Changed(Dataset):
    """A split whose samples are changed one by one; all else is the inner split's."""

    inner: Dataset

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


@dataclass
class RemadeTrimaps(_Changed):
    """A split of matting samples whose trimaps are made again from alpha.

    The sets alpha = 1 and alpha = 0 are eroded by ellipses whose sizes are drawn independently and uniformly; the draw
    depends on the seed, the range and the sample's place alone.

    Args:
        inner: the split; its samples need ``alpha``.
        widths: smallest and largest size of the ellipses, in pixels.
        seed: of the draws.
    """

    widths: Range
    seed: int = 0

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


@dataclass
class DegradedImages(_Changed):
    """A split whose images are damaged; all that belongs to them (trimaps, targets) stays.

    The damage depends on the seed, the kind, the level and the sample's name alone; noise is the same but for its scale
    at every level.

    Args:
        inner: the split; its samples need ``image``, which becomes one of 8 bits.
        kind: of :data:`indexnet.data.degradations.DEGRADATIONS`.
        level: how strong.
        seed: of the noise.
    """

    kind: str
    level: float
    seed: int = 0

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the inner sample with another ``image``, of the same shape."""
        sample = dict(self.inner.sample(index, rng))
        image: Tensor = sample["image"]  # type: ignore[assignment]
        pixels = quantise(image.permute(1, 2, 0).numpy())
        name = zlib.crc32(self.name(index).encode())
        own = np.random.default_rng((_STREAM, self.seed, zlib.crc32(self.kind.encode()), name))
        gray = pixels.shape[2] == 1
        damaged = DEGRADATIONS[self.kind].apply(pixels[..., 0] if gray else pixels, self.level, own)
        sample["image"] = planes(damaged)
        return sample

    def fingerprint(self) -> str:
        """SHA-256 over the inner split, the kind, its level and the seed."""
        return digest("degraded images", self.inner.fingerprint(), self.kind, self.level, self.seed)


@dataclass(frozen=True)
class Condition:
    """What is done to a test set.

    Attributes:
        widths: of which trimaps are made again; None: they stay.
        kind: of damage to images; "": none.
        level: of the damage.
    """

    widths: Range | None = None
    kind: str = ""
    level: float = 0.0

    def apply(self, dataset: Dataset, seed: int) -> Dataset:
        """Return a split under this condition."""
        inner = dataset if self.widths is None else RemadeTrimaps(dataset, self.widths, seed)
        return DegradedImages(inner, self.kind, self.level, seed) if self.kind else inner

    @property
    def columns(self) -> dict[str, str]:
        """What tables say of it, empty where there is nothing to say."""
        widths, level = self.widths, f"{self.level:g}" if self.kind else ""
        return {"range": "" if widths is None else range_name(widths), "degradation": self.kind, "level": level}


@dataclass(frozen=True)
class Series:
    """Conditions that make one line of a plot.

    Attributes:
        title: what they have in common; empty for trimaps alone.
        axis: what changes along the line, with its unit.
        places: names of the conditions.
        conditions: in the order of the line.
    """

    title: str
    axis: str
    places: Sequence[str]
    conditions: Sequence[Condition]


def make_series(ranges: Sequence[Range], degradations: Mapping[str, Sequence[float]]) -> list[Series]:
    """Arrange what is to be measured: trimaps from range to range; or each kind of damage, for each range if any.

    Args:
        ranges: sizes of ellipses that trimaps are made again with; none: trimaps stay as they are.
        degradations: levels by kind. The image as it is comes first, unless its level (such as noise 0) is among them.
    """
    if not degradations:
        names = [range_name(widths) for widths in ranges]
        axis = "size of the eroding ellipses, pixels"
        return [Series("", axis, names, [Condition(widths) for widths in ranges])]
    found = []
    for kind, levels in degradations.items():
        none = DEGRADATIONS[kind].none
        for widths in ranges or (None,):
            known = {} if none in levels else {"clean": Condition(widths)}
            for level in levels:
                clean = level == none
                known["clean" if clean else f"{level:g}"] = Condition(
                    widths, "" if clean else kind, 0 if clean else level
                )
            title = kind if widths is None else f"{kind}, trimaps {range_name(widths)}"
            found.append(Series(title, DEGRADATIONS[kind].level, list(known), list(known.values())))
    return found


def measure(setup: Setup, conditions: Sequence[Condition], seed: int) -> list[tuple[Method, Condition, Scores]]:
    """Measure every method under every condition.

    Returns:
        Method, condition and scores; condition by condition for each method.
    """
    found = []
    for method in setup.methods:
        task = method.task.to(setup.device)
        for condition in conditions:
            tests = {split: condition.apply(dataset, seed) for split, dataset in setup.tests.items()}
            words = " ".join(filter(None, condition.columns.values()))
            scores = evaluate(task, tests, setup.counts, title=f"{method.caption}, {words or 'clean'}")
            found.append((method, condition, scores))
        task.to("cpu")
    return found
