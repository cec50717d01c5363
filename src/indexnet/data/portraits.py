"""What data sets of portraits share: photographs with mattes, random views of them, trimaps by an ellipse."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from indexnet.core.annotations import fits
from indexnet.core.errors import UserError
from indexnet.data.base import Sample, UInt8, check_size, digest, planes
from indexnet.data.files import FileData, FileOptions, Listed, check_files, check_names, check_one_size
from indexnet.data.io.cache import Arrays, Cache, Store
from indexnet.data.io.images import file_sizes, image_size, list_images, read_image, read_matte, read_trimap
from indexnet.data.io.names import Names, pair, sample_name
from indexnet.data.io.trimaps import eroded_trimap
from indexnet.data.segmentation import check_scale
from indexnet.data.transforms import affine, warp

TRIMAP_WIDTH = 25
"""Width and height of the ellipse that makes the trimap of a test photograph, in pixels, where nothing says it."""

PORTRAIT2K_UNKNOWN = 0.1355
"""Mean unknown share of the trimaps that the published errors on Portrait-2k were measured with, from their ratios."""

_TRAINING_WIDTHS = (1, 20)  # of ellipses, drawn
_WIDEST = 151


class Portrait(NamedTuple):
    """A photograph, its matte, and its trimap where there is one."""

    name: str
    image: Path
    alpha: Path
    trimap: Path | None = None


def random_view(
    image: UInt8, alpha: UInt8, size: int, scale: tuple[float, float], angle: float, rng: np.random.Generator
) -> tuple[UInt8, UInt8]:
    """Scale, turn, crop and mirror a photograph with its matte: one warp, bilinear for both.

    The scale is drawn from U(low, high), the angle from U(-angle, angle) degrees, the place uniformly, mirroring with
    probability 1/2. Outside the photograph its border is repeated.

    Args:
        image: (H, W, 3) RGB.
        alpha: (H, W).
        size: side of the view in pixels.
        scale: (low, high).
        angle: in degrees.
        rng: source of what is random.

    Returns:
        uint8 (size, size, 3) and (size, size).
    """
    zoom, turned = float(rng.uniform(*scale)), float(rng.uniform(-angle, angle))
    centre = []
    for length in alpha.shape:
        room = length * zoom - size  # below 0: the photograph lies somewhere inside
        centre.append((rng.uniform(min(room, 0), max(room, 0)) + size / 2) / zoom)
    matrix = affine((size, size), (centre[0], centre[1]), zoom, turned, bool(rng.random() < 0.5))
    return warp(image, matrix, (size, size)), warp(alpha, matrix, (size, size))


def fitting_width(alphas: Iterable[UInt8], share: float = PORTRAIT2K_UNKNOWN) -> tuple[int, float]:
    """Return the ellipse whose trimaps leave about that share of the pixels unknown, mean over the mattes.

    Args:
        alphas: (H, W) each; they are kept while this looks.
        share: of the pixels, in (0, 1).

    Returns:
        The width in pixels, at most 151, and the share that it leaves.
    """
    mattes = list(alphas)

    def unknown(width: int) -> float:
        return float(np.mean([np.mean(eroded_trimap(matte, width, width) == 128) for matte in mattes]))

    low, high = 1, _WIDEST
    while high - low > 1:  # the share grows with the width
        middle = (low + high) // 2
        low, high = (middle, high) if unknown(middle) < share else (low, middle)
    found = {width: unknown(width) for width in (low, high)}
    best = min(found, key=lambda width: abs(found[width] - share))
    return best, found[best]


@dataclass
class Portraits(Listed):
    """Photographs with mattes.

    A training sample is a random view, see :func:`random_view`; its trimap is made after that, by an ellipse of 1..20
    pixels. Other samples are whole and at their own size; the trimap is a file, or made by an ellipse of
    ``trimap_width`` pixels on either side.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        title: name of the data set.
        portraits: the files, in order.
        size: side of a training view in pixels.
        scale: (low, high), of training views.
        angle: of training views, in degrees.
        trimap_width: of the ellipse, in pixels; or ``"auto"``: the one that leaves 13.55 % of the split unknown.
        cache: see :class:`~indexnet.data.io.cache.Store`.

    Raises:
        UserError: a file is missing, or two photographs have one name.
    """

    split: str
    title: str
    portraits: list[Portrait] = field(repr=False)
    size: int
    scale: tuple[float, float]
    angle: float
    trimap_width: int | Literal["auto"] = TRIMAP_WIDTH
    cache: Cache = "auto"

    def __post_init__(self) -> None:
        needed = f"; every photograph of data={self.title} needs its matte and every matte its photograph."
        check_files((path for each in self.portraits for path in _files(each)), "more files of this split", needed)
        self.names = [each.name for each in self.portraits]
        check_names(self.title, "photographs", self.names)
        self.store = Store(len(self.portraits), self._load, self._bytes, self.cache)
        self._width: int | None = None if self.trimap_width == "auto" else self.trimap_width

    def _bytes(self, index: int) -> int:
        return 4 * math.prod(image_size(self.portraits[index].image))

    def _load(self, index: int) -> Arrays:
        """Decode and check a pair: uint8 (H, W, 3) and (H, W)."""
        image, alpha = read_image(self.portraits[index].image), read_matte(self.portraits[index].alpha)
        check_one_size(self.portraits[index].alpha, alpha.shape, self.portraits[index].image, image.shape)
        return image, alpha

    def prepare(self, reads: int | None = None) -> str:
        """Decode what is to be kept, and settle the width of trimaps that are made."""
        said = super().prepare(reads)
        if self.split == "train" or self._width is not None or all(each.trimap for each in self.portraits):
            return said
        self._width, share = self._fitting()
        width = f"trimaps of data={self.title}: an ellipse of {self._width} pixels leaves {100 * share:.2f} % unknown"
        return f"{said}; {width}" if said else width

    def _fitting(self) -> tuple[int, float]:
        return fitting_width(self.store[index][1] for index in range(len(self)))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (3, H, W) and ``alpha`` (1, H, W) in [0, 1], ``trimap`` (1, H, W), and ``name``.

        Raises:
            UserError: a file cannot be read, or they differ in size.
        """
        name, (image, alpha) = self.name(index), self.store[index]
        if self.split == "train":
            image, alpha = random_view(image, alpha, self.size, self.scale, self.angle, rng)
            width = int(rng.integers(_TRAINING_WIDTHS[0], _TRAINING_WIDTHS[1] + 1))
            trimap = eroded_trimap(alpha, width, width)
        elif (path := self.portraits[index].trimap) is not None:
            trimap, _ = read_trimap(path, strict=True)
            check_one_size(path, trimap.shape, self.portraits[index].image, image.shape)
        else:
            if self._width is None:
                self._width, _ = self._fitting()
            trimap = eroded_trimap(alpha, self._width, self._width)
        return {"image": planes(image), "alpha": planes(alpha), "trimap": planes(trimap), "name": name}

    def image_files(self, index: int) -> tuple[Path, ...]:
        self._check_index(index)
        return tuple(_files(self.portraits[index]))

    def verify(self, index: int) -> None:
        self._check_index(index)
        self.store.load(index)
        if (path := self.portraits[index].trimap) is not None:
            read_trimap(path, strict=True)

    def fingerprint(self) -> str:
        """SHA-256 over the files' names and byte sizes, and how views and trimaps are made."""
        view = [self.size, self.scale, self.angle] if self.split == "train" else [self.trimap_width]
        return digest(
            self.title, self.split, view, file_sizes([path for each in self.portraits for path in _files(each)])
        )


