"""``gca``: the online pipeline of guided contextual attention matting, and ``a2u``, what A2U matting made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.data.base import Float32, UInt8
from indexnet.data.io.trimaps import eroded_trimap
from indexnet.data.matting.pipelines.base import Pipeline, Scene, Targets, register_pipeline
from indexnet.data.matting.pipelines.transforms import covered_window

_PUBLISHED = 512
_MERGED, _SQUARE, _MIRRORED = 0.5, 0.25, 0.5  # how often
_TURNED = 1024  # pixels; smaller images are not rotated
_ANGLE, _SHEAR, _ZOOM = 30.0, 10.0, (0.8, 1.25)
_WIDTHS, _HUE = (1, 30), 40
_FEW = 10  # with fewer unknown pixels the crop lies anywhere


@register_pipeline
class Gca(Pipeline):
    """Two objects in one, affine warps, trimaps by erosion, crops around unknown pixels, colours changed.

    In this order, as published:

    1. With probability 1/2 the foreground is laid over another one, scaled to its size, unless alpha becomes 1
       everywhere.
    2. With probability 1/4 it is scaled to 640 x 640.
    3. One warp about the centre: rotation of U(-30, 30) degrees where the longer side has 1024 pixels or more, shear of
       U(-10, 10) degrees, zoom of U(0.8, 1.25) for each axis, each axis mirrored with probability 1/2; empty outside.
    4. The trimap: alpha 1 and 0, eroded by ellipses of 1..29 pixels, drawn independently.
    5. The background is scaled to the foreground's size, whatever its shape. If a side is shorter than 513 all is
       enlarged to 1.1 x 512. The crop of 512 is centred on an unknown pixel around which it fits, looked for on a grid
       of 4 pixels; with fewer than 10 of those it lies anywhere.
    6. Hue (by up to 40 degrees), saturation and value of the foreground change; the composite is not rounded.

    Foreground, alpha and trimap are always scaled to the nearest pixel, backgrounds bicubic. With another ``size`` than
    512 the lengths 640, 1024 and 513 scale along, widths of trimaps do not.

    Colours of two objects in one are those of the 'over' operator, (F a + F2 (1 - a) a2) / a', so that they are right
    where both are transparent; GCA's own code leaves out a2 and the division, later ones have them.

    Attributes:
        mirrors: whether left and right are swapped once more, with probability 1/2, after the warp.
        step: unknown pixels are looked for in every ``step``-th row and column.
        covers: whether a background keeps its shape, see :func:`~.transforms.covered_window`.
    """

    name = "gca"
    mirrors: ClassVar[bool] = False
    step: ClassVar[int] = 4
    covers: ClassVar[bool] = False

    def draw(self, scene: Scene, rng: np.random.Generator) -> Targets:
        colour, alpha = scene.foreground[0], np.float32(1 / 255) * scene.foreground[1]
        unit = self.size / _PUBLISHED
        if rng.random() < _MERGED:
            other = scene.other(int(rng.integers(scene.count)))
            colour, alpha = over(colour, alpha, other[0], np.float32(1 / 255) * other[1])
        if rng.random() < _SQUARE:
            side = round(640 * unit)
            colour, alpha = _nearest(colour, (side, side)), _nearest(alpha, (side, side))
        warp = draw_warp(alpha.shape, _TURNED * unit, rng)
        colour, alpha = warp.apply(colour), warp.apply(alpha)
        if self.mirrors and rng.random() < _MIRRORED:
            colour, alpha = (np.ascontiguousarray(array[:, ::-1]) for array in (colour, alpha))
        widths = [int(width) for width in rng.integers(*_WIDTHS, size=2)]
        colour, alpha, trimap, background = self._crop(
            colour, alpha, eroded_trimap(alpha, *widths), scene.background, rng
        )
        shift = int(rng.integers(-_HUE, _HUE)), float(rng.random()), float(rng.random())
        fg = np.clip(change_colours(colour, alpha, *shift), 0, 255)
        weight = alpha[..., None]
        return Targets(weight * fg + (1 - weight) * background, 255 * alpha, trimap, fg, background)

    def _crop(
        self, colour: UInt8, alpha: Float32, trimap: UInt8, background: UInt8, rng: np.random.Generator
    ) -> tuple[UInt8, Float32, UInt8, UInt8]:
        size = self.size
        height, width = trimap.shape
        if min(height, width) < size + 1:
            zoom = 1.1 * size / min(height, width)
            # rounding down may leave a small image too small
            larger = max(size + 1, int(height * zoom)), max(size + 1, int(width * zoom))
            colour, alpha, trimap = (_nearest(array, larger) for array in (colour, alpha, trimap))
            height, width = larger
        top, left = crop_corner(trimap, size, rng, self.step)
        window = slice(top, top + size), slice(left, left + size)
        if self.covers:
            behind = covered_window(background, (height, width), top, left, size)
        else:
            whole = np.asarray(cv2.resize(background, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
            behind = whole[window]
        return colour[window], alpha[window], trimap[window], behind


@register_pipeline
class A2U(Gca):
    """The pipeline of A2U matting: :class:`Gca` but for what becomes of the background, and more exact crops.

    After the warp left and right are swapped with probability 1/2. Every sample draws its background, which keeps its
    shape: it is enlarged only where it is too small, sizes rounded up, and cut where the foreground is. Unknown pixels
    are looked for at full resolution.

    Source: Y. Dai, H. Lu, C. Shen, Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021, and its code.
    """

    name = "a2u"
    draws_background = True
    mirrors = True
    step = 1
    covers = True


def over(colour: UInt8, alpha: Float32, colour2: UInt8, alpha2: Float32) -> tuple[UInt8, Float32]:
    """Lay one object over another, which is scaled to its size; as it is if nothing transparent would be left.

    Args:
        colour: (H, W, 3), uint8.
        alpha: (H, W), float32 in [0, 1].
        colour2: (h, w, 3), uint8.
        alpha2: (h, w), float32 in [0, 1].

    Returns:
        Colours, uint8 (H, W, 3), and alpha, float32 (H, W).
    """
    below, alpha2 = _nearest(colour2, alpha.shape), _nearest(alpha2, alpha.shape)
    both = 1 - (1 - alpha) * (1 - alpha2)
    if not (both < 1).any():
        return colour, alpha
    mixed = alpha[..., None] * colour + ((1 - alpha) * alpha2)[..., None] * below
    return (mixed / (both[..., None] + np.float32(1e-5))).astype(np.uint8), both


@dataclass(frozen=True)
class Warp:
    """Rotation, shear, zoom and mirroring about an image's centre.

    Attributes:
        angle: in degrees.
        shear: in degrees.
        zoom: of width and of height.
        mirror: -1 where left and right, and where top and bottom, are swapped, else 1.
    """

    angle: float
    shear: float
    zoom: tuple[float, float]
    mirror: tuple[int, int]

    def inverse(self, size: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return which place of an image of (height, width) a place of the result shows; (2, 3), of (x, y, 1)."""
        centre = np.array([size[1] / 2 + 0.5, size[0] / 2 + 0.5])
        angle, both = np.deg2rad(self.angle), np.deg2rad(self.angle + self.shear)
        determinant = np.cos(both) * np.cos(angle) + np.sin(both) * np.sin(angle)
        linear = np.array([[np.cos(angle), np.sin(both)], [-np.sin(angle), np.cos(both)]]) / determinant
        linear *= np.array([[flip / zoom] for flip, zoom in zip(self.mirror, self.zoom, strict=True)])
        return np.column_stack([linear, centre - linear @ centre])

    def apply(self, array: npt.NDArray[Any]) -> Any:
        """Warp an image (H, W[, C]) to the nearest pixel; 0 outside."""
        height, width = array.shape[:2]
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(array, self.inverse(array.shape), (width, height), flags=flags)


