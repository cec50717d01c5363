"""``indexnet data check``: whether a data set's files are there and what they should be, before a run needs them."""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.errors import UserError
from indexnet.run.inputs import error_console

if TYPE_CHECKING:
    from indexnet.data import Data, Dataset

HELP = "check the files of a data set: indexnet data check NAME root=DIR"

_SHOWN = 20  # problems that are listed; the others are counted


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("action", choices=["check"], help="check: read every file of every split")
    parser.add_argument("name", metavar="NAME", help="a data set, see `indexnet list data`")
    parser.add_argument(
        "options",
        nargs="*",
        default=[],
        metavar="OPTION=VALUE",
        help="options of the data set, as after `data.` in train: root=DIR; task=NAME checks for one task only",
    )


def main(args: argparse.Namespace) -> int:
    """Check every split for every task and print what was found.

    Returns:
        0 all files are as they should be, or there are none to check; 2 they are not, the problems are listed.

    Raises:
        UserError: an unknown data set, task or option.
    """
    from indexnet.data import get_data

    info = get_data(args.name).info
    options = read_options(args.name, args.options)
    tasks = (options.pop("task"),) if "task" in options else info.tasks
    sets = _create(args.name, tasks, options)
    started = time.monotonic()
    if info.layout:
        found = check(sets)
    elif folder := options.get("backgrounds"):
        found = [check_folder(Path(folder))]
    else:
        print(f"{info.name} makes its samples itself: nothing to check.")
        return 0
    problems = list(dict.fromkeys(problem for split in found for problem in split.problems))
    _print_table(f"{info.name}: {info.title}", found)
    for problem in problems[:_SHOWN]:
        print(problem)
    if len(problems) > _SHOWN:
        print(f"... and {len(problems) - _SHOWN} more.")
    took = time.monotonic() - started
    if problems:
        print(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}, found in {took:.1f} s.")
        if info.layout and not any(split.count for split in found):
            print(f"expected files: {info.layout}")
        return 2
    print(f"all files are as they should be, checked in {took:.1f} s.")
    return 0


