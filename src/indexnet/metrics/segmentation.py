"""Agreement of class maps: mean IoU and pixel accuracy, from one confusion matrix summed over all images.

Pixels labelled 255 do not count, whatever is predicted there. Both are in percent, as published tables print them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from indexnet.core.conventions import IGNORE
from indexnet.core.errors import UserError
from indexnet.core.metric_facts import FACTS
from indexnet.metrics.base import SumMetric, register_metric, shapes


class ConfusionMetric(SumMetric):
    """A number computed from the confusion matrix: how many pixels of class i were predicted as class j.

    Args:
        classes: how many classes there are, 1 to 255.
        **kwargs: torchmetrics' own.

    Raises:
        UserError: ``classes`` is no such number.
    """

    def __init__(self, classes: int, **kwargs: Any) -> None:
        if type(classes) is not int or not 1 <= classes <= IGNORE:
            raise UserError(f"classes={classes!r} must be a whole number from 1 to {IGNORE}.")
        super().__init__(classes * classes, **kwargs)
        self.classes = classes

    def statistics(self, *args: Tensor) -> Tensor:
        """Count the confusions of every image.

        Args:
            *args: prediction: class numbers in [0, classes), an integer type, (N, H, W) or (N, 1, H, W); or scores,
                logits or probabilities, floating point (N, classes, H, W), of which the greatest is the class. Label:
                class numbers or 255, an integer type, (N, H, W) or (N, 1, H, W).

        Returns:
            (N, classes * classes); label by prediction, row after row.

        Raises:
            ValueError: shapes do not match, a type is not an integer's, or a prediction is no class.
            UserError: a label is neither a class nor 255.
        """
        prediction, label = self._class_maps(*args)
        n, count = len(label), self.classes
        valid = label != IGNORE
        true, predicted = label[valid].long(), prediction[valid].long()
        if bad := _outside(true, count):
            raise UserError(
                f"an image has label {bad}, but labels must be class numbers below {count}, or {IGNORE} where nothing "
                "counts; check the label files and the number of classes."
            )
        if bad := _outside(predicted, count):
            raise ValueError(f"predictions must be class numbers below {count}, got {bad}")
        image = torch.arange(n, device=label.device).view(-1, 1, 1).expand_as(label)[valid]
        index = (image * count + true) * count + predicted
        return torch.bincount(index, minlength=n * count * count).view(n, -1).double()

    def _class_maps(self, *given: Tensor) -> list[Tensor]:
        """Return class numbers (N, H, W) of what :meth:`statistics` takes."""
        prediction, label = given
        scores = prediction.ndim == 4 and prediction.shape[1] == self.classes and prediction.is_floating_point()
        maps = [prediction.argmax(1) if scores else prediction, label]
        maps = [each[:, 0] if each.ndim == 4 and each.shape[1] == 1 else each for each in maps]
        if any(each.ndim != 3 or each.shape != maps[0].shape for each in maps):
            raise ValueError(
                f"class maps of one size, (N, H, W) or (N, 1, H, W), or scores (N, {self.classes}, H, W), and labels "
                f"(N, H, W) are expected, got {shapes(*given)}"
            )
        if any(each.is_floating_point() or each.dtype is torch.bool for each in maps):
            raise ValueError(f"class numbers must be integers, got {prediction.dtype} and {label.dtype}")
        return maps

    def matrix(self, statistics: Tensor) -> Tensor:
        """Return sums (..., classes * classes) as matrices (..., classes, classes), label by prediction."""
        return statistics.reshape(*statistics.shape[:-1], self.classes, self.classes)


def _outside(numbers: Tensor, count: int) -> str:
    """Return the values that are no class numbers, in words; empty where all are."""
    wrong = numbers[(numbers < 0) | (numbers >= count)]
    return ", ".join(str(value) for value in wrong.unique().tolist()[:5])


@register_metric(*FACTS["miou"])
class MeanIoU(ConfusionMetric):
    """Mean over classes of intersection over union, each from the pixels of all images.

    A class that occurs neither in the labels nor in the predictions of all images has no IoU and is left out of the
    mean; one that was only predicted counts with 0. An image's own number, in ``latest``, goes by the classes that
    occur in that image: the mean of those is another number than the metric.
    """

    def value(self, statistics: Tensor) -> Tensor:
        """Return the mean IoU in percent."""
        matrix = self.matrix(statistics)
        both = matrix.diagonal(dim1=-2, dim2=-1)
        either = matrix.sum(-1) + matrix.sum(-2) - both
        ious = both / either.clamp(min=1)  # 0 for classes that do not occur
        return 100 * ious.sum(-1) / (either > 0).sum(-1)


@register_metric(*FACTS["pixel_accuracy"])
class PixelAccuracy(ConfusionMetric):
    """Share of the labelled pixels of all images whose class is right; every pixel counts once."""

    def value(self, statistics: Tensor) -> Tensor:
        """Return the accuracy in percent."""
        return 100 * self.matrix(statistics).diagonal(dim1=-2, dim2=-1).sum(-1) / statistics.sum(-1)