def draw_warp(size: tuple[int, ...], turned: float, rng: np.random.Generator) -> Warp:
    """Draw the warp of an image of (height, width), which is rotated if its longer side has ``turned`` pixels."""
    angle = float(rng.uniform(-_ANGLE, _ANGLE)) if max(size) >= turned else 0.0
    shear = float(rng.uniform(-_SHEAR, _SHEAR))
    zoom = float(rng.uniform(*_ZOOM)), float(rng.uniform(*_ZOOM))
    return Warp(angle, shear, zoom, (int(rng.choice((1, -1))), int(rng.choice((1, -1)))))


def crop_corner(trimap: UInt8, size: int, rng: np.random.Generator, step: int = 4) -> tuple[int, int]:
    """Choose a crop centred on an unknown pixel of every ``step``-th row and column; with fewer than 10, anywhere.

    Returns:
        (top, left) of a square of ``size`` pixels inside the trimap, (H, W), of which both are larger.
    """
    height, width = trimap.shape
    margin = size // 2
    small = trimap if step == 1 else _nearest(trimap, (height // step, width // step))
    rows, columns = (slice(margin // step, (length - margin) // step) for length in (height, width))
    ys, xs = np.nonzero(small[rows, columns] == 128)
    if len(ys) < _FEW:
        return int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    # a place counted from the margin is that of the corner
    chosen = int(rng.integers(len(ys)))
    return int(ys[chosen]) * step, int(xs[chosen]) * step


def change_colours(colour: UInt8, alpha: Float32, hue: int, saturation: float, value: float) -> Float32:
    """Change an object's hue, saturation and value, the latter two the more the lower they are.

    Args:
        colour: (H, W, 3), uint8, RGB.
        alpha: (H, W); what is not 0 counts for the means of saturation and value.
        hue: in degrees, added.
        saturation: in [0, 1); of the range of what is added, (1.1 - mean) / 10 to either side.
        value: as ``saturation``.

    Returns:
        float32 (H, W, 3) on the scale of 0..255; as it is where alpha is 0 everywhere.
    """
    scaled = colour.astype(np.float32)
    seen = alpha > 0
    if not seen.any():
        return scaled
    hsv = np.asarray(cv2.cvtColor(scaled / 255, cv2.COLOR_RGB2HSV), np.float32)
    hsv[..., 0] = np.remainder(hsv[..., 0] + hue, 360)
    for channel, drawn in ((1, saturation), (2, value)):
        room = 1.1 - float(hsv[..., channel][seen].mean())
        moved = np.abs(hsv[..., channel] + np.float32(drawn * room / 5 - room / 10))
        hsv[..., channel] = np.where(moved > 1, 2 - moved, moved)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32) * 255


def _nearest(array: Any, size: tuple[int, ...]) -> Any:
    return cv2.resize(array, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
