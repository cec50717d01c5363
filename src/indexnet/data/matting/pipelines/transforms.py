"""Steps that pipelines share: distances to the unknown region, crops around it, backgrounds, resizing.

Colours and alpha are interpolated (bicubic values beyond 0..255 are cut off), trimaps never: their values must not be
mixed.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.data.base import UInt8
from indexnet.data.io.trimaps import trimap_from_alpha
from indexnet.data.matting.compositing import composite, cover
from indexnet.data.matting.pipelines.base import Targets

_TRIES = 256


class Field(Protocol):
    """Which pixels of an image may be chosen."""

    shape: tuple[int, int]

    def first(self, ys: npt.NDArray[np.int64], xs: npt.NDArray[np.int64]) -> int | None:
        """Return which of some pixels is the first that fits."""

    def inside(self, rows: slice, columns: slice) -> npt.NDArray[np.bool_]:
        """Return which pixels of a window fit."""


class Between(Field):
    """The pixels of an image (H, W), uint8, whose values lie in [low, high]."""

    def __init__(self, values: UInt8, low: int, high: int) -> None:
        self.values, self.low, self.high = values, low, high
        self.shape: tuple[int, int] = values.shape

    def first(self, ys: npt.NDArray[np.int64], xs: npt.NDArray[np.int64]) -> int | None:
        fits = np.flatnonzero(self._fit(self.values[ys, xs]))
        return int(fits[0]) if fits.size else None

    def inside(self, rows: slice, columns: slice) -> npt.NDArray[np.bool_]:
        return self._fit(self.values[rows, columns])

    def _fit(self, values: UInt8) -> npt.NDArray[np.bool_]:
        return np.asarray((values >= self.low) & (values <= self.high))


class Unknown(Field):
    """The pixels that a trimap of :func:`~indexnet.data.io.trimaps.trimap_from_alpha` leaves open, made where asked.

    Args:
        alpha: (H, W), uint8.
        distance: of the trimap.
    """

    def __init__(self, alpha: UInt8, distance: int) -> None:
        self.alpha, self.distance = alpha, distance
        self.shape: tuple[int, int] = alpha.shape

    def first(self, ys: npt.NDArray[np.int64], xs: npt.NDArray[np.int64]) -> int | None:
        reach = self.distance
        for number, (y, x) in enumerate(zip(ys.tolist(), xs.tolist(), strict=True)):
            around = self.alpha[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            # most lie far from all mixed pixels, 1..254
            if (around - np.uint8(1) < 254).any() and self.trimap(slice(y, y + 1), slice(x, x + 1))[0, 0] == 128:
                return number
        return None

    def inside(self, rows: slice, columns: slice) -> npt.NDArray[np.bool_]:
        return np.asarray(self.trimap(rows, columns) == 128)

    def trimap(self, rows: slice, columns: slice) -> UInt8:
        """Return the trimap of a window."""
        reach = self.distance
        top, left = max(0, rows.start - reach), max(0, columns.start - reach)
        made = trimap_from_alpha(self.alpha[top : rows.stop + reach, left : columns.stop + reach], reach)
        return made[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def choose_pixel(field: Field, rows: slice, columns: slice, rng: np.random.Generator) -> tuple[int, int] | None:
    """Choose one of the pixels of a window that fit, all with the same chance.

    Pixels of the window are drawn until one fits, since most fields have many; only where that takes too long are the
    fitting ones looked for. Either way each of them is as likely as the others.

    Args:
        field: says which fit.
        rows: of the window.
        columns: of the window.
        rng: source of what is random.

    Returns:
        (y, x) in ``field``; None where no pixel fits.
    """
    spans = [range(length)[at] for at, length in zip((rows, columns), field.shape, strict=True)]
    if not all(spans):
        return None
    top, left = (span.start for span in spans)
    ys, xs = (rng.integers(len(span), size=_TRIES) for span in spans)
    number = field.first(ys + top, xs + left)
    if number is not None:
        return top + int(ys[number]), left + int(xs[number])
    found = np.flatnonzero(field.inside(*(slice(span.start, span.stop) for span in spans)))
    if not found.size:
        return None
    y, x = divmod(int(found[rng.integers(found.size)]), len(spans[1]))
    return top + y, left + x


def corner_around(field: Field, side: int, last: int, rng: np.random.Generator) -> tuple[int, int]:
    """Choose a square crop around a pixel that fits.

    The pixel is one around which the crop fits into the image; where there is none, any, and the crop is moved inside;
    where no pixel fits at all, the crop lies anywhere.

    Args:
        field: says which pixels fit; both its lengths are at least ``side``.
        side: of the crop, in pixels.
        last: 1 if a pixel may lie ``side // 2`` before the lower and the right edge, else 0.
        rng: source of what is random.

    Returns:
        (top, left) of the crop.
    """
    height, width = field.shape
    half = side // 2
    inside = [slice(half, max(half, length - half + last)) for length in (height, width)]
    centre = choose_pixel(field, inside[0], inside[1], rng)
    if centre is None:
        centre = choose_pixel(field, slice(0, height), slice(0, width), rng)
    if centre is None:
        return int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    top, left = (min(max(at - half, 0), length - side) for at, length in zip(centre, (height, width), strict=True))
    return top, left


def covered_window(background: UInt8, size: tuple[int, int], top: int, left: int, side: int) -> UInt8:
    """Return a square of what :func:`~indexnet.data.matting.compositing.cover` (``shrink=False``) gives, and only that.

    Args:
        background: (h, w, 3), uint8.
        size: (H, W) of the foreground.
        top: first row of the square.
        left: first column of the square.
        side: of the square, in pixels.

    Returns:
        uint8 (side, side, 3), the square of ``cover(background, size, shrink=False)``; a value may be rounded to the
        other side, once in some thousand squares.
    """
    bg_height, bg_width = background.shape[:2]
    ratio = max(size[1] / bg_width, size[0] / bg_height)
    if ratio <= 1:
        return background[top : top + side, left : left + side]
    rows, fy, skip_y = _needed(bg_height, math.ceil(bg_height * ratio), top, side)
    columns, fx, skip_x = _needed(bg_width, math.ceil(bg_width * ratio), left, side)
    part = background[rows, columns]
    if (round(part.shape[0] * fy), round(part.shape[1] * fx)) == part.shape[:2]:  # OpenCV would copy it as it is
        return cover(background, size, shrink=False)[top : top + side, left : left + side]
    scaled = np.asarray(cv2.resize(part, None, fx=fx, fy=fy, interpolation=cv2.INTER_CUBIC), np.uint8)
    return scaled[skip_y : skip_y + side, skip_x : skip_x + side]


def _needed(length: int, scaled: int, start: int, side: int) -> tuple[slice, float, int]:
    """Return which source pixels an enlarged stretch is made of, the scale, and how many scaled ones to leave out.

    The first pixel is one where both grids meet, so that all others fall between the same source pixels as before.
    """
    meet = math.gcd(length, scaled)
    period, source = scaled // meet, length // meet  # in scaled pixels, in source pixels
    first = max(0, start - 3 * math.ceil(scaled / length)) // period  # bicubic: two source pixels before
    last = min(length, math.ceil((start + side) * length / scaled) + 3)
    return slice(first * source, last), scaled / length, start - first * period


def resized(targets: Targets, size: tuple[int, int], how: int = cv2.INTER_CUBIC) -> Targets:
    """Bring all targets to (height, width): by ``how``, OpenCV's number, the trimap nearest."""
    if targets.alpha.shape == size:
        return targets

    scaled: dict[str, Any] = {
        name: cv2.resize(array, size[::-1], interpolation=cv2.INTER_NEAREST if name == "trimap" else how)
        for name, array in targets._asdict().items()
    }
    return Targets(**scaled)


def cropped(targets: Targets, top: int, left: int, side: int) -> Targets:
    """Cut a square out of all targets."""
    window = slice(top, top + side), slice(left, left + side)
    cut: list[Any] = [array[window] for array in targets]
    return Targets(*cut)


def mirrored(targets: Targets) -> Targets:
    """Swap left and right of all targets."""
    flipped: list[Any] = [cv2.flip(array, 1) for array in targets]
    return Targets(*flipped)


def merged(fg: UInt8, bg: UInt8, alpha: UInt8, trimap: UInt8) -> Targets:
    """Compose the image of aligned layers as the published composites are."""
    return Targets(composite(fg, bg, alpha), alpha, trimap, fg, bg)
