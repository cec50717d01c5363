"""``indexnet compare``: what several checkpoints make of the same images, side by side, and their index maps."""

from __future__ import annotations

import argparse
import html
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.errors import UserError
from indexnet.run.inputs import (
    Item,
    add_image_arguments,
    allow_anywhere,
    check_output,
    do_each,
    find_items,
    list_failures,
    read_item,
)

if TYPE_CHECKING:
    from torch import Tensor

    from indexnet.run.sheets import Panel
    from indexnet.tasks import Task

HELP = "show what several checkpoints make of the same images, side by side, with their index maps"


@dataclass(frozen=True)
class Contender:
    """One checkpoint of a comparison.

    Attributes:
        caption: its name in the pictures, unique.
        path: its file, or the name of a classical method.
        task: with the network, on the device, in eval mode.
    """

    caption: str
    path: Path
    task: Task


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
    from indexnet.run.infer import load_task, needs_trimap, pick_device

    loaded = [load_task(path) for path in args.checkpoints]
    from indexnet.data.images import write_png
    from indexnet.files import atomic_write
    from indexnet.run.sheets import contact_sheet

    task = loaded[0][0]
    for path, (other, _) in zip(args.checkpoints, loaded, strict=True):
        if other.name != task.name:
            raise UserError(
                f"{args.checkpoints[0]} is for {task.name} but {path} is for {other.name}; compare one task at a time."
            )
        if other.options.get("classes") != task.options.get("classes"):
            raise UserError(f"{args.checkpoints[0]} and {path} were trained for different classes; compare alike ones.")
    items = find_items(args.images, args.trimaps, task.name, needs_trimap(task))
    device = pick_device(args.device)
    check_output(args.output, args.images, args.trimaps)
    page = args.output / "index.html"
    there = [path for path in (page, *(args.output / f"{item.stem}.png" for item in items)) if path.exists()]
    if there and not args.overwrite:
        raise UserError(f"{there[0]} exists; give --overwrite to replace the comparison in it, or another --output.")
    captions = unique_captions(args.checkpoints, [meta for _, meta in loaded])
    contenders = [
        Contender(caption, path, own.to(device))
        for caption, path, (own, _) in zip(captions, args.checkpoints, loaded, strict=True)
    ]
    written: list[tuple[str, bool]] = []
    mapped: set[str] = set()

    def work(item: Item) -> str | None:
        sample, snapped = read_item(item, contenders[0].task)
        samples, outputs, maps = [], [], []
        for contender in contenders:
            same = contender.task.network.in_channels == task.network.in_channels  # colour and gray may meet
            own = sample if same else read_item(item, contender.task)[0]
            output, index_maps = run_watched(contender.task, own)
            samples.append(own)
            outputs.append(output)
            maps.append(index_maps)
        rows = comparison([c.task for c in contenders], samples, outputs, captions)
        write_png(args.output / f"{item.stem}.png", contact_sheet(rows, args.panel), overwrite=args.overwrite)
        shown = index_rows(maps, captions)
        if shown:
            sheet = contact_sheet(shown, args.panel)
            write_png(args.output / "index_maps" / f"{item.stem}.png", sheet, overwrite=args.overwrite)
        mapped.update(c for c, found in zip(captions, maps, strict=True) if any(m is not None for m in found))
        written.append((item.stem, bool(shown)))
        return f"{item.trimap}: {snapped} pixels were neither 0, 128 nor 255 and were snapped." if snapped else None

    outcome = do_each(items, work, "comparing")
    if outcome.done:
        atomic_write(page, html_page(task, contenders, written))
        print(f"{len(outcome.done)} of {len(items)} images compared; open {page}")
        plain = [caption for caption in captions if caption not in mapped]
        if plain:
            print(f"without index maps, by the nature of the operator: {', '.join(plain)}", file=sys.stderr)
    list_failures(outcome, len(items))
    return outcome.exit_code()


