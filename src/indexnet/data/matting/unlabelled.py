"""Photographs with trimaps and without alpha, to train on with pseudo labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.core.files import sha256_file
from indexnet.data.base import Dataset, UInt8, check_size
from indexnet.data.files import check_one_size
from indexnet.data.io.images import file_sizes, list_images, read_image, read_trimap
from indexnet.data.io.names import FileFinder
from indexnet.data.matting.pipelines.base import Targets
from indexnet.data.matting.pipelines.transforms import Between, corner_around, cropped, mirrored, resized
from indexnet.data.matting.test_composites import FixedComposites

_SCALES = (1, 1.5, 2)  # of the crop
PARTS = ("fg", "trimap")
"""The folders of photographs and of trimaps."""


class Photograph(NamedTuple):
    """A photograph and its trimap."""

    image: Path
    trimap: Path


@dataclass(frozen=True)
class Unlabelled:
    """Photographs of a folder, ``fg/NAME.jpg`` (or another image) with ``trimap/NAME.png``.

    Args:
        photographs: those of :func:`find_photographs`.
        share: of all training samples that are to be of these.
        size: side of the samples in pixels.
    """

    photographs: Sequence[Photograph]
    share: float
    size: int

    def sample(self, rng: np.random.Generator) -> tuple[str, dict[str, Tensor]]:
        """Return the name and the tensors of a crop, all that is random drawn from ``rng``.

        The crop has 1, 1.5 or 2 times the side of a sample, as far as it fits, around an unknown pixel; it is mirrored
        with probability 1/2. ``alpha`` is the trimap, ``fg``, ``bg`` and ``augmented`` are the image, ``pseudo`` is
        true; ``composed`` and ``labelled`` are false.

        Raises:
            UserError: a file is damaged, or the two differ in size.
        """
        image, trimap, name = self._read(int(rng.integers(len(self.photographs))))
        shortest = min(trimap.shape)
        whole = Targets(image, trimap, trimap, trimap, trimap)  # what is no file's own follows below
        if shortest < self.size:
            zoom = self.size / shortest
            height, width = (max(self.size, round(side * zoom)) for side in trimap.shape)
            whole = resized(whole, (height, width))
        side = min(int(self.size * rng.choice(_SCALES)), min(whole.trimap.shape))
        crop = cropped(whole, *corner_around(Between(whole.trimap, 128, 128), side, 0, rng), side)
        crop = resized(crop, (self.size, self.size))
        crop = mirrored(crop) if rng.integers(2) else crop
        found = crop._replace(alpha=crop.trimap, fg=crop.image, bg=crop.image).tensors()
        found |= {"composed": torch.tensor(False), "augmented": found["image"], "pseudo": torch.tensor(True)}
        return f"unlabelled/{name}", found | {"labelled": torch.tensor(False)}

    def _read(self, number: int) -> tuple[UInt8, UInt8, str]:
        image, trimap = self.photographs[number]
        colour, (known, _) = read_image(image), read_trimap(trimap, strict=True)
        check_one_size(trimap, known.shape, image, colour.shape)
        return colour, known, image.stem

    def parameters(self) -> list[object]:
        """Return what tells these photographs from others: names and byte sizes, share."""
        return [self.share, file_sizes([each.image for each in self.photographs])]


def find_photographs(folder: Path) -> list[Photograph]:
    """Return the photographs of a folder with their trimaps, by name.

    Raises:
        UserError: there is none, or one has no trimap.
    """
    images = list_images(folder / PARTS[0])
    finder = FileFinder()
    found = []
    for image in images:
        wanted = folder / PARTS[1] / f"{image.stem}.png"
        trimap = finder.find(wanted)
        if trimap is None:
            raise UserError(f"{wanted} is missing; data.unlabelled needs a trimap for {image}.")
        found.append(Photograph(image, trimap))
    return found


def refuse_tests(photographs: Iterable[Photograph], test: Dataset) -> None:
    """Refuse photographs whose file is the same, byte for byte, as an image that a test split is made of.

    Of a split whose samples have no files of their own, only fixed composites are looked at.

    Raises:
        UserError: one is.
    """
    sizes: dict[int, list[Path]] = {}
    for path in _files(test):
        sizes.setdefault(path.stat().st_size, []).append(path)
    for photograph in photographs:
        alike = sizes.get(photograph.image.stat().st_size, [])
        content = sha256_file(photograph.image) if alike else ""
        for path in alike:
            if sha256_file(path) == content:
                raise UserError(
                    f"{photograph.image} is the test image {path}, and a network is not trained on what it is tested "
                    "on; take it out of the folder of data.unlabelled."
                )


def _files(test: Dataset) -> list[Path]:
    if isinstance(test, FixedComposites):
        return list(dict.fromkeys([*(item.colour for item in test.foregrounds), *test.backgrounds]))
    return [path for index in range(len(test)) for path in test.image_files(index)[:1]]


def create_unlabelled(folder: Path, share: float, size: int) -> Unlabelled:
    """Build the samples of a folder.

    Raises:
        UserError: the folder holds no photographs with trimaps, or the share is none.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise UserError(f"data.unlabelled_share={share!r} must be a share between 0 and 1.")
    return Unlabelled(find_photographs(folder), share, check_size("training.size", size))
