"""What several checkpoints make of the same images, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from indexnet.inference.methods import Method
from indexnet.tasks.contact_sheet import Panel
from indexnet.tasks.visualization import index_map_picture, to_picture


def comparison(
    methods: Sequence[Method], samples: Sequence[Mapping[str, Any]], outputs: Sequence[Tensor]
) -> list[list[Panel]]:
    """Arrange input, truth and outputs over errors; without a truth over differences.

    Differences are from the input where that is the target, else from the first output.

    Args:
        methods: of one task, on the device.
        samples: what each was given, prepared; one image, gray or in colour.
        outputs: what each predicted, (K, H, W).
    """
    task = methods[0].task
    if task.target is not None and task.target in samples[0]:
        return _with_truth(methods, samples, outputs)
    caption, first = methods[0].caption, outputs[0][None]
    top = [Panel("input", to_picture(max((sample["image"] for sample in samples), key=len)))]
    guide = Panel("", None) if task.guide is None else Panel(task.guide, to_picture(samples[0][task.guide]))
    below = [guide]
    for method, sample, output in zip(methods, samples, outputs, strict=True):
        own, batch = method.task, default_collate([dict(sample)])
        top.append(Panel(method.caption, own.draw(output[None], batch, like=first)))
        if task.target_is_input:
            below.append(Panel("difference from the input", own.difference(output[None], batch["image"])))
        elif method is methods[0]:
            below.append(Panel("", None))
        else:
            below.append(Panel(f"difference from {caption}", own.difference(output[None], first)))
    return [top, below]


def _with_truth(
    methods: Sequence[Method], samples: Sequence[Mapping[str, Any]], outputs: Sequence[Tensor]
) -> list[list[Panel]]:
    """Arrange what the task itself shows of a test sample: what was given on the left, a column per method."""
    empty, rows = Panel("", None), None
    for method, sample, output in zip(methods, samples, outputs, strict=True):
        pictures = method.task.pictures(output[None], default_collate([dict(sample)]))
        shown = {picture.kind: Panel(picture.caption, picture.image) for picture in pictures}
        if rows is None:
            guide = next((shown[kind] for kind in ("trimap", "legend") if kind in shown), empty)
            rows = [[shown["input"], shown["target"]], [guide, empty]]
        rows[0].append(Panel(method.caption, shown["output"].image))
        rows[1].append(shown.get("error", empty))
    return rows or []


def index_rows(
    maps: Sequence[Sequence[Tensor | None]], captions: Sequence[str], before: Sequence[bool]
) -> list[list[Panel]]:
    """Arrange index maps, one row per checkpoint that has any, full resolution first; means over channels.

    Args:
        maps: by checkpoint and stage.
        captions: of the checkpoints.
        before: whether the maps are those before training.
    """
    rows = []
    for caption, early, stages in zip(captions, before, maps, strict=True):
        if any(found is not None for found in stages):
            when = " before training" if early else ""
            rows.append(
                [
                    Panel(f"stage {number}{when}: {caption}", None if found is None else index_map_picture(found))
                    for number, found in enumerate(stages)
                ]
            )
    return rows
