"""``indexnet predict``: a trained network on a person's own images, or on the test images of a data set."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from indexnet.errors import UserError
from indexnet.run.inputs import (
    Item,
    Photo,
    ReadAhead,
    add_image_arguments,
    allow_anywhere,
    check_output,
    do_each,
    find_items,
    list_failures,
    list_without_image,
    read_photo,
)

if TYPE_CHECKING:
    from torch import Tensor

    from indexnet.data.base import UInt8
    from indexnet.data.masks import Box
    from indexnet.tasks import Task
    from indexnet.tasks.matting import MattingTask

HELP = "run a trained network on a folder of images (exit code 0 only if every result was written now)"

_MATTING_ONLY = ("masks", "boxes", "box", "band", "depth", "cutout", "background")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CKPT",
        help="a .ckpt that train or convert wrote; for matting also closed_form or knn",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="data[.OPTION]=VALUE",
        help="the test images of a data set in the place of --images: data=alphamatting_test data.root=DIR",
    )
    add_image_arguments(parser, required=False)
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="DIR|FILE",
        help="matting: coarse masks (white or opaque on the object) of which trimaps are made",
    )
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="matting: boxes around objects, of which trimaps are made: a CSV of name,x0,y0,x1,y1 or a JSON file",
    )
    parser.add_argument(
        "--box", action="append", metavar="x0,y0,x1,y1", help="matting: a box in the one image; can be given repeatedly"
    )
    parser.add_argument(
        "--band",
        default=None,
        metavar="N|auto",
        help="matting: how far around a mask's edge is unknown, in pixels (auto: 4%% of the mask's side)",
    )
    parser.add_argument(
        "--depth", type=int, choices=(8, 16), help="matting: bits of alpha; 8 (the default) is cut, 16 rounded"
    )
    parser.add_argument(
        "--cutout", action="store_true", default=None, help="matting: also write cutout/NAME.png, transparent around it"
    )
    parser.add_argument(
        "--background",
        metavar="FILE|COLOUR",
        help="matting: also write composite/NAME.png, before this image or colour ('#rrggbb' in quotes, or white)",
    )
    parser.add_argument(
        "--memory",
        default="auto",
        metavar="SIZE",
        help="what a prediction of matting may take: auto (what is free), none (no limit), or 4GB, 512MB",
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="other tasks: images of one size at a time")
    allow_anywhere(parser)


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


def main(args: argparse.Namespace) -> int:
    """Write ``<output>/<image name>.png`` for each image; of a data set ``<output>/<split>/<name>.png``.

    That is alpha for matting (and ``cutout``, ``composite`` and ``trimap`` beside it, as asked for), class numbers for
    segmentation (and a picture of them in ``overlay``), millimetres in 16 bit for depth (and a picture of them in
    ``colour``), an 8-bit image otherwise.

    Returns:
        0 every result was written by this command; 3 some were not (unreadable, without trimap, or there already
        without ``--overwrite``), each named on stderr; 2 none was.

    Raises:
        UserError: the checkpoint, the folders or the device cannot be used, or options contradict each other.
    """
    _check(args)
    from indexnet.run.infer import is_classical, limit_memory, load_task, pick_device

    task, meta = load_task(args.checkpoint)
    classical = is_classical(meta)
    device = pick_device("cpu" if classical and args.device == "auto" else args.device)
    limit_memory(task, args.memory, photographs=device.type == "cpu" and not classical)
    from indexnet.data.images import write_png

    matting = _is_matting(task)
    if not matting:
        wrong = [name for name in _MATTING_ONLY if getattr(args, name) is not None]
        if wrong:
            raise UserError(f"the task {task.name} takes no --{wrong[0]}, which is for matting; leave it out.")
    elif args.batch > 1:
        raise UserError("matting goes image by image, each at its own size; leave --batch out.")
    writer = _Matter(args) if matting else None
    source = _DataSource(args, task, meta) if args.images is None else _FolderSource(args, task)
    items = source.items
    folders = writer.folders if writer else []
    made = [] if args.masks is None and args.boxes is None and args.box is None else ["trimap"]
    check_output(args.output, args.images, args.trimaps, args.masks, folders=[*folders, *made])

    def result(item: Item, folder: str = "") -> Path:
        return Path(args.output) / folder / f"{item.stem}.png"

    kept = [] if args.overwrite else [item for item in items if not item.problem and result(item).exists()]
    if len(kept) == len(items):
        raise UserError(
            f"all {len(items)} results exist in {args.output}; give --overwrite to replace them, or another --output."
        )
    task.to(device)
    _write_classes(task, args.output, args.overwrite)
    begun = time.monotonic()
    todo = [item for item in items if item not in kept]
    readable = [item for item in todo if not item.problem]
    snapped: list[int] = []

    with ReadAhead(readable, source.read, ahead=max(1, args.batch)) as ready:
        run = _Runner(task, ready, readable, args.batch, source.prepared)

        def work(item: Item) -> str | None:
            reading = ready.take(item)
            remarks = list(reading.remarks)
            if writer is None:
                written = run(item, reading)
            else:
                assert reading.photo is not None
                written, more = writer(cast("MattingTask", task), item, reading.photo)
                remarks += more
                snapped.extend([reading.photo.snapped] if reading.photo.snapped else [])
            for folder in sorted(written, reverse=True):  # the result itself last: it says that an image is done
                # what lies beside a result that is not there was left by a command that was stopped
                replace = args.overwrite or (folder != "" and not result(item).exists())
                write_png(result(item, folder), written[folder], overwrite=replace)
            return "\n".join(remarks) or None

        outcome = do_each(todo, work, "predicting")
    took = time.monotonic() - begun
    if outcome.done:
        print(f"{len(outcome.done)} of {len(items)} written to {args.output} in {took:.1f} s on {device}")
    if snapped:
        print(f"trimaps with other values than 0, 128 and 255: {len(snapped)}; pixels snapped: {sum(snapped)}")
    if kept:
        names = ", ".join(f"{item.stem}.png" for item in kept)
        print(f"results that existed and were kept: {len(kept)} ({names}); --overwrite replaces them.", file=sys.stderr)
        lacking = [folder for folder in folders if not all(result(item, folder).exists() for item in kept)]
        if lacking:
            print(f"some of these have no {' and no '.join(lacking)}; --overwrite makes all anew.", file=sys.stderr)
    list_failures(outcome, len(items))
    code = outcome.exit_code()
    return 3 if kept and code == 0 else code


def _check(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other.

    Raises:
        UserError: they do.
    """
    guides = [f"--{name}" for name in ("trimaps", "masks", "boxes", "box") if getattr(args, name) is not None]
    for word in args.overrides:
        if not word.startswith("data"):
            raise UserError(f"{word!r} is not understood; predict takes one checkpoint, --options and data=NAME.")
    if (args.images is None) == (not args.overrides):
        given = "not both" if args.overrides else "and --output DIR"
        raise UserError(f"give --images DIR, or data=NAME for the test images of a data set, {given}.")
    if args.overrides and guides:
        raise UserError(f"{guides[0]} is for --images; a data set has trimaps of its own.")
    if len(guides) > 1:
        raise UserError(f"{' and '.join(guides)} exclude each other; give one of them.")
    if args.box and not args.images.is_file():
        raise UserError("--box is for one image; give --images FILE, or --boxes FILE for a folder.")
    if args.band is not None and not any(guide in guides for guide in ("--masks", "--boxes", "--box")):
        raise UserError("--band is for trimaps that are made of --masks, --boxes or --box.")
    if args.batch < 1:
        raise UserError(f"--batch {args.batch} must be at least 1.")


