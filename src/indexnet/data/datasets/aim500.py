"""``aim500``: 500 photographs with mattes; as a test set, or divided and composed over COCO to train on as well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from indexnet.core.errors import UserError
from indexnet.core.registry import unknown_name
from indexnet.data.base import DataInfo, Dataset, NoSplitError, check_choice, check_count, register_data
from indexnet.data.io.cache import Cache
from indexnet.data.matting.file_lists import find_images, image_names, read_lines, standard_places
from indexnet.data.matting.foregrounds import Foreground, pair_foregrounds
from indexnet.data.matting.photographs import MattingFiles, Triple
from indexnet.data.matting.test_composites import ComposedData


@register_data
class Aim500(ComposedData):
    """500 photographs of people, animals, plants, transparent and other things, with mattes and trimaps.

    As a test set, which it was made for, samples are the photographs. With ``composites`` it is the open substitute for
    Composition-1k of IndexNet's MindSpore port: 450 of the photographs serve as foregrounds to train on, composed over
    96 photographs of COCO each, the other 50 over 20 each to test on; no background is used twice. Which photographs
    are held out was not published: a permutation by ``seed`` says, or ``test_names``.

    Args:
        root: folder with ``original``, ``mask`` and ``trimap``.
        task: ``"matting"``.
        size: side of a training sample in pixels.
        composites: whether samples are composites.
        pipeline: the training pipeline: ``"dim"``, ``"mmediting"`` or ``"gca"``.
        per_foreground: training composites of each foreground.
        test_per_foreground: test composites of each foreground.
        test_count: photographs that are held out for tests.
        test_names: file that lists those instead, a name a line.
        seed: of the permutations of photographs and backgrounds.
        backgrounds: folders of COCO's train2014, or files that list photographs; None: ``train2014`` in or beside ROOT.
        foreground: ``"photograph"``: colours of a foreground are those of its photograph, as in the port, so that the
            old background shines through mixed pixels; ``"estimated"``: they are estimated.
        foregrounds: folder of colours that were estimated before, ``NAME.png``.
        cache: whether decoded foregrounds are kept: ``"auto"`` (where memory allows), True, False, or a folder for
            them.
        damaged: what a training file that cannot be read does: ``"refuse"`` ends the run, ``"skip"`` takes another.

    Raises:
        UserError: an option's value is impossible.
    """

    info = DataInfo(
        name="aim500",
        title="AIM-500",
        tasks=("matting",),
        source="Li et al., Deep automatic natural image matting, IJCAI 2021; MIT release agreement; COCO beneath",
        layout="ROOT/original/NAME.jpg, ROOT/mask/NAME.png, ROOT/trimap/NAME.png; with composites=true also "
        "ROOT/train2014/*.jpg",
    )
    folders: ClassVar[dict[str, str]] = {"train": "train", "test": "validation"}
    parts: ClassVar[tuple[str, str]] = ("original", "mask")
    as_they_are: ClassVar[str] = "photograph"

    def __init__(
        self,
        root: str,
        task: str = "matting",
        size: int = 320,
        composites: bool = False,
        pipeline: str = "dim",
        per_foreground: int = 96,
        test_per_foreground: int = 20,
        test_count: int = 50,
        test_names: str | None = None,
        seed: int = 0,
        backgrounds: str | Sequence[str] | None = None,
        foreground: str = "photograph",
        foregrounds: str | None = None,
        cache: Cache = "auto",
        damaged: str = "refuse",
    ) -> None:
        super().__init__(
            root=root,
            task=task,
            size=size,
            pipeline=pipeline,
            per_foreground=per_foreground,
            test_per_foreground=test_per_foreground,
            backgrounds=backgrounds,
            foreground=foreground,
            foregrounds=foregrounds,
            cache=cache,
            damaged=damaged,
        )
        check_choice("data.composites", composites, (True, False))
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UserError(f"data.seed must be a whole number, at least 0; got {seed!r}.")
        self.composites, self.seed = composites, seed
        self.test_count = check_count("data.test_count", test_count)
        self.test_names = None if test_names is None else Path(test_names)

    def train(self) -> Dataset:
        """Return the training composites.

        Raises:
            NoSplitError: ``composites`` is off.
        """
        if not self.composites:
            raise NoSplitError(
                "data set 'aim500' is for testing only; data.composites=true trains on composites of 450 of its "
                "photographs over COCO and tests on those of the other 50."
            )
        return super().train()

    def test(self) -> Dataset:
        """Return the photographs, or the test composites."""
        if self.composites:
            return super().test()
        original, mask = (self.root / part for part in self.parts)
        triples = [
            Triple(item.name, item.name, item.colour, item.alpha, self.root / "trimap" / f"{item.name}.png")
            for item in pair_foregrounds(original, mask)
        ]
        return MattingFiles("test", self.name, triples)

    def objects(self, split: str) -> list[Foreground]:
        """Return the photographs of a split, by name."""
        self._check_composites()
        if not (self.root / self.parts[1]).is_dir():  # prepared in another folder, and divided there
            own = self.root / self.folders[split]
            found = pair_foregrounds(own / self.parts[0], own / self.parts[1])
            self._check_apart(split, found)
            return found
        found = pair_foregrounds(self.root / self.parts[0], self.root / self.parts[1])
        held = self._held_out([item.name for item in found])
        return [item for item in found if (item.name in held) == (split == "test")]

    def _check_apart(self, split: str, found: Sequence[Foreground]) -> None:
        """Refuse a photograph that serves both splits.

        Raises:
            UserError: one does.
        """
        other = self.root / self.folders["train" if split == "test" else "test"] / self.parts[1]
        names = {Path(name).stem for name in image_names(other)} if other.is_dir() else set()
        for item in found:
            if item.name in names:
                raise UserError(
                    f"{item.alpha} serves the other split as well, see {other}: prepare both with one data.seed, "
                    "data.test_count and data.test_names."
                )

    def _held_out(self, names: Sequence[str]) -> set[str]:
        if self.test_names is not None:
            listed = read_lines(self.test_names, "the photographs to test on")
            for name in listed:
                if Path(name).stem not in names:
                    raise unknown_name(f"photograph in {self.test_names}", name, names[:5])
            return {Path(name).stem for name in listed}
        if len(names) <= self.test_count:
            raise UserError(
                f"{self.root / self.parts[1]} holds {len(names)} mattes; holding out {self.test_count} of them leaves "
                "none to train on: set data.test_count."
            )
        order = np.random.default_rng(self.seed).permutation(len(names))
        return {names[i] for i in order[: self.test_count]}

    def backgrounds(self, split: str) -> list[Path]:
        """Return the photographs behind a split's composites: of one permutation, training's from the front, tests'
        from the end."""  # noqa: D209
        places = self.places["train"] or standard_places(self.root, "train", self.name)
        files = find_images(places, self.place_options["train"])
        order = np.random.default_rng(self.seed).permutation(len(files))
        counts = {name: len(self.objects(name)) * self.count(name) for name in ("train", "test")}
        if len(files) < sum(counts.values()):
            raise UserError(
                f"data=aim500 needs {sum(counts.values())} backgrounds, each for one composite ({counts['train']} to "
                f"train on, {counts['test']} to test on), but there are {len(files)}; add more or set "
                "data.per_foreground."
            )
        chosen = order[: counts["train"]] if split == "train" else order[::-1][: counts["test"]]
        return [files[i] for i in chosen]

    def trimap(self, pair_name: str, foreground: Foreground) -> Path | None:
        """Return the photograph's own trimap, where it is there."""
        path = foreground.alpha.parent.parent / "trimap" / f"{foreground.name}.png"
        return path if path.is_file() else super().trimap(pair_name, foreground)

    def _check_composites(self) -> None:
        if not self.composites:
            raise NoSplitError("data=aim500 has composites with data.composites=true only.")
