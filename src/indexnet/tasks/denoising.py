"""Denoising of additive Gaussian noise (Zhang et al., DnCNN, TIP 2017; Lu et al., TPAMI 2020, section 5.2)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from indexnet.core.errors import UserError
from indexnet.metrics import PSNR
from indexnet.networks import Network
from indexnet.tasks.base import Batch, Picture, Task, register_task, run_padded
from indexnet.tasks.export_module import ExportModule
from indexnet.tasks.visualization import error_map, to_picture

_NOISE = 0xD0151  # first word of the key of every test image's noise


@register_task
class DenoisingTask(Task):
    """l2 loss against noise of one level; PSNR and SSIM per image, unquantised and not clipped unless asked.

    Training draws new noise in every step. A test image's noise depends on its name alone and is the same, but for its
    scale, at every level. Noise is never clipped: clipping would add 0.07 to 0.76 dB.

    Batch keys: ``image`` (N, C, H, W) float32 in [0, 1], clean; ``name``. Evaluation adds ``noisy``, of that shape, and
    the clean one as ``clean``; a batch without them is taken for noisy images.

    Args:
        network: see :class:`Task`; it maps noisy images to clean ones.
        optimizer: see :class:`Task`.
        schedule: see :class:`Task`.
        sigma: standard deviation of the noise, in grey levels of 255; > 0.
        quantise: whether results are clipped to [0, 1] and rounded to 8 bits before they are measured.

    Raises:
        UserError: an option's value is impossible.
    """

    name: ClassVar[str] = "denoising"
    metric_names: ClassVar[tuple[str, ...]] = ("psnr", "ssim")
    smallest_size: ClassVar[int] = 11  # the window of SSIM
    needs: ClassVar[tuple[str, ...]] = ("image",)
    target: ClassVar[str | None] = "clean"
    measure_options: ClassVar[tuple[str, ...]] = ("sigma", "quantise")

    def __init__(
        self,
        network: str | Mapping[str, Any] | Network,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        *,
        sigma: float = 25,
        quantise: bool = False,
    ) -> None:
        if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma <= 255:
            raise UserError(f"task.sigma={sigma!r} must be a number above 0 and at most 255, in grey levels.")
        if not isinstance(quantise, bool):
            raise UserError(f"task.quantise={quantise!r} must be true or false.")
        super().__init__(network, optimizer, schedule)
        self.options = {"sigma": sigma, "quantise": quantise}
        self.sigma, self.quantise = float(sigma), quantise

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        clean = batch["image"]
        noisy = clean + torch.randn_like(clean) * (self.sigma / 255)
        return {"loss": F.mse_loss(self.network(noisy), clean)}

    def prepare(self, batch: Batch) -> Batch:
        """Add the noise that follows from a sample's name, unless the batch holds noisy images already."""
        if "noisy" in batch:
            return batch
        noise = []
        for name, image in zip(batch["name"], batch["image"], strict=True):
            rng = np.random.default_rng((_NOISE, zlib.crc32(str(name).encode())))
            noise.append(torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32)))
        clean = batch["image"]
        return {**batch, "noisy": clean + torch.stack(noise).to(clean.device) * (self.sigma / 255), "clean": clean}

    def infer(self, batch: Batch) -> Tensor:
        """Return the denoised images (N, C, H, W); in [0, 1] only with ``quantise``."""
        output = run_padded(self.network, batch.get("noisy", batch["image"]))
        return output.clamp(0, 1).mul(255).round().div(255) if self.quantise else output

    def metric_inputs(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        return prediction, batch.get("clean", batch["image"])

    def pictures(self, prediction: Tensor, batch: Batch) -> list[Picture]:
        clean, noisy = batch.get("clean", batch["image"])[:1], batch.get("noisy", batch["image"])
        psnr = PSNR()
        before, after = (psnr.per_image(image[:1], clean).item() for image in (noisy, prediction))
        return [
            Picture("input", to_picture(noisy[0]), f"noisy, {before:.2f} dB"),
            Picture("target", to_picture(clean[0]), "clean"),
            Picture("output", to_picture(prediction[0]), f"denoised, {after:.2f} dB"),
            Picture("error", error_map(prediction[0], clean[0], scale=0.1), "absolute error, 0 to 0.1"),
        ]

    def export_module(self) -> ExportModule:
        meaning = "the denoised image, not clipped: values may leave [0, 1]"
        if getattr(self.network, "residual", False):
            meaning += "; the network's residual is subtracted inside the graph"
        return ExportModule(self.network, "denoised", meaning, image="noisy image")
