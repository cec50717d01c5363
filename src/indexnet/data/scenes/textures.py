"""Surfaces of scenes: photographs and procedural patterns, placed by an affine map at any resolution.

Patterns are gray tiles made once per process from a fixed seed per split; a palette gives them colour when they are
used. Every source is kept as a pyramid, so that a surface seen from afar does not alias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.data.base import Float32, UInt8
from indexnet.data.io import skimage_photographs
from indexnet.data.io.images import read_image

TILE = 256  # side of a pattern in pixels
LONGEST = 640  # photographs are shrunk to this many pixels on the longer side
_LEVELS = 4
_LEVELS_OF_GRAY, _GRAY = np.arange(256), np.linspace(0, 1, 256)
_MOSAIC = 4  # tiles of a pattern side by side

Matrix = npt.NDArray[np.float64]

#: Names of the patterns; streaks run along x.
PATTERNS = ("clouds", "streaks", "marble", "wood", "stripes", "checks", "dots", "weave", "cells", "speckle", "bricks")


def _noise(rng: np.random.Generator, coarse: tuple[int, int], octaves: int = 5, gain: float = 0.5) -> Float32:
    """Sum of smooth random fields that wrap around, each twice as fine as the last; mean 0, deviation 1."""
    total = np.zeros((TILE, TILE), np.float32)
    rows, columns = coarse
    for octave in range(octaves):
        if max(rows, columns) > TILE:
            break
        field = np.pad(rng.standard_normal((rows, columns)).astype(np.float32), 2, mode="wrap")
        scale = (TILE // rows, TILE // columns)
        field = np.asarray(cv2.resize(field, None, fx=scale[1], fy=scale[0], interpolation=cv2.INTER_CUBIC))
        total += gain**octave * field[2 * scale[0] : 2 * scale[0] + TILE, 2 * scale[1] : 2 * scale[1] + TILE]
        rows, columns = min(2 * rows, TILE), min(2 * columns, TILE)
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), np.float32)


def _pattern(name: str, rng: np.random.Generator) -> UInt8:
    """Draw one gray tile (TILE, TILE) that wraps around (but for ``wood``)."""
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32) / TILE
    turn = np.float32(2 * np.pi)
    clouds = _noise(rng, (4, 4))
    if name == "clouds":
        field = clouds
    elif name == "streaks":
        field = _noise(rng, (64, 1), 3, 0.7) + 0.25 * clouds
    elif name == "marble":
        field = np.sin(turn * (2 * x + 3 * y) + 2.2 * clouds)
    elif name == "wood":
        field = np.sin(turn * 9 * np.hypot(x - 0.5, 3 * (y - 0.4)) + 0.8 * clouds) + 0.3 * _noise(rng, (64, 2), 3)
    elif name == "stripes":
        field = np.tanh(6 * np.sin(turn * 8 * x)) + 0.15 * clouds
    elif name == "checks":
        field = np.tanh(12 * np.sin(turn * 4 * x) * np.sin(turn * 4 * y)) + 0.15 * clouds
    elif name == "dots":
        field = np.tanh(8 * (np.cos(turn * 8 * x) + np.cos(turn * 8 * y) - 0.9)) + 0.1 * clouds
    elif name == "weave":
        over = np.sin(turn * 16 * x) * np.sin(turn * 16 * y) > 0
        field = np.where(over, np.abs(np.sin(turn * 16 * x)), np.abs(np.sin(turn * 16 * y)) - 0.3) + 0.15 * clouds
    elif name == "cells":
        seeds = np.ones((3 * TILE, 3 * TILE), np.uint8)
        for py, px in rng.integers(0, TILE, (60, 2)):
            seeds[py::TILE, px::TILE] = 0
        field = cv2.distanceTransform(seeds, cv2.DIST_L2, 5)[TILE : 2 * TILE, TILE : 2 * TILE] + clouds
    elif name == "speckle":
        field = _noise(rng, (64, 64), 3, 0.9)
    else:  # bricks
        row = np.floor(8 * y)
        across = np.abs(np.mod(4 * x + 0.5 * np.mod(row, 2), 1) - 0.5)
        gap = np.minimum(0.5 - across, 0.5 * (0.5 - np.abs(np.mod(8 * y, 1) - 0.5)))
        field = np.tanh(60 * (gap - 0.03)) + 0.3 * clouds
    low, high = np.percentile(field, (1, 99))
    return np.asarray(np.clip((field - low) / (high - low + 1e-6), 0, 1) * 255, np.uint8)


def _pyramid(image: UInt8) -> tuple[UInt8, ...]:
    levels = [np.ascontiguousarray(image)]
    while len(levels) < _LEVELS and min(levels[-1].shape[:2]) >= 32:
        levels.append(np.asarray(cv2.pyrDown(levels[-1]), np.uint8))
    return tuple(levels)


@lru_cache(maxsize=2)
def patterns(split: str) -> dict[str, tuple[UInt8, ...]]:
    """Pyramids of all patterns, each tile repeated to a mosaic; other tiles for training than for testing."""
    seeds = np.random.SeedSequence(1 if split == "train" else 2).spawn(len(PATTERNS))
    return {
        name: tuple(
            np.tile(level, (_MOSAIC, _MOSAIC)) for level in _pyramid(_pattern(name, np.random.default_rng(seed)))
        )
        for name, seed in zip(PATTERNS, seeds, strict=True)
    }


@lru_cache(maxsize=64)
def photograph(source: str | Path) -> tuple[UInt8, ...]:
    """Pyramid of a photograph: a file name of scikit-image's, or the path of a file.

    It is RGB and a channel that nobody looks at: OpenCV warps four in less than half of the time that three take.
    """
    if isinstance(source, str):
        image = skimage_photographs.load(source, longest=LONGEST)
    else:
        image = skimage_photographs.shrunk(read_image(source), LONGEST)
    return tuple(np.asarray(cv2.cvtColor(level, cv2.COLOR_RGB2RGBA), np.uint8) for level in _pyramid(image))


@dataclass(frozen=True)
class Surface:
    """A source of colour and how it is laid over the plane.

    Attributes:
        source: name of a pattern, or a photograph (file name, or path).
        lut: palette of a pattern or tone curve of a photograph, uint8 (256, 1, 3).
        scale: how much of the source one unit of the plane spans: tiles of a pattern (2 at most, or it is slow);
            of a photograph, the part of its shorter side, less where the turned window would leave it.
        angle: rotation in radians.
        mirrored: whether x runs backwards.
        place: where in the source the middle lies, in [0, 1] twice.
        middle: the point of the plane that lies there.
    """

    source: str | Path
    lut: UInt8
    scale: float
    angle: float
    mirrored: bool
    place: tuple[float, float]
    middle: tuple[float, float] = (0.5, 0.5)

    def render(self, split: str, to_plane: Matrix, width: int, height: int) -> list[UInt8]:
        """Render the surface.

        Args:
            split: whose patterns to use.
            to_plane: (3, 3), maps pixel positions to the plane, where the unit square is the scene; may be projective.
            width: of the result.
            height: of the result.

        Returns:
            Red, green and blue, each uint8 (height, width).
        """
        warped = self._warped(split, to_plane, width, height)
        return [np.asarray(cv2.LUT(warped[k % len(warped)], np.ascontiguousarray(self.lut[:, 0, k]))) for k in range(3)]

    def paint(self, out: Float32, split: str, to_plane: Matrix, unit: float = 1.0) -> None:
        """Write what :meth:`render` gives, times ``unit``, into an array (3, height, width)."""
        warped = self._warped(split, to_plane, out.shape[2], out.shape[1])
        table = np.multiply(self.lut[:, 0].T, np.float32(unit), dtype=np.float32, order="C")
        for k, plane in enumerate(out):
            cv2.LUT(warped[k % len(warped)], table[k], plane)

    def _warped(self, split: str, to_plane: Matrix, width: int, height: int) -> Sequence[UInt8]:
        """Return the source at pixels of the plane, uint8 (height, width): gray, or red, green, blue and another."""
        is_pattern = self.source in PATTERNS
        levels = patterns(split)[str(self.source)] if is_pattern else photograph(self.source)
        chain = self._to_source(levels[0].shape, is_pattern) @ to_plane
        projective = bool(np.any(chain[2, :2] != 0))
        step = float(np.sqrt(abs(np.linalg.det(chain[:2, :2]))))  # source pixels per pixel
        level = 1 if projective else max(0, round(float(np.log2(max(step, 1e-6)))))
        level = min(level, len(levels) - 1)
        image = levels[level]
        chain *= np.array([[image.shape[1] / levels[0].shape[1]], [image.shape[0] / levels[0].shape[0]], [1.0]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        border = cv2.BORDER_WRAP if is_pattern else cv2.BORDER_REFLECT_101
        if projective:
            warped = cv2.warpPerspective(image, chain, (width, height), flags=flags, borderMode=border)
        else:
            warped = cv2.warpAffine(image, chain[:2], (width, height), flags=flags, borderMode=border)
        return cv2.split(warped)  # type: ignore[return-value]

    def _to_source(self, shape: tuple[int, ...], is_pattern: bool) -> Matrix:
        """Map the plane to pixels of the source's finest level, (3, 3), staying inside: borders are slow and ugly."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        size = np.array([shape[1], shape[0]], float)
        if is_pattern:
            unit = TILE * self.scale
            centre = size / 2 + TILE * (np.array(self.place) - 0.5)
        else:
            reach = abs(c) + abs(s)  # a turned unit square is as wide
            unit = min(self.scale, 1 / reach) * min(shape[:2])
            centre = unit * reach / 2 + np.array(self.place) * (size - unit * reach)
        turn = unit * np.array([[c, -s], [s, c]])
        if self.mirrored:
            turn[:, 0] *= -1
        found = np.eye(3)
        found[:2, :2] = turn
        found[:2, 2] = centre - turn @ np.array(self.middle)
        return found


