"""Image reconstruction through an autoencoder: what an operator pair keeps of its input (thesis, tables 3.2, 4.1)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from indexnet.tasks.base import Batch, Picture, Task, register_task, run_padded
from indexnet.tasks.export_module import ExportModule
from indexnet.tasks.visualization import error_map, to_picture


@register_task
class ReconstructionTask(Task):
    """l1 loss; PSNR, SSIM, MAE and RMSE per image of the clipped output.

    Batch keys: ``image`` (N, C, H, W) float32 in [0, 1], which is input and target; ``name``.
    """

    name: ClassVar[str] = "reconstruction"
    metric_names: ClassVar[tuple[str, ...]] = ("psnr", "ssim", "mae", "rmse")
    test_batch_size: ClassVar[int] = 64
    smallest_size: ClassVar[int] = 11  # the window of SSIM
    needs: ClassVar[tuple[str, ...]] = ("image",)
    target_is_input: ClassVar[bool] = True

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": F.l1_loss(self.network(batch["image"]), batch["image"])}

    def infer(self, batch: Batch) -> Tensor:
        """Return the reconstruction (N, C, H, W), clipped to [0, 1]; any size, by replicate padding."""
        return run_padded(self.network, batch["image"]).clamp(0, 1)

    def metric_inputs(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        return prediction, batch["image"]

    def pictures(self, prediction: Tensor, batch: Batch) -> list[Picture]:
        image = batch["image"][0]
        return [
            Picture("input", to_picture(image), "input"),
            Picture("output", to_picture(prediction[0]), "reconstruction"),
            Picture("error", error_map(prediction[0], image), "absolute error"),
        ]

    def export_module(self) -> ExportModule:
        return ExportModule(self.network, "reconstruction", "the reconstructed image, in [0, 1]", low=0.0, high=1.0)
