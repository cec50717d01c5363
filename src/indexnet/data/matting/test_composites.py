"""Composites that never change, for tests and validation, made on the fly by the published rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from indexnet.core.errors import UserError
from indexnet.data.base import Sample, UInt8, digest, planes
from indexnet.data.files import Listed, check_one_size
from indexnet.data.io.cache import Arrays, Cache, Store
from indexnet.data.io.images import file_sizes, image_size, read_image, read_trimap
from indexnet.data.io.names import is_file
from indexnet.data.matting.compositing import Pair, composite, cover
from indexnet.data.matting.foregrounds import Foreground, check_foregrounds, read_foreground
from indexnet.data.matting.photographs import generate_trimap


@dataclass
class FixedComposites(Listed):
    """Composites of full foregrounds, the same in every process and at any time; sizes differ from sample to sample.

    They are those that ``indexnet data prepare`` writes: see :mod:`indexnet.data.matting.compositing`.

    Args:
        split: ``"test"`` or ``"validation"``.
        title: name of the data set.
        pairs: which foreground is composed over which background; those of one foreground follow each other.
        trimaps: a file for each composite, or None where one is made.
        rule: how those are made, see :func:`~indexnet.data.matting.photographs.generate_trimap`.
        cache: whether decoded foregrounds are kept, see :class:`~indexnet.data.io.cache.Store`.
        sides: (longest, shortest) in pixels: foregrounds are scaled until their longer side is at most the one, then
            until the shorter is at least the other; None leaves them as they are.

    Raises:
        UserError: a file of a foreground or a trimap is missing.
    """

    split: str
    title: str
    pairs: Sequence[Pair] = field(repr=False)
    trimaps: Sequence[Path | None] = field(repr=False)
    rule: str
    cache: Cache = "auto"
    sides: tuple[int, int] | None = None
    foregrounds: list[Foreground] = field(init=False, repr=False)
    backgrounds: list[Path] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.names, self.scenes = [pair.name for pair in self.pairs], [pair.foreground.name for pair in self.pairs]
        self.foregrounds = list(dict.fromkeys(pair.foreground for pair in self.pairs))
        self.backgrounds = [pair.background for pair in self.pairs]
        check_foregrounds(self.title, self.foregrounds)
        for pair, trimap in zip(self.pairs, self.trimaps, strict=True):
            if trimap and not is_file(trimap):
                raise UserError(f"{trimap} is missing: data={self.title} needs it for the composite {pair.name}.")
        numbers = {foreground: number for number, foreground in enumerate(self.foregrounds)}
        self._numbers = [numbers[pair.foreground] for pair in self.pairs]
        self.store = Store(len(self.foregrounds), self._load, self._bytes, self.cache, "foregrounds", self._key)
        self._last: tuple[int, Arrays] | None = None

    def _load(self, number: int) -> Arrays:
        colour, alpha = read_foreground(self.foregrounds[number])
        if self.sides is None:
            return colour, alpha
        size = _fitted(alpha.shape, self.sides)
        return _scaled(colour, size), _scaled(alpha, size)

    def _bytes(self, number: int) -> int:
        return 4 * math.prod(image_size(self.foregrounds[number].alpha))

    def _key(self, number: int) -> str:
        """Return what a decoded foreground depends on."""
        item = self.foregrounds[number]
        return digest("composition", item.stamps(), item.estimate, self.sides)

    def _foreground(self, number: int) -> Arrays:
        """Return colours and matte of a foreground; the last one is at hand, as its composites follow each other."""
        if self.store.kept is not None:
            return self.store[number]
        last = self._last
        if last is None or last[0] != number:
            self._last = last = number, self.store[number]
        return last[1]

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (3, H, W), ``alpha`` and ``trimap`` (1, H, W), all in [0, 1], and ``name``.

        Raises:
            UserError: a file cannot be read, sizes differ, or a trimap has other values than 0, 128, 255.
        """
        name = self.name(index)
        colour, alpha = self._foreground(self._numbers[index])
        height, width = alpha.shape
        background = cover(read_image(self.pairs[index].background), (height, width), shrink=False)
        return {
            "image": planes(composite(colour, background, alpha)),
            "alpha": planes(alpha),
            "trimap": planes(self._trimap(index, alpha)),
            "name": name,
        }

    def _trimap(self, index: int, alpha: UInt8) -> UInt8:
        path = self.trimaps[index]
        if path is None:
            return generate_trimap(self.rule, self.name(index), alpha)
        trimap, _ = read_trimap(path, strict=True)
        check_one_size(path, trimap.shape, self.pairs[index].foreground.alpha, alpha.shape)
        return trimap

    def fingerprint(self) -> str:
        """SHA-256 over the pairs, the sizes of foregrounds and trimaps, and the rule of the trimaps that are made."""
        objects = [[item.name, item.estimate, *file_sizes(item.files)] for item in self.foregrounds]
        trimaps = [file_sizes([path]) if path else self.rule for path in self.trimaps]
        pairs = [[pair.name, pair.background.name] for pair in self.pairs]
        return digest("compositions", self.title, self.split, objects, pairs, trimaps, self.sides)


def _fitted(shape: tuple[int, ...], sides: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) brought to at most the longest and then at least the shortest side."""
    longest, shortest = sides
    scale = min(1.0, longest / max(shape))
    height, width = shape[0] * scale, shape[1] * scale
    scale = max(1.0, shortest / min(height, width))
    return int(height * scale), int(width * scale)


def _scaled(image: UInt8, size: tuple[int, int]) -> UInt8:
    """Scale to (height, width), Lanczos."""
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LANCZOS4), np.uint8)