def palette(rng: np.random.Generator, hue: float, spread: float, saturation: float, low: float, high: float) -> UInt8:
    """Draw a palette from dark to bright round a hue.

    Args:
        rng: source of chance.
        hue: in turns.
        spread: largest distance from the hue, in turns.
        saturation: mean saturation in [0, 1].
        low: value of the darkest colour.
        high: value of the brightest.

    Returns:
        uint8 (256, 1, 3), RGB.
    """
    stops = int(rng.integers(2, 5))
    hues = np.mod(hue + spread * rng.uniform(-1, 1, stops), 1)
    hsv = np.stack(
        [hues * 360, np.clip(saturation + rng.uniform(-0.2, 0.2, stops), 0, 1), np.linspace(low, high, stops)]
    )
    rgb = cv2.cvtColor(hsv.T.astype(np.float32)[None], cv2.COLOR_HSV2RGB)[0]
    positions = np.linspace(0, 255, stops)
    table = np.empty((256, 1, 3), np.uint8)
    for c in range(3):
        table[:, 0, c] = np.interp(_LEVELS_OF_GRAY, positions, 255 * rgb[:, c])
    return table


def tone(rng: np.random.Generator) -> UInt8:
    """Draw a tone curve: exposure, contrast and a slight cast; uint8 (256, 1, 3)."""
    gamma = np.exp(rng.uniform(-0.35, 0.35))
    gains = rng.uniform(0.75, 1.1) * (1 + rng.uniform(-0.08, 0.08, 3))
    curve = 255 * _GRAY[:, None] ** gamma * gains
    return np.asarray(np.minimum(curve, 255), np.uint8)[:, None]


