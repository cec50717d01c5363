"""What data sets of clean photographs share, to which a task adds noise: patches to train on, whole images to test."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from indexnet.core.annotations import fits
from indexnet.core.errors import UserError
from indexnet.data.base import Dataset, Sample, Subset, UInt8, check_count, digest, planes
from indexnet.data.files import FileData, FileOptions, Listed
from indexnet.data.io.cache import Arrays, Cache, Store
from indexnet.data.io.decoding import camera_orientation, image_size, is_deep
from indexnet.data.io.gray import check_wide
from indexnet.data.io.images import file_sizes, is_gray, read_gray, read_image
from indexnet.data.io.names import list_named, sample_name

_SMALLEST = 11  # the window of SSIM, pixels
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

Pixels = UInt8 | npt.NDArray[np.uint16]


def read_clean(path: Path, channels: int) -> Pixels:
    """Read a photograph with all the bits that it has.

    Args:
        path: the file.
        channels: 1: luma (ITU-R BT.601), a gray photograph as it is; 3: RGB, a gray one three times.

    Returns:
        uint8 or uint16, (H, W) or (H, W, 3).

    Raises:
        UserError: it cannot be read as an image; or has 16 bits, and no value above 255, or a note to turn it.
    """
    if not is_deep(path):
        return read_gray(path) if channels == 1 else read_image(path)
    if camera_orientation(path) != 1:
        raise UserError(f"{path} has 16 bits and a note to turn it; save it upright.")
    try:
        how = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        decoded = cv2.imdecode(np.fromfile(path, np.uint8), how)  # Pillow keeps 8 bits of colours
    except (OSError, cv2.error):
        decoded = None
    if decoded is None or decoded.dtype != np.uint16:
        raise UserError(f"{path} cannot be read as an image of 16 bits; replace or remove it.")
    colours = check_wide(path, np.asarray(decoded[..., ::-1], np.uint16))
    if channels == 3:
        return np.ascontiguousarray(colours)
    if is_gray(colours):
        return np.ascontiguousarray(colours[..., 0])
    return np.round(colours @ _LUMA).astype(np.uint16)


@dataclass
class CleanFiles(Dataset):
    """A folder's photographs.

    Args:
        title: name of the data set.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        folder: of the photographs.
        cache: see :class:`~indexnet.data.io.cache.Store`.
        channels: 1: gray; 3: colour.
        deep: whether files of 16 bits keep them; otherwise they are rounded to 8.
    """

    title: str
    split: str
    folder: Path
    cache: Cache = "auto"
    channels: int = 1
    deep: bool = False

    def __post_init__(self) -> None:
        self.files = list_named(self.folder)
        self.sizes = [image_size(path) for path in self.files]

    def _read(self, index: int) -> Pixels:
        path = self.files[index]
        if self.deep:
            return read_clean(path, self.channels)
        return read_gray(path) if self.channels == 1 else read_image(path)

    def _pixel_bytes(self, index: int) -> int:
        return self.channels * (2 if self.deep and is_deep(self.files[index]) else 1)

    def _digest(self, *parameters: Any) -> str:
        """SHA-256 over parameters, channels and bits where they are not 1 and 8, and the files' names and sizes."""
        kind = [self.channels, self.deep] if self.channels != 1 or self.deep else []
        return digest(self.title, self.split, *parameters, *kind, file_sizes(self.files))


