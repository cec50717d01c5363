"""``indexnet cutout``: what a box encloses, cut out of a photograph."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from indexnet.core.console import DEVICE_HELP, MEMORY_HELP, busy, tell, warn
from indexnet.core.errors import UserError
from indexnet.core.paths import check_methods
from indexnet.inference.methods import METHODS_HELP

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
    parser.add_argument(
        "--longest",
        type=int,
        default=1600,
        metavar="PIXELS",
        help="longer side on which alpha is found (1600); that of a larger photograph is enlarged by its edges",
    )
    parser.add_argument("--output", type=Path, default=Path("cutout"), metavar="DIR", help="where to (cutout)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--memory", default="auto", metavar="SIZE", help=MEMORY_HELP)


def main(args: argparse.Namespace) -> int:
    """Write ``NAME-cutout.png`` (transparent), ``NAME-alpha.png``, ``NAME-trimap.png`` and ``NAME-steps.png``.

    Returns:
        0.

    Raises:
        UserError: there is no such picture, a box is wrong, the method cannot be used, or results exist.
    """
    if args.photo is not None and not args.box:
        raise UserError(f"give --box x0,y0,x1,y1 around what is to be cut out of {args.photo}.")
    if args.longest < 32:
        raise UserError(f"--longest {args.longest} must be at least 32 pixels.")
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
    from indexnet.inference.image_files import check_output

    check_output(args.output, args.photo)
    results = {part: args.output / f"{args.photo.stem}-{part}.png" for part in _PARTS}
    there = next((path for path in results.values() if os.path.exists(path)), None)
    if there and not args.overwrite:
        raise UserError(f"{there} exists; give --overwrite to replace it, or another --output.")
    with busy(f"cutting out of {args.photo.name}"):
        from indexnet.data.io.images import write_png
        from indexnet.inference.box_cutout import cut_out_boxes, sheet
        from indexnet.inference.loading import load_for_photographs

        task, _, device = load_for_photographs(args.method, args.device, args.memory)
        task.warm_up()
        task.to(device)
        begun = time.monotonic()
        made = cut_out_boxes(task, args.photo, boxes, args.longest)
        took = time.monotonic() - begun
    for part, picture in (
        ("trimap", made.trimap),
        ("alpha", made.alpha),
        ("steps", sheet(made, boxes)),
        ("cutout", made.cutout),
    ):
        write_png(results[part], picture, overwrite=args.overwrite)
    for remark in made.remarks:
        warn(remark)
    height, width = made.alpha.shape
    unknown = (made.trimap == 128).mean()
    tell(f"{width}x{height} pixels, {unknown:.0%} of them unknown, by {args.method} in {took:.1f} s on {device}:")
    tell(f"{results['cutout']}; how it came about: {results['steps']}")
    tell("A trimap that is wrong can be mended in any editor, and given to: indexnet predict --trimaps FILE --cutout")
    return 0
