"""``indexnet cutout``: what a box encloses, cut out of a photograph."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from pathlib import Path

from indexnet.core.console import DEVICE_HELP, MEMORY_HELP, busy, tell, warn
from indexnet.core.conventions import UNKNOWN
from indexnet.core.errors import UserError
from indexnet.core.paths import check_methods
from indexnet.inference.methods import LONGEST_HELP, METHODS_HELP

HELP = "cut what a box encloses out of a photograph; without a photograph, a cup of coffee"

_SAMPLE, _SAMPLE_BOX = "coffee.png", "60,5,500,390"  # a photograph that ships with scikit-image, CC0
_PARTS = ("cutout", "alpha", "trimap", "steps")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("photo", type=Path, nargs="?", metavar="PHOTO", help="a picture (a sample of scikit-image's)")
    parser.add_argument(
        "--box",
        action="append",
        metavar="x0,y0,x1,y1",
        help="a box around what is to be cut out, in pixels, some background outside; can be given repeatedly",
    )
    parser.add_argument(
        "--method", type=Path, default=Path("closed_form"), metavar="CKPT", help=f"{METHODS_HELP} (closed_form)"
    )
    parser.add_argument("--longest", type=int, default=1600, metavar="PIXELS", help=f"{LONGEST_HELP} (1600)")
    parser.add_argument("--output", type=Path, default=Path("cutout"), metavar="DIR", help="where to (cutout)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--memory", default="auto", metavar="SIZE", help=MEMORY_HELP)


def main(args: argparse.Namespace) -> int:
    """Write ``NAME-cutout.png`` (transparent), ``NAME-alpha.png``, ``NAME-trimap.png`` and ``NAME-steps.png``.

    Returns:
        0; also where a box held nothing, which is said.

    Raises:
        UserError: there is no such picture, a box is wrong, the method cannot be used, or results exist.
    """
    if args.photo is not None and not args.box:
        raise UserError(f"give --box x0,y0,x1,y1 around what is to be cut out of {args.photo}.")
    if args.photo is None and args.box:
        raise UserError(f"--box {args.box[0]} needs a photograph: indexnet cutout PHOTO --box {args.box[0]}.")
    check_methods([args.method])
    from indexnet.data.io.boxes import parse_box

    boxes = [parse_box(text) for text in args.box or [_SAMPLE_BOX]]
    if args.photo is None:
        from indexnet.data.io.skimage_photographs import folder

        args.photo = folder() / _SAMPLE
    if os.path.isdir(args.photo):
        raise UserError(
            f"{args.photo} is a folder; give one picture, or use: indexnet predict --images DIR --boxes FILE."
        )
    if not os.path.exists(args.photo):
        raise UserError(f"there is no picture {args.photo}; give the path of one.")
    from indexnet.inference.image_files import Item, check_output

    check_output(args.output, args.photo)
    results = {part: args.output / f"{args.photo.stem}-{part}.png" for part in _PARTS}
    there = next((path for path in results.values() if os.path.exists(path)), None)
    if there and not args.overwrite:
        raise UserError(f"{there} exists; give --overwrite to replace it, or another --output.")
    with busy(f"cutting out of {args.photo.name}"):
        import numpy as np

        from indexnet.data.io.images import write_png
        from indexnet.inference.cutout_sheet import cutout_sheet
        from indexnet.inference.loading import load_for_photographs
        from indexnet.inference.photographs import read_photo

        task, _, device = load_for_photographs(args.method, args.device, args.memory)
        if "longest" not in task.predict_options:
            raise UserError(
                f"the task {task.name} takes no boxes; give closed_form, knn or a checkpoint of task=matting."
            )
        predictor = task.create_predictor({"cutout": True, "longest": args.longest})
        task.warm_up()
        task.to(device)
        begun = time.monotonic()
        photo = read_photo(Item(args.photo, boxes=tuple(boxes)))
        (files,) = predictor([photo])
        found = {"trimap": files["trimap"], "alpha": files[""], "cutout": files["cutout"]}
        made = {part: np.asarray(pixels, np.uint8) for part, pixels in found.items()}
        made["steps"] = cutout_sheet(photo.image, boxes, **made)
        took = time.monotonic() - begun
    for part in _PARTS:
        write_png(results[part], made[part], overwrite=args.overwrite)
    if max(made["alpha"].shape) > args.longest:
        photo.remarks.append(
            f"{args.photo}: alpha was found on a copy of {args.longest} pixels, and enlarged by the photograph's "
            "edges; a larger --longest takes more time and memory."
        )
    for remark in photo.remarks:
        warn(remark)
    height, width = made["alpha"].shape
    known, unknown = ((made["trimap"] == value).mean() for value in (255, UNKNOWN))
    shares = f"{known:.1%} foreground and {unknown:.1%} unknown"
    tell(f"{width}x{height} pixels, {shares}, by {args.method} in {took:.1f} s on {device}:")
    tell(f"{results['cutout']}; how it came about: {results['steps']}")
    tell(f"If the trimap is wrong, mend {results['trimap']} in any editor (black, gray {UNKNOWN}, white), and then:")
    tell(shlex.join(_with_trimap(args, results["trimap"])))
    return 0


def _with_trimap(args: argparse.Namespace, trimap: Path) -> list[str]:
    """Return the command that cuts out by a trimap what this one cut out by boxes."""
    words = ["indexnet", "predict", args.method, "--images", args.photo, "--trimaps", trimap, "--cutout"]
    words += ["--longest", args.longest, "--output", args.output / "mended"]
    chosen = {"--device": args.device, "--memory": args.memory}
    words += [word for option, value in chosen.items() if value != "auto" for word in (option, value)]
    return [str(word) for word in words]
