"""``matting_folder``: a person's own foregrounds with mattes, composed over a person's own photographs."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, Dataset, check_choice, register_data
from indexnet.data.io.cache import Cache
from indexnet.data.matting.compositing import Pair
from indexnet.data.matting.file_lists import find_images, hold_out
from indexnet.data.matting.foregrounds import Foreground, pair_foregrounds
from indexnet.data.matting.test_composites import ComposedData


@register_data
class MattingFolder(ComposedData):
    """Foregrounds, mattes and backgrounds in folders.

    Where there are folders ``train`` and ``test`` (and ``validation``, if that is wanted), each holds ``fg``, ``alpha``
    and ``bg``. Otherwise about a tenth of the foregrounds and a tenth of the backgrounds, chosen by a hash of their
    names, are held out for testing, and with ``validation`` another tenth for that.

    A training sample draws its background. The composites of a test are fixed: backgrounds are dealt in an order that
    follows from their names, again from the first when all are used; no foreground gets one twice.

    Args:
        root: folder with ``fg``, ``alpha`` and ``bg``, or with folders that hold those. A file ``trimap/NAME.png``
            beside them is the trimap of a test foreground.
        task: ``"matting"``.
        size: side of a training sample in pixels.
        pipeline: the training pipeline: ``"dim"``, ``"mmediting"`` or ``"gca"``.
        per_foreground: training samples of each foreground in one epoch.
        test_per_foreground: test composites of each foreground; fewer where there are fewer backgrounds.
        backgrounds: folders of the photographs behind training composites, or files that list them; None: ``bg``.
        test_backgrounds: the same for tests and validation; None: ``bg`` in the folder of the split, where it has one,
            or a tenth each of the photographs that are there for training.
        foreground: ``"colours"``: ``fg`` holds the foregrounds' colours; ``"estimated"``: it holds the photographs that
            the mattes were made for, and the colours are estimated.
        foregrounds: folder of colours that were estimated before, ``NAME.png``.
        validation: whether a tenth is held out for validation, where there are no folders for the splits.
        cache: whether decoded foregrounds are kept: ``"auto"`` (where memory allows), True, False, or a folder for
            them.
        damaged: what a training file that cannot be read does: ``"refuse"`` ends the run, ``"skip"`` takes another.

    Raises:
        UserError: an option's value is impossible.
    """

    validation_remedy = "give data.validation=true, or a folder validation beside those named train and test"
    info = DataInfo(
        name="matting_folder",
        title="A folder of foregrounds, mattes and backgrounds",
        tasks=("matting",),
        source="your own",
        layout="ROOT/fg/NAME.png (or .jpg), ROOT/alpha/NAME.png, ROOT/bg/*.jpg; or the three under ROOT/train and "
        "ROOT/test each",
    )
    folders: ClassVar[dict[str, str]] = {"train": "train", "validation": "validation", "test": "test"}
    paired: ClassVar[bool] = False

    def __init__(
        self,
        root: str,
        task: str = "matting",
        size: int = 320,
        pipeline: str = "dim",
        per_foreground: int = 100,
        test_per_foreground: int = 10,
        backgrounds: str | Sequence[str] | None = None,
        test_backgrounds: str | Sequence[str] | None = None,
        foreground: str = "colours",
        foregrounds: str | None = None,
        validation: bool = False,
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
            test_backgrounds=test_backgrounds,
            foreground=foreground,
            foregrounds=foregrounds,
            cache=cache,
            damaged=damaged,
        )
        check_choice("data.validation", validation, (True, False))
        self.holds_validation = validation
        self._backgrounds: dict[str, list[Path]] = {}

    @property
    def divided(self) -> bool:
        """Whether the splits have folders of their own."""
        return any((self.root / folder / self.parts[1]).is_dir() for folder in self.folders.values())

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split."""
        return (self.root / self.folders["validation"]).is_dir() if self.divided else self.holds_validation

    def objects(self, split: str) -> list[Foreground]:
        """Return the split's foregrounds, by name."""
        if self.divided:
            folder = self.root / self.folders[split]
            if not folder.is_dir():
                raise UserError(
                    f"{folder} does not exist, but a folder of another split does; put fg, alpha and bg of the {split} "
                    f"split there, or those of all into {self.root}, and a tenth is held out."
                )
        else:
            folder = self.root
        found = pair_foregrounds(folder / self.parts[0], folder / self.parts[1])
        if self.divided:
            return found
        splits = ["test", "validation"] if self.holds_validation else ["test"]
        kept, *held = hold_out([item.name for item in found], f"{folder / self.parts[0]}", len(splits))
        names = set(dict(zip(splits, held, strict=True)).get(split, kept))
        return [item for item in found if item.name in names]

    def backgrounds(self, split: str) -> list[Path]:
        """Return the split's photographs, for tests in the order in which they are dealt; looked for once."""
        if split not in self._backgrounds:
            files = self._find_backgrounds(split)
            if split != "train":
                files = sorted(files, key=lambda path: (zlib.crc32(path.name.encode()), path))
            self._backgrounds[split] = files
        return self._backgrounds[split]

    def _find_backgrounds(self, split: str) -> list[Path]:
        if split != "train" and (test := self.places["test"]):
            return find_images(test, self.place_options["test"])
        train = self.places["train"]
        own = self.root / self.folders[split] / "bg"
        if self.divided and (not train or (split != "train" and own.is_dir())):
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
        return not (self.divided and (self.root / self.folders[split] / "bg").is_dir())

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
        """Return ``trimap/NAME.png`` of a test foreground, where there is one."""
        path = foreground.alpha.parent.parent / "trimap" / f"{foreground.name}.png"
        return path if path.is_file() else super().trimap(pair_name, foreground)

    def validation(self) -> Dataset | None:
        """Return the validation composites, or None where nothing is held out for validation."""
        return self.still("validation") if self.has_validation else None
