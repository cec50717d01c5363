"""``denoising_folder``: a person's own clean photographs, and test sets of one's own such as Set5 and Set14."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexnet.core.annotations import fits
from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, Dataset, check_choice, register_data
from indexnet.data.denoising import CleanData, CleanOptions
from indexnet.data.io.images import any_images
from indexnet.data.io.names import printable

_VALIDATION = ("validation", "val")


@register_data
class DenoisingFolder(CleanData):
    """Photographs in folders, gray or in colour, cut into patches to train on and whole to test on.

    Files of 16 bits keep them. Each folder of test photographs is a split of its own, called as the folder is. A folder
    ROOT/validation or ROOT/val, where there is one, is the validation split.
    """

    validation_remedy = "put photographs into ROOT/validation"
    info = DataInfo(
        name="denoising_folder",
        title="Folders of clean photographs",
        tasks=("denoising", "reconstruction"),
        source="your own",
        layout="ROOT/train/*.png, ROOT/test/Set5/*.png, ROOT/test/Set14/*.png ..., or ROOT/test/*.png; "
        "ROOT/validation/*.png where there is one",
    )

    deep = True

    @dataclass(frozen=True)
    class Options(CleanOptions):
        """Options.

        Attributes:
            channels: 1: gray, colours become luma; 3: colour.
            train: folder of the training photographs, below ``root``.
            tests: folders of test photographs below ``root``, such as ``["Set5", "Set14"]``, or one of them; None:
                those in ROOT/test, or ROOT/test itself where it has none.
        """

        channels: int = 1
        train: str = "train"
        tests: str | Sequence[str] | None = None

    options: Options

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        given = self.options
        check_choice("data.channels", given.channels, (1, 3))
        if not isinstance(given.train, str) or not given.train:
            raise UserError(f"data.train must be a folder below data.root; got {given.train!r}.")
        self.channels, self.test_folders = given.channels, _check_tests(given.tests)

    def train_folder(self) -> Path:
        return self.root / self.options.train

    def validation(self) -> Dataset | None:
        found = [self.root / name for name in _VALIDATION if os.path.isdir(self.root / name)]
        return self._whole("validation", found[0]) if found else None

    def tests(self) -> dict[str, Dataset]:
        """Return the test splits by the names of their folders; one without a name where ROOT/test holds images."""
        if self.test_folders is not None:
            folders = [self.root / folder for folder in self.test_folders]
            return {printable(folder.name): self._whole("test", folder) for folder in folders}
        own = self.root / "test"
        within = own.iterdir() if os.path.isdir(own) else ()
        there = sorted(path for path in within if path.name[0] != "." and os.path.isdir(path))
        folders = [path for path in there if any_images(path)]
        loose = any_images(own)
        for path in there:
            deeper = [] if path in folders else [each for each in path.rglob("[!.]*") if any_images(each)]
            if deeper:
                raise UserError(
                    f"{path} holds images in folders of its own only, such as {deeper[0]}; name all folders to test on "
                    f"in data.tests, as [{deeper[0].relative_to(self.root)}]."
                )
        if folders and loose:
            raise UserError(
                f"{own} holds both images ({loose[0]}) and folders of images ({folders[0].name}); name those to "
                "test on in data.tests."
            )
        return {printable(folder.name): self._whole("test", folder) for folder in folders} or {
            "": self._whole("test", own)
        }


def _check_tests(tests: Any) -> tuple[str, ...] | None:
    """Return the option ``data.tests``.

    Raises:
        UserError: it is no folder's name and no list of them, or two have one name.
    """
    if tests is None:
        return None
    listed = [tests] if isinstance(tests, str) else tests
    names = {Path(each).name for each in listed} if fits(listed, list[str]) else set()
    if not names or "" in names or len(names) < len(listed):
        raise UserError(
            f"data.tests must be folders below data.root of different names, as [Set5, Set14]; got {tests!r}."
        )
    return tuple(listed)
