"""Trimaps for people who have none: from coarse masks, and from boxes drawn around what is to be cut out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.core.conventions import UNKNOWN
from indexnet.core.errors import UserError
from indexnet.data.base import UInt8
from indexnet.data.io.boxes import Box

Bool = npt.NDArray[np.bool_]

_BAND = 0.04  # of the square root of a mask's area
_LEAST_BAND = 4
_GRABCUT_SIDE = 512  # longer side of what GrabCut works on; its mask is coarse anyway
_GRABCUT_ITERATIONS = 5
_SPECK = 0.01  # parts of a cut smaller than this share of its largest part are noise


def auto_band(mask: Bool) -> int:
    """Return the width in pixels that :func:`trimap_from_mask` takes by itself: 4 % of the mask's side, at least 4.

    The side is the square root of the mask's area, so that a photograph and its enlargement get the same trimap.
    """
    return max(_LEAST_BAND, round(_BAND * math.sqrt(np.count_nonzero(mask))))


def trimap_from_mask(mask: Bool, band: int | None = None) -> UInt8:
    """Make a trimap of a coarse mask: unknown is what lies within ``band`` pixels of the mask's edge, on both sides.

    The frame of the image is no edge: an object that it cuts off stays foreground there.

    Args:
        mask: (H, W), True on what is to be cut out.
        band: Euclidean distance in pixels, at least 1. None: :func:`auto_band`, but on either side at most half of the
            largest distance to the edge, so that some foreground and some background stay known.

    Returns:
        uint8 (H, W) in {0: background, 128: unknown, 255: foreground}.

    Raises:
        UserError: the mask is empty or full, or ``band`` is below 1.
    """
    if band is not None and band < 1:
        raise UserError(f"the band of unknown pixels must be at least 1 pixel wide, got {band}.")
    if not mask.any():
        raise UserError("the mask marks nothing; make it white on what is to be cut out.")
    if mask.all():
        raise UserError("the mask marks the whole image; make it black on the background.")
    trimap = np.zeros(mask.shape, np.uint8)
    for side, known in ((~mask, 0), (mask, 255)):
        distance = cv2.distanceTransform(side.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        width = min(auto_band(mask), distance.max() / 2) if band is None else band
        trimap[side] = known
        trimap[side & (distance <= width)] = UNKNOWN
    return trimap


def check_boxes(boxes: Sequence[Box], height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Return boxes in whole pixels, cut to the image, with their corners in order.

    Raises:
        UserError: there is none, or one has no pixel of the image inside.
    """
    if not boxes:
        raise UserError("there is no box; draw at least one around what is to be cut out.")
    whole = []
    for box in boxes:
        (x0, x1), (y0, y1) = sorted(box[0::2]), sorted(box[1::2])
        cut = (max(0, round(x0)), max(0, round(y0)), min(width, round(x1)), min(height, round(y1)))
        if cut[2] - cut[0] < 1 or cut[3] - cut[1] < 1:
            shown = ",".join(f"{value:g}" for value in box)
            raise UserError(f"the box {shown} has no pixel of the image inside, which is {width}x{height} pixels.")
        whole.append(cut)
    return whole


def mask_from_boxes(image: UInt8, boxes: Sequence[Box], remarks: list[str] | None = None) -> Bool:
    """Find what boxes enclose, roughly, by GrabCut (Rother et al., SIGGRAPH 2004).

    All boxes are cut at once, at a longer side of 512 pixels: outside of them is background; inside nothing is certain,
    and the corners are background at first, the inscribed ellipse foreground. Specks (below 1 % of the largest part)
    are dropped and holes of that size filled. A box in which nothing is found counts as its ellipse. The result does
    not depend on chance.

    Args:
        image: uint8 (H, W, 3), RGB.
        boxes: at least one; parts outside of the image are cut off.
        remarks: takes a sentence for each box in which nothing is found.

    Returns:
        (H, W), True on what was found.

    Raises:
        UserError: a box lies outside of the image, or the boxes leave no background.
    """
    height, width = image.shape[:2]
    whole = check_boxes(boxes, height, width)
    scale = min(1.0, _GRABCUT_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    small = np.ascontiguousarray(shrunk, np.uint8)
    state = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    places = []
    for x0, y0, x1, y1 in whole:
        rows = slice(math.floor(y0 * scale), max(math.floor(y0 * scale) + 1, math.ceil(y1 * scale)))
        columns = slice(math.floor(x0 * scale), max(math.floor(x0 * scale) + 1, math.ceil(x1 * scale)))
        places.append((rows, columns))
        state[rows, columns] = np.where(state[rows, columns] == cv2.GC_BGD, cv2.GC_PR_BGD, state[rows, columns])
        state[rows, columns][_ellipse(*state[rows, columns].shape)] = cv2.GC_PR_FGD
    if not (state == cv2.GC_BGD).any():
        raise UserError("the boxes cover the whole image; leave some background outside, or give a mask.")
    found = _grabcut(small, state)
    for box, (rows, columns) in zip(whole, places, strict=True):
        if not found[rows, columns].any():
            found[rows, columns] |= _ellipse(*found[rows, columns].shape)
            if remarks is not None:
                remarks.append(
                    f"nothing was found in the box {','.join(map(str, box))}, so that the ellipse within it is taken; "
                    "give a box that holds a whole object and a little of what is around it, or a trimap."
                )
    if scale == 1:
        return found
    enlarged = cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged > 0.5)


def _grabcut(image: UInt8, state: UInt8) -> Bool:
    if min(np.count_nonzero(state == cv2.GC_BGD), np.count_nonzero(state == cv2.GC_PR_FGD)) < 16:
        return np.zeros(state.shape, np.bool_)  # too few pixels for colour models
    cv2.setRNGSeed(0)  # its first clusters are random
    colours = np.zeros((1, 65)), np.zeros((1, 65))  # its models of background and foreground
    cv2.grabCut(image, state, (0, 0, 0, 0), *colours, _GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found: Bool = state == cv2.GC_PR_FGD  # inside the boxes nothing is certain
    if not found.any():
        return found
    smallest = _SPECK * _areas(found)[1].max()
    for value in (True, False):  # specks, then holes
        labels, areas = _areas(found == value)
        found[np.isin(labels, np.flatnonzero(areas < smallest)) & (found == value)] = not value
    return found


def _areas(mask: Bool) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Label connected parts; area 0 stands for what is no part."""
    _, labels, facts, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    areas = facts[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return np.asarray(labels, np.int32), np.asarray(areas, np.int32)


def _ellipse(height: int, width: int) -> Bool:
    y = (np.arange(height)[:, None] + 0.5) / height * 2 - 1
    x = (np.arange(width)[None] + 0.5) / width * 2 - 1
    return np.asarray(y * y + x * x <= 1)
