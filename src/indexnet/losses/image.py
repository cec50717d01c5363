"""Losses between images, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from indexnet._names import unknown_name

ImageLoss = Callable[[Tensor, Tensor], Tensor]

_LOSSES: dict[str, ImageLoss] = {"l1": functional.l1_loss, "l2": functional.mse_loss}


def image_loss(name: str) -> ImageLoss:
    """Return a loss between a prediction and a target of equal shape (N, C, H, W), a scalar.

    Args:
        name: ``"l1"``, the mean absolute difference, or ``"l2"``, the mean squared one.

    Raises:
        UserError: the name is unknown; the message names the nearest.
    """
    if name not in _LOSSES:
        raise unknown_name("loss", name, _LOSSES)
    return _LOSSES[name]
