"""Samples of matting as published: every step on whole images, then the crop; and files to make them from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from indexnet.data.base import Float32, UInt8
from indexnet.data.matting.compositing import composite, cover
from indexnet.data.matting.pipelines.base import Scene, Targets
from indexnet.data.matting.pipelines.gca import Gca, draw_warp
from indexnet.data.matting.pipelines.transforms import Between, corner_around, covered_window

_TRIMAP_WIDTHS = (1, 30)


def write_matting_files(root: Path, foregrounds: int, each: int, size: tuple[int, int]) -> None:
    """Write photographs with structure and noise, hairy mattes, and the composites that the released code reads.

    Args:
        root: gets ``fg``, ``alpha``, ``bg`` and ``merged``.
        foregrounds: how many.
        each: backgrounds, of 640x480, of every foreground.
        size: (height, width) of the foregrounds.
    """
    rng = np.random.default_rng(0)
    for folder in ("fg", "alpha", "bg", "merged"):
        (root / folder).mkdir(parents=True)
    for f in range(foregrounds):
        Image.fromarray(photograph(rng, *size)).save(root / f"fg/{f}.jpg", quality=95)
        Image.fromarray(hairy_matte(rng, *size)).save(root / f"alpha/{f}.jpg", quality=95)
        colour, alpha = (_decoded(root / f"{folder}/{f}.jpg") for folder in ("fg", "alpha"))
        for number in range(f * each, (f + 1) * each):
            Image.fromarray(photograph(rng, 480, 640)).save(root / f"bg/{number:03d}.jpg", quality=90)
            background = cover(_decoded(root / f"bg/{number:03d}.jpg"), size, shrink=False)
            merged = composite(colour, background, alpha)
            Image.fromarray(merged).save(root / f"merged/{number:03d}.png", compress_level=6)


def photograph(rng: np.random.Generator, height: int, width: int) -> UInt8:
    """Draw colours with structure and noise, uint8 (height, width, 3)."""
    coarse = rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def hairy_matte(rng: np.random.Generator, height: int, width: int) -> UInt8:
    """Draw the matte of a round object with hair, uint8 (height, width)."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    field = np.hypot(y / height - 0.5, x / width - 0.5)
    hair = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 2)
    rim = np.exp(-(((field - 0.34) / 0.05) ** 2))
    return np.asarray(np.clip(255 * ((0.33 - field) * 60 + 25 * hair * rim + 0.5), 0, 255), np.uint8)


