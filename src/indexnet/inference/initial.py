"""A network as it was before its training, drawn anew from the seed of its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from indexnet.core.errors import UserError
from indexnet.networks.spec import without_pretrained
from indexnet.tasks import Task, get_task

_REMEDY = "leave --initial out, or train it with training.steps=0 and compare the two"


def initial_task(path: Path, meta: Mapping[str, Any]) -> Task:
    """Build the task of a run's checkpoint with the weights that its training began with.

    Pretrained weights of an encoder are loaded as the run loaded them.

    Args:
        path: the checkpoint.
        meta: its ``"indexnet"`` entry, see :func:`indexnet.inference.loading.load_task`.

    Returns:
        In eval mode on the CPU. torch's random numbers on the CPU are as they were.

    Raises:
        UserError: it is no checkpoint of a run, the run started from other weights, or its encoder's weights are not
            to be had.
    """
    config = meta["config"]
    seed = config.get("seed")
    if not isinstance(seed, int):
        raise UserError(f"{path} does not say by what seed its network was drawn; {_REMEDY}.")
    for key in ("ckpt_path", "init"):
        if config.get(key):
            raise UserError(f"{path} is of a run that started from weights of another one ({key}); compare with those.")
    spec = dict(meta["network"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        options = {key: value for key, value in meta["task"].items() if key != "name"}
        try:
            task = get_task(meta["task"]["name"])(spec, **options)
        except UserError as error:
            what = "" if spec == without_pretrained(spec) else " (pretrained weights of its encoder are needed)"
            raise UserError(f"{path}: its network before training cannot be built{what}: {error}") from error
    return task.eval()
