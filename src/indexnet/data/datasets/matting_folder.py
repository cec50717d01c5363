"""``matting_folder``: a person's own foregrounds with mattes, composed over a person's own photographs."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, Dataset, check_choice, register_data
from indexnet.data.io.file_lists import find_images, hold_out
from indexnet.data.io.names import name_bytes
from indexnet.data.matting.composite_data import CompositeData, CompositeOptions
from indexnet.data.matting.compositing import Pair
from indexnet.data.matting.foregrounds import Foreground, pair_foregrounds


@register_data
class MattingFolder(CompositeData):
    """Foregrounds, mattes and backgrounds in folders.

    Where there are folders ``train`` and ``test`` (and ``validation``, if that is wanted), each holds ``fg``, ``alpha``
    and ``bg``. Otherwise about a tenth of the foregrounds and a tenth of the backgrounds, chosen by a hash of their
    names, are held out for testing, and with ``validation`` another tenth for that.

    A training sample draws its background. The composites of a test are fixed: backgrounds are dealt in an order that
    follows from their names, again from the first when all are used; no foreground gets one twice.

    A file ``trimap/NAME.png`` beside the folder of mattes is the trimap of a test foreground. Backgrounds lie in ``bg``
    where no option says otherwise; those of a split without such a folder are a tenth of those to train on.
    """

    validation_remedy = "give data.validation=true, or a folder validation beside those named train and test"
    info = DataInfo(
        name="matting_folder",
        title="A folder of foregrounds, mattes and backgrounds",
        tasks=("matting", "portrait"),
        source="your own",
        layout="ROOT/fg/NAME.png (or .jpg), ROOT/alpha/NAME.png, ROOT/bg/*.jpg; or the three under ROOT/train and "
        "ROOT/test each",
    )
    folders: ClassVar[dict[str, str]] = {"train": "train", "validation": "validation", "test": "test"}
    paired: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Options(CompositeOptions):
        """Options.

        Test composites of a foreground are fewer than ``test_per_foreground`` where there are fewer backgrounds.

        Attributes:
            validation: whether another tenth is held out for it where there are no folders for the splits.
        """

        test_per_foreground: int = 10
        validation: bool = False

    options: Options

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        check_choice("data.validation", self.options.validation, (True, False))
        self._backgrounds: dict[str, list[Path]] = {}

    @property
    def divided(self) -> bool:
        """Whether the splits have folders of their own."""
        return any(os.path.isdir(self.root / folder / self.parts[1]) for folder in self.folders.values())

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split."""
        return os.path.isdir(self.folder("validation")) if self.divided else self.options.validation

    def foregrounds(self, split: str) -> list[Foreground]:
        folder = self.folder(split) if self.divided else self.root
        if not os.path.isdir(folder) and self.divided:
            raise UserError(
                f"{folder} does not exist, but a folder of another split does; put fg, alpha and bg of the {split} "
                f"split there, or those of all into {self.root}, and a tenth is held out."
            )
        found = pair_foregrounds(folder / self.parts[0], folder / self.parts[1])
        if self.divided:
            return found
        splits = ["test", "validation"] if self.options.validation else ["test"]
        kept, *held = hold_out([item.name for item in found], f"{folder / self.parts[0]}", len(splits))
        names = set(dict(zip(splits, held, strict=True)).get(split, kept))
        return [item for item in found if item.name in names]

    def backgrounds(self, split: str) -> list[Path]:
        """Return the split's photographs, for tests in the order in which they are dealt; looked for once."""
        if split not in self._backgrounds:
            files = self._find_backgrounds(split)
            if split != "train":
                files = sorted(files, key=lambda path: (zlib.crc32(name_bytes(path.name)), path))
            self._backgrounds[split] = files
        return self._backgrounds[split]

    def _find_backgrounds(self, split: str) -> list[Path]:
        if split != "train" and (test := self.places["test"]):
            return find_images(test, self.place_options["test"])
        train = self.places["train"]
        own = self.folder(split) / "bg"
        if self.divided and (not train or (split != "train" and os.path.isdir(own))):
            return find_images([own], self.place_options["train" if split == "train" else "test"])
        places = train or (self.root / "bg",)
        files = find_images(places, self.place_options["train"])
        sharing = [name for name in ("test", "validation") if self._shares_backgrounds(name)]
        if not sharing:
            return files
        kept, *held = hold_out(files, ", ".join(map(str, places)), len(sharing))
        return dict(zip(sharing, held, strict=True)).get(split, kept)

    def _shares_backgrounds(self, split: str) -> bool:
        """Return whether a part of the training split's backgrounds is held out for a split."""
        if self.places["test"] or (split == "validation" and not self.has_validation):
            return False
        return not (self.divided and os.path.isdir(self.folder(split) / "bg"))

    def count(self, split: str) -> int:
        """Return the number of composites of each foreground; fixed ones are no more than there are backgrounds."""
        wanted = super().count(split)
        return wanted if split == "train" else min(wanted, len(self.backgrounds(split)))

    def pairs(self, split: str, foregrounds: Sequence[Foreground]) -> list[Pair]:
        """Return which foreground is composed over which background; backgrounds are used again when they run out."""
        files = self.backgrounds(split)
        count = self.count(split)
        return [
            Pair(f"{item.name}_{k}", item, files[(f * count + k) % len(files)])
            for f, item in enumerate(foregrounds)
            for k in range(count)
        ]

    def trimap(self, pair_name: str, foreground: Foreground) -> Path | None:
        path = foreground.alpha.parent.parent / "trimap" / f"{foreground.alpha.stem}.png"
        return self.finder.find(path) or super().trimap(pair_name, foreground)

    def validation(self) -> Dataset | None:
        return self._split("validation") if self.has_validation else None
