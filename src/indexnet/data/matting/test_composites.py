"""Test composites made on the fly by the published rule, and what data sets of composites share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from indexnet.core.errors import UserError
from indexnet.data.base import (
    Data,
    Dataset,
    NoSplitError,
    Sample,
    UInt8,
    check_choice,
    check_count,
    check_size,
    digest,
    planes,
)
from indexnet.data.io.cache import Arrays, Cache, Store, check_cache, estimate_bytes
from indexnet.data.io.images import read_image, read_trimap
from indexnet.data.matting.compositing import (
    Pair,
    Prepared,
    Recipe,
    composite,
    cover,
    digest_foregrounds,
    made_of,
    paired,
    read_manifest,
)
from indexnet.data.matting.file_lists import check_places, image_names
from indexnet.data.matting.foregrounds import Foreground, check_foregrounds, read_foreground
from indexnet.data.matting.photographs import MattingFiles, TrimapsByNumber, Triple, check_same_size, generate_trimap
from indexnet.data.segmentation import file_sizes, image_size


@dataclass
class Compositions(Dataset):
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
    store: Store = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.foregrounds = list(dict.fromkeys(pair.foreground for pair in self.pairs))
        self.backgrounds = [pair.background for pair in self.pairs]
        check_foregrounds(self.title, self.foregrounds)
        for pair, trimap in zip(self.pairs, self.trimaps, strict=True):
            if trimap and not trimap.is_file():
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

    def _bytes(self) -> int:
        return estimate_bytes(len(self.foregrounds), lambda i: 4 * math.prod(image_size(self.foregrounds[i].alpha)))

    def _key(self, number: int) -> str:
        """Return what a decoded foreground depends on."""
        item = self.foregrounds[number]
        stats = [(str(path.resolve()), path.stat()) for path in (item.colour, item.alpha)]
        return digest("composition", [[name, s.st_size, s.st_mtime_ns] for name, s in stats], item.estimate, self.sides)

    def _foreground(self, number: int) -> Arrays:
        """Return colours and matte of a foreground; the last one is at hand, as its composites follow each other."""
        if self.store.kept is not None:
            return self.store[number]
        last = self._last
        if last is None or last[0] != number:
            self._last = last = number, self.store[number]
        return last[1]

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """Return the foreground's name with the composite's number."""
        self._check_index(index)
        return self.pairs[index].name

    def group(self, index: int) -> str:
        """Return the foreground's name."""
        self._check_index(index)
        return self.pairs[index].foreground.name

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
        check_same_size(path, trimap.shape, self.pairs[index].foreground.alpha, alpha.shape)
        return trimap

    def prepare(self, reads: int | None = None) -> str:
        """Decode the foregrounds."""
        return self.store.prepare(reads)

    def fingerprint(self) -> str:
        """SHA-256 over the pairs, the sizes of foregrounds and trimaps, and the rule of the trimaps that are made."""
        objects = [[item.name, item.estimate, *file_sizes([item.colour, item.alpha])] for item in self.foregrounds]
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


