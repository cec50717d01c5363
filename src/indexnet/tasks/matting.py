"""Image matting: from an RGB image and a trimap to alpha (Lu et al., TPAMI 2020, section 5.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexnet.core.conventions import UNKNOWN
from indexnet.core.errors import UserError
from indexnet.data.base import Float32, check_choice
from indexnet.data.matting.estimate import pymatting_alone
from indexnet.losses import MATTING_TERMS, check_terms, matting_loss
from indexnet.metrics import Region, Semantics, SumMetric, check_matting_options, create_metric
from indexnet.networks import Network
from indexnet.networks.tiled.matting_protocol import (
    ALIGNMENTS,
    Alignment,
    infer_alpha,
    prepare_input,
    side_multiple,
    to_uint8,
)
from indexnet.tasks.base import Batch, Picture, Task, register_task
from indexnet.tasks.cut_outs import GUIDE_OPTIONS, PREDICT_OPTIONS, CutOutPredictor, to_levels
from indexnet.tasks.export_module import TRIMAP_INPUT, ExportModule, TensorInfo
from indexnet.tasks.predictor import Photo, not_finite
from indexnet.tasks.pseudo_labels import predict_labels
from indexnet.tasks.visualization import error_map, to_picture


class MattingPredictor(CutOutPredictor):
    """Predicts alpha by the photograph's trimap.

    Args:
        task: a matting task.
        options: see :class:`~indexnet.tasks.cut_outs.CutOutPredictor`.
    """

    def __init__(self, task: MattingTask, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.task = task

    def from_sample(self, sample: Mapping[str, Any], name: str) -> Photo:
        return Photo(to_levels(sample["image"]), to_levels(sample["trimap"])[..., 0], name)

    def solve(self, photo: Photo) -> Float32:
        assert photo.trimap is not None
        alpha = self.task.predict_alpha(photo.image, photo.trimap, photo.name)
        if not np.isfinite(alpha).all():
            raise not_finite(photo.name)
        return alpha


_OTHER_SIZES: Mapping[Alignment, str] = {
    "resize": "for another size resize up the image (float, bicubic) and the trimap (nearest), resize raw back "
    "(bicubic, OpenCV's INTER_CUBIC), clip it to [0, 1], and then put the trimap's known values back",
    "reflect": "for another size pad image and trimap at bottom and right by reflection (OpenCV's BORDER_REFLECT_101), "
    "and cut that off alpha",
}


class MattingExport(ExportModule):
    """A matting network with the normalisation, clipping to [0, 1] and the trimap's word inside.

    Its second output is what the network gave before the last two, which sizes other than the network's need.
    """

    guides = 1

    def __init__(self, network: Network, alignment: Alignment = "resize") -> None:
        super().__init__(network, "alpha", "alpha in [0, 1]; equal to the trimap where that is known", normalised=True)
        self.other_sizes = _OTHER_SIZES[alignment]
        self.inputs.append(TRIMAP_INPUT)
        raw = "alpha before clipping and before the trimap's word, for other sizes"
        self.outputs.append(TensorInfo("raw", 1, raw))

    def forward(self, image: Tensor, trimap: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return alpha and raw (N, 1, H, W) of images (N, 3, H, W) and trimaps (N, 1, H, W) in {0, 128/255, 1}."""
        raw: Tensor = self.network(prepare_input(image, trimap))
        unknown = (trimap - UNKNOWN / 255).abs() < 0.5 / 255
        return raw.clamp(0, 1).where(unknown, trimap), raw


