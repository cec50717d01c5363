"""``gca``: the online pipeline of guided contextual attention matting, and ``a2u``, what A2U matting made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.data.base import Float32, UInt8
from indexnet.data.io.trimaps import ErodedTrimap
from indexnet.data.matting.pipelines.base import Pipeline, Scene, Targets, register_pipeline
from indexnet.data.matting.pipelines.transforms import covered_window

_PUBLISHED = 512
_MERGED, _SQUARE, _MIRRORED = 0.5, 0.25, 0.5  # how often
_TURNED = 1024  # pixels; smaller images are not rotated
_ANGLE, _SHEAR, _ZOOM = 30.0, 10.0, (0.8, 1.25)
_WIDTHS, _HUE = (1, 30), 40
_BLOCK = 64  # rows
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
        # until the crop is known, scaling and warping only choose pixels: they move what decides about it, alpha, and
        # colours follow, and are computed with, inside the crop alone
        colours, alphas = [scene.foreground[0]], [scene.foreground[1]]
        unit = self.size / _PUBLISHED
        if rng.random() < _MERGED:
            other = scene.other(int(rng.integers(scene.count)))
            below = _nearest(other[1], alphas[0].shape)
            if cv2.max(alphas[0], below).min() < 255:
                colours.append(_nearest(other[0], alphas[0].shape))
                alphas.append(below)
        if rng.random() < _SQUARE:
            side = round(640 * unit)
            colours, alphas = ([_nearest(array, (side, side)) for array in arrays] for arrays in (colours, alphas))
        warp = draw_warp(alphas[0].shape, _TURNED * unit, rng)
        mirrored = self.mirrors and rng.random() < _MIRRORED
        alphas = [warp.apply(alpha, mirrored) for alpha in alphas]
        widths = [int(width) for width in rng.integers(*_WIDTHS, size=2)]
        # is opaque where any of the objects is, and clear where all are
        opaque = alphas[0] if len(alphas) == 1 else np.asarray(cv2.max(*alphas), np.uint8)
        trimap, size = ErodedTrimap(opaque, *widths), self._roomy(opaque.shape)
        enlarged = size != opaque.shape
        if enlarged:
            trimap = _nearest(trimap[:, :], size)
            alphas = [_nearest(alpha, size) for alpha in alphas]
        top, left = crop_corner(trimap, self.size, rng, self.step)
        window = slice(top, top + self.size), slice(left, left + self.size)

        def seen(colour: UInt8) -> UInt8:
            if enlarged:
                return np.asarray(_nearest(warp.apply(colour, mirrored), size)[window], np.uint8)
            return np.asarray(warp.apply(colour, mirrored, top + self.size)[window], np.uint8)

        colour, alpha = seen(colours[0]), _unit(alphas[0][window])
        if len(colours) == 2:
            colour, alpha = over(colour, alpha, seen(colours[1]), _unit(alphas[1][window]))
        return self._coloured(colour, alpha, trimap[window], self._behind(scene.background, size, top, left), rng)

    def _roomy(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size that an image of (height, width) is enlarged to, so that there is a choice of crops."""
        if min(size) > self.size:
            return size
        zoom = 1.1 * self.size / min(size)
        height, width = (max(self.size + 1, int(length * zoom)) for length in size)  # at least: it is rounded down
        return height, width

    def _behind(self, background: UInt8, size: tuple[int, int], top: int, left: int) -> UInt8:
        """Return the background of a crop of an image of (height, width)."""
        if self.covers:
            return covered_window(background, size, top, left, self.size)
        whole = np.asarray(cv2.resize(background, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
        return whole[top : top + self.size, left : left + self.size]

    def _coloured(
        self, colour: UInt8, alpha: Float32, trimap: UInt8, background: UInt8, rng: np.random.Generator
    ) -> Targets:
        """Change an object's colours and compose it; arrays of colours lie plane by plane in memory."""
        shift = int(rng.integers(-_HUE, _HUE)), float(rng.random()), float(rng.random())
        changed = change_colours(colour, alpha, *shift)
        fg, image = np.empty((2, 3, *alpha.shape), np.float32)
        rest = 1 - alpha
        layers = zip(image, fg, cv2.split(changed), cv2.split(background), strict=True)
        for composite, above, plane, below in layers:
            np.clip(plane, 0, 255, out=above)
            np.multiply(alpha, above, out=composite)
            composite += rest * below
        return Targets(np.moveaxis(image, 0, 2), 255 * alpha, trimap, np.moveaxis(fg, 0, 2), background)


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
    """Lay one object over another of its size.

    Args:
        colour: (H, W, 3), uint8.
        alpha: (H, W), float32 in [0, 1].
        colour2: (H, W, 3), uint8.
        alpha2: (H, W), float32 in [0, 1].

    Returns:
        Colours, uint8 (H, W, 3), and alpha, float32 (H, W).
    """
    rest = 1 - alpha
    both = 1 - rest * (1 - alpha2)
    rest *= alpha2
    whole = both + np.float32(1e-5)
    planes = []
    for plane, below in zip(cv2.split(colour), cv2.split(colour2), strict=True):
        mixed = alpha * plane
        mixed += rest * below
        mixed /= whole
        planes.append(mixed.astype(np.uint8))
    return np.asarray(cv2.merge(planes), np.uint8), both


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

    def apply(self, array: npt.NDArray[Any], mirrored: bool = False, rows: int | None = None) -> Any:
        """Warp an image (H, W[, C]) to the nearest pixel; 0 outside.

        Args:
            array: the image.
            mirrored: whether left and right of the result are swapped.
            rows: how many of its rows are wanted, at least; None: all.
        """
        height, width = array.shape[:2]
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        # fewer columns, or fewer rows than OpenCV takes at a time, would be rounded in another way here and there
        shown = height if rows is None else min(height, max(rows, _BLOCK))
        warped = cv2.warpAffine(array, self.inverse(array.shape), (width, shown), flags=flags)
        return cv2.flip(warped, 1) if mirrored else warped


def draw_warp(size: tuple[int, ...], turned: float, rng: np.random.Generator) -> Warp:
    """Draw the warp of an image of (height, width), which is rotated if its longer side has ``turned`` pixels."""
    angle = float(rng.uniform(-_ANGLE, _ANGLE)) if max(size) >= turned else 0.0
    shear = float(rng.uniform(-_SHEAR, _SHEAR))
    zoom = float(rng.uniform(*_ZOOM)), float(rng.uniform(*_ZOOM))
    return Warp(angle, shear, zoom, (int(rng.choice((1, -1))), int(rng.choice((1, -1)))))


def crop_corner(trimap: UInt8 | ErodedTrimap, size: int, rng: np.random.Generator, step: int = 4) -> tuple[int, int]:
    """Choose a crop centred on an unknown pixel of every ``step``-th row and column; with fewer than 10, anywhere.

    Returns:
        (top, left) of a square of ``size`` pixels inside the trimap, (H, W), of which both are larger.
    """
    height, width = trimap.shape
    margin = size // 2
    rows, columns = (_every(step, length)[margin // step : (length - margin) // step] for length in (height, width))
    ys, xs = np.zeros((2, 0), int)
    if len(rows) and len(columns):
        part = trimap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        ys, xs = np.nonzero(part[np.ix_(rows - rows[0], columns - columns[0])] == 128)
    if len(ys) < _FEW:
        return int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    # a place counted from the margin is that of the corner
    chosen = int(rng.integers(len(ys)))
    return int(ys[chosen]) * step, int(xs[chosen]) * step


def _every(step: int, length: int) -> npt.NDArray[np.int64]:
    """Return which of so many pixels are left when an image is scaled down to the nearest pixel."""
    return np.asarray(_nearest(np.arange(length, dtype=np.float32)[:, None], (length // step, 1))[:, 0], np.int64)


def change_colours(colour: UInt8, alpha: Float32, hue: int, saturation: float, value: float) -> Float32:
    """Change an object's hue, saturation and value, the latter two the more the lower they are.

    Args:
        colour: (H, W, 3), uint8, RGB.
        alpha: (H, W); what is not 0 counts for the means of saturation and value.
        hue: in degrees, added; -360 to 360.
        saturation: in [0, 1); of the range of what is added, (1.1 - mean) / 10 to either side.
        value: as ``saturation``.

    Returns:
        float32 (H, W, 3) on the scale of 0..255; as it is where alpha is 0 everywhere.
    """
    scaled = colour.astype(np.float32)
    seen = alpha > 0
    if not seen.any():
        return scaled
    scaled /= 255
    hues, *others = cv2.split(cv2.cvtColor(scaled, cv2.COLOR_RGB2HSV))
    hues += hue
    np.subtract(hues, 360, out=hues, where=hues >= 360)
    np.add(hues, 360, out=hues, where=hues < 0)
    for plane, drawn in zip(others, (saturation, value), strict=True):
        room = 1.1 - float(plane[seen].mean())
        np.add(plane, np.float32(drawn * room / 5 - room / 10), out=plane)
        np.abs(plane, out=plane)
        np.minimum(plane, 2 - plane, out=plane)  # what is above 1 is mirrored there
    changed = np.asarray(cv2.cvtColor(cv2.merge([hues, *others]), cv2.COLOR_HSV2RGB), np.float32)
    changed *= 255
    return changed


def _unit(alpha: UInt8) -> Float32:
    return np.asarray(np.float32(1 / 255) * alpha, np.float32)


def _nearest(array: Any, size: tuple[int, ...]) -> Any:
    return array if array.shape[:2] == size else cv2.resize(array, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
