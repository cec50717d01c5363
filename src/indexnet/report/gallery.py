"""Qualitative results: the same samples for every row, ready to embed in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from indexnet.report.records import Picture, read_pictures
from indexnet.report.table import Table, TableRow

KINDS = ("input", "trimap", "target", "output", "error", "index")
"""Order of the pictures of one row; other kinds come last."""

LARGEST = 256
"""Longer side of an embedded picture, in pixels; larger ones are shrunk, but never index maps: their cells matter."""


@dataclass(frozen=True)
class Strip:
    """The pictures of one row for one sample.

    Attributes:
        row: the table row.
        seed: the run that they come from.
        pictures: in the order of ``KINDS``.
    """

    row: TableRow
    seed: int
    pictures: tuple[Picture, ...]


def samples(table: Table, limit: int) -> list[tuple[str, list[Strip]]]:
    """Choose samples that most rows have and collect every row's pictures of them, from its lowest finished seed.

    Args:
        table: rows with their runs.
        limit: most samples to return.

    Returns:
        (sample name, strips in table order), first those that most rows show.
    """
    by_row: list[tuple[TableRow, int, list[Picture]]] = []
    for row in table.rows:
        for run in row.done:
            pictures = read_pictures(run)
            if pictures:
                by_row.append((row, run.seed, pictures))
                break
    names = list(dict.fromkeys(picture.sample for _, _, pictures in by_row for picture in pictures))
    having = {name: sum(any(p.sample == name for p in pictures) for _, _, pictures in by_row) for name in names}
    chosen = sorted(names, key=lambda name: -having[name])[:limit]
    return [
        (name, [Strip(row, seed, shown) for row, seed, pictures in by_row if (shown := _of(pictures, name))])
        for name in chosen
    ]


def _of(pictures: Sequence[Picture], sample: str) -> tuple[Picture, ...]:
    def order(picture: Picture) -> tuple[int, int]:
        kind = KINDS.index(picture.kind) if picture.kind in KINDS else len(KINDS)
        return kind, -1 if picture.stage is None else picture.stage

    return tuple(sorted((picture for picture in pictures if picture.sample == sample), key=order))


def data_uri(picture: Picture) -> tuple[str, int, int] | None:
    """Encode a picture for embedding.

    Large pictures are shrunk; photographs become JPEG where that is much smaller.

    Returns:
        (``data:`` URI, width, height of the embedded picture); None where the file is not a readable image.
    """
    try:
        with Image.open(picture.path) as image:
            image.load()
            largest = max(image.size)
            raw = picture.path.read_bytes()
            if picture.kind == "index" or (largest <= LARGEST and len(raw) <= 40_000):
                return _uri("png", raw), *image.size
            shown = image.convert("RGB")
            shown.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError, ValueError):
        return None
    best: tuple[str, bytes] = ("png", _encoded(shown, "PNG"))
    if picture.kind == "input":
        jpeg = _encoded(shown, "JPEG")
        if 2 * len(jpeg) < len(best[1]):
            best = ("jpeg", jpeg)
    return _uri(*best), *shown.size


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "JPEG":
        image.save(buffer, "JPEG", quality=88)
    else:
        image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
