"""Lists of classes, with the colours that label maps have for them where they have any."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError, shown
from indexnet.data.io.file_lists import read_numbered_lines

Colour = tuple[int, int, int]
Classes = list[tuple[str, Colour | None]]
"""Names in the order of their numbers, each with its colour, or all without."""

_GAP = r"[\s,;:]+"
_NUMBERS = _GAP.join([r"(\d{1,3})"] * 3)
_COLOUR_FIRST = re.compile(rf"{_NUMBERS}{_GAP}(\S.*)")
_COLOUR_LAST = re.compile(rf"(.*\S){_GAP}{_NUMBERS}")
_NUMBERED = re.compile(rf"(\d{{1,3}})\.?{_GAP}(\S.*)")
_NAME, _COLOUR = r"(?:names?|class(?:es)?|labels?)", rf"r(?:ed)?{_GAP}g(?:reen)?{_GAP}b(?:lue)?"
_HEADING = re.compile(
    rf"(?:(?:id|index|number|class|label){_GAP})?{_NAME}(?:{_GAP}{_COLOUR})?|{_COLOUR}{_GAP}{_NAME}", re.IGNORECASE
)


def read_classes(path: Path, first: int = 0) -> Classes:
    """Read a list of classes: a line each, its name, or name and colour in either order (``64 128 64 Animal``).

    Spaces, commas, semicolons, tabs and colons separate; a heading ``name,r,g,b`` or ``name`` and lines that begin with
    ``#`` are left out. Where a number stands before each name (``2 car``), the numbers tell the order.

    Args:
        path: the file.
        first: the number of the first class in label maps.

    Raises:
        UserError: there is no such file, it is no text or empty, its lines are no such list, or their numbers are not
            ``first`` and those that follow.
    """
    found: Classes = []
    for number, line in read_numbered_lines(path, "classes"):
        text = line.strip(" \t,;:")
        if line.startswith("#") or not text or (not found and _HEADING.fullmatch(text)):
            continue
        name, colour = text, None
        if match := _COLOUR_FIRST.fullmatch(text):
            *levels, name = match.groups()
            colour = check_colour(levels, f"{path}, line {number}")
        elif match := _COLOUR_LAST.fullmatch(text):
            name, *levels = match.groups()
            colour = check_colour(levels, f"{path}, line {number}")
        found.append((name.strip(" \t\"'"), colour))
    return check_classes(_in_order(found, path, first), str(path))


def _in_order(found: Classes, path: Path, first: int) -> Classes:
    """Return classes by the numbers before their names, where all have one, without those."""
    numbered = [(int(match[1]), (match[2], colour)) for name, colour in found if (match := _NUMBERED.fullmatch(name))]
    if not found or len(numbered) < len(found):
        return found
    numbered.sort(key=lambda each: each[0])
    numbers = [number for number, _ in numbered]
    first = first if found[0][1] is None else numbers[0]  # colours need none
    if numbers != list(range(first, first + len(found))):
        raise UserError(
            f"{path} numbers its classes {shown(', '.join(map(str, numbers)))}; they must be numbered from {first} "
            "(data.first) on without a gap, or have no numbers."
        )
    return [each for _, each in numbered]


def parse_classes(classes: Any) -> Classes:
    """Return the option ``data.classes`` where it is no file: a list of names, or a mapping of names to colours.

    Raises:
        UserError: it is neither, or no such list.
    """
    if isinstance(classes, Mapping):
        items = [(str(name), check_colour(colour, f"data.classes, {name}")) for name, colour in classes.items()]
        return check_classes(list(items), "data.classes")
    if isinstance(classes, Sequence) and classes and all(isinstance(name, str) for name in classes):
        return check_classes([(name, None) for name in classes], "data.classes")
    raise UserError(
        "data.classes must be a file, a list of names, or a mapping of names to colours, as {sky: [128, 128, 128]}; "
        f"got {shown(classes)}."
    )


def check_colour(levels: Any, where: str) -> Colour:
    """Return a colour as (r, g, b).

    Raises:
        UserError: it is not three whole numbers from 0 to 255.
    """
    try:
        red, green, blue = (int(str(level)) for level in levels)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: a colour is three whole numbers, r, g and b; got {shown(levels)}.") from error
    if not all(0 <= level <= 255 for level in (red, green, blue)):
        raise UserError(f"{where}: a colour's numbers are from 0 to 255; got {red}, {green}, {blue}.")
    return red, green, blue


def check_classes(found: Classes, where: str) -> Classes:
    """Refuse a list in which a name or a colour stands twice, or that is coloured in part, empty or too long.

    Raises:
        UserError: it is one of these.
    """
    names, colours = [name for name, _ in found], [colour for _, colour in found if colour is not None]
    if not 1 <= len(names) <= 255:
        raise UserError(f"{where} names {len(names)} classes; there may be 1 to 255.")
    for what, values in (("class", names), ("colour", colours)):
        twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
        if twice is not None:
            raise UserError(f"{where} has the {what} {twice} twice.")
    if colours and len(colours) < len(names):
        lone = next(name for name, colour in found if colour is None)
        raise UserError(f"{where} has colours, but none for the class {lone!r}; give all of them one, or none.")
    return found
