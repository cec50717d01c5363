"""Errors of alpha mattes: SAD, MSE, Grad and Conn, in the unknown region of the trimap or over the whole image.

Three programs print these numbers, and they differ. ``semantics`` says whose are computed:

* ``matlab`` (default): the evaluation code in Matlab of Deep Image Matting (Xu et al., CVPR 2017), which papers print.
* ``released_python``: the validation printouts of the code released with Index Networks. Mattes are stretched to [0, 1]
  by their extremes first, Grad has other filters and is divided by 10.
* ``mmediting``: MMEditing. Known pixels of the prediction become the trimap's and count in SAD and MSE; Conn ends at a
  threshold that no pixel reaches.

``region="image"`` is the portrait convention (Shen et al., ECCV 2016): all pixels count, and sums are divided by their
number. Published numbers are taken from 8-bit mattes; quantise the prediction first to reproduce them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from indexnet.core.conventions import unknown_mask
from indexnet.core.errors import UserError
from indexnet.core.metric_facts import FACTS
from indexnet.metrics.base import PerImageMetric, register_metric, single_channel
from indexnet.metrics.matting_errors import Floats, Mask, Semantics, connectivity_error, gradient_error

Region = Literal["unknown", "image"]


def check_matting_options(semantics: object, region: object, prefix: str = "") -> None:
    """Refuse options that no matting metric has.

    Args:
        semantics: one of :data:`Semantics`.
        region: one of :data:`Region`.
        prefix: what precedes the names in the message, ``task.``.

    Raises:
        UserError: an option has another value.
    """
    for name, value, known in [("semantics", semantics, Semantics), ("region", region, Region)]:
        if value not in get_args(known):
            raise UserError(f"{prefix}{name}={value!r} must be one of {', '.join(get_args(known))}.")


class MattingMetric(PerImageMetric):
    """An error of alpha per image; the mean over images. An image in which no pixel counts has the error 0.

    Args:
        semantics: whose definition, see the module.
        region: ``unknown`` counts the trimap's unknown pixels and divides sums by 1000; ``image`` counts all and
            divides by their number.
        **kwargs: torchmetrics' own.

    Raises:
        UserError: an option has another value.
    """

    def __init__(self, semantics: Semantics = "matlab", region: Region = "unknown", **kwargs: Any) -> None:
        check_matting_options(semantics, region)
        super().__init__(**kwargs)
        self.semantics, self.region = semantics, region
        if region == "image":
            self.info = self.info._replace(unit="")  # type: ignore[misc]  # means, not sums in thousands

    def per_image(self, *args: Tensor) -> Tensor:
        """Return every image's error.

        Args:
            *args: prediction and target in [0, 1], trimap in {0, 128/255, 1}; (N, 1, H, W) or (N, H, W) each.

        Returns:
            (N,) float64.

        Raises:
            ValueError: shapes differ, or there is more than one channel.
        """
        prediction, target, trimap = single_channel(*args)
        unknown = unknown_mask(trimap)
        if self.semantics == "mmediting":
            prediction = torch.where(unknown, prediction, trimap.to(prediction.dtype))
        counted = unknown if self.region == "unknown" else torch.ones_like(unknown)
        return self.errors(prediction, target, counted)

    @abstractmethod
    def errors(self, prediction: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Return (N,) float64, given which pixels count, boolean (N, 1, H, W)."""

    def scaled(self, sums: Tensor, counted: Tensor, divisor: float = 1000) -> Tensor:
        """Divide sums (N,) by what the region asks for."""
        return sums / (divisor if self.region == "unknown" else counted[0].numel())

    def differences(self, prediction: Tensor, target: Tensor, counted: Tensor) -> Iterator[Tensor]:
        """Yield every image's differences that SAD and MSE add up, (pixels,) float64."""
        # the known pixels of MMEditing are right where the target agrees with the trimap, and count where it does not
        everything = self.semantics == "mmediting"
        for image, mask in enumerate(counted):
            where = None if everything else mask.flatten().nonzero()[:, 0]
            yield self._values(prediction[image], where) - self._values(target[image], where)

    def _values(self, matte: Tensor, where: Tensor | None) -> Tensor:
        """Return a matte's pixels at some places, (pixels,) float64; stretched where the semantics ask for it."""
        values = matte.flatten() if where is None else matte.flatten().index_select(0, where)
        if self.semantics != "released_python":
            return values.double()
        low, high = matte.min().double(), matte.max().double()
        return torch.zeros_like(values).double() if low == high else (values.double() - low) / (high - low)


@register_metric(*FACTS["sad"])
class SAD(MattingMetric):
    """Sum of absolute differences, divided by 1000."""

    def errors(self, prediction: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        sums = [each.abs().sum() for each in self.differences(prediction, target, counted)]
        return self.scaled(torch.stack(sums), counted)


@register_metric(*FACTS["mse"])
class MSE(MattingMetric):
    """Mean squared difference (no root): the sum over the number of pixels that count."""

    def errors(self, prediction: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        squares = torch.stack([each.square().sum() for each in self.differences(prediction, target, counted)])
        area = counted.flatten(1).sum(1)
        return torch.where(area > 0, squares / area.clamp(min=1), 0.0)


@register_metric(*FACTS["grad"])
class Grad(MattingMetric):
    """Sum of squared differences of the gradient magnitudes (sigma 1.4) of the stretched mattes, divided by 1000."""

    def errors(self, prediction: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        sums = _each(gradient_error, prediction, target, counted, self.semantics)
        return self.scaled(sums, counted, 10 if self.semantics == "released_python" else 1000)


@register_metric(*FACTS["conn"])
class Conn(MattingMetric):
    """Sum of differences of the connectedness to the source region, divided by 1000."""

    def errors(self, prediction: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        return self.scaled(_each(connectivity_error, prediction, target, counted, self.semantics), counted)


def _each(
    error: Callable[[Floats, Floats, Mask, Semantics], float],
    prediction: Tensor,
    target: Tensor,
    counted: Tensor,
    semantics: Semantics,
) -> Tensor:
    """Return a function of every image's arrays (H, W) in main memory, (N,) float64 on the prediction's device.

    A matte that is not finite has no error.
    """
    values = []
    for image in range(len(prediction)):
        mattes = [matte[image, 0].detach().float().cpu().contiguous().numpy() for matte in (prediction, target)]
        mask = counted[image, 0].cpu().contiguous().numpy()
        finite = all(math.isfinite(matte.min() + matte.max()) for matte in mattes)
        values.append(error(mattes[0], mattes[1], mask, semantics) if finite else math.nan)
    return torch.tensor(values, dtype=torch.float64, device=prediction.device)