def published_dim(root: Path, index: int, each: int, side: int, rng: np.random.Generator) -> Targets:
    """Make a sample of ``dim`` in the released loader's order, with the draws of the pipeline here.

    It decodes composite, alpha, foreground and background, computes the distance transform of the whole image, scales
    the background to it, and crops then.

    Args:
        root: of :func:`write_matting_files`.
        index: of the composite.
        each: backgrounds of every foreground.
        side: of the sample; half of the composite's shorter side at most.
        rng: source of what is random.
    """
    merged = _decoded(root / f"merged/{index:03d}.png")
    alpha, colour = (_decoded(root / f"{folder}/{index // each}.jpg") for folder in ("alpha", "fg"))
    background = cover(_decoded(root / f"bg/{index:03d}.jpg"), alpha.shape, shrink=False)
    known = ((alpha == 0) | (alpha == 255)).view(np.uint8)
    unknown = cv2.distanceTransform(known, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= rng.integers(1, 20)
    trimap = np.where(unknown, 128, np.where(alpha == 255, 255, 0)).astype(np.uint8)
    stack = np.concatenate([merged, trimap[..., None], alpha[..., None], colour, background], 2)
    sides = [length for length in (side, side * 3 // 2, side * 2) if length < min(alpha.shape)]
    taken = int(rng.choice(sides))
    top, left = corner_around(Between(trimap, 128, 128), taken, 1, rng)
    crop = np.ascontiguousarray(stack[top : top + taken, left : left + taken])
    parts = []
    for first, last in ((0, 3), (3, 4), (4, 5), (5, 8), (8, 11)):
        how = cv2.INTER_NEAREST if first == 3 else cv2.INTER_CUBIC
        part = cv2.resize(crop[..., first:last], (side, side), interpolation=how)
        parts.append(part.reshape(side, side, last - first))
    small = np.asarray(np.concatenate(parts, 2), np.uint8)
    if rng.integers(2):
        small = small[:, ::-1]
    return Targets(small[..., :3], small[..., 4], small[..., 3], small[..., 5:8], small[..., 8:])


def whole_gca(pipeline: Gca, scene: Scene, rng: np.random.Generator) -> Targets:
    """Make a sample of ``gca`` or ``a2u`` in the published order, with the draws of the pipeline here."""
    size = pipeline.size
    colour: UInt8 = scene.foreground[0]
    alpha: Float32 = np.float32(1 / 255) * scene.foreground[1]
    if rng.random() < 0.5:
        other = scene.other(int(rng.integers(scene.count)))
        colour, alpha = _over(colour, alpha, other[0], np.float32(1 / 255) * other[1])
    if rng.random() < 0.25:
        side = round(640 * size / 512)
        colour, alpha = _nearest(colour, (side, side)), _nearest(alpha, (side, side))
    height, width = alpha.shape
    matrix = draw_warp(alpha.shape, 1024 * size / 512, rng).inverse(alpha.shape)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    colour = np.asarray(cv2.warpAffine(colour, matrix, (width, height), flags=flags), np.uint8)
    alpha = np.asarray(cv2.warpAffine(alpha, matrix, (width, height), flags=flags), np.float32)
    if pipeline.mirrors and rng.random() < 0.5:
        colour, alpha = np.ascontiguousarray(colour[:, ::-1]), np.ascontiguousarray(alpha[:, ::-1])
    trimap = _eroded(alpha, *(int(drawn) for drawn in rng.integers(*_TRIMAP_WIDTHS, size=2)))
    if min(height, width) < size + 1:
        zoom = 1.1 * size / min(height, width)
        height, width = max(size + 1, int(height * zoom)), max(size + 1, int(width * zoom))
        colour, alpha, trimap = (_nearest(array, (height, width)) for array in (colour, alpha, trimap))
    top, left = _corner(trimap, size, rng, pipeline.step)
    window = slice(top, top + size), slice(left, left + size)
    if pipeline.covers:
        behind = covered_window(scene.background, (height, width), top, left, size)
    else:
        behind = np.asarray(cv2.resize(scene.background, (width, height), interpolation=cv2.INTER_CUBIC)[window])
    colour, alpha = colour[window], alpha[window]
    shift = int(rng.integers(-40, 40)), float(rng.random()), float(rng.random())
    fg = np.clip(_changed(colour, alpha, *shift), 0, 255)
    weight = alpha[..., None]
    return Targets(weight * fg + (1 - weight) * behind, 255 * alpha, trimap[window], fg, behind)


def _decoded(path: Path) -> UInt8:
    return np.array(Image.open(path))


def _nearest(array: npt.NDArray[Any], size: tuple[int, ...]) -> Any:
    return cv2.resize(array, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


def _over(colour: UInt8, alpha: Float32, colour2: UInt8, alpha2: Float32) -> tuple[UInt8, Float32]:
    below, alpha2 = _nearest(colour2, alpha.shape), _nearest(alpha2, alpha.shape)
    both = 1 - (1 - alpha) * (1 - alpha2)
    if not (both < 1).any():
        return colour, alpha
    mixed = alpha[..., None] * colour + ((1 - alpha) * alpha2)[..., None] * below
    return (mixed / (both[..., None] + np.float32(1e-5))).astype(np.uint8), both


def _eroded(alpha: Float32, foreground: int, background: int) -> UInt8:
    trimap = np.full(alpha.shape, 128, np.uint8)
    for value, mask, width in ((255, alpha + 1e-5 >= 1, foreground), (0, 1 - alpha + 1e-5 >= 1, background)):
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        trimap[cv2.erode(mask.view(np.uint8), ellipse) > 0] = value
    return trimap


def _corner(trimap: UInt8, size: int, rng: np.random.Generator, step: int) -> tuple[int, int]:
    height, width = trimap.shape
    margin = size // 2
    small = trimap if step == 1 else _nearest(trimap, (height // step, width // step))
    rows, columns = (slice(margin // step, (length - margin) // step) for length in (height, width))
    ys, xs = np.nonzero(small[rows, columns] == 128)
    if len(ys) < 10:
        return int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    chosen = int(rng.integers(len(ys)))
    return int(ys[chosen]) * step, int(xs[chosen]) * step


def _changed(colour: UInt8, alpha: Float32, hue: int, saturation: float, value: float) -> Float32:
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
