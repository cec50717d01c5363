"""Trimaps from alpha mattes."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.data.base import UInt8


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
    trimap = np.where(matte == 255, np.uint8(255), np.uint8(0))
    mixed = (matte != 0) & (matte != 255)
    if mixed.any():
        trimap[_dilated(mixed, distance)] = 128
    return trimap


def _dilated(mask: npt.NDArray[np.bool_], distance: int) -> npt.NDArray[np.bool_]:
    """Dilate by an exact disc: all pixels at a Euclidean distance of at most ``distance`` from the mask.

    A disc is a stack of rows, so that the mask is widened pixel by pixel and laid down at the heights where the disc is
    as wide. The mask is one long integer, a bit a pixel with ``distance`` empty columns after each row, so that a shift
    moves the whole image; a small disc takes a quarter of the time of an exact distance transform.
    """
    height, width = mask.shape
    if distance > 64:
        far = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.asarray(far <= distance)
    stride = width + distance
    packed = np.packbits(np.pad(mask, ((0, 0), (0, distance))))
    spare = 8 * packed.size - height * stride  # bits that fill the last byte
    wide = int.from_bytes(packed.tobytes(), "big") >> spare
    result = wide
    half_widths = [math.isqrt(distance * distance - dy * dy) for dy in range(distance + 1)]
    for half in range(distance + 1):
        if half:
            wide |= (wide << 1) | (wide >> 1)
        for dy in range(distance + 1):
            if half_widths[dy] == half:
                result |= (wide << dy * stride) | (wide >> dy * stride)
    result &= (1 << height * stride) - 1
    unpacked = np.frombuffer((result << spare).to_bytes(packed.size, "big"), np.uint8)
    return np.unpackbits(unpacked, count=height * stride).reshape(height, stride)[:, :width].view(np.bool_)


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
    trimap = np.full(alpha.shape, 128, np.uint8)
    for value, mask, width in ((255, solid, foreground), (0, clear, background)):
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        trimap[cv2.erode(mask.view(np.uint8), ellipse) > 0] = value
    return trimap
