"""What every task shares: the network, the optimizer, the training step and the evaluation of one batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

from indexnet.core.errors import UserError
from indexnet.core.registry import Registry
from indexnet.data import Data
from indexnet.data.base import UInt8, planes
from indexnet.metrics import SumMetric, create_metric
from indexnet.networks import Network, create_network
from indexnet.networks.checkpoint import checkpoint_meta
from indexnet.tasks.export_module import ExportModule
from indexnet.tasks.optimizers import create_optimizer, parameter_groups
from indexnet.tasks.predictor import Files, Photo, Predictor
from indexnet.tasks.schedules import ValidatedPlateau, step_plateau, with_schedule
from indexnet.tasks.visualization import Pixels, error_map, to_picture

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """One picture of a qualitative result.

    Attributes:
        kind: input, target, output, error, trimap, legend or index.
        image: (H, W, 3) uint8.
        caption: what it shows, in a few words.
        entries: what a legend says, as (text, ``#rrggbb``), so that a page can write it out.
    """

    kind: str
    image: np.ndarray[Any, np.dtype[np.uint8]]
    caption: str
    entries: Sequence[tuple[str, str]] = ()


class Task(pl.LightningModule):
    """A network, its loss, its metrics and its pictures.

    Subclasses set the class attributes and implement :meth:`losses`, :meth:`infer`, :meth:`metric_inputs` and
    :meth:`pictures`. All constructor arguments are plain data, so a checkpoint loads with ``weights_only=True``; a
    subclass with options of its own takes them as further keyword arguments and puts them into :attr:`options`.

    Args:
        network: ``{"name": ..., options}`` for :func:`indexnet.networks.create_network`; or a network that exists, to
            use it only.
        optimizer: ``{"name": "adamw", "lr": ..., ...}``, see :mod:`indexnet.tasks.optimizers`.
        schedule: ``{"name": "cosine", "warmup": 0.1}``, in optimizer steps, see :mod:`indexnet.core.schedules`.

    Attributes:
        options: the task's own options; with ``name`` they rebuild it, see :func:`create_task`.
        test_rows: what :meth:`measure` gave for every tested image; once a test has ended, of all processes, by name.
        predictions_finite: whether every prediction that was tested is; likewise.
        tiled: images that ran in tiles so far.
    """

    name: ClassVar[str]
    metric_names: ClassVar[tuple[str, ...]]  # the first is the one that figures show
    test_batch_size: ClassVar[int] = 1  # 1 where test images differ in size
    needs: ClassVar[tuple[str, ...]]  # keys of a batch that training reads
    smallest_size: ClassVar[int] = 1  # side of the smallest image that the metrics can measure, in pixels
    difference_scale: ClassVar[str] = "light yellow a quarter of the full range or more"  # of :meth:`difference`
    target_is_input: ClassVar[bool] = False  # whether results are to be compared with the image itself
    guide: ClassVar[str | None] = None  # key of what an image needs beside it, such as a trimap
    size_multiple: ClassVar[int] = 1  # :meth:`infer` resizes images of other sizes to multiples of it
    limits_memory: ClassVar[bool] = False  # whether :attr:`memory` is kept
    measure_options: ClassVar[tuple[str, ...]] = ()  # those of :attr:`options` that say how it is measured
    predict_options: ClassVar[tuple[str, ...]] = ()  # those of ``indexnet predict`` that not every task takes
    worst_shown: ClassVar[int] = 0  # of how many images ``indexnet evaluate`` shows the worst results

    classes: Sequence[str] = ()  # names of the classes that predictions are numbers of
    memory: int | Literal["auto"] | None = None  # bytes that a prediction may take: what is free, or without limit

    def __init__(
        self,
        network: Mapping[str, Any] | Network,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {}
        self.network_spec = {} if isinstance(network, Network) else copy.deepcopy(dict(network))
        self.optimizer_spec = dict(optimizer or {"name": "adam", "lr": 1e-3})
        self.schedule_spec = dict(schedule or {"name": "constant"})
        self.config: dict[str, Any] = {}  # the run's frozen configuration, for the checkpoint
        self.network: Network = network if isinstance(network, Network) else self.configure_network(self.network_spec)
        self.test_sets: tuple[str, ...] = ()
        self.test_rows: list[dict[str, Any]] = []
        self.predictions_finite = True
        self.tiled = 0
        self.test_metrics: Sequence[Mapping[str, SumMetric]] = ()

    # --- what a task defines -------------------------------------------------------------------------------------

    @classmethod
    def configure_network(cls, spec: Mapping[str, Any]) -> Network:
        """Build the network from its plain description."""
        options = dict(spec)
        return create_network(options.pop("name"), **options)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the training losses of a batch; ``loss`` is the one that is minimised."""
        raise NotImplementedError

    def prepare(self, batch: Batch) -> Batch:
        """Add to a test batch what its samples lack, the same for a sample every time; nothing by default."""
        return batch

    def infer(self, batch: Batch) -> Tensor:
        """Return predictions (N, K, H, W) as a person would use them; the network is in eval mode."""
        raise NotImplementedError

    def check_data(self, data: Data) -> None:
        """Refuse a data set whose targets mean something else than those the network was trained for.

        Raises:
            UserError: they do.
        """

    def check_target(self, sample: Batch) -> None:
        """Refuse a test sample that has nothing to measure against.

        Raises:
            UserError: it has not.
        """

    @property
    def image_channels(self) -> int:
        """Channels of the images that the network takes, without those of the guide."""
        return self.network.in_channels - (self.guide is not None)

    def input_channels(self, sample: Batch) -> int:
        """Return how many channels the network's input has for such a sample."""
        return int(sample["image"].shape[-3]) + (self.guide is not None)

    def output_channels(self, sample: Batch) -> int:
        """Return how many channels the network's output must have for such a sample; those of the image by default."""
        return int(sample["image"].shape[-3])

    def metric_inputs(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return the arguments of every metric's ``update``."""
        raise NotImplementedError

    def create_metrics(self) -> dict[str, SumMetric]:
        """Build the task's test metrics, fresh."""
        return {name: create_metric(name) for name in self.metric_names}

    def pictures(self, prediction: Tensor, batch: Batch) -> list[Picture]:
        """Return the pictures of the first sample of a test batch."""
        raise NotImplementedError

    def draw(self, prediction: Tensor, batch: Batch, like: Tensor | None = None) -> Pixels:
        """Draw the first prediction of a batch, uint8 RGB (H, W, 3).

        Args:
            prediction: what :meth:`infer` returned.
            batch: what it was given.
            like: another prediction whose scale the picture takes over, where pictures have a scale.
        """
        return to_picture(prediction[0])

    def difference(self, prediction: Tensor, other: Tensor) -> Pixels:
        """Draw where the first two predictions of two batches differ, uint8 RGB (H, W, 3)."""
        return error_map(prediction[0], other[0])

    def outputs(self, prediction: Tensor, batch: Batch) -> Files:
        """Turn the first prediction of a batch into what image files hold."""
        levels = prediction[0].detach().cpu().clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
        return {"": np.ascontiguousarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))}

    def create_predictor(self, options: Mapping[str, Any]) -> Predictor:
        """Return what predicts from a person's images.

        Args:
            options: those of :attr:`predict_options`, None where they were not given.

        Raises:
            UserError: an option cannot be followed.
        """
        return BatchPredictor(self)

    def export_module(self) -> ExportModule:
        """Return the network with what belongs to its use inside, as ``indexnet export`` writes it."""
        return ExportModule(self.network)

    def warm_up(self) -> None:
        """Do what the first prediction would otherwise keep a person waiting for; nothing by default.

        Raises:
            UserError: what predictions need is not installed.
        """

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds this task from the checkpoint alone."""
        entry = {"name": self.name, **self.options}
        checkpoint["indexnet"] = checkpoint_meta(entry, self.network_spec, self.config)

    # --- shared --------------------------------------------------------------------------------------------------

    def predict(self, batch: Batch) -> Tensor:
        """Return :meth:`infer` of a batch from anywhere, where the batch is; the network stays where it is.

        In full precision whatever training used, so that a record and a later evaluation give the same numbers.
        """
        parameter = next(self.network.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            return self.infer(moved).to(batch["image"].device)

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
        """
        inputs = self.metric_inputs(prediction, batch)
        rows: list[dict[str, Any]] = [{"name": metric_key(split, str(name))} for name in batch["name"]]
        for name, metric in metrics.items():
            metric.update(*inputs)
            for row, value in zip(rows, metric.latest.tolist(), strict=True):
                row[metric_key(split, name)] = value
        return rows

    def image_sample(self, image: UInt8, guide: UInt8 | None = None, name: str = "") -> dict[str, Any]:
        """Make a sample of an image from anywhere.

        Args:
            image: uint8 (H, W, 3), RGB; a network for gray images gets the luma (ITU-R BT.601).
            guide: uint8 (H, W): what :attr:`guide` names, such as a trimap in {0, 128, 255}.
            name: the sample's name.

        Raises:
            UserError: the image is too small for the network's halvings.
        """
        halvings = len(self.network.resampling.stages)
        smallest = 2 ** max(0, halvings - 1) + 1
        if self.size_multiple == 1 and min(image.shape[:2]) < smallest:  # else :meth:`infer` resizes it
            raise UserError(
                f"{name}: the image is {image.shape[1]}x{image.shape[0]} pixels but this network halves "
                f"{halvings} times; give images of at least {smallest}x{smallest}."
            )
        gray = self.image_channels == 1
        sample: dict[str, Any] = {"name": name}
        sample["image"] = planes(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) if gray else image)
        if guide is not None and self.guide is not None:
            sample[self.guide] = planes(guide)
        return sample

    @classmethod
    def input_multiple(cls, network: Network) -> int:
        """Return what height and width of a network's input must be multiples of."""
        return math.lcm(cls.size_multiple, network.size_multiple, 2 ** len(network.resampling.stages))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Compute the loss and log every part of it under ``train/``."""
        losses = self.losses(batch)
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), prog_bar=name == "loss", batch_size=len(batch["name"]))
        return losses["loss"]

    def reset_test_metrics(self, names: Sequence[str]) -> None:
        """Build fresh metrics for test splits of these names, in the order of their loaders; ``""`` has none."""
        self.test_sets, self.test_rows, self.predictions_finite = tuple(names), [], True
        metrics = [nn.ModuleDict(self.create_metrics()) for _ in names]
        self.test_metrics = nn.ModuleList(metrics).to(self.device)  # type: ignore[assignment]

    def test_step(self, batch: Batch, batch_index: int, dataloader_idx: int = 0) -> None:
        """Measure a batch; the split's metrics are logged under ``test/``."""
        split, metrics = self.test_sets[dataloader_idx], self.test_metrics[dataloader_idx]
        batch = self.prepare(batch)
        prediction = self.predict(batch)
        self.predictions_finite = self.predictions_finite and bool(torch.isfinite(prediction).all())
        self.test_rows += self.measure(prediction, batch, metrics, split)
        for name, metric in metrics.items():
            self.log(
                f"test/{metric_key(split, name)}", metric, on_step=False, on_epoch=True,
                batch_size=len(batch["name"]), add_dataloader_idx=False,
            )  # fmt: skip

    def on_test_epoch_end(self) -> None:
        """Put together what the processes have."""
        gathered: list[Any] = [(self.test_rows, self.predictions_finite)]
        if self.trainer.world_size > 1:
            own, gathered = gathered[0], gathered * self.trainer.world_size
            distributed.all_gather_object(gathered, own)
        self.test_rows = sorted((row for rows, _ in gathered for row in rows), key=lambda row: str(row["name"]))
        self.predictions_finite = all(finite for _, finite in gathered)

    def configure_optimizers(self) -> Any:
        """Build the optimizer over groups of parameters, and its schedule, which steps with it."""
        optimizer = create_optimizer(self.optimizer_spec, parameter_groups(self.network, self.optimizer_spec))
        name, metric = next(iter(self.create_metrics().items()))
        watched = (f"val/{name}", bool(metric.higher_is_better))
        return with_schedule(optimizer, self.schedule_spec, watched, lambda: self.trainer)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a schedule, but not one that :meth:`on_validation_epoch_end` steps."""
        if not isinstance(scheduler, ValidatedPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_validation_epoch_end(self) -> None:
        """Step the schedules that follow a metric."""
        step_plateau(self.trainer)

    @classmethod
    def missing_keys(cls, sample: Batch) -> Sequence[str]:
        """Return the keys that training reads and a sample lacks."""
        return [key for key in cls.needs if key not in sample]


class BatchPredictor(Predictor):
    """Predicts by :meth:`Task.infer`, batches of one size at a time.

    Args:
        task: on its device, in eval mode.
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    def from_photo(self, photo: Photo) -> dict[str, Any]:
        return self.task.image_sample(photo.image, photo.trimap, photo.name)

    def from_sample(self, sample: Batch, name: str) -> dict[str, Any]:
        batch = self.task.prepare(default_collate([dict(sample)]))
        return {key: value[0] for key, value in batch.items()}

    def __call__(self, given: Sequence[Batch]) -> list[Files]:
        """Return :meth:`Task.outputs` of every sample."""
        batch = default_collate(list(given))
        predictions = self.task.predict(batch)
        alone = [{key: value[i : i + 1] for key, value in batch.items()} for i in range(len(given))]
        return [self.task.outputs(predictions[i : i + 1], one) for i, one in enumerate(alone)]


