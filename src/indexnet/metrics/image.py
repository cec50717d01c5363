"""Fidelity of one image to another: PSNR, SSIM, MAE, RMSE; per image, then averaged over images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from indexnet.core.errors import UserError
from indexnet.core.metric_facts import FACTS
from indexnet.metrics.base import PerImageMetric, check_images, register_metric

#: Smallest mean squared error that PSNR tells from zero: identical images score 100 dB, so that means stay finite.
PSNR_FLOOR = 1e-10


@register_metric(*FACTS["mae"])
class MAE(PerImageMetric):
    """Mean absolute error over the pixels and channels of an image."""

    def per_image(self, *args: Tensor) -> Tensor:
        """Take prediction and target, (N, C, H, W) on a scale of [0, 1]; return (N,)."""
        prediction, target = args
        check_images(prediction, target)
        return (prediction.double() - target.double()).abs().flatten(1).mean(1)


@register_metric(*FACTS["rmse"])
class RMSE(PerImageMetric):
    """Root of an image's mean squared error; the mean of the roots over images, not the root of the mean."""

    def per_image(self, *args: Tensor) -> Tensor:
        """Take prediction and target, (N, C, H, W) on a scale of [0, 1]; return (N,)."""
        prediction, target = args
        check_images(prediction, target)
        return (prediction.double() - target.double()).square().flatten(1).mean(1).sqrt()


@register_metric(*FACTS["psnr"])
class PSNR(PerImageMetric):
    """Peak signal-to-noise ratio of an image, 10 log10(1 / MSE), for a peak of 1; the mean of the decibels.

    The MSE is taken over pixels and channels and never below 1e-10, so that identical images score 100 dB. Predictions
    are used as they are: clamp them first where the output is an image.
    """

    def per_image(self, *args: Tensor) -> Tensor:
        """Take prediction and target, (N, C, H, W) on a scale of [0, 1]; return (N,) in decibels."""
        prediction, target = args
        check_images(prediction, target)
        mse = (prediction.double() - target.double()).square().flatten(1).mean(1)
        return -10 * mse.clamp(min=PSNR_FLOOR).log10()


@register_metric(*FACTS["ssim"])
class SSIM(PerImageMetric):
    """Structural similarity with the definition of its authors' reference implementation.

    Gaussian window of 11x11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03, dynamic range 1, only windows that lie wholly
    inside the image, population covariances; the mean over windows and channels (Wang et al., "Image quality
    assessment: from error visibility to structural similarity", IEEE TIP 2004).
    """

    window_size = 11
    sigma = 1.5

    def per_image(self, *args: Tensor) -> Tensor:
        """Take prediction and target, (N, C, H, W) on a scale of [0, 1], H and W at least 11; return (N,).

        Raises:
            UserError: the images are smaller than the window.
        """
        prediction, target = args
        check_images(prediction, target)
        n, _, h, w = prediction.shape
        if min(h, w) < self.window_size:
            raise UserError(f"SSIM needs images of at least 11x11 pixels, got {h}x{w}; leave the metric out.")
        x = prediction.double().reshape(-1, 1, h, w)
        y = target.double().reshape(-1, 1, h, w)
        steps = torch.arange(self.window_size, dtype=torch.float64, device=x.device) - self.window_size // 2
        window = torch.exp(-(steps**2) / (2 * self.sigma**2))
        window = window / window.sum()
        maps = torch.cat([x, y, x * x, y * y, x * y])
        maps = functional.conv2d(functional.conv2d(maps, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
        mx, my, mxx, myy, mxy = maps.chunk(5)
        c1, c2 = 0.01**2, 0.03**2
        numerator = (2 * mx * my + c1) * (2 * (mxy - mx * my) + c2)
        denominator = (mx * mx + my * my + c1) * (mxx - mx * mx + myy - my * my + c2)
        return (numerator / denominator).reshape(n, -1).mean(1)
