"""Images that a person gives, paired with trimaps, masks or boxes."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from indexnet.core.console import DEVICE_HELP, warn
from indexnet.core.errors import UserError
from indexnet.core.files import atomic_write, prepare_folder, writing

if TYPE_CHECKING:
    from indexnet.data.io.boxes import Box
    from indexnet.data.io.names import Names


@dataclass(frozen=True)
class Item:
    """One image to do.

    Attributes:
        image: its file.
        trimap: the trimap's file, None where there is none.
        problem: why it cannot be done, in one sentence; empty where it can.
        mask: the file of a coarse mask to make a trimap of.
        boxes: what to make a trimap of instead.
        name: of its results, where that is not the image's.
        truth: the file of what results are to be compared with.
    """

    image: Path
    trimap: Path | None = None
    problem: str = ""
    mask: Path | None = None
    boxes: tuple[Box, ...] = ()
    name: str = ""
    truth: Path | None = None

    @property
    def stem(self) -> str:
        """The name that outputs get."""
        return self.name or self.image.stem


def add_image_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add ``--images`` (which may be ``required``), ``--trimaps``, ``--output``, ``--overwrite`` and ``--device``."""
    parser.add_argument("--images", type=Path, required=required, metavar="DIR|FILE", help="a folder of images, or one")
    parser.add_argument(
        "--trimaps",
        type=Path,
        metavar="DIR|FILE",
        help="matting: trimaps of the same names (any ending); values <= 20 are background, >= 235 foreground",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)


def find_items(
    images: Path,
    trimaps: Path | None,
    task: str,
    wants_trimap: bool,
    masks: Path | None = None,
    boxes: Mapping[str, Sequence[Box]] | None = None,
) -> list[Item]:
    """List the images to do, each with its trimap or with the reason why it cannot be done.

    Photographs of formats that are not read are listed, too, with that as their reason.

    Args:
        images: a folder, or one file.
        trimaps: a folder, or one file where ``images`` is one.
        task: the task's name, for messages.
        wants_trimap: whether the task takes trimaps.
        masks: as ``trimaps``, of coarse masks.
        boxes: by the names of images, with or without their ending.

    Raises:
        UserError: nothing can be done at all: a missing or empty folder, trimaps missing or not wanted.
    """
    from indexnet.data.io.images import list_unread
    from indexnet.data.io.names import Names

    given = [name for name, value in (("trimaps", trimaps), ("masks", masks), ("boxes", boxes)) if value is not None]
    if wants_trimap and not given:
        raise UserError(f"the task {task} needs a trimap for each image; give --trimaps DIR.")
    if not wants_trimap and given:
        raise UserError(f"the task {task} takes no {given[0]}; leave --{given[0]} out.")
    single = os.path.isfile(images)  # False for a name that no file can have
    files = [images] if single else _list(images, "images")
    unread = [] if single else [_unread(file) for file in list_unread(images)]
    if boxes is not None:
        return _without_clashes(_boxed(files, boxes)) + unread
    folder, word = (trimaps, "trimap") if masks is None else (masks, "mask")
    if folder is None:
        return _without_clashes([Item(file) for file in files]) + unread
    if os.path.isfile(folder):
        if not single:
            raise UserError(f"--{word}s {folder} is one file but --images is a folder; give a folder of {word}s.")
        return [_with(images, word, folder)]
    there = Names(_list(folder, f"{word}s"))
    return _without_clashes([_pair(file, there, folder, word) for file in files]) + unread


def _list(folder: Path, option: str) -> list[Path]:
    """List the images of a folder that an option names.

    Raises:
        UserError: it is missing, is no folder, or holds no image.
    """
    from indexnet.data.io.images import list_images

    try:
        return list_images(folder)
    except UserError as error:
        raise UserError(f"--{option} {error}") from error


def _unread(image: Path) -> Item:
    from indexnet.data.io.decoding import HEIC_REMEDY
    from indexnet.data.io.images import HEIC_SUFFIXES, SUFFIXES

    if image.suffix.lower() in HEIC_SUFFIXES:
        return Item(image, problem=f"{image} is a HEIC picture; {HEIC_REMEDY}.")
    return Item(image, problem=f"{image} is not read, only {', '.join(SUFFIXES)} are; save it as JPEG or PNG.")


def with_truths(items: Sequence[Item], images: Path, truths: Path) -> list[Item]:
    """Give images the files of the same names that say what results should be.

    Args:
        items: as :func:`find_items` lists them.
        images: the folder of images, or one file.
        truths: likewise.

    Raises:
        UserError: one is a file and the other a folder, or the folder is empty.
    """
    from indexnet.data.io.names import Names

    if os.path.isfile(truths):
        if not os.path.isfile(images):
            raise UserError(f"--truth {truths} is one file but --images is a folder; give a folder of truths.")
        return [replace(item, truth=truths) for item in items]
    there = Names(_list(truths, "truth"))
    found = []
    for item in items:
        paired = _pair(item.image, there, truths, "truth")
        found.append(item if item.problem else replace(item, truth=paired.truth, problem=paired.problem))
    return found


