"""``train400``: the gray photographs on which DnCNN and its successors are trained and tested."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from indexnet.core.errors import UserError
from indexnet.data.base import (
    Data,
    DataInfo,
    Dataset,
    Sample,
    Subset,
    UInt8,
    check_count,
    check_size,
    digest,
    planes,
    register_data,
)
from indexnet.data.io.cache import Arrays, Cache, Store, check_cache
from indexnet.data.io.images import file_sizes, image_size, list_images, read_gray

_SMALLEST = 11  # the window of SSIM, pixels
_TRAIN, _TESTS = "Train400", {"bsd68": "BSD68", "set12": "Set12"}


@dataclass
class GrayPatches(Dataset):
    """All patches of a folder's photographs, at several scales, on a grid.

    A training sample is one patch, turned and mirrored in one of eight ways drawn from the caller's generator. One
    epoch is every patch once.

    Args:
        split: ``"train"``.
        folder: of the photographs.
        size: side of a patch in pixels.
        stride: from one patch to the next, in pixels.
        scales: at which the photographs are cut up (bicubic, antialiased).
        cache: see :class:`~indexnet.data.io.cache.Store`.
    """

    split: str
    folder: Path
    size: int
    stride: int
    scales: tuple[float, ...]
    cache: Cache = "auto"
    files: list[Path] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.files = list_images(self.folder)
        self._sizes = [image_size(path) for path in self.files]
        grids = []
        for path, (height, width) in zip(self.files, self._sizes, strict=True):
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
        height, width = self._sizes[index]
        return sum(_scaled(height, scale) * _scaled(width, scale) for scale in self.scales)

    def _load(self, index: int) -> Arrays:
        image = read_gray(self.files[index])
        if image.shape != self._sizes[index]:
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
        return f"{self.files[file].stem}_x{self.scales[scale]:g}_{top}_{left}"

    def group(self, index: int) -> str:
        """Return the photograph that a patch is of."""
        return self.files[self._place(index)[0]].stem

    def groups(self) -> Mapping[str, int]:
        counts = self._grids.prod(axis=1).reshape(len(self.files), -1).sum(axis=1)
        found: Counter[str] = Counter()
        for path, count in zip(self.files, counts, strict=True):
            found[path.stem] += int(count)
        return found

    def subset(self, groups: Collection[str]) -> Subset:
        chosen = np.repeat([path.stem in groups for path in self.files], len(self.scales))
        return Subset(self, np.flatnonzero(np.repeat(chosen, self._grids.prod(axis=1))))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (1, size, size) in [0, 1] and ``name``.

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
        return digest("train400", self.split, self.size, self.stride, self.scales, file_sizes(self.files))


@dataclass
class GrayImages(Dataset):
    """A folder's photographs, whole; sizes may differ from sample to sample.

    Args:
        split: ``"test"``.
        folder: of the photographs.
        cache: see :class:`~indexnet.data.io.cache.Store`.
    """

    split: str
    folder: Path
    cache: Cache = "auto"
    files: list[Path] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.files = list_images(self.folder)
        for path in self.files:
            if min(image_size(path)) < _SMALLEST:
                height, width = image_size(path)
                raise UserError(f"{path} is {width}x{height} pixels; SSIM needs test images of at least 11x11.")
        self.store = Store(len(self.files), self._load, self._bytes, self.cache, "photographs")

    def _bytes(self, index: int) -> int:
        return math.prod(image_size(self.files[index]))

    def _load(self, index: int) -> Arrays:
        return (read_gray(self.files[index]),)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def one_size(self) -> bool:
        return False

    def name(self, index: int) -> str:
        self._check_index(index)
        return self.files[index].stem

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (1, H, W) in [0, 1] and ``name``.

        Raises:
            UserError: the file cannot be read as an image.
        """
        name = self.name(index)
        return {"image": planes(self.store[index][0]), "name": name}

    def fingerprint(self) -> str:
        """SHA-256 over the folder's name and the files' names and byte sizes."""
        return digest("train400", self.split, self.folder.name, file_sizes(self.files))


def _scaled(length: int, scale: float) -> int:
    """Return a scaled length: rounded up, as the original patches were made, but for what floating point adds."""
    return math.ceil(round(length * scale, 6))


def _resized(image: UInt8, scale: float) -> UInt8:
    height, width = (_scaled(length, scale) for length in image.shape)
    if (height, width) == image.shape:
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC), np.uint8)


@register_data
class Train400(Data):
    """400 gray photographs of 180x180 to train on, BSD68 and Set12 to test on.

    With the default options one epoch has 238400 patches of 40x40, the protocol of DnCNN. The tests are two splits,
    ``bsd68`` and ``set12``.

    Args:
        root: folder with ``Train400``, ``BSD68`` and ``Set12``.
        task: ``"denoising"`` or ``"reconstruction"``; both get the clean patch.
        size: side of a training patch in pixels.
        stride: from one training patch to the next, in pixels.
        scales: at which the training photographs are cut into patches; each in (0, 1].
        cache: whether the photographs are decoded once and kept: ``"auto"`` (where memory allows), True or False.

    Raises:
        UserError: an option's value is impossible.
    """

    info = DataInfo(
        name="train400",
        title="Train400, tested on BSD68 and Set12",
        tasks=("denoising", "reconstruction"),
        source="Zhang et al., Beyond a Gaussian denoiser (DnCNN), TIP 2017; photographs from BSDS, for research",
        layout="ROOT/Train400/test_001.png ..., ROOT/BSD68/test001.png ..., ROOT/Set12/01.png ...",
    )
    channels = 1

    def __init__(
        self,
        root: str,
        task: str = "denoising",
        size: int = 40,
        stride: int = 10,
        scales: Sequence[float] = (0.7, 0.8, 0.9, 1.0),
        cache: Cache = "auto",
    ) -> None:
        super().__init__(task)
        self.root, self.size = Path(root), check_size("data.size", size)
        self.stride, self.scales = check_count("data.stride", stride), _check_scales(scales)
        self.cache = check_cache(cache)

    def train(self) -> GrayPatches:
        return GrayPatches("train", self.root / _TRAIN, self.size, self.stride, self.scales, self.cache)

    def test(self) -> Dataset:
        return self.tests()["bsd68"]

    def tests(self) -> dict[str, Dataset]:
        """Return ``bsd68`` and ``set12``."""
        return {name: GrayImages("test", self.root / folder, self.cache) for name, folder in _TESTS.items()}


def _check_scales(scales: Any) -> tuple[float, ...]:
    numbers = list(scales) if isinstance(scales, Sequence) and not isinstance(scales, str) else []
    good = all(isinstance(s, int | float) and not isinstance(s, bool) and 0 < s <= 1 for s in numbers)
    if not numbers or not good or len(set(numbers)) < len(numbers):
        raise UserError(f"data.scales must be a list of different numbers above 0 and at most 1; got {scales!r}.")
    return tuple(float(scale) for scale in numbers)
