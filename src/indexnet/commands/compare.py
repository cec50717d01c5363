"""``indexnet compare``: what several checkpoints make of the same images, side by side, and their index maps."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from indexnet.core.console import allow_anywhere, tell, warn
from indexnet.core.errors import UserError
from indexnet.core.paths import check_inputs
from indexnet.inference.image_files import Item, add_image_arguments
from indexnet.inference.methods import METHODS_HELP, WORDS_HELP, Method, prepare, split_words

if TYPE_CHECKING:
    import torch

    from indexnet.inference.compare_sources import DataImages, Photographs

HELP = "show what several checkpoints make of the same images, side by side, with the truth and their index maps"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="CKPT",
        help=f"two or more of one task, each {METHODS_HELP}. In the place of --images data=NAME: {WORDS_HELP}",
    )
    add_image_arguments(parser, required=False)
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="DIR|FILE",
        help="what results should be, by the images' names: mattes, class numbers, millimetres, clean images",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images of each test split only")
    parser.add_argument(
        "--initial", action="store_true", help="also show the index maps before training; one checkpoint is enough then"
    )
    parser.add_argument("--panel", type=int, default=384, metavar="PIXELS", help="longer side of a picture (384)")
    parser.set_defaults(memory="auto")
    allow_anywhere(parser)


def main(args: argparse.Namespace) -> int:
    """Write ``<image>.png``, ``index_maps/<image>.png`` for each image, and ``index.html``.

    Returns:
        0 all images were compared; 3 some were not, each named on stderr; 2 none was.

    Raises:
        UserError: the checkpoints, the folders or the device cannot be used, or results exist.
    """
    paths, words = split_words(args.words)
    if len(paths) < 2 and not args.initial:
        raise UserError("compare needs at least two checkpoints; `indexnet predict` runs one.")
    if args.panel < 32:
        raise UserError(f"--panel {args.panel} must be at least 32 pixels.")
    check_inputs(images=args.images, trimaps=args.trimaps, truth=args.truth)
    from indexnet.core.files import atomic_write
    from indexnet.data.io.images import write_png
    from indexnet.inference.compare import comparison, index_rows
    from indexnet.inference.compare_sources import check_words
    from indexnet.inference.image_files import check_output
    from indexnet.inference.image_loop import do_each, list_failures
    from indexnet.inference.initial import initial_task
    from indexnet.inference.loading import predict_with_index_maps
    from indexnet.tasks.contact_sheet import contact_sheet

    check_words(words, args.images, trimaps=args.trimaps, truth=args.truth, limit=args.limit)
    methods, source, device = _of_data(args, paths, words) if words else _of_photographs(args, paths)
    items = source.items
    check_output(args.output, args.images, args.trimaps, args.truth)
    page = args.output / "index.html"
    there = [path for path in (page, *(args.output / f"{item.stem}.png" for item in items)) if os.path.exists(path)]
    if there and not args.overwrite:
        raise UserError(f"{there[0]} exists; give --overwrite to replace the comparison in it, or another --output.")
    captions = [method.caption for method in methods]
    before = [initial_task(m.source, m.meta).to(device) if args.initial and not m.classical else None for m in methods]
    for method in methods:
        method.task.to(device)
    written: list[tuple[str, bool]] = []
    mapped: set[str] = set()
    known: set[bool] = set()

    def work(item: Item) -> str | None:
        samples, remark = source.read(item)
        outputs, maps, named, early = [], [], [], []
        for method, sample, start in zip(methods, samples, before, strict=True):
            output, index_maps = predict_with_index_maps(method.task, sample)
            outputs.append(output)
            found = [index_maps] if start is None else [index_maps, predict_with_index_maps(start, sample)[1]]
            maps += found
            named += [method.caption] * len(found)
            early += [False, True][: len(found)]
        rows = comparison(methods, samples, outputs)
        write_png(args.output / f"{item.stem}.png", contact_sheet(rows, args.panel), overwrite=args.overwrite)
        shown = index_rows(maps, named, early)
        if shown:
            sheet = contact_sheet(shown, args.panel)
            write_png(args.output / "index_maps" / f"{item.stem}.png", sheet, overwrite=args.overwrite)
        mapped.update(c for c, found in zip(named, maps, strict=True) if any(m is not None for m in found))
        known.add(methods[0].task.target in samples[0])
        written.append((item.stem, bool(shown)))
        return remark

    outcome = do_each(items, work, "comparing")
    if outcome.done:
        atomic_write(page, html_page(methods, written, truth=True in known, initial=args.initial))
        tell(f"{len(outcome.done)} of {len(items)} images compared; open {page}")
        plain = [caption for caption in captions if caption not in mapped]
        if plain:
            warn(f"without index maps, by the nature of the operator: {', '.join(plain)}")
    list_failures(outcome, len(items))
    return outcome.exit_code()


def html_page(methods: Sequence[Method], images: Sequence[tuple[str, bool]], *, truth: bool, initial: bool) -> str:
    """Return the page that shows all sheets.

    Args:
        methods: of one task.
        images: (name, whether there is a sheet of index maps).
        truth: whether the sheets show the ground truth.
        initial: whether the index maps are also those before training.
    """
    from indexnet import __version__
    from indexnet.report.rendering import render

    task = methods[0].task
    rule = "Errors against the ground truth." if truth else f"Differences: black is none, {task.difference_scale}."
    if any(mapped for _, mapped in images):
        rule += " Index maps: mean over channels, each stretched to its own range; stage 0 is full resolution."
        rule += " Those before training are of the weights that the run's seed drew." if initial else ""
    return render(
        "compare.html",
        title=f"Comparison: {task.name}",
        rule=rule,
        what="errors" if truth else "differences",
        methods=[(method.caption, str(method.source)) for method in methods],
        images=images,
        version=__version__,
        generator="indexnet compare",
    )


def _of_data(
    args: argparse.Namespace, paths: Sequence[Path], words: Sequence[str]
) -> tuple[list[Method], DataImages, torch.device]:
    from indexnet.inference.compare_sources import DataImages

    setup = prepare(paths, words, args)
    return setup.methods, DataImages(setup.methods, setup.tests, setup.counts), setup.device


def _of_photographs(args: argparse.Namespace, paths: Sequence[Path]) -> tuple[list[Method], Photographs, torch.device]:
    """Load methods, which may measure in several ways, for nothing is measured here.

    Raises:
        UserError: they are for several tasks or classes, or nothing can be done.
    """
    from indexnet.inference.compare_sources import Photographs
    from indexnet.inference.loading import is_classical, load_task, pick_device, unique_captions

    loaded = [load_task(path) for path in paths]
    task = loaded[0][0]
    for path, (other, _) in zip(paths, loaded, strict=True):
        if other.name != task.name:
            raise UserError(
                f"{paths[0]} is for {task.name} but {path} is for {other.name}; compare one task at a time."
            )
        if list(other.classes) != list(task.classes):
            raise UserError(f"{paths[0]} and {path} were trained for different classes; compare alike ones.")
    captions = unique_captions(paths, [meta for _, meta in loaded])
    methods = [
        Method(caption, path, own, meta, is_classical(meta))
        for caption, path, (own, meta) in zip(captions, paths, loaded, strict=True)
    ]
    return methods, Photographs(methods, args.images, args.trimaps, args.truth), pick_device(args.device)
