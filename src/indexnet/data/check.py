"""Reading a data set's files before a run needs them: what there is, of which sizes, and what is wrong."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from indexnet.core.errors import UserError
from indexnet.data.base import Data, Dataset, Float32, NoSplitError
from indexnet.data.depth import DepthFrames
from indexnet.data.files import check_one_size
from indexnet.data.io.cache import Arrays, Store
from indexnet.data.io.decoding import camera_orientation, image_size
from indexnet.data.io.images import list_images, read_image, read_trimap
from indexnet.data.io.names import printable
from indexnet.data.io.progress import in_threads
from indexnet.data.matting import Foreground, read_foreground
from indexnet.data.matting.test_composites import FixedComposites
from indexnet.data.matting.train_composites import TrainingComposites
from indexnet.data.segmentation import SegmentationData

_T = TypeVar("_T")


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
        facts: one sentence each: how the files were read.
        remarks: one sentence each: what is to be looked at, though no file is wrong by itself.
    """

    task: str
    split: str
    count: int = 0
    items: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)
    nbytes: int = 0
    problems: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


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
        for name in ("train", "validation", "test"):
            try:
                splits = _splits(data, name)
            except UserError as error:
                found.append(Found(data.task, name, problems=[printable(str(error))]))
                continue
            for part, split in splits.items():
                entry = Found(data.task, f"{name} {part}".strip(), len(split))
                if (fingerprint := split.fingerprint()) not in seen:
                    seen.add(fingerprint)
                    if isinstance(split, TrainingComposites | FixedComposites):
                        found += _check_composites(split, entry, opened, full)
                        continue
                    found.append(_check_split(split, entry))
                    if isinstance(data, SegmentationData) and name == "train":
                        entry.facts.append(f"{data.task}, classes in the label maps: {data.described_classes()}.")
    return found


def _check_split(split: Dataset, entry: Found) -> Found:
    """Check each sample's files, and how depth and the orientation of photographs are read.

    Where a split keeps what it decodes, everything that it decodes is looked at in passing.
    """
    turned, depths, seen, lock = _Turned(), _Depths(), set[int](), threading.Lock()
    store: Store | None = getattr(split, "store", None)
    if store is not None:
        load = store.load

        def watched(index: int) -> Arrays:
            item = load(index)
            with lock:
                if index not in seen:
                    seen.add(index)
                    entry.sizes.add(max((array.shape[:2] for array in item), key=math.prod))
                    entry.nbytes += sum(array.nbytes for array in item)
                    if isinstance(split, DepthFrames):
                        depths.note(split.metres(item[1]))
            return item

        store.load = watched

    def work(index: int) -> None:
        if store is None and type(split).verify is Dataset.verify:
            image = split.sample(index, np.random.default_rng(0))["image"]
            assert not isinstance(image, str)
            entry.sizes.add((image.shape[-2], image.shape[-1]))
        elif store is None or len(store) == len(split):  # else an item serves many samples
            split.verify(index)
        if store is not None and index not in seen:
            store.load(index)
        turned.note(split.image_files(index))

    _check_items(work, range(len(split) if store is None else len(store)), entry)
    if depths.counts.any():
        assert isinstance(split, DepthFrames)
        entry.facts.append(f"{entry.task}, {entry.split}: {depths}; {split.unit}.")
    entry.remarks += turned.remarks()
    return entry


class _Turned:
    """Notes which photographs are turned as their camera noted, and their maps otherwise."""

    def __init__(self) -> None:
        self.found: list[tuple[Path, Path]] = []

    def note(self, files: Sequence[Path]) -> None:
        """Look at a photograph and its maps."""
        noted = [camera_orientation(path) for path in files]
        self.found += [(files[0], path) for path, each in zip(files, noted, strict=True) if each != noted[0]][:1]

    def remarks(self) -> list[str]:
        """Return a sentence, or none."""
        if not self.found:
            return []
        image, other = min(self.found)
        count = len(self.found)
        return [
            f"{count} {'image is' if count == 1 else 'images are'} turned or mirrored as a camera noted (EXIF), and "
            f"what belongs to {'it' if count == 1 else 'them'} is not, such as {image} and {other}: look whether they "
            "fit; if not, save the image without the note, or turn the other."
        ]


