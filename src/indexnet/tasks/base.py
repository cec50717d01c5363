"""What every task shares: the network, the optimizer, the training step and the evaluation of one batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from indexnet._names import unknown_name
from indexnet.errors import UserError
from indexnet.metrics import create_metric
from indexnet.networks import Network, create_network
from indexnet.networks.checkpoint import checkpoint_meta

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """One picture of a qualitative result.

    Attributes:
        kind: input, target, output, error, trimap or index.
        image: (H, W, 3) uint8.
        caption: what it shows, in a few words.
    """

    kind: str
    image: np.ndarray[Any, np.dtype[np.uint8]]
    caption: str


class Task(pl.LightningModule):
    """A network, its loss, its metrics and its pictures.

    Subclasses set the class attributes and implement :meth:`losses`, :meth:`infer`, :meth:`metric_inputs` and
    :meth:`pictures`. All constructor arguments are plain data, so a checkpoint loads with ``weights_only=True``.

    Args:
        network: ``{"name": ..., options}`` for :func:`indexnet.networks.create_network`.
        optimizer: ``{"name": "adam" | "sgd", "lr": ..., ...}``; ``encoder_lr_multiplier`` scales the encoder's rate.
        schedule: ``{"name": "constant"}`` or ``{"name": "multistep", "milestones": [steps], "gamma": ...}``.
    """

    name: ClassVar[str]
    metric_names: ClassVar[tuple[str, ...]]  # the first is the one that figures show
    test_batch_size: ClassVar[int] = 1  # 1 where test images differ in size
    needs: ClassVar[tuple[str, ...]]  # keys of a batch that training reads
    smallest_size: ClassVar[int] = 1  # side of the smallest image that the metrics can measure, in pixels

    def __init__(
        self,
        network: Mapping[str, Any],
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network_spec = copy.deepcopy(dict(network))
        self.optimizer_spec = dict(optimizer or {"name": "adam", "lr": 1e-3})
        self.schedule_spec = dict(schedule or {"name": "constant"})
        self.config: dict[str, Any] = {}  # the run's frozen configuration, for the checkpoint
        self.network: Network = self.configure_network(self.network_spec)
        self.test_metrics: Mapping[str, Metric] = nn.ModuleDict(self.create_metrics())  # type: ignore[assignment]

    # --- what a task defines -------------------------------------------------------------------------------------

    @classmethod
    def configure_network(cls, spec: Mapping[str, Any]) -> Network:
        """Build the network from its plain description."""
        options = dict(spec)
        return create_network(options.pop("name"), **options)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the training losses of a batch; ``loss`` is the one that is minimised."""
        raise NotImplementedError

    @classmethod
    def infer(cls, network: Network, batch: Batch) -> Tensor:
        """Return predictions (N, K, H, W), float32, as a person would use them; the network is in eval mode."""
        raise NotImplementedError

    @classmethod
    def input_channels(cls, sample: Batch) -> int:
        """Return how many channels the network's input has for such a sample."""
        return int(sample["image"].shape[-3])

    @classmethod
    def metric_inputs(cls, prediction: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return the arguments of every metric's ``update``."""
        raise NotImplementedError

    @classmethod
    def pictures(cls, prediction: Tensor, batch: Batch) -> list[Picture]:
        """Return the pictures of the first sample of a batch."""
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds this task from the checkpoint alone."""
        checkpoint["indexnet"] = checkpoint_meta({"name": self.name}, self.network_spec, self.config)

    # --- shared --------------------------------------------------------------------------------------------------

    @classmethod
    def create_metrics(cls) -> dict[str, Metric]:
        """Build the task's test metrics, fresh."""
        return {name: create_metric(name) for name in cls.metric_names}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Compute the loss and log every part of it under ``train/``."""
        losses = self.losses(batch)
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), prog_bar=name == "loss", batch_size=len(batch["name"]))
        return losses["loss"]

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Update the metrics, logged under ``test/``; each metric keeps the batch's values in ``latest``.

        In full precision whatever training used, so that a record and a later evaluation give the same numbers.
        """
        with torch.autocast(self.device.type, enabled=False):
            prediction = self.infer(self.network, batch)
        inputs = self.metric_inputs(prediction, batch)
        for name, metric in self.test_metrics.items():
            metric.update(*inputs)
            self.log(f"test/{name}", metric, on_step=False, on_epoch=True, batch_size=len(batch["name"]))

    def configure_optimizers(self) -> Any:
        """Build the optimizer over two parameter groups (encoder and the rest) and its per-step schedule."""
        multiplier = self.optimizer_spec.get("encoder_lr_multiplier", 1.0)
        rate = self.optimizer_spec["lr"]
        encoder = list(self.network.encoder_parameters()) if multiplier != 1 else []
        known = {id(parameter) for parameter in encoder}
        rest = [parameter for parameter in self.network.parameters() if id(parameter) not in known]
        groups: list[dict[str, Any]] = [{"params": rest, "lr": rate}]
        if encoder:
            groups.append({"params": encoder, "lr": rate * multiplier})
        optimizer = create_optimizer(self.optimizer_spec, groups)
        if self.schedule_spec["name"] == "constant":
            return optimizer
        scheduler = torch.optim.lr_scheduler.MultiStepLR(
            optimizer, milestones=list(self.schedule_spec["milestones"]), gamma=self.schedule_spec["gamma"]
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @classmethod
    def missing_keys(cls, sample: Batch) -> Sequence[str]:
        """Return the keys that training reads and a sample lacks."""
        return [key for key in cls.needs if key not in sample]


def create_optimizer(spec: Mapping[str, Any], groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build an optimizer from ``{"name": "adam" | "sgd", "lr": ..., options}`` and parameter groups.

    Raises:
        UserError: an unknown optimizer, or options that it does not take.
    """
    options = {key: value for key, value in spec.items() if key not in ("name", "encoder_lr_multiplier")}
    optimizers: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    if spec["name"] not in optimizers:
        raise unknown_name("optimizer", spec["name"], optimizers)
    if "betas" in options:
        options["betas"] = tuple(options["betas"])
    try:
        return optimizers[spec["name"]](groups, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer={spec['name']} does not take these options: {error}.") from error


_TASKS: dict[str, type[Task]] = {}
_T = TypeVar("_T", bound=type[Task])


def register_task(cls: _T) -> _T:
    """Class decorator: make a task known under ``cls.name``."""
    _TASKS[cls.name] = cls
    return cls


def get_task(name: str) -> type[Task]:
    """Return the class of a task.

    Raises:
        UserError: the name is unknown; the message names the nearest.
    """
    if name not in _TASKS:
        raise unknown_name("task", name, _TASKS)
    return _TASKS[name]


def list_tasks() -> list[str]:
    """Return the names of all tasks."""
    return sorted(_TASKS)
