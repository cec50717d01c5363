"""Arrays to pictures that a person looks at: images, error maps, index maps, classes, depth, and what colours mean.

Every function takes tensors or arrays and returns a contiguous uint8 RGB array, (H, W, 3). Legends
(:func:`label_legend`, :func:`depth_scale`) are drawn with twice the pixels, to be shown at half their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from indexnet.core.conventions import IGNORE
from indexnet.tasks.contact_sheet import shorten

if TYPE_CHECKING:
    from torch import Tensor

    ArrayLike = Tensor | NDArray[Any]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """One picture of a qualitative result.

    Attributes:
        kind: input, target, output, error, trimap, legend or index.
        image: (H, W, 3) uint8.
        caption: what it shows, in a few words.
        entries: what a legend says, as (text, ``#rrggbb``), so that a page can write it out.
    """

    kind: str
    image: np.ndarray[Any, np.dtype[np.uint8]]
    caption: str
    entries: Sequence[tuple[str, str]] = ()


_COLORMAPS: dict[str, Pixels] = {
    name: cv2.applyColorMap(np.arange(256, dtype=np.uint8), number).reshape(256, 3)[:, ::-1].astype(np.uint8)
    for name, number in (("inferno", cv2.COLORMAP_INFERNO), ("viridis", cv2.COLORMAP_VIRIDIS))
}

# The colours of the classes 0..255. The first twelve stay apart under the common colour deficiencies; each further one
# is the one farthest from all before it in OKLab, neither black, paper-white nor grey.
_PALETTE = np.frombuffer(bytes.fromhex(
    "4477aaee6677228833ccbb4466cceeaa3377bbbbbbee773300448888ccaa882255ddaa33ff00ff8000ff00ff00404000aa80ff0000ff"
    "2abf00955500ff95ea550080ffea00d40000ffd4ffaaffbf006aff95956abf00d4ea00956a40aaaa80aa00aaaa4000bfffd495556a55"
    "5595ea00ea955540559555d4802a00aaeaff95d400ffaa95bfaaff00555580556aea6abfaaff559500aa95aa001555bf2abf80ff0055"
    "bf6a55ff6affbf55aa006a0000ffff808015d495aad455eaaa002abf800080aabf6a55ff6a0055006a80ff4000d4406a6a152aaa2aff"
    "5515ea556ad4806aaa6a00bf80aaffffbf0055956a0000bf6a5500d4ea805555800095bf800080aa556aff40d4bfaa80d4d400ff80aa"
    "eabfd4558080402a9500aa40956a55ff954080eabfd480eabfd495d415ff9540409595d495bf6abf009500551540ff80804080ff4095"
    "95ea802a40ff552a6a1540556a9595d4eabf952ad49540aa40d45540bfbf15ffbf00d4aa6aaa806a80ff556a00aa6a000080d4002a95"
    "d45500d42abf6a9500bf005500806a8080d46a40d4d4aad4aad4d455ea402aaad4aabfea006a5500bfffea9580152ad4d4bfffeabf80"
    "95952a9555ffd4806aaa80806a95bfbf95d4aa6ad4556a80009595bf404040552ad4955555402a9555952a559580bf00805540d46a95"
    "6a15956a8055806a2a4040d4956a802a40aa806aea554080552a405555bf00eaffaa40156ad48000aaffbfd4ffffaad4ffd4d4006aaa"
    "ea2a2a8080aa2ad4d4aa8055aaaa55006ad4008095bf9580aaea0000aa806a2a55eaaaffff80802a80ff95ffea9595ffbf40eaaaaad4"
    "9500004055ea00ead4d4555595ff95ead46aaad46affaa2a5500aabfbf95d44095ea006ad480bfaa6aaaff6a556abf95bf95006aaa55"
    "bf6aff802a95aabf1580eaea0095008000d46a406aaa2abfeabfaad4ea1580405595006aaa00806a4040ffbfffbf95ffd4aaaa6aaa00"
    "2a00aa80bfff552abfffd4008055aa6a4000ff15aaaa55bf4000ffea00d45540ffeaaa6a80ff15d40080bf558040406aaa80d48040bf"
    "80bfbf95aa80bfaa0055bf55"
), np.uint8).reshape(256, 3)  # fmt: skip

_STRENGTH = 0.65  # share of the class's colour over the image
_INVALID = (96, 96, 96)
"""Where an error is not defined: a grey, which no colour of the map is."""

_PAPER, _INK, _DIM = "#ffffff", "#141414", "#464646"
_FONT, _LINE, _MARGIN, _WIDTH = 26, 44, 16, 520  # pixels of a legend, which is shown at half size
_LONGEST = 30  # characters of a class's name in a legend


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


def colour(values: ArrayLike, colormap: str = "inferno") -> Pixels:
    """Colour a map of numbers in [0, 1] (clipped; NaN counts as 0) from dark to bright.

    Args:
        values: any shape (...).
        colormap: ``inferno`` (black, red, yellow) or ``viridis`` (violet, green, yellow).

    Returns:
        uint8 RGB, (..., 3).
    """
    levels = np.nan_to_num(_array(values).astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
    found: Pixels = _COLORMAPS[colormap][np.rint(np.clip(levels, 0, 1) * 255).astype(np.intp)]
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

    Raises:
        ValueError: the shapes differ, or ``scale`` is not positive.
    """
    a, b = _image(prediction, "a prediction"), _image(target, "a target")
    if a.shape != b.shape:
        raise ValueError(f"prediction and target must have one shape, got {a.shape} and {b.shape}")
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    return colour(np.abs(a - b).mean(axis=0) / scale)


def index_map_picture(index_map: ArrayLike, size: int = 128) -> Pixels:
    """Colour a learned index map, enlarged by whole factors so that its 2x2 cells can be seen.

    The mean over channels is stretched to its own range, because that varies little; a constant map is drawn dark.

    Args:
        index_map: (C, h, w) or (h, w), floating point.
        size: the picture's longer side becomes the largest multiple of the map's that is not above this, and never
            smaller than the map itself.

    Returns:
        uint8 RGB, (H, W, 3), nearest-neighbour enlarged.
    """
    shown = _image(index_map, "an index map").mean(axis=0)
    low, high = float(shown.min()), float(shown.max())
    levels = (shown - low) / (high - low) if high > low else np.zeros_like(shown)
    factor = max(1, size // max(shown.shape))
    return np.ascontiguousarray(colour(levels, "viridis").repeat(factor, axis=0).repeat(factor, axis=1))


def feature_picture(features: ArrayLike, size: int = 512) -> Pixels:
    """Colour a feature map: the mean over channels, stretched to its own range; a constant map is drawn dark.

    Args:
        features: (C, h, w), floating point.
        size: a map whose longer side is larger is shrunk to it.

    Returns:
        uint8 RGB, (H, W, 3).
    """
    mean = _image(features, "a feature map").mean(axis=0, keepdims=True)
    scale = size / max(mean.shape[1:])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in mean.shape[1:])
        mean = cv2.resize(mean[0], (width, height), interpolation=cv2.INTER_AREA)[None]
    return index_map_picture(mean, size=0)


def label_overlay(image: ArrayLike, labels: ArrayLike, classes: int) -> Pixels:
    """Colour an image by its classes: the image's brightness under the colours, pixels that do not count dark and grey.

    The image's own colours are left out, so that every class keeps the hue that the legend shows.

    Args:
        image: (1, H, W), (3, H, W) or (H, W), values in [0, 1].
        labels: (H, W), integers in [0, classes), or 255 where a pixel does not count.
        classes: number of classes. The first 256 have a colour each, whatever their number; then they repeat.

    Raises:
        ValueError: a wrong shape, sizes that differ, or a label outside the range.
    """
    array, picture = _array(labels).astype(np.intp), to_picture(image)
    if picture.shape[:2] != array.shape:
        raise ValueError(f"image and labels must have one size, got {picture.shape[:2]} and {array.shape}")
    counted = array != IGNORE
    wrong = counted & ((array < 0) | (array >= classes))
    if wrong.any():
        raise ValueError(f"labels must be in 0..{classes - 1}, got {array[wrong].flat[0]}")
    grey = (picture @ np.array([0.299, 0.587, 0.114]))[..., None]  # luma, Rec. 601
    mixed = (1 - _STRENGTH) * grey + _STRENGTH * _PALETTE[array % 256]
    pixels: Pixels = np.rint(np.where(counted[..., None], mixed, 0.4 * grey)).astype(np.uint8)
    return pixels


def label_entries(names: Sequence[str], present: Sequence[int]) -> list[tuple[str, str]]:
    """Say which colour is which class, for the classes that occur; arguments and errors as for :func:`label_legend`.

    Returns:
        (name, colour as ``#rrggbb``) in the order of the classes' numbers.
    """
    wanted = sorted({int(number) for number in present})
    if any(number != IGNORE and not 0 <= number < len(names) for number in wanted):
        raise ValueError(f"classes must be in 0..{len(names) - 1}, got {wanted}")
    found = [(names[n], f"#{bytes(_PALETTE[n % 256]).hex()}") for n in wanted if n != IGNORE]
    return found + ([("not labelled", _DIM)] if IGNORE in wanted else [])


def label_legend(names: Sequence[str], present: Sequence[int]) -> Pixels:
    """Draw which colour is which class, for the classes that occur.

    Args:
        names: of all classes, in the order of their numbers.
        present: numbers of the classes to show, in any order; with 255 among them, a line says what is dim.

    Returns:
        uint8 RGB, (H, W, 3), to be shown at half its size.

    Raises:
        ValueError: a number that is no class's.
    """
    found = label_entries(names, present) or [("no class", "")]
    entries = [(shorten(name, lambda text: len(text) <= _LONGEST), colour) for name, colour in found]
    columns = 1 if len(entries) <= 5 else 2 if len(entries) <= 20 else 3
    lines = math.ceil(len(entries) / columns)
    font = ImageFont.load_default(size=_FONT)
    swatch = _LINE - 14
    width = max(math.ceil(font.getlength(text)) for text, _ in entries) + swatch + 4 * _MARGIN
    sheet = Image.new("RGB", (columns * width, lines * _LINE + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (text, fill) in enumerate(entries):
        x, y = _MARGIN + index // lines * width, _MARGIN // 2 + index % lines * _LINE
        if fill:
            draw.rectangle((x, y + 7, x + swatch, y + 7 + swatch), fill=fill)
        draw.text((x + swatch + _MARGIN, y + _LINE / 2), text, fill=_INK, font=font, anchor="lm")
    return np.array(sheet, np.uint8)


def _depth(values: ArrayLike, what: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return depth (H, W) in metres and where it was measured: finite and above 0."""
    array = _image(values, what)
    if array.shape[0] != 1:
        raise ValueError(f"{what} must have one channel, got {array.shape[0]}")
    return array[0], np.isfinite(array[0]) & (array[0] > 0)


def depth_map(depth: ArrayLike, low: float, high: float) -> Pixels:
    """Colour depth: violet is near, yellow is far, black was not measured.

    Args:
        depth: (1, H, W) or (H, W) in metres; 0, less, or not finite where nothing was measured.
        low: depth of the first colour; nearer ones share it.
        high: depth of the last colour; farther ones share it.

    Raises:
        ValueError: another shape, or ``high`` below ``low``.
    """
    _check_range(low, high)
    array, valid = _depth(depth, "a depth map")
    pixels = colour((np.where(valid, array, low) - low) / (high - low if high > low else 1.0), "viridis")
    pixels[~valid] = 0
    return pixels


def depth_error(prediction: ArrayLike, target: ArrayLike, scale: float = 1.0) -> Pixels:
    """Colour the error of depth as :func:`error_map`, grey where none was measured.

    Args:
        prediction: (1, H, W) or (H, W) in metres.
        target: the same shape; 0, less, or not finite where nothing was measured.
        scale: the error that gets the brightest colour, in metres; > 0.

    Raises:
        ValueError: the shapes differ or are others, or ``scale`` is not positive.
    """
    found, valid = _depth(target, "a target")
    pixels = error_map(prediction, np.where(valid, found, 0), scale)
    pixels[~valid] = _INVALID
    return pixels


def depth_scale(low: float, high: float) -> Pixels:
    """Draw the colours of :func:`depth_map` with their metres, and what black means.

    Args:
        low: as for :func:`depth_map`.
        high: as for :func:`depth_map`.

    Returns:
        uint8 RGB, (H, W, 3), to be shown at half its size.

    Raises:
        ValueError: ``high`` is below ``low``.
    """
    _check_range(low, high)
    bar, side = 34, 3 * _MARGIN  # half of the first and the last number stick out beside the bar
    left, right, top = side, _WIDTH - side, _MARGIN
    sheet = Image.new("RGB", (_WIDTH, top + bar + 2 * _LINE + _MARGIN), _PAPER)
    colours = colour(np.linspace(0, 1, right - left), "viridis")
    sheet.paste(Image.fromarray(np.ascontiguousarray(np.broadcast_to(colours, (bar, *colours.shape)))), (left, top))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_FONT)
    ticks, digits = _ticks(low, high)
    for tick in ticks:
        x = left + (tick - low) / (high - low) * (right - left - 1) if high > low else left
        draw.line((x, top + bar, x, top + bar + 8), fill=_INK, width=2)
        draw.text((x, top + bar + 12), f"{tick:.{digits}f}", fill=_INK, font=font, anchor="mt")
    y = top + bar + _LINE + _MARGIN
    draw.rectangle((left, y, left + 30, y + 30), fill="#000000")
    draw.text((right, y + 15), "metres", fill=_INK, font=font, anchor="rm")
    draw.text((left + 30 + _MARGIN, y + 15), "not measured", fill=_INK, font=font, anchor="lm")
    return np.array(sheet, np.uint8)


def _check_range(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"a range of depths must be two finite numbers, the lower one first; got {low} and {high}")


def _ticks(low: float, high: float) -> tuple[list[float], int]:
    """Return three to eight round values inside a range, and the decimals that they need."""
    if high <= low:
        return [low], 2
    power = 10.0 ** math.floor(math.log10((high - low) / 7))
    step = next(m * power for m in (1, 2, 5, 10) if (high - low) / (m * power) <= 7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [k * step for k in range(first, last + 1)], digits