class _Depths:
    """Which depths there are, in millimetres."""

    def __init__(self) -> None:
        self.counts = np.zeros(1_000_001, np.int64)

    def note(self, metres: Float32) -> None:
        """Count a frame's."""
        known = metres[np.isfinite(metres) & (metres > 0)]
        counts = np.bincount(np.minimum(np.rint(known * 1000).astype(np.int64), 1_000_000))
        self.counts[: len(counts)] += counts

    def __str__(self) -> str:
        """The nearest, the median and the farthest."""
        there = np.flatnonzero(self.counts)
        median = int(np.searchsorted(np.cumsum(self.counts), (self.counts.sum() + 1) // 2))
        return f"depth from {there[0] / 1000:.2f} to {there[-1] / 1000:.2f} m, median {median / 1000:.2f} m"


def check_folder(folder: Path) -> Found:
    """Check a person's own folder of photographs.

    Args:
        folder: what the option ``backgrounds`` names; it needs two images at least.
    """
    try:
        files = list_images(folder)
    except UserError as error:
        return Found("all", "backgrounds", problems=[str(error)])
    entry = Found("all", "backgrounds", len(files))
    if len(files) < 2:
        entry.problems.append(f"{folder} holds one image; data.backgrounds needs two at least, one of them to test.")

    def read(file: Path) -> None:
        height, width, _ = read_image(file).shape
        entry.sizes.add((height, width))

    _check_items(read, files, entry)
    return entry


def _check_composites(
    split: TrainingComposites | FixedComposites, entry: Found, opened: set[Path], full: bool
) -> list[Found]:
    """Return the split's entry, and those of its backgrounds that are not in ``opened`` yet and of its trimaps."""

    def foreground(item: Foreground) -> None:
        colour, alpha = read_foreground(replace(item, estimate=False))  # colours take a second to estimate
        turned.note([item.colour, item.alpha])
        entry.sizes.add(alpha.shape)
        nbytes.append(colour.nbytes + alpha.nbytes)

    nbytes, turned = list[int](), _Turned()
    _check_items(foreground, split.foregrounds, entry)
    entry.nbytes, entry.remarks = sum(nbytes), turned.remarks()

    def background(path: Path) -> None:
        height, width = read_image(path).shape[:2] if full else image_size(path)
        behind.sizes.add((height, width))

    new = [path for path in dict.fromkeys(split.backgrounds) if path not in opened]
    opened.update(new)
    behind = Found(entry.task, f"{entry.split}, backgrounds", len(new))
    _check_items(background, new, behind)

    def trimap(path: Path) -> None:
        values, _ = read_trimap(path, strict=True)
        trimaps.sizes.add(values.shape)
        check_one_size(path, values.shape, owners[path].alpha, image_size(owners[path].alpha))

    owners: dict[Path, Foreground] = {}
    if isinstance(split, FixedComposites):
        owners = {path: pair.foreground for path, pair in zip(split.trimaps, split.pairs, strict=True) if path}
    trimaps = Found(entry.task, f"{entry.split}, trimaps", len(owners))
    _check_items(trimap, list(owners), trimaps)
    return [found for found in (entry, behind, trimaps) if found is entry or found.items]


def _splits(data: Data, name: str) -> dict[str, Dataset]:
    """Build one kind of split, by part; none where the data set has none."""
    if name == "test":
        return data.tests()
    try:
        split = data.train() if name == "train" else data.validation()
    except NoSplitError:
        return {}
    return {} if split is None else {"": split}


def _check_items(verify: Callable[[_T], object], items: Sequence[_T], entry: Found) -> None:
    """Verify each item in threads, under a progress bar; their number and the problems go into ``entry``, in order."""

    def work(item: _T) -> str:
        try:
            verify(item)
            return ""
        except UserError as error:
            return printable(str(error))
        except OSError as error:
            return printable(f"{error.filename or f'item {item}'}: {error.strerror or error}.")

    cv2.setNumThreads(0)  # the threads here are the parallelism
    entry.items = len(items)
    said = in_threads(work, items, f"{entry.task}, {entry.split}")
    entry.problems += [sentence for sentence in said if sentence]
