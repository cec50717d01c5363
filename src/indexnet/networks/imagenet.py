"""The normalization of ImageNet, which pretrained encoders expect."""

from __future__ import annotations

from torch import Tensor

from indexnet.core.constants import constant
from indexnet.core.conventions import IMAGENET_MEAN as IMAGENET_MEAN

IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(image: Tensor) -> Tensor:
    """Normalise RGB images (N, 3, H, W), float in [0, 1], by ImageNet's mean and deviation."""
    mean = constant(IMAGENET_MEAN, image)[:, None, None]
    std = constant(IMAGENET_STD, image)[:, None, None]
    return (image - mean) / std
