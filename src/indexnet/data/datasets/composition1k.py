"""``composition1k``: Adobe's Deep Image Matting data, Composition-1k, as shipped or flattened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, check_choice, register_data
from indexnet.data.io.file_lists import find_images, find_named, read_lines, read_numbered_lines, standard_places
from indexnet.data.io.images import list_images
from indexnet.data.io.names import is_file, sample_name
from indexnet.data.matting.composite_data import CompositeData, CompositeOptions
from indexnet.data.matting.foregrounds import Foreground, pair_foregrounds

_SHIPPED = "Combined_Dataset"
_SOURCES = ("Adobe-licensed images", "Other", "")  # folders within a split, the last for the flattened layout
_PREFIX = {"train": "training", "test": "test"}


@register_data
class Composition1k(CompositeData):
    """431 foregrounds over 100 photographs of COCO each to train on; 50 over 20 of PASCAL VOC each to test on.

    Two layouts are read, and recognised by their files. As shipped: ``Combined_Dataset/Training_set/Adobe-licensed
    images/{fg,alpha}``, ``Other/{fg,alpha}``, ``Test_set/Adobe-licensed images/{fg,alpha,trimaps}``, with
    ``training_fg_names.txt``, ``training_bg_names.txt``, ``test_fg_names.txt`` and ``test_bg_names.txt`` beside them.
    Flattened, as in the released code: ``Training_set/{fg,alpha}``, ``Test_set/{fg,alpha,merged,trimaps}``, with the
    released code's ``train.txt`` and ``test.txt`` in ``ROOT/lists``, where they are there. Without any list,
    foregrounds and backgrounds are taken by name.

    ``train2014`` may also lie in ``Training_set``. PASCAL VOC is not needed where ``Test_set/merged`` holds the
    composites.
    """

    info = DataInfo(
        name="composition1k",
        title="Adobe Composition-1k",
        tasks=("matting", "portrait"),
        source="Xu et al., Deep image matting, CVPR 2017; from its authors, for research; COCO and PASCAL VOC beneath",
        layout="ROOT/Combined_Dataset/Training_set/{Adobe-licensed images,Other}/{fg,alpha}, "
        "ROOT/Combined_Dataset/Test_set/Adobe-licensed images/{fg,alpha,trimaps} and their *_names.txt; or "
        "ROOT/Training_set/{fg,alpha}, ROOT/Test_set/{fg,alpha,merged,trimaps}; ROOT/train2014/*.jpg",
    )

    @dataclass(frozen=True)
    class Options(CompositeOptions):
        """Options.

        Attributes:
            lists: folder of ``train.txt`` and ``test.txt``; None: ``ROOT/lists``.
            train_on: ``"train"``; or ``"all"``: all 481 foregrounds, as for what is sent to alphamatting.com. Tests are
                the same, and their numbers say nothing then.
        """

        lists: str | None = None
        train_on: str = "train"

    options: Options

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        check_choice("data.train_on", self.options.train_on, ("train", "all"))
        if os.path.isdir(self.root / _SHIPPED):
            self.root = self.root / _SHIPPED

    def foregrounds(self, split: str) -> list[Foreground]:
        """Return the split's foregrounds in the order of its list, or by name where there is none.

        With ``train_on="all"`` those of the test split come after those of the training split.
        """
        found = self._of(split)
        return found + self._of("test") if split == "train" and self.options.train_on == "all" else found

    def _of(self, split: str) -> list[Foreground]:
        folder = self.folder(split)
        if not os.path.isdir(folder):
            raise UserError(f"{folder} does not exist; data=composition1k has its {split} split there.")
        names = folder / f"{_PREFIX[split]}_fg_names.txt"
        if os.path.isfile(names):
            return [self._find(folder, name, names) for name in dict.fromkeys(read_lines(names, "foregrounds"))]
        if (path := self._list(split)) is not None:
            mattes = dict.fromkeys(words[1] for words in self._lines(path))
            return [self._find(folder, Path(matte).name, path) for matte in mattes]
        parts = [folder / source for source in _SOURCES if os.path.isdir(folder / source / "alpha")]
        if not parts:
            raise UserError(
                f"{folder} has neither alpha nor {_SOURCES[0]}/alpha; put the mattes of data=composition1k there."
            )
        found = []
        for part in parts:
            if os.path.isdir(part / "fg"):
                found += pair_foregrounds(part / "fg", part / "alpha")
            else:  # composites and mattes only, which is enough to test
                found += [
                    Foreground(sample_name(path), part / "fg" / path.name, path) for path in list_images(part / "alpha")
                ]
        return found

    def _find(self, folder: Path, name: str, listed_by: Path) -> Foreground:
        """Find a listed foreground: the matte has its name, the colours the same but perhaps for the ending."""
        stem = Path(name).stem
        for source in _SOURCES:
            alpha = self.finder.find(folder / source / "alpha" / name)
            if alpha is not None:
                endings = (alpha.suffix, ".jpg", ".png", ".jpeg")
                places = [folder / source / "fg" / f"{stem}{ending}" for ending in endings]
                colour = next((place for place in places if is_file(place)), None)
                return Foreground(stem, colour or self.finder.find_image(places[0]) or places[0], alpha)
        raise UserError(f"the alpha of {name}, listed in {listed_by}, is missing below {folder}; put it there.")

    def _list(self, split: str) -> Path | None:
        """Return the released code's list of a split, where there is one."""
        if self.options.lists is not None:
            return Path(self.options.lists) / f"{split}.txt"
        path = self.root / "lists" / f"{split}.txt"
        return path if os.path.isfile(path) else None

    def _lines(self, path: Path) -> list[list[str]]:
        """Return the lines of a list: composite, matte, and trimap; or composite, matte, foreground, background."""
        found = []
        for number, line in read_numbered_lines(path, "composites and their parts"):
            words = line.split("\t")
            if len(words) < 3:
                raise UserError(
                    f"{path}, line {number}: a composite, its alpha and more, separated by tabs, were expected; found "
                    f"{line!r}."
                )
            found.append(words)
        return found

    def backgrounds(self, split: str) -> list[Path]:
        """Return the split's photographs in the order of its list, or by name where there is none."""
        places = self.find_places(split)
        names = self.folder(split) / f"{_PREFIX[split]}_bg_names.txt"
        if os.path.isfile(names):
            return find_named(read_lines(names, "backgrounds"), places, names, self.place_options[split])
        path = self._list(split)
        named = os.path.isfile(names.parent / f"{_PREFIX[split]}_fg_names.txt")
        if split == "train" and path is not None and not named:
            return self._listed_backgrounds(path, places)
        return find_images(places, self.place_options[split])

    def _listed_backgrounds(self, path: Path, places: Sequence[Path]) -> list[Path]:
        """Return the backgrounds of a released training list, each foreground's in the order of its composites."""
        by_matte: dict[str, list[tuple[int, str]]] = {}
        for words in self._lines(path):
            number = Path(words[0]).stem.rpartition("_")[2]
            if len(words) < 4 or not number.isdigit():
                raise UserError(f"{path} must list NAME_NUMBER.png, alpha, foreground and background, tab-separated.")
            by_matte.setdefault(words[1], []).append((int(number), Path(words[3]).name))
        for matte, found in by_matte.items():
            if len(found) != self.per_foreground:
                raise UserError(
                    f"{path} has {len(found)} composites of {matte}; set data.per_foreground to the number that every "
                    "foreground has."
                )
        names = [name for found in by_matte.values() for _, name in sorted(found)]
        return find_named(names, places, path, self.place_options["train"])

    def find_places(self, split: str) -> tuple[Path, ...]:
        return self.places[split] or standard_places(self.root, split, self.name, self.folder(split))

    def lists(self, split: str, output: Path) -> dict[Path, Path]:
        names = [f"{_PREFIX[split]}_{part}_names.txt" for part in ("fg", "bg")]
        lists = {self.folder(split) / name: output / self.folders[split] / name for name in names}
        if (path := self._list(split)) is not None:
            lists[path] = output / "lists" / path.name
        return {source: destination for source, destination in lists.items() if os.path.isfile(source)}

    def trimap(self, pair_name: str, foreground: Foreground) -> Path | None:
        """Return the trimap of a test composite as shipped, or from the flattened layout; None where none is there."""
        shipped = foreground.alpha.parent.parent / "trimaps" / f"{pair_name}.png"
        return self.finder.find(shipped) or super().trimap(pair_name, foreground)
