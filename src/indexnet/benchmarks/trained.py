"""Which trained networks are measured, and at which sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from indexnet.core.errors import UserError
from indexnet.inference.latency import LIMIT
from indexnet.inference.loading import unique_captions
from indexnet.networks import Network
from indexnet.networks.checkpoint import load_network
from indexnet.tasks import get_task


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """Read ``--sizes``: (width, height) of each.

    Raises:
        UserError: one is not a size, or too large to be meant.
    """
    found = []
    for word in text.split(","):
        match = re.fullmatch(r"\s*([1-9]\d*)(?:x([1-9]\d*))?\s*", word)
        if match is None:
            raise UserError(f"--sizes: {word.strip()!r} must be a side in pixels, as 512, or a size, as 1920x1080.")
        width, height = int(match[1]), int(match[2] or match[1])
        if width * height > LIMIT * 10**6:
            raise UserError(f"--sizes: {width}x{height} has more than {LIMIT} megapixels.")
        found.append((width, height))
    return found


def round_up(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Round a size up to multiples."""
    return math.ceil(size[0] / multiple) * multiple, math.ceil(size[1] / multiple) * multiple


def load(paths: Sequence[Path]) -> tuple[list[tuple[str, Network]], int]:
    """Return the networks of checkpoints with names that tell them apart, and what sides must be multiples of.

    Raises:
        UserError: a file cannot be used, or is given twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("a checkpoint is given twice; give each once.")
    loaded = [load_network(path) for path in paths]
    tasks = [(network, meta["task"]) for network, meta in loaded]
    multiple = math.lcm(*(get_task(task["name"]).input_multiple(network, task) for network, task in tasks))
    names = unique_captions(paths, [meta for _, meta in loaded])
    return [(name, network.eval()) for name, (network, _) in zip(names, loaded, strict=True)], multiple
