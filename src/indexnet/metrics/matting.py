"""Errors of alpha mattes inside the trimap's unknown region: SAD and MSE.

The definitions of the published tables (Rhemann et al., CVPR 2009; Xu et al., CVPR 2017): no stretching of the range,
known pixels do not count. Published numbers are taken from 8-bit mattes; quantise the prediction first to reproduce
them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from indexnet.metrics.base import PerImageMetric, check_images, register_metric
from indexnet.ops import unknown_mask


@register_metric("sad", "SAD", "thousands", False, "matting")
class SAD(PerImageMetric):
    """Sum of absolute differences over the unknown pixels of an image, divided by 1000; the mean over images."""

    def per_image(self, *args: Tensor) -> Tensor:
        """Take prediction and target in [0, 1] and the trimap in {0, 128/255, 1}, all (N, 1, H, W); return (N,)."""
        prediction, target, trimap = args
        check_images(prediction, target, trimap)
        difference = (prediction.double() - target.double()).abs()
        return (difference * unknown_mask(trimap)).flatten(1).sum(1) / 1000


@register_metric("mse", "MSE", "", False, "matting")
class MSE(PerImageMetric):
    """Mean squared difference over the unknown pixels of an image (no root); the mean over images.

    An image without unknown pixels counts as zero: nothing was asked of the prediction.
    """

    def per_image(self, *args: Tensor) -> Tensor:
        """Take prediction and target in [0, 1] and the trimap in {0, 128/255, 1}, all (N, 1, H, W); return (N,)."""
        prediction, target, trimap = args
        check_images(prediction, target, trimap)
        mask = unknown_mask(trimap)
        squares = ((prediction.double() - target.double()).square() * mask).flatten(1).sum(1)
        area = mask.flatten(1).sum(1)
        return torch.where(area > 0, squares / area.clamp(min=1), 0.0)
