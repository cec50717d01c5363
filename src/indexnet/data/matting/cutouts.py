"""What a matte is for: cutting an object out, and putting it before another background."""

from __future__ import annotations

import os

import cv2
import numpy as np
from PIL import ImageColor

from indexnet.core.errors import UserError
from indexnet.data.base import Float32, UInt8
from indexnet.data.io.images import read_image
from indexnet.data.matting.estimate import estimate_foreground

_MARGIN = 16  # pixels around an object that get its colours too, so that a cut-out can be scaled and filtered
_STRIP = 256  # rows that are composed at a time: float32 copies of a large photograph would take gigabytes


def foreground_colours(image: UInt8, alpha: Float32) -> UInt8:
    """Return the colours of what a matte cuts out: the image's own where alpha is 1, estimated where it is mixed.

    Only the part of the image that the matte touches is worked on; beyond it colours are 0.

    Args:
        image: (H, W, 3), uint8, RGB.
        alpha: (H, W), float32 in [0, 1].

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UserError: pymatting is not installed.
    """
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    colours = np.zeros_like(image)
    if not len(rows):
        return colours
    part = tuple(slice(max(0, int(at[0]) - _MARGIN), int(at[-1]) + 1 + _MARGIN) for at in (rows, columns))
    inside, opaque = image[part], (alpha[part] == 1)[..., None]
    estimated = inside if opaque.all() else estimate_foreground(inside, alpha[part])
    colours[part] = np.where(opaque, inside, estimated)
    return colours


def cut_out(image: UInt8, alpha: Float32, colours: UInt8 | None = None) -> UInt8:
    """Cut an object out of its background.

    Args:
        image: (H, W, 3), uint8, RGB.
        alpha: (H, W), float32 in [0, 1].
        colours: what :func:`foreground_colours` returned, where it is known already.

    Returns:
        uint8 (H, W, 4), RGBA; colours are not multiplied by alpha, which is rounded to 8 bits.

    Raises:
        UserError: pymatting is not installed.
    """
    found = foreground_colours(image, alpha) if colours is None else colours
    return np.dstack([found, np.rint(alpha * 255).astype(np.uint8)])


def on_background(image: UInt8, alpha: Float32, background: UInt8, colours: UInt8 | None = None) -> UInt8:
    """Put an object before another background.

    Args:
        image: (H, W, 3), uint8, RGB.
        alpha: (H, W), float32 in [0, 1].
        background: uint8, a picture (h, w, 3), which is scaled until it covers the image and cut to its middle; or a
            colour (3,).
        colours: what :func:`foreground_colours` returned, where it is known already.

    Returns:
        uint8 (H, W, 3), RGB, rounded.

    Raises:
        UserError: pymatting is not installed.
    """
    found = foreground_colours(image, alpha) if colours is None else colours
    behind = np.broadcast_to(background, image.shape) if background.ndim == 1 else fill(background, *alpha.shape)
    result = np.empty_like(image)
    for top in range(0, len(image), _STRIP):
        rows = slice(top, top + _STRIP)
        weight = alpha[rows, :, None].astype(np.float32)
        mixed = weight * found[rows] + (1 - weight) * behind[rows]
        result[rows] = np.rint(mixed).astype(np.uint8)
    return result


def fill(background: UInt8, height: int, width: int) -> UInt8:
    """Scale a picture, keeping its shape, until it covers a size, and cut the middle out.

    Args:
        background: (h, w, 3), uint8.
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        uint8 (height, width, 3).
    """
    h, w = background.shape[:2]
    scale = max(height / h, width / w)
    size = (max(width, round(w * scale)), max(height, round(h * scale)))
    if size != (w, h):
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        background = np.asarray(cv2.resize(background, size, interpolation=method), np.uint8)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return background[top : top + height, left : left + width]


def read_background(text: str) -> UInt8:
    """Read what ``--background`` names: an image file, or a colour such as ``#ffffff`` or ``white``.

    Returns:
        uint8 (h, w, 3) of a file, (3,) of a colour, RGB.

    Raises:
        UserError: it is neither, or the file cannot be read.
    """
    if os.path.exists(text):
        return read_image(text, srgb=True)
    try:
        return np.array(ImageColor.getrgb(text)[:3], np.uint8)
    except ValueError as error:
        raise UserError(
            f"the background {text!r} is neither a file nor a colour; give an image, or a colour such as '#3060ff' "
            "(in quotes) or white."
        ) from error
