"""Trained networks on a folder of images or the test images of a data set: reading, predicting, writing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from indexnet.core.errors import UserError
from indexnet.inference.inputs import Item, Photo, ReadAhead, find_items, list_without_image, read_photo

if TYPE_CHECKING:
    from torch import Tensor

    from indexnet.data.base import UInt8
    from indexnet.data.io.masks import Box
    from indexnet.tasks import Task
    from indexnet.tasks.matting import MattingTask


@dataclass
class Reading:
    """What was read of one item: a photograph, or a sample.

    Attributes:
        photo: where the task is matting.
        sample: where it is another one.
        remarks: what a person should know, in sentences.
    """

    photo: Photo | None = None
    sample: dict[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()


def is_matting(task: Task) -> bool:
    """Return whether a task estimates mattes."""
    from indexnet.tasks.matting import MattingTask

    return isinstance(task, MattingTask)


def write_classes(task: Task, output: Path, overwrite: bool) -> None:
    """Write the names of classes beside their numbers.

    Raises:
        UserError: there is such a file, which says something else.
    """
    from indexnet.core.files import atomic_write

    if classes := task.options.get("classes"):
        lines = "".join(f"{number} {name}\n" for number, name in enumerate(classes))
        listed = output / "classes.txt"
        if listed.exists() and listed.read_text(encoding="utf-8") != lines and not overwrite:
            raise UserError(f"{listed} exists and says something else; give --overwrite, or another --output.")
        atomic_write(listed, lines)


class FolderSource:
    """A person's images, with trimaps, masks or boxes."""

    prepared = True

    def __init__(self, args: argparse.Namespace, task: Task) -> None:
        from indexnet.inference.predictor import needs_trimap

        boxes = _read_boxes(args)
        self.task = task
        self.band = _read_band(args.band)
        wants = needs_trimap(task)
        if wants and boxes is None and args.trimaps is None and args.masks is None:
            raise UserError(
                f"the task {task.name} needs a trimap for each image; give --trimaps DIR, or --masks DIR, --boxes FILE "
                "or --box x0,y0,x1,y1 to have them made."
            )
        self.items = find_items(args.images, args.trimaps, task.name, wants, args.masks, boxes)
        if args.boxes is not None and boxes is not None:
            names = {name for item in self.items for name in (item.image.name, item.image.stem)}
            for name in sorted(boxes.keys() - names):
                print(f"{args.boxes} has a box for {name}, which is not in {args.images}.", file=sys.stderr)
        for word, folder in (("trimap", args.trimaps), ("mask", args.masks)):
            if folder is not None and args.images.is_dir():
                list_without_image(self.items, args.images, folder, word)

    def read(self, item: Item) -> Reading:
        """Read one image with what belongs to it."""
        from indexnet.inference.predictor import image_sample

        photo = read_photo(item, self.band)
        if is_matting(self.task):
            return Reading(photo, remarks=photo.remarks)
        return Reading(None, dict(image_sample(self.task, photo.image, photo.trimap, item.stem)), photo.remarks)


class DataSource:
    """The test splits of a data set."""

    prepared = False

    def __init__(self, args: argparse.Namespace, task: Task, meta: Mapping[str, Any]) -> None:
        from indexnet.data import create_data
        from indexnet.inference.methods import evaluation_data, parse_overrides
        from indexnet.tasks import metric_key

        options = evaluation_data(meta, *parse_overrides(args.overrides))
        data = create_data(str(options.pop("name")), **options)
        task.check_data(data)
        self.task = task
        self.places = {}
        for split, dataset in data.tests().items():
            for index in range(len(dataset)):
                name = metric_key(split, dataset.name(index))
                self.places[Item(Path(name), name=name)] = dataset, index
        self.items = list(self.places)

    def read(self, item: Item) -> Reading:
        """Make one sample."""
        import numpy as np

        from indexnet.inference.predictor import check_channels

        dataset, index = self.places[item]
        sample = dataset.sample(index, np.random.default_rng(0))
        check_channels(self.task, sample)
        if not is_matting(self.task):
            return Reading(None, dict(sample))
        image, trimap = (_levels(sample[key]) for key in ("image", "trimap"))
        return Reading(Photo(image, trimap[..., 0]))


def _levels(planes: Any) -> UInt8:
    """Turn a sample's (C, H, W) in [0, 1] into uint8 (H, W, C)."""
    import numpy as np

    return np.ascontiguousarray((planes * 255).round().byte().permute(1, 2, 0).numpy())


