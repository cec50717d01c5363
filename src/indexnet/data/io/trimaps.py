"""Trimaps from alpha mattes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.data.base import UInt8

Bool = npt.NDArray[np.bool_]


def quantise(alpha: npt.NDArray[np.floating] | UInt8) -> UInt8:
    """Return an alpha matte on the scale of 0..255: floating point in [0, 1] is clipped, scaled and rounded."""
    if alpha.dtype == np.uint8:
        return np.asarray(alpha, np.uint8)
    return np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8)


def trimap_from_alpha(alpha: npt.NDArray[np.floating] | UInt8, distance: int) -> UInt8:
    """Return the trimap of an alpha matte.

    Unknown is every pixel within ``distance`` (Euclidean, exact) of a pixel that is neither 0 nor 255; of the others,
    255 is foreground. A matte without such pixels has no unknown region. This is the generator of the released IndexNet
    code, which draws ``distance`` from 1..19 at a training crop's full resolution.

    Args:
        alpha: (H, W), uint8, or floating point in [0, 1], which is rounded to 8 bits first.
        distance: dilation in pixels, at least 0.

    Returns:
        uint8 (H, W) in {0, 128, 255}.
    """
    matte = quantise(alpha)
    trimap = np.asarray(cv2.threshold(matte, 254, 255, cv2.THRESH_BINARY)[1], np.uint8)
    mixed = matte - np.uint8(1) < 254
    left, top, width, height = cv2.boundingRect(mixed.view(np.uint8))
    if width:
        around = (
            slice(max(0, top - distance), top + height + distance),
            slice(max(0, left - distance), left + width + distance),
        )
        trimap[around][_near(mixed[around], distance)] = 128
    return trimap


def _near(mask: Bool, distance: int) -> Bool:
    """Return which pixels lie within a distance of the mask."""
    if distance > 64:
        far = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.asarray(far <= distance)
    return _dilated(mask, _disc(int(distance)))


def _dilated(mask: Bool, rows: Mapping[int, tuple[int, int]]) -> Bool:
    """Dilate by a shape that has no gaps in its rows: a pixel of the result is set where any of the shape is.

    The mask is one long integer, a bit a pixel with some empty columns after each row, so that a shift moves the whole
    image. It is widened step by step, and laid down at the heights where the shape is as wide.

    Args:
        mask: (H, W).
        rows: the first and the last column of each row of the shape, both counted from the pixel in question.
    """
    height, width = mask.shape
    stride = width + max(max(last, -first, 0) for first, last in rows.values())
    padded = np.zeros((height, stride), np.bool_)
    padded[:, :width] = mask
    packed = np.packbits(padded)
    spare = 8 * packed.size - height * stride  # bits that fill the last byte
    wide = int.from_bytes(packed.tobytes(), "big") >> spare
    result, reach = 0, 0  # ``wide`` holds what lies 0 .. reach columns to the right
    for dy, (first, last) in sorted(rows.items(), key=lambda row: row[1][1] - row[1][0]):
        while reach < last - first:
            step = min(reach + 1, last - first - reach)
            wide |= wide << step
            reach += step
        shift = dy * stride + first
        result |= wide << shift if shift >= 0 else wide >> -shift
    result &= (1 << height * stride) - 1
    unpacked = np.frombuffer((result << spare).to_bytes(packed.size, "big"), np.uint8)
    return np.unpackbits(unpacked, count=height * stride).reshape(height, stride)[:, :width].view(np.bool_)


@lru_cache(maxsize=128)
def _disc(radius: int) -> dict[int, tuple[int, int]]:
    """Rows of all pixels at a Euclidean distance of at most ``radius``."""
    half = {dy: math.isqrt(radius * radius - dy * dy) for dy in range(-radius, radius + 1)}
    return {dy: (-reach, reach) for dy, reach in half.items()}


@lru_cache(maxsize=128)
def _ellipse(width: int) -> dict[int, tuple[int, int]]:
    """Rows of OpenCV's ellipse of this width and height; its middle is the pixel ``width // 2``."""
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    middle = int(width) // 2
    columns = [np.flatnonzero(row) - middle for row in ellipse]
    return {y - middle: (int(found[0]), int(found[-1])) for y, found in enumerate(columns)}


class ErodedTrimap:
    """A trimap of :func:`eroded_trimap` of which only what is asked for is made.

    Args:
        alpha: see there; so are the others.
        foreground: width of an ellipse.
        background: of the other one.
    """

    def __init__(self, alpha: npt.NDArray[np.floating] | UInt8, foreground: int, background: int) -> None:
        self._alpha, self._widths = alpha, (foreground, background)
        self.shape: tuple[int, int] = alpha.shape

    def __getitem__(self, window: tuple[slice, slice]) -> UInt8:
        reach = max(self._widths) // 2
        spans = [at.indices(length)[:2] for at, length in zip(window, self.shape, strict=True)]
        rows, columns = (slice(max(0, first - reach), last + reach) for first, last in spans)
        made = eroded_trimap(self._alpha[rows, columns], *self._widths)
        (top, bottom), (left, right) = spans
        return made[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]


def eroded_trimap(alpha: npt.NDArray[np.floating] | UInt8, foreground: int, background: int) -> UInt8:
    """Return the trimap whose known regions are those of an alpha matte, eroded by ellipses.

    This is the generator of GCA matting, which draws both widths from 1..29, independently.

    Args:
        alpha: (H, W), uint8, or floating point in [0, 1], of which what differs by less than 1e-5 from 0 or 1 is known.
        foreground: width and height of the ellipse by which the region of alpha 1 is eroded, in pixels, at least 1.
        background: of that of alpha 0.

    Returns:
        uint8 (H, W) in {0, 128, 255}.
    """
    if alpha.dtype == np.uint8:
        solid, clear = alpha == 255, alpha == 0
    else:
        solid, clear = alpha + 1e-5 >= 1, 1 - alpha + 1e-5 >= 1
    # what is eroded is what the rest, dilated, leaves; beyond the image there is nothing of either
    not_solid, not_clear = _dilated(~solid, _ellipse(foreground)), _dilated(~clear, _ellipse(background))
    return (255 - 127 * not_solid.view(np.uint8)) * not_clear.view(np.uint8)
