"""What gray images hold, whatever their files look like: values, transparency, and which of the two draws a mask."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from indexnet.core.conventions import IGNORE
from indexnet.core.errors import UserError
from indexnet.data.base import UInt8
from indexnet.data.io.decoding import Decoded, decoder_errors

WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's names for 16-bit gray
_ALPHA_MODES = ("LA", "PA", "La", "RGBA", "RGBa")
FULL_WHITE = 65535
_GRAY_TOLERANCE = 8  # colour channels of a gray JPEG differ by a few levels
_VISIBLE = 16  # of 255: colours of pixels that are clearer are rounded too far to be compared
_MOST_LABELS = 64  # a palette image of more colours is a picture, not a mask


def wide_values(path: str | Path, image: Image.Image) -> npt.NDArray[np.uint16]:
    """Return the values of a 16-bit gray image, refusing one that only holds 8-bit values."""
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > FULL_WHITE):
        raise UserError(f"{path} holds values outside 0..65535; save it as an 8-bit or 16-bit gray PNG.")
    return check_wide(path, values.astype(np.uint16, copy=False))


def check_wide(path: str | Path, values: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Return values of 16 bits, refusing those that only have 8."""
    if 0 < values.max(initial=0) <= 255:
        raise UserError(
            f"{path} is a 16-bit file with no value above 255, so white could be 255 or 65535; save it as an 8-bit PNG."
        )
    return values


def gray_values(path: str | Path, decoded: Decoded) -> tuple[UInt8 | npt.NDArray[np.uint16], int]:
    """Return the values of a gray image and its white: 255, 65535, or 4095 of a file with 12 bits."""
    image = decoded.image
    if image.mode in WIDE_MODES:
        return wide_values(path, image), decoded.levels or FULL_WHITE
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point values; save it as an 8-bit or 16-bit gray PNG.")
    with decoder_errors(path):
        if image.mode in ("L", "LA", "1"):
            return np.array(image if image.mode == "L" else image.convert("L"), np.uint8), 255
        rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    red, green, blue = cv2.split(rgb)
    spread = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
    if int(spread.max()) > _GRAY_TOLERANCE:
        raise UserError(f"{path} is a colour image; a gray one (or three equal channels) was expected.")
    return np.asarray(green, np.uint8), 255


def opacity(path: str | Path, image: Image.Image) -> UInt8 | None:
    """Return how opaque each pixel is, (H, W); None where all are."""
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return None
    with decoder_errors(path):
        if image.mode in WIDE_MODES:  # one value of the image is transparent
            alpha = np.where(np.asarray(image) == image.info["transparency"], 0, 255).astype(np.uint8)
        else:
            alpha = np.asarray(image.convert("RGBA").getchannel("A"), np.uint8)
    return None if alpha.min(initial=255) == 255 else alpha


def drawn_values(path: str | Path, decoded: Decoded, what: str) -> tuple[UInt8 | npt.NDArray[np.uint16], int]:
    """Return the values and the white of a mask or matte: its gray, or its alpha channel where that draws it.

    The alpha channel of a silhouette (one colour everywhere, perhaps multiplied by alpha) or of a cut-out (a picture in
    colours) draws it. With gray levels beside transparency either could be meant in a matte; a mask is drawn by what
    varies, alpha first.

    Raises:
        UserError: it has colours without transparency, is clear everywhere, or is a matte with both gray levels and
            transparency.
    """
    alpha = opacity(path, decoded.image)
    if alpha is None:
        return gray_values(path, decoded)
    seen = alpha >= _VISIBLE
    if not seen.any():
        raise UserError(f"{path} is transparent everywhere; save the {what} as a gray PNG without alpha channel.")
    if decoded.image.mode in WIDE_MODES:
        spread = FULL_WHITE
    else:
        with decoder_errors(path):
            rgb = np.asarray(decoded.image.convert("RGB")).astype(np.int16)
        colours = rgb[seen]
        if int(np.ptp(colours, axis=1).max()) > _GRAY_TOLERANCE:  # a cut-out
            return alpha, 255
        white_on_black = int(np.abs(rgb[..., 1] - alpha).max()) <= _GRAY_TOLERANCE
        spread = 0 if white_on_black else int(np.ptp(colours, axis=0).max())
    if what == "mask" and spread > _GRAY_TOLERANCE:
        return (alpha, 255) if np.ptp(alpha) else gray_values(path, decoded)
    if spread > _GRAY_TOLERANCE:
        raise UserError(
            f"{path} has both gray levels and transparent pixels, and either could be the {what}; save the {what} as a "
            "gray PNG without alpha channel."
        )
    return alpha, 255


def palette_mask(image: Image.Image) -> npt.NDArray[np.bool_] | None:
    """Return what a label map in a palette with colours marks: all but entry 0, which is black; None: it is no such.

    Where there are other labels, 255 is the line around objects that belongs to nothing.
    """
    colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    numbers = np.asarray(image)
    used = np.unique(numbers)
    if not len(colours) or colours[0].any() or len(used) > _MOST_LABELS or used[-1] >= len(colours):
        return None
    if not np.ptp(colours[used].astype(np.int16), axis=1).max() > _GRAY_TOLERANCE:
        return None
    several = len(np.setdiff1d(used, (0, IGNORE))) > 0
    return (numbers > 0) & ((numbers != IGNORE) if several else True)
