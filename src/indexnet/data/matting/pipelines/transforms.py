"""Steps that pipelines share: distances to the unknown region, crops around it, backgrounds, resizing.

Colours and alpha are interpolated (bicubic values beyond 0..255 are cut off), trimaps never: their values must not be
mixed.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from indexnet.data.base import UInt8
from indexnet.data.matting.compositing import composite, cover
from indexnet.data.matting.pipelines.base import Targets

FAR = 255
_TRIES = 256


def distance_to_mixed(alpha: UInt8) -> UInt8:
    """Return every pixel's Euclidean distance to the nearest pixel whose alpha is neither 0 nor 255.

    Whoever asks for the pixels within a whole number of pixels, up to 254, gets what the exact distance would give,
    from a comparison instead of a distance transform.

    Args:
        alpha: (H, W), uint8.

    Returns:
        uint8 (H, W): the distance rounded up, at most 255; 255 everywhere where alpha is 0 and 255 only.
    """
    known = ((alpha == 0) | (alpha == 255)).view(np.uint8)
    if known.all():
        return np.full(alpha.shape, FAR, np.uint8)
    # exact distances are square roots of whole numbers, and in single precision those of squares are whole
    far = cv2.distanceTransform(known, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(np.minimum(np.ceil(far), FAR), np.uint8)


def choose_pixel(
    field: UInt8, low: int, high: int, rows: slice, columns: slice, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Choose one of the pixels of a window whose value lies in [low, high], all with the same chance.

    Pixels of the window are drawn until one fits, since most fields have many; only where that takes too long are the
    fitting ones looked for. Either way each of them is as likely as the others.

    Args:
        field: (H, W), uint8.
        low: smallest value that fits.
        high: largest value that fits.
        rows: of the window.
        columns: of the window.
        rng: source of what is random.

    Returns:
        (y, x) in ``field``; None where no pixel fits.
    """
    window = field[rows, columns]
    if not window.size:
        return None
    top, left = rows.indices(field.shape[0])[0], columns.indices(field.shape[1])[0]
    ys, xs = rng.integers(window.shape[0], size=_TRIES), rng.integers(window.shape[1], size=_TRIES)
    seen = window[ys, xs]
    fits = np.flatnonzero((seen >= low) & (seen <= high))
    if fits.size:
        return top + int(ys[fits[0]]), left + int(xs[fits[0]])
    found = np.flatnonzero((window >= low) & (window <= high))
    if not found.size:
        return None
    y, x = divmod(int(found[rng.integers(found.size)]), window.shape[1])
    return top + y, left + x


def corner_around(field: UInt8, low: int, high: int, side: int, last: int, rng: np.random.Generator) -> tuple[int, int]:
    """Choose a square crop around a pixel whose value lies in [low, high].

    The pixel is one around which the crop fits into the image; where there is none, any, and the crop is moved inside;
    where no pixel fits at all, the crop lies anywhere.

    Args:
        field: (H, W), uint8; both at least ``side``.
        low: smallest value that fits.
        high: largest value that fits.
        side: of the crop, in pixels.
        last: 1 if a pixel may lie ``side // 2`` before the lower and the right edge, else 0.
        rng: source of what is random.

    Returns:
        (top, left) of the crop.
    """
    height, width = field.shape
    half = side // 2
    inside = [slice(half, max(half, length - half + last)) for length in (height, width)]
    centre = choose_pixel(field, low, high, inside[0], inside[1], rng)
    if centre is None:
        centre = choose_pixel(field, low, high, slice(0, height), slice(0, width), rng)
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
    """Compose the image of aligned layers as the published composites are, computing only where both are seen."""
    image = np.asarray(cv2.copyTo(fg, (alpha == 255).view(np.uint8), bg.copy()), np.uint8)
    mixed = (alpha > 0) & (alpha < 255)
    image[mixed] = composite(fg[mixed], bg[mixed], alpha[mixed])
    return Targets(image, alpha, trimap, fg, bg)
