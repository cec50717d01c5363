"""Images that a person gives: pairing them with trimaps, masks or boxes, reading them, doing each whatever happens."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from indexnet.core.console import DEVICE_HELP, error_console, say
from indexnet.core.errors import UserError

if TYPE_CHECKING:
    from indexnet.data.base import UInt8
    from indexnet.data.io.masks import Bool, Box
    from indexnet.tasks import Task


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
    """

    image: Path
    trimap: Path | None = None
    problem: str = ""
    mask: Path | None = None
    boxes: tuple[Box, ...] = ()
    name: str = ""

    @property
    def stem(self) -> str:
        """The name that outputs get."""
        return self.name or self.image.stem


@dataclass
class Photo:
    """An image that was read.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        trimap: uint8 (H, W) in {0, 128, 255}, None where none is wanted.
        made: whether the trimap was made here, of a mask or boxes.
        snapped: pixels of the trimap's file that had other values.
        remarks: what a person should know, in sentences.
    """

    image: UInt8
    trimap: UInt8 | None = None
    made: bool = False
    snapped: int = 0
    remarks: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """What became of a folder.

    Attributes:
        done: files that were done.
        failed: (file, sentence) of those that were not.
    """

    done: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def exit_code(self) -> int:
        """Return 0 where all is done, 3 where a part is, 2 where nothing is."""
        if not self.failed:
            return 0
        return 3 if self.done else 2


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

    given = [name for name, value in (("trimaps", trimaps), ("masks", masks), ("boxes", boxes)) if value is not None]
    if wants_trimap and not given:
        raise UserError(f"the task {task} needs a trimap for each image; give --trimaps DIR.")
    if not wants_trimap and given:
        raise UserError(f"the task {task} takes no {given[0]}; leave --{given[0]} out.")
    files = [images] if images.is_file() else _list(images, "images")
    unread = [] if images.is_file() else [_unread(file) for file in list_unread(images)]
    if boxes is not None:
        return _without_clashes([_boxed(file, boxes) for file in files]) + unread
    folder, word = (trimaps, "trimap") if masks is None else (masks, "mask")
    if folder is None:
        return _without_clashes([Item(file) for file in files]) + unread
    if folder.is_file():
        if not images.is_file():
            raise UserError(f"--{word}s {folder} is one file but --images is a folder; give a folder of {word}s.")
        return [_with(images, word, folder)]
    found: dict[str, list[Path]] = {}
    for file in _list(folder, f"{word}s"):
        found.setdefault(file.stem, []).append(file)
    return _without_clashes([_pair(file, found.get(file.stem, []), folder, word) for file in files]) + unread


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
    from indexnet.data.io.images import SUFFIXES

    return Item(image, problem=f"{image} is not read, only {', '.join(SUFFIXES)} are; save it as JPEG or PNG.")


def list_without_image(items: Sequence[Item], images: Path, folder: Path, word: str) -> None:
    """Say, on stderr, which trimaps or masks of a folder belong to no image.

    Args:
        items: as :func:`find_items` lists them.
        images: the folder of images.
        folder: of trimaps or masks; where it is one file, nothing is said.
        word: ``"trimap"`` or ``"mask"``.
    """
    if not folder.is_dir():
        return
    names = {item.image.stem for item in items}
    others = [file.name for file in _list(folder, f"{word}s") if file.stem not in names]
    if others:
        shown = f"{', '.join(others[:5])}{', ...' if len(others) > 5 else ''}"
        print(f"{folder}: {word}s without an image of that name in {images}: {len(others)} ({shown})", file=sys.stderr)


def _boxed(image: Path, boxes: Mapping[str, Sequence[Box]]) -> Item:
    found = boxes.get(image.name) or boxes.get(image.stem)
    if not found:
        return Item(image, problem=f"{image} has no box; give a line {image.name},x0,y0,x1,y1.")
    return Item(image, boxes=tuple(found))


def _pair(image: Path, candidates: Sequence[Path], folder: Path, word: str) -> Item:
    if not candidates:
        return Item(image, problem=f"{image} has no {word}; put one named {image.stem}.png into {folder}.")
    if len(candidates) > 1:
        names = ", ".join(file.name for file in candidates)
        return Item(image, problem=f"{image} has several {word}s in {folder} ({names}); keep one.")
    return _with(image, word, candidates[0])


def _with(image: Path, word: str, file: Path) -> Item:
    return Item(image, mask=file) if word == "mask" else Item(image, trimap=file)


def _without_clashes(items: list[Item]) -> list[Item]:
    """Refuse images whose results would have the same name."""
    counts = Counter(item.stem for item in items)
    return [
        item
        if counts[item.stem] == 1
        else Item(item.image, None, f"{item.image} shares its name with another image, and so its result; rename one.")
        for item in items
    ]


