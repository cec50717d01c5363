"""The terms of portrait matting's loss: alpha in the predicted unknown region and everywhere, edges, affinity, trimap.

Source: thesis of Y. Dai, chapter 6, eq. 6.3 to 6.9 (parameter-sharing portrait matting, CGF 40(1), 2021).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from indexnet.core.conventions import trimap_classes, unknown_mask
from indexnet.losses.affinity import affinity_loss
from indexnet.losses.matting import alpha_loss, gradient_difference
from indexnet.losses.terms import check_terms, full_precision, mean_per_area, weighted

PORTRAIT_TERMS: Mapping[str, float] = {
    "alpha_unknown": 1.0, "alpha_image": 10.0, "gradient": 10.0, "affinity": 10.0, "segmentation": 1.0,
}  # fmt: skip
"""The terms of :func:`portrait_loss` and their weights: the paper's second phase, and the trimap's, which is ours."""

_REST = 0.5  # weight of edges in the known region


def portrait_loss(
    prediction: Tensor,
    alpha: Tensor,
    trimap: Tensor,
    image: Tensor,
    scores: Tensor | None,
    weights: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Return a weighted sum of the terms.

    * ``alpha_unknown``: the smooth absolute difference, mean over the unknown region, which is where the network's own
      trimap says unknown (no gradient flows into that choice), or the true one where it predicts none.
    * ``alpha_image``: the same over the whole image.
    * ``gradient``: |difference| of Sobel's gradients, mean over the unknown region plus half the mean over the rest.
    * ``affinity``: :func:`indexnet.losses.affinity.affinity_loss`.
    * ``segmentation``: cross entropy of the three classes of the true trimap.

    Args:
        prediction: (N, 1, H, W), not clamped.
        alpha: (N, 1, H, W) in [0, 1].
        trimap: the true one, (N, 1, H, W) in {0, 128/255, 1}.
        image: (N, 3, H, W) in [0, 1].
        scores: of foreground, background and unknown, (N, 3, H, W); None: the network predicts no trimap.
        weights: of :data:`PORTRAIT_TERMS`; a term that is not named is not computed.

    Returns:
        Scalars: ``loss``, and every term of the weights, unweighted.

    Raises:
        UserError: a term is unknown, or a weight impossible.
        ValueError: a shape differs, or ``segmentation`` has no scores.
    """
    terms = check_terms(PORTRAIT_TERMS, weights)
    shapes = {tuple(each.shape) for each in (prediction, alpha, trimap)}
    if len(shapes) > 1 or prediction.ndim != 4 or prediction.shape[1] != 1:
        raise ValueError(f"(N, 1, H, W) three times is expected, got {shapes}")
    prediction = full_precision(prediction)
    unknown = (unknown_mask(trimap) if scores is None else scores.argmax(1, keepdim=True) == 2).to(prediction.dtype)

    def gradient() -> Tensor:
        values = gradient_difference(prediction, alpha)
        inside, outside = (mean_per_area(region * values, region) for region in (unknown, 1 - unknown))
        return inside + _REST * outside

    def segmentation() -> Tensor:
        if scores is None:
            raise ValueError("the term segmentation needs the scores of a trimap")
        return functional.cross_entropy(full_precision(scores), trimap_classes(trimap))

    return weighted(
        terms,
        {
            "alpha_unknown": lambda: alpha_loss(prediction, alpha, unknown),
            "alpha_image": lambda: alpha_loss(prediction, alpha, torch.ones_like(unknown)),
            "gradient": gradient,
            "affinity": lambda: affinity_loss(prediction, image),
            "segmentation": segmentation,
        },
    )
