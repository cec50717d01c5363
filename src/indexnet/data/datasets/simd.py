"""``simd``: foregrounds in 20 classes of matting patterns, with a published list of test composites."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, Dataset, NoSplitError, register_data
from indexnet.data.io.file_lists import find_named, read_numbered_lines
from indexnet.data.io.names import is_file, list_named, sample_name
from indexnet.data.matting.composite_data import CompositeData, CompositeOptions
from indexnet.data.matting.compositing import Pair
from indexnet.data.matting.foregrounds import Foreground
from indexnet.data.matting.outputs import Batch
from indexnet.data.matting.photographs import MattingFiles, Triple
from indexnet.data.matting.test_composites import FixedComposites

#: The classes of matting patterns: folders of the data set.
PATTERNS = (
    *("defocus", "fire", "fur", "glass_ice", "hair_easy", "hair_hard", "insect", "motion", "net", "plant_flower"),
    *("plant_leaf", "plant_tree", "plastic_bag", "sharp", "smoke_cloud", "spider_web", "texture_holed"),
    *("texture_smooth", "water_drop", "water_spray"),
)
_LIST = "SIMD_composition_test_filelist.txt"
_LONGEST, _SHORTEST = 1920, 800


class _Line(NamedTuple):
    """A line of the list of test composites."""

    pattern: str
    foreground: str
    background: str


@register_data
class SIMD(CompositeData):
    """736 foregrounds to train on, 89 over 10 photographs of PASCAL VOC each to test on.

    What the test list names is for testing, the other foregrounds are for training, over COCO by the rule of
    Composition-1k. Test composites are read where the data set's own script has written them, ``CLASS/merged``,
    ``CLASS/alpha`` and ``CLASS/trimap``. Otherwise they are made on the fly: foregrounds scaled to at most 1920 and at
    least 800 pixels (Lanczos), composed by the rule of Composition-1k, both sides of the trimap eroded by 5 pixels;
    they differ from the script's where a background is enlarged, which the script does with another interpolation.
    """

    info = DataInfo(
        name="simd",
        title="SIMD, 20 classes of matting patterns",
        tasks=("matting", "portrait"),
        source="Sun et al., Semantic image matting, CVPR 2021; for research; COCO and PASCAL VOC beneath",
        layout=f"ROOT/CLASS/fg/NAME, ROOT/CLASS/alpha/NAME for 20 classes (defocus ... water_spray), ROOT/{_LIST}; "
        "ROOT/train2014/*.jpg, ROOT/VOCdevkit/VOC2012/JPEGImages/*.jpg",
    )
    rule: ClassVar[str] = "fixed"

    @dataclass(frozen=True)
    class Options(CompositeOptions):
        """Options.

        Attributes:
            test_root: folder that the data set's script has written to; None: ROOT.
            test_list: the list of test composites, ``CLASS:FOREGROUND:BACKGROUND`` a line; None:
                ``ROOT/SIMD_composition_test_filelist.txt``.
        """

        test_per_foreground: int = field(default=1, init=False)
        test_root: str | None = None
        test_list: str | None = None

    options: Options

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        own, listed = self.options.test_root, self.options.test_list
        self.test_root = self.root if own is None else Path(own)
        self.test_list = self.root / _LIST if listed is None else Path(listed)

    def lines(self) -> list[_Line]:
        """Return the list of test composites.

        Raises:
            UserError: it is missing, or has a line of another form.
        """
        found = []
        for number, line in read_numbered_lines(self.test_list, "the test composites"):
            words = line.split(":")
            if len(words) != 3 or words[0] not in PATTERNS:
                raise UserError(
                    f"{self.test_list}, line {number}: CLASS:FOREGROUND:BACKGROUND with one of the 20 classes was "
                    f"expected, found {line!r}."
                )
            found.append(_Line(*words))
        return found

    def foregrounds(self, split: str) -> list[Foreground]:
        """Return the split's foregrounds, by class and name; their names are ``CLASS_NAME``."""
        tested = dict.fromkeys((line.pattern, line.foreground) for line in self.lines())
        if split == "test":
            places = [(pattern, self.root / pattern / "fg" / name) for pattern, name in tested]
            return [self._find(pattern, self.finder.find_image(place) or place) for pattern, place in places]
        # whatever their endings in the list: composites are named by stems too
        held = {(pattern, Path(name).stem) for pattern, name in tested}
        found = (self.finder.find_image(self.root / pattern / "fg" / name) for pattern, name in tested)
        tested_files = {path for path in found if path}  # names may be written otherwise, as é in two ways
        folders = {pattern: self.root / pattern / "fg" for pattern in PATTERNS}
        if not any(os.path.isdir(folder) for folder in folders.values()):
            raise UserError(f"{self.root} holds none of the 20 classes of data=simd, such as {PATTERNS[0]}/fg.")
        return [
            self._find(pattern, path)
            for pattern, folder in folders.items()
            if os.path.isdir(folder)
            for path in list_named(folder)
            if (pattern, path.stem) not in held and path not in tested_files
        ]

    def _find(self, pattern: str, path: Path) -> Foreground:
        """Return the foreground of a file of colours; the matte has its name, but perhaps for the ending."""
        places = [path.parents[1] / "alpha" / name for name in (path.name, f"{path.stem}.png")]
        alpha = next((place for place in places if is_file(place)), None) or self.finder.find_image(places[0])
        return Foreground(f"{pattern}_{sample_name(path)}", path, alpha or places[0])

    def backgrounds(self, split: str) -> list[Path]:
        """Return the training split's photographs by name, the test split's as listed."""
        if split == "train":
            return super().backgrounds(split)
        names = [line.background for line in self.lines()]
        return find_named(names, self.find_places(split), self.test_list, self.place_options[split])

    def test(self) -> Dataset:
        lines = self.lines()
        triples = []
        for pattern, foreground, background in lines:
            file = f"{Path(foreground).stem}_{Path(background).stem}.png"
            image, alpha, trimap = (self.test_root / pattern / part / file for part in ("merged", "alpha", "trimap"))
            group = f"{pattern}_{Path(foreground).stem}"
            triples.append(Triple(f"{pattern}_{Path(file).stem}", group, image, alpha, trimap))
        if all(is_file(triple.image) for triple in triples):
            return MattingFiles("test", self.name, triples, self.rule)
        by_name = {item.name: item for item in self.chosen_foregrounds("test")}
        pairs = [
            Pair(triple.name, by_name[triple.group], path)
            for triple, path in zip(triples, self.backgrounds("test"), strict=True)
        ]
        sides = (_LONGEST, _SHORTEST)
        return FixedComposites("test", self.name, pairs, [None] * len(pairs), self.rule, self.cache, sides)

    def batch(self, split: str, output: Path | None = None) -> Batch:
        """Return what ``indexnet data prepare`` writes for the training split.

        Raises:
            NoSplitError: the test split is asked for.
            UserError: files are missing, or backgrounds are too few.
        """
        if split != "train":
            raise NoSplitError("the test composites of data=simd are not made by the rule of Composition-1k.")
        return super().batch(split, output)
