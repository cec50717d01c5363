"""A picture that shows how a cut-out came about."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from indexnet.data.base import UInt8
from indexnet.data.io.boxes import Box
from indexnet.data.io.masks import check_boxes
from indexnet.tasks.contact_sheet import Panel, contact_sheet

_PANEL = 420  # longer side of a picture of the sheet
_SQUARE = 16  # pixels of the chequered board behind a cut-out
_GREEN = (0, 200, 0)


def cutout_sheet(image: UInt8, boxes: Sequence[Box], trimap: UInt8, alpha: UInt8, cutout: UInt8) -> UInt8:
    """Draw photograph with boxes, trimap, alpha and cut-out side by side.

    Args:
        image: (H, W, 3), RGB.
        boxes: around what was cut out.
        trimap: (H, W).
        alpha: (H, W).
        cutout: (H, W, 4), RGBA, not multiplied by alpha.

    Returns:
        uint8 (h, w, 3), RGB.
    """
    marked = image.copy()
    height, width = alpha.shape
    thickness = max(1, round(max(height, width) / _PANEL * 2))
    for x0, y0, x1, y1 in check_boxes(boxes, height, width):
        cv2.rectangle(marked, (x0, y0), (x1 - 1, y1 - 1), _GREEN, thickness)
    panels = [
        Panel("photograph and box", marked),
        Panel("trimap", np.dstack([trimap] * 3)),
        Panel("alpha", np.dstack([alpha] * 3)),
        Panel("cut-out", on_board(cutout)),
    ]
    return contact_sheet([panels], _PANEL)


def on_board(cutout: UInt8) -> UInt8:
    """Show a cut-out (H, W, 4) before a chequered board; uint8 (H, W, 3)."""
    height, width = cutout.shape[:2]
    square = max(1, round(_SQUARE * max(height, width) / _PANEL))
    rows, columns = np.arange(height)[:, None] // square, np.arange(width) // square
    board = np.where((rows + columns) % 2, 255, 205)[..., None]
    weight = cutout[..., 3:].astype(np.float32) / 255
    return np.rint(weight * cutout[..., :3] + (1 - weight) * board).astype(np.uint8)
