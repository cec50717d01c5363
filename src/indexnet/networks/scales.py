"""One prediction of classes from several sizes of an image.

Source: the public code of Zhou et al. for ADE20K, whose evaluation this is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from indexnet.core.conventions import VIEW_MULTIPLE
from indexnet.networks.base import Network


def scaled_size(height: int, width: int, side: float, longest: float) -> tuple[int, int]:
    """Return the size of an image at a short side of ``side``, at most ``longest``, rounded up to multiples of 32."""
    scale = min(side / min(height, width), longest / max(height, width))
    rows, columns = (-(-int(length * scale + 1e-9) // VIEW_MULTIPLE) * VIEW_MULTIPLE for length in (height, width))
    return max(rows, VIEW_MULTIPLE), max(columns, VIEW_MULTIPLE)


def class_probabilities(network: Network, image: Tensor, sides: Sequence[float], longest: float) -> Tensor:
    """Average over several sizes what a network thinks of each class.

    The image is resized bilinearly, with its colours averaged where it shrinks, to :func:`scaled_size`, which changes
    its proportions a little; scores are interpolated bilinearly to the image's own size, before the softmax.

    Args:
        network: in eval mode.
        image: (N, C, H, W), as the network takes it.
        sides: short sides in pixels.
        longest: at most so long is the long side.

    Returns:
        (N, classes, H, W), which sum to 1 over the classes.
    """
    total: Tensor | None = None
    for side in sides:
        size = scaled_size(image.shape[2], image.shape[3], side, longest)
        scores = network(F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True))
        whole = F.interpolate(scores, size=image.shape[2:], mode="bilinear", align_corners=False)
        found = torch.softmax(whole, 1)
        total = found if total is None else total.add_(found)
    assert total is not None
    return total / len(sides)
