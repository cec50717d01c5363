"""Arrays to pictures that a person looks at: images, error maps, index maps, label maps. numpy only.

Every function takes tensors or arrays and returns a contiguous uint8 RGB array, (H, W, 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    ArrayLike = Tensor | NDArray[Any]

Pixels = NDArray[np.uint8]

# Anchors of two perceptually even maps, dark to bright, equally spaced; between them colours are interpolated.
_HEAT = ("#000004", "#280b54", "#65156e", "#9f2a63", "#d44842", "#f57d15", "#fac127", "#fcffa4")
_COOL = ("#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725")

# Twelve hues that stay apart under the common colour deficiencies when neighbours differ in lightness; then repeated.
_LABELS = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"),
    *("#bbbbbb", "#ee7733", "#004488", "#88ccaa", "#882255", "#ddaa33"),
)
_IGNORED = "#000000"


def _rgb(colours: tuple[str, ...]) -> NDArray[np.float64]:
    return np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours], dtype=np.float64)


def _lookup(anchors: tuple[str, ...]) -> Pixels:
    table, at = _rgb(anchors), np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), table[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


_TABLES = {"heat": _lookup(_HEAT), "cool": _lookup(_COOL)}


def _array(values: ArrayLike) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    return np.asarray(values.detach().cpu())


def _image(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """Return (C, H, W) float64 of a (H, W) or (C, H, W) array."""
    array = _array(values).astype(np.float64)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise ValueError(f"{what} must be (C, H, W) or (H, W), got shape {array.shape}")
    return array


def colour(values: ArrayLike, table: str = "heat") -> Pixels:
    """Colour a map of numbers in [0, 1] (clipped; NaN counts as 0) from dark to bright.

    Args:
        values: any shape (...).
        table: ``heat`` (black, red, yellow) or ``cool`` (violet, green, yellow).

    Returns:
        uint8 RGB, (..., 3).
    """
    levels = np.nan_to_num(_array(values).astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
    found: Pixels = _TABLES[table][np.rint(np.clip(levels, 0, 1) * 255).astype(np.intp)]
    return found


def to_picture(image: ArrayLike) -> Pixels:
    """Turn an image into pixels.

    Args:
        image: (1, H, W), (3, H, W) or (H, W), values in [0, 1]; clipped and rounded to the nearest of 256 levels.

    Returns:
        uint8 RGB, (H, W, 3); one channel is repeated.

    Raises:
        ValueError: another shape.
    """
    array = _image(image, "an image")
    if array.shape[0] not in (1, 3):
        raise ValueError(f"an image must have 1 or 3 channels, got {array.shape[0]}")
    pixels = np.rint(np.clip(np.nan_to_num(array), 0, 1) * 255).astype(np.uint8)
    rgb = np.broadcast_to(pixels, (3, *pixels.shape[1:]))
    return np.ascontiguousarray(rgb.transpose(1, 2, 0))


def error_map(prediction: ArrayLike, target: ArrayLike, scale: float = 0.25) -> Pixels:
    """Colour the absolute error, averaged over channels: black is none, light yellow is ``scale`` or more.

    Args:
        prediction: (C, H, W) or (H, W).
        target: the same shape and unit.
        scale: the error that gets the brightest colour, in the unit of the images; > 0.

    Returns:
        uint8 RGB, (H, W, 3).

    Raises:
        ValueError: the shapes differ, or ``scale`` is not positive.
    """
    a, b = _image(prediction, "a prediction"), _image(target, "a target")
    if a.shape != b.shape:
        raise ValueError(f"prediction and target must have one shape, got {a.shape} and {b.shape}")
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    return colour(np.abs(a - b).mean(axis=0) / scale, "heat")


def index_map_picture(
    index_map: ArrayLike,
    channel: int | None = None,
    value_range: tuple[float, float] | None = None,
    size: int = 128,
) -> Pixels:
    """Colour a learned index map, enlarged by whole factors so that its 2x2 cells can be seen.

    Args:
        index_map: (C, h, w) or (h, w), floating point.
        channel: the channel to show; None shows the mean over channels.
        value_range: values of the darkest and the brightest colour; None takes the minimum and maximum shown, because a
            mean over many channels varies little (a constant map is drawn dark).
        size: the picture's longer side becomes the largest multiple of the map's that is not above this, and never
            smaller than the map itself.

    Returns:
        uint8 RGB, (H, W, 3), nearest-neighbour enlarged.

    Raises:
        ValueError: a wrong shape, or a channel that is not there.
    """
    array = _image(index_map, "an index map")
    if channel is not None and not 0 <= channel < array.shape[0]:
        raise ValueError(f"channel must be in 0..{array.shape[0] - 1}, got {channel}")
    shown = array.mean(axis=0) if channel is None else array[channel]
    low, high = value_range or (float(shown.min()), float(shown.max()))
    levels = (shown - low) / (high - low) if high > low else np.zeros_like(shown)
    factor = max(1, size // max(shown.shape))
    return np.ascontiguousarray(colour(levels, "cool").repeat(factor, axis=0).repeat(factor, axis=1))


def label_map(labels: ArrayLike, classes: int, ignore: int | None = 255) -> Pixels:
    """Colour class labels.

    Args:
        labels: (H, W), integers in [0, classes), or ``ignore`` (drawn black).
        classes: number of classes; more than twelve reuse the twelve colours, darkened in steps.
        ignore: the label of pixels that do not count; None where there is none.

    Returns:
        uint8 RGB, (H, W, 3).

    Raises:
        ValueError: not (H, W), or a label outside the range.
    """
    array = _array(labels)
    if array.ndim != 2:
        raise ValueError(f"labels must be (H, W), got shape {array.shape}")
    array = array.astype(np.intp)
    counted = np.ones(array.shape, dtype=bool) if ignore is None else array != ignore
    wrong = counted & ((array < 0) | (array >= classes))
    if wrong.any():
        raise ValueError(f"labels must be in 0..{classes - 1}, got {array[wrong].flat[0]}")
    base = _rgb(_LABELS)
    table = np.concatenate([base * 0.75 ** (start // len(base)) for start in range(0, max(classes, 1), len(base))])
    pixels: Pixels = np.rint(table[np.where(counted, array, 0)]).astype(np.uint8)
    pixels[~counted] = _rgb((_IGNORED,))[0]
    return pixels
