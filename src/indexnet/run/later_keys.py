"""Options of open groups that earlier versions did not have, each with the value that stands for what those did.

At that value an option is left out of configurations and hashes, so that what was run before keeps its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LATER_KEYS: Mapping[str, Mapping[str, Any]] = {
    "task": {
        "evaluation": "whole",
        "short_side": 450,
        "average": "pixels",
        "alignment": "resize",
        "pseudo_from": 10000,
    },
    "network": {"base_channels": 64},
    "resampling": {"pooling": "indexed"},
    "data": {
        "depth_scale": None,
        "augment": "none",
        "unlabelled": None,
        "unlabelled_share": 0.25,
        "train_on": "train",
        "crop_around": "unknown",
        "pipeline": None,
        "padding_label": "ignore",
    },
}

FIRST_LOSSES: Mapping[str, Mapping[str, float]] = {"matting": {"alpha": 0.5, "composition": 0.5}, "depth": {"l1": 1.0}}
"""``task.loss`` of tasks that had no such choice once: it is left out of configurations and hashes as well."""
