"""Contact sheets: captioned pictures in rows and columns, as one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

UInt8 = npt.NDArray[np.uint8]

_MARGIN, _LINE, _FONT = 8, 20, 14
_PAPER, _INK = (255, 255, 255), (20, 20, 20)


@dataclass(frozen=True)
class Panel:
    """One picture of a sheet.

    Attributes:
        caption: the line above it; shortened where it does not fit.
        image: uint8 (H, W, 3), or None for an empty place.
    """

    caption: str
    image: UInt8 | None


def fit_side(image: UInt8, side: int) -> UInt8:
    """Scale a picture so that its longer side is at most ``side`` pixels.

    Small ones are enlarged by a whole factor without smoothing, so that single pixels can be seen.
    """
    height, width = image.shape[:2]
    longer = max(height, width)
    if longer * 2 <= side:
        factor = side // longer
        return np.ascontiguousarray(image.repeat(factor, axis=0).repeat(factor, axis=1))
    if longer <= side:
        return image
    size = (max(1, round(width * side / longer)), max(1, round(height * side / longer)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def contact_sheet(rows: Sequence[Sequence[Panel]], side: int) -> UInt8:
    """Draw a sheet on white.

    Args:
        rows: panels from left to right, top to bottom; rows may differ in length.
        side: longest side of a panel's picture, pixels.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    fitted = [[None if panel.image is None else fit_side(panel.image, side) for panel in row] for row in rows]
    columns = max(len(row) for row in rows)
    widths = [
        max([96, *(row[c].shape[1] for row in fitted if c < len(row) and row[c] is not None)])  # type: ignore[union-attr]
        for c in range(columns)
    ]
    heights = [max([0, *(image.shape[0] for image in row if image is not None)]) for row in fitted]
    total = (sum(widths) + _MARGIN * (columns + 1), sum(h + _LINE + _MARGIN for h in heights) + _MARGIN)
    sheet = Image.new("RGB", total, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_FONT)
    y = _MARGIN
    for row, images, height in zip(rows, fitted, heights, strict=True):
        x = _MARGIN
        for panel, image, width in zip(row, images, widths, strict=False):
            if panel.caption:
                caption = shorten(panel.caption, lambda text, width=width: font.getlength(text) <= width)  # type: ignore[misc]
                draw.text((x, y), caption, fill=_INK, font=font)
            if image is not None:
                sheet.paste(Image.fromarray(image), (x, y + _LINE))
            x += width + _MARGIN
        y += height + _LINE + _MARGIN
    return np.array(sheet, np.uint8)


def shorten(text: str, fits: Callable[[str], bool]) -> str:
    """Cut a text in its middle until it fits, with three dots for what is gone: names often differ at their ends."""
    if fits(text):
        return text
    for kept in range(len(text) - 1, 0, -1):
        cut = f"{text[: kept - kept // 2].rstrip()}...{text[len(text) - kept // 2 :].lstrip()}"
        if fits(cut):
            return cut
    return "..."
