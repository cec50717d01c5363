"""``indexnet predict``: a trained network on a person's own images."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from indexnet.errors import UserError
from indexnet.run.inputs import (
    Item,
    add_image_arguments,
    check_output,
    do_each,
    find_items,
    list_failures,
    read_item,
)

HELP = "run a trained network on a folder of images (exit code 0 only if every result was written now)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a .ckpt that train or convert wrote")
    add_image_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Write ``<output>/<image name>.png`` for each image.

    That is 8-bit alpha for matting, class numbers for segmentation (and a picture of them in ``<output>/overlay``),
    millimetres in 16 bit for depth (and a picture of them in ``<output>/colour``), an 8-bit image otherwise.

    Returns:
        0 every result was written by this command; 3 some were not (unreadable, without trimap, or there already
        without ``--overwrite``), each named on stderr; 2 none was.

    Raises:
        UserError: the checkpoint, the folders or the device cannot be used.
    """
    from indexnet.run.infer import load_task, needs_trimap, pick_device, predict_sample

    task, _ = load_task(args.checkpoint)
    from torch.utils.data import default_collate

    from indexnet.data.images import write_png
    from indexnet.files import atomic_write

    items = find_items(args.images, args.trimaps, task.name, needs_trimap(task))
    device = pick_device(args.device)
    check_output(args.output, args.images, args.trimaps)
    kept = (
        [] if args.overwrite else [item for item in items if not item.problem and _result(args.output, item).exists()]
    )
    if len(kept) == len(items):
        raise UserError(
            f"all {len(items)} results exist in {args.output}; give --overwrite to replace them, or another --output."
        )
    task.to(device)
    touched: list[int] = []

    def work(item: Item) -> str | None:
        sample, snapped = read_item(item, task)
        prediction = predict_sample(task, sample)
        written = task.outputs(prediction[None], default_collate([sample]))
        result = _result(args.output, item)
        for folder in sorted(written, reverse=True):  # the result itself last: it says that an image is done
            path = args.output / folder / result.name
            # what lies beside a result that is not there was left by a command that was stopped
            write_png(path, written[folder], overwrite=args.overwrite or (folder != "" and not result.exists()))
        if not snapped:
            return None
        touched.append(snapped)
        return f"{item.trimap}: {snapped} pixels were neither 0, 128 nor 255 and were snapped to them."

    if classes := task.options.get("classes"):
        lines = "".join(f"{number} {name}\n" for number, name in enumerate(classes))
        listed = args.output / "classes.txt"
        if listed.exists() and listed.read_text(encoding="utf-8") != lines and not args.overwrite:
            raise UserError(f"{listed} exists and says something else; give --overwrite, or another --output.")
        atomic_write(listed, lines)
    begun = time.monotonic()
    todo = [item for item in items if item not in kept]
    outcome = do_each(todo, work, "predicting")
    took = time.monotonic() - begun
    if outcome.done:
        print(f"{len(outcome.done)} of {len(items)} written to {args.output} in {took:.1f} s on {device}")
    if touched:
        print(f"trimaps with other values than 0, 128 and 255: {len(touched)}; pixels snapped: {sum(touched)}")
    if kept:
        names = ", ".join(_result(args.output, item).name for item in kept)
        print(f"results that existed and were kept: {len(kept)} ({names}); --overwrite replaces them.", file=sys.stderr)
    list_failures(outcome, len(items))
    code = outcome.exit_code()
    return 3 if kept and code == 0 else code


def _result(output: Path, item: Item) -> Path:
    return output / f"{item.stem}.png"
