"""Folders of images that a person gives: pairing them with trimaps, and doing each whatever happens to the others."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.errors import UserError

if TYPE_CHECKING:
    from indexnet.tasks import Task

DEVICE_HELP = "auto (the default: a GPU where there is one), cpu, cuda or cuda:N"


@dataclass(frozen=True)
class Item:
    """One image to do.

    Attributes:
        image: its file.
        trimap: the trimap's file, None where the task takes none.
        problem: why it cannot be done, in one sentence; empty where it can.
    """

    image: Path
    trimap: Path | None = None
    problem: str = ""

    @property
    def stem(self) -> str:
        """The name that outputs get."""
        return self.image.stem


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


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--images``, ``--trimaps``, ``--output``, ``--overwrite`` and ``--device``."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR|FILE", help="a folder of images, or one")
    parser.add_argument(
        "--trimaps",
        type=Path,
        metavar="DIR|FILE",
        help="matting: trimaps of the same names (any ending); values <= 20 are background, >= 235 foreground",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)


def find_items(images: Path, trimaps: Path | None, task: str, wants_trimap: bool) -> list[Item]:
    """List the images to do, each with its trimap or with the reason why it cannot be done.

    Args:
        images: a folder, or one file.
        trimaps: a folder, or one file where ``images`` is one.
        task: the task's name, for messages.
        wants_trimap: whether the task takes trimaps.

    Raises:
        UserError: nothing can be done at all: a missing or empty folder, trimaps missing or not wanted.
    """
    from indexnet.data.images import list_images

    if wants_trimap and trimaps is None:
        raise UserError(f"the task {task} needs a trimap for each image; give --trimaps DIR.")
    if not wants_trimap and trimaps is not None:
        raise UserError(f"the task {task} takes no trimaps; leave --trimaps out.")
    files = [images] if images.is_file() else list_images(images)
    if trimaps is None:
        return _without_clashes([Item(file) for file in files])
    if trimaps.is_file():
        if not images.is_file():
            raise UserError(f"--trimaps {trimaps} is one file but --images is a folder; give a folder of trimaps.")
        return [Item(images, trimaps)]
    found: dict[str, list[Path]] = {}
    for file in list_images(trimaps):
        found.setdefault(file.stem, []).append(file)
    return _without_clashes([_pair(file, found.get(file.stem, []), trimaps) for file in files])


def _pair(image: Path, candidates: Sequence[Path], folder: Path) -> Item:
    if not candidates:
        return Item(image, None, f"{image} has no trimap; put one named {image.stem}.png into {folder}.")
    if len(candidates) > 1:
        names = ", ".join(file.name for file in candidates)
        return Item(image, None, f"{image} has several trimaps in {folder} ({names}); keep one.")
    return Item(image, candidates[0])


def _without_clashes(items: list[Item]) -> list[Item]:
    """Refuse images whose results would have the same name."""
    counts = Counter(item.stem for item in items)
    return [
        item
        if counts[item.stem] == 1
        else Item(item.image, None, f"{item.image} shares its name with another image, and so its result; rename one.")
        for item in items
    ]


def read_item(item: Item, task: Task) -> tuple[dict[str, Any], int]:
    """Read an image and its trimap as a sample; trimap values are snapped to 0, 128 and 255.

    Returns:
        The sample, and how many trimap pixels were snapped.

    Raises:
        UserError: a file cannot be read, or the two differ in size.
    """
    from indexnet.data.images import read_image, read_trimap
    from indexnet.run.infer import image_sample

    image = read_image(item.image)
    if item.trimap is None:
        return dict(image_sample(task, image, name=item.stem)), 0
    trimap, snapped = read_trimap(item.trimap, strict=False)
    if trimap.shape != image.shape[:2]:
        (h, w), (th, tw) = image.shape[:2], trimap.shape
        turned = " (one of them is turned: apply the camera's orientation to both)" if (h, w) == (tw, th) else ""
        raise UserError(
            f"{item.image} is {w}x{h} pixels but its trimap {item.trimap} is {tw}x{th}{turned}; "
            "make a trimap of the image's size."
        )
    return dict(image_sample(task, image, trimap, item.stem)), snapped


def check_output(output: Path, *inputs: Path | None) -> None:
    """Create the folder for results, and refuse one that holds the inputs.

    Raises:
        UserError: it is a folder of inputs, or cannot be created.
    """
    for folder in inputs:
        if folder is not None and output.resolve() == (folder if folder.is_dir() else folder.parent).resolve():
            raise UserError(f"--output {output} is the folder of the inputs; give another one.")
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

    from indexnet.run.infer import out_of_memory

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
                if not out_of_memory(error):
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


def error_console() -> Any:
    """Return a rich console on the process's present stderr."""
    from rich.console import Console

    return Console(file=sys.stderr)


def say(console: Any, text: str) -> None:
    """Print a line above a progress bar, as it is: no wrapping, no markup."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def allow_anywhere(parser: argparse.ArgumentParser) -> None:
    """Let positional arguments stand between options; plain argparse takes only their first group."""
    plain = parser.parse_known_args

    def parse(args: Any = None, namespace: Any = None) -> Any:
        parser.parse_known_args = plain  # type: ignore[method-assign]  # the next line comes back to it
        try:
            return parser.parse_known_intermixed_args(args, namespace)
        finally:
            parser.parse_known_args = parse  # type: ignore[method-assign]

    parser.parse_known_args = parse  # type: ignore[method-assign]