def list_without_image(items: Sequence[Item], images: Path, folder: Path, word: str) -> None:
    """Say, on stderr, which trimaps or masks of a folder belong to no image.

    Args:
        items: as :func:`find_items` lists them.
        images: the folder of images.
        folder: of trimaps or masks; where it is one file, nothing is said.
        word: ``"trimap"`` or ``"mask"``.
    """
    if not os.path.isdir(folder):
        return
    taken = {item.trimap or item.mask for item in items}
    names = {item.image.stem for item in items}  # of those with several, which are refused
    others = [file.name for file in _list(folder, f"{word}s") if file not in taken and file.stem not in names]
    if others:
        shown = f"{', '.join(others[:5])}{', ...' if len(others) > 5 else ''}"
        warn(f"{folder}: {word}s without an image of that name in {images}: {len(others)} ({shown})")


def _boxed(images: Sequence[Path], boxes: Mapping[str, Sequence[Box]]) -> list[Item]:
    """Give images their boxes, which may be listed without the endings, or with folders before the names."""
    from indexnet.data.io.names import Names

    written = {Path(name.replace("\\", "/")): found for name, found in boxes.items()}
    by_name, by_stem, items = Names(written, lambda path: path.name), Names(written), []
    for image in images:
        found = boxes.get(image.name) or boxes.get(image.stem)
        try:
            listed = None if found else by_name.find(image.name) or by_stem.find(image.stem)
        except UserError as error:
            items.append(Item(image, problem=f"{image} has boxes under several names: {error}"))
            continue
        found = written[listed] if listed else found
        missing = f"{image} has no box; give a line {image.name},x0,y0,x1,y1."
        items.append(Item(image, boxes=tuple(found)) if found else Item(image, problem=missing))
    return items


def list_boxes_without_image(
    items: Sequence[Item], images: Path, boxes: Mapping[str, Sequence[Box]], file: Path
) -> None:
    """Say, on stderr, which boxes belong to no image: arguments as of :func:`list_without_image`."""
    from indexnet.data.io.names import Names

    files = {item.image for item in items}
    by_name, by_stem = Names(files, lambda path: path.name), Names(files)

    def has_image(name: str) -> bool:
        path = Path(name.replace("\\", "/"))
        try:
            return any((by_name.find(path.name), by_stem.find(path.name), by_stem.find(path.stem)))
        except UserError:  # it has several
            return True

    for name in sorted(name for name in boxes if not has_image(name)):
        warn(f"{file} has a box for {name}, which is not in {images}.")


def _pair(image: Path, there: Names, folder: Path, word: str) -> Item:
    try:
        found = there.find(image.stem)
    except UserError as error:
        return Item(image, problem=f"{image} has several {word}s in {folder}: {error}")
    if found is None:
        return Item(image, problem=f"{image} has no {word}; put one named {image.stem}.png into {folder}.")
    return _with(image, word, found)


def _with(image: Path, word: str, file: Path) -> Item:
    return Item(image, **{word: file})  # type: ignore[arg-type]


def _without_clashes(items: list[Item]) -> list[Item]:
    """Refuse images whose results would have the same name."""
    counts = Counter(item.stem for item in items)
    return [
        item
        if counts[item.stem] == 1
        else Item(item.image, None, f"{item.image} shares its name with another image, and so its result; rename one.")
        for item in items
    ]


def check_output(output: Path, *inputs: Path | None, folders: Sequence[str] = ()) -> None:
    """Create the folder for results, and refuse one that holds the inputs.

    What a command that was killed left half-written in it is removed.

    Args:
        output: the folder.
        inputs: files, or folders of files, that are read.
        folders: those inside ``output`` that results go to as well.

    Raises:
        UserError: it is a folder of inputs, or cannot be written to.
    """
    written = {(output / folder).resolve(): output / folder for folder in ("", *folders)}
    for given in inputs:
        if given is None:
            continue
        read = (given if os.path.isdir(given) else given.parent).resolve()
        if read in written:
            raise UserError(f"--output {written[read]} is the folder of the inputs; give another one.")
    prepare_folder(output, *folders)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)


def write_classes(classes: Sequence[str], output: Path, overwrite: bool) -> None:
    """Write the names of classes beside their numbers, as ``classes.txt``; nothing where there are none.

    Raises:
        UserError: there is such a file, which says something else.
    """
    if classes:
        lines = "".join(f"{number} {name}\n" for number, name in enumerate(classes))
        listed = output / "classes.txt"
        if os.path.exists(listed) and listed.read_text(encoding="utf-8") != lines and not overwrite:
            raise UserError(f"{listed} exists and says something else; give --overwrite, or another --output.")
        atomic_write(listed, lines)