def _files(portrait: Portrait) -> list[Path]:
    return [portrait.image, portrait.alpha, *([portrait.trimap] if portrait.trimap else [])]


@dataclass(frozen=True)
class PortraitOptions(FileOptions):
    """Options of a data set of portraits.

    Attributes:
        scale: (low, high): a training photograph is enlarged by a factor drawn between them.
        angle: and turned by up to that many degrees.
        trimap_width: of the ellipse by which either side of a test matte is eroded to its trimap, in pixels; ``auto``:
            the one that leaves 13.55 % of the pixels unknown, as the trimaps of the published numbers did.
    """

    task: str = "portrait"
    scale: Sequence[float] = (0.5, 2.0)
    angle: float = 10.0
    trimap_width: int | str = TRIMAP_WIDTH


class PortraitData(FileData):
    """A data set of portraits; subclasses say which files make a split.

    Raises:
        UserError: an option's value is impossible.
    """

    Options: ClassVar[type[PortraitOptions]] = PortraitOptions
    options: PortraitOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scale = check_scale(self.options.scale)
        angle = self.options.angle
        if not fits(angle, float) or not 0 <= angle <= 180:
            raise UserError(f"data.angle must be a number of degrees from 0 to 180; got {angle!r}.")
        self.angle = float(angle)
        width = self.options.trimap_width
        if width == "auto":
            self.trimap_width: int | Literal["auto"] = "auto"
        elif isinstance(width, str):
            raise UserError(f"data.trimap_width must be a whole number of pixels, or auto; got {width!r}.")
        else:
            self.trimap_width = check_size("data.trimap_width", width, 1)

    @abstractmethod
    def portraits(self, split: str) -> list[Portrait]:
        """Return the files of a split.

        Raises:
            UserError: a folder is missing.
        """

    def _split(self, split: str) -> Portraits:
        return self._made_of(split, self.portraits(split))

    def _made_of(self, split: str, portraits: list[Portrait]) -> Portraits:
        return Portraits(split, self.name, portraits, self.size, self.scale, self.angle, self.trimap_width, self.cache)


def paired(images: Path, mattes: Path, trimaps: Path | None = None) -> list[Portrait]:
    """Return the portraits of a folder of photographs and one of mattes, paired by name.

    Args:
        images: the one folder.
        mattes: the other.
        trimaps: a folder of trimaps, where there is one: then every photograph needs one.

    Raises:
        UserError: a folder is missing or empty, or a file has no partner.
    """
    return joined(list_images(images), list_images(mattes), mattes, trimaps)


def joined(images: Sequence[Path], mattes: Sequence[Path], folder: Path, trimaps: Path | None = None) -> list[Portrait]:
    """Return the portraits that photographs and mattes of the same names are.

    Args:
        images: photographs.
        mattes: mattes.
        folder: where mattes are, for messages.
        trimaps: see :func:`paired`.

    Raises:
        UserError: a file has no partner.
    """
    known = None if trimaps is None else Names(list_images(trimaps))
    found = []
    for image, matte in pair(images, mattes):
        if image is None or matte is None:
            lone = image or matte
            assert lone is not None
            wanted = (
                f"matte named {lone.stem}.png into {folder}" if image else f"photograph named {lone.stem} beside it"
            )
            raise UserError(f"{lone} has no partner; put a {wanted}, or take it away.")
        trimap = None if known is None else known.find(image.stem)
        if known is not None and trimap is None:
            raise UserError(f"{trimaps} holds no trimap for {image}; add {image.stem}.png, or remove the folder.")
        found.append(Portrait(sample_name(image), image, matte, trimap))
    return found
