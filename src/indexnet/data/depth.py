"""Frames with depth, seen the way that FastDepth is trained and tested: what data sets of depth share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import torch

from indexnet.core.errors import UserError
from indexnet.data.base import Dataset, Float32, Sample, UInt8, planes
from indexnet.data.io.cache import Arrays, Cache, Store, estimate_bytes
from indexnet.data.transforms import affine, colour_jitter, warp, warp_nearest

SEEN = 228 / 250
"""Share of a frame's height and width that a network sees: of a frame scaled to 250x333, the middle 228x304."""

CROPS = ("none", "eigen")
EVALUATIONS = ("network", "full")
_EIGEN = (45 / 480, 471 / 480, 41 / 640, 601 / 640)  # top, bottom, left, right of Eigen's crop, as shares of a frame
_ZOOM, _ANGLE, _JITTER = (1.0, 1.5), 5.0, 0.4
_FAR = 20.0  # metres; indoor sensors reach 10, so a farther depth is in another unit
_LINES = 240  # about the height of the frames that are kept
_SMALLEST = 16

Depth = npt.NDArray[Any]


@dataclass
class DepthFrames(Dataset):
    """One split of frames with depth.

    Frames of full size (480x640) are halved once, colours by averaging, depth by leaving out; smaller ones stay.

    Training samples follow FastDepth: the frame is turned by U(-5, 5) degrees, enlarged by s of U(1, 1.5) while its
    depth is divided by s, cut to the middle 91.2 % of height and width (228x304 of 250x333), mirrored with probability
    1/2, scaled to ``size`` x ``size``, and its brightness, contrast and saturation are changed by up to 40 %. All of
    the geometry is one warp, bilinear for colours, nearest for depth; what lies outside the frame has no depth. The
    samples of other splits are the same without chance.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        size: side of the samples in pixels.
        crop: ``"none"``; or ``"eigen"``: no depth outside Eigen's crop (rows 45..471, columns 41..601 of 480x640), but
            in training.
        evaluation: ``"network"``: splits other than training show what training shows; ``"full"``: they show the whole
            frame at the same scale, ``size`` / 0.912 pixels a side.
        cache: see :class:`~indexnet.data.io.cache.Store`.

    Attributes:
        pixel_bytes: bytes of a decoded pixel, colours and depth.
        store: the frames, halved.
    """

    split: str
    size: int
    crop: str
    evaluation: str
    cache: Cache
    pixel_bytes: ClassVar[int]
    store: Store = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.store = Store(len(self), self._load, self._bytes, self.cache, "frames")

    @abstractmethod
    def where(self, index: int) -> str:
        """Return the file or files of a frame, for messages."""

    @abstractmethod
    def read(self, index: int) -> tuple[UInt8, Depth]:
        """Return a frame as its files have it: colours (H, W, 3) RGB and depth (H, W) in their unit.

        Raises:
            UserError: a file cannot be read.
        """

    @abstractmethod
    def metres(self, depth: Depth) -> Float32:
        """Turn depth (H, W) into metres; 0 or not finite where it is unknown."""

    @abstractmethod
    def frame_size(self, index: int) -> tuple[int, int]:
        """Return a frame's (height, width) in its files, about, without decoding them."""

    def _load(self, index: int) -> Arrays:
        image, depth = self.read(index)
        if image.shape[:2] != depth.shape:
            (h, w), shape = image.shape[:2], "x".join(map(str, depth.shape[::-1]))
            raise UserError(
                f"{self.where(index)}: the image is {w}x{h} pixels but its depth is {shape}; they must be of one size."
            )
        if min(depth.shape) < _SMALLEST:
            raise UserError(f"{self.where(index)}: a frame of {depth.shape[1]}x{depth.shape[0]} pixels is too small.")
        return halved(image, depth)

    def _bytes(self) -> int:
        def decoded(index: int) -> int:
            height, width = self.frame_size(index)
            return height * width * self.pixel_bytes // _factor(height) ** 2

        return estimate_bytes(len(self), decoded)

    def _parameters(self) -> list[int | str]:
        """Return what samples depend on besides files, for fingerprints."""
        return [self.split, self.size] if self.split == "train" else [self.split, self.size, self.crop, self.evaluation]

    def prepare(self, reads: int | None = None) -> str:
        return self.store.prepare(reads)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (3, S, S) in [0, 1], ``depth`` (1, S, S) in metres, 0 where there is none, and ``name``.

        Raises:
            UserError: a file cannot be read, or image and depth differ in size.
        """
        name = self.name(index)
        image, depth = self.store[index]
        zoom, angle, mirrored, size, seen = 1.0, 0.0, False, self.size, SEEN
        if self.split == "train":
            zoom, angle = float(rng.uniform(*_ZOOM)), float(rng.uniform(-_ANGLE, _ANGLE))
            mirrored = bool(rng.random() < 0.5)
        elif self.evaluation == "full":
            size, seen = round(size / SEEN), 1.0
        height, width = depth.shape
        matrix = affine(
            (size, size),
            (height / 2, width / 2),
            (zoom * size / (seen * height), zoom * size / (seen * width)),
            angle,
            mirrored,
        )
        image = warp(image, matrix, (size, size))
        metres = self.metres(warp_nearest(depth, matrix, (size, size), fill=0))
        metres = np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))
        if self.split == "train":
            image, metres = colour_jitter(image, _JITTER, rng), metres / np.float32(zoom)
        elif self.crop == "eigen":
            metres = metres * eigen_crop(size, seen)
        return {"image": planes(image), "depth": torch.from_numpy(metres)[None], "name": name}

    def verify(self, index: int) -> None:
        """Check a frame's files: readable, of one size, with depth, in metres."""
        self._check_index(index)
        _, depth = self.store.load(index)
        check_metres(self.where(index), self.metres(depth))


