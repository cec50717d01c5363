"""The terms of matting losses; unless they say otherwise over the unknown region, per sample, mean over the batch.

Sources: Xu et al., "Deep Image Matting", CVPR 2017, section 3.2, with the constants of the released IndexNet code
(alpha, composition); Hou and Liu, "Context-Aware Image Matting", ICCV 2019 (Laplacian); Dai et al., "Boosting
Robustness of Image Matting with Context Assembling and Strong Data Augmentation", CVPR 2022 (gradient penalty).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from indexnet.core.constants import constant
from indexnet.core.conventions import unknown_mask
from indexnet.losses.terms import (
    check_terms,
    convolved,
    full_precision,
    mean_per_area,
    smooth_absolute,
    sobel,
    weighted,
)

MATTING_TERMS: Mapping[str, float] = {
    "alpha": 0.5, "composition": 0.5, "laplacian": 0.0, "gradient": 0.0, "gradient_penalty": 0.0,
}  # fmt: skip
"""The terms of :func:`matting_loss` and their weights in the IndexNet papers."""

LEVELS = 5
"""Of the Laplacian pyramid."""
_SMOOTHNESS = 0.01  # weight of the predicted gradient itself


def matting_loss(
    prediction: Tensor,
    alpha: Tensor,
    trimap: Tensor,
    fg: Tensor | None = None,
    bg: Tensor | None = None,
    image: Tensor | None = None,
    weights: Mapping[str, float] | None = None,
    composed: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return a weighted sum of terms; by default half the alpha loss plus half the composition loss.

    The prediction is not clamped. Half-precision predictions are computed in float32, where epsilon squared still has a
    value. A sample without unknown pixels counts as zero.

    Args:
        prediction: (N, 1, H, W), the network's output.
        alpha: (N, 1, H, W) in [0, 1].
        trimap: (N, 1, H, W) in {0, 128/255, 1}.
        fg: foreground colours, (N, 3, H, W) in [0, 1]; like ``bg`` and ``image``, for ``composition`` alone.
        bg: background colours, likewise.
        image: the composite, likewise.
        weights: of :data:`MATTING_TERMS`; a term that is not named is not computed.
        composed: (N,), bool: which samples are composites of ``fg`` and ``bg``; the others add zero to ``composition``.
            None: all.

    Returns:
        Scalars: ``loss``, and every term of the weights, unweighted.

    Raises:
        UserError: a term is unknown, or a weight impossible.
        ValueError: a shape differs, as broadcasting would give a wrong number; or what a term needs is missing.
    """
    terms = check_terms(MATTING_TERMS, weights)
    shapes = {tuple(each.shape) for each in (prediction, alpha, trimap)}
    if len(shapes) > 1 or prediction.ndim != 4 or prediction.shape[1] != 1:
        raise ValueError(f"(N, 1, H, W) three times is expected, got {shapes}")
    prediction = full_precision(prediction)
    mask = unknown_mask(trimap).to(prediction.dtype)

    def composition() -> Tensor:
        if fg is None or bg is None or image is None:
            raise ValueError("the term composition needs fg, bg and image")
        return composition_loss(prediction, fg, bg, image, mask, composed)

    return weighted(
        terms,
        {
            "alpha": lambda: alpha_loss(prediction, alpha, mask),
            "composition": composition,
            "laplacian": lambda: laplacian_loss(prediction, alpha),
            "gradient": lambda: gradient_loss(prediction, alpha, mask),
            "gradient_penalty": lambda: gradient_loss(prediction, alpha, mask, _SMOOTHNESS),
        },
    )


