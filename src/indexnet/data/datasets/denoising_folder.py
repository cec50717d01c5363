"""``denoising_folder``: a person's own clean photographs, and test sets of one's own such as Set5 and Set14."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.data.base import Data, DataInfo, Dataset, check_choice, check_count, check_size, register_data
from indexnet.data.denoising import CleanImages, CleanPatches, check_scales
from indexnet.data.io.cache import Cache, check_cache
from indexnet.data.io.images import any_images
from indexnet.data.io.names import printable

_VALIDATION = ("validation", "val")


@register_data
class DenoisingFolder(Data):
    """Photographs in folders, gray or in colour, cut into patches to train on and whole to test on.

    Files of 16 bits keep them. Each folder of test photographs is a split of its own, called as the folder is. A folder
    ROOT/validation or ROOT/val, where there is one, is the validation split.

    Args:
        root: folder with the others.
        task: ``"denoising"`` or ``"reconstruction"``; both get the clean patch.
        size: side of a training patch in pixels.
        stride: from one training patch to the next, in pixels.
        scales: at which the training photographs are cut into patches; each in (0, 1].
        channels: 1: gray, colours become luma; 3: colour.
        train: folder of the training photographs, below ``root``.
        tests: folders of test photographs below ``root``, such as ``["Set5", "Set14"]``, or one of them; None: those in
            ROOT/test, or ROOT/test itself where it has none.
        cache: whether the photographs are decoded once and kept: ``"auto"`` (where memory allows), True or False.

    Raises:
        UserError: an option's value is impossible.
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

    def __init__(
        self,
        root: str,
        task: str = "denoising",
        size: int = 40,
        stride: int = 10,
        scales: Sequence[float] = (1.0,),
        channels: int = 1,
        train: str = "train",
        tests: str | Sequence[str] | None = None,
        cache: Cache = "auto",
    ) -> None:
        super().__init__(task)
        check_choice("data.channels", channels, (1, 3))
        if not isinstance(train, str) or not train:
            raise UserError(f"data.train must be a folder below data.root; got {train!r}.")
        self.root, self.size, self.channels = Path(root), check_size("data.size", size), channels
        self.stride, self.scales = check_count("data.stride", stride), check_scales(scales)
        self.train_folder, self.test_folders = self.root / train, _check_tests(tests)
        self.cache = check_cache(cache)

    def train(self) -> CleanPatches:
        return CleanPatches(
            self.name, "train", self.train_folder, self.size, self.stride, self.scales, self.cache, self.channels, True
        )

    def validation(self) -> Dataset | None:
        found = [self.root / name for name in _VALIDATION if os.path.isdir(self.root / name)]
        return self._whole("validation", found[0]) if found else None

    def test(self) -> Dataset:
        return next(iter(self.tests().values()))

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

    def _whole(self, split: str, folder: Path) -> CleanImages:
        return CleanImages(self.name, split, folder, self.cache, self.channels, deep=True)


def _check_tests(tests: Any) -> tuple[str, ...] | None:
    """Return the option ``data.tests``.

    Raises:
        UserError: it is no folder's name and no list of them, or two have one name.
    """
    if tests is None:
        return None
    listed = [tests] if isinstance(tests, str) else tests
    good = isinstance(listed, Sequence) and all(isinstance(each, str) and Path(each).name for each in listed)
    if not good or not listed or len({Path(each).name for each in listed}) < len(listed):
        raise UserError(
            f"data.tests must be folders below data.root of different names, as [Set5, Set14]; got {tests!r}."
        )
    return tuple(listed)
