"""Metrics that are means over images: the base class and the registry.

Every figure is computed per image in float64 and then averaged, so that neither the batch size nor the number of
processes changes a number: the state is a sum and a count, both reduced by summation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric

from indexnet._names import unknown_name


@dataclass(frozen=True)
class MetricInfo:
    """Facts about one metric.

    Attributes:
        name: registry name.
        title: heading in a table.
        unit: unit, or empty for a bare number.
        higher_is_better: which way is better.
        task: the task whose tables print it; ``"image"`` for any task with an image as output.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    task: str


class PerImageMetric(Metric):
    """Mean over images of a number per image.

    Subclasses set ``info`` and implement :meth:`per_image`. ``compute`` of nothing is NaN.

    Attributes:
        latest: the numbers of the last batch, (N,) float64, on the inputs' device; not a state.
    """

    info: ClassVar[MetricInfo]
    full_state_update = False
    is_differentiable = False

    sum: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.latest = torch.zeros(0, dtype=torch.float64)

    @abstractmethod
    def per_image(self, *args: Tensor) -> Tensor:
        """Return one number per image, (N,) float64."""

    @torch.no_grad()
    def update(self, *args: Tensor) -> None:
        """Add a batch; takes what :meth:`per_image` takes."""
        self.latest = self.per_image(*args)
        self.sum += self.latest.sum()
        self.count += self.latest.numel()

    def compute(self) -> Tensor:
        """Return the mean over all images seen, a float64 scalar."""
        return self.sum / self.count


_REGISTRY: dict[str, type[PerImageMetric]] = {}
_M = TypeVar("_M", bound=type[PerImageMetric])


def register_metric(name: str, title: str, unit: str, higher_is_better: bool, task: str) -> Callable[[_M], _M]:
    """Class decorator: set ``info`` and make the metric known under ``name``."""

    def register(cls: _M) -> _M:
        if name in _REGISTRY:
            raise RuntimeError(f"metric {name!r} is registered twice")
        cls.info = MetricInfo(name, title, unit, higher_is_better, task)
        cls.higher_is_better = higher_is_better
        _REGISTRY[name] = cls
        return cls

    return register


def get_metric(name: str) -> type[PerImageMetric]:
    """Return the class registered as ``name``.

    Raises:
        UserError: the name is unknown; the message names the nearest.
    """
    if name not in _REGISTRY:
        raise unknown_name("metric", name, _REGISTRY)
    return _REGISTRY[name]


def create_metric(name: str) -> PerImageMetric:
    """Build a metric.

    Raises:
        UserError: the name is unknown; the message names the nearest.
    """
    return get_metric(name)()


def list_metrics() -> list[MetricInfo]:
    """Facts of every registered metric, by name."""
    return [_REGISTRY[name].info for name in sorted(_REGISTRY)]


def check_images(prediction: Tensor, target: Tensor, *others: Tensor) -> None:
    """Refuse tensors that are not batches of images of one shape; broadcasting would give a number, a wrong one.

    Raises:
        ValueError: a shape differs or is not (N, C, H, W).
    """
    shapes = {tuple(t.shape) for t in (prediction, target, *others)}
    if len(shapes) > 1 or prediction.ndim != 4:
        raise ValueError(f"images of one shape (N, C, H, W) are expected, got {sorted(shapes)}")
