"""The terms of depth losses, over measured pixels.

Source: Hu et al., "Revisiting Single Image Depth Estimation", WACV 2019, equations 2 to 6 (log, gradient, normal).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from indexnet.losses.terms import check_terms, eroded, full_precision, masked_mean, sobel, weighted

DEPTH_TERMS: Mapping[str, float] = {"l1": 1.0, "log": 0.0, "gradient": 0.0, "normal": 0.0}
"""The terms of :func:`depth_loss` and their weights in FastDepth; Hu et al. have the last three, each with weight 1."""
_OFFSET = 0.5  # metres, in the logarithm


def depth_loss(
    prediction: Tensor, depth: Tensor, valid: Tensor, weights: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """Return a weighted sum of terms; by default the mean absolute error.

    With e the error in metres and n = (-dx, -dy, 1) of a depth map by Sobel's 3x3 gradients (not normalised, 0 outside
    the image): ``l1`` is the mean of |e|, ``log`` of ln(|e| + 0.5), ``gradient`` of ln(|dx e| + 0.5) plus
    ln(|dy e| + 0.5), ``normal`` of |1 - cos(n, n*)|. Means are over all measured pixels of the batch; those of the last
    two over pixels whose 3x3 neighbours are measured as well. A batch without such pixels gives 0.

    Args:
        prediction: (N, 1, H, W), metres.
        depth: (N, 1, H, W), metres.
        valid: (N, 1, H, W), bool: where it was measured.
        weights: of :data:`DEPTH_TERMS`; a term that is not named is not computed.

    Returns:
        Scalars: ``loss``, and every term of the weights, unweighted.

    Raises:
        UserError: a term is unknown, or a weight impossible.
        ValueError: a shape differs.
    """
    terms = check_terms(DEPTH_TERMS, weights)
    if len({prediction.shape, depth.shape, valid.shape}) > 1 or prediction.ndim != 4:
        raise ValueError(f"(N, 1, H, W) three times is expected, got {prediction.shape}, {depth.shape}, {valid.shape}")
    depth = torch.where(valid, depth, 0.0)

    def error() -> Tensor:
        return torch.where(valid, full_precision(prediction) - depth, 0.0)

    def l1() -> Tensor:
        return ((prediction - depth).abs() * valid).sum() / valid.sum().clamp(min=1)

    def log() -> Tensor:
        return masked_mean(torch.log(error().abs() + _OFFSET), valid)

    def gradient() -> Tensor:
        inner = eroded(valid)
        along, across = (masked_mean(torch.log(each.abs() + _OFFSET), inner) for each in sobel(error()))
        return along + across

    def normal() -> Tensor:
        normals = (_normals(full_precision(prediction)), _normals(depth))
        cosine = torch.nn.functional.cosine_similarity(*normals, dim=1, eps=0)[:, None]
        return masked_mean((1 - cosine).abs(), eroded(valid))

    return weighted(terms, {"l1": l1, "log": log, "gradient": gradient, "normal": normal})


def _normals(depth: Tensor) -> Tensor:
    """Return vectors (N, 3, H, W) along the normals of a depth map (N, 1, H, W), not of length 1."""
    dx, dy = sobel(depth)
    return torch.cat([-dx, -dy, torch.ones_like(depth)], dim=1)
