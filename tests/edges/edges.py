"""Edge maps: from an image to the magnitude of its gradient."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from indexnet.tasks.base import Batch, Picture, Task, register_task, run_padded
from indexnet.tasks.export_module import ExportModule
from indexnet.tasks.visualization import error_map, to_picture


def edges(image: Tensor) -> Tensor:
    """Return the magnitude of the gradient of images (N, 1, H, W) by central differences, same shape."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return torch.sqrt(across**2 + down**2)


@register_task
class EdgesTask(Task):
    """l1 loss; MAE and RMSE per image. Batch keys: ``image`` (N, 1, H, W) float32 in [0, 1]; ``name``."""

    name: ClassVar[str] = "edges"
    metric_names: ClassVar[tuple[str, ...]] = ("mae", "rmse")
    needs: ClassVar[tuple[str, ...]] = ("image",)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the l1 loss."""
        return {"loss": F.l1_loss(self.network(batch["image"]), edges(batch["image"]))}

    def infer(self, batch: Batch) -> Tensor:
        """Return edge maps (N, 1, H, W), at least 0; any size."""
        return run_padded(self.network, batch["image"]).clamp(min=0)

    def metric_inputs(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return prediction and true edges."""
        return prediction, edges(batch["image"])

    def pictures(self, prediction: Tensor, batch: Batch) -> list[Picture]:
        """Return image, true and predicted edges, and their difference."""
        truth = edges(batch["image"])
        return [
            Picture("input", to_picture(batch["image"][0]), "image"),
            Picture("target", to_picture(truth[0]), "true edges"),
            Picture("output", to_picture(prediction[0]), "predicted edges"),
            Picture("error", error_map(prediction[0], truth[0]), "absolute error"),
        ]

    def export_module(self) -> ExportModule:
        """Return the network with the clipping inside."""
        return ExportModule(self.network, "edges", "magnitude of the gradient, at least 0", low=0.0)
