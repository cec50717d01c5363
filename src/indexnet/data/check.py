"""Reading a data set's files before a run needs them: what there is, of which sizes, and what is wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from indexnet.core.console import error_console
from indexnet.core.errors import UserError

if TYPE_CHECKING:
    from indexnet.data import Data, Dataset
    from indexnet.data.matting import Foreground


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


def check(sets: Sequence[Data], full: bool = False) -> list[Found]:
    """Check every split of a data set built for several tasks; splits that are made of the same are checked once.

    Composites are checked by what they are made of: each foreground is decoded once, and each background opened once.

    Args:
        sets: the data set, once for each task.
        full: whether backgrounds are decoded, which also finds files that end too early.

    Returns:
        One entry per split, in order.
    """
    found: list[Found] = []
    seen: set[str] = set()
    opened: set[Path] = set()
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
                if (fingerprint := split.fingerprint()) not in seen:
                    seen.add(fingerprint)
                    if parts := _parts(split):
                        found += _check_composites(parts, entry, opened, full)
                        continue
                    verify, entry.items = _verifier(split, entry)
                    _check_items(verify, entry)
                    found.append(entry)
    return found


def check_folder(folder: Path) -> Found:
    """Check a person's own folder of photographs.

    Args:
        folder: what the option ``backgrounds`` names; it needs two images at least.
    """
    from indexnet.data.io.images import list_images, read_image

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


@dataclass
class _Parts:
    """What composites that are made on the fly are made of.

    Attributes:
        foregrounds: each one once.
        backgrounds: each one once.
        trimaps: those that are files, and whose they are.
    """

    foregrounds: Sequence[Foreground]
    backgrounds: Sequence[Path]
    trimaps: Sequence[tuple[Path, Foreground]] = ()


def _parts(split: Dataset) -> _Parts | None:
    """Return the parts of a split that is composed on the fly, None of any other."""
    from indexnet.data.matting.test_composites import Compositions
    from indexnet.data.matting.train_composites import Composites

    if isinstance(split, Composites):
        return _Parts(split.foregrounds, list(dict.fromkeys(split.backgrounds)))
    if isinstance(split, Compositions):
        trimaps = {path: pair.foreground for path, pair in zip(split.trimaps, split.pairs, strict=True) if path}
        backgrounds = list(dict.fromkeys(pair.background for pair in split.pairs))
        return _Parts(split.foregrounds, backgrounds, list(trimaps.items()))
    return None


def _check_composites(parts: _Parts, entry: Found, opened: set[Path], full: bool) -> list[Found]:
    """Check what composites are made of.

    Args:
        parts: of the split.
        entry: the split's.
        opened: backgrounds that have been checked; those of this split are added.
        full: whether backgrounds are decoded.

    Returns:
        The split's entry, and those of its new backgrounds and its trimaps where there are any.
    """
    from indexnet.data.io.images import read_image, read_trimap
    from indexnet.data.matting import read_foreground
    from indexnet.data.matting.photographs import check_same_size
    from indexnet.data.segmentation import image_size

    def foreground(index: int) -> None:
        item = replace(parts.foregrounds[index], estimate=False)  # colours take a second to estimate
        colour, alpha = read_foreground(item)
        entry.sizes.add(alpha.shape)
        nbytes.append(colour.nbytes + alpha.nbytes)

    nbytes: list[int] = []
    entry.items = len(parts.foregrounds)
    _check_items(foreground, entry)
    entry.nbytes = sum(nbytes)

    new = [path for path in parts.backgrounds if path not in opened]
    opened.update(new)
    behind = Found(entry.task, f"{entry.split}, backgrounds", len(new), len(new))

    def background(index: int) -> None:
        height, width = read_image(new[index]).shape[:2] if full else image_size(new[index])
        behind.sizes.add((height, width))

    _check_items(background, behind)
    trimaps = Found(entry.task, f"{entry.split}, trimaps", len(parts.trimaps), len(parts.trimaps))

    def trimap(index: int) -> None:
        path, item = parts.trimaps[index]
        values, _ = read_trimap(path, strict=True)
        trimaps.sizes.add(values.shape)
        check_same_size(path, values.shape, item.alpha, image_size(item.alpha))

    _check_items(trimap, trimaps)
    return [found for found in (entry, behind, trimaps) if found is entry or found.items]


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
    from indexnet.data.io.cache import Arrays, Store

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


def print_table(title: str, found: Sequence[Found]) -> None:
    """Print a line per split."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from indexnet.data.io.cache import in_words

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


_SHOWN = 20  # problems that are listed; the others are counted


def print_problems(problems: Sequence[str]) -> None:
    """Print the first twenty sentences and count the others."""
    for problem in problems[:_SHOWN]:
        print(problem)
    if len(problems) > _SHOWN:
        print(f"... and {len(problems) - _SHOWN} more.")
