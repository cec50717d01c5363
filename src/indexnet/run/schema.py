"""What a frozen configuration must fulfil before anything is spent on it: one place, one sentence each."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.errors import UserError
from indexnet.core.registry import check_options, unknown_name

if TYPE_CHECKING:
    from indexnet.networks import Network


MODES = ("auto", "online", "offline", "disabled")
_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "64-true")


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _or(other: Any, test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value == other or test(value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


# key, test, what is expected; keys that a configuration lacks are not looked at
_VALUES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("network.in_channels", _or("auto", _positive), "auto or a positive integer"),
    ("network.classes", _or("auto", _positive), "auto or a positive integer"),
    ("seed", _count, "an integer of at least 0"),
    ("task.costs_size", _positive, "a positive integer"),
    ("training.batch_size", _positive, "a positive integer"),
    ("training.size", _positive, "a positive integer"),
    ("training.steps", _or(None, _positive), "a positive integer or null"),
    ("training.epochs", _or(None, _positive), "a positive integer or null"),
    ("logger.mode", lambda value: value in MODES, f"one of {', '.join(MODES)}"),
    ("trainer.accelerator", lambda value: value in ("auto", "cpu", "gpu"), "auto, cpu or gpu"),
    ("trainer.devices", _positive, "a positive integer"),
    ("trainer.num_nodes", _positive, "a positive integer"),
    ("trainer.accumulate", _positive, "a positive integer"),
    ("trainer.precision", lambda value: value in _PRECISIONS, f"one of {', '.join(_PRECISIONS)}"),
    ("trainer.sync_batchnorm", _flag, "true or false"),
    ("trainer.channels_last", _flag, "true or false"),
    ("trainer.compile", _flag, "true or false"),
    ("trainer.gradient_clip", _or(None, lambda value: _number(value) and value > 0), "a positive number or null"),
    ("trainer.num_workers", _or("auto", _count), "auto or an integer of at least 0"),
    ("trainer.checkpoint_every", _or("auto", _positive), "auto or a positive integer"),
    ("trainer.progress_bar", _or("auto", _flag), "auto, true or false"),
    ("logger.csv", _flag, "true or false"),
    ("logger.tensorboard", _flag, "true or false"),
    ("logger.wandb", _flag, "true or false"),
    ("debug.overfit", _flag, "true or false"),
    *((f"budget.max_{key}", _or(None, _positive), "a positive integer or null")
      for key in ("steps", "batch_size", "size", "test")),
    ("optimizer.lr", lambda value: _number(value) and value > 0, "a positive number"),
    ("optimizer.encoder_lr_multiplier", _or("auto", lambda value: _number(value) and value >= 0),
     "auto or a number of at least 0"),
)  # fmt: skip

_SCHEDULES: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "constant": {},
    "multistep": {
        "milestones": (lambda value: isinstance(value, list) and all(map(_number, value)), "a list of epochs"),
        "gamma": (lambda value: _number(value) and value > 0, "a positive number"),
    },
}


def check_values(config: Mapping[str, Any]) -> None:
    """Check the type and range of every plain value, before budgets or anything else compute with them.

    Raises:
        UserError: a value that cannot work.
    """
    for key, test, expected in _VALUES:
        group, _, name = key.rpartition(".")
        node = config if not group else config.get(group)
        if not isinstance(node, Mapping):
            raise UserError(f"{group}={node!r} must name one of the options of conf/{group}.")
        if name in node and not test(node[name]):
            raise UserError(f"{key}={node[name]!r} must be {expected}.")
    for group in ("network", "resampling", "data", "optimizer", "schedule", "encoder"):
        if not isinstance(config.get(group), Mapping):
            raise UserError(f"{group}={config.get(group)!r} must name one of the options of conf/{group}.")
    check_split(config)
    if config["training"].get("steps") is None and config["training"].get("epochs") is None:
        raise UserError("training.steps and training.epochs are both null; give one of them.")


def check_split(config: Mapping[str, Any]) -> None:
    """Check what the run is to be measured on.

    Raises:
        UserError: no such split, a data set without it, or a row of a table that is not measured on its test split.
    """
    split = config.get("split", "test")
    if split not in ("test", "validation"):
        raise unknown_name("split", str(split), ("test", "validation"))
    if split == "test":
        return
    if config["experiment"]["name"] is not None:
        raise UserError(
            f"split=validation, but experiments={config['experiment']['name']} is a table, and a table is measured on "
            "its test split; leave split out, or give experiment.name=null for a run that belongs to no table."
        )
    from indexnet.data import Data, get_data, list_data

    name, task = config["data"]["name"], config["task"]["name"]
    if get_data(name).validation is Data.validation:
        known = [info.name for info in list_data() if task in info.tasks]
        able = [each for each in known if get_data(each).validation is not Data.validation]
        choice = f"; of those for task={task}, {', '.join(able)} can have one" if able else ""
        choice += ", for example data=scenes data.validation_count=100" if "scenes" in able else ""
        raise UserError(f"split=validation, but data={name} has no validation split{choice}.")


def check_sync_batchnorm(trainer: Mapping[str, Any], accelerator: str) -> None:
    """Check that batch norm over all devices is asked for where it exists.

    Args:
        trainer: the group of a configuration.
        accelerator: ``cpu``, ``gpu``, or ``auto`` where that is not settled yet.

    Raises:
        UserError: several processes on the CPU.
    """
    if trainer["sync_batchnorm"] and accelerator == "cpu" and trainer["devices"] * trainer["num_nodes"] > 1:
        raise UserError(
            "trainer.sync_batchnorm=true works on GPUs only, and these processes run on the CPU; give "
            "trainer.sync_batchnorm=false: each process then normalizes its own part of the batch."
        )


def settle_schedule(schedule: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    """Check a schedule and keep the options that it has; a task's usual milestones mean nothing to ``constant``.

    Raises:
        UserError: an unknown schedule or option, or a value that cannot work.
    """
    name = schedule["name"]
    if name not in _SCHEDULES:
        raise unknown_name("schedule", name, _SCHEDULES)
    known = _SCHEDULES[name]
    for key, value in schedule.items():
        if key in known and not known[key][0](value):
            raise UserError(f"schedule.{key}={value!r} must be {known[key][1]}.")
        if key != "name" and not any(key in options for options in _SCHEDULES.values()):
            raise unknown_name("config key", f"schedule.{key}", [f"schedule.{option}" for option in known])
    if name == "multistep" and epochs is None:
        raise UserError("schedule=multistep counts in epochs; give training.epochs, or schedule=constant.")
    return {"name": name, **{key: value for key, value in schedule.items() if key in known}}


def check_names(config: Mapping[str, Any]) -> None:
    """Check that every part exists and takes its options, by building network and optimizer without memory.

    Raises:
        UserError: an unknown name or option, or parts that do not fit together.
    """
    from indexnet.data import get_data
    from indexnet.networks import get_network
    from indexnet.resampling import get_resampling
    from indexnet.tasks import create_optimizer, get_task

    task = get_task(config["task"]["name"])
    task_options = _options(config["task"], "costs_size")
    check_options(f"task {task.name!r}", task, task_options, _TASK_ARGUMENTS)
    resampling, network, data = config["resampling"], config["network"], config["data"]
    check_options(
        f"resampling {resampling['name']!r}",
        get_resampling(resampling["name"]),
        _options(resampling),
        ("channels", "decoder_channels"),
    )
    check_options(
        f"network {network['name']!r}", get_network(network["name"]), _options(network), ("resampling", "encoder")
    )
    check_options(f"data {data['name']!r}", get_data(data["name"]), _options(data))
    pretrained = config["encoder"].get("pretrained")
    if isinstance(pretrained, str) and not Path(pretrained).is_file():
        raise UserError(f"encoder.pretrained={pretrained} is no file; give the path of a state dict, true or false.")
    network_on_meta = _build(json.dumps(network_spec(config)))
    task(network_on_meta, **task_options)
    import torch

    create_optimizer(config["optimizer"], [{"params": [torch.nn.Parameter(torch.zeros(1))]}])
    if config["training"]["size"] < task.smallest_size:
        raise UserError(
            f"training.size={config['training']['size']} is too small: the metrics of task={task.name} need images of "
            f"at least {task.smallest_size} pixels a side."
        )


_TASK_ARGUMENTS = ("network", "optimizer", "schedule")


@functools.lru_cache(maxsize=64)
def _build(spec: str) -> Network:
    """Build a network on the meta device; the rows of a sweep that share it build it once."""
    import torch

    from indexnet.networks import create_network

    options = json.loads(spec)
    name = options.pop("name")
    try:
        with torch.device("meta"):
            return create_network(name, **options)
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:  # a width that is a word, for example
        raise UserError(f"network={name} cannot be built from its options: {str(error).splitlines()[0]}.") from error


def check_batch(config: Mapping[str, Any]) -> None:
    """Check that the global batch can be split over devices and accumulated batches, and how it is normalized.

    Raises:
        UserError: it cannot.
    """
    trainer, batch = config["trainer"], config["training"]["batch_size"]
    devices, nodes, accumulate = trainer["devices"], trainer["num_nodes"], trainer["accumulate"]
    parts = devices * nodes * accumulate
    if batch % parts:
        capped = config["budget"].get("max_batch_size") == batch
        key = "budget.max_batch_size" if capped else "training.batch_size"
        raise UserError(
            f"{key}={batch} is the global batch and cannot be split evenly over {devices} devices x {nodes} nodes x "
            f"{accumulate} accumulated batches; give a multiple of {parts}."
        )
    check_sync_batchnorm(trainer, trainer["accelerator"])


def _options(node: Mapping[str, Any], *skip: str) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in ("name", *skip)}


PLACE_KEYS = ("paths", "logger", "protocol")
"""Keys that say where results go or what they are compared with, not what they are: left out of the hash."""

_TOP = frozenset(
    (
        *("task", "network", "encoder", "resampling", "data", "optimizer", "schedule", "training", "trainer"),
        *("logger", "budget", "debug", "paths", "experiment", "seed", "split", "rows", "seeds"),
        *("fail_fast", "retry_failed", "plugins"),
    )
)
_TRAINING = frozenset(("epochs", "steps", "batch_size", "size"))


def network_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`indexnet.networks.create_network` needs: name and options, resampling and encoder included."""
    spec = {**config["network"], "resampling": dict(config["resampling"])}
    if config["encoder"].get("name") is not None:
        spec["encoder"] = dict(config["encoder"])
    return spec


def data_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for :func:`indexnet.data.create_data`: the data group, the task, and the size of a crop."""
    from indexnet.core.registry import option_names
    from indexnet.data import get_data

    options = dict(config["data"])
    options["task"] = config["task"]["name"]
    if "size" in option_names(get_data(options["name"])):
        options.setdefault("size", config["training"]["size"])
    return options


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that name a frozen configuration, wherever its data lie and its results go."""
    content = {key: value for key, value in config.items() if key not in PLACE_KEYS}
    unused = {"root"}
    if content.get("split") == "test":  # what every run was measured on before there was a choice
        del content["split"]
        unused.add("validation_count")
    content["data"] = {k: v for k, v in config["data"].items() if k not in unused}
    if "cache" in content["data"]:
        content["data"]["cache"] = "auto"  # where decoded files are kept changes no sample
    content["trainer"] = {k: v for k, v in config["trainer"].items() if k not in ("num_workers", "progress_bar")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