@register_task
class MattingTask(Task):
    """Alpha, composition and further losses, by weight; four errors of the 8-bit result, as the paper measures.

    Batch keys: ``image``, ``fg``, ``bg`` (N, 3, H, W) and ``alpha`` (N, 1, H, W), float32 in [0, 1]; ``trimap``
    (N, 1, H, W) float32 in {0, 128/255, 1}; ``name``. Evaluation needs neither ``fg`` nor ``bg``. ``composed``, bool
    (N,), where it is there, says which images are composites of the two; the others add zero to the composition loss.
    ``pseudo``, bool (N,), says which samples are to be trained with pseudo labels on ``augmented``, (N, 3, H, W), in
    the place of ``image``, see :meth:`with_pseudo_labels`.

    Args:
        network: see :class:`Task`.
        optimizer: see :class:`Task`.
        schedule: see :class:`Task`.
        semantics: whose definition of the errors, see :mod:`indexnet.metrics.matting`.
        region: which pixels are measured, likewise.
        loss: the weights of the loss's terms, :data:`indexnet.losses.MATTING_TERMS`; a term that is not named is no
            part of it. None: half alpha, half composition. Without ``composition`` batches need no ``fg`` and ``bg``.
        alignment: how images get sides that the network takes when it predicts: ``resize`` to multiples of 32, or
            ``reflect``: padded at bottom and right to multiples of the network's ``size_multiple``.
        pseudo_from: optimizer step from which on there are pseudo labels.

    Raises:
        UserError: an option's value is impossible.
    """

    name: ClassVar[str] = "matting"
    metric_names: ClassVar[tuple[str, ...]] = ("sad", "mse", "grad", "conn")
    needs: ClassVar[tuple[str, ...]] = ("image", "alpha", "trimap", "fg", "bg")
    loss_terms: ClassVar[Mapping[str, float]] = MATTING_TERMS
    guide: ClassVar[str | None] = "trimap"
    target: ClassVar[str | None] = "alpha"
    size_multiple: ClassVar[int] = 32  # of the released protocol
    limits_memory: ClassVar[bool] = True
    measure_options: ClassVar[tuple[str, ...]] = ("semantics", "region")
    method_options: ClassVar[tuple[str, ...]] = ("loss", "alignment", "pseudo_from")
    predict_options: ClassVar[tuple[str, ...]] = (*GUIDE_OPTIONS, *PREDICT_OPTIONS)
    worst_shown: ClassVar[int] = 8

    memory: int | Literal["auto"] | None = "auto"
    scales: ClassVar[bool] = True

    def __init__(
        self,
        network: str | Mapping[str, Any] | Network,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        *,
        semantics: Semantics = "matlab",
        region: Region = "unknown",
        loss: Mapping[str, float] | None = None,
        alignment: Alignment = "resize",
        pseudo_from: int = 10000,
    ) -> None:
        check_matting_options(semantics, region, prefix="task.")
        check_choice("task.alignment", alignment, ALIGNMENTS)
        self.weights = check_terms(MATTING_TERMS, loss)
        super().__init__(network, optimizer, schedule)
        self.alignment: Alignment = alignment
        self.pseudo_from = pseudo_from
        if not isinstance(pseudo_from, int) or isinstance(pseudo_from, bool) or pseudo_from < 0:
            raise UserError(f"task.pseudo_from={pseudo_from!r} must be a number of steps, at least 0.")
        measured = {"semantics": semantics, "region": region}
        self.options = {**measured, "loss": dict(self.weights), "alignment": alignment, "pseudo_from": pseudo_from}

    def missing_keys(self, sample: Batch) -> Sequence[str]:
        """Return the keys that training reads and a sample lacks; colours are for the composition alone."""
        composed = "composition" in self.weights
        return [key for key in super().missing_keys(sample) if composed or key not in ("fg", "bg")]

    def training_remark(self, sample: Batch, steps: int) -> str:
        """Say so where training ends before there are the pseudo labels that its samples ask for."""
        if "pseudo" not in sample or steps > self.pseudo_from:
            return ""
        return (
            f"no pseudo labels: they begin at step {self.pseudo_from} (task.pseudo_from), and this run takes {steps}; "
            "until then operations that need one are left out, and photographs without alpha add nothing"
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, the weighted sum of the terms, and each of them; by default (alpha + composition) / 2."""
        batch = self.with_pseudo_labels(batch)
        prediction = self.network(prepare_input(batch["image"], batch["trimap"]))
        colours = {key: batch.get(key) for key in ("fg", "bg", "image", "composed")}
        alpha, trimap = batch["alpha"], batch["trimap"]
        if "labelled" in batch and self.global_step < self.pseudo_from:  # nothing is said of photographs yet
            labelled = batch["labelled"].view(-1, 1, 1, 1)
            alpha = torch.where(labelled, alpha, prediction.detach().to(alpha.dtype))
            trimap = torch.where(labelled, trimap, 1.0)
        return matting_loss(prediction, alpha, trimap, **colours, weights=self.weights)

    def with_pseudo_labels(self, batch: Batch) -> Batch:
        """Return a batch with ``augmented`` images and predicted alphas where it has ``pseudo``.

        Before the step :attr:`pseudo_from` a sample is what it was without the operation that needs a pseudo label: a
        composite with its true alpha; one without alpha, ``labelled`` false, adds zero to every term.
        """
        pseudo = batch.get("pseudo")
        if pseudo is None or self.global_step < self.pseudo_from or not bool(pseudo.any()):
            return batch
        chosen = pseudo.nonzero()[:, 0]
        image, alpha = batch["image"].clone(), batch["alpha"].clone()
        image[chosen] = batch["augmented"][chosen]
        alpha[chosen] = predict_labels(self.network, image[chosen], batch["trimap"][chosen], alpha[chosen])
        composed = batch["composed"] & ~pseudo if "composed" in batch else ~pseudo
        return {**batch, "image": image, "alpha": alpha, "composed": composed}

    @torch.inference_mode()
    def predict_alpha(self, image: NDArray[np.uint8], trimap: NDArray[np.uint8], name: str = "") -> NDArray[np.float32]:
        """Predict the alpha of one image of any size, within :attr:`memory` and at :attr:`scale`.

        Args:
            image: (H, W, 3), uint8, RGB.
            trimap: (H, W), uint8 in {0, 128, 255}.
            name: what messages call it.

        Returns:
            (H, W), float32 in [0, 255], not rounded; NaN where the network gives none.

        Raises:
            UserError: shapes or the network's input do not fit.
        """
        return infer_alpha(
            self.network,
            image,
            trimap,
            memory=self.memory,
            tiled=self._count_tiled,
            scale=self.scale,
            alignment=self.alignment,
        )

    def _count_tiled(self) -> None:
        self.tiled += 1

    def infer(self, batch: Batch) -> Tensor:
        """Return alpha (N, 1, H, W) in [0, 1], aligned, clipped, pasted and cut to 8 bit as in the released code."""
        device = batch["image"].device
        alphas = []
        names = batch.get("name", [""] * len(batch["image"]))
        for image, trimap, name in zip(batch["image"], batch["trimap"], names, strict=True):
            rgb = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            known = (trimap[0] * 255).round().byte().cpu().numpy()
            alpha = self.predict_alpha(rgb, known, name)
            finite = bool(np.isfinite(alpha).all())  # a diverged network must not score as a black matte does
            alphas.append(torch.from_numpy(to_uint8(alpha) if finite else np.full_like(alpha, np.nan)))
        return torch.stack(alphas)[:, None].to(device).float() / 255

    def remedy(self, missing: Sequence[str]) -> str:
        of_composites = set(missing) <= {"fg", "bg"}
        return super().remedy(missing) + (", or give task.loss.composition=0" if of_composites else "")

    def output_channels(self, sample: Batch) -> int:
        return 1

    def check_target(self, sample: Batch) -> None:
        if "alpha" not in sample:
            raise UserError(
                "the data set has no ground-truth alpha, so that nothing can be measured; "
                "`indexnet predict CKPT data=NAME --output DIR` writes its mattes."
            )

    @classmethod
    def input_multiple(cls, network: Network, options: Mapping[str, Any]) -> int:
        alignment = options.get("alignment", "resize")
        return math.lcm(side_multiple(network, alignment), 2 ** len(network.resampling.stages))

    def create_metrics(self) -> dict[str, SumMetric]:
        measured = {key: self.options[key] for key in self.measure_options}
        return {name: create_metric(name, **measured) for name in self.metric_names}

    def metric_inputs(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        return prediction, batch["alpha"], batch["trimap"]

    def pictures(self, prediction: Tensor, batch: Batch) -> list[Picture]:
        truth = batch["alpha"][0]
        return [
            Picture("input", to_picture(batch["image"][0]), "image"),
            Picture("trimap", to_picture(batch["trimap"][0]), "trimap"),
            Picture("target", to_picture(truth), "true alpha"),
            Picture("output", to_picture(prediction[0]), "predicted alpha"),
            Picture("error", error_map(prediction[0], truth), "absolute error"),
        ]

    def create_predictor(self, options: Mapping[str, Any]) -> MattingPredictor:
        return MattingPredictor(self, options)

    def export_module(self) -> ExportModule:
        return MattingExport(self.network, self.alignment)

    def warm_up(self) -> None:
        with pymatting_alone():
            pass
