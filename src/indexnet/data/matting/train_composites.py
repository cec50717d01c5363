"""Composites made on the fly for training: foregrounds over backgrounds, augmented by a pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from indexnet.core.errors import UserError
from indexnet.data.base import Dataset, Sample, UInt8, check_choice, check_count, digest
from indexnet.data.io.cache import Arrays, Cache, Store, check_cache
from indexnet.data.io.images import image_size, read_image
from indexnet.data.io.names import printable
from indexnet.data.matting.augmentation.policy import augment, check_augment
from indexnet.data.matting.compositing import check_enough
from indexnet.data.matting.estimate import check_installed
from indexnet.data.matting.foregrounds import Foreground, check_foregrounds, read_foreground
from indexnet.data.matting.pipelines.base import CROP_AROUND, Pipeline, Scene, create_pipeline
from indexnet.data.matting.unlabelled import Unlabelled

DAMAGED = ("refuse", "skip")
_T = TypeVar("_T")


@dataclass
class TrainingComposites(Dataset):
    """Every foreground over ``per_foreground`` backgrounds, a different crop of each composite in every epoch.

    Foregrounds are decoded, and estimated where that is asked for, once; backgrounds for every sample.

    Args:
        split: ``"train"``.
        title: the data set's name, for messages.
        foregrounds: in the order of the rule of compositing.
        backgrounds: in that order.
        per_foreground: composites of each foreground.
        pipeline: see :func:`~indexnet.data.matting.pipelines.list_pipelines`.
        size: side of the samples in pixels.
        cache: what becomes of decoded foregrounds, see :class:`~indexnet.data.io.cache.Store`; a folder is allowed.
        damaged: ``"refuse"``: a file that cannot be read ends the run; ``"skip"``: the next foreground or background
            takes its place, and samples have one more key, ``skipped``: the damaged files that they met, one a line.
        paired: whether the k-th composite of foreground f always has background f * per_foreground + k, as published;
            otherwise each sample draws one, as with a pipeline that does so always.
        crop_around: see :func:`~indexnet.data.matting.pipelines.base.create_pipeline`.
        augment: how colours are changed, :data:`~indexnet.data.matting.augmentation.policy.AUGMENTATIONS`.
        unlabelled: photographs without alpha that take the place of a share of the composites; samples have one more
            key, then: ``labelled``.

    Raises:
        UserError: an option's value is impossible, files are missing, or backgrounds too few.
    """

    split: str
    title: str
    foregrounds: Sequence[Foreground]
    backgrounds: Sequence[Path]
    per_foreground: int
    pipeline: str
    size: int
    cache: Cache = "auto"
    damaged: str = "refuse"
    paired: bool = True
    crop_around: str = CROP_AROUND[0]
    augment: str = "none"
    unlabelled: Unlabelled | None = None
    made_by: Pipeline = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.made_by = create_pipeline(self.pipeline, self.size, self.crop_around)
        self.paired = self.paired and not self.made_by.draws_background
        check_augment(self.augment)
        check_choice("data.damaged", self.damaged, DAMAGED)
        check_count("data.per_foreground", self.per_foreground)
        check_foregrounds(self.title, self.foregrounds)
        if self.paired:
            check_enough(len(self.foregrounds), len(self.backgrounds), self.per_foreground)
        elif not self.backgrounds:
            raise UserError(f"data={self.title} has no background.")
        if any(item.estimate for item in self.foregrounds):
            check_installed()
        cache = check_cache(self.cache, folder=True)
        self.store = Store(len(self.foregrounds), self._load, self._bytes, cache, "foregrounds", self._key)

    def __len__(self) -> int:
        return len(self.foregrounds) * self.per_foreground

    def name(self, index: int) -> str:
        return f"{self.group(index)}_{index % self.per_foreground}"

    def group(self, index: int) -> str:
        self._check_index(index)
        return self.foregrounds[index // self.per_foreground].name

    def subset(self, groups: Collection[str]) -> TrainingComposites:
        """Return the composites of these foregrounds alone: a pipeline that joins two objects draws from them too.

        Where composites have backgrounds of their own, these stay theirs; else all share the photographs.
        """
        kept = [k for k, item in enumerate(self.foregrounds) if item.name in groups]
        backgrounds = self.backgrounds
        if self.paired:
            each = self.per_foreground
            backgrounds = [path for k in kept for path in backgrounds[k * each : (k + 1) * each]]
        return replace(self, foregrounds=[self.foregrounds[k] for k in kept], backgrounds=backgrounds)

    def for_validation(self) -> TrainingComposites:
        """Return the composites alone, with their own colours."""
        return replace(self, augment="none", unlabelled=None)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image``, ``fg`` and ``bg`` (3, S, S), ``alpha`` and ``trimap`` (1, S, S) in [0, 1], and ``name``.

        With ``augment`` also what :meth:`~indexnet.data.matting.augmentation.policy.Augmented.tensors` adds. The crop
        is the same with all of them.

        Raises:
            UserError: a file is damaged and ``damaged`` is ``"refuse"``, or all of them are.
        """
        name = self.name(index)
        if self.unlabelled is not None and rng.random() < self.unlabelled.share:
            name, tensors = self.unlabelled.sample(rng)
            return {**tensors, "name": name, **({"skipped": ""} if self.damaged == "skip" else {})}
        *foreground, skipped = self.store[index // self.per_foreground]
        lost = _lines(skipped)
        at = index if self.paired else int(rng.integers(len(self.backgrounds)))
        background = self._first_readable(self._background, at, len(self.backgrounds), lost)

        def other(number: int) -> Arrays:
            *arrays, skipped = self.store[number]
            lost.extend(_lines(skipped))
            return tuple(arrays)

        scene = Scene(tuple(foreground), background, other, len(self.foregrounds))
        augmented = augment(self.augment, self.made_by.draw(scene, rng), rng)
        sample: Sample = {**augmented.tensors(self.augment, pseudo=self.unlabelled is not None), "name": name}
        if self.unlabelled is not None:
            sample["labelled"] = torch.tensor(True)
        if self.damaged == "skip":
            sample["skipped"] = "\n".join(dict.fromkeys(lost))  # two foregrounds may be one
        return sample

    def verify(self, index: int) -> None:
        self._check_index(index)
        read_foreground(self.foregrounds[index // self.per_foreground])
        self._background(index % len(self.backgrounds))

    def fingerprint(self) -> str:
        """SHA-256 over the parameters, the foreground files' names and sizes, and the backgrounds' names."""
        objects = [[item.name, item.estimate, *(p.stat().st_size for p in item.files)] for item in self.foregrounds]
        used = self.backgrounds[: len(self)] if self.paired else self.backgrounds
        parameters: list[object] = [self.split, self.per_foreground, self.pipeline, self.size, self.paired]
        parameters += [self.crop_around] if self.crop_around != CROP_AROUND[0] else []
        parameters += [] if self.augment == "none" else [self.augment]
        parameters += [] if self.unlabelled is None else [self.unlabelled.parameters()]
        return digest("composites", self.title, parameters, objects, [path.name for path in used])

    def _background(self, index: int) -> UInt8:
        return read_image(self.backgrounds[index])

    def _foreground(self, index: int) -> tuple[UInt8, UInt8]:
        return read_foreground(self.foregrounds[index])

    def _load(self, index: int) -> Arrays:
        """Decode a foreground; last comes what was skipped, as text."""
        lost: list[str] = []
        colour, alpha = self._first_readable(self._foreground, index, len(self.foregrounds), lost)
        return colour, alpha, np.frombuffer("\n".join(lost).encode(), np.uint8).copy()

    def _first_readable(self, read: Callable[[int], _T], index: int, count: int, lost: list[str]) -> _T:
        """Read an item, or with ``damaged=skip`` the first after it that can be read."""
        for step in range(count):
            try:
                return read((index + step) % count)
            except UserError as error:
                if self.damaged == "refuse" or step + 1 == count:
                    raise
                lost.append(" ".join(printable(str(error)).splitlines()))
        raise AssertionError("unreachable")

    def _bytes(self, index: int) -> int:
        try:
            return math.prod(image_size(self.foregrounds[index].alpha)) * 4
        except UserError:
            if self.damaged == "refuse":
                raise
            return 0

    def _key(self, index: int) -> str:
        """Return what a decoded foreground depends on."""
        item = self.foregrounds[index]
        return digest(item.stamps(), item.estimate, self.damaged, [])  # the last: earlier versions kept maps, too


def _lines(text: UInt8) -> list[str]:
    return bytes(text).decode().splitlines()