class ComposedData(Data):
    """A data set of foregrounds that are composed over photographs.

    Training composites are made on the fly by a pipeline. Tests take the composites that lie in the split's folder,
    ``merged/NAME_0.png`` ..., where all of them are there and, if ``indexnet data prepare`` has written them, these
    options would write the same; otherwise they are made on the fly.

    Subclasses say where foregrounds, backgrounds and trimaps lie.

    Args:
        root: folder of the data set.
        task: ``"matting"``.
        size: side of a training sample in pixels.
        pipeline: the training pipeline: ``"dim"``, ``"mmediting"`` or ``"gca"``.
        per_foreground: training composites of each foreground.
        test_per_foreground: test composites of each foreground.
        backgrounds: folders of the photographs behind training composites, or files that list them; None: where the
            data set's layout has them.
        test_backgrounds: the same for test composites.
        foreground: ``"colours"``: the files are the foregrounds' colours; ``"estimated"``: they are photographs, and
            the colours are estimated from them and the mattes.
        foregrounds: folder of colours that were estimated before, ``NAME.png``; they replace the data set's.
        cache: whether decoded foregrounds are kept: ``"auto"`` (where memory allows), True, False, or a folder for
            them.
        damaged: what a training file that cannot be read does: ``"refuse"`` ends the run, ``"skip"`` takes another.

    Raises:
        UserError: an option's value is impossible.
    """

    folders: ClassVar[dict[str, str]] = {"train": "Training_set", "test": "Test_set"}
    """Where a split's composites lie once they are prepared."""
    parts: ClassVar[tuple[str, str]] = ("fg", "alpha")
    """What those folders call colours and mattes."""
    rule: ClassVar[str] = "dilated"
    """How test trimaps are made where none come with the data set, see ``generate_trimap``."""
    as_they_are: ClassVar[str] = "colours"
    """What the option ``foreground`` calls files that are taken as they are."""
    paired: ClassVar[bool] = True
    """Whether each composite has a background of its own, or draws one; such composites cannot be prepared."""
    place_options: ClassVar[dict[str, str]] = {"train": "data.backgrounds", "test": "data.test_backgrounds"}
    """Which option says where a split's backgrounds are."""

    def __init__(
        self,
        root: str,
        task: str = "matting",
        size: int = 320,
        pipeline: str = "dim",
        per_foreground: int = 100,
        test_per_foreground: int = 20,
        backgrounds: str | Sequence[str] | None = None,
        test_backgrounds: str | Sequence[str] | None = None,
        foreground: str | None = None,
        foregrounds: str | None = None,
        cache: Cache = "auto",
        damaged: str = "refuse",
    ) -> None:
        from indexnet.data.matting.pipelines import list_pipelines
        from indexnet.data.matting.train_composites import DAMAGED

        super().__init__(task)
        self.root, self.size = Path(root), check_size("data.size", size, smallest=16)
        check_choice("data.pipeline", pipeline, list_pipelines())
        check_choice("data.damaged", damaged, DAMAGED)
        foreground = foreground or self.as_they_are
        check_choice("data.foreground", foreground, (self.as_they_are, "estimated"))
        self.pipeline, self.damaged, self.cache = pipeline, damaged, check_cache(cache, folder=True)
        self.per_foreground = check_count("data.per_foreground", per_foreground)
        self.test_per_foreground = check_count("data.test_per_foreground", test_per_foreground)
        self.places = {
            "train": check_places("data.backgrounds", backgrounds),
            "test": check_places("data.test_backgrounds", test_backgrounds),
        }
        self.estimated = foreground == "estimated"
        self.foregrounds = None if foregrounds is None else Path(foregrounds)

    @abstractmethod
    def objects(self, split: str) -> list[Foreground]:
        """Return a split's foregrounds as the data set has them, in the order of the rule.

        Raises:
            UserError: files are missing.
        """

    @abstractmethod
    def backgrounds(self, split: str) -> list[Path]:
        """Return the photographs behind a split's composites, in the order of the rule.

        Raises:
            UserError: they are missing.
        """

    def trimap(self, pair_name: str, foreground: Foreground) -> Path | None:
        """Return the trimap that comes with a test composite or its foreground; None where one is to be made."""
        folder = self.root / self.folders["test"] / "trimaps"
        places = (folder / f"{name}.png" for name in (pair_name, foreground.name))
        return next((place for place in places if place.is_file()), None)

    def count(self, split: str) -> int:
        """Return the number of composites of each foreground."""
        return self.per_foreground if split == "train" else self.test_per_foreground

    def chosen(self, split: str) -> list[Foreground]:
        """Return a split's foregrounds with the colours that the options ask for."""
        found = self.objects(split)
        if self.foregrounds is not None:
            names = set(image_names(self.foregrounds))
            for item in found:
                if f"{item.name}.png" not in names:
                    raise UserError(
                        f"{self.foregrounds / item.name}.png is missing; data.foregrounds needs the colours of every "
                        f"foreground: indexnet data prepare {self.name} foregrounds output={self.foregrounds}."
                    )
            return [replace(item, colour=self.foregrounds / f"{item.name}.png") for item in found]
        return [replace(item, estimate=True) for item in found] if self.estimated else found

    def pairs(self, split: str, foregrounds: Sequence[Foreground]) -> list[Pair]:
        """Return which foreground is composed over which background.

        Raises:
            UserError: there are too few backgrounds.
        """
        try:
            return paired(foregrounds, self.backgrounds(split), self.count(split))
        except UserError as error:
            if split == "train":
                raise
            raise UserError(str(error).replace("data.per_foreground", "data.test_per_foreground")) from error

    def train(self) -> Dataset:
        """Return the training composites."""
        from indexnet.data.matting.train_composites import Composites

        return Composites(
            split="train",
            title=self.name,
            foregrounds=self.chosen("train"),
            backgrounds=self.backgrounds("train"),
            per_foreground=self.per_foreground,
            pipeline=self.pipeline,
            size=self.size,
            cache=self.cache,
            damaged=self.damaged,
            paired=self.paired,
        )

    def test(self) -> Dataset:
        """Return the test composites, from files where all of them are there."""
        return self.still("test")

    def still(self, split: str) -> Dataset:
        """Return a split whose composites never change.

        Raises:
            UserError: files are missing, or backgrounds are too few.
        """
        folder, count = self.root / self.folders[split], self.count(split)
        files, prepared = self._files(split, folder, count), read_manifest(folder)
        if files and prepared.made_of is None:
            return files  # from elsewhere
        chosen = self.chosen(split)
        try:
            pairs = self.pairs(split, chosen)
        except UserError as error:
            if not files or self.places.get(split):
                raise
            assert prepared.made_of is not None
            check_foregrounds(self.name, chosen)
            parts = {"per_foreground": count, "foregrounds": digest_foregrounds(chosen)}
            if prepared.made_of | parts == prepared.made_of:
                return files  # there is nothing else to test on
            raise UserError(
                f"the composites in {folder} were prepared with other options, and for those of these {error}"
            ) from error
        trimaps = [self._given_trimap(pair, folder, prepared) for pair in pairs]
        composed = Compositions(split, self.name, pairs, trimaps, self.rule, self.cache)
        if files and prepared.made_of is not None and all(path.is_file() for path in composed.backgrounds):
            parts = made_of(pairs, count)
            if prepared.made_of | parts == prepared.made_of:
                same = _as_written(folder, prepared, files)
                return replace(files, composition=composed.fingerprint() if same else "")
        return composed

    def _files(self, split: str, folder: Path, count: int) -> MattingFiles | None:
        """Return the composites that lie in a folder, None where not all of them do."""
        merged = folder / "merged"
        there = set(image_names(merged)) if merged.is_dir() else set()
        names = [(f"{item.name}_{k}", item) for item in self.objects(split) for k in range(count)]
        if not there or not names or not all(f"{name}.png" in there for name, _ in names):
            return None
        triples = [
            Triple(name, item.name, merged / f"{name}.png", item.alpha, self.trimap(name, item)) for name, item in names
        ]
        return MattingFiles(split, self.name, triples, self.rule)

    def _given_trimap(self, pair: Pair, folder: Path, prepared: Prepared) -> Path | None:
        """Return a composite's trimap; None where one is to be made, or was made when the folder was prepared."""
        path = self.trimap(pair.name, pair.foreground)
        ours = (prepared.made_of or {}).get("trimaps") == self.rule
        if path and ours and path.parent == folder / "trimaps" and f"trimaps/{path.name}" in prepared.files:
            return None
        return path

    def recipe(self, split: str, output: Path | None = None) -> Recipe:
        """Return what ``indexnet data prepare`` writes for a split.

        Args:
            split: ``"train"`` or ``"test"``.
            output: folder to write to; None: where the data set finds it later.

        Raises:
            NoSplitError: backgrounds are drawn, and a folder that changes has no fixed composites.
            UserError: files are missing, or backgrounds are too few.
        """
        if not self.paired:
            raise NoSplitError(f"data={self.name} composes on the fly what its folders hold: nothing to write.")
        foregrounds = self.chosen(split)
        pairs = self.pairs(split, foregrounds)
        folder = (output or self.root) / self.folders[split]
        given = [self.trimap(pair.name, pair.foreground) for pair in pairs] if split == "test" else []
        copies: dict[Path, Path] = {}
        if output is not None:
            for item in self.objects(split):
                for path, place in zip((item.colour, item.alpha), self.parts, strict=True):
                    copies[path] = folder / place / f"{item.name}{path.suffix}"
            copies |= {path: folder / "trimaps" / path.name for path in given if path}
        # those of an earlier command that was stopped lie in its own folder
        make = split == "test" and not any(path and path.parent != folder / "trimaps" for path in given)
        return Recipe(
            foregrounds=foregrounds,
            backgrounds=[pair.background for pair in pairs],
            per_foreground=self.count(split),
            folder=folder,
            copies=list(copies.items()),
            trimap=TrimapsByNumber(self.rule, [pair.name for pair in pairs]) if make else None,
        )


def _as_written(folder: Path, prepared: Prepared, files: MattingFiles) -> bool:
    """Return whether composites and trimaps still have the sizes that their manifest notes."""
    paths = [path for triple in files.triples for path in (triple.image, triple.trimap) if path]
    noted = {folder / file: nbytes for file, (nbytes, _) in prepared.files.items()}
    return all(path.stat().st_size == noted[path] for path in paths if path in noted)