def _read_boxes(args: argparse.Namespace) -> dict[str, list[Box]] | None:
    from indexnet.data.io.masks import parse_box, read_boxes

    if args.box:
        return {args.images.name: [parse_box(text) for text in args.box]}
    return None if args.boxes is None else read_boxes(args.boxes)


def _read_band(text: str | None) -> int | None:
    if text is None or text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--band {text} must be auto or a whole number of pixels, at least 1.")
    return int(text)


class MattingRunner:
    """Predicts alpha, and what is made of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        from indexnet.data.matting.cutouts import read_background
        from indexnet.data.matting.estimate import check_installed

        self.depth: Literal[8, 16] = args.depth or 8
        self.cutout = bool(args.cutout)
        self.background: UInt8 | None = None if args.background is None else read_background(args.background)
        self.folders = [
            folder for folder, wanted in (("cutout", self.cutout), ("composite", self.background is not None)) if wanted
        ]
        if self.folders:
            check_installed()

    def __call__(self, task: MattingTask, item: Item, photo: Photo) -> tuple[dict[str, Any], list[str]]:
        """Return what to write, by folder, and remarks."""
        from indexnet.data.matting.cutouts import cut_out, foreground_colours, on_background
        from indexnet.inference.predictor import finite_alpha, quantise_alpha

        assert photo.trimap is not None
        alpha = finite_alpha(task, photo.image, photo.trimap, item.stem)
        written: dict[str, Any] = {"": quantise_alpha(alpha, self.depth)}
        if photo.made:
            written["trimap"] = photo.trimap
        if self.folders:
            alpha /= 255
            colours = foreground_colours(photo.image, alpha)
            if self.cutout:
                written["cutout"] = cut_out(photo.image, alpha, colours)
            if self.background is not None:
                written["composite"] = on_background(photo.image, alpha, self.background, colours)
        return written, _remarks(photo.trimap, item)


def _remarks(trimap: UInt8, item: Item) -> list[str]:
    where = item.trimap or item.mask or item.image
    unknown = trimap == 128
    if not trimap.any():
        return [f"{where}: the trimap has neither foreground (255) nor unknown pixels (128), so alpha is 0 everywhere."]
    if not unknown.any():
        return [f"{where}: the trimap has no unknown pixels (128), so it is the result."]
    if unknown.all():
        return [
            f"{where}: every pixel of the trimap is unknown; mark some foreground and background for better results."
        ]
    return []


class Runner:
    """Predicts for tasks other than matting, several images of one size at a time."""

    def __init__(
        self, task: Task, ready: ReadAhead[Reading], items: Sequence[Item], batch: int, prepared: bool
    ) -> None:
        self.task, self.ready, self.items = task, ready, list(items)
        self.batch, self.prepared = batch, prepared
        self.known: dict[Item, tuple[Tensor, Any]] = {}

    def __call__(self, item: Item, reading: Reading) -> dict[str, Any]:
        """Return what to write, by folder."""
        if item not in self.known:
            self._predict({item: reading.sample, **self._alike(item, reading.sample)})
        prediction, batch = self.known.pop(item)
        return dict(self.task.outputs(prediction, batch))

    def _alike(self, item: Item, sample: Mapping[str, Any]) -> dict[Item, dict[str, Any]]:
        """Read the items that follow for as long as they are of the same size."""
        found: dict[Item, dict[str, Any]] = {}
        place = self.items.index(item)
        for other in self.items[place + 1 : place + self.batch]:
            try:
                following = self.ready.peek(other).sample
            except (UserError, OSError):  # said when it is this item's turn
                break
            if following["image"].shape != sample["image"].shape:
                break
            found[other] = following
        return found

    def _predict(self, samples: Mapping[Item, dict[str, Any]]) -> None:
        from indexnet.networks.tiled.memory import is_out_of_memory

        try:
            self._run(samples)
        except (RuntimeError, MemoryError) as error:
            if len(samples) == 1 or not is_out_of_memory(error):
                raise
            first = next(iter(samples))
            self._run({first: samples[first]})

    def _run(self, samples: Mapping[Item, dict[str, Any]]) -> None:
        from torch.utils.data import default_collate

        from indexnet.inference.predictor import predict_batch

        batch = default_collate(list(samples.values()))
        if not self.prepared:
            batch = self.task.prepare(batch)
        predictions = predict_batch(self.task, batch)
        for place, item in enumerate(samples):
            own = {key: value[place : place + 1] for key, value in batch.items()}
            self.known[item] = predictions[place : place + 1], own
