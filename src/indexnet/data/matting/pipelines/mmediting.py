"""``mmediting``: the pipeline of MMEditing's IndexNet with DIM's augmentation."""

from __future__ import annotations

import cv2
import numpy as np

from indexnet.data.io.trimaps import eroded_trimap
from indexnet.data.matting.compositing import cover
from indexnet.data.matting.pipelines.base import Pipeline, Scene, Targets, register_pipeline
from indexnet.data.matting.pipelines.transforms import (
    Between,
    corner_around,
    covered_window,
    cropped,
    merged,
    mirrored,
    resized,
)

_SCALES = (1, 1.5, 2)
_WIDTHS = (1, 30)  # the second is excluded


@register_pipeline
class Mmediting(Pipeline):
    """Crops around mixed pixels, and trimaps that are made last, by ellipses of random size.

    In this order: the crop's side is one of ``size`` x (1, 1.5, 2), 320, 480 and 640, whatever the foreground's size; a
    smaller foreground is enlarged until the crop fits; the crop's centre is a pixel of alpha between 0 and 1 around
    which the crop fits, else any such pixel; it is mirrored with probability 1/2 and scaled to ``size``; foreground and
    background of the trimap are alpha 1 and 0, eroded by ellipses of 1..29 pixels, drawn independently. With another
    ``size`` crops scale along; ellipses do not. All scaling is bilinear.

    Image and background are made from the same one, as in :class:`~indexnet.data.matting.pipelines.dim.Dim`. A
    foreground without mixed pixels is cropped anywhere, not at its upper left corner. MMEditing's other variant, with
    trimaps by distance, is ``dim`` with ``crop_around="mixed"``.
    """

    name = "mmediting"

    def draw(self, scene: Scene, rng: np.random.Generator) -> Targets:
        colour, alpha = scene.foreground[:2]
        none = np.zeros_like(alpha)  # until there is a trimap
        size = alpha.shape
        side = int(self.size * rng.choice(_SCALES))
        if min(size) < side:
            whole = merged(colour, cover(scene.background, size, shrink=False), alpha, none)
            zoom = side / min(size)
            whole = resized(whole, (max(side, int(size[0] * zoom)), max(side, int(size[1] * zoom))), cv2.INTER_LINEAR)
            field = Between(np.asarray(whole.alpha, np.uint8), 1, 254)
            targets = cropped(whole, *corner_around(field, side, 0, rng), side)
        else:
            top, left = corner_around(Between(alpha, 1, 254), side, 0, rng)
            window = slice(top, top + side), slice(left, left + side)
            background = covered_window(scene.background, size, top, left, side)
            targets = merged(colour[window], background, alpha[window], none[window])
        if rng.integers(2):
            targets = mirrored(targets)
        targets = resized(targets, (self.size, self.size), cv2.INTER_LINEAR)
        widths = [int(width) for width in rng.integers(*_WIDTHS, size=2)]
        return targets._replace(trimap=eroded_trimap(targets.alpha, *widths))
