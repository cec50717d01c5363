"""Semantic segmentation: from an RGB image to a class for every pixel (Lu et al., TPAMI 2020, section 5.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from indexnet.core.conventions import IGNORE, VIEW_LONGEST, VIEW_MULTIPLE, VIEW_SIDES
from indexnet.core.errors import UserError
from indexnet.data.base import Data, check_choice, check_size
from indexnet.metrics import SumMetric, create_metric
from indexnet.networks import Network
from indexnet.networks.base import at_output_size
from indexnet.networks.imagenet import normalise
from indexnet.networks.scales import class_probabilities
from indexnet.tasks.base import Batch, Picture, Task, register_task, run_padded
from indexnet.tasks.export_module import ExportModule
from indexnet.tasks.predictor import Files
from indexnet.tasks.visualization import Pixels, error_map, label_entries, label_legend, label_overlay, to_picture

EVALUATIONS = ("whole", "single", "multi")


@register_task
class SegmentationTask(Task):
    """Softmax loss over labelled pixels; mean IoU and pixel accuracy from one confusion matrix over all images.

    Images are normalised by ImageNet's mean and deviation.

    Batch keys: ``image`` (N, 3, H, W) float32 in [0, 1]; ``label`` (N, H, W) int64 in [0, classes), or 255 where a
    pixel does not count; ``name``. Predictions are class numbers, (N, 1, H, W) int64.

    Args:
        network: see :class:`Task`; one output channel a class.
        optimizer: see :class:`Task`.
        schedule: see :class:`Task`.
        classes: the names of the classes, for legends; default their numbers.
        evaluation: how classes are predicted: ``whole``: from the image at its own size; ``single``: from the image at
            a short side of ``short_side``; ``multi``: from the average over five sizes, see
            :func:`indexnet.networks.scales.class_probabilities`.
        short_side: of ``single``, and the middle one of ``multi``, in pixels.

    Raises:
        UserError: ``classes`` is no list, or the network has another number of outputs than there are names; or another
            option has an impossible value.
    """

    name: ClassVar[str] = "segmentation"
    metric_names: ClassVar[tuple[str, ...]] = ("miou", "pixel_accuracy")
    needs: ClassVar[tuple[str, ...]] = ("image", "label")
    takes_reduced: ClassVar[bool] = True
    target: ClassVar[str | None] = "label"
    difference_scale: ClassVar[str] = "light yellow another class"
    measure_options: ClassVar[tuple[str, ...]] = ("evaluation", "short_side")

    def __init__(
        self,
        network: str | Mapping[str, Any] | Network,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        *,
        classes: Sequence[str] | None = None,
        evaluation: str = "whole",
        short_side: int = 450,
    ) -> None:
        if classes is not None and (isinstance(classes, str) or not isinstance(classes, Sequence)):
            raise UserError(f"task.classes={classes!r} must be a list of names, or auto.")
        check_choice("task.evaluation", evaluation, EVALUATIONS)
        self.evaluation, self.short_side = evaluation, check_size("task.short_side", short_side, VIEW_MULTIPLE)
        super().__init__(network, optimizer, schedule)
        count = self.network.out_channels
        self.classes = [f"class {number}" for number in range(count)] if classes is None else [str(c) for c in classes]
        if len(self.classes) != count:
            raise UserError(
                f"task.classes names {len(self.classes)} classes but the network has {count} outputs; give "
                "network.classes=auto and task.classes=auto, and a network with that option, such as segnet."
            )
        self.options = {"classes": list(self.classes), "evaluation": evaluation, "short_side": short_side}

    def check_data(self, data: Data) -> None:
        if list(data.classes) != self.classes:
            raise UserError(
                f"data={data.name} has other classes ({_listed(data.classes)}) than those the network was trained for "
                f"({_listed(self.classes)}); choose a data set with the same ones."
            )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean cross entropy over labelled pixels; 0 where a batch has none.

        At the network's resolution: labels of one that predicts at a lower one are reduced to the nearest ones.
        """
        scores = self.network(normalise(batch["image"]))
        label = at_output_size(batch["label"], scores)
        total = F.cross_entropy(scores, label, ignore_index=IGNORE, reduction="sum")
        return {"loss": total / (label != IGNORE).sum().clamp(min=1)}

    def infer(self, batch: Batch) -> Tensor:
        """Return the most probable class of every pixel, (N, 1, H, W) int64."""
        image = normalise(batch["image"])
        if self.evaluation == "whole":
            return run_padded(self.network, image).argmax(1, keepdim=True)
        sides = [share * self.short_side for share in (VIEW_SIDES if self.evaluation == "multi" else (1.0,))]
        return class_probabilities(self.network, image, sides, VIEW_LONGEST * self.short_side).argmax(1, keepdim=True)

    def output_channels(self, sample: Batch) -> int:
        return len(self.classes)

    def metric_inputs(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        return prediction, batch["label"]

    def create_metrics(self) -> dict[str, SumMetric]:
        return {name: create_metric(name, classes=len(self.classes)) for name in self.metric_names}

    def pictures(self, prediction: Tensor, batch: Batch) -> list[Picture]:
        image, label = batch["image"][0], batch["label"][0]
        wrong = (prediction[0, 0] != label) & (label != IGNORE)
        share = wrong.sum() / (label != IGNORE).sum().clamp(min=1)
        present = torch.unique(torch.stack([label, prediction[0, 0]])).tolist()
        entries = label_entries(self.classes, present)
        return [
            Picture("input", to_picture(image), "image"),
            Picture("target", label_overlay(image, label, len(self.classes)), "true classes"),
            Picture("output", self.draw(prediction, batch), "predicted classes"),
            Picture("error", error_map(wrong[None].float(), torch.zeros_like(wrong[None].float()), scale=1.0),
                    f"wrong pixels, {100 * share.item():.1f} %"),
            Picture("legend", label_legend(self.classes, present), "classes", entries),
        ]  # fmt: skip

    def draw(self, prediction: Tensor, batch: Batch, like: Tensor | None = None) -> Pixels:
        return label_overlay(batch["image"][0], prediction[0, 0], len(self.classes))

    def difference(self, prediction: Tensor, other: Tensor) -> Pixels:
        differ = (prediction[0] != other[0]).float()
        return error_map(differ, torch.zeros_like(differ), scale=1.0)

    def outputs(self, prediction: Tensor, batch: Batch) -> Files:
        """Return class numbers, 8 bit, and the picture of them over the image."""
        return {"": prediction[0, 0].cpu().numpy().astype(np.uint8), "overlay": self.draw(prediction, batch)}

    def export_module(self) -> ExportModule:
        meaning = "one score a class, without softmax; the class is the argmax over dimension 1"
        return ExportModule(self.network, "scores", meaning, normalised=True)


def _listed(classes: Sequence[str]) -> str:
    """Name a few classes and count them all."""
    return f"{len(classes)}: {', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''}"
