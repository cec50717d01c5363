"""``aim500``: 500 photographs with mattes; as a test set, or divided and composed over COCO to train on as well."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from indexnet.core.errors import UserError
from indexnet.core.registry import unknown_name
from indexnet.data.base import DataInfo, Dataset, NoSplitError, check_choice, check_count, check_seed, register_data
from indexnet.data.io.file_lists import read_lines
from indexnet.data.io.images import image_names
from indexnet.data.io.names import Names, printable, sample_name
from indexnet.data.matting.composite_data import CompositeData, CompositeOptions
from indexnet.data.matting.foregrounds import Foreground, pair_foregrounds
from indexnet.data.matting.outputs import Batch, list_output
from indexnet.data.matting.photographs import MattingFiles, Triple


@register_data
class Aim500(CompositeData):
    """500 photographs of people, animals, plants, transparent and other things, with mattes and trimaps.

    As a test set, which it was made for, samples are the photographs. With ``composites`` it is the open substitute for
    Composition-1k of IndexNet's MindSpore port: 450 of the photographs serve as foregrounds to train on, composed over
    96 photographs of COCO each, the other 50 over 20 each to test on; no background is used twice. Which photographs
    are held out was not published: a permutation by ``seed`` says, or ``test_names``.

    ROOT holds ``original``, ``mask`` and ``trimap``. Colours of a foreground are those of its photograph
    (``foreground="photograph"``), as in the port, so that the old background shines through mixed pixels, or estimated.
    """

    info = DataInfo(
        name="aim500",
        title="AIM-500",
        tasks=("matting", "portrait"),
        source="Li et al., Deep automatic natural image matting, IJCAI 2021; MIT release agreement; COCO beneath",
        layout="ROOT/original/NAME.jpg, ROOT/mask/NAME.png, ROOT/trimap/NAME.png; with composites=true also "
        "ROOT/train2014/*.jpg",
    )
    folders: ClassVar[dict[str, str]] = {"train": "train", "test": "validation"}
    parts: ClassVar[tuple[str, str]] = ("original", "mask")

    @dataclass(frozen=True)
    class Options(CompositeOptions):
        """Options.

        Attributes:
            composites: whether samples are composites.
            test_count: photographs that are held out for tests.
            test_names: file that lists those instead, a name a line.
            seed: of the permutations of photographs and backgrounds.
        """

        per_foreground: int = 96
        test_backgrounds: None = field(default=None, init=False)
        foreground: str = "photograph"
        composites: bool = False
        test_count: int = 50
        test_names: str | None = None
        seed: int = 0

    options: Options

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        check_choice("data.composites", self.options.composites, (True, False))
        check_seed("data.seed", self.options.seed)
        check_count("data.test_count", self.options.test_count)

    def train(self) -> Dataset:
        if not self.options.composites:
            raise NoSplitError(
                "data set 'aim500' is for testing only; data.composites=true trains on composites of 450 of its "
                "photographs over COCO and tests on those of the other 50."
            )
        return super().train()

    def test(self) -> Dataset:
        if self.options.composites:
            return super().test()
        triples = []
        for item in self._pairs_in(self.root):
            trimap = self.root / "trimap" / f"{item.alpha.stem}.png"
            found = self.finder.find_image(trimap) or trimap
            triples.append(Triple(item.name, item.name, item.colour, item.alpha, found))
        return MattingFiles("test", self.name, triples)

    def foregrounds(self, split: str) -> list[Foreground]:
        if not self.options.composites:
            raise NoSplitError("data=aim500 has composites with data.composites=true only.")
        if not os.path.isdir(self.root / self.parts[1]):  # prepared in another folder, and divided there
            found = self._pairs_in(self.folder(split))
            self._check_apart(split, found)
            return found
        found = self._pairs_in(self.root)
        held = self._held_out([item.name for item in found])
        return [item for item in found if (item.name in held) == (split == "test")]

    def _pairs_in(self, folder: Path) -> list[Foreground]:
        return pair_foregrounds(folder / self.parts[0], folder / self.parts[1])

    def _check_apart(self, split: str, found: Sequence[Foreground]) -> None:
        """Refuse a photograph that serves both splits.

        Raises:
            UserError: one does.
        """
        other = self.folder("train" if split == "test" else "test") / self.parts[1]
        names = {sample_name(Path(name)) for name in image_names(other)} if other.is_dir() else set()
        for item in found:
            if item.name in names:
                raise UserError(
                    f"{item.alpha} serves the other split as well, see {other}: prepare both with one data.seed, "
                    "data.test_count and data.test_names."
                )

    def _held_out(self, names: Sequence[str]) -> set[str]:
        count = self.options.test_count
        if self.options.test_names is not None:
            path = Path(self.options.test_names)
            listed = read_lines(path, "the photographs to test on")
            there = Names(map(Path, names), str)
            for name in listed:
                if there.find(Path(name).stem) is None:
                    raise unknown_name(f"photograph in {path}", name, names[:5])
            return {str(there.find(Path(name).stem)) for name in listed}
        if len(names) <= count:
            raise UserError(
                f"{self.root / self.parts[1]} holds {len(names)} mattes; holding out {count} of them leaves none to "
                "train on: set data.test_count."
            )
        order = np.random.default_rng(self.options.seed).permutation(len(names))
        return {names[i] for i in order[:count]}

    def backgrounds(self, split: str) -> list[Path]:
        """Return a split's photographs, of one permutation: training's from the front, tests' from the end."""
        files = super().backgrounds("train")
        order = np.random.default_rng(self.options.seed).permutation(len(files))
        counts = {name: len(self.foregrounds(name)) * self.count(name) for name in ("train", "test")}
        if len(files) < sum(counts.values()):
            raise UserError(
                f"data=aim500 needs {sum(counts.values())} backgrounds, each for one composite ({counts['train']} to "
                f"train on, {counts['test']} to test on), but there are {len(files)}; add more or set "
                "data.per_foreground."
            )
        chosen = order[: counts["train"]] if split == "train" else order[::-1][: counts["test"]]
        return [files[i] for i in chosen]

    def batch(self, split: str, output: Path | None = None) -> Batch:
        """Add ``data.txt``, as the port's script does: composite, matte and photograph in the folder, and background.

        What a line of the port's own file holds was not published; here it is these four, separated by tabs.
        """
        found = super().batch(split, output)
        inside = output is not None  # else photographs lie beside the folder
        lines = []
        for pair in self.pairs(split, self.foregrounds(split)):
            item = pair.foreground
            files = [item.alpha, item.colour]
            if inside:
                places = zip(("mask", "original"), files, strict=True)
                files = [found.folder / place / f"{item.name}{file.suffix}" for place, file in places]
            written = [found.folder / "merged" / f"{pair.name}.png", *files, pair.background]
            lines.append("\t".join(printable(os.path.relpath(file, found.folder)) for file in written))
        return replace(found, outputs=[*found.outputs, list_output("data.txt", lines)])

    def trimap(self, pair_name: str, foreground: Foreground) -> Path | None:
        path = foreground.alpha.parent.parent / "trimap" / f"{foreground.alpha.stem}.png"
        return self.finder.find(path) or super().trimap(pair_name, foreground)
