"""What a Lightning ``Trainer`` calls on a task: training, validation, test and prediction, one batch at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, TypedDict

import pytorch_lightning as pl
import torch
from torch import Tensor, distributed, nn

from indexnet.core.errors import UserError
from indexnet.metrics import SumMetric, create_metric
from indexnet.networks import Network
from indexnet.networks.parts import check_frozen_parts, freeze_parts, parts_in_evaluation
from indexnet.networks.tiled.memory import as_written

Batch = Mapping[str, Any]


class Prediction(TypedDict):
    """What :meth:`Steps.predict_step` returns of a batch.

    Attributes:
        name: the names of its samples; empty where it has none.
        prediction: what :meth:`Steps.infer` gave, (N, K, H, W).
    """

    name: list[str]
    prediction: Tensor


class Steps(pl.LightningModule):
    """The steps of every task, made of what a task defines: its losses, its predictions and what they are measured by.

    Validation and test measure what :meth:`predict` gives of what :meth:`prepare` made, in full precision; metrics are
    fresh each time and are no part of the state dict. Test splits are named by the keys of a dict of loaders; else by
    :attr:`test_sets`; else by those of the trainer's data module; else one is ``""`` and several are ``"0"``, ``"1"``.
    Validation splits are named by the keys of a dict of loaders, else like those.

    There is no ``val/loss``: a loss is that of a training crop. Whole images of odd sizes do not fit every network
    without the padding or the tiles of :meth:`infer`, matting's needs foregrounds that no test image has, and denoising
    draws its noise anew each time.

    Attributes:
        network: see :class:`indexnet.tasks.Task`.
        frozen_parts: see :meth:`freeze_parts`.
        log_every: optimizer steps between two whose losses are logged; more than one where nobody reads the others.
        loss_in_bar: whether Lightning's progress bar shows the loss. It is read from the device at every step then,
            bar or no bar, and a GPU is waited for each time.
        test_sets: names of the test splits, in the order of their loaders; empty: see above.
        test_rows: what :meth:`measure` gave for every tested image; once a test has ended, of all processes, by name.
        predictions_finite: whether every prediction that was tested is; likewise.
        test_metrics: those of the last test, by name, one mapping a split.
        val_metrics: those of the last validation, likewise.
    """

    name: ClassVar[str]
    metric_names: ClassVar[tuple[str, ...]]  # the first is the one that figures show
    needs: ClassVar[tuple[str, ...]]  # keys of a batch that training reads, see :meth:`missing_keys`
    guide: ClassVar[str | None] = None  # key of what an image needs beside it, such as a trimap
    target: ClassVar[str | None] = None  # key of what predictions are measured against; None: the image

    network: Network
    frozen_parts: Sequence[str] = ()
    log_every: int = 1
    loss_in_bar: bool = True
    test_sets: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()
        self.test_rows: list[dict[str, Any]] = []
        self.predictions_finite = True
        self.test_metrics: Sequence[Mapping[str, SumMetric]] = ()
        self.val_metrics: Sequence[Mapping[str, SumMetric]] = ()
        self._test_names: Sequence[str] = ()
        self._val_names: Sequence[str] = ()

    def freeze_parts(self, parts: Sequence[str]) -> None:
        """Keep parts of the network as they are: no gradient, not in the optimizer, in evaluation mode.

        Args:
            parts: their names, ``encoder`` or ``encoder.units.0``.

        Raises:
            UserError: there is no such part, or nothing is left to train.
        """
        check_frozen_parts(self.network, parts)
        self.frozen_parts = tuple(parts)
        freeze_parts(self.network, parts)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        parts_in_evaluation(self.network, self.frozen_parts)
        return self

    # --- what a task defines -------------------------------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the training losses of a batch; ``loss`` is the one that is minimised."""
        raise NotImplementedError

    def prepare(self, batch: Batch) -> Batch:
        """Add to a test batch what its samples lack, the same for a sample every time; nothing by default."""
        return batch

    def infer(self, batch: Batch) -> Tensor:
        """Return predictions (N, K, H, W) as a person would use them; the network is in eval mode."""
        raise NotImplementedError

    def check_target(self, sample: Batch) -> None:
        """Refuse a test sample that has nothing to measure against.

        Raises:
            UserError: it has not.
        """

    def metric_inputs(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, ...] | Mapping[str, tuple[Tensor, ...]]:
        """Return the arguments of every metric's ``update``; by metric, where they differ."""
        raise NotImplementedError

    def create_metrics(self) -> dict[str, SumMetric]:
        """Build the task's metrics, fresh."""
        return {name: create_metric(name) for name in self.metric_names}

    # --- prediction and measurement ------------------------------------------------------------------------------

    def forward(self, batch: Batch | Tensor) -> Tensor:
        """Return the predictions (N, K, H, W) of a batch: ``task(batch)`` is :meth:`infer`.

        Args:
            batch: on the network's device; or its images (N, C, H, W) in [0, 1] alone, where :attr:`guide` is None.
                What :meth:`prepare` adds to images of a data set is not added here.

        Raises:
            UserError: the guide is missing.
        """
        batch = {"image": batch} if isinstance(batch, Tensor) else batch
        self._check_guide(batch)
        return self.infer(batch)

    def predict(self, batch: Batch) -> Tensor:
        """Return :meth:`infer` of a batch from anywhere, where the batch is; the network stays where it is.

        In full precision and not compiled whatever training used, so that a record and a later evaluation give the same
        numbers.

        Raises:
            UserError: the guide is missing.
        """
        self._check_guide(batch)
        parameter = next(self.network.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        with torch.inference_mode(), torch.autocast(device.type, enabled=False), as_written(self.network):
            return self.infer(moved).to(batch["image"].device)

    def predict_finite(self, batch: Batch) -> tuple[Tensor, list[bool]]:
        """Return :meth:`predict` of a batch, and of each sample whether all that the network gave for it is finite.

        Classes and clipped values do not tell: what comes out of the network itself is looked at, too.

        Raises:
            UserError: the guide is missing.
        """
        count = len(batch["image"])
        seen: list[Tensor] = []

        def look(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor) and len(output) == count:  # not a part of a batch that is done one by one
                seen.append(torch.isfinite(output).flatten(1).all(1).cpu())

        hook = self.network.register_forward_hook(look)
        try:
            prediction = self.predict(batch)
        finally:
            hook.remove()
        seen.append(torch.isfinite(prediction).flatten(1).all(1).cpu())
        return prediction, torch.stack(seen).all(0).tolist()

    def measure(
        self, prediction: Tensor, batch: Batch, metrics: Mapping[str, SumMetric], split: str = ""
    ) -> list[dict[str, Any]]:
        """Measure the predictions of a test batch: the one place where metrics meet what a network gave.

        Args:
            prediction: what :meth:`predict` returned.
            batch: what it was given, with what :meth:`prepare` adds.
            metrics: those of :meth:`create_metrics`, where the batch is; they are updated.
            split: name of the test split, which goes before the names of images and metrics.

        Returns:
            Of every image ``name`` and the metrics; NaN where it holds nothing that counts.

        Raises:
            UserError: the batch has nothing to measure against.
        """
        self._update(metrics, prediction, batch)
        rows: list[dict[str, Any]] = [{"name": metric_key(split, str(name))} for name in batch["name"]]
        for name, metric in metrics.items():
            for row, value in zip(rows, metric.latest.tolist(), strict=True):
                row[metric_key(split, name)] = value
        return rows

    def _update(self, metrics: Mapping[str, SumMetric], prediction: Tensor, batch: Batch) -> None:
        self.check_target(batch)
        with self._reading(batch, "measuring"):
            inputs = self.metric_inputs(prediction, batch)
        for name, metric in metrics.items():
            metric.update(*(inputs[name] if isinstance(inputs, Mapping) else inputs))

    def _prepared(self, batch: Batch) -> Batch:
        with self._reading(batch, "prediction"):
            return self.prepare(batch)

    @contextlib.contextmanager
    def _reading(self, batch: Batch, what: str) -> Iterator[None]:
        try:
            yield
        except KeyError as error:
            raise self._lacks(batch, error.args[0], what) from error

    def _check_guide(self, batch: Batch) -> None:
        if self.guide is not None and self.guide not in batch:
            raise self._lacks(batch, self.guide, "prediction")

    def _lacks(self, batch: Batch, key: str, what: str) -> UserError:
        there = ", ".join(batch) or "nothing"
        return UserError(f"a batch of the task {self.name} lacks {key!r}, which {what} needs; it has {there}.")

    # --- what a trainer calls ------------------------------------------------------------------------------------

    def training_remark(self, sample: Batch, steps: int) -> str:
        """Return what to say before training for that many steps on samples like this one; mostly nothing."""
        return ""

    def missing_keys(self, sample: Batch) -> Sequence[str]:
        """Return the keys that training reads and a sample lacks."""
        return [key for key in self.needs if key not in sample]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss and log every part of it under ``train/``.

        Raises:
            UserError: the batch lacks what training reads, or is too small for batch normalisation.
        """
        for key in self.missing_keys(batch):
            raise self._lacks(batch, key, "training")
        try:
            losses = self.losses(batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):  # as torch says it
                raise
            raise UserError(
                f"the network {self.network.info.name} cannot train on one image of this size, of which batch "
                "normalisation sees one pixel at the lowest resolution; give a larger training.size, or more images "
                "per device and step (training.batch_size)."
            ) from error
        if (self.global_step + 1) % self.log_every == 0:
            for name, value in losses.items():
                in_bar = self.loss_in_bar and name == "loss"
                self.log(f"train/{name}", value.detach(), prog_bar=in_bar, batch_size=len(batch["image"]))
        return losses["loss"]

    def on_validation_start(self) -> None:
        """Name the splits and build fresh metrics."""
        self._val_names = self._split_names(self.trainer.val_dataloaders, len(self.trainer.num_val_batches))
        self.val_metrics = self._fresh_metrics(len(self._val_names))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a batch; the split's metrics are logged under ``val/``, the first in the progress bar too."""
        batch = self._prepared(batch)
        self._update(self.val_metrics[dataloader_idx], self.predict(batch), batch)
        self._log_metrics("val", dataloader_idx, self._val_names[dataloader_idx], len(batch["image"]))

    def on_test_start(self) -> None:
        """Name the splits, build fresh metrics and forget the rows of an earlier test."""
        self._test_names = self._names_of_tests()
        self.test_metrics = self._fresh_metrics(len(self._test_names))
        self.test_rows, self.predictions_finite = [], True

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a batch and keep the numbers of its images; the split's metrics are logged under ``test/``."""
        split = self._test_names[dataloader_idx]
        batch = self._prepared(batch)
        prediction = self.predict(batch)
        self.predictions_finite = self.predictions_finite and bool(torch.isfinite(prediction).all())
        self.test_rows += self.measure(prediction, batch, self.test_metrics[dataloader_idx], split)
        self._log_metrics("test", dataloader_idx, split, len(batch["image"]))

    def on_test_epoch_end(self) -> None:
        """Put together what the processes have."""
        gathered: list[Any] = [(self.test_rows, self.predictions_finite)]
        if self.trainer.world_size > 1:
            own, gathered = gathered[0], gathered * self.trainer.world_size
            distributed.all_gather_object(gathered, own)
        self.test_rows = sorted((row for rows, _ in gathered for row in rows), key=lambda row: str(row["name"]))
        self.predictions_finite = all(finite for _, finite in gathered)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Prediction:
        """Return the predictions of a batch with the names of its samples; targets are not needed.

        What :meth:`prepare` adds to a test image is added here as well: denoising adds noise to images, unless the
        batch holds noisy ones under ``noisy``.
        """
        batch = self._prepared(batch)
        return {"name": [str(name) for name in batch.get("name", ())], "prediction": self.predict(batch)}

    def _fresh_metrics(self, count: int) -> Any:
        return nn.ModuleList(nn.ModuleDict(self.create_metrics()) for _ in range(count)).to(self.device)

    def _log_metrics(self, stage: str, index: int, split: str, images: int) -> None:
        metrics: Mapping[str, SumMetric] = getattr(self, f"{stage}_metrics")[index]
        for name, metric in metrics.items():
            self.log(
                f"{stage}/{metric_key(split, name)}", metric, on_step=False, on_epoch=True, batch_size=images,
                prog_bar=stage == "val" and name == self.metric_names[0], add_dataloader_idx=False,
                metric_attribute=f"{stage}_metrics.{index}.{name}",  # Lightning looks for metrics only once
            )  # fmt: skip

    def _names_of_tests(self) -> Sequence[str]:
        trainer = self.trainer
        count, names = len(trainer.num_test_batches), tuple(self.test_sets)
        if names and len(names) != count:
            raise UserError(
                f"task.test_sets names {len(names)} test splits ({', '.join(names)}), but there are {count} loaders; "
                "give as many, or a dict of loaders by name."
            )
        data = getattr(trainer, "datamodule", None)
        if (
            not names and data is not None and trainer.test_loop._data_source.instance is data
        ):  # it may be an earlier one
            names = tuple(getattr(data, "test_sets", ()))
        return self._split_names(trainer.test_dataloaders, count, names)

    @staticmethod
    def _split_names(loaders: Any, count: int, names: Sequence[str] = ()) -> Sequence[str]:
        if isinstance(loaders, Mapping):
            names = tuple(str(name) for name in loaders)
        if len(names) == count:
            return names
        return [""] if count == 1 else [str(number) for number in range(count)]


def metric_key(split: str, metric: str) -> str:
    """Return the name under which a metric on a test split is recorded: ``psnr``, or ``bsd68/psnr``."""
    return f"{split}/{metric}" if split else metric
