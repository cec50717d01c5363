"""What losses are made of: weighted sums of named terms, smooth absolute values, masks, Sobel's gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from indexnet.core.constants import constant
from indexnet.core.errors import UserError, shown
from indexnet.core.registry import unknown_name

EPSILON = 1e-6
"""The epsilon of :func:`smooth_absolute`, of the released matting code."""


def check_terms(
    known: Mapping[str, float], given: Mapping[str, float] | None, key: str = "task.loss"
) -> dict[str, float]:
    """Return the terms that a loss has, each with its weight, in the order of ``known``.

    Args:
        known: every term that there is, with the weight that it has where nothing is given.
        given: the whole loss: a term that it does not name, or names with weight 0, is no part of it; None: ``known``.
        key: what the mapping is called, for messages.

    Raises:
        UserError: a term is unknown, a weight is no number of at least 0, or all are 0.
    """
    for name, weight in (given or {}).items():
        if name not in known:
            raise unknown_name(f"term of {key}", name, known)
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight < 0:
            raise UserError(f"{key}.{name}={shown(weight)} must be a number of at least 0.")
    weights = known if given is None else given
    terms = {name: float(weights[name]) for name in known if weights.get(name)}
    if not terms:
        raise UserError(f"{key} has no term of a weight above 0; give one of {', '.join(known)} a weight.")
    return terms


def weighted(weights: Mapping[str, float], terms: Mapping[str, Callable[[], Tensor]]) -> dict[str, Tensor]:
    """Compute the terms of a loss, and their weighted sum.

    Args:
        weights: those of :func:`check_terms`, at least one; a term that is not among them is not computed.
        terms: what computes each of them, a scalar.

    Returns:
        ``loss``, then every computed term, unweighted.
    """
    values = {name: terms[name]() for name in weights}
    first, *rest = (weight * values[name] for name, weight in weights.items())
    total = first
    for part in rest:
        total = total + part
    return {"loss": total, **values}


def full_precision(prediction: Tensor) -> Tensor:
    """Return float32 of a half-precision prediction, in which :data:`EPSILON` squared still has a value."""
    return prediction.float() if prediction.dtype in (torch.float16, torch.bfloat16) else prediction


def smooth_absolute(difference: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Return sqrt(d^2 + epsilon^2) of every value, which has a gradient at 0."""
    return torch.sqrt(difference.square() + epsilon**2)


def mean_per_area(values: Tensor, mask: Tensor) -> Tensor:
    """Return the values of every sample, summed over all its places and channels and divided by its masked area.

    Args:
        values: (N, C, H, W), what is not to count already 0 or as good as 0.
        mask: (N, 1, H, W) of ones and zeros.

    Returns:
        The mean over samples, a scalar; a sample without masked pixels adds zero, and its gradient is zero.
    """
    area = mask.flatten(1).sum(1)
    total = values.flatten(1).sum(1)
    return torch.where(area > 0, total / area.clamp(min=1), total.new_zeros(())).mean()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over all masked places of a batch, of ``values`` (N, C, H, W); 0 where nothing is masked.

    Args:
        values: whatever stands outside the mask, but finite.
        mask: (N, 1, H, W) or (N, C, H, W), bool.
    """
    mask = mask.expand_as(values)
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def convolved(maps: Tensor, kernels: Tensor, padding: int = 0) -> Tensor:
    """Convolve (N, 1, H, W) in the precision that the maps have, also under autocast, which would take half of it."""
    with torch.autocast(maps.device.type, enabled=False):
        return functional.conv2d(maps, kernels, padding=padding)


def sobel(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return Sobel's 3x3 gradients along width and height, not normalised (a ramp of 1 per pixel gives 8).

    Outside the maps is 0.

    Args:
        maps: (N, C, H, W), float.

    Returns:
        Two tensors (N, C, H, W).
    """
    along = constant([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], maps)
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    both = convolved(flat, torch.stack([along, along.T])[:, None], padding=1)
    return both[:, :1].reshape(maps.shape), both[:, 1:].reshape(maps.shape)


def eroded(mask: Tensor) -> Tensor:
    """Return where a whole 3x3 neighbourhood is masked; what lies outside the image does not matter.

    Args:
        mask: (N, 1, H, W), bool.
    """
    return functional.max_pool2d(1 - mask.float(), 3, stride=1, padding=1) == 0