def lay(
    rng: np.random.Generator,
    source: str | Path,
    lut: UInt8,
    scales: tuple[float, float],
    turn: float = np.pi,
    middle: tuple[float, float] = (0.5, 0.5),
) -> Surface:
    """Lay a source over the plane by chance: a scale between two, a rotation of at most ``turn``, a place."""
    scale = float(np.exp(rng.uniform(*np.log(scales))))
    angle, mirrored = float(rng.uniform(-turn, turn)), bool(rng.random() < 0.5)
    return Surface(source, lut, scale, angle, mirrored, (float(rng.random()), float(rng.random())), middle)


def blurs(sigma: float) -> bool:
    """Whether :func:`soften` changes anything."""
    return sigma >= 0.3


def soften(image: UInt8, sigma: float) -> UInt8:
    """Blur an 8-bit image; a wide blur runs on a smaller copy, where it costs little and looks the same."""
    if not blurs(sigma):
        return image
    shrink = 1
    while sigma > 2.5 * shrink and shrink < 8 and min(image.shape[:2]) >= 16 * shrink:
        shrink *= 2
    if shrink == 1:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    size = (image.shape[1], image.shape[0])
    small = cv2.resize(image, (size[0] // shrink, size[1] // shrink), interpolation=cv2.INTER_AREA)
    rest = max(0.5, np.sqrt((sigma / shrink) ** 2 - 0.25))  # shrinking and enlarging blur a little themselves
    small = cv2.GaussianBlur(small, (0, 0), float(rest))
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.uint8)