def halved(image: UInt8, depth: Depth) -> tuple[UInt8, Depth]:
    """Reduce a frame by the whole factor that brings it nearest to 240 lines; smaller ones stay as they are.

    Args:
        image: (H, W, 3); averaged.
        depth: (H, W); one value of each block, next to its middle.
    """
    factor = _factor(depth.shape[0])
    if factor < 2:
        return image, depth
    rows, columns = (length // factor for length in depth.shape)
    image = image[: rows * factor, : columns * factor]
    smaller = np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    first = factor // 2
    return smaller, np.ascontiguousarray(depth[first::factor, first::factor][:rows, :columns])


def _factor(height: int) -> int:
    return max(1, round(height / _LINES))


def eigen_crop(size: int, seen: float) -> npt.NDArray[np.bool_]:
    """Return which pixels of a square view of a frame's middle lie in Eigen's crop; bool (size, size).

    Args:
        size: side of the view in pixels.
        seen: share of the frame's height and width that it shows.
    """
    at = 0.5 + ((np.arange(size) + 0.5) / size - 0.5) * seen  # pixel centres, as shares of the frame
    top, bottom, left, right = _EIGEN
    return np.logical_and.outer((at >= top) & (at < bottom), (at >= left) & (at < right))


def check_metres(where: str, depth: Float32) -> None:
    """Refuse depth (H, W) that is nowhere known, or that cannot be metres.

    Args:
        where: the file, for messages.
        depth: in metres; 0 or not finite where it is unknown.

    Raises:
        UserError: it is one of these.
    """
    finite = depth[np.isfinite(depth)]
    negative, farthest = np.count_nonzero(finite < 0), finite.max(initial=0)
    if negative:
        raise UserError(f"{where}: the depth is negative at {negative} pixels; unknown depth is written as 0.")
    if farthest <= 0:
        raise UserError(f"{where}: no pixel has a depth; repair the frame or remove it.")
    if farthest > _FAR:
        raise UserError(f"{where}: depth goes up to {farthest:g}, which cannot be metres in a room; convert it.")
