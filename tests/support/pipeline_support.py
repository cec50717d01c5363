"""Scenes for the training pipelines of matting."""

from __future__ import annotations

import numpy as np

from indexnet.data.matting.pipelines.base import Scene

SIZE = 32


def disc(height=150, width=190, at=(60, 130), radius=28, soft=6):
    y, x = np.mgrid[:height, :width]
    far = radius - np.hypot(y - at[0], x - at[1])
    return np.clip(255 * (far / soft + 0.5), 0, 255).astype(np.uint8)


def places(shape):
    """Colours that say where in the image a pixel is: red its row, green its column."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([y, x, 255 - y], 2).astype(np.uint8)


def scene_of(pipeline, alpha, background=None, colour=None):
    colour = places(alpha.shape) if colour is None else colour
    if background is None:
        background = np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    arrays = (colour, alpha)
    return Scene(arrays, background, lambda number: arrays, 1)
