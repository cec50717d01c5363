"""Mattes that were found on a smaller copy, at the photograph's own size."""

from __future__ import annotations

import cv2
import numpy as np

from indexnet.core.conventions import UNKNOWN
from indexnet.data.base import Float32, UInt8

_RADIUS = 1  # pixels of the small copy
_EPSILON = 1e-5  # of colours in [0, 1]: what varies less than 0.003 tells nothing


def enlarge_alpha(alpha: Float32, small: UInt8, image: UInt8, trimap: UInt8) -> Float32:
    """Bring a matte to the size of the photograph: a fast guided filter (He and Sun, arXiv 1505.00996).

    In every window of the small copy alpha is fitted as a linear function of the colours, which is what closed-form
    matting assumes as well; the functions are enlarged, and applied to the photograph's colours, so that edges are as
    sharp as there.

    Args:
        alpha: (h, w), float32 in [0, 255], of the small copy.
        small: (h, w, 3), uint8, RGB.
        image: (H, W, 3), uint8, RGB.
        trimap: (H, W), uint8 in {0, 128, 255}, whose known pixels are taken as they are.

    Returns:
        (H, W), float32 in [0, 255].
    """
    height, width = trimap.shape
    guide, target = np.asarray(small / 255, np.float32), np.asarray(alpha / 255, np.float32)
    means, mean = _mean(guide), _mean(target)
    products = _mean(np.einsum("hwi,hwj->hwij", guide, guide).reshape(*alpha.shape, 9))
    spread = (
        products.reshape(*alpha.shape, 3, 3)
        - np.einsum("hwi,hwj->hwij", means, means)
        + _EPSILON * np.eye(3, dtype=np.float32)
    )
    common = _mean(guide * target[..., None]) - means * mean[..., None]
    slopes = np.linalg.solve(spread, common[..., None])[..., 0]
    offset = mean - (slopes * means).sum(-1)
    enlarged = _resized(_mean(offset), width, height)
    for channel in range(3):  # plane by plane: float32 copies of a large photograph would take gigabytes
        enlarged += _resized(_mean(slopes[..., channel]), width, height) * (image[..., channel] / np.float32(255))
    return np.where(trimap == UNKNOWN, np.clip(enlarged, 0, 1) * 255, trimap).astype(np.float32)


def _mean(plane: Float32) -> Float32:
    """Return means over windows; any number of channels, as cv2.blur takes."""
    side = 2 * _RADIUS + 1
    return np.asarray(
        cv2.blur(np.ascontiguousarray(plane), (side, side), borderType=cv2.BORDER_REFLECT_101), np.float32
    )


def _resized(plane: Float32, width: int, height: int) -> Float32:
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
