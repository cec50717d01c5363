"""Whether an alpha matte is as similar to itself, place by place, as its image is.

Source: the affinity loss of portrait matting without a trimap (thesis "Index networks", eq. 6.4 and 6.9); how maps are
shrunk and sigma is bounded is our choice.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SHRINK = 16
_SIDE = 32  # positions, at most
_LEAST = 1e-6  # of sigma squared
_TINY = 1e-12  # of a mean square, whose root would have no gradient at 0


def affinity_loss(prediction: Tensor, image: Tensor) -> Tensor:
    """Return the root mean square of A_alpha - A_image, mean over the batch, a scalar.

    Both are averaged over areas, to 1/16 of their size and at most 32x32 places. A_ij = exp(-|v_i - v_j|^2 / sigma^2)
    for all pairs of places; sigma is the largest minus the smallest |v_i - v_j|, at least 1e-3, without gradient.

    Args:
        prediction: (N, 1, H, W).
        image: (N, 3, H, W) in [0, 1].

    Raises:
        ValueError: the sizes differ.
    """
    if prediction.shape[-2:] != image.shape[-2:] or len(prediction) != len(image):
        raise ValueError(f"maps of one size are expected, got {tuple(prediction.shape)} and {tuple(image.shape)}")
    height, width = (min(_SIDE, max(1, side // _SHRINK)) for side in image.shape[-2:])
    ours, given = (functional.adaptive_avg_pool2d(maps.float(), (height, width)) for maps in (prediction, image))
    square = (affinity(ours) - affinity(given)).square().flatten(1).mean(1)
    return square.clamp(min=_TINY).sqrt().mean()


def affinity(maps: Tensor) -> Tensor:
    """Return how similar every two places of maps (N, C, H, W) are, (N, H W, H W) in (0, 1]."""
    values = maps.flatten(2).transpose(1, 2)
    squares = (values[:, :, None] - values[:, None]).square().sum(-1)
    with torch.no_grad():
        distances = squares.sqrt().flatten(1)
        variance = (distances.amax(1) - distances.amin(1)).square().clamp(min=_LEAST)
    return torch.exp(-squares / variance[:, None, None])
