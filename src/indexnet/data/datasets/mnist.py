"""``mnist`` and ``fashion_mnist``: images in idx files, as the original distributions ship them."""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

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
    check_size,
    digest,
    planes,
    register_data,
)

_FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}


def find_idx(root: Path, file: str) -> Path:
    """Return the path of an idx file, compressed (``.gz``) or not, in ``root`` or ``root/raw``.

    Raises:
        UserError: it is in neither; the message names the folder and the file.
    """
    for folder in (root, root / "raw"):
        for name in (file, f"{file}.gz"):
            if os.path.isfile(folder / name):
                return folder / name
    raise UserError(
        f"{root} holds neither {file} nor {file}.gz (raw/ under it was searched too); put the original idx files there "
        "or name their folder with data.root=DIR."
    )


@lru_cache(maxsize=4)
def read_idx(path: Path) -> UInt8:
    """Read an idx file of 8-bit images, once per process.

    Returns:
        uint8 (count, rows, columns), read-only.

    Raises:
        UserError: the file is damaged or holds something else.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again.") from error
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", 3, 4)) if len(content) >= 16 else ()
    if content[:4] != b"\x00\x00\x08\x03" or len(content) != 16 + int(np.prod(shape, dtype=np.int64)):
        raise UserError(f"{path} is not an idx file of 8-bit images, or it is cut short; fetch it again.")
    return np.frombuffer(content, np.uint8, offset=16).reshape(shape)


@dataclass
class IdxImages(Dataset):
    """The images of one idx file, in its order, without augmentation.

    Args:
        split: ``"train"`` or ``"test"``.
        path: the idx file.
        size: side of the samples in pixels.
        fit: ``"resize"`` (bilinear) or ``"pad"`` (zeros on all sides).
    """

    split: str
    path: Path
    size: int
    fit: str
    count: int = field(init=False)

    def __post_init__(self) -> None:
        self.count, rows, columns = read_idx(self.path).shape
        if self.fit == "pad" and self.size < max(rows, columns):
            raise UserError(f"data.fit=pad cannot shrink {rows}x{columns} images to data.size={self.size}; use resize.")

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        self._check_index(index)
        return f"{index:05d}"

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (1, size, size) in [0, 1] and ``name``."""
        name = self.name(index)
        image = read_idx(self.path)[index]
        if self.fit == "resize":
            image = np.asarray(cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_LINEAR), np.uint8)
        else:
            image = np.pad(image, [((self.size - side) // 2, (self.size - side + 1) // 2) for side in image.shape])
        return {"image": planes(image), "name": name}

    def fingerprint(self) -> str:
        """SHA-256 over the parameters and a checksum of the decompressed images, so that gz or not is the same."""
        return digest("idx", self.split, self.size, self.fit, self.count, zlib.crc32(read_idx(self.path).data))


_LAYOUT = "ROOT/ or ROOT/raw/: " + ", ".join(_FILES.values()) + ", each plain or with .gz"


class IdxData(Data):
    """Images of 28x28 from idx files, made 32x32 so that they can be halved.

    Args:
        root: folder of the idx files (or of ``raw/`` with them).
        task: ``"reconstruction"``.
        size: side of the samples in pixels.
        fit: how 28 becomes ``size``: ``"resize"``, bilinear, fills the frame, as in the printed protocols; ``"pad"``,
            zeros on all sides, keeps the pixels as they are.

    Raises:
        UserError: an option's value is impossible.
    """

    channels = 1

    def __init__(self, root: str, task: str = "reconstruction", size: int = 32, fit: str = "resize") -> None:
        super().__init__(task)
        check_choice("data.fit", fit, ("resize", "pad"))
        self.root, self.size, self.fit = Path(root), check_size("data.size", size), fit

    def train(self) -> IdxImages:
        return IdxImages("train", find_idx(self.root, _FILES["train"]), self.size, self.fit)

    def test(self) -> IdxImages:
        return IdxImages("test", find_idx(self.root, _FILES["test"]), self.size, self.fit)


@register_data
class MNIST(IdxData):
    """Handwritten digits, 60000 + 10000 images of 28x28; options as in :class:`IdxData`."""

    info = DataInfo(
        name="mnist",
        title="MNIST",
        tasks=("reconstruction",),
        source="LeCun, Cortes, Burges: The MNIST database of handwritten digits; CC BY-SA 3.0 as commonly stated",
        layout=_LAYOUT,
    )


@register_data
class FashionMNIST(IdxData):
    """Articles of clothing, 60000 + 10000 images of 28x28; options as in :class:`IdxData`."""

    info = DataInfo(
        name="fashion_mnist",
        title="Fashion-MNIST",
        tasks=("reconstruction",),
        source="Xiao, Rasul, Vollgraf: Fashion-MNIST, arXiv:1708.07747; MIT licence",
        layout=_LAYOUT,
    )
