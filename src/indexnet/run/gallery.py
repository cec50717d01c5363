"""Qualitative results of one run: pictures of a few test samples and the learned index maps of every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate

from indexnet.data import Dataset
from indexnet.data.base import UInt8
from indexnet.data.pictures import index_map_picture
from indexnet.files import atomic_write, write_json
from indexnet.resampling.base import watch_stages
from indexnet.tasks import Task

SAMPLES = 4


def write_gallery(folder: Path, task: Task, dataset: Dataset, limit: int | None = None) -> None:
    """Write ``folder/*.png`` and ``folder/pictures.json`` for samples spread over a test set.

    ``pictures.json`` lists ``{"file", "sample", "kind", "stage", "caption"}``; kinds as in
    :class:`indexnet.tasks.Picture`, stages counted from full resolution, None but for index maps.
    """
    count = len(dataset) if limit is None else min(limit, len(dataset))
    device = next(task.network.parameters()).device
    task.eval()
    entries: list[dict[str, Any]] = []
    for index in sorted({round(i * (count - 1) / max(1, SAMPLES - 1)) for i in range(SAMPLES)}):
        sample = dataset.sample(index, np.random.default_rng(0))
        batch = default_collate([sample])
        batch = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
        with torch.inference_mode(), watch_stages(task.network.resampling) as seen:
            prediction = task.infer(task.network, batch)
        name = str(sample["name"])
        pictures: list[tuple[str, int | None, UInt8, str]] = [
            (p.kind, None, p.image, p.caption) for p in task.pictures(prediction, batch)
        ]
        for stage, results in enumerate(seen):
            index_map = task.network.resampling.stages[stage].index_maps(results[-1].guide) if results else None  # type: ignore[operator]
            if index_map is not None:
                pictures.append(("index", stage, index_map_picture(index_map[0]), f"index map, stage {stage}"))
        for kind, number, image, caption in pictures:
            suffix = "" if number is None else str(number)
            file = f"{index:05d}_{kind}{suffix}.png"
            atomic_write(folder / file, cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
            entries.append({"file": file, "sample": name, "kind": kind, "stage": number, "caption": caption})
    write_json(folder / "pictures.json", entries)
