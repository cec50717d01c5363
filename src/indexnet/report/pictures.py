"""Qualitative results: the same samples for every row, ready to embed in a page."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from indexnet.report.table import Table, TableRow
from indexnet.run.run_sets import Picture, read_pictures

KINDS = ("input", "trimap", "target", "output", "error", "feature", "index")
"""Order of the pictures of one row; other kinds come last."""

COMMON = ("input", "trimap", "target")
"""Kinds that do not depend on the network: where they are the same for all rows, they are shown once."""

LEGEND = "legend"

LARGEST = 256
"""Longer side of an embedded picture, in pixels; larger ones are shrunk, but never index maps, whose cells matter, nor
legends, which must stay readable."""


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
    names = Counter(name for _, _, pictures in by_row for name in dict.fromkeys(p.sample for p in pictures))
    return [
        (name, [Strip(row, seed, shown) for row, seed, pictures in by_row if (shown := _of(pictures, name))])
        for name, _ in names.most_common(limit)
    ]


def _of(pictures: Sequence[Picture], sample: str) -> tuple[Picture, ...]:
    def order(picture: Picture) -> tuple[int, int]:
        kind = KINDS.index(picture.kind) if picture.kind in KINDS else len(KINDS)
        return kind, -1 if picture.stage is None else picture.stage

    return tuple(sorted((picture for picture in pictures if picture.sample == sample), key=order))


def common(strips: Sequence[Strip]) -> tuple[tuple[Picture, ...], tuple[Strip, ...]]:
    """Take out the pictures that all rows show alike, and the legends.

    Returns:
        (the pictures to show once, the strips without them). Of legends that differ, the entries of all are put
        together; where there are only pictures of them, the largest stands for all.
    """
    shared: list[Picture] = []
    for kind in COMMON:
        found = [[p for p in strip.pictures if p.kind == kind] for strip in strips]
        if all(len(pictures) == 1 for pictures in found) and len({_bytes(pictures[0]) for pictures in found}) == 1:
            shared.append(found[0][0])
    legends = [p for strip in strips for p in strip.pictures if p.kind == LEGEND]
    if legends:
        entries = dict.fromkeys(entry for legend in legends for entry in legend.entries)
        largest = max(legends, key=lambda legend: len(_bytes(legend)))
        shared.append(replace(largest, entries=tuple(sorted(entries, key=lambda entry: entry[0].casefold()))))
    taken = {LEGEND, *(picture.kind for picture in shared)}
    rest = (replace(strip, pictures=tuple(p for p in strip.pictures if p.kind not in taken)) for strip in strips)
    return tuple(shared), tuple(rest)


def _bytes(picture: Picture) -> bytes:
    try:
        return picture.path.read_bytes()
    except OSError:
        return b""


class Embedded(NamedTuple):
    """A picture as a ``data:`` URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def embed(picture: Picture) -> Embedded | None:
    """Encode a picture for a page: large ones are shrunk, photographs become JPEG where that is much smaller.

    Returns:
        None where the file is not a readable image.
    """
    try:
        with Image.open(picture.path) as image:
            image.load()
            largest = max(image.size)
            raw = picture.path.read_bytes()
            if largest <= LARGEST and len(raw) <= 40_000:
                return Embedded(_uri("png", raw), *image.size)
            shown = _without_colour(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError):
        return None
    if picture.kind not in ("index", LEGEND):
        shown.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        if picture.kind in ("error", "feature") and shown.mode == "RGB":
            # colours of one scale: a palette holds them all
            shown = shown.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    kind, data = "png", _encoded(_with_palette(shown), "PNG", optimize=True)
    if picture.kind == "input":
        jpeg = _encoded(shown, "JPEG", quality=88)
        if 2 * len(jpeg) < len(data):
            kind, data = "jpeg", jpeg
    return Embedded(_uri(kind, data), *shown.size)


def _without_colour(image: Image.Image) -> Image.Image:
    red, green, blue = image.split()
    return red if red.tobytes() == green.tobytes() == blue.tobytes() else image


def _with_palette(image: Image.Image) -> Image.Image:
    """Store up to 256 colours as one byte a pixel in place of three, exactly; more stay as they are."""
    if image.mode != "RGB" or image.getcolors(256) is None:
        return image
    return image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
