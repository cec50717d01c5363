"""Small maps as pictures inside a page: PNG files as data, so that a page needs nothing beside it."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import torch
from torch import Tensor

SIDE = 16
"""Side of the maps that the pages show."""


def shape_map(seed: int, side: int = SIDE) -> Tensor:
    """Return a map (1, 1, side, side) in [0, 1]: part of a disc with a soft gray, and a line one pixel wide."""
    draw = torch.Generator().manual_seed(seed)
    a, b, radius, angle = torch.rand(4, generator=draw)
    across = torch.linspace(0, 1, side)
    y, x = torch.meshgrid(across, across, indexing="ij")
    disc = torch.sigmoid(60 * (0.2 + 0.25 * radius - torch.hypot(x - a, y - b))) * 0.8
    slope = (angle - 0.5) * 2
    line = ((y - 0.75 - slope * (x - 0.5)).abs() < 0.6 / side).float()
    return torch.maximum(0.1 + disc, line)[None, None]


def data_uri(values: Tensor) -> str:
    """Return a map (h, w) in [0, 1] as the address of a gray PNG."""
    gray = (values.detach().clamp(0, 1) * 255).round().numpy().astype(np.uint8)
    done, encoded = cv2.imencode(".png", gray)
    assert done
    return f"data:image/png;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def figure(values: Tensor, caption: str) -> str:
    """Return a map (h, w) as a figure of a page, every value a square."""
    return (
        f'<figure class="map"><img alt="{caption}" src="{data_uri(values)}"><figcaption>{caption}</figcaption></figure>'
    )
