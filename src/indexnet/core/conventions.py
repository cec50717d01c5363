"""What networks, data sets, losses and metrics must agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
"""The label of pixels that count neither in a loss nor in a metric, whatever a data set's files call it."""

UNKNOWN = 128
"""Value of an unknown pixel on the scale of 0..255; 0 is background, 255 foreground."""


def unknown_mask(trimap: Tensor) -> Tensor:
    """Return where a trimap is unknown, i.e. exactly :data:`UNKNOWN` on the scale of 0..255.

    Args:
        trimap: (N, 1, H, W), floating point in {0, 128/255, 1}.

    Returns:
        Boolean (N, 1, H, W).
    """
    return (trimap * 255 - UNKNOWN).abs() < 0.5


TRIMAP_CLASSES = ("foreground", "background", "unknown")
"""Classes of a predicted trimap, in the order of their numbers and of a network's scores."""


def trimap_classes(trimap: Tensor) -> Tensor:
    """Return the classes of a trimap, numbers in :data:`TRIMAP_CLASSES`.

    Args:
        trimap: (N, 1, H, W), floating point in {0, 128/255, 1}.

    Returns:
        int64 (N, H, W).
    """
    return (trimap <= 0.5).long().masked_fill(unknown_mask(trimap), 2)[:, 0]


IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean colour of ImageNet, which pretrained encoders expect to be 0."""

VIEW_SIDES = (300 / 450, 375 / 450, 1.0, 525 / 450, 600 / 450)
"""Short sides at which UperNet is trained and tested, as shares of the middle one (the public code for ADE20K)."""
VIEW_LONGEST = 1000 / 450
"""Their longest side, likewise."""
VIEW_MULTIPLE = 32
"""What the sides of its inputs are multiples of."""

COUNTING_RULES = ("papers", "assembly")
"""By what multiply-adds are counted, see :meth:`indexnet.networks.costs.Costs.gflops`; the first is the usual one."""
