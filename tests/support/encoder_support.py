"""Weights for encoders."""

from __future__ import annotations

import torch
from torch import nn

FASTDEPTH = "mobilenetv1_fastdepth"


def random_state(module: nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }
