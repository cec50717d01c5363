"""Errors and accuracies of depth maps in metres, over the measured pixels of all images.

Every measured pixel counts once (Eigen et al., NIPS 2014), so an image counts by how much of it was measured; code that
averages images instead prints other numbers, above all for the RMSE (Hu et al., WACV 2019: ``average="images"``). Which
part of an image is evaluated is the data set's business: pixels that are not measured, or set to 0, do not count,
whatever is predicted there.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from indexnet.core.errors import UserError, shown
from indexnet.core.metric_facts import FACTS
from indexnet.metrics.base import SumMetric, register_metric, single_channel

#: Nearest depth that a prediction is taken for, in metres: logarithms and ratios of 0 and less do not exist.
NEAREST = 1e-3


def valid_pixels(depth: Tensor) -> Tensor:
    """Return where a depth map (...) in metres was measured: finite and above 0; bool."""
    return torch.isfinite(depth) & (depth > 0)


def check_average(average: str) -> str:
    """Return how a number per pixel is averaged.

    Raises:
        UserError: it is neither ``"pixels"`` nor ``"images"``.
    """
    if average not in ("pixels", "images"):
        raise UserError(f"task.average={shown(average)} must be pixels or images.")
    return average


class DepthMetric(SumMetric):
    """Mean over the measured pixels of all images of a number per pixel.

    Subclasses set ``info`` and implement :meth:`per_pixel`. An image without measured pixels adds nothing.

    Args:
        average: ``"pixels"``; or ``"images"``: the mean over images of the means of their pixels.
        **kwargs: torchmetrics' own.

    Raises:
        UserError: another ``average``.
    """

    def __init__(self, average: str = "pixels", **kwargs: Any) -> None:
        super().__init__(2, **kwargs)
        self.average = check_average(average)

    @abstractmethod
    def per_pixel(self, prediction: Tensor, depth: Tensor) -> Tensor:
        """Return one number per pixel, from float64 tensors of one shape in metres.

        Predictions are above 0. So are depths where they were measured; elsewhere the number does not matter.
        """

    def statistics(self, *args: Tensor) -> Tensor:
        """Add up the pixels of every image.

        Args:
            *args: prediction in metres, taken for 1 mm where it is less; depth in metres, 0 or not finite where none
                was measured. (N, 1, H, W) or (N, H, W) each.

        Returns:
            (N, 2): the sum, and the number of measured pixels; of ``average="images"`` their mean, and 1, or 0 twice.

        Raises:
            ValueError: shapes do not match.
        """
        prediction, depth = single_channel(*args)
        valid = valid_pixels(depth)
        numbers = self.per_pixel(prediction.double().clamp(min=NEAREST), depth.double())
        numbers = torch.where(valid, numbers, 0.0)  # not multiplied by 0: elsewhere they may be NaN or infinite
        sums, counts = numbers.flatten(1).sum(1), valid.flatten(1).sum(1).double()
        if self.average == "images":
            sums, counts = sums / counts.clamp(min=1), (counts > 0).double()
        return torch.stack([sums, counts], 1)

    def value(self, statistics: Tensor) -> Tensor:
        return statistics[..., 0] / statistics[..., 1]


@register_metric(*FACTS["depth_rmse"])
class DepthRMSE(DepthMetric):
    """Root of the mean squared error in metres: one root, of the mean over all pixels, or over the images' means."""

    def per_pixel(self, prediction: Tensor, depth: Tensor) -> Tensor:
        return (prediction - depth).square()

    def value(self, statistics: Tensor) -> Tensor:
        return super().value(statistics).sqrt()


@register_metric(*FACTS["rel"])
class RelativeError(DepthMetric):
    """Mean absolute error relative to the true depth."""

    def per_pixel(self, prediction: Tensor, depth: Tensor) -> Tensor:
        return (prediction - depth).abs() / depth


@register_metric(*FACTS["log10"])
class Log10Error(DepthMetric):
    """Mean absolute difference of the decimal logarithms."""

    def per_pixel(self, prediction: Tensor, depth: Tensor) -> Tensor:
        return (prediction.log10() - depth.log10()).abs()


@register_metric(*FACTS["delta1"])
class Delta1(DepthMetric):
    """Share of pixels whose predicted and true depth differ by a factor below 1.25."""

    power: ClassVar[int] = 1

    def per_pixel(self, prediction: Tensor, depth: Tensor) -> Tensor:
        return (torch.maximum(prediction / depth, depth / prediction) < 1.25**self.power).double()


@register_metric(*FACTS["delta2"])
class Delta2(Delta1):
    """Share of pixels whose predicted and true depth differ by a factor below 1.25 squared."""

    power: ClassVar[int] = 2


@register_metric(*FACTS["delta3"])
class Delta3(Delta1):
    """Share of pixels whose predicted and true depth differ by a factor below 1.25 cubed."""

    power: ClassVar[int] = 3
