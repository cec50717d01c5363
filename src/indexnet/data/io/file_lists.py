"""Where the parts of composites lie: backgrounds, name lists, what is held out for testing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from indexnet.core.errors import UserError
from indexnet.core.readers import DamagedFileError, read_text
from indexnet.data.io.images import image_names
from indexnet.data.io.names import FileFinder, Names, is_file, name_bytes

_P = TypeVar("_P", Path, str)


def read_lines(path: Path, what: str) -> list[str]:
    """Return the texts of :func:`read_numbered_lines`."""
    return [line for _, line in read_numbered_lines(path, what)]


def read_numbered_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not empty, without the spaces around them, with their numbers.

    Args:
        path: the file.
        what: what it lists, for the error.

    Raises:
        UserError: it does not exist, cannot be read, or is empty.
    """
    try:
        lines = [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1)]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; it lists {what}, one a line.") from error
    except DamagedFileError as error:
        raise DamagedFileError(f"{error} It lists {what}, one a line.") from error
    if not (lines := [(number, line) for number, line in lines if line]):
        raise UserError(f"{path} is empty; it lists {what}, one a line.")
    return lines


def check_places(what: str, places: Any) -> tuple[Path, ...] | None:
    """Return an option that names folders, or files that list images: one of them, several, or None.

    Raises:
        UserError: it is something else.
    """
    if places is None:
        return None
    listed = [places] if isinstance(places, str | Path) else places
    if not isinstance(listed, Sequence) or not listed or not all(isinstance(place, str | Path) for place in listed):
        raise UserError(f"{what} must be a folder, a file that lists images, or a list of those; got {places!r}.")
    return tuple(Path(place) for place in listed)


def find_images(places: Iterable[Path], option: str) -> list[Path]:
    """Return all images of folders, by name, and of list files, in their order; one place after the other.

    A list file names an image a line, relative to its own folder.

    Args:
        places: folders and list files.
        option: that names them, or could, for the error.

    Raises:
        UserError: a place does not exist or gives no image.
    """
    found: list[Path] = []
    for place in places:
        if not os.path.exists(place):
            raise UserError(f"{place} does not exist; name a folder of images, or a file that lists them, in {option}.")
        if is_file(place):
            finder = FileFinder()
            lines = read_lines(place, "images")
            found += [finder.find_below(place.parent, line) or place.parent / line for line in lines]
        else:
            found += [place / name for name in image_names(place)]
    return found


def find_named(names: Sequence[str], places: Sequence[Path], listed_by: Path, option: str) -> list[Path]:
    """Return where the listed images are, in the list's order.

    Args:
        names: file names.
        places: as for :func:`find_images`; the first that has an image gives it.
        listed_by: the list, for the error.
        option: as for :func:`find_images`.

    Raises:
        UserError: an image is in none of the places.
    """
    by_name: dict[str, Path] = {}
    for path in reversed(find_images(places, option)):
        by_name[path.name] = path
    there = Names(by_name.values(), lambda path: path.name)
    found = [(name, there.find(name)) for name in names]
    if missing := [name for name, path in found if path is None]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]}{more}, listed in {listed_by}, is missing from {', '.join(map(str, places))}; put it there."
        )
    return [path for _, path in found if path is not None]


def hold_out(items: Sequence[_P], what: str, parts: int = 1) -> list[list[_P]]:
    """Divide files or names: about a tenth is held out for each part, chosen by a hash of the name.

    Which part an item belongs to follows from its own name, so that items which are added later move none of the others
    out of training. Only where a part would be empty, it takes the item whose hash is the lowest.

    Args:
        items: what is divided.
        what: where they are, for the error.
        parts: how many parts are held out.

    Returns:
        What is kept, then each part, at least one item each and in the given order.

    Raises:
        UserError: there are too few items.
    """

    def key(item: _P) -> tuple[int, str]:
        # CRC-32 is linear: of a few dozen numbered names almost all can be even
        return int(hashlib.sha256(name_bytes(Path(item).name)).hexdigest(), 16), str(item)

    left = sorted(set(items), key=key)
    if len(left) <= parts:
        raise UserError(
            f"{what} holds {len(left)} of the {parts + 1} at least that are needed, {parts} of them held out."
        )
    belongs: dict[_P, int] = {}
    for part in range(parts):
        held = [item for item in left if key(item)[0] % 10 == part]
        if not held or len(left) - len(held) < parts - part:
            held = left[:1]
        belongs |= dict.fromkeys(held, part + 1)
        left = [item for item in left if item not in belongs]
    return [[item for item in items if belongs.get(item, 0) == part] for part in range(parts + 1)]


def standard_places(root: Path, split: str, title: str, within: Path | None = None) -> tuple[Path, ...]:
    """Return where COCO (for training) or PASCAL VOC (for tests) lies if nothing else is said.

    Args:
        root: of the data set; it is looked for in there and beside it.
        split: ``"train"`` or ``"test"``.
        title: the data set's name, for the error.
        within: another folder to look in.

    Raises:
        UserError: it is in none of these places.
    """
    folders = [folder for folder in (root, within, root.absolute().parent, root.absolute().parent.parent) if folder]
    if split == "train":
        found = [folder / "train2014" for folder in folders if os.path.isdir(folder / "train2014")][:1]
        expected, option = f"{root / 'train2014'} (COCO's train2014)", "backgrounds"
    else:
        found = [
            place
            for folder in folders
            for pattern in ("VOCdevkit/VOC*/JPEGImages", "VOC*/JPEGImages")
            for place in sorted(folder.glob(pattern), reverse=True)  # the later year first
        ]
        expected, option = f"{root / 'VOCdevkit/VOC2012/JPEGImages'} (PASCAL VOC)", "test_backgrounds"
    if not found:
        raise UserError(
            f"the backgrounds of data={title} ({split} split) are missing: neither {expected} nor the like beside "
            f"{root} exists; give data.{option}=DIR."
        )
    return tuple(found)
