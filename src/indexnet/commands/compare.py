"""``indexnet compare``: what several checkpoints make of the same images, side by side, and their index maps."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from indexnet.core.console import allow_anywhere, tell, warn
from indexnet.core.errors import UserError
from indexnet.core.paths import check_inputs, check_methods
from indexnet.inference.image_files import add_image_arguments

HELP = "show what several checkpoints make of the same images, side by side, with their index maps"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="CKPT",
        help="two or more checkpoints of one task; for matting also closed_form or knn",
    )
    add_image_arguments(parser)
    parser.add_argument("--panel", type=int, default=384, metavar="PIXELS", help="longer side of a picture (384)")
    allow_anywhere(parser)


def main(args: argparse.Namespace) -> int:
    """Write ``<image>.png``, ``index_maps/<image>.png`` for each image, and ``index.html``.

    Returns:
        0 all images were compared; 3 some were not, each named on stderr; 2 none was.

    Raises:
        UserError: the checkpoints, the folders or the device cannot be used, or results exist.
    """
    if len(args.checkpoints) < 2:
        raise UserError("compare needs at least two checkpoints; `indexnet predict` runs one.")
    if args.panel < 32:
        raise UserError(f"--panel {args.panel} must be at least 32 pixels.")
    check_methods(args.checkpoints)
    check_inputs(images=args.images, trimaps=args.trimaps)
    from indexnet.inference.compare import comparison, html_page, index_rows
    from indexnet.inference.image_files import Item, check_output, find_items
    from indexnet.inference.image_loop import do_each, list_failures
    from indexnet.inference.loading import (
        is_classical,
        load_task,
        pick_device,
        predict_with_index_maps,
        unique_captions,
    )
    from indexnet.inference.methods import Method
    from indexnet.inference.photographs import read_photo

    loaded = [load_task(path) for path in args.checkpoints]
    from indexnet.core.files import atomic_write
    from indexnet.data.io.images import write_png
    from indexnet.tasks.contact_sheet import contact_sheet

    task = loaded[0][0]
    for path, (other, _) in zip(args.checkpoints, loaded, strict=True):
        if other.name != task.name:
            raise UserError(
                f"{args.checkpoints[0]} is for {task.name} but {path} is for {other.name}; compare one task at a time."
            )
        if list(other.classes) != list(task.classes):
            raise UserError(f"{args.checkpoints[0]} and {path} were trained for different classes; compare alike ones.")
    items = find_items(args.images, args.trimaps, task.name, task.guide is not None)
    device = pick_device(args.device)
    check_output(args.output, args.images, args.trimaps)
    page = args.output / "index.html"
    there = [path for path in (page, *(args.output / f"{item.stem}.png" for item in items)) if os.path.exists(path)]
    if there and not args.overwrite:
        raise UserError(f"{there[0]} exists; give --overwrite to replace the comparison in it, or another --output.")
    captions = unique_captions(args.checkpoints, [meta for _, meta in loaded])
    methods = [
        Method(caption, path, own.to(device), meta, is_classical(meta))
        for caption, path, (own, meta) in zip(captions, args.checkpoints, loaded, strict=True)
    ]
    written: list[tuple[str, bool]] = []
    mapped: set[str] = set()

    def work(item: Item) -> str | None:
        photo = read_photo(item)
        samples, outputs, maps = [], [], []
        for method in methods:  # colour and gray may meet
            own = method.task.image_sample(photo.image, photo.trimap, photo.name)
            output, index_maps = predict_with_index_maps(method.task, own)
            samples.append(own)
            outputs.append(output)
            maps.append(index_maps)
        rows = comparison(methods, samples, outputs)
        write_png(args.output / f"{item.stem}.png", contact_sheet(rows, args.panel), overwrite=args.overwrite)
        shown = index_rows(maps, captions)
        if shown:
            sheet = contact_sheet(shown, args.panel)
            write_png(args.output / "index_maps" / f"{item.stem}.png", sheet, overwrite=args.overwrite)
        mapped.update(c for c, found in zip(captions, maps, strict=True) if any(m is not None for m in found))
        written.append((item.stem, bool(shown)))
        if photo.snapped:
            return f"{item.trimap}: {photo.snapped} pixels were neither 0, 128 nor 255 and were snapped."
        return None

    outcome = do_each(items, work, "comparing")
    if outcome.done:
        atomic_write(page, html_page(methods, written))
        tell(f"{len(outcome.done)} of {len(items)} images compared; open {page}")
        plain = [caption for caption in captions if caption not in mapped]
        if plain:
            warn(f"without index maps, by the nature of the operator: {', '.join(plain)}")
    list_failures(outcome, len(items))
    return outcome.exit_code()
