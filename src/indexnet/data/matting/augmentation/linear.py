"""Operations that are linear in the colour: a x + b, with a and b that do not depend on x.

An instance that is applied to F, B and their composite alike keeps alpha. The names are those of the paper (Dai et al.,
CVPR 2022, section 5.3); strengths, on the scale of 0..255, are our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.data.base import Float32

Change = Callable[[Float32], Float32]
"""What becomes of an image (H, W, 3), float32 on the scale of 0..255; it is left as it is, and the result is new."""
Shape = tuple[int, ...]
"""Height, width and 3."""
Draw = Callable[[Shape, np.random.Generator], Change]
"""Draws an instance of an operation for images of a shape."""

WHITE, GRAY = np.float32(255), np.float32(128)


@dataclass(frozen=True)
class Linear:
    """``slope * x + shift``, cut to 0..255, of the channels in an ``order``; a :data:`Change`.

    Attributes:
        slope: that broadcasts to (H, W, 3).
        shift: likewise.
        order: which channel comes first, second and third.
    """

    slope: npt.NDArray[Any] | np.float32 | float = 1.0
    shift: npt.NDArray[Any] | np.float32 | float = 0.0
    order: tuple[int, int, int] = (0, 1, 2)

    def __call__(self, image: Float32) -> Float32:
        changed = self.slope * image[..., self.order] + self.shift
        return np.asarray(np.clip(changed, 0, WHITE), np.float32)


def contrast(shape: Shape, rng: np.random.Generator) -> Linear:
    """Slope 0.6 to 1.4 about 128."""
    slope = _uniform(0.6, 1.4, rng)
    return Linear(slope, GRAY * (1 - slope))


def brightness(shape: Shape, rng: np.random.Generator) -> Linear:
    """-40 to 40 more."""
    return Linear(shift=_uniform(-40, 40, rng))


def inversion(shape: Shape, rng: np.random.Generator) -> Linear:
    """255 - x, of all channels or, as often, of one."""
    inverted = np.ones(3, bool) if rng.random() < 0.5 else np.arange(3) == rng.integers(3)
    return Linear(np.where(inverted, np.float32(-1), np.float32(1)), np.where(inverted, WHITE, np.float32(0)))


def shuffle(shape: Shape, rng: np.random.Generator) -> Linear:
    """Channels in any order, also in that which they have."""
    first, second, third = (int(channel) for channel in rng.permutation(3))
    return Linear(order=(first, second, third))


def gaussian_noise(shape: Shape, rng: np.random.Generator) -> Linear:
    """Of a deviation of 0 to 25, for each value."""
    return Linear(shift=_uniform(0, 25, rng) * rng.standard_normal(shape, np.float32))


def poisson_noise(shape: Shape, rng: np.random.Generator) -> Linear:
    """Numbers of a mean of 0 to 20, added or taken away, for each value."""
    counts = rng.poisson(float(_uniform(0, 20, rng)), shape).astype(np.float32)
    return Linear(shift=counts * rng.choice(np.array([-1, 1], np.float32), shape))


def dropout(shape: Shape, rng: np.random.Generator) -> Linear:
    """Up to 5 % of the pixels become black."""
    return Linear((_draw_pixels(shape, 0.05, rng) < 0).astype(np.float32))


def cloud(shape: Shape, rng: np.random.Generator) -> Linear:
    """A white layer of 20 to 70 % at its thickest, of 2 to 6 waves a side."""
    side = int(rng.integers(2, 7))
    thickness = cv2.resize(rng.random((side, side), np.float32), shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return _white(np.clip(thickness, 0, 1) * _uniform(0.2, 0.7, rng))


def snow(shape: Shape, rng: np.random.Generator) -> Linear:
    """White flakes on 0.2 to 2 % of the pixels, each blurred by a Gaussian of 0.6 to 1.5 pixels."""
    flakes = (rng.random(shape[:2]) < _uniform(0.002, 0.02, rng)).astype(np.float32)
    sigma = float(_uniform(0.6, 1.5, rng))
    spread = np.asarray(cv2.GaussianBlur(flakes, (0, 0), sigma), np.float32)
    return _white(np.clip(np.float32(2 * np.pi * sigma**2) * spread, 0, 1))


def multiply(shape: Shape, rng: np.random.Generator) -> Linear:
    """0.7 to 1.3 times as bright."""
    return Linear(_uniform(0.7, 1.3, rng))


def salt_and_pepper(shape: Shape, rng: np.random.Generator) -> Linear:
    """Up to 3 % of the pixels become white or black."""
    hit = _draw_pixels(shape, 0.03, rng)
    return Linear((hit < 0).astype(np.float32), WHITE * (hit == 1))


LINEAR: Mapping[str, Draw] = {
    "contrast": contrast,
    "brightness": brightness,
    "inversion": inversion,
    "shuffle": shuffle,
    "gaussian_noise": gaussian_noise,
    "poisson_noise": poisson_noise,
    "dropout": dropout,
    "cloud": cloud,
    "snow": snow,
    "multiply": multiply,
    "salt_and_pepper": salt_and_pepper,
}


def _uniform(low: float, high: float, rng: np.random.Generator) -> np.float32:
    return np.float32(rng.uniform(low, high))


def _white(cover: npt.NDArray[Any]) -> Linear:
    """Lay white of an opacity (H, W) in [0, 1] over an image."""
    layer = cover.astype(np.float32)[..., None]
    return Linear(1 - layer, WHITE * layer)


def _draw_pixels(shape: Shape, most: float, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """Draw a share of the pixels, at most ``most``: (H, W, 1) of -1 where none is, else 0 or 1."""
    share = float(_uniform(0, most, rng))
    drawn = rng.random((*shape[:2], 1), np.float32)
    return np.where(drawn < share, (drawn < share / 2).astype(np.int8), np.int8(-1))