@dataclass(kw_only=True)
class CleanPatches(CleanFiles):
    """All patches of a folder's photographs, at several scales, on a grid.

    A training sample is one patch, turned and mirrored in one of eight ways drawn from the caller's generator. One
    epoch is every patch once.

    Args:
        size: side of a patch in pixels.
        stride: from one patch to the next, in pixels.
        scales: at which the photographs are cut up (bicubic, antialiased).
    """

    size: int
    stride: int
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        grids = []
        for path, (height, width) in zip(self.files, self.sizes, strict=True):
            for scale in self.scales:
                rows, columns = _scaled(height, scale), _scaled(width, scale)
                if min(rows, columns) < self.size:
                    raise UserError(
                        f"{path} is {columns}x{rows} pixels at scale {scale:g}, smaller than a patch (data.size="
                        f"{self.size}); take smaller patches, leave that scale out of data.scales, or remove the file."
                    )
                grids.append(((rows - self.size) // self.stride + 1, (columns - self.size) // self.stride + 1))
        self._grids = np.array(grids, np.int64)
        self._ends = np.cumsum(self._grids.prod(axis=1))  # of the patches of each (file, scale)
        self.store = Store(
            len(self.files), self._load, self._bytes, self.cache, f"photographs at {len(self.scales)} scales"
        )

    def _bytes(self, index: int) -> int:
        height, width = self.sizes[index]
        pixels = sum(_scaled(height, scale) * _scaled(width, scale) for scale in self.scales)
        return pixels * self._pixel_bytes(index)

    def _load(self, index: int) -> Arrays:
        image = self._read(index)
        if image.shape[:2] != self.sizes[index]:
            raise UserError(f"{self.files[index]} is not of the size that its header says; save it anew.")
        return tuple(_resized(image, scale) for scale in self.scales)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _place(self, index: int) -> tuple[int, int, int, int]:
        """Return a patch's file, scale (by number), top and left."""
        self._check_index(index)
        grid = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[grid - 1]) if grid else 0
        row, column = divmod(index - first, int(self._grids[grid, 1]))
        return *divmod(grid, len(self.scales)), row * self.stride, column * self.stride

    def name(self, index: int) -> str:
        """Return ``<file>_x<scale>_<top>_<left>``."""
        file, scale, top, left = self._place(index)
        return f"{sample_name(self.files[file])}_x{self.scales[scale]:g}_{top}_{left}"

    def group(self, index: int) -> str:
        """Return the photograph that a patch is of."""
        return sample_name(self.files[self._place(index)[0]])

    def groups(self) -> Mapping[str, int]:
        counts = self._grids.prod(axis=1).reshape(len(self.files), -1).sum(axis=1)
        found: Counter[str] = Counter()
        for path, count in zip(self.files, counts, strict=True):
            found[sample_name(path)] += int(count)
        return found

    def subset(self, groups: Collection[str]) -> Subset:
        chosen = np.repeat([sample_name(path) in groups for path in self.files], len(self.scales))
        return Subset(self, np.flatnonzero(np.repeat(chosen, self._grids.prod(axis=1))))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (C, size, size) in [0, 1] and ``name``.

        Raises:
            UserError: the file cannot be read as an image.
        """
        file, scale, top, left = self._place(index)
        patch = self.store[file][scale][top : top + self.size, left : left + self.size]
        turn = int(rng.integers(8))
        patch = np.rot90(patch, turn % 4)
        return {"image": planes(patch if turn < 4 else patch[:, ::-1]), "name": self.name(index)}

    def verify(self, index: int) -> None:
        """Decode the patch's file, anew, once a file: with its first patch."""
        file, *place = self._place(index)
        if not any(place):
            self._load(file)

    def fingerprint(self) -> str:
        return self._digest(self.size, self.stride, self.scales)


@dataclass
class CleanImages(CleanFiles, Listed):
    """A folder's photographs, whole, for testing; sizes may differ from sample to sample."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.names = [sample_name(path) for path in self.files]
        for path, (height, width) in zip(self.files, self.sizes, strict=True):
            if min(height, width) < _SMALLEST:
                raise UserError(f"{path} is {width}x{height} pixels; SSIM needs test images of at least 11x11.")
        self.store = Store(len(self.files), self._load, self._bytes, self.cache, "photographs")

    def _bytes(self, index: int) -> int:
        return math.prod(self.sizes[index]) * self._pixel_bytes(index)

    def _load(self, index: int) -> Arrays:
        return (self._read(index),)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (C, H, W) in [0, 1] and ``name``.

        Raises:
            UserError: the file cannot be read as an image.
        """
        name = self.name(index)
        return {"image": planes(self.store[index][0]), "name": name}

    def fingerprint(self) -> str:
        return self._digest(self.folder.name)


@dataclass(frozen=True)
class CleanOptions(FileOptions):
    """Options of a data set of clean photographs; ``size`` is the side of a training patch.

    Attributes:
        task: ``"denoising"`` or ``"reconstruction"``; both get the clean patch.
        stride: from one training patch to the next, in pixels.
        scales: at which the training photographs are cut into patches; each in (0, 1].
    """

    task: str = "denoising"
    size: int = 40
    stride: int = 10
    scales: Sequence[float] = (1.0,)


class CleanData(FileData):
    """A data set of clean photographs, cut into patches to train on and whole to test on.

    Subclasses say where the photographs lie.
    """

    Options: ClassVar[type[CleanOptions]] = CleanOptions
    options: CleanOptions
    channels = 1
    deep: ClassVar[bool] = False
    """Whether files of 16 bits keep them; otherwise they are rounded to 8."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stride = check_count("data.stride", self.options.stride)
        self.scales = check_scales(self.options.scales)

    @abstractmethod
    def train_folder(self) -> Path:
        """Return the folder of the training photographs."""

    @abstractmethod
    def tests(self) -> dict[str, Dataset]:
        """Return the test sets by name, of which :meth:`test` is the first."""

    def _split(self, split: str) -> Dataset:
        if split == "test":
            return next(iter(self.tests().values()))
        files = self.name, split, self.train_folder(), self.cache, self.channels, self.deep
        return CleanPatches(*files, size=self.size, stride=self.stride, scales=self.scales)

    def _whole(self, split: str, folder: Path) -> CleanImages:
        return CleanImages(self.name, split, folder, self.cache, self.channels, self.deep)


def _scaled(length: int, scale: float) -> int:
    """Return a scaled length: rounded up, as the original patches were made, but for what floating point adds."""
    return math.ceil(round(length * scale, 6))


def _resized(image: Pixels, scale: float) -> Pixels:
    height, width = (_scaled(length, scale) for length in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    if image.dtype == np.uint8:
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC), np.uint8)
    planar = image[..., None] if image.ndim == 2 else image
    resized = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))
        for plane in planar.astype(np.float32).transpose(2, 0, 1)
    ]
    rounded = np.stack(resized, axis=-1).round().clip(0, 65535).astype(np.uint16)
    return np.ascontiguousarray(rounded[..., 0] if image.ndim == 2 else rounded)


def check_scales(scales: Any) -> tuple[float, ...]:
    """Return the scales at which photographs are cut into patches.

    Raises:
        UserError: they are no list of different numbers above 0 and at most 1.
    """
    good = fits(scales, list[float]) and scales and all(0 < scale <= 1 for scale in scales)
    if not good or len(set(scales)) < len(scales):
        raise UserError(f"data.scales must be a list of different numbers above 0 and at most 1; got {scales!r}.")
    return tuple(float(scale) for scale in scales)
