"""Image matting: from an RGB image and a trimap to alpha (Lu et al., TPAMI 2020, section 5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexnet.losses import matting_loss
from indexnet.metrics import Region, Semantics, SumMetric, check_matting_options, create_metric
from indexnet.networks import Network
from indexnet.networks.tiled.matting_protocol import infer_alpha, prepare_input, to_uint8
from indexnet.tasks.base import Batch, Picture, Task, register_task
from indexnet.tasks.visualization import error_map, to_picture


@register_task
class MattingTask(Task):
    """Alpha and composition loss over the unknown region; four errors of the 8-bit result, as the paper measures.

    Batch keys: ``image``, ``fg``, ``bg`` (N, 3, H, W) and ``alpha`` (N, 1, H, W), float32 in [0, 1]; ``trimap``
    (N, 1, H, W) float32 in {0, 128/255, 1}; ``name``. Evaluation needs neither ``fg`` nor ``bg``.

    Args:
        network: see :class:`Task`.
        optimizer: see :class:`Task`.
        schedule: see :class:`Task`.
        semantics: whose definition of the errors, see :mod:`indexnet.metrics.matting`.
        region: which pixels are measured, likewise.

    Attributes:
        tiled: images that ran in tiles so far.

    Raises:
        UserError: an option's value is impossible.
    """

    name: ClassVar[str] = "matting"
    metric_names: ClassVar[tuple[str, ...]] = ("sad", "mse", "grad", "conn")
    needs: ClassVar[tuple[str, ...]] = ("image", "alpha", "trimap", "fg", "bg")
    memory: int | Literal["auto"] | None = "auto"  # bytes that :meth:`infer` may take, see infer_alpha

    def __init__(
        self,
        network: Mapping[str, Any] | Network,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        *,
        semantics: Semantics = "matlab",
        region: Region = "unknown",
    ) -> None:
        check_matting_options(semantics, region, prefix="task.")
        super().__init__(network, optimizer, schedule)
        self.options = {"semantics": semantics, "region": region}
        self.tiled = 0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss`` = (alpha + composition) / 2 and its two parts."""
        prediction = self.network(prepare_input(batch["image"], batch["trimap"]))
        return matting_loss(
            prediction, batch["alpha"], batch["trimap"], fg=batch["fg"], bg=batch["bg"], image=batch["image"]
        )

    @torch.inference_mode()
    def predict_alpha(self, image: NDArray[np.uint8], trimap: NDArray[np.uint8], name: str = "") -> NDArray[np.float32]:
        """Predict the alpha of one image of any size, within :attr:`memory`.

        Args:
            image: (H, W, 3), uint8, RGB.
            trimap: (H, W), uint8 in {0, 128, 255}.
            name: what messages call it.

        Returns:
            (H, W), float32 in [0, 255], not rounded; NaN where the network gives none.

        Raises:
            UserError: shapes or the network's input do not fit.
        """
        return infer_alpha(self.network, image, trimap, memory=self.memory, tiled=self._count_tiled)

    def _count_tiled(self) -> None:
        self.tiled += 1

    def infer(self, batch: Batch) -> Tensor:
        """Return alpha (N, 1, H, W) in [0, 1], resized, clipped, pasted and cut to 8 bit as in the released code."""
        device = batch["image"].device
        alphas = []
        for image, trimap, name in zip(batch["image"], batch["trimap"], batch["name"], strict=True):
            rgb = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            known = (trimap[0] * 255).round().byte().cpu().numpy()
            alpha = self.predict_alpha(rgb, known, name)
            finite = bool(np.isfinite(alpha).all())  # a diverged network must not score as a black matte does
            alphas.append(torch.from_numpy(to_uint8(alpha) if finite else np.full_like(alpha, np.nan)))
        return torch.stack(alphas)[:, None].to(device).float() / 255

    def input_channels(self, sample: Batch) -> int:
        """Return 4: RGB and trimap."""
        return 4

    def output_channels(self, sample: Batch) -> int:
        """Return 1: alpha."""
        return 1

    def create_metrics(self) -> dict[str, SumMetric]:
        """Build the test metrics, fresh, of the task's semantics and region."""
        return {name: create_metric(name, **self.options) for name in self.metric_names}

    def metric_inputs(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return prediction, alpha and trimap."""
        return prediction, batch["alpha"], batch["trimap"]

    def pictures(self, prediction: Tensor, batch: Batch) -> list[Picture]:
        """Return image, trimap, true alpha, predicted alpha and their difference."""
        truth = batch["alpha"][0]
        return [
            Picture("input", to_picture(batch["image"][0]), "image"),
            Picture("trimap", to_picture(batch["trimap"][0]), "trimap"),
            Picture("target", to_picture(truth), "true alpha"),
            Picture("output", to_picture(prediction[0]), "predicted alpha"),
            Picture("error", error_map(prediction[0], truth), "absolute error"),
        ]
