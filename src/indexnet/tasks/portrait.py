"""Portrait matting: from an RGB image alone to alpha and a trimap (thesis of Y. Dai, chapter 6; CGF 40(1), 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from indexnet.core.conventions import TRIMAP_CLASSES, UNKNOWN, trimap_classes, unknown_mask
from indexnet.core.errors import UserError
from indexnet.data.base import Float32, check_choice, check_size, planes
from indexnet.losses import PORTRAIT_TERMS, check_terms, portrait_loss
from indexnet.metrics import Semantics, SumMetric, check_matting_options, create_metric
from indexnet.networks import Network
from indexnet.networks.imagenet import normalise
from indexnet.tasks.base import Batch, Picture, Task, register_task, run_padded
from indexnet.tasks.cut_outs import GUIDE_OPTIONS, PREDICT_OPTIONS, CutOutPredictor, to_levels
from indexnet.tasks.export_module import TRIMAP_INPUT, ExportModule, TensorInfo
from indexnet.tasks.predictor import Files, Photo, not_finite
from indexnet.tasks.visualization import Pixels, error_map, label_entries, label_legend, label_overlay, to_picture

_ERRORS = ("sad", "mse", "grad", "conn")
_LEVELS = (1.0, 0.0, UNKNOWN / 255)  # a trimap's values, by TRIMAP_CLASSES


class PortraitPredictor(CutOutPredictor):
    """Predicts alpha, and the trimap where the network makes it, which is written to ``trimap/``.

    Args:
        task: a portrait task.
        options: see :class:`~indexnet.tasks.cut_outs.CutOutPredictor`.
    """

    def __init__(self, task: PortraitTask, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.task = task

    def from_sample(self, sample: Mapping[str, Any], name: str) -> Photo:
        trimap = to_levels(sample["trimap"])[..., 0] if self.task.guide is not None else None
        return Photo(to_levels(sample["image"]), trimap, name)

    def solve(self, photo: Photo) -> Float32:
        device = next(self.task.network.parameters()).device
        batch = {"image": planes(photo.image)[None].to(device)}
        if self.task.guide is not None:
            assert photo.trimap is not None
            batch["trimap"] = planes(photo.trimap)[None].to(device)
        with torch.inference_mode():
            maps = self.task.maps(batch)[0].cpu().numpy()
        if not np.isfinite(maps).all():
            raise not_finite(photo.name)
        if len(maps) > 1:
            photo.trimap, photo.made = np.rint(maps[1] * 255).astype(np.uint8), True
        return np.ascontiguousarray(maps[0] * np.float32(255))


class PortraitExport(ExportModule):
    """A portrait network with the normalisation and the limits of alpha inside; image alone in.

    A network that is given the trimap has it as a second input.
    """

    other_sizes = "pad images of other sizes by their border and crop what comes out"

    def __init__(self, network: Network) -> None:
        self.guides = int(network.in_channels == 4)
        super().__init__(network, "alpha", "alpha in [0, 1]", normalised=True)
        if self.guides:
            self.inputs.append(TRIMAP_INPUT)
        self.outputs = [TensorInfo("alpha", 1, "alpha in [0, 1]")]
        if network.out_channels > 1:
            meaning = "scores of foreground, background and unknown, without softmax; the trimap is their argmax"
            self.outputs.append(TensorInfo("trimap_scores", len(TRIMAP_CLASSES), meaning))

    def forward(self, image: Tensor, trimap: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        """Return alpha (N, 1, H, W), and the scores (N, 3, H, W) where there are any, of images (N, 3, H, W)."""
        x = normalise(image)
        output: Tensor = self.network(x if trimap is None else torch.cat([x, trimap], 1))
        alpha = output[:, :1].clamp(0, 1)
        if trimap is not None:
            alpha = alpha.where(unknown_mask(trimap), trimap)
        return (alpha, output[:, 1:]) if self.network.out_channels > 1 else alpha


@register_task
class PortraitTask(Task):
    """Alpha and a trimap of the image alone; two sets of errors in one run: in the unknown region, and of the image.

    Images are normalised by ImageNet's mean and deviation, and padded by their border to what the network's halvings
    need, whatever their size.

    Batch keys: ``image`` (N, 3, H, W) and ``alpha`` (N, 1, H, W), float32 in [0, 1]; ``trimap`` (N, 1, H, W) float32 in
    {0, 128/255, 1}, the true one, which trains and measures; ``name``. Predictions are alpha, cut to 8 bit, and the
    trimap that the network makes, (N, 2, H, W); without the trimap, (N, 1, H, W), where it makes none.

    Args:
        network: see :class:`Task`; such as ``pspm``. One of 4 input channels gets the true trimap as the fourth and
            must be given it, as matting networks are; known pixels are then the trimap's.
        optimizer: see :class:`Task`.
        schedule: see :class:`Task`.
        loss: the weights of the loss's terms, :data:`indexnet.losses.PORTRAIT_TERMS`; a term that is not named is no
            part of it. None: those.
        semantics: whose definition of the errors, see :mod:`indexnet.metrics.matting`.
        pasted: whether known pixels of the prediction become the true trimap's before it is measured, as those of the
            rows A1 to A3 of the paper's tables.
        longest: the longer side at which the network sees an image, in pixels: larger ones are made smaller for it, and
            what it gives is enlarged again; None: any size as it is.

    Raises:
        UserError: an option's value is impossible, or the network is not of this kind.
    """

    name: ClassVar[str] = "portrait"
    metric_names: ClassVar[tuple[str, ...]] = (*_ERRORS, *(f"{name}_full" for name in _ERRORS), "trimap_miou")
    needs: ClassVar[tuple[str, ...]] = ("image", "alpha", "trimap")
    target: ClassVar[str | None] = "alpha"
    measure_options: ClassVar[tuple[str, ...]] = ("semantics", "pasted", "longest")
    predict_options: ClassVar[tuple[str, ...]] = PREDICT_OPTIONS
    loss_terms: ClassVar[Mapping[str, float]] = PORTRAIT_TERMS
    size_multiple: ClassVar[int] = 16
    worst_shown: ClassVar[int] = 8

    def __init__(
        self,
        network: str | Mapping[str, Any] | Network,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        *,
        loss: Mapping[str, float] | None = None,
        semantics: Semantics = "matlab",
        pasted: bool = False,
        longest: int | None = 1024,
    ) -> None:
        self.weights = check_terms(PORTRAIT_TERMS, loss)
        check_matting_options(semantics, "image", prefix="task.")
        check_choice("task.pasted", pasted, (True, False))
        self.longest = None if longest is None else check_size("task.longest", longest, 64)
        super().__init__(network, optimizer, schedule)
        channels = (self.network.in_channels, self.network.out_channels)
        if channels not in ((3, 1 + len(TRIMAP_CLASSES)), (3, 1), (4, 1)):
            raise UserError(
                f"the task portrait needs a network from an image to alpha and three scores (or to alpha alone, or "
                f"with the trimap as a fourth channel), but {self.network.info.name} has {channels[0]} channels in and "
                f"{channels[1]} out; give network=pspm."
            )
        if self.network.out_channels == 1 and "segmentation" in self.weights:
            raise UserError(
                f"network {self.network.info.name} predicts no trimap here, so the term segmentation has nothing to "
                "measure; give task.loss.segmentation=0."
            )
        self.options = {"loss": dict(self.weights), "semantics": semantics, "pasted": pasted, "longest": longest}
        if self.network.in_channels == 4:
            self.guide = "trimap"  # type: ignore[misc]  # of this network, not of every one
            self.predict_options = (*GUIDE_OPTIONS, *PREDICT_OPTIONS)  # type: ignore[misc]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, the weighted sum of the terms, and each of them."""
        output = self.network(self._input(batch))
        scores = output[:, 1:] if self.network.out_channels > 1 else None
        return portrait_loss(output[:, :1], batch["alpha"], batch["trimap"], batch["image"], scores, self.weights)

    def _input(self, batch: Batch) -> Tensor:
        x = normalise(batch["image"])
        return x if self.guide is None else torch.cat([x, batch["trimap"].to(x.dtype)], 1)

    def maps(self, batch: Batch) -> Tensor:
        """Return alpha in [0, 1], not rounded, and the trimap where the network makes it, (N, 2 or 1, H, W).

        Args:
            batch: images of any size, on the network's device, with their trimaps where :attr:`guide` says so.
        """
        size = batch["image"].shape[-2:]
        seen = self._made_smaller(batch)
        output = run_padded(self.network, self._input(seen))
        if output.shape[-2:] != size:
            parts = [functional.interpolate(output[:, :1], size=size, mode="bicubic", align_corners=False)]
            if self.network.out_channels > 1:
                parts.append(functional.interpolate(output[:, 1:], size=size, mode="bilinear", align_corners=False))
            output = torch.cat(parts, 1)
        alpha = output[:, :1].clamp(0, 1)
        if self.guide is not None:
            alpha = alpha.where(unknown_mask(batch["trimap"]), batch["trimap"])
        if self.network.out_channels == 1:
            return alpha
        return torch.cat([alpha, output.new_tensor(_LEVELS)[output[:, 1:].argmax(1, keepdim=True)]], 1)

    def _made_smaller(self, batch: Batch) -> Batch:
        """Return what the network sees: the images at :attr:`longest` pixels, if they have more."""
        height, width = batch["image"].shape[-2:]
        if self.longest is None or max(height, width) <= self.longest:
            return batch
        scale = self.longest / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        small = {"image": functional.interpolate(batch["image"], size=size, mode="bilinear", antialias=True)}
        if self.guide is not None:
            small["trimap"] = functional.interpolate(batch["trimap"], size=size, mode="nearest")
        return small

    def infer(self, batch: Batch) -> Tensor:
        """Return alpha, cut to 8 bit, and the trimap where the network makes it, (N, 2 or 1, H, W)."""
        maps = self.maps(batch)
        return torch.cat([(maps[:, :1] * 255).floor() / 255, maps[:, 1:]], 1)

    def output_channels(self, sample: Batch) -> int:
        return self.network.out_channels

    def check_target(self, sample: Batch) -> None:
        for key, word in (("alpha", "ground-truth alpha"), ("trimap", "true trimap")):
            if key not in sample:
                raise UserError(
                    f"the data set has no {word}, so that nothing can be measured; "
                    "`indexnet predict CKPT data=NAME --output DIR` writes its mattes."
                )

    def create_metrics(self) -> dict[str, SumMetric]:
        """Build both sets of errors, and the trimap's mIoU where the network makes one."""
        semantics = self.options["semantics"]
        names = [name for name in self.metric_names if name != "trimap_miou"]
        metrics = {name: create_metric(name, semantics=semantics) for name in names}
        if self.network.out_channels > 1:
            metrics["trimap_miou"] = create_metric("trimap_miou")
        return metrics

    def metric_inputs(self, prediction: Tensor, batch: Batch) -> Mapping[str, tuple[Tensor, ...]]:
        trimap = batch["trimap"]
        alpha = prediction[:, :1]
        if self.options["pasted"]:
            alpha = alpha.where(unknown_mask(trimap), trimap)
        inputs = dict.fromkeys(self.metric_names[:-1], (alpha, batch["alpha"], trimap))
        return {**inputs, "trimap_miou": (prediction[:, 1:], trimap)}

    def pictures(self, prediction: Tensor, batch: Batch) -> list[Picture]:
        image, truth = batch["image"][0], batch["alpha"][0]
        found = [
            Picture("input", to_picture(image), "image"),
            Picture("target", to_picture(truth), "true alpha"),
            Picture("output", self.draw(prediction, batch), "predicted alpha"),
            Picture("error", error_map(prediction[0, :1], truth), "absolute error"),
        ]
        predicted = prediction.shape[1] > 1
        trimap = prediction[:1, 1:] if predicted else batch["trimap"][:1]
        classes = trimap_classes(trimap)[0]
        present = torch.unique(classes).tolist()
        entries = label_entries(TRIMAP_CLASSES, present)
        caption = f"{'predicted' if predicted else 'true'} trimap"
        found.append(Picture("trimap", label_overlay(image, classes, len(TRIMAP_CLASSES)), caption))
        found.append(Picture("legend", label_legend(TRIMAP_CLASSES, present), "regions", entries))
        return found

    def draw(self, prediction: Tensor, batch: Batch, like: Tensor | None = None) -> Pixels:
        return to_picture(prediction[0, :1])

    def difference(self, prediction: Tensor, other: Tensor) -> Pixels:
        return error_map(prediction[0, :1], other[0, :1])

    def outputs(self, prediction: Tensor, batch: Batch) -> Files:
        """Return alpha, 8 bit, and the trimap where the network makes it."""
        levels = to_levels(prediction[0].detach().cpu().nan_to_num())
        return {"": levels[..., 0], **({"trimap": levels[..., 1]} if levels.shape[-1] > 1 else {})}

    def create_predictor(self, options: Mapping[str, Any]) -> PortraitPredictor:
        return PortraitPredictor(self, options)

    def export_module(self) -> ExportModule:
        return PortraitExport(self.network)