def unique_captions(paths: Sequence[Path], metas: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each checkpoint: by its operator, or where that is the same by its file."""
    from indexnet.networks.checkpoint import resampling_title

    titles = [resampling_title(meta) for meta in metas]
    counts = Counter(titles)
    names = [f"{t} ({_place(p)})" if counts[t] > 1 else t for t, p in zip(titles, paths, strict=True)]
    repeated = Counter(names)
    return [f"{number}: {name}" if repeated[name] > 1 else name for number, name in enumerate(names, start=1)]


def _place(path: Path) -> str:
    """Say which checkpoint: the run folder's name for ``<run>/checkpoints/last.ckpt``, else the file's."""
    resolved = path.resolve()
    if resolved.parent.name == "checkpoints":
        return "/".join(resolved.parent.parent.parts[-2:])
    return path.stem


def run_watched(task: Task, sample: Mapping[str, Any]) -> tuple[Tensor, list[Tensor | None]]:
    """Predict, and collect the index map of every stage.

    Returns:
        The prediction (K, H, W), and per stage the map (C or 1, 2h, 2w) on the CPU, or None where there is none.
    """
    from indexnet.resampling.base import watch_stages
    from indexnet.run.infer import predict_sample
    from indexnet.tasks.matting import MattingTask

    network = task.network
    if isinstance(task, MattingTask):
        task.memory = None  # the stages are watched once, not tile by tile
    with watch_stages(network.resampling) as seen:
        prediction = predict_sample(task, sample)
    maps: list[Tensor | None] = []
    for number, results in enumerate(seen):
        found = network.stage(number).index_maps(results[-1].guide) if results else None
        maps.append(None if found is None else found[0].detach().float().cpu())
    return prediction, maps


def comparison(
    tasks: Sequence[Task], samples: Sequence[Mapping[str, Any]], outputs: Sequence[Tensor], captions: Sequence[str]
) -> list[list[Panel]]:
    """Arrange input and outputs over differences: of a reconstruction from its input, else from the first output.

    Args:
        tasks: the checkpoints' tasks, all of one kind.
        samples: what each checkpoint was given; one image, gray or in colour.
        outputs: one prediction per checkpoint, (K, H, W).
        captions: one name per checkpoint.
    """
    from torch.utils.data import default_collate

    from indexnet.data.pictures import to_picture
    from indexnet.run.sheets import Panel

    first = samples[0]
    top = [Panel("input", to_picture(max((sample["image"] for sample in samples), key=len)))]
    below: list[Panel]
    for caption, task, sample, output in zip(captions, tasks, samples, outputs, strict=True):
        top.append(Panel(caption, task.view(output[None], default_collate([dict(sample)]), like=outputs[0][None])))
    if tasks[0].name == "reconstruction":
        below = [Panel("", None)]
        for task, sample, output in zip(tasks, samples, outputs, strict=True):
            below.append(Panel("difference from the input", task.difference(output[None], sample["image"][None])))
        return [top, below]
    below = [Panel("trimap", to_picture(first["trimap"])) if "trimap" in first else Panel("", None), Panel("", None)]
    for task, output in zip(tasks[1:], outputs[1:], strict=True):
        difference = task.difference(output[None], outputs[0][None])
        below.append(Panel(f"difference from {captions[0]}", difference))
    return [top, below]


def index_rows(maps: Sequence[Sequence[Tensor | None]], captions: Sequence[str]) -> list[list[Panel]]:
    """Arrange index maps, one row per checkpoint that has any, full resolution first; means over channels."""
    from indexnet.data.pictures import index_map_picture
    from indexnet.run.sheets import Panel

    rows = []
    for caption, stages in zip(captions, maps, strict=True):
        if any(found is not None for found in stages):
            rows.append(
                [
                    Panel(f"stage {number}: {caption}", None if found is None else index_map_picture(found))
                    for number, found in enumerate(stages)
                ]
            )
    return rows


_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
img { max-width: 100%; height: auto; display: block; }
figure { margin: 1rem 0 2.5rem; }
code { overflow-wrap: anywhere; }
"""


def html_page(task: Task, contenders: Sequence[Contender], images: Sequence[tuple[str, bool]]) -> str:
    """Return a page that shows all sheets.

    Args:
        task: of all checkpoints.
        contenders: the checkpoints.
        images: (name, whether there is a sheet of index maps).
    """
    from urllib.parse import quote

    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Comparison: {html.escape(task.name)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Comparison: {html.escape(task.name)}</h1><ul>",
    ]
    parts += [f"<li>{html.escape(c.caption)}: <code>{html.escape(str(c.path))}</code></li>" for c in contenders]
    parts.append(f"</ul><p>Differences: black is none, {html.escape(task.difference_scale)}.")
    parts.append("Index maps: mean over channels, each stretched to its own range; stage 0 is full resolution.</p>")
    for name, has_maps in images:
        shown = html.escape(name)
        parts.append(f"<h2>{shown}</h2><figure>")
        parts.append(f"<img src='{quote(name)}.png' alt='{shown}: input, outputs, differences'></figure>")
        if has_maps:
            parts.append("<details><summary>Index maps</summary><figure>")
            parts.append(f"<img loading='lazy' src='index_maps/{quote(name)}.png' alt='{shown}: index maps'>")
            parts.append("</figure></details>")
    return "\n".join([*parts, "</body></html>"]) + "\n"
