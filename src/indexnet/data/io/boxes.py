"""Boxes around what is to be cut out, as people, spreadsheets and detectors write them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError, shown
from indexnet.core.readers import DamagedFileError, read_json, read_text

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the upright image; x1 and y1 are the first column and row outside."""

_NAMES = ("name", "image", "file", "filename", "file_name", "image_name", "image_path", "path", "img", "image_id")
_CELLS = 5  # of a line: a name and four numbers
_CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
_SIDES = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
    ("xmin", "ymin", "width", "height"),
    ("x_min", "y_min", "width", "height"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
)  # a corner, width and height
_EXPECTED = "give a line name,x0,y0,x1,y1 for each"


def parse_box(text: str) -> Box:
    """Read ``x0,y0,x1,y1``.

    Raises:
        UserError: it is not four numbers.
    """
    return _box(text.split(","), f"the box {text!r}")


def read_boxes(path: str | Path) -> dict[str, list[Box]]:
    """Read boxes of several images.

    A table has a line ``name,x0,y0,x1,y1`` for each box, with commas, semicolons (and then decimal commas, as
    spreadsheets write) or tabs. A score from 0 to 1 may stand behind. With a heading, columns are found by their names,
    in any order: a name, and two corners (``x0,y0,x1,y1``, ``x1,y1,x2,y2``, ``xmin,ymin,xmax,ymax``,
    ``left,top,right,bottom``) or a corner and two sides (``x,y,w,h``); all others, such as scores and classes, are left
    out. A JSON file has ``{"name": [[x0, y0, x1, y1], ...]}``, or a list of objects whose keys are such columns, or
    ``image`` and ``box``; ``bbox`` is [x, y, width, height], as in COCO. An image may have several boxes.

    Returns:
        Boxes by image name, as it stands in the file.

    Raises:
        UserError: the file is missing or empty, or a line of it is no box.
    """
    path = Path(path)
    try:
        boxes = _json_boxes(path) if path.suffix.lower() == ".json" else _table_boxes(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; {_EXPECTED}, or a JSON file.") from error
    if not boxes:
        raise UserError(f"{path} holds no box; {_EXPECTED}.")
    return boxes


def _table_boxes(path: Path) -> dict[str, list[Box]]:
    text = read_text(path)
    boxes: dict[str, list[Box]] = {}
    columns: list[str] | None = None
    lines = csv.reader([text])
    try:
        mark = _mark(text)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=mark != "\t")
        for row in lines:
            cells = [cell.strip() for cell in row]
            where = f"{path}, line {lines.line_num}"
            if not any(cells):
                continue
            if not boxes and columns is None and not any(map(_is_number, cells[1:])):
                columns = [cell.lower().replace(" ", "_") for cell in cells]
                continue
            if mark != ",":
                cells = [cells[0] if columns is None and k == 0 else _point(cell) for k, cell in enumerate(cells)]
            name, box = _headless(cells, where) if columns is None else _headed(columns, cells, where)
            boxes.setdefault(name, []).append(box)
    except csv.Error as error:
        raise DamagedFileError(f"{path}, line {lines.line_num}: it is no table: {error}; {_EXPECTED}.") from error
    return boxes


def _mark(text: str) -> str:
    """Return what separates the cells of a table: a tab or semicolon where it gives a name and a box, else a comma."""
    first = text.lstrip().partition("\n")[0]
    for mark in "\t;":
        if any(len(row) >= _CELLS for row in csv.reader([first], delimiter=mark)):
            return mark
    return ","


def _headless(cells: Sequence[str], where: str) -> tuple[str, Box]:
    """Read a line without a heading: a name and four numbers, and perhaps a score."""
    name, *values = cells
    if len(values) == 5 and all(map(_is_number, values)):
        values = [str(value) for value in _without_score([*values[:4], float(_point(values[4]))], where)]
    if len(values) > 4:
        raise UserError(
            f"{where}: {','.join(values)[:80]!r} is not four numbers; more columns need a heading such as "
            "name,class,score,x0,y0,x1,y1."
        )
    return name, _box(values, f"{where}: {','.join(values)[:80]!r}")


