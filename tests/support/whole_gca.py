"""The pipelines of GCA matting and A2U matting as published: every step on whole images, then the crop."""

from __future__ import annotations

import cv2
import numpy as np

from indexnet.data.matting.pipelines.base import Targets
from indexnet.data.matting.pipelines.gca import draw_warp
from indexnet.data.matting.pipelines.transforms import covered_window


def nearest(array, size):
    return cv2.resize(array, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


def over(colour, alpha, colour2, alpha2):
    below, alpha2 = nearest(colour2, alpha.shape), nearest(alpha2, alpha.shape)
    both = 1 - (1 - alpha) * (1 - alpha2)
    if not (both < 1).any():
        return colour, alpha
    mixed = alpha[..., None] * colour + ((1 - alpha) * alpha2)[..., None] * below
    return (mixed / (both[..., None] + np.float32(1e-5))).astype(np.uint8), both


def eroded(alpha, foreground, background):
    trimap = np.full(alpha.shape, 128, np.uint8)
    for value, mask, width in ((255, alpha + 1e-5 >= 1, foreground), (0, 1 - alpha + 1e-5 >= 1, background)):
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        trimap[cv2.erode(mask.view(np.uint8), ellipse) > 0] = value
    return trimap


def corner(trimap, size, rng, step):
    height, width = trimap.shape
    margin = size // 2
    small = trimap if step == 1 else nearest(trimap, (height // step, width // step))
    rows, columns = (slice(margin // step, (length - margin) // step) for length in (height, width))
    ys, xs = np.nonzero(small[rows, columns] == 128)
    if len(ys) < 10:
        return int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    chosen = int(rng.integers(len(ys)))
    return int(ys[chosen]) * step, int(xs[chosen]) * step


def changed(colour, alpha, hue, saturation, value):
    scaled = colour.astype(np.float32)
    seen = alpha > 0
    if not seen.any():
        return scaled
    hsv = cv2.cvtColor(scaled / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = np.remainder(hsv[..., 0] + hue, 360)
    for channel, drawn in ((1, saturation), (2, value)):
        room = 1.1 - float(hsv[..., channel][seen].mean())
        moved = np.abs(hsv[..., channel] + np.float32(drawn * room / 5 - room / 10))
        hsv[..., channel] = np.where(moved > 1, 2 - moved, moved)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255


def whole_gca(pipeline, scene, rng):
    """Return what ``pipeline.draw(scene, rng)`` is to return."""
    size = pipeline.size
    colour, alpha = scene.foreground[0], np.float32(1 / 255) * scene.foreground[1]
    if rng.random() < 0.5:
        other = scene.other(int(rng.integers(scene.count)))
        colour, alpha = over(colour, alpha, other[0], np.float32(1 / 255) * other[1])
    if rng.random() < 0.25:
        side = round(640 * size / 512)
        colour, alpha = nearest(colour, (side, side)), nearest(alpha, (side, side))
    height, width = alpha.shape
    matrix = draw_warp(alpha.shape, 1024 * size / 512, rng).inverse(alpha.shape)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    colour, alpha = (cv2.warpAffine(array, matrix, (width, height), flags=flags) for array in (colour, alpha))
    if pipeline.mirrors and rng.random() < 0.5:
        colour, alpha = (np.ascontiguousarray(array[:, ::-1]) for array in (colour, alpha))
    trimap = eroded(alpha, *(int(width) for width in rng.integers(1, 30, size=2)))
    if min(height, width) < size + 1:
        zoom = 1.1 * size / min(height, width)
        height, width = max(size + 1, int(height * zoom)), max(size + 1, int(width * zoom))
        colour, alpha, trimap = (nearest(array, (height, width)) for array in (colour, alpha, trimap))
    top, left = corner(trimap, size, rng, pipeline.step)
    window = slice(top, top + size), slice(left, left + size)
    if pipeline.covers:
        behind = covered_window(scene.background, (height, width), top, left, size)
    else:
        behind = cv2.resize(scene.background, (width, height), interpolation=cv2.INTER_CUBIC)[window]
    colour, alpha, trimap = colour[window], alpha[window], trimap[window]
    shift = int(rng.integers(-40, 40)), float(rng.random()), float(rng.random())
    fg = np.clip(changed(colour, alpha, *shift), 0, 255)
    weight = alpha[..., None]
    return Targets(weight * fg + (1 - weight) * behind, 255 * alpha, trimap, fg, behind)
