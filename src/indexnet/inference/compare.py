"""What several checkpoints make of the same images, side by side."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from indexnet.tasks import Task
    from indexnet.tasks.contact_sheet import Panel


@dataclass(frozen=True)
class ComparedModel:
    """One checkpoint of a comparison.

    Attributes:
        caption: its name in the pictures, unique.
        path: its file, or the name of a classical method.
        task: with the network, on the device, in eval mode.
    """

    caption: str
    path: Path
    task: Task


def comparison(
    tasks: Sequence[Task], samples: Sequence[Mapping[str, Any]], outputs: Sequence[Tensor], captions: Sequence[str]
) -> list[list[Panel]]:
    """Arrange input and outputs over differences: from the input where that is the target, else from the first output.

    Args:
        tasks: the checkpoints' tasks, all of one kind.
        samples: what each checkpoint was given; one image, gray or in colour.
        outputs: one prediction per checkpoint, (K, H, W).
        captions: one name per checkpoint.
    """
    from torch.utils.data import default_collate

    from indexnet.tasks.contact_sheet import Panel
    from indexnet.tasks.visualization import to_picture

    first = samples[0]
    top = [Panel("input", to_picture(max((sample["image"] for sample in samples), key=len)))]
    below: list[Panel]
    for caption, task, sample, output in zip(captions, tasks, samples, outputs, strict=True):
        top.append(Panel(caption, task.draw(output[None], default_collate([dict(sample)]), like=outputs[0][None])))
    if tasks[0].target_is_input:
        below = [Panel("", None)]
        for task, sample, output in zip(tasks, samples, outputs, strict=True):
            below.append(Panel("difference from the input", task.difference(output[None], sample["image"][None])))
        return [top, below]
    guide = tasks[0].guide
    below = [Panel("", None) if guide is None else Panel(guide, to_picture(first[guide])), Panel("", None)]
    for task, output in zip(tasks[1:], outputs[1:], strict=True):
        difference = task.difference(output[None], outputs[0][None])
        below.append(Panel(f"difference from {captions[0]}", difference))
    return [top, below]


def index_rows(maps: Sequence[Sequence[Tensor | None]], captions: Sequence[str]) -> list[list[Panel]]:
    """Arrange index maps, one row per checkpoint that has any, full resolution first; means over channels."""
    from indexnet.tasks.contact_sheet import Panel
    from indexnet.tasks.visualization import index_map_picture

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


def html_page(task: Task, models: Sequence[ComparedModel], images: Sequence[tuple[str, bool]]) -> str:
    """Return a page that shows all sheets.

    Args:
        task: of all checkpoints.
        models: the checkpoints.
        images: (name, whether there is a sheet of index maps).
    """
    from urllib.parse import quote

    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Comparison: {html.escape(task.name)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Comparison: {html.escape(task.name)}</h1><ul>",
    ]
    parts += [f"<li>{html.escape(c.caption)}: <code>{html.escape(str(c.path))}</code></li>" for c in models]
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
