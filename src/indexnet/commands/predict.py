"""``indexnet predict``: a trained network on a person's own images, or on the test images of a data set."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.console import MEMORY_HELP, allow_anywhere, tell, warn
from indexnet.core.errors import UserError
from indexnet.core.paths import check_inputs, check_methods
from indexnet.inference.image_files import Item, add_image_arguments, check_output, write_classes
from indexnet.inference.image_loop import ReadAhead, do_each, list_failures
from indexnet.inference.image_sources import BatchedPredictions, DataSource, FolderSource
from indexnet.inference.methods import LONGEST_HELP, METHODS_HELP

if TYPE_CHECKING:
    from indexnet.tasks import Task


HELP = "run a trained network on a folder of images (exit code 0 only if every result was written now)"

# options that not every task takes
_TASK_OPTIONS = ("masks", "boxes", "box", "band", "longest", "depth", "cutout", "background")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help=METHODS_HELP)
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
        help="matting: boxes around objects, of which trimaps are made: a table of name,x0,y0,x1,y1 or JSON",
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
    parser.add_argument("--longest", type=int, metavar="PIXELS", help=f"matting: {LONGEST_HELP} (none: at full size)")
    parser.add_argument(
        "--depth", type=int, choices=(8, 16), help="matting: bits of alpha; 8 (the default) is cut, 16 rounded"
    )
    parser.add_argument(
        "--cutout", action="store_true", default=None, help="matting: also write cutout/NAME.png, transparent around it"
    )
    parser.add_argument(
        "--background",
        metavar="FILE|COLOUR|blur[:SIGMA]",
        help="matting: also write composite/NAME.png, before this image or colour ('#rrggbb' in quotes, or white), or "
        "before the photograph's own background, blurred by SIGMA pixels (2%% of the longer side)",
    )
    parser.add_argument("--memory", default="auto", metavar="SIZE", help=MEMORY_HELP)
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="other tasks: images of one size at a time")
    allow_anywhere(parser)


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
    from indexnet.inference.loading import load_for_photographs

    task, meta, device = load_for_photographs(args.checkpoint, args.device, args.memory)
    from indexnet.data.io.images import write_png

    predictor = task.create_predictor(_task_options(args, task))
    if args.batch > 1 and not predictor.batched:
        raise UserError(f"{task.name} goes image by image, each at its own size; leave --batch out.")
    folder_given = args.images is not None
    source = FolderSource(args, task, predictor) if folder_given else DataSource(args, task, predictor, meta)
    items, folders = source.items, predictor.folders
    made = [] if args.masks is None and args.boxes is None and args.box is None else ["trimap"]
    check_output(args.output, args.images, args.trimaps, args.masks, folders=[*folders, *made])

    def result(item: Item, folder: str = "") -> Path:
        return Path(args.output) / folder / f"{item.stem}.png"

    kept = [] if args.overwrite else [item for item in items if not item.problem and os.path.exists(result(item))]
    if len(kept) == len(items):
        raise UserError(
            f"all {len(items)} results exist in {args.output}; give --overwrite to replace them, or another --output."
        )
    task.to(device)
    write_classes(task.classes, args.output, args.overwrite)
    begun = time.monotonic()
    todo = [item for item in items if item not in kept]
    readable = [item for item in todo if not item.problem]
    snapped: list[int] = []

    with ReadAhead(readable, source.read, ahead=max(1, args.batch)) as ready:
        predictions = BatchedPredictions(predictor, ready, readable, args.batch)

        def work(item: Item) -> str | None:
            reading = ready.take(item)
            files = predictions.files(item, reading)
            snapped.extend([reading.snapped] if reading.snapped else [])
            for folder in sorted(files, reverse=True):  # the result itself last: it says that an image is done
                # what lies beside a result that is not there was left by a command that was stopped
                replace = args.overwrite or (folder != "" and not os.path.exists(result(item)))
                write_png(result(item, folder), files[folder], overwrite=replace)
            return "\n".join(reading.remarks) or None

        outcome = do_each(todo, work, "predicting")
    took = time.monotonic() - begun
    if outcome.done:
        tell(f"{len(outcome.done)} of {len(items)} written to {args.output} in {took:.1f} s on {device}")
    if snapped:
        tell(f"trimaps with other values than 0, 128 and 255: {len(snapped)}; pixels snapped: {sum(snapped)}")
    if kept:
        names = ", ".join(f"{item.stem}.png" for item in kept)
        warn(f"results that existed and were kept: {len(kept)} ({names}); --overwrite replaces them.")
        lacking = [folder for folder in folders if not all(os.path.exists(result(item, folder)) for item in kept)]
        if lacking:
            warn(f"some of these have no {' and no '.join(lacking)}; --overwrite makes all anew.")
    list_failures(outcome, len(items))
    code = outcome.exit_code()
    return 3 if kept and code == 0 else code


def _task_options(args: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Return the options that the task takes.

    Raises:
        UserError: one was given that it does not take.
    """
    from indexnet.tasks import get_task, list_tasks

    for option in _TASK_OPTIONS:
        if getattr(args, option) is not None and option not in task.predict_options:
            takers = " and ".join(name for name in list_tasks() if option in get_task(name).predict_options)
            raise UserError(f"the task {task.name} takes no --{option}, which is for {takers}; leave it out.")
    return {option: getattr(args, option) for option in task.predict_options}


def _check(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other, and files that are not there.

    Raises:
        UserError: they do, or one is not.
    """
    guides = [f"--{name}" for name in ("trimaps", "masks", "boxes", "box") if getattr(args, name) is not None]
    for word in args.overrides:
        if not word.startswith("data"):
            raise UserError(
                f"{word!r} is not understood; predict takes one checkpoint, --options and data=NAME, or photographs by "
                "--images."
            )
    if (args.images is None) == (not args.overrides):
        given = "not both" if args.overrides else "and --output DIR"
        raise UserError(f"give --images DIR, or data=NAME for the test images of a data set, {given}.")
    if args.overrides and guides:
        raise UserError(f"{guides[0]} is for --images; a data set has trimaps of its own.")
    if len(guides) > 1:
        raise UserError(f"{' and '.join(guides)} exclude each other; give one of them.")
    if args.box and not os.path.isfile(args.images):
        raise UserError("--box is for one image; give --images FILE, or --boxes FILE for a folder.")
    if args.band is not None and not any(guide in guides for guide in ("--masks", "--boxes", "--box")):
        raise UserError("--band is for trimaps that are made of --masks, --boxes or --box.")
    if args.batch < 1:
        raise UserError(f"--batch {args.batch} must be at least 1.")
    check_methods([args.checkpoint])
    check_inputs(images=args.images, trimaps=args.trimaps, masks=args.masks, boxes=args.boxes)
