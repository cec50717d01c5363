"""Trimaps from alpha mattes."""

from __future__ import annotations

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
    known = (matte == 0) | (matte == 255)
    trimap = np.where(matte == 255, np.uint8(255), np.uint8(0))
    if known.all():
        return trimap
    trimap[cv2.distanceTransform(known.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= distance] = 128
    return trimap
