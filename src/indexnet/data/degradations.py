"""Damage that photographs suffer on their way: noise, compression, blur, another gamma; of an image alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from indexnet.core.errors import UserError
from indexnet.core.registry import unknown_name
from indexnet.data.base import UInt8


def add_noise(image: UInt8, sigma: float, rng: np.random.Generator) -> UInt8:
    """Add Gaussian noise, independent in every pixel and channel, then round and clip to 8 bits.

    Args:
        image: (H, W) or (H, W, C).
        sigma: standard deviation, grey levels of 255.
        rng: the same one gives the same noise but for its scale at every ``sigma``.
    """
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def compress_jpeg(image: UInt8, quality: float, rng: np.random.Generator) -> UInt8:
    """Write and read as JPEG (baseline, colours at half the resolution).

    Args:
        image: (H, W) or (H, W, 3), RGB.
        quality: libjpeg's, from 1 to 100.
        rng: not used.
    """
    bgr = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1]) if image.ndim == 3 else decoded


def blur(image: UInt8, sigma: float, rng: np.random.Generator) -> UInt8:
    """Blur by a Gaussian, mirrored at the border.

    Args:
        image: (H, W) or (H, W, C).
        sigma: standard deviation, pixels; > 0.
        rng: not used.
    """
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def change_gamma(image: UInt8, gamma: float, rng: np.random.Generator) -> UInt8:
    """Raise values on [0, 1] to a power: above 1 the image becomes darker.

    Args:
        image: (H, W) or (H, W, C).
        gamma: the power; > 0.
        rng: not used.
    """
    table = np.rint((np.arange(256) / 255) ** gamma * 255).astype(np.uint8)
    return table[image]


@dataclass(frozen=True)
class Degradation:
    """One kind of damage.

    Attributes:
        apply: takes an 8-bit image, a level and random numbers.
        levels: usual ones, mild to strong; for gamma dark and bright.
        level: what a level is, with its unit.
        lowest: the lowest level.
        highest: the highest level.
        none: the level that changes nothing; None: there is none.
        whole: whether levels are integers.
    """

    apply: Callable[[UInt8, float, np.random.Generator], UInt8]
    levels: Sequence[float]
    level: str
    lowest: float
    highest: float
    none: float | None = None
    whole: bool = False


DEGRADATIONS = {
    "noise": Degradation(add_noise, (0, 5, 10, 25), "standard deviation of Gaussian noise, grey levels", 0, 255, 0),
    "jpeg": Degradation(compress_jpeg, (90, 70, 50, 30), "JPEG quality", 1, 100, whole=True),
    "blur": Degradation(blur, (0, 0.5, 1, 2), "standard deviation of Gaussian blur, pixels", 0, 50, 0),
    "gamma": Degradation(change_gamma, (0.5, 0.7, 1, 1.4, 2), "gamma, above 1 is darker", 0.05, 20, 1),
}
"""By name."""


def parse_degradations(words: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Read ``KIND``, ``KIND,KIND`` (at their usual levels) and ``KIND=LEVEL,LEVEL``.

    Args:
        words: any number of them.

    Returns:
        Levels by kind, in the order given.

    Raises:
        UserError: an unknown kind, a level that is none, or one given twice.
    """
    found: dict[str, tuple[float, ...]] = {}
    for word in words:
        kinds, equals, text = word.partition("=")
        for kind in (name.strip() for name in kinds.split(",")):
            if kind not in DEGRADATIONS:
                raise unknown_name("degradation", kind, DEGRADATIONS)
            if kind in found:
                raise UserError(f"--degrade names {kind} twice; give all of its levels at once.")
            found[kind] = _levels(kind, text) if equals else tuple(DEGRADATIONS[kind].levels)
    return found


def _levels(kind: str, text: str) -> tuple[float, ...]:
    what = DEGRADATIONS[kind]
    levels: list[float] = []
    for word in text.split(","):
        try:
            level = float(word)
        except ValueError:
            level = float("nan")
        if not what.lowest <= level <= what.highest or (what.whole and level != int(level)):
            number = "an integer" if what.whole else "a number"
            example = ",".join(f"{each:g}" for each in what.levels)
            raise UserError(
                f"--degrade {kind}={text}: {word!r} is no level; give {number} from {what.lowest:g} to "
                f"{what.highest:g} ({what.level}), as {kind}={example}."
            )
        levels.append(level)
    if len(set(levels)) < len(levels):
        raise UserError(f"--degrade {kind}={text} has a level twice; give each once.")
    return tuple(levels)
