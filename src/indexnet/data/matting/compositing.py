"""The published rule of compositing: which background goes under which foreground, and how.

The rule is that of the Adobe data set's script, in the form of the released IndexNet code (``Composition_code.py``):
OpenCV's bicubic interpolation and single precision. The n-th foreground of an ordered list takes the next backgrounds
of another ordered list; a background that is too small is enlarged until it covers the foreground, cut at its top left
corner to the foreground's size, and seen through ``1 - alpha``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from indexnet.core.errors import UserError
from indexnet.data.base import UInt8, check_count, digest
from indexnet.data.io.images import file_sizes
from indexnet.data.matting.foregrounds import Foreground


def cover(background: UInt8, size: tuple[int, int], *, shrink: bool) -> UInt8:
    """Bring a background to a size that it covers: scaled by the larger of the two ratios, cut at the top left corner.

    Args:
        background: (h, w, 3), uint8.
        size: (H, W) of the result.
        shrink: whether a background that is larger in both directions is scaled down, as the released code's loader
            does; the published composites only enlarge.

    Returns:
        uint8 (H, W, 3); a view of ``background`` where nothing had to be scaled.
    """
    height, width = size
    bg_height, bg_width = background.shape[:2]
    ratio = max(width / bg_width, height / bg_height)
    if ratio > 1 or (shrink and ratio < 1):
        scaled = math.ceil(bg_width * ratio), math.ceil(bg_height * ratio)
        background = np.asarray(cv2.resize(background, scaled, interpolation=cv2.INTER_CUBIC), np.uint8)
    return background[:height, :width]


def composite(fg: UInt8, bg: UInt8, alpha: UInt8) -> UInt8:
    """Compose ``alpha * fg + (1 - alpha) * bg`` in single precision and cut the fraction off, as published.

    Args:
        fg: (H, W, 3), uint8.
        bg: (H, W, 3), uint8.
        alpha: (H, W), uint8; 255 is opaque.

    Returns:
        uint8 (H, W, 3).
    """
    weight = (alpha / 255).astype(np.float32)
    rest = 1 - weight
    planes = []
    for above, below in zip(cv2.split(fg), cv2.split(bg), strict=True):
        mixed = weight * above
        mixed += rest * below
        planes.append(mixed.astype(np.uint8))
    return np.asarray(cv2.merge(planes), np.uint8)


def check_enough(foregrounds: int, backgrounds: int, per_foreground: int, option: str = "per_foreground") -> None:
    """Refuse numbers of foregrounds and backgrounds that the rule of :func:`pair_backgrounds` cannot serve.

    Raises:
        UserError: there are fewer backgrounds than composites, or ``per_foreground``, which ``option`` of the data set
            says, is no positive number.
    """
    check_count(f"data.{option}", per_foreground)
    needed = foregrounds * per_foreground
    if backgrounds < needed:
        raise UserError(
            f"{foregrounds} foregrounds with {per_foreground} composites each need {needed} backgrounds, but there are "
            f"{backgrounds}; add more or set data.{option}."
        )


@dataclass(frozen=True)
class Pair:
    """One composite: ``foreground`` over ``background``; ``name`` is the foreground's with the composite's number."""

    name: str
    foreground: Foreground
    background: Path


def pair_backgrounds(
    foregrounds: Sequence[Foreground], backgrounds: Sequence[Path], per_foreground: int, option: str = "per_foreground"
) -> list[Pair]:
    """Pair foregrounds with backgrounds: the k-th composite of foreground f takes background f * per_foreground + k.

    Args:
        foregrounds: in order.
        backgrounds: in order; each is used once, those left over not at all.
        per_foreground: composites of each foreground.
        option: of the data set, which says that number.

    Returns:
        len(foregrounds) * per_foreground composites, ``NAME_0``, ``NAME_1`` ... of each foreground in turn.

    Raises:
        UserError: there are fewer backgrounds than composites, or ``per_foreground`` is no positive number.
    """
    check_enough(len(foregrounds), len(backgrounds), per_foreground, option)
    return [
        Pair(f"{foreground.name}_{k}", foreground, backgrounds[f * per_foreground + k])
        for f, foreground in enumerate(foregrounds)
        for k in range(per_foreground)
    ]


def digest_foregrounds(foregrounds: Iterable[Foreground]) -> str:
    """SHA-256 over the names and byte sizes of foregrounds' files, whatever the order."""
    ordered = sorted(foregrounds, key=lambda item: item.name)
    return digest([[item.name, item.estimate, file_sizes(item.files)] for item in ordered])


def made_of(pairs: Sequence[Pair], per_foreground: int) -> dict[str, Any]:
    """Return what composites are made of, as plain data that is equal for the same composites, whatever their order.

    Raises:
        OSError: a file is missing.
    """
    ordered = sorted(pairs, key=lambda pair: pair.name)
    return {
        "per_foreground": per_foreground,
        "foregrounds": digest_foregrounds(dict.fromkeys(pair.foreground for pair in ordered)),
        "backgrounds": digest(file_sizes([pair.background for pair in ordered])),
    }