def _is_matting(task: Task) -> bool:
    from indexnet.tasks.matting import MattingTask

    return isinstance(task, MattingTask)


def _write_classes(task: Task, output: Path, overwrite: bool) -> None:
    """Write the names of classes beside their numbers.

    Raises:
        UserError: there is such a file, which says something else.
    """
    from indexnet.files import atomic_write

    if classes := task.options.get("classes"):
        lines = "".join(f"{number} {name}\n" for number, name in enumerate(classes))
        listed = output / "classes.txt"
        if listed.exists() and listed.read_text(encoding="utf-8") != lines and not overwrite:
            raise UserError(f"{listed} exists and says something else; give --overwrite, or another --output.")
        atomic_write(listed, lines)


class _FolderSource:
    """A person's images, with trimaps, masks or boxes."""

    prepared = True

    def __init__(self, args: argparse.Namespace, task: Task) -> None:
        from indexnet.run.infer import needs_trimap

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
        from indexnet.run.infer import image_sample

        photo = read_photo(item, self.band)
        if _is_matting(self.task):
            return Reading(photo, remarks=photo.remarks)
        return Reading(None, dict(image_sample(self.task, photo.image, photo.trimap, item.stem)), photo.remarks)


class _DataSource:
    """The test splits of a data set."""

    prepared = False

    def __init__(self, args: argparse.Namespace, task: Task, meta: Mapping[str, Any]) -> None:
        from indexnet.data import create_data
        from indexnet.run.evaluate_setup import evaluation_data, parse_overrides
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

        from indexnet.run.infer import check_channels

        dataset, index = self.places[item]
        sample = dataset.sample(index, np.random.default_rng(0))
        check_channels(self.task, sample)
        if not _is_matting(self.task):
            return Reading(None, dict(sample))
        image, trimap = (_levels(sample[key]) for key in ("image", "trimap"))
        return Reading(Photo(image, trimap[..., 0]))


def _levels(planes: Any) -> UInt8:
    """Turn a sample's (C, H, W) in [0, 1] into uint8 (H, W, C)."""
    import numpy as np

    return np.ascontiguousarray((planes * 255).round().byte().permute(1, 2, 0).numpy())


def _read_boxes(args: argparse.Namespace) -> dict[str, list[Box]] | None:
    from indexnet.data.masks import parse_box, read_boxes

    if args.box:
        return {args.images.name: [parse_box(text) for text in args.box]}
    return None if args.boxes is None else read_boxes(args.boxes)


def _read_band(text: str | None) -> int | None:
    if text is None or text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--band {text} must be auto or a whole number of pixels, at least 1.")
    return int(text)


class _Matter:
    """Predicts alpha, and what is made of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        from indexnet.data.matting.cutouts import check_installed, read_background

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
        from indexnet.run.photos import finite_alpha, quantise_alpha

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


class _Runner:
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
        from indexnet.networks.memory import is_out_of_memory

        try:
            self._run(samples)
        except (RuntimeError, MemoryError) as error:
            if len(samples) == 1 or not is_out_of_memory(error):
                raise
            first = next(iter(samples))
            self._run({first: samples[first]})

    def _run(self, samples: Mapping[Item, dict[str, Any]]) -> None:
        from torch.utils.data import default_collate

        from indexnet.run.infer import predict_batch

        batch = default_collate(list(samples.values()))
        if not self.prepared:
            batch = self.task.prepare(batch)
        predictions = predict_batch(self.task, batch)
        for place, item in enumerate(samples):
            own = {key: value[place : place + 1] for key, value in batch.items()}
            self.known[item] = predictions[place : place + 1], own