def read_photo(item: Item, band: int | None = None) -> Photo:
    """Read an image, and its trimap or what one is made of; trimap values are snapped to 0, 128 and 255.

    Args:
        item: what to read.
        band: width of the unknown band of trimaps that are made, in pixels; None: relative to what is marked.

    Raises:
        UserError: a file cannot be read, two differ in size, or no trimap can be made of a mask or of boxes.
    """
    from indexnet.data.io.images import page_count, read_image, read_trimap
    from indexnet.data.io.masks import mask_from_boxes, trimap_from_mask

    photo = Photo(read_image(item.image, srgb=True))
    pages = page_count(item.image)
    if pages > 1:
        photo.remarks.append(f"{item.image} has {pages} pages or frames; the first was taken.")
    if item.trimap is not None:
        photo.trimap, photo.snapped = read_trimap(item.trimap, strict=False)
        _check_size(item, item.trimap, "trimap", photo.image, photo.trimap)
        if photo.snapped:
            photo.remarks.append(
                f"{item.trimap}: {photo.snapped} pixels were neither 0, 128 nor 255 and were snapped to them."
            )
    elif item.mask is not None or item.boxes:
        try:
            mask = _read_mask(item, item.mask, photo) if item.mask else mask_from_boxes(photo.image, item.boxes)
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
    from indexnet.data.io.images import camera_orientation

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
    import cv2
    import numpy as np

    from indexnet.data.io.images import read_mask

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


def read_item(item: Item, task: Task) -> tuple[dict[str, Any], int]:
    """Read an image and its trimap as a sample, see :func:`read_photo`.

    Returns:
        The sample, and how many trimap pixels were snapped.

    Raises:
        UserError: a file cannot be read, or the two differ in size.
    """
    from indexnet.inference.predictor import image_sample

    photo = read_photo(item)
    return dict(image_sample(task, photo.image, photo.trimap, item.stem)), photo.snapped


_T = TypeVar("_T")


class ReadAhead(Generic[_T]):
    """Read the next items in a thread while the present one is worked on; to be used in a ``with`` statement.

    Args:
        items: what will be asked for, in this order.
        read: reads one item.
        ahead: how many items beyond the present one are read, and held in memory.
    """

    def __init__(self, items: Iterable[Item], read: Callable[[Item], _T], ahead: int = 1) -> None:
        self._rest = list(items)
        self._read = read
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._futures: dict[Item, Future[_T]] = {}

    def __enter__(self) -> ReadAhead[_T]:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def peek(self, item: Item) -> _T:
        """Return what was read; what ``read`` raised is raised here."""
        if item not in self._futures:
            self._futures[item] = self._pool.submit(self._read, item)
        return self._futures[item].result()

    def take(self, item: Item) -> _T:
        """Return what was read and forget it, while the next items are being read."""
        place = self._rest.index(item)
        for following in self._rest[place : place + 1 + self._ahead]:
            if following not in self._futures:
                self._futures[following] = self._pool.submit(self._read, following)
        self._rest = self._rest[place + 1 :]
        return self._futures.pop(item).result()


def check_output(output: Path, *inputs: Path | None, folders: Sequence[str] = ()) -> None:
    """Create the folder for results, and refuse one that holds the inputs.

    Args:
        output: the folder.
        inputs: files, or folders of files, that are read.
        folders: those inside ``output`` that results go to as well.

    Raises:
        UserError: it is a folder of inputs, or cannot be created.
    """
    written = {(output / folder).resolve(): output / folder for folder in ("", *folders)}
    for given in inputs:
        if given is None:
            continue
        read = (given if given.is_dir() else given.parent).resolve()
        if read in written:
            raise UserError(f"--output {written[read]} is the folder of the inputs; give another one.")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output} cannot be created ({error.strerror}); give another folder.") from error


def do_each(items: Sequence[Item], work: Callable[[Item], str | None], title: str) -> Outcome:
    """Do each item under a progress bar; what fails is told at once and kept, the others are done.

    Args:
        items: what to do.
        work: does one; returns a remark for the person, or None. A ``UserError``, a failing disk or too little memory
            fails this item only.
        title: what the progress bar says.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from indexnet.networks.tiled.memory import is_out_of_memory

    outcome = Outcome()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = error_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=len(items))
        for item in items:
            try:
                if item.problem:
                    raise UserError(item.problem)
                remark = work(item)
                outcome.done.append(str(item.image))
                if remark:
                    say(console, remark)
            except UserError as error:
                outcome.failed.append((str(item.image), str(error)))
            except OSError as error:
                where = error.filename or item.image
                outcome.failed.append((str(item.image), f"{where}: {error.strerror or error}."))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                sentence = f"{item.image} is too large for the memory; make it smaller, or give --device cpu."
                outcome.failed.append((str(item.image), sentence))
            if outcome.failed and outcome.failed[-1][0] == str(item.image):
                say(console, outcome.failed[-1][1])
            progress.advance(bar)
    return outcome


def list_failures(outcome: Outcome, total: int) -> None:
    """Say at the end, on stderr, which files were not done."""
    if outcome.failed:
        names = ", ".join(name for name, _ in outcome.failed)
        print(f"not done, for the reasons above: {len(outcome.failed)} of {total}: {names}", file=sys.stderr)
