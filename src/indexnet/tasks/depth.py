"""Monocular depth estimation (Wofk et al., FastDepth, ICRA 2019; Lu et al., TPAMI 2020, section 5.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from indexnet.losses import DEPTH_TERMS, check_terms, depth_loss
from indexnet.metrics import SumMetric, create_metric, valid_pixels
from indexnet.metrics.depth import check_average
from indexnet.networks import Network
from indexnet.networks.base import at_output_size
from indexnet.networks.imagenet import normalise
from indexnet.tasks.base import Batch, Picture, Task, register_task, run_padded
from indexnet.tasks.export_module import ExportModule
from indexnet.tasks.predictor import Files
from indexnet.tasks.visualization import Pixels, depth_error, depth_map, depth_scale, error_map, to_picture

_ERROR = 1.0  # metres that get the brightest colour of an error map


@register_task
class DepthTask(Task):
    """l1 loss, or Hu's, over measured pixels; RMSE, relative and log10 error and delta accuracies over all of them.

    Images are normalised by ImageNet's mean and deviation.

    Batch keys: ``image`` (N, 3, H, W) float32 in [0, 1]; ``depth`` (N, 1, H, W) float32 in metres, 0 where none was
    measured; ``name``. Predictions are metres, (N, 1, H, W), at least 0.

    Args:
        network: see :class:`Task`.
        optimizer: see :class:`Task`.
        schedule: see :class:`Task`.
        loss: the weights of the loss's terms, :data:`indexnet.losses.DEPTH_TERMS`; a term that is not named is no part
            of it. None: the mean absolute error.
        average: metrics over ``pixels``, all that were measured, or over ``images``, each of which counts once.

    Raises:
        UserError: a term is unknown, a weight impossible, or another ``average``.
    """

    name: ClassVar[str] = "depth"
    metric_names: ClassVar[tuple[str, ...]] = ("depth_rmse", "delta1", "delta2", "delta3", "rel", "log10")
    needs: ClassVar[tuple[str, ...]] = ("image", "depth")
    takes_reduced: ClassVar[bool] = True
    target: ClassVar[str | None] = "depth"
    measure_options: ClassVar[tuple[str, ...]] = ("average",)
    difference_scale: ClassVar[str] = f"light yellow {_ERROR:g} m or more"
    loss_terms: ClassVar[Mapping[str, float]] = DEPTH_TERMS

    def __init__(
        self,
        network: str | Mapping[str, Any] | Network,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        *,
        loss: Mapping[str, float] | None = None,
        average: str = "pixels",
    ) -> None:
        self.weights = check_terms(DEPTH_TERMS, loss)
        check_average(average)
        super().__init__(network, optimizer, schedule)
        self.options = {"loss": dict(self.weights), "average": average}

    def create_metrics(self) -> dict[str, SumMetric]:
        return {name: create_metric(name, average=self.options["average"]) for name in self.metric_names}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, the weighted sum of the terms, and each of them; 0 where a batch has no measured pixels.

        At the network's resolution: depth for one that predicts at a lower one is reduced to the nearest pixels.
        """
        prediction = self.network(normalise(batch["image"]))
        depth = at_output_size(batch["depth"], prediction)
        return depth_loss(prediction, depth, valid_pixels(depth), self.weights)

    def infer(self, batch: Batch) -> Tensor:
        """Return depth (N, 1, H, W) in metres, at least 0; any size, by replicate padding."""
        return run_padded(self.network, normalise(batch["image"])).clamp(min=0)

    def output_channels(self, sample: Batch) -> int:
        return 1

    def metric_inputs(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        return prediction, batch["depth"]

    def pictures(self, prediction: Tensor, batch: Batch) -> list[Picture]:
        depth = batch["depth"][0]
        low, high = _range(depth)
        return [
            Picture("input", to_picture(batch["image"][0]), "image"),
            Picture("target", depth_map(depth, low, high), "true depth"),
            Picture("output", depth_map(prediction[0], low, high), "predicted depth"),
            Picture("error", depth_error(prediction[0], depth, _ERROR), f"absolute error, 0 to {_ERROR:g} m"),
            Picture("legend", depth_scale(low, high), "depth, metres"),
        ]

    def draw(self, prediction: Tensor, batch: Batch, like: Tensor | None = None) -> Pixels:
        """Draw the predicted depth in colours that span its own range, or that of ``like``."""
        return depth_map(prediction[0], *_range(prediction[0] if like is None else like[0]))

    def difference(self, prediction: Tensor, other: Tensor) -> Pixels:
        """Draw the absolute difference; the brightest colour is one metre."""
        return error_map(prediction[0], other[0], scale=_ERROR)  # 0 m is a prediction here, not a missing target

    def outputs(self, prediction: Tensor, batch: Batch) -> Files:
        """Return depth in millimetres, 16 bit (65.535 m at most), and a coloured picture of it."""
        millimetres = prediction[0, 0].detach().cpu().mul(1000).round().clamp(0, 65535).numpy().astype(np.uint16)
        return {"": millimetres, "colour": self.draw(prediction, batch)}

    def export_module(self) -> ExportModule:
        return ExportModule(self.network, "depth", "depth in metres, at least 0", normalised=True, low=0.0)


def _range(depth: Tensor) -> tuple[float, float]:
    """Return the nearest and farthest measured depth in metres; (0, 1) where there is none."""
    measured = depth[valid_pixels(depth)]
    return (float(measured.min()), float(measured.max())) if measured.numel() else (0.0, 1.0)