def read_options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Return a data set's options: those of its file in ``conf/data``, then ``OPTION=VALUE``.

    Args:
        name: registry name.
        words: ``OPTION=VALUE`` or ``data.OPTION=VALUE``; values are read as YAML.

    Raises:
        UserError: a word of another form.
    """
    import yaml
    from omegaconf import OmegaConf

    from indexnet.run.config import compose, conf_dir

    options: dict[str, Any] = {}
    if (conf_dir() / "data" / f"{name}.yaml").is_file():
        composed = OmegaConf.to_container(compose([f"data={name}"]), resolve=True)
        assert isinstance(composed, dict)
        options.update(composed["data"])
        options.pop("name")
    for word in words:
        key, equals, text = word.partition("=")
        key = key.removeprefix("data.")
        if not equals or not key or key == "name":
            raise UserError(f"{word!r} is not understood; data check takes OPTION=VALUE after the data set's name.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        options[key] = os.path.expanduser(value) if isinstance(value, str) else value
    return options


@dataclass
class Found:
    """What one split of one task is made of.

    Attributes:
        task: whose targets its samples carry.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"test <name>"``.
        count: number of samples.
        items: number of what is decoded: files, or pairs of them.
        sizes: (height, width) of all images.
        nbytes: of all items, decoded; 0 where the data set never keeps them.
        problems: one sentence each.
    """

    task: str
    split: str
    count: int = 0
    items: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)
    nbytes: int = 0
    problems: list[str] = field(default_factory=list)


def check(sets: Sequence[Data]) -> list[Found]:
    """Check every split of a data set built for several tasks; splits that are made of the same are checked once.

    Args:
        sets: the data set, once for each task.

    Returns:
        One entry per split, in order.
    """
    found: list[Found] = []
    seen: set[str] = set()
    for data in sets:
        for name, build in _builders(data):
            entry = Found(data.task, name)
            try:
                splits = build()
            except UserError as error:
                entry.problems.append(str(error))
                found.append(entry)
                continue
            for part, split in splits.items():
                entry = Found(data.task, f"{name} {part}".strip(), len(split))
                if (made_of := split.fingerprint()) not in seen:
                    seen.add(made_of)
                    verify, entry.items = _verifier(split, entry)
                    _check_items(verify, entry)
                    found.append(entry)
    return found


def check_folder(folder: Path) -> Found:
    """Check a person's own folder of photographs.

    Args:
        folder: what the option ``backgrounds`` names; it needs two images at least.
    """
    from indexnet.data.images import list_images, read_image

    entry = Found("all", "backgrounds")
    try:
        files = list_images(folder)
    except UserError as error:
        entry.problems.append(str(error))
        return entry
    entry.count = entry.items = len(files)
    if len(files) < 2:
        entry.problems.append(f"{folder} holds one image; data.backgrounds needs two at least, one of them to test.")

    def read(index: int) -> None:
        height, width, _ = read_image(files[index]).shape
        entry.sizes.add((height, width))

    _check_items(read, entry)
    return entry


def _create(name: str, tasks: Sequence[str], options: dict[str, Any]) -> list[Data]:
    """Build the data set for each task that takes these options.

    Raises:
        UserError: none does.
    """
    from indexnet.data import create_data

    sets, refusals = [], []
    for task in tasks:
        try:
            sets.append(create_data(name, task=task, **options))
        except UserError as error:
            refusals.append(error)
    if not sets:
        raise refusals[0]
    return sets


def _builders(data: Data) -> Iterator[tuple[str, Callable[[], dict[str, Dataset]]]]:
    """Yield what builds each kind of split, by part; splits that the data set does not have are left out."""
    from indexnet.data.base import NoSplitError

    def train() -> dict[str, Dataset]:
        try:
            return {"": data.train()}
        except NoSplitError:
            return {}

    def validation() -> dict[str, Dataset]:
        split = data.validation()
        return {} if split is None else {"": split}

    yield "train", train
    yield "validation", validation
    yield "test", data.tests


def _check_items(verify: Callable[[int], object], entry: Found) -> None:
    """Verify each item in threads, under a progress bar; the problems go into ``entry``, in order."""
    import cv2
    from rich.progress import track

    def work(index: int) -> str:
        try:
            verify(index)
            return ""
        except UserError as error:
            return str(error)
        except OSError as error:
            return f"{error.filename or f'item {index}'}: {error.strerror or error}."

    console = error_console()
    cv2.setNumThreads(0)  # the threads here are the parallelism
    threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        title, hidden = f"{entry.task}, {entry.split}", not console.is_terminal
        said = threads.map(work, range(entry.items))
        for sentence in track(said, title, entry.items, console=console, transient=True, disable=hidden):
            if sentence:
                entry.problems.append(sentence)
    finally:
        threads.shutdown(cancel_futures=True)


def _verifier(split: Dataset, entry: Found) -> tuple[Callable[[int], object], int]:
    """Return what verifies an item and notes its size in ``entry``, and the number of items.

    Where a split keeps what it decodes, everything that it decodes is looked at in passing.
    """
    import numpy as np

    from indexnet.data.base import Dataset
    from indexnet.data.store import Arrays, Store

    store = getattr(split, "store", None)
    if not isinstance(store, Store):
        if type(split).verify is not Dataset.verify:
            return split.verify, len(split)

        def sample(index: int) -> None:
            image = split.sample(index, np.random.default_rng(0))["image"]
            assert not isinstance(image, str)
            entry.sizes.add((image.shape[-2], image.shape[-1]))

        return sample, len(split)

    load, seen, lock = store.load, set[int](), threading.Lock()

    def watched(index: int) -> Arrays:
        item = load(index)
        with lock:
            if index not in seen:
                seen.add(index)
                entry.sizes.add(max((array.shape[:2] for array in item), key=lambda size: size[0] * size[1]))
                entry.nbytes += sum(array.nbytes for array in item)
        return item

    def verify(index: int) -> None:
        if len(store) == len(split):  # else an item serves many samples
            split.verify(index)
        if index not in seen:
            watched(index)

    store.load = watched
    return verify, len(store)


def _print_table(title: str, found: Sequence[Found]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from indexnet.data.store import in_words

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    table = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", title_style="bold")
    for heading in ("task", "split", "samples", "checked", "sizes", "decoded", "problems"):
        table.add_column(heading, justify="right" if heading in ("samples", "checked", "problems") else "left")
    for entry in found:
        table.add_row(
            entry.task,
            entry.split,
            str(entry.count),
            str(entry.items),
            _in_words(entry.sizes),
            in_words(entry.nbytes) if entry.nbytes else "",
            str(len(entry.problems)) if entry.problems else "none",
        )
    console.print(table)


def _in_words(sizes: set[tuple[int, int]]) -> str:
    """Write image sizes as people do, width first."""
    by_area = [f"{w}x{h}" for h, w in sorted(sizes, key=lambda size: (size[0] * size[1], size))]
    if len(by_area) <= 2:
        return ", ".join(by_area)
    return f"{by_area[0]} to {by_area[-1]} ({len(by_area)} sizes)"
