"""What every task shares: the network, the optimizer, the checkpoint, and its use on a person's images."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import cv2
import numpy as np
import torch
from lightning_fabric.utilities.data import AttributeDict
from torch import Tensor

from indexnet.core.annotations import check_part
from indexnet.core.errors import UserError
from indexnet.core.registry import Registry, option_names
from indexnet.data import Data
from indexnet.data.base import UInt8, planes
from indexnet.networks import Network
from indexnet.networks.base import run_padded
from indexnet.networks.checkpoint import (
    check_plugins,
    checkpoint_meta,
    load_checkpoint,
    load_weights,
    network_state,
    plain_data,
)
from indexnet.networks.restore import create_from_spec, restore_network
from indexnet.networks.spec import without_pretrained
from indexnet.tasks.export_module import ExportModule
from indexnet.tasks.optimizers import create_optimizer, parameter_groups
from indexnet.tasks.predictor import BatchPredictor, Files, Predictor
from indexnet.tasks.schedules import ValidatedPlateau, step_plateau, with_schedule
from indexnet.tasks.steps import Batch, Steps, metric_key
from indexnet.tasks.visualization import Picture, Pixels, error_map, to_picture

__all__ = [
    "TASKS", "Batch", "BatchPredictor", "Picture", "Task", "create_task", "get_task", "list_tasks", "metric_key",
    "register_task", "restore_task", "run_padded",
]  # fmt: skip

_PARTS = ("network", "optimizer", "schedule")  # arguments of every task, which are no options


class Task(Steps):
    """A network, its loss, its metrics and its pictures: a ``LightningModule`` for any ``Trainer``.

    Subclasses set the class attributes and implement :meth:`losses`, :meth:`infer`, :meth:`metric_inputs` and
    :meth:`pictures`. All constructor arguments are plain data, so a checkpoint loads with ``weights_only=True``; a
    subclass with options of its own takes them as further keyword arguments and puts them into :attr:`options`.

    Args:
        network: its name, or ``{"name": ..., options}`` for :func:`indexnet.networks.create_network`; or a network
            that exists.
        optimizer: ``{"name": "adamw", "lr": ..., ...}``, see :mod:`indexnet.tasks.optimizers`.
        schedule: ``{"name": "cosine", "warmup": 0.1}``, in optimizer steps, see :mod:`indexnet.core.schedules`.

    Attributes:
        options: the task's own options; with ``name`` they rebuild it, see :func:`create_task`.
        notice: what whoever uses the weights must know, such as their licence; goes into checkpoints.
        tiled: images that ran in tiles so far.
    """

    test_batch_size: ClassVar[int] = 1  # 1 where test images differ in size
    smallest_size: ClassVar[int] = 1  # side of the smallest image that the metrics can measure, in pixels
    difference_scale: ClassVar[str] = "light yellow a quarter of the full range or more"  # of :meth:`difference`
    target_is_input: ClassVar[bool] = False  # whether results are to be compared with the image itself
    size_multiple: ClassVar[int] = 1  # :meth:`infer` brings images of other sizes to multiples of it
    takes_reduced: ClassVar[bool] = False  # whether networks may predict at a part of the resolution
    limits_memory: ClassVar[bool] = False  # whether :attr:`memory` is kept
    scales: ClassVar[bool] = False  # whether predictions follow :attr:`scale`
    measure_options: ClassVar[tuple[str, ...]] = ()  # those of :attr:`options` that say how it is measured
    method_options: ClassVar[tuple[str, ...]] = ("loss",)  # those in which methods that are compared may differ
    predict_options: ClassVar[tuple[str, ...]] = ()  # those of ``indexnet predict`` that not every task takes
    loss_terms: ClassVar[Mapping[str, float]] = {}  # those that the option ``loss`` weighs, with their usual weights
    worst_shown: ClassVar[int] = 0  # of how many images ``indexnet evaluate`` shows the worst results

    monitor: str = ""  # what a schedule that follows validation goes by; empty: ``val/`` and the first metric
    classes: Sequence[str] = ()  # names of the classes that predictions are numbers of
    memory: int | Literal["auto"] | None = None  # bytes that a prediction may take: what is free, or without limit
    scale: float = 1.0  # of the images that the network sees; results keep the size of the image

    def __init__(
        self,
        network: str | Mapping[str, Any] | Network,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {}
        given = network.spec if isinstance(network, Network) else network
        self.network_spec = {"name": given} if isinstance(given, str) else copy.deepcopy(dict(given))
        self.optimizer_spec = dict(optimizer or {"name": "adam", "lr": 1e-3})
        self.schedule_spec = dict(schedule or {"name": "constant"})
        self.config: dict[str, Any] = {}  # the run's frozen configuration, for the checkpoint
        self.network: Network = network if isinstance(network, Network) else self.configure_network(self.network_spec)
        self.notice = self.network.notice
        self.tiled = 0

    # --- what a task defines -------------------------------------------------------------------------------------

    @classmethod
    def configure_network(cls, spec: Mapping[str, Any]) -> Network:
        """Build the network from its plain description."""
        return create_from_spec(spec)

    def check_data(self, data: Data) -> None:
        """Refuse a data set whose targets mean something else than those the network was trained for.

        Raises:
            UserError: they do.
        """

    def remedy(self, missing: Sequence[str]) -> str:
        """Return what to do where a data set does not give some of :attr:`needs`, as the end of a sentence."""
        return "choose another data set"

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

    # --- checkpoints ---------------------------------------------------------------------------------------------

    @property
    def hparams(self) -> AttributeDict:
        """The arguments that build this task again, as plain data: ``type(task)(**task.hparams)``.

        As if by ``save_hyperparameters(logger=False)``: they go into checkpoints but not into loggers. What is saved by
        ``save_hyperparameters`` is there as well.
        """
        hparams: AttributeDict = super().hparams  # type: ignore[assignment]
        specs = (self.network_spec, self.optimizer_spec, self.schedule_spec)
        hparams.update(zip(_PARTS, specs, strict=True))
        hparams.update(self.options)
        return hparams

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds this task from the checkpoint alone.

        Raises:
            UserError: the network was built by its class, so that nobody knows how.
            TypeError: an option is not plain data.
        """
        if not self.network_spec:
            raise UserError(
                "no checkpoint can say how to build this network, which was built by its class; build it by "
                "indexnet.networks.create_network, or give the trainer enable_checkpointing=False."
            )
        own = {*self.options, *option_names(type(self), _PARTS)}
        hparams = plain_data(dict(self.hparams), "hparams")
        entry = {"name": self.name, **{key: value for key, value in hparams.items() if key in own}}
        checkpoint["hyper_parameters"] = hparams
        checkpoint["indexnet"] = checkpoint_meta(entry, self.network_spec, self.config, self.notice)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the notice of weights that a run which goes on started from."""
        self.notice = self.notice or str(checkpoint.get("indexnet", {}).get("notice", ""))

    def on_fit_start(self) -> None:
        """Refuse at once what could not be saved in the end."""
        if self.trainer.checkpoint_callbacks:
            self.on_save_checkpoint({})

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Rebuild a task from its checkpoint alone: from a run's, or from one of Lightning's ``ModelCheckpoint``.

        On :class:`Task` itself, of whatever task the file is; on a subclass, only of that one. A checkpoint of an
        earlier version of this program does not say its schedule in steps; its learning rate is constant, then.

        Args:
            checkpoint_path: the file.
            map_location: the device to move the task to; default the CPU.
            hparams_file: refused: the file says all.
            strict: whether the weights must be those of the network exactly; default they must.
            weights_only: False is refused: checkpoints hold plain data.
            **kwargs: arguments that take the place of the checkpoint's: ``optimizer``, ``schedule``, ``network``, and
                the task's options.

        Returns:
            The task in training mode, as Lightning returns it; ``.eval()`` before it is used, or
            :func:`indexnet.inference.loading.load`.

        Raises:
            UserError: as :func:`indexnet.networks.checkpoint.load_network`; the checkpoint is one of another task; or
                an argument cannot be followed.
        """
        if hparams_file is not None:
            raise UserError("hparams_file is not read: the checkpoint says how to build its task; leave it out.")
        if weights_only is False:
            raise UserError("weights_only=False is refused: checkpoints hold plain data, and no file gets to run code.")
        task, _ = restore_task(checkpoint_path, cls, strict is not False, **kwargs)
        return task if map_location is None else task.to(map_location)

    # --- use on a person's images --------------------------------------------------------------------------------

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
        if self.size_multiple == 1 and min(image.shape[:2]) < smallest:  # else :meth:`infer` fits it
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
    def input_multiple(cls, network: Network, options: Mapping[str, Any]) -> int:
        """Return what height and width of a network's input must be multiples of, with a task's options."""
        return math.lcm(cls.size_multiple, network.size_multiple, 2 ** len(network.resampling.stages))

    def configure_optimizers(self) -> Any:
        """Build the optimizer over groups of parameters, and its schedule, which steps with it."""
        optimizer = create_optimizer(self.optimizer_spec, parameter_groups(self.network, self.optimizer_spec))
        metrics = self.create_metrics()
        monitor = self.monitor or f"val/{next(iter(metrics))}"
        watched = (monitor, bool(metrics[monitor.removeprefix("val/")].higher_is_better))
        return with_schedule(optimizer, self.schedule_spec, watched, lambda: self.trainer)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a schedule, but not one that :meth:`on_validation_epoch_end` steps."""
        if not isinstance(scheduler, ValidatedPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_validation_epoch_end(self) -> None:
        """Step the schedules that follow a metric."""
        step_plateau(self.trainer)


TASKS: Registry[Task] = Registry("task", "indexnet.tasks", skip=_PARTS, name_of=lambda task: str(task.name))
register_task = TASKS.register
get_task = TASKS.get


def create_task(
    name: str | Mapping[str, Any],
    network: str | Mapping[str, Any] | Network,
    optimizer: Mapping[str, Any] | None = None,
    schedule: Mapping[str, Any] | None = None,
    **options: Any,
) -> Task:
    """Build a task.

    Args:
        name: registry name, see :func:`list_tasks`; or a mapping of ``name`` and options, as in a checkpoint.
        network: see :class:`Task`.
        optimizer: see :class:`Task`.
        schedule: see :class:`Task`.
        **options: the task's own options.

    Raises:
        UserError: the name is unknown, or an option is.
    """
    entry = {"name": name, **options} if isinstance(name, str) else {**name, **options}
    return TASKS.create(entry.pop("name"), network, optimizer, schedule, **entry)


_T = TypeVar("_T", bound=Task)


def restore_task(path: str | Path, cls: type[_T], strict: bool = True, **arguments: Any) -> tuple[_T, dict[str, Any]]:
    """Rebuild a task from its checkpoint, on the CPU and in training mode; see :meth:`Task.load_from_checkpoint`.

    Args:
        path: the checkpoint.
        cls: the task's class, or one above it.
        strict: whether the weights must be those of the network exactly.
        **arguments: of the task, in the place of the checkpoint's.

    Returns:
        The task, and the checkpoint's ``"indexnet"`` entry with the options that the task got, and under ``changed``
        the checkpoint's own where those are others.

    Raises:
        UserError: as :meth:`Task.load_from_checkpoint`.
    """
    content = load_checkpoint(path)
    meta: dict[str, Any] = content["indexnet"]
    check_plugins(path, meta)
    name, config = meta["task"]["name"], meta["config"]
    found = cls if getattr(cls, "name", None) == name else TASKS.get(name)
    if not issubclass(found, cls):
        raise UserError(
            f"{path} is a checkpoint of the task {name}, not of {cls.name}; use {found.__name__} or Task in the place "
            f"of {cls.__name__}."
        )
    saved = {key: config[key] for key in ("optimizer",) if config.get(key)} | content.get("hyper_parameters", {})
    parts = {key: arguments.pop(key, saved.get(key)) for key in ("optimizer", "schedule")}
    network = arguments.pop("network", meta["network"])
    meta["changed"] = {
        key: meta["task"][key] for key, value in arguments.items() if meta["task"].get(key, value) != value
    }
    meta["task"] = {**meta["task"], **arguments}
    options = {key: value for key, value in meta["task"].items() if key != "name"}
    try:
        check_part("task", {"name": name, **options}, found, _PARTS)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if isinstance(network, Network):
        load_weights(network, content, path, strict)
    else:
        spec = {"name": network} if isinstance(network, str) else dict(network)
        state, build = network_state(content), found.configure_network
        network = restore_network(without_pretrained(spec), state, path, build=build, strict=strict)
        network.spec = spec
    task = found(network, **parts, **options)
    task.config, task.notice = {key: config[key] for key in ("plugins",) if config.get(key)}, meta["notice"]
    return task, meta


def list_tasks() -> list[str]:
    """Return the names of all tasks."""
    return list(TASKS.classes())
