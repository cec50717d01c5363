"""Reading a person's photographs, and their trimaps or what trimaps are made of."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from indexnet.core.errors import UserError
from indexnet.data.base import UInt8
from indexnet.data.io.decoding import camera_orientation
from indexnet.data.io.images import read_image, read_mask, read_trimap
from indexnet.data.io.masks import Bool, mask_from_boxes, trimap_from_mask
from indexnet.inference.image_files import Item
from indexnet.tasks.predictor import Photo


def read_photo(item: Item, band: int | None = None) -> Photo:
    """Read an image, and its trimap or what one is made of; trimap values are snapped to 0, 128 and 255.

    Args:
        item: what to read.
        band: width of the unknown band of trimaps that are made, in pixels; None: relative to what is marked.

    Raises:
        UserError: a file cannot be read, two differ in size, or no trimap can be made of a mask or of boxes.
    """
    remarks: list[str] = []
    photo = Photo(read_image(item.image, srgb=True, remarks=remarks), name=item.stem, remarks=remarks)
    if item.trimap is not None:
        photo.trimap, photo.snapped = read_trimap(item.trimap, strict=False)
        _check_size(item, item.trimap, "trimap", photo.image, photo.trimap)
        if photo.snapped:
            photo.remarks.append(
                f"{item.trimap}: {photo.snapped} pixels were neither 0, 128 nor 255 and were snapped to them."
            )
    elif item.mask is not None or item.boxes:
        try:
            lost: list[str] = []
            mask = _read_mask(item, item.mask, photo) if item.mask else mask_from_boxes(photo.image, item.boxes, lost)
            photo.remarks += [f"{item.image}: {remark}" for remark in lost]
            photo.trimap, photo.made = trimap_from_mask(mask, band), True
        except UserError as error:
            where = str(item.mask or item.image)
            if where in str(error):
                raise
            raise UserError(f"{where}: {error}") from error
    if guide := item.trimap or item.mask:
        photo.remarks += _orientation_remarks(item.image, guide, "trimap" if item.trimap else "mask", photo.image)
    return photo


def _orientation_remarks(image: Path, guide: Path, word: str, pixels: UInt8) -> list[str]:
    """Say where a trimap or mask in the stored orientation would have the same shape as an upright one."""
    noted = camera_orientation(image)
    turned = noted >= 5
    if noted == 1 or camera_orientation(guide) == noted or (turned and pixels.shape[0] != pixels.shape[1]):
        return []
    return [
        f"{image} was turned or mirrored as its camera noted, and the shape of {guide} does not tell whether that was, "
        f"too; a {word} must be upright, as the picture is seen."
    ]


def _read_mask(item: Item, path: Path, photo: Photo) -> Bool:
    """Read a mask; one of another size but the image's shape is brought to the image's size."""
    mask = read_mask(path)
    (height, width), (h, w) = photo.image.shape[:2], mask.shape
    if mask.shape == (height, width):
        return mask
    if abs(h * width - w * height) > max(height, width, h, w):
        _check_size(item, path, "mask", photo.image, mask)
    photo.remarks.append(f"{path} is {w}x{h} pixels and was brought to the size of its image, {width}x{height}.")
    resized = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized >= 0.5)


def _check_size(item: Item, path: Path, word: str, image: UInt8, other: UInt8 | Bool) -> None:
    (h, w), (th, tw) = image.shape[:2], other.shape
    if (h, w) == (th, tw):
        return
    turned = " (one of them is turned: apply the camera's orientation to both)" if (h, w) == (tw, th) else ""
    raise UserError(
        f"{item.image} is {w}x{h} pixels but its {word} {path} is {tw}x{th}{turned}; make a {word} of the image's size."
    )
