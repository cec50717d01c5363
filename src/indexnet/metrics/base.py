"""Metrics as sums over images: the base classes and the registry.

A metric is a function of a vector of sums. Every image gives its vector in float64, vectors are added, and the number
is computed from the total, so that neither the batch size nor the number of processes changes it. Counts are whole
numbers, which float64 adds without error up to 2^53: metrics made of counts alone are the same to the last bit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric

from indexnet.core.metric_facts import MetricInfo
from indexnet.core.registry import Registry

_M = TypeVar("_M", bound="type[SumMetric]")


class SumMetric(Metric):
    """A number computed from sums over all images; a torchmetrics class like any other, prediction before target.

    Subclasses set ``info`` and implement :meth:`statistics` and :meth:`value`. ``compute`` of nothing is NaN.

    Args:
        size: how many sums there are, K.
        **kwargs: torchmetrics' own.

    Attributes:
        sums: what every image of the last batch adds to the sums, (N, K) float64, on the inputs' device. Not a state.
    """

    info: ClassVar[MetricInfo]
    full_state_update = False
    is_differentiable = False

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # of another name in every class: a MetricCollection takes metrics for one whose states have the same names and,
        # after the first batch, the same values, which delta2 and delta3 have where a first prediction is good
        self._state = f"total_{type(self).__name__}"
        self.add_state(self._state, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.sums = torch.zeros(0, size, dtype=torch.float64)

    @property
    def total(self) -> Tensor:
        """The sums over all images seen, (K,) float64: the metric's state."""
        total: Tensor = getattr(self, self._state)
        return total

    @total.setter
    def total(self, value: Tensor) -> None:
        setattr(self, self._state, value)

    @abstractmethod
    def statistics(self, *args: Tensor) -> Tensor:
        """Return what every image of a batch adds to the sums, (N, K) float64."""

    @abstractmethod
    def value(self, statistics: Tensor) -> Tensor:
        """Return the number that sums (..., K) stand for, (...) float64; NaN where they count nothing."""

    @torch.no_grad()
    def update(self, *args: Tensor) -> None:
        """Add a batch; takes what :meth:`statistics` takes."""
        self.sums = self.statistics(*args)
        self.total = self.total + self.sums.sum(0)  # not in place: Lightning resets metrics in inference mode

    @property
    def latest(self) -> Tensor:
        """The last batch's images, each on its own, (N,) float64; NaN where one holds nothing that counts."""
        return self.value(self.sums)

    def compute(self) -> Tensor:
        """Return the number over all images seen, a float64 scalar."""
        return self.value(self.total)


class PerImageMetric(SumMetric):
    """Mean over images of a number per image.

    Subclasses set ``info`` and implement :meth:`per_image`. Every image counts once, whatever its size, and has a
    number.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(2, **kwargs)

    @abstractmethod
    def per_image(self, *args: Tensor) -> Tensor:
        """Return one number per image, (N,) float64."""

    def statistics(self, *args: Tensor) -> Tensor:
        """Return every image's number and 1, (N, 2); takes what :meth:`per_image` takes."""
        numbers = self.per_image(*args)
        return torch.stack([numbers, torch.ones_like(numbers)], 1)

    def value(self, statistics: Tensor) -> Tensor:
        return statistics[..., 0] / statistics[..., 1]


METRICS: Registry[SumMetric] = Registry("metric", "indexnet.metrics")
get_metric = METRICS.get


def create_metric(name: str, **options: Any) -> SumMetric:
    """Build a metric.

    Args:
        name: registry name.
        **options: what its class takes; ``classes`` for those of segmentation, nothing for most.

    Raises:
        UserError: the name is unknown, or an option is; the message names the nearest. Or an option is missing.
    """
    return METRICS.create(name, **options)


def register_metric(name: str, title: str, unit: str, higher_is_better: bool, task: str) -> Callable[[_M], _M]:
    """Class decorator: set ``info`` and make the metric known under ``name``."""

    def register(cls: _M) -> _M:
        cls.info = MetricInfo(name, title, unit, higher_is_better, task)
        cls.higher_is_better = higher_is_better
        return METRICS.register(cls)

    return register


def list_metrics() -> list[MetricInfo]:
    """Facts of every registered metric, by name."""
    return [metric.info for metric in METRICS.classes().values()]


def check_images(prediction: Tensor, target: Tensor, *others: Tensor) -> None:
    """Refuse tensors that are not batches of images of one shape; broadcasting would give a number, a wrong one.

    Raises:
        ValueError: a shape differs or is not (N, C, H, W).
    """
    images = (prediction, target, *others)
    if prediction.ndim != 4 or any(image.shape != prediction.shape for image in images):
        raise ValueError(f"images of one shape (N, C, H, W) are expected, got {shapes(*images)}")


def single_channel(prediction: Tensor, target: Tensor, *others: Tensor) -> list[Tensor]:
    """Return maps of one channel as (N, 1, H, W); each may be given as that or as (N, H, W).

    Raises:
        ValueError: one has another form, or another shape than the first.
    """
    given = (prediction, target, *others)
    maps = [each[:, None] if each.ndim == 3 else each for each in given]
    if any(each.ndim != 4 or each.shape[1] != 1 or each.shape != maps[0].shape for each in maps):
        raise ValueError(f"maps of one shape, (N, 1, H, W) or (N, H, W), are expected, got {shapes(*given)}")
    return maps


def shapes(*tensors: Tensor) -> str:
    """List the shapes of tensors, for messages."""
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
