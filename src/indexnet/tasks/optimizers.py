"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from indexnet.core.errors import UserError
from indexnet.core.registry import unknown_name


def create_optimizer(spec: Mapping[str, Any], groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build an optimizer from ``{"name": "adam" | "sgd", "lr": ..., options}`` and parameter groups.

    Raises:
        UserError: an unknown optimizer, or options that it does not take.
    """
    options = {key: value for key, value in spec.items() if key not in ("name", "encoder_lr_multiplier")}
    optimizers: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    if spec["name"] not in optimizers:
        raise unknown_name("optimizer", spec["name"], optimizers)
    if "betas" in options:
        options["betas"] = tuple(options["betas"])
    try:
        return optimizers[spec["name"]](groups, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer={spec['name']} does not take these options: {error}.") from error
