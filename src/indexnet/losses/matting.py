"""The loss of deep image matting: alpha prediction and composition, inside the unknown region.

Sources: Xu et al., "Deep Image Matting", CVPR 2017, section 3.2, with the constants of the released IndexNet code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from indexnet.core.conventions import unknown_mask

#: The epsilon of the smooth absolute value sqrt(d^2 + eps^2).
EPSILON = 1e-6


def _masked(difference: Tensor, mask: Tensor) -> Tensor:
    """Smooth absolute differences, summed over channels and divided by the unknown area, mean over samples.

    Pixels outside the mask still add epsilon, as in the released code. A sample without unknown pixels adds zero, and
    its gradient is zero.
    """
    area = mask.flatten(1).sum(1)
    total = torch.sqrt((mask * difference).square() + EPSILON**2).flatten(1).sum(1)
    return torch.where(area > 0, total / area.clamp(min=1), total.new_zeros(())).mean()


def matting_loss(
    prediction: Tensor, alpha: Tensor, trimap: Tensor, fg: Tensor, bg: Tensor, image: Tensor
) -> dict[str, Tensor]:
    """Half the alpha loss plus half the composition loss.

    With M the unknown region and eps = 1e-6, a sample's alpha loss is the sum over pixels of
    sqrt((M (a - a*))^2 + eps^2), divided by the sum of M; its composition loss is the same of C_a - C, summed (not
    averaged) over the three colours, with C_a = a F + (1 - a) B. Both are averaged over all samples of the batch; a
    sample without unknown pixels counts as zero. The prediction is not clamped. Half-precision predictions are computed
    in float32, where eps^2 still has a value.

    Args:
        prediction: (N, 1, H, W), the network's output.
        alpha: (N, 1, H, W) in [0, 1].
        trimap: (N, 1, H, W) in {0, 128/255, 1}.
        fg: foreground colours, (N, 3, H, W) in [0, 1].
        bg: background colours, (N, 3, H, W) in [0, 1].
        image: the composite, (N, 3, H, W) in [0, 1].

    Returns:
        Scalars ``loss``, ``alpha`` and ``composition``; the last two unweighted.

    Raises:
        ValueError: a shape differs; broadcasting would give a wrong number.
    """
    shapes = {tuple(t.shape) for t in (prediction, alpha, trimap)}, {tuple(t.shape) for t in (fg, bg, image)}
    expected = (*prediction.shape[:1], 3, *prediction.shape[2:])
    if len(shapes[0]) > 1 or prediction.ndim != 4 or prediction.shape[1] != 1 or shapes[1] != {expected}:
        raise ValueError(f"(N, 1, H, W) three times and (N, 3, H, W) three times are expected, got {shapes}")
    if prediction.dtype in (torch.float16, torch.bfloat16):
        prediction = prediction.float()
    mask = unknown_mask(trimap).to(prediction.dtype)
    alpha_loss = _masked(prediction - alpha, mask)
    composition = _masked(prediction * fg + (1 - prediction) * bg - image, mask)
    return {"loss": 0.5 * alpha_loss + 0.5 * composition, "alpha": alpha_loss, "composition": composition}