def metric_key(split: str, metric: str) -> str:
    """Return the name under which a metric on a test split is recorded: ``psnr``, or ``bsd68/psnr``."""
    return f"{split}/{metric}" if split else metric


def run_padded(network: Network, image: Tensor) -> Tensor:
    """Run a network on images (N, C, H, W) of any size, by replicate padding to its ``size_multiple`` and cropping."""
    height, width = image.shape[-2:]
    bottom, right = -height % network.size_multiple, -width % network.size_multiple
    output: Tensor = network(F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image)
    return output[..., :height, :width]


TASKS: Registry[Task] = Registry(
    "task", "indexnet.tasks", skip=("network", "optimizer", "schedule"), name_of=lambda task: str(task.name)
)
register_task = TASKS.register
get_task = TASKS.get


def create_task(entry: Mapping[str, Any], network: Network) -> Task:
    """Rebuild a task around a network that exists.

    Args:
        entry: ``{"name": ..., options}``, as in a checkpoint.
        network: put into eval mode.

    Raises:
        UserError: the name is unknown, or an option is.
    """
    options = {key: value for key, value in entry.items() if key != "name"}
    task = TASKS.create(entry["name"], network, **options)
    task.eval()
    return task


def list_tasks() -> list[str]:
    """Return the names of all tasks."""
    return list(TASKS.classes())
