"""Trained networks on a folder of images or the test images of a data set: reading and predicting."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.conventions import UNKNOWN
from indexnet.core.errors import UserError
from indexnet.inference.image_files import Item, find_items, list_boxes_without_image, list_without_image
from indexnet.inference.image_loop import ReadAhead

if TYPE_CHECKING:
    from indexnet.data import Dataset
    from indexnet.data.base import UInt8
    from indexnet.data.io.boxes import Box
    from indexnet.tasks import Task
    from indexnet.tasks.predictor import Files, Predictor


@dataclass
class Reading:
    """What was read of one item.

    Attributes:
        given: what the predictor takes, see :class:`indexnet.tasks.predictor.Predictor`.
        remarks: what a person should know, in sentences.
        snapped: pixels of a trimap's file that had other values than 0, 128 and 255.
    """

    given: Any
    remarks: list[str] = field(default_factory=list)
    snapped: int = 0


class FolderSource:
    """A person's images, with trimaps, masks or boxes."""

    def __init__(self, args: argparse.Namespace, task: Task, predictor: Predictor) -> None:
        boxes = _read_boxes(args)
        self.predictor = predictor
        self.band = _read_band(args.band)
        if task.guide is not None and boxes is None and args.trimaps is None and args.masks is None:
            raise UserError(
                f"the task {task.name} needs a trimap for each image; give --trimaps DIR, or --masks DIR, --boxes FILE "
                "or --box x0,y0,x1,y1 to have them made."
            )
        self.items = find_items(args.images, args.trimaps, task.name, task.guide is not None, args.masks, boxes)
        if args.boxes is not None and boxes is not None:
            list_boxes_without_image(self.items, args.images, boxes, args.boxes)
        for word, folder in (("trimap", args.trimaps), ("mask", args.masks)):
            if folder is not None and os.path.isdir(args.images):
                list_without_image(self.items, args.images, folder, word)

    def read(self, item: Item) -> Reading:
        """Read one image with what belongs to it."""
        from indexnet.inference.photographs import read_photo

        photo = read_photo(item, self.band)
        remarks = list(photo.remarks)
        if photo.trimap is not None:
            remarks += _trimap_remarks(photo.trimap, item.trimap or item.mask or item.image)
        return Reading(self.predictor.from_photo(photo), remarks, photo.snapped)


def test_places(tests: Mapping[str, Dataset], counts: Mapping[str, int]) -> dict[Item, tuple[Dataset, int]]:
    """Return the first samples of test splits as items, which are named as their results are; and where each is.

    Args:
        tests: the splits by name.
        counts: how many samples of each.
    """
    from indexnet.tasks import metric_key

    places = {}
    for split, dataset in tests.items():
        for index in range(counts[split]):
            name = metric_key(split, dataset.name(index))
            places[Item(Path(name), name=name)] = dataset, index
    return places


class DataSource:
    """The test splits of a data set."""

    def __init__(self, args: argparse.Namespace, task: Task, predictor: Predictor, meta: Mapping[str, Any]) -> None:
        from indexnet.data import create_data
        from indexnet.inference.methods import evaluation_data, parse_overrides

        options = evaluation_data(meta, *parse_overrides(args.overrides))
        data = create_data(str(options.pop("name")), **options)
        task.check_data(data)
        self.task, self.predictor = task, predictor
        tests = data.tests()
        self.places = test_places(tests, {split: len(dataset) for split, dataset in tests.items()})
        self.items = list(self.places)

    def read(self, item: Item) -> Reading:
        """Make one sample."""
        import numpy as np

        from indexnet.inference.loading import check_channels

        dataset, index = self.places[item]
        sample: dict[str, Any] = dict(dataset.sample(index, np.random.default_rng(0)))
        check_channels(self.task, sample)
        remarks = []
        if self.task.guide is not None:
            remarks = _trimap_remarks((sample[self.task.guide][0] * 255).round().byte().numpy(), item.image)
        return Reading(self.predictor.from_sample(sample, item.stem), remarks)


def _read_boxes(args: argparse.Namespace) -> dict[str, list[Box]] | None:
    from indexnet.data.io.boxes import parse_box, read_boxes

    if args.box:
        return {args.images.name: [parse_box(text) for text in args.box]}
    return None if args.boxes is None else read_boxes(args.boxes)


def _read_band(text: str | None) -> int | None:
    if text is None or text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--band {text} must be auto or a whole number of pixels, at least 1.")
    return int(text)


def _trimap_remarks(trimap: UInt8, where: Path) -> list[str]:
    unknown = trimap == UNKNOWN
    if not trimap.any():
        neither = f"neither foreground (255) nor unknown pixels ({UNKNOWN})"
        return [f"{where}: the trimap has {neither}, so alpha is 0 everywhere."]
    if not unknown.any():
        return [f"{where}: the trimap has no unknown pixels ({UNKNOWN}), so it is the result."]
    if unknown.all():
        return [
            f"{where}: every pixel of the trimap is unknown; mark some foreground and background for better results."
        ]
    return []


class BatchedPredictions:
    """Predicts the images that are asked for one by one, several of one size at a time.

    Args:
        predictor: does the work.
        ready: what was read.
        items: what will be asked for, in this order.
        batch: how many images at a time.
    """

    def __init__(self, predictor: Predictor, ready: ReadAhead[Reading], items: Sequence[Item], batch: int) -> None:
        self.predictor, self.ready, self.items, self.batch = predictor, ready, list(items), batch
        self._done: dict[Item, Files] = {}

    def files(self, item: Item, reading: Reading) -> Files:
        """Return what to write, by folder."""
        if item not in self._done:
            self._predict({item: reading.given, **self._alike(item, reading.given)})
        return self._done.pop(item)

    def _alike(self, item: Item, given: Any) -> dict[Item, Any]:
        """Read the items that follow for as long as they are of the same size."""
        found: dict[Item, Any] = {}
        place = self.items.index(item)
        for other in self.items[place + 1 : place + self.batch]:
            try:
                following = self.ready.peek(other).given
            except (UserError, OSError):  # said when it is this item's turn
                break
            if self.predictor.shape(following) != self.predictor.shape(given):
                break
            found[other] = following
        return found

    def _predict(self, given: Mapping[Item, Any]) -> None:
        from indexnet.networks.tiled.memory import is_out_of_memory

        try:
            self._done.update(zip(given, self.predictor(list(given.values())), strict=True))
        except (RuntimeError, MemoryError) as error:
            if len(given) == 1 or not is_out_of_memory(error):
                raise
            first = next(iter(given))
            self._predict({first: given[first]})
