"""State dicts in the layout of the released matting code, with the reference weights of the fixtures."""

from __future__ import annotations

import json
import re
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch


@lru_cache
def _layouts(shared: Path) -> dict[str, list[tuple[str, list[int]]]]:
    return json.loads((shared / "specs" / "indexnet_matting_state_dicts.json").read_text())


@lru_cache
def released_state(shared: Path, configuration: str) -> dict[str, torch.Tensor]:
    """Names and shapes of one configuration, each value a function of its name and shape alone.

    Kept between calls: not to be changed.
    """
    state = {}
    for name, shape in _layouts(shared)[configuration]:
        # one module under five names: the first names its values
        own = re.sub(r"^index\d\.", "index0.", name) if "modelwise" in configuration else name
        n = np.random.RandomState(zlib.crc32(own.encode()) & 0x7FFFFFFF).standard_normal(shape)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        if len(shape) == 4:
            n = n * np.sqrt(2 / (shape[1] * shape[2] * shape[3]))
        elif name.endswith("running_var"):
            n = 1 + 0.1 * np.abs(n)
        elif name.endswith(("running_mean", "bias")):
            n = 0.1 * n
        else:
            n = 1 + 0.1 * n
        state[name] = torch.from_numpy(np.asarray(n, dtype=np.float32))
    return state
