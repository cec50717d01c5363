"""What a person's images are to become: ground truth read from files, for pictures beside the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from indexnet.core.conventions import IGNORE
from indexnet.core.errors import UserError
from indexnet.data.depth import read_depth, to_metres
from indexnet.data.io.images import read_alpha, read_image
from indexnet.data.segmentation import read_labels
from indexnet.tasks import Task


def _alpha(task: Task, path: Path) -> Tensor:
    return torch.from_numpy(read_alpha(path))[None]


def _label(task: Task, path: Path) -> Tensor:
    labels = torch.from_numpy(read_labels(path).astype(np.int64))
    if (highest := _highest(labels)) >= len(task.classes):
        raise UserError(f"{path} holds the class {highest}, but the network knows {len(task.classes)}, from 0 on.")
    return labels


def _highest(labels: Tensor) -> int:
    counted = labels[labels != IGNORE]
    return int(counted.max()) if counted.numel() else 0


def _depth(task: Task, path: Path) -> Tensor:
    return torch.from_numpy(to_metres(read_depth(path)))[None]


def _clean(task: Task, path: Path) -> Tensor:
    clean: Tensor = task.image_sample(read_image(path, srgb=True), name=str(path))["image"]
    return clean


_READERS: dict[str, Callable[[Task, Path], Tensor]] = {
    "alpha": _alpha, "label": _label, "depth": _depth, "clean": _clean,
}  # fmt: skip
"""By the key of a sample: files as ``indexnet predict`` writes results, depth in millimetres for one."""


def check_takes_truth(task: Task) -> None:
    """Refuse ``--truth`` where a task has no target of its own that a file could hold.

    Raises:
        UserError: it has none.
    """
    if task.target not in _READERS:
        raise UserError(f"the task {task.name} takes no --truth; leave it out.")


def with_truth(task: Task, sample: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Add the ground truth to a sample that was made of an image.

    Args:
        task: whose :attr:`~indexnet.tasks.Task.target` is read.
        sample: needs ``image`` (C, H, W).
        path: a matte, a map of class numbers, depth in millimetres (16 bits), or a clean image.

    Raises:
        UserError: it cannot be read, or is of another size.
    """
    assert task.target is not None
    truth = _READERS[task.target](task, path)
    (height, width), (h, w) = sample["image"].shape[-2:], truth.shape[-2:]
    if (height, width) != (h, w):
        raise UserError(f"{path} is {w}x{h} pixels but its image {width}x{height}; the truth must have its size.")
    return {**sample, task.target: truth}
