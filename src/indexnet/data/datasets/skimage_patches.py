"""``photos``: patches of the photographs that ship with scikit-image; the embedded data of image reconstruction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from indexnet.core.errors import UserError
from indexnet.data.base import (
    Data,
    DataInfo,
    Dataset,
    Sample,
    UInt8,
    check_choice,
    check_count,
    check_size,
    digest,
    planes,
    register_data,
)
from indexnet.data.io import skimage_photographs

_FLAT = 0.02 * 255  # standard deviation under which a patch shows nothing but a black or empty area
_TRIES = 8
_TEST_SEED = 2019


@dataclass
class PhotoPatches(Dataset):
    """Square patches of one split's skimage_photographs.

    A patch: a photograph (all equally likely), a place in it (uniform), drawn again, up to 8 times, while the patch is
    flat (standard deviation below 0.02 of the range: sky, the black round an eye). Training patches come from the
    caller's generator and are mirrored with probability 1/2; patches of the other split depend on their index alone.

    Args:
        split: ``"train"`` or ``"test"``.
        size: side of a patch in pixels.
        channels: 1 for luma, 3 for RGB (colour photographs only).
        count: number of samples.
        files: the photographs; empty: all of the split.
    """

    split: str
    size: int
    channels: int
    count: int
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.files = self.files or skimage_photographs.names(self.split, colour_only=self.channels == 3)
        smallest = min(min(self._photograph(name).shape[:2]) for name in self.files)
        if self.size > smallest:
            raise UserError(
                f"data.size={self.size} is larger than the smallest photograph of the {self.split} split, "
                f"{smallest} pixels; take patches of at most that."
            )

    def _photograph(self, name: str) -> UInt8:
        return skimage_photographs.load(name, self.channels, longest=800)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        self._check_index(index)
        return f"patch-{index:05d}"

    def groups(self) -> Mapping[str, int]:
        """Return the photographs with an equal share of the samples each: a sample's own is drawn when it is made."""
        size, more = divmod(self.count, len(self.files))
        return {file: size + (k < more) for k, file in enumerate(self.files)}

    def subset(self, groups: Collection[str]) -> PhotoPatches:
        """Return the share of the samples, of these photographs alone; at least one."""
        shares = {file: count for file, count in self.groups().items() if file in groups}
        return replace(self, files=tuple(shares), count=max(1, sum(shares.values())))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (channels, size, size) in [0, 1] and ``name``."""
        name = self.name(index)
        training = self.split == "train"
        patch = self._patch(rng if training else np.random.default_rng((_TEST_SEED, index)))
        if training and rng.random() < 0.5:
            patch = patch[:, ::-1]
        return {"image": planes(patch), "name": name}

    def _patch(self, rng: np.random.Generator) -> UInt8:
        for _ in range(_TRIES):
            photograph = self._photograph(self.files[rng.integers(len(self.files))])
            top = rng.integers(photograph.shape[0] - self.size + 1)
            left = rng.integers(photograph.shape[1] - self.size + 1)
            patch = photograph[top : top + self.size, left : left + self.size]
            if cv2.meanStdDev(patch)[1].max() > _FLAT:
                break
        return patch

    def fingerprint(self) -> str:
        """SHA-256 over the parameters and the photographs' names and byte sizes."""
        return digest("photos", self.split, self.size, self.channels, self.count, skimage_photographs.sizes(self.files))


@register_data
class Photos(Data):
    """Patches of the photographs that ship with scikit-image; no photograph serves both training and test.

    Args:
        task: ``"reconstruction"`` or ``"denoising"``; both get the clean patch.
        size: side of a patch in pixels.
        channels: 1 (luma of all skimage_photographs) or 3 (the colour ones).
        train_count: samples that make one epoch; every epoch draws new patches.
        test_count: number of test patches, always the same ones.

    Raises:
        UserError: an option's value is impossible.
    """

    info = DataInfo(
        name="photos",
        title="Patches of scikit-image's photographs",
        tasks=("reconstruction", "denoising"),
        source="photographs shipped inside the scikit-image package (terms: its data/README.txt)",
    )

    def __init__(
        self,
        task: str = "reconstruction",
        size: int = 32,
        channels: int = 1,
        train_count: int = 12800,
        test_count: int = 256,
    ) -> None:
        super().__init__(task)
        check_choice("data.channels", channels, (1, 3))
        self.size, self.channels = check_size("data.size", size), channels
        self.train_count = check_count("data.train_count", train_count)
        self.test_count = check_count("data.test_count", test_count)

    def train(self) -> PhotoPatches:
        return PhotoPatches("train", self.size, self.channels, self.train_count)

    def test(self) -> PhotoPatches:
        return PhotoPatches("test", self.size, self.channels, self.test_count)