def _headed(columns: Sequence[str], cells: Sequence[str], where: str) -> tuple[str, Box]:
    """Read a line below a heading."""
    if len(cells) > len(columns) and any(cells[len(columns) :]):
        raise UserError(f"{where}: it has {len(cells)} cells, but the heading has {len(columns)}.")
    return _by_key(dict(zip(columns, cells, strict=False)), where, columns)


def _by_key(entry: Mapping[str, Any], where: str, columns: Sequence[str]) -> tuple[str, Box]:
    """Return the name and the box of an entry whose values have names."""
    name = next((entry[key] for key in _NAMES if key in entry), None)
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: no image is named; a heading has one of {', '.join(_NAMES[:4])}, as text.")
    for keys in _CORNERS:
        if all(key in columns for key in keys):
            return name, _box([entry.get(key) for key in keys], f"{where}: {_values(entry, keys)}")
    for keys in _SIDES:
        if all(key in columns for key in keys):
            return name, _from_sides([entry.get(key) for key in keys], f"{where}: {_values(entry, keys)}")
    raise UserError(
        f"{where}: there are no columns for a box among {shown(', '.join(columns))}; expected x0,y0,x1,y1 or x,y,w,h."
    )


def _values(entry: Mapping[str, Any], keys: Iterable[str]) -> str:
    return shown(",".join(str(entry.get(key)) for key in keys))


def _from_sides(values: Sequence[Any], where: str) -> Box:
    x, y, width, height = _box(values, where)
    if width <= 0 or height <= 0:
        raise UserError(f"{where} has no area; width and height must be above 0.")
    return x, y, x + width, y + height


def _box(values: Iterable[Any], where: str) -> Box:
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
        if not all(map(math.isfinite, (x0, y0, x1, y1))):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where} is not four numbers; give x0,y0,x1,y1 in pixels, as 40,25,310,480.") from error
    return x0, y0, x1, y1


def _is_number(text: str) -> bool:
    try:
        float(_point(text))
    except ValueError:
        return False
    return True


def _point(text: str) -> str:
    """Return a number with a decimal comma with a point; any other text as it is."""
    whole, comma, part = text.partition(",")
    return f"{whole}.{part}" if comma and whole.lstrip("+-").isdecimal() and part.isdecimal() else text


def _json_boxes(path: Path) -> dict[str, list[Box]]:
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list) and "images" in content:
        raise UserError(
            f"{path} is a COCO file, in which boxes have numbers of images; write them with the images' names: "
            '[{"file_name": "a.jpg", "bbox": [x, y, width, height]}, ...].'
        )
    boxes: dict[str, list[Box]] = {}
    if isinstance(content, dict) and all(isinstance(found, list) for found in content.values()):
        for name, found in content.items():
            several = found if found and isinstance(found[0], list) else [found]
            for box in several:
                where = f"{path}, {shown(name)}: {shown(box)}"
                values = box if isinstance(box, list) else []
                boxes.setdefault(name, []).append(_box(_without_score(values, where), where))
        return boxes
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise UserError(f'{path} must hold {{"name": [[x0, y0, x1, y1], ...]}}, or a list of objects with such keys.')
    for number, entry in enumerate(content, 1):
        where = f"{path}, entry {number}"
        keys = {str(key).lower(): value for key, value in entry.items()}
        listed = next((key for key in ("box", "bbox") if isinstance(keys.get(key), list)), None)
        if listed is not None:
            at = ("x", "y", "w", "h") if listed == "bbox" else ("x0", "y0", "x1", "y1")
            values = list(_without_score(keys[listed], where))
            if len(values) != 4:
                raise UserError(f"{where}: {shown(keys[listed])} is not four numbers.")
            keys = {key: value for key, value in keys.items() if key in _NAMES} | dict(zip(at, values, strict=True))
        name, box = _by_key(keys, where, list(keys))
        boxes.setdefault(name, []).append(box)
    return boxes


def _without_score(values: Sequence[Any], where: str) -> Sequence[Any]:
    """Return four numbers of five, of which the last is a score.

    Raises:
        UserError: it is a number outside 0..1.
    """
    scored = len(values) == 5 and isinstance(values[4], int | float)
    if scored and not 0 <= values[4] <= 1:
        raise UserError(f"{where}: the fifth number is a score, from 0 to 1; got {values[4]:g}.")
    return values[:4] if scored else values
