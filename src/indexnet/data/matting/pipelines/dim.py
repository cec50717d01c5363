"""``dim``: the pipeline of the released IndexNet code, after Deep Image Matting."""

from __future__ import annotations

import numpy as np

from indexnet.data.matting.compositing import cover
from indexnet.data.matting.pipelines.base import Pipeline, Scene, Targets, register_pipeline
from indexnet.data.matting.pipelines.transforms import (
    Between,
    Unknown,
    corner_around,
    covered_window,
    cropped,
    merged,
    mirrored,
    resized,
)

_SCALES = (1, 1.5, 2)
_DISTANCES = (1, 20)  # the second is excluded
_ENLARGED = 500 / 320


@register_pipeline
class Dim(Pipeline):
    """EDT trimaps of 1..19 pixels, crops of one, one and a half and two times the size around unknown pixels, flips.

    As published, in this order: the trimap is made at the foreground's full resolution, unknown being what lies within
    d pixels of a mixed pixel, d of 1..19; a foreground no larger than ``size`` (320) is enlarged until its shorter side
    has 500/320 of that; the crop's side is one of ``size`` x (1, 1.5, 2), 320, 480 and 640, that are smaller than the
    image; its centre is an unknown pixel around which the crop fits, else any unknown pixel; it is scaled to ``size``,
    and mirrored with probability 1/2. With another ``size`` crops and enlargement scale along; trimaps do not, they
    belong to the photograph.

    What is not as published: the released loader shrinks large backgrounds for the composition loss but not for the
    composites that it reads, so that the loss sees another background than the image has. Here image and background
    are made from the same one, enlarged only, as the composites are. A foreground without unknown pixels is cropped
    anywhere (the released code fails), one whose shorter side is exactly ``size`` is enlarged (likewise).

    With ``crop_around="mixed"`` the centre is a pixel whose alpha lies between 0 and 1, which the trimap's width has no
    say in: MMEditing's first configuration (crops of 320, 480 and 640 there, too).

    The order of the work is another: of the full resolution only the crop is touched. The samples are the same.
    """

    name = "dim"
    chooses_centre = True

    def draw(self, scene: Scene, rng: np.random.Generator) -> Targets:
        colour, alpha = scene.foreground
        unknown = Unknown(alpha, int(rng.integers(*_DISTANCES)))
        size = alpha.shape
        if min(size) <= self.size:
            trimap = unknown.trimap(slice(0, size[0]), slice(0, size[1]))
            whole = merged(colour, cover(scene.background, size, shrink=False), alpha, trimap)
            zoom = int(self.size * _ENLARGED) / min(size)
            whole = resized(whole, (int(size[0] * zoom), int(size[1] * zoom)))
            side = self._side(whole.alpha.shape, rng)
            if self.crop_around == "mixed":
                corner = corner_around(Between(np.asarray(whole.alpha, np.uint8), 1, 254), side, 0, rng)
            else:
                corner = corner_around(Between(whole.trimap, 128, 128), side, 1, rng)
            targets = cropped(whole, *corner, side)
        else:
            side = self._side(size, rng)
            if self.crop_around == "mixed":
                top, left = corner_around(Between(alpha, 1, 254), side, 0, rng)
            else:
                top, left = corner_around(unknown, side, 1, rng)
            window = slice(top, top + side), slice(left, left + side)
            targets = merged(
                colour[window],
                covered_window(scene.background, size, top, left, side),
                alpha[window],
                unknown.trimap(*window),
            )
        targets = resized(targets, (self.size, self.size))
        return mirrored(targets) if rng.integers(2) else targets

    def _side(self, size: tuple[int, ...], rng: np.random.Generator) -> int:
        """Choose the side of a crop that is smaller than an image of this size."""
        sides = [int(self.size * scale) for scale in _SCALES]
        return int(rng.choice([side for side in sides if side < min(size)]))
