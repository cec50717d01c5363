"""Images with mattes and trimaps as files, and trimaps for those that have none."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from indexnet.core.errors import UserError
from indexnet.data.base import Sample, UInt8, digest, planes
from indexnet.data.files import Listed, check_names, check_one_size
from indexnet.data.io.images import file_sizes, read_alpha, read_image, read_trimap
from indexnet.data.io.names import is_file
from indexnet.data.io.trimaps import eroded_trimap, quantise, trimap_from_alpha

_TRIMAP = 0x7217  # first word of the keys of random streams


def generate_trimap(rule: str, name: str, alpha: UInt8) -> UInt8:
    """Make a test image's trimap, always the same for the same name and matte.

    Args:
        rule: ``"dilated"``: the mixed pixels, dilated by 1..19 pixels as in the released code
            (:func:`~indexnet.data.io.trimaps.trimap_from_alpha`); ``"eroded"``: opaque and clear pixels, each eroded by
            an ellipse of 1..29 pixels as in GCA; ``"fixed"``: both eroded five times by a cross of 3 pixels, as in the
            script that makes the test set of SIMD.
        name: of the image; what is drawn is drawn from it.
        alpha: (H, W), uint8.

    Returns:
        uint8 (H, W) in {0, 128, 255}.
    """
    rng = np.random.default_rng((_TRIMAP, zlib.crc32(name.encode())))
    if rule == "dilated":
        return trimap_from_alpha(alpha, int(rng.integers(1, 20)))
    if rule == "eroded":
        return eroded_trimap(alpha, int(rng.integers(1, 30)), int(rng.integers(1, 30)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    trimap = np.full(alpha.shape, 128, np.uint8)
    trimap[cv2.erode(alpha, kernel, iterations=5) == 255] = 255
    trimap[cv2.dilate(alpha, kernel, iterations=5) == 0] = 0
    return trimap


class Triple(NamedTuple):
    """An image, its matte (None where nobody has published it) and its trimap (None: one is made)."""

    name: str
    group: str
    image: Path
    alpha: Path | None
    trimap: Path | None


@dataclass
class MattingFiles(Listed):
    """Images with mattes and trimaps, for testing; sizes may differ from sample to sample.

    Args:
        split: ``"test"`` or ``"validation"``.
        title: name of the data set.
        triples: the files; each has a matte or a trimap.
        rule: how missing trimaps are made, see :func:`generate_trimap`.
        variant: what else tells these files from others of the same names, such as a set of trimaps.
        composition: the fingerprint of the composites that these files are, where that is known.

    Raises:
        UserError: a file is missing, or two images have one name.
    """

    split: str
    title: str
    triples: Sequence[Triple] = field(repr=False)
    rule: str = "dilated"
    variant: str = ""
    composition: str = ""

    def __post_init__(self) -> None:
        for triple in self.triples:
            for path in _files(triple):
                if not is_file(path):
                    raise UserError(f"{path} is missing: data={self.title} needs it for the image {triple.name}.")
        self.names, self.scenes = [t.name for t in self.triples], [t.group for t in self.triples]
        check_names(self.title, "images", self.names)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (3, H, W), ``trimap`` (1, H, W), ``name``, and ``alpha`` (1, H, W) where there is one.

        Raises:
            UserError: a file cannot be read, they differ in size, or the trimap has other values than 0, 128, 255.
        """
        name = self.name(index)
        _, _, image_path, alpha_path, trimap_path = self.triples[index]
        image = read_image(image_path)
        sample: Sample = {"image": planes(image), "name": name}
        if alpha_path:
            alpha = read_alpha(alpha_path)
            check_one_size(alpha_path, alpha.shape, image_path, image.shape)
            sample["alpha"] = torch.from_numpy(alpha)[None]
        if trimap_path:
            trimap, _ = read_trimap(trimap_path, strict=True)
            check_one_size(trimap_path, trimap.shape, image_path, image.shape)
        else:
            assert alpha_path is not None
            trimap = generate_trimap(self.rule, name, quantise(alpha))
        sample["trimap"] = planes(trimap)
        return sample

    def image_files(self, index: int) -> tuple[Path, ...]:
        self._check_index(index)
        return tuple(_files(self.triples[index]))

    def fingerprint(self) -> str:
        """SHA-256 over the files' names and byte sizes, and the rule of the trimaps that are made.

        Files that are known to be certain composites have the fingerprint of those.
        """
        if self.composition:
            return self.composition
        made = self.rule if any(triple.trimap is None for triple in self.triples) else ""
        files = [file_sizes(_files(triple)) for triple in self.triples]
        return digest(self.title, self.split, self.variant, made, self.names, files)


def _files(triple: Triple) -> list[Path]:
    return [path for path in triple[2:] if path]
