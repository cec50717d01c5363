"""Qualitative results of one run: pictures of a few test samples, the learned index maps of every stage, features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor, nn
from torch.utils.data import default_collate

from indexnet.core.files import atomic_write, write_json
from indexnet.data import Dataset
from indexnet.resampling.watch import watch_stages
from indexnet.tasks.base import Picture, Task, metric_key
from indexnet.tasks.visualization import feature_picture, index_map_picture

SAMPLES = 4


def write_gallery(folder: Path, task: Task, tests: Mapping[str, Dataset], limit: int | None = None) -> None:
    """Write ``folder/*.png`` and ``folder/pictures.json`` for samples spread over the test splits.

    ``pictures.json`` lists ``{"file", "sample", "kind", "stage", "caption"}``, and ``entries`` of a legend; kinds as in
    :class:`indexnet.tasks.Picture` and ``feature``, the mean over channels of what the last upsampling gave (thesis,
    Fig. 4.1); stages counted from full resolution, None but for index maps.
    """
    task.eval()
    entries: list[dict[str, Any]] = []
    for split, index in _spread(tests, limit):
        sample = tests[split].sample(index, np.random.default_rng(0))
        batch = task.prepare(default_collate([sample]))
        with (
            watch_stages(task.network.resampling) as seen,
            _watch_doubled(task.network.resampling.stages[:1]) as doubled,
        ):
            prediction = task.predict(batch)
        name = metric_key(split, str(sample["name"]))
        pictures: list[tuple[int | None, Picture]] = [(None, picture) for picture in task.pictures(prediction, batch)]
        if doubled and len(seen[0]) == 1:  # tiles are not shown here either
            pictures.append((None, Picture("feature", feature_picture(doubled[0][0]), "features, last upsampling")))
        for stage, results in enumerate(seen):
            whole = len(results) == 1  # large images run in tiles, whose maps are not shown
            index_map = task.network.stage(stage).index_maps(results[-1].guide) if whole else None
            if index_map is not None:
                shown = Picture("index", index_map_picture(index_map[0]), f"index map, stage {stage}")
                pictures.append((stage, shown))
        for number, picture in pictures:
            suffix = "" if number is None else str(number)
            file = f"{split}{'_' if split else ''}{index:05d}_{picture.kind}{suffix}.png"
            pixels = cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR)
            atomic_write(folder / file, cv2.imencode(".png", pixels)[1].tobytes())
            entry = {"file": file, "sample": name, "kind": picture.kind, "stage": number, "caption": picture.caption}
            entries.append(entry | ({"entries": [list(e) for e in picture.entries]} if picture.entries else {}))
    write_json(folder / "pictures.json", entries)


@contextmanager
def _watch_doubled(stages: nn.ModuleList) -> Iterator[list[Tensor]]:
    """Keep the map that one of these stages doubled last while the block runs, in a list of at most one."""
    seen: list[Tensor] = []

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            seen[:] = [result[0] if isinstance(result, tuple) else result]
            return result

        return call

    names = ("up", "up_and_skip")
    try:
        for stage in stages:
            for name in names:
                setattr(stage, name, watched(getattr(stage, name)))
        yield seen
    finally:
        for stage in stages:
            for name in names:
                vars(stage).pop(name, None)


def _spread(tests: Mapping[str, Dataset], limit: int | None) -> list[tuple[str, int]]:
    """Choose about ``SAMPLES`` samples, evenly over the splits and within each."""
    chosen: list[tuple[str, int]] = []
    each = max(1, SAMPLES // len(tests))
    for split, dataset in tests.items():
        count = len(dataset) if limit is None else min(limit, len(dataset))
        places = {round(i * (count - 1) / max(1, each - 1)) for i in range(each)}
        chosen += [(split, index) for index in sorted(places)]
    return chosen
