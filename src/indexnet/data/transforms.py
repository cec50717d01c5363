"""Joint random transforms of an image and its targets, a single warp each, drawn from the caller's generator.

A transform is an affine map from pixels of the sample to those of the file's image, (2, 3) float64. Whatever it is made
of, crop, scale, rotation, mirroring, it is applied once: bilinear to colours, nearest to labels and depth, which must
never be mixed. Nothing is averaged when it shrinks by more than 2; shrink such images beforehand (``cv2.INTER_AREA``).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.core.conventions import IGNORE
from indexnet.data.base import UInt8

if TYPE_CHECKING:
    from albumentations import ColorJitter

Affine = npt.NDArray[np.float64]
Size = tuple[int, int]
_Array = TypeVar("_Array", bound=npt.NDArray[Any])

# principal colours of ImageNet's pixels in [0, 1], one a column, and their variances
_PRINCIPAL = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
_VARIANCES = np.array([0.2175, 0.0188, 0.0045])

#: The colour that becomes zero when an image is normalised by ImageNet's mean; pads images.
MEAN_COLOUR = (124, 116, 104)


def affine(
    size: Size,
    centre: tuple[float, float],
    zoom: float | tuple[float, float] = 1.0,
    angle: float = 0.0,
    mirrored: bool = False,
) -> Affine:
    """Return the transform that brings one place of an image to the middle of the sample.

    Args:
        size: (height, width) of the sample.
        centre: (y, x) of the place in the image, 0 being its upper, left edge, so that an image's middle is half its
            size.
        zoom: sample pixels per image pixel; two numbers are those of height and width.
        angle: of the rotation, in degrees, clockwise.
        mirrored: whether left and right are swapped; of the turned picture.
    """
    zoom_y, zoom_x = zoom if isinstance(zoom, tuple) else (zoom, zoom)
    radians = np.deg2rad(angle)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    linear = turn @ np.diag([(-1 if mirrored else 1) / zoom_x, 1 / zoom_y])
    middle = np.array([size[1] / 2, size[0] / 2])
    # a pixel's centre lies half a pixel from its edge, in both images
    offset = np.array([centre[1], centre[0]]) - 0.5 + linear @ (0.5 - middle)
    return np.column_stack([linear, offset])


def warp(image: UInt8, matrix: Affine, size: Size, fill: tuple[int, ...] | None = None) -> UInt8:
    """Warp an image, bilinear.

    Args:
        image: (H, W) or (H, W, C).
        matrix: the transform.
        size: (height, width) of the sample.
        fill: the colour outside the image; None repeats its border.

    Returns:
        uint8 (height, width) or (height, width, C).
    """
    return np.asarray(_warp(image, matrix, size, cv2.INTER_LINEAR, fill), np.uint8)


def warp_nearest(target: _Array, matrix: Affine, size: Size, fill: float) -> _Array:
    """Warp labels or depth: the nearest pixel's value, ``fill`` outside.

    Args:
        target: (H, W), uint8, uint16 or float32.
        matrix: the transform.
        size: (height, width) of the sample.
        fill: the value outside the image.

    Returns:
        (height, width), of the same type.
    """
    return _warp(target, matrix, size, cv2.INTER_NEAREST, (fill,))  # type: ignore[no-any-return]


def _warp(array: npt.NDArray[Any], matrix: Affine, size: Size, how: int, fill: tuple[float, ...] | None) -> Any:
    return cv2.warpAffine(
        array,
        matrix,
        (size[1], size[0]),
        flags=how | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT,
        borderValue=() if fill is None else fill,
    )


def random_crop(
    image: UInt8, label: UInt8, size: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[UInt8, UInt8]:
    """Scale, crop and mirror a photograph with its labels, as segmentation networks are trained.

    The scale is drawn from U(low, high), the place of the crop uniformly, mirroring with probability 1/2. Where the
    scaled image is smaller than the crop it lies somewhere inside, surrounded by the mean colour and the ignored label.

    Args:
        image: (H, W, 3) RGB.
        label: (H, W).
        size: side of the crop in pixels.
        scale: (low, high).
        rng: source of what is random.

    Returns:
        uint8 (size, size, 3) and (size, size).
    """
    zoom = float(rng.uniform(*scale))
    centre, inside = [], True
    for length in label.shape:
        room = int(length * zoom + 1e-9) - size  # below 0: that much is padded
        start = int(rng.integers(min(room, 0), max(room, 0) + 1))
        centre.append((start + size / 2) / zoom)
        inside = inside and room >= 0
    matrix = affine((size, size), (centre[0], centre[1]), zoom, mirrored=bool(rng.random() < 0.5))
    fill = None if inside else MEAN_COLOUR
    return warp(image, matrix, (size, size), fill), warp_nearest(label, matrix, (size, size), IGNORE)


def colour_jitter(image: UInt8, strength: float, rng: np.random.Generator) -> UInt8:
    """Change brightness, contrast and saturation, in random order, by factors of U(1 - strength, 1 + strength).

    Args:
        image: (H, W, 3) RGB.
        strength: in [0, 1].
        rng: source of what is random.

    Returns:
        uint8 (H, W, 3).
    """
    brightness, contrast, saturation = (float(factor) for factor in rng.uniform(1 - strength, 1 + strength, 3))
    order = [int(i) for i in rng.permutation(3)]
    return np.asarray(_jitter().apply(image, brightness, contrast, saturation, hue=0.0, order=order), np.uint8)


def lighting_noise(image: UInt8, strength: float, rng: np.random.Generator) -> UInt8:
    """Add one colour to a whole image: along the principal colours of ImageNet, each by N(0, strength) of its variance.

    Source: Krizhevsky et al., ImageNet classification with deep convolutional neural networks, NIPS 2012, section 4.1.

    Args:
        image: (H, W, 3) RGB.
        strength: standard deviation.
        rng: source of what is random.

    Returns:
        uint8 (H, W, 3).
    """
    colour = 255 * _PRINCIPAL @ (rng.normal(0.0, strength, 3) * _VARIANCES)
    return np.asarray(np.clip(np.rint(image + colour), 0, 255), np.uint8)


@functools.lru_cache(maxsize=1)
def _jitter() -> ColorJitter:
    from albumentations import ColorJitter  # takes seconds to import

    return ColorJitter()
