"""The published definitions of matting errors written down step by step, slowly, with scipy and scikit-image.

Mattes are float32 (H, W) on the scale of 0..255, trimaps uint8 in {0, 128, 255}. Results are sums over ``counted``, not
divided by 1000 or 10.
"""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label, regionprops

Matte = NDArray[np.float32]
Mask = NDArray[np.bool_]


def literal(
    name: str,
    prediction: NDArray[Any],
    target: NDArray[Any],
    trimap: NDArray[Any],
    semantics: str = "matlab",
    region: str = "unknown",
    unused_distances: bool = False,
) -> float:
    """The number that the metric ``name`` gives for one image; see :func:`connectivity` for the last argument."""
    prediction, target = prediction.astype(np.float32), target.astype(np.float32)
    unknown = trimap == 128
    if semantics == "mmediting":
        prediction = np.where(unknown, prediction, trimap.astype(np.float32))
    counted = unknown if region == "unknown" else np.ones_like(unknown)
    if semantics == "released_python":
        prediction, target = stretched(prediction), stretched(target)
    if name in ("sad", "mse"):
        difference = (prediction.astype(np.float64) - target) / 255
        error = np.abs(difference) if name == "sad" else difference**2
        total = error.sum() if semantics == "mmediting" else error[counted].sum()
        if name == "mse":
            return float(total / counted.sum()) if counted.any() else 0.0
    elif name == "grad":
        total = gradient(prediction, target, counted, semantics)
    else:
        total = connectivity(prediction, target, counted, semantics, unused_distances)
    if region == "image":
        return float(total / counted.size)
    return float(total / (10 if (name, semantics) == ("grad", "released_python") else 1000))


def stretched(matte: Matte) -> Matte:
    """A float32 matte from 0 to 255, as the released code stretches it before every metric."""
    result = matte.copy()
    cv2.normalize(result, result, 0.0, 255.0, cv2.NORM_MINMAX, dtype=cv2.CV_32F)
    return result


def gradient(prediction: Matte, target: Matte, counted: Mask, semantics: str) -> float:
    """Squared differences of gradient magnitudes."""
    magnitude = gaussian_magnitude if semantics == "released_python" else kernel_magnitude
    return float(((magnitude(prediction) - magnitude(target)) ** 2)[counted].sum(dtype=np.float64))


def gaussian_magnitude(matte: Matte) -> Any:
    """Released code: scipy's Gaussian derivatives of a matte on the scale of 0..255."""
    parts = [ndimage.gaussian_filter(matte / 255, 1.4, order=order, output=np.float32) for order in ([1, 0], [0, 1])]
    return np.sqrt(parts[0] ** 2 + parts[1] ** 2)


def kernel_magnitude(matte: Matte) -> Any:
    """Matlab code: a two-dimensional kernel of L2 norm 1 on the matte that its own extremes stretch to [0, 1]."""
    matte = matte.astype(np.float64)
    low, high = matte.min(), matte.max()
    matte = (matte - low) / (high - low) if high > low else np.zeros_like(matte)
    sigma, halfsize = 1.4, 4
    kernel = np.zeros((2 * halfsize + 1, 2 * halfsize + 1))
    for i, j in np.ndindex(kernel.shape):
        y, x = i - halfsize, j - halfsize
        kernel[i, j] = np.exp(-(y**2) / (2 * sigma**2)) * -x * np.exp(-(x**2) / (2 * sigma**2))
    kernel /= np.sqrt((kernel**2).sum())
    parts = [ndimage.convolve(matte, k, mode="nearest") for k in (kernel, kernel.T)]
    return np.sqrt(parts[0] ** 2 + parts[1] ** 2)


def connectivity(
    prediction: Matte, target: Matte, counted: Mask, semantics: str, unused_distances: bool = False
) -> float:
    """Differences of connectedness; a largest component is looked for at every threshold.

    ``unused_distances`` also computes the distance maps that the published code computes and never uses.
    """
    pred, true = prediction / np.float32(255), target / np.float32(255)
    thresholds = np.arange(0, 1.1, 0.1)
    if semantics == "matlab":
        thresholds = thresholds.astype(np.float32)
    level = np.full(pred.shape, -1, np.float32)
    for last, threshold in itertools.pairwise(thresholds):
        both = (pred >= threshold) & (true >= threshold)
        source = np.zeros(pred.shape, bool)
        if semantics == "matlab":  # numbers components column by column
            components = regionprops(label(both.T, connectivity=1))
        else:
            components = regionprops(label(both, connectivity=1))
        if components:
            largest = components[int(np.argmax([component.area for component in components]))].coords
            rows, columns = largest.T[::-1] if semantics == "matlab" else largest.T
            source[rows, columns] = True
        elif semantics != "mmediting":
            continue
        level[(level == -1) & ~source] = last
        if unused_distances:
            distances = ndimage.distance_transform_edt(~source)
            distances /= distances.max()
    level[level == -1] = 1
    far = []
    for matte in (pred, true):
        distance = matte - level
        far.append(1 - distance * (distance >= np.float32(0.15)))
    return float(np.abs(far[0] - far[1])[counted].sum(dtype=np.float64))
