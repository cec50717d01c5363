"""``segmentation_folder``: a person's own photographs with label maps, of numbers or of colours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from indexnet.core.annotations import fits
from indexnet.core.conventions import IGNORE
from indexnet.core.errors import UserError
from indexnet.core.registry import unknown_name
from indexnet.data.base import DataInfo, Dataset, check_choice, register_data
from indexnet.data.io.class_lists import Classes, Colour, parse_classes, read_classes
from indexnet.data.io.file_lists import hold_out, read_numbered_lines
from indexnet.data.io.names import FileFinder, is_file
from indexnet.data.segmentation import (
    Code,
    Pair,
    SegmentationData,
    SegmentationOptions,
    listed_pair,
    matched_pairs,
)

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
_CLASS_FILES = ("classes.txt", "classes.csv", "label_colors.txt", "class_dict.csv", "labelmap.txt")


@register_data
class SegmentationFolder(SegmentationData):
    """Photographs and label maps in two folders, paired by name, whatever their endings.

    Splits are told by lists, ROOT/train.txt, val.txt and test.txt, with a name a line, or an image and its label map;
    or by folders of their names in the two, or around them. Without either about a tenth, chosen by a hash of the name,
    is for testing, and with ``validation`` another tenth for that.

    Label maps hold numbers (gray or palette images), from ``first`` on in the order of the classes, or colours where
    the classes have colours. 255 counts for nothing among numbers.
    """

    validation_remedy = "give data.validation=true, or a list or folder of the name val beside that of train"
    info = DataInfo(
        name="segmentation_folder",
        title="A folder of photographs with label maps",
        tasks=("segmentation",),
        source="your own",
        layout="ROOT/images/NAME.jpg, ROOT/labels/NAME.png, ROOT/classes.txt (a class a line, with r g b where label "
        "maps are coloured); splits: lists ROOT/train.txt, val.txt, test.txt, or folders images/train and labels/train "
        "or train/images and train/labels; else a tenth is held out for testing",
    )
    first: ClassVar[int] = 0

    @dataclass(frozen=True)
    class Options(SegmentationOptions):
        """Options.

        Attributes:
            classes: names in the order of their numbers; a mapping of names to colours, as ``{sky: [128, 128, 128]}``;
                a file of either, below ``root`` or elsewhere, with a line a class; None: ROOT/classes.txt, or a file
                classes.csv, label_colors.txt, class_dict.csv or labelmap.txt.
            void: classes by name, or numbers in the files, that count for nothing, and are no classes then.
            first: number of the first class in the files.
            images: folder of the photographs.
            labels: folder of the label maps.
            label_ending: what the names of label maps have behind those of their images, such as ``_L``.
            validation: whether a tenth is held out for it where there are neither lists nor folders for the splits.
        """

        classes: Any = None
        void: str | int | Sequence[str | int] = ()
        first: int = 0
        images: str = "images"
        labels: str = "labels"
        label_ending: str = ""
        validation: bool = False

    options: Options

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        given = self.options
        for option in ("images", "labels", "label_ending"):
            text = getattr(given, option)
            if not isinstance(text, str) or not (text or option == "label_ending"):
                raise UserError(f"data.{option} must be text; got {text!r}.")
        check_choice("data.validation", given.validation, (True, False))
        if not fits(given.first, int) or not 0 <= given.first <= 254:
            raise UserError(f"data.first must be a whole number from 0 to 254; got {given.first!r}.")
        self.images, self.labels, self.ending = given.images, given.labels, given.label_ending
        self.held_out, self.first_number, self.void_given = given.validation, given.first, _check_void(given.void)
        classes = given.classes
        self.given = classes if classes is None or isinstance(classes, str) else parse_classes(classes)

    @cached_property
    def listed(self) -> Classes:
        """All classes that the option or the file names.

        Raises:
            UserError: there is no such file, or it is no such list.
        """
        if isinstance(self.given, str):
            places = [self.root / self.given]
        elif self.given is None:
            places = [self.root / name for name in _CLASS_FILES]
        else:
            return self.given
        return read_classes(next((place for place in places if is_file(place)), places[0]), self.first_number)

    @cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the classes that count.

        Raises:
            UserError: see :attr:`listed`; or ``void`` names a class that is not there, or all of them.
        """
        names = {name: place if colour is None else name for place, (name, colour) in self._numbered()}
        for name in self.void_given:
            if isinstance(name, str) and name not in names:
                raise unknown_name("class in data.void", name, list(names))
        if not (kept := tuple(name for name, place in names.items() if not {name, place} & set(self.void_given))):
            raise UserError("data.void names all classes; none is left.")
        return kept

    def _numbered(self) -> Iterable[tuple[int, tuple[str, Colour | None]]]:
        return enumerate(self.listed, self.first_number)

    def codes(self) -> Sequence[tuple[Code, int]]:
        """Return what label maps write for each class: a colour where classes have one, else a number.

        Raises:
            UserError: see :attr:`classes`; or a number is above 254.
        """
        numbers = {name: number for number, name in enumerate(self.classes)}
        found: list[tuple[Code, int]] = []
        for place, (name, colour) in self._numbered():
            found.append((place if colour is None else colour, numbers.get(name, IGNORE)))
            if colour is None and place >= IGNORE:
                raise UserError(
                    f"data.first={self.first_number} gives the class {name!r} the number {place}; 254 is the last one."
                )
        coloured = any(colour is not None for _, colour in self.listed)
        for number in self.void_given:
            if isinstance(number, int):
                if coloured:
                    raise UserError(
                        f"data.void={number} is a number, but label maps have colours; give a class's name."
                    )
                found.append((number, IGNORE))
        return found

    def _listed_in(self, split: str) -> Path | None:
        places = (self.root / f"{name}.txt" for name in _SPLITS[split])
        return next((place for place in places if is_file(place)), None)

    def _folders(self, split: str) -> tuple[Path, Path] | None:
        for name in _SPLITS[split]:
            for images, labels in (
                (self.root / self.images / name, self.root / self.labels / name),
                (self.root / name / self.images, self.root / name / self.labels),
            ):
                if os.path.isdir(images) or os.path.isdir(labels):
                    return images, labels
        return None

    def _has(self, split: str) -> bool:
        if any(map(self._listed_in, _SPLITS)):
            return self._listed_in(split) is not None
        if any(map(self._folders, _SPLITS)):
            return self._folders(split) is not None
        return split != "validation" or self.held_out

    def pairs(self, split: str) -> list[Pair]:
        """Return the files of a split, in the order of its list, or by name."""
        if any(map(self._listed_in, _SPLITS)):
            return self._from_list(self._listed_in(split) or self.root / f"{split}.txt")
        if any(map(self._folders, _SPLITS)):
            if (folders := self._folders(split)) is None:
                raise UserError(
                    f"{self.root / self.images / split} does not exist, though another split has a folder; name a "
                    f"folder of images so, or list the splits in {self.root / 'train.txt'}, {split}.txt and so on."
                )
            images, labels = folders
            return matched_pairs(images, labels, self.ending)
        pairs = matched_pairs(self.root / self.images, self.root / self.labels, self.ending)
        splits = ["test", "validation"] if self.held_out else ["test"]
        kept, *held = hold_out([pair.image for pair in pairs], f"{self.root / self.images}", len(splits))
        chosen = set(dict(zip(splits, held, strict=True)).get(split, kept))
        return [pair for pair in pairs if pair.image in chosen]

    def _from_list(self, listed: Path) -> list[Pair]:
        """Return the files that a list names: below the two folders by one name, or both below ROOT.

        Raises:
            UserError: there is no such list, or it names a file that is not there.
        """
        lines = read_numbered_lines(listed, "a split's images, or images and label maps")
        finder, pairs = FileFinder(), []
        folder, labels = self.root / self.images, self.root / self.labels
        for number, line in lines:
            found = listed_pair(self.root, finder, line)
            if found is None or not all(map(is_file, found)):  # it may be one name with spaces
                named = finder.find_image(folder / f"{line.lstrip('/')}.*")  # a name without its ending
                image = named or finder.find_below(folder, line) or finder.find_below(self.root, line)
                if image is not None:
                    base = folder if image.is_relative_to(folder) else self.root
                    label = labels / image.relative_to(base).with_name(f"{image.stem}{self.ending}.png")
                    found = Pair(image, finder.find_image(label) or label)
            if found is None:
                raise UserError(f"{listed}, line {number}: {folder} holds no image of the name {line!r}.")
            pairs.append(found)
        return pairs

    def validation(self) -> Dataset | None:
        return self._split("validation") if self._has("validation") else None


def _check_void(void: Any) -> tuple[str | int, ...]:
    """Return the option ``data.void``.

    Raises:
        UserError: it is no name or number, and no list of them.
    """
    listed = [void] if isinstance(void, str | int) else void
    if not fits(listed, list[str | int]) or not all(isinstance(each, str) or 0 <= each <= 255 for each in listed):
        raise UserError(f"data.void must be names of classes, or numbers from 0 to 255; got {void!r}.")
    return tuple(listed)
