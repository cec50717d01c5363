"""From a photograph and boxes to a cut-out: what is made on the way, and a picture that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from indexnet.core.errors import UserError
from indexnet.data.base import UInt8
from indexnet.data.io.boxes import Box
from indexnet.data.io.masks import check_boxes
from indexnet.data.io.skimage_photographs import shrunk
from indexnet.data.matting.cutouts import cut_out
from indexnet.data.matting.enlarge import enlarge_alpha
from indexnet.inference.image_files import Item
from indexnet.inference.photographs import read_photo
from indexnet.networks.tiled.matting_protocol import to_uint8
from indexnet.tasks import Task
from indexnet.tasks.contact_sheet import Panel, contact_sheet
from indexnet.tasks.predictor import Photo

_PANEL = 420  # longer side of a picture of the sheet
_SQUARE = 16  # pixels of the chequered board behind a cut-out
_GREEN = (0, 200, 0)


@dataclass
class BoxCutOut:
    """What was made of a photograph.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        trimap: uint8 (H, W) in {0, 128, 255}, made by GrabCut within the boxes.
        alpha: uint8 (H, W).
        cutout: uint8 (H, W, 4), RGBA, colours without the old background, not multiplied by alpha.
        remarks: what a person should know, in sentences.
    """

    image: UInt8
    trimap: UInt8
    alpha: UInt8
    cutout: UInt8
    remarks: list[str]


def cut_out_boxes(task: Task, photograph: Path, boxes: Sequence[Box], longest: int) -> BoxCutOut:
    """Cut out what boxes enclose.

    Args:
        task: matting by a trimap: a network, or a classical method.
        photograph: an image file.
        boxes: around what is to be cut out, at least one.
        longest: of a photograph with a longer side alpha is found on a copy of so many pixels, and then enlarged.

    Raises:
        UserError: the task takes no boxes, the file is no picture, a box is outside of it, or alpha cannot be found.
    """
    if "box" not in task.predict_options or task.guide is None:
        raise UserError(f"the task {task.name} takes no boxes; give closed_form, knn or a checkpoint of task=matting.")
    predictor = task.create_predictor({"cutout": True})
    photo = read_photo(Item(photograph, boxes=tuple(boxes)))
    trimap = np.asarray(photo.trimap, np.uint8)
    if max(trimap.shape) > longest:
        small = shrunk(photo.image, longest)
        known = cv2.resize(trimap, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_NEAREST)
        found = predictor.alpha(Photo(small, np.asarray(known, np.uint8), photo.name))
        alpha = enlarge_alpha(found, small, photo.image, trimap)
        photo.remarks.append(
            f"{photograph}: alpha was found on a copy of {small.shape[1]}x{small.shape[0]} pixels, and enlarged by the "
            "photograph's edges; a larger --longest takes more time and memory."
        )
    else:
        alpha = predictor.alpha(photo)
    levels = to_uint8(alpha)
    alpha /= 255
    return BoxCutOut(photo.image, trimap, levels, cut_out(photo.image, alpha), photo.remarks)


def sheet(made: BoxCutOut, boxes: Sequence[Box]) -> UInt8:
    """Draw photograph with boxes, trimap, alpha and cut-out side by side; uint8 (H, W, 3), RGB."""
    marked = made.image.copy()
    height, width = made.alpha.shape
    thickness = max(1, round(max(height, width) / _PANEL * 2))
    for x0, y0, x1, y1 in check_boxes(boxes, height, width):
        cv2.rectangle(marked, (x0, y0), (x1 - 1, y1 - 1), _GREEN, thickness)
    panels = [
        Panel("photograph and box", marked),
        Panel("trimap", np.dstack([made.trimap] * 3)),
        Panel("alpha", np.dstack([made.alpha] * 3)),
        Panel("cut-out", on_board(made.cutout)),
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