def alpha_loss(prediction: Tensor, alpha: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over pixels of sqrt((M (a - a*))^2 + eps^2), eps = 1e-6, divided by the sum of M, a scalar.

    Pixels outside the mask still add epsilon, as in the released code.

    Args:
        prediction: (N, 1, H, W).
        alpha: (N, 1, H, W) in [0, 1].
        mask: (N, 1, H, W) of ones and zeros: M.
    """
    return mean_per_area(smooth_absolute(mask * (prediction - alpha)), mask)


def composition_loss(
    prediction: Tensor, fg: Tensor, bg: Tensor, image: Tensor, mask: Tensor, composed: Tensor | None = None
) -> Tensor:
    """Return what :func:`alpha_loss` is, of C_a - C with C_a = a F + (1 - a) B, summed over the three colours.

    Args:
        prediction: (N, 1, H, W).
        fg: F, (N, 3, H, W) in [0, 1].
        bg: B, likewise.
        image: C, likewise.
        mask: (N, 1, H, W) of ones and zeros.
        composed: (N,), bool: which samples count; the others add zero. None: all.

    Raises:
        ValueError: a shape differs.
    """
    shapes = {tuple(each.shape) for each in (fg, bg, image)}
    if shapes != {(len(prediction), 3, *prediction.shape[2:])}:
        raise ValueError(f"(N, 3, H, W) three times is expected, got {shapes}")
    if composed is not None:
        mask = mask * composed.to(mask.dtype).view(-1, 1, 1, 1)
    return mean_per_area(smooth_absolute(mask * (prediction * fg + (1 - prediction) * bg - image)), mask)


def gradient_loss(prediction: Tensor, alpha: Tensor, mask: Tensor, smoothness: float = 0.0) -> Tensor:
    """Return the mean over unknown pixels of what :func:`gradient_difference` gives, a scalar.

    Args:
        prediction: (N, 1, H, W).
        alpha: (N, 1, H, W) in [0, 1].
        mask: (N, 1, H, W) of ones and zeros.
        smoothness: see there.
    """
    return mean_per_area(mask * gradient_difference(prediction, alpha, smoothness), mask)


def gradient_difference(prediction: Tensor, alpha: Tensor, smoothness: float = 0.0) -> Tensor:
    """Return |dx a - dx a*| and |dy a - dy a*|, by Sobel, not normalised, (N, 2, H, W).

    Args:
        prediction: a, (N, 1, H, W).
        alpha: a*, (N, 1, H, W) in [0, 1].
        smoothness: how much of |dx a| and |dy a| is added: 0.01 is the gradient penalty. The paper's formula does not
            say which alpha this is; that of the prediction makes it a penalty.
    """
    predicted = torch.cat(sobel(prediction), dim=1)
    values = (predicted - torch.cat(sobel(alpha), dim=1)).abs()
    return values + smoothness * predicted.abs() if smoothness else values


def laplacian_loss(prediction: Tensor, alpha: Tensor, levels: int = LEVELS) -> Tensor:
    """Return the sum over the levels i = 0, 1, ... of 2^i times the mean |difference| of two Laplacian pyramids.

    Over the whole image, not divided by the number of levels. The pyramid is Burt and Adelson's: 5x5 binomial kernel,
    reflected borders, odd sizes cut by a pixel. Images whose shorter side is below 4 x 2^(levels - 1) (64) have fewer
    levels.

    Args:
        prediction: (N, 1, H, W).
        alpha: (N, 1, H, W).
        levels: at most so many.
    """
    total = prediction.new_zeros(())
    for level, band in enumerate(laplacian_pyramid(prediction - alpha, levels)):  # which is linear
        total = total + 2**level * band.abs().mean()
    return total


def laplacian_pyramid(maps: Tensor, levels: int = LEVELS) -> list[Tensor]:
    """Return the bands of a Laplacian pyramid, the finest first, without the rest.

    Args:
        maps: (N, C, H, W), float.
        levels: at most so many; fewer where the next would have a side below 4.
    """
    bands = []
    for _ in range(levels):
        height, width = (side - side % 2 for side in maps.shape[-2:])
        if min(height, width) < 4:
            break
        maps = maps[..., :height, :width]
        small = _blurred(maps)[..., ::2, ::2]
        spread = torch.zeros_like(maps)
        spread[..., ::2, ::2] = 4 * small
        bands.append(maps - _blurred(spread))
        maps = small
    return bands


def _blurred(maps: Tensor) -> Tensor:
    taps = constant([1.0, 4.0, 6.0, 4.0, 1.0], maps) / 16
    flat = functional.pad(maps.reshape(-1, 1, *maps.shape[-2:]), (2, 2, 2, 2), mode="reflect")
    flat = convolved(convolved(flat, taps.view(1, 1, 1, 5)), taps.view(1, 1, 5, 1))
    return flat.reshape(maps.shape)
