"""What a matte is for: cutting an object out, and putting it before another background."""

from __future__ import annotations

import os
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import ImageColor

from indexnet.core.errors import UserError
from indexnet.data.base import Float32, UInt8
from indexnet.data.io.images import read_image
from indexnet.data.matting.estimate import estimate_foreground

_MARGIN = 16  # pixels around an object that get its colours too, so that a cut-out can be scaled and filtered
_STRIP = 256  # rows that are composed at a time: float32 copies of a large photograph would take gigabytes
_BLUR = 0.02  # standard deviation of a blur of which nothing else is said, relative to the longer side
_CELLS = 8  # to a standard deviation: pixels are averaged to cells first, which a wide blur does not show
_WIDEST = 1000.0  # pixels


@dataclass(frozen=True)
class Blur:
    """The photograph's own background, blurred by a Gaussian, in the place of another.

    Attributes:
        sigma: standard deviation in pixels; None: 2 % of the photograph's longer side.
    """

    sigma: float | None = None


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


def on_background(image: UInt8, alpha: Float32, background: UInt8 | Blur, colours: UInt8 | None = None) -> UInt8:
    """Put an object before another background.

    Args:
        image: (H, W, 3), uint8, RGB.
        alpha: (H, W), float32 in [0, 1].
        background: uint8, a picture (h, w, 3), which is scaled until it covers the image and cut to its middle; or a
            colour (3,); or a blur of its own.
        colours: what :func:`foreground_colours` returned, where it is known already.

    Returns:
        uint8 (H, W, 3), RGB, rounded.

    Raises:
        UserError: pymatting is not installed.
    """
    found = foreground_colours(image, alpha) if colours is None else colours
    if isinstance(background, Blur):
        behind = blurred_background(image, alpha, found, background.sigma)
    else:
        behind = np.broadcast_to(background, image.shape) if background.ndim == 1 else fill(background, *alpha.shape)
    result = np.empty_like(image)
    for top in range(0, len(image), _STRIP):
        rows = slice(top, top + _STRIP)
        weight = alpha[rows, :, None].astype(np.float32)
        mixed = weight * found[rows] + (1 - weight) * behind[rows]
        result[rows] = np.rint(mixed).astype(np.uint8)
    return result


def blurred_background(image: UInt8, alpha: Float32, colours: UInt8, sigma: float | None = None) -> UInt8:
    """Blur a photograph's background so that nothing of the object bleeds into it.

    What is blurred is the share of every pixel that is not the object's, ``image - alpha * colours``, and its weight
    ``1 - alpha``; their quotient is the background (normalised convolution; Knutsson and Westin, CVPR 1993). Pixels
    beyond the border weigh nothing.

    Args:
        image: (H, W, 3), uint8, RGB.
        alpha: (H, W), float32 in [0, 1].
        colours: of the object, what :func:`foreground_colours` returned.
        sigma: standard deviation of the Gaussian in pixels; None: 2 % of the longer side.

    Returns:
        uint8 (H, W, 3); as it shows behind the object, within three levels of the exact one.
    """
    height, width = alpha.shape
    sigma = _BLUR * max(height, width) if sigma is None else sigma
    cell = max(1, int(sigma / _CELLS))
    rows, columns = -(-height // cell), -(-width // cell)
    cells, strip = np.empty((rows, columns, 4), np.float32), max(1, _STRIP // cell)
    for first in range(0, rows, strip):
        part = slice(first * cell, (first + strip) * cell)
        weight = 1 - alpha[part, :, None]
        share = np.clip(image[part] - alpha[part, :, None] * colours[part], 0, 255 * weight)
        share = cv2.copyMakeBorder(  # to whole cells
            np.dstack([share, weight]), 0, -len(share) % cell, 0, -width % cell, cv2.BORDER_CONSTANT
        )
        size = (columns, len(share) // cell)
        cells[first : first + strip] = cv2.resize(share, size, interpolation=cv2.INTER_AREA)
    cv2.GaussianBlur(cells, (0, 0), sigma / cell, dst=cells, borderType=cv2.BORDER_CONSTANT)
    smooth = cells[..., :3]
    smooth /= np.maximum(cells[..., 3:], np.finfo(np.float32).tiny)
    coarse = np.rint(smooth, out=smooth).astype(np.uint8)
    whole = cv2.resize(coarse, (columns * cell, rows * cell), interpolation=cv2.INTER_LINEAR)
    return np.asarray(whole[:height, :width], np.uint8)


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


def read_background(text: str) -> UInt8 | Blur:
    """Read what ``--background`` names: ``blur``, ``blur:SIGMA``, an image file, or a colour such as ``#ffffff``.

    A file that is called ``blur`` is ``./blur``.

    Returns:
        uint8 (h, w, 3) of a file, (3,) of a colour, RGB; or the blur.

    Raises:
        UserError: it is none of these, the file cannot be read, or SIGMA is not above 0 and at most 1000.
    """
    word, colon, sigma = text.partition(":")
    if word == "blur":
        return Blur(_read_sigma(sigma) if colon else None)
    if os.path.exists(text):
        return read_image(text, srgb=True)
    try:
        return np.array(ImageColor.getrgb(text)[:3], np.uint8)
    except ValueError as error:
        raise UserError(
            f"the background {text!r} is neither a file nor a colour; give an image, a colour such as '#3060ff' "
            "(in quotes) or white, or blur."
        ) from error


def _read_sigma(text: str) -> float:
    try:
        sigma = float(text)
    except ValueError:
        sigma = 0.0
    if not 0 < sigma <= _WIDEST:
        raise UserError(f"the background 'blur:{text}' needs a number of pixels above 0, at most {_WIDEST:g}: blur:20.")
    return sigma
