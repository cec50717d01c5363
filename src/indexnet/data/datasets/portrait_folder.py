"""``portrait_folder``: a person's own portraits with mattes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, Dataset, check_choice, register_data
from indexnet.data.io.file_lists import hold_out
from indexnet.data.portraits import Portrait, PortraitData, PortraitOptions, paired

_SPLITS = ("train", "validation", "test")


@register_data
class PortraitFolder(PortraitData):
    """Photographs and mattes in two folders, paired by name.

    Where there are folders ``train`` and ``test`` (and ``validation``, if that is wanted), each holds ``images`` and
    ``mattes``. Otherwise about a tenth of the photographs, chosen by a hash of their names, is held out for testing,
    and with ``validation`` another tenth for that. A folder ``trimaps`` beside ``mattes`` holds the trimaps of test
    photographs, where there are no folders for the splits those of all photographs; without it they are made.
    """

    validation_remedy = "give data.validation=true, or a folder validation beside those named train and test"
    info = DataInfo(
        name="portrait_folder",
        title="A folder of portraits and mattes",
        tasks=("portrait", "matting"),
        source="your own",
        layout="ROOT/images/NAME.jpg (or .png), ROOT/mattes/NAME.png; or both under ROOT/train and ROOT/test each",
    )

    @dataclass(frozen=True)
    class Options(PortraitOptions):
        """Options.

        Attributes:
            validation: whether another tenth is held out for it where there are no folders for the splits.
        """

        validation: bool = False

    options: Options
    names: ClassVar[tuple[str, str, str]] = ("images", "mattes", "trimaps")

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        check_choice("data.validation", self.options.validation, (True, False))

    def _divided(self) -> bool:
        return any(os.path.isdir(self.root / split) for split in _SPLITS)

    def portraits(self, split: str) -> list[Portrait]:
        if self._divided():
            return self._in(self.root / split, split)
        found = self._in(self.root, "test")
        splits = ["test", "validation"] if self.options.validation else ["test"]
        kept, *held = hold_out([each.image for each in found], str(self.root / self.names[0]), len(splits))
        chosen = set(dict(zip(splits, held, strict=True)).get(split, kept))
        return [each for each in found if each.image in chosen]

    def _in(self, folder: Path, split: str) -> list[Portrait]:
        images, mattes, trimaps = (folder / name for name in self.names)
        if not os.path.isdir(images):
            raise UserError(f"{images} does not exist; data=portrait_folder needs {self.info.layout}.")
        return paired(images, mattes, trimaps if split != "train" and os.path.isdir(trimaps) else None)

    def validation(self) -> Dataset | None:
        there = os.path.isdir(self.root / "validation") if self._divided() else self.options.validation
        return self._split("validation") if there else None
