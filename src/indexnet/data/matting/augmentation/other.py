"""Operations that are not linear in the colour, and those that mix neighbouring pixels: no alpha explains their result.

Of the paper (Dai et al., CVPR 2022, section 5.3); strengths are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from indexnet.data.base import Float32, UInt8
from indexnet.data.degradations import compress_jpeg
from indexnet.data.matting.augmentation.linear import WHITE, Change, Draw, Shape


def gamma(shape: Shape, rng: np.random.Generator) -> Change:
    """Gamma 0.6 to 1.6."""
    power = np.float32(rng.uniform(0.6, 1.6))
    return lambda image: WHITE * (np.clip(image, 0, WHITE) / WHITE) ** power


def hue_and_saturation(shape: Shape, rng: np.random.Generator) -> Change:
    """Hue by up to 25 degrees, saturation by up to 40."""
    turn, more = np.float32(rng.uniform(-25, 25)), np.float32(rng.uniform(-40, 40) / 255)

    def change(image: Float32) -> Float32:
        hsv = np.asarray(cv2.cvtColor(np.clip(image, 0, WHITE) / WHITE, cv2.COLOR_RGB2HSV), np.float32)
        hsv[..., 0] = np.remainder(hsv[..., 0] + turn, 360)
        hsv[..., 1] = np.clip(hsv[..., 1] + more, 0, 1)
        return WHITE * np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)

    return change


def equalisation(shape: Shape, rng: np.random.Generator) -> Change:
    """Equalise the histogram of HSV's value."""

    def change(image: Float32) -> Float32:
        hsv = np.asarray(cv2.cvtColor(to_levels(image), cv2.COLOR_RGB2HSV), np.uint8)
        hsv[..., 2] = cv2.equalizeHist(hsv[..., 2])
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)

    return change


def gaussian_blur(shape: Shape, rng: np.random.Generator) -> Change:
    """Of a deviation of 0.5 to 2 pixels; an alpha matte, (H, W), is taken as well."""
    sigma = float(rng.uniform(0.5, 2))
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def jpeg(shape: Shape, rng: np.random.Generator) -> Change:
    """Compress with a quality of 30 to 95; an alpha matte, (H, W), is taken as well."""
    quality = int(rng.integers(30, 96))
    return lambda image: compress_jpeg(to_levels(image), quality, rng).astype(np.float32)


def to_levels(image: Float32) -> UInt8:
    """Round float values on the scale of 0..255 to whole levels."""
    return np.rint(np.clip(image, 0, WHITE)).astype(np.uint8)


NONLINEAR: Mapping[str, Draw] = {"gamma": gamma, "hue_and_saturation": hue_and_saturation, "equalisation": equalisation}
REGION: Mapping[str, Draw] = {"gaussian_blur": gaussian_blur, "jpeg": jpeg}
