"""Whether the parts that a configuration names exist, take their options and fit; sentences on overrides."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.annotations import option_types
from indexnet.core.errors import UserError, shown
from indexnet.core.registry import check_options, unknown_name
from indexnet.run.schema import (
    OPEN_GROUPS,
    OPEN_TYPES,
    REQUIRED,
    BudgetConfig,
    TrainerConfig,
    TrainingConfig,
    check_value,
    network_spec,
    read_config,
)

if TYPE_CHECKING:
    from indexnet.networks import Network

_SCHEDULES: dict[str, tuple[str, ...]] = {"constant": (), "multistep": ("milestones", "gamma")}
_COMPLAINTS = {
    r"Ambiguous value for argument '([^']*)'": "{} is a list of values; give -m to sweep over them, or one value.",
    r"Sweep parameters '(.*)' requires --multirun": "{} stands for several values; give -m to try them, or one value.",
    r"force-add of config groups is not supported: '(.*)'": "{} is a config group; leave out the ++.",
    r"An item is already at '([^']+)'": "+{}: there is such a key already; leave out the +.",
    r"Could not delete from config\. '([^']+)'": "~{0}: {0} does not exist, so there is nothing to leave out.",
    r"Could not delete from config\. The value of '([^']+)'": (
        "~{0}: {0} has another value, so there is nothing to leave out."
    ),
    r"Error parsing override '(.*)'": (
        "{} cannot be read as an override; the form is key=value, interval(a,b) takes two numbers, and quotes protect "
        "brackets from the shell."
    ),
}
_TASK_ARGUMENTS = ("network", "optimizer", "schedule")


def override_complaint(text: str) -> str | None:
    """Return the sentence for a complaint of Hydra about the form of an override, None for any other."""
    for pattern, sentence in _COMPLAINTS.items():
        if match := re.search(pattern, text, re.DOTALL):
            return sentence.format(shown(match[1])[1:-1])
    return None


def check_open(config: Mapping[str, Any]) -> None:
    """Check the groups that a person extends: their names, the names of their options, and the options' types.

    Values may still be ``auto`` where that is settled later.

    Raises:
        UserError: an unknown name or option, or a value of another type than its constructor's signature says.
    """
    from indexnet.tasks import get_task

    check_open_network(config)
    _check_part("task", config["task"], get_task, ("costs_size", *_TASK_ARGUMENTS))
    _check_optimizer(config["optimizer"])


def check_open_network(config: Mapping[str, Any]) -> None:
    """Do what :func:`check_open` does, but for the options of task and optimizer, whose classes need Lightning.

    Raises:
        UserError: as there.
    """
    from indexnet.data import get_data
    from indexnet.networks import get_network
    from indexnet.networks.encoders import create_encoder
    from indexnet.resampling import get_resampling

    for group in OPEN_GROUPS:
        node = config[group]
        if "name" not in node:
            raise UserError(f"{group}.name is missing; name one of the options of conf/{group}.")
        if not isinstance(node["name"], str) and not (group == "encoder" and node["name"] is None):
            raise UserError(f"{group}.name={shown(node['name'])} must be a name; {group}=NAME chooses one.")
        for key, value in node.items():
            if f"{group}.{key}" in OPEN_TYPES:
                check_value(f"{group}.{key}", value, OPEN_TYPES[f"{group}.{key}"])
    for key in REQUIRED:
        group, _, name = key.partition(".")
        if name not in config[group]:
            raise UserError(f"{key} is missing; give {key}=VALUE.")
    if config["schedule"]["name"] not in _SCHEDULES:
        raise unknown_name("schedule", config["schedule"]["name"], _SCHEDULES)
    _check_part("resampling", config["resampling"], get_resampling, ("channels", "decoder_channels"))
    _check_part("network", config["network"], get_network, ("resampling", "encoder"))
    _check_part("data", config["data"], get_data, ("task",))
    if config["encoder"]["name"] is not None:
        _check_part("encoder", config["encoder"], lambda name: create_encoder, ("name", "in_channels", "downsampling"))
    elif more := [key for key in config["encoder"] if key != "name"]:
        raise UserError(f"encoder.{more[0]} belongs to an encoder, and encoder=none has no options; name an encoder.")
    pretrained = config["encoder"].get("pretrained")
    if isinstance(pretrained, str) and not Path(pretrained).is_file():
        raise UserError(
            f"encoder.pretrained={shown(pretrained).strip(chr(39))} is no file; give the path of a state dict, true or "
            "false."
        )


def _check_part(
    group: str, node: Mapping[str, Any], find: Callable[[str], Callable[..., Any]], skip: tuple[str, ...]
) -> None:
    target = find(node["name"])
    own = ("costs_size",) if group == "task" else ()
    options = {key: value for key, value in node.items() if key not in ("name", *own)}
    check_options(f"{group} {node['name']!r}", target, options, skip)
    types = option_types(target)
    for key, value in options.items():
        if key in types and f"{group}.{key}" not in OPEN_TYPES:
            check_value(f"{group}.{key}", value, types[key])


def _check_optimizer(optimizer: Mapping[str, Any]) -> None:
    """Check the options of an optimizer by building one with its rate alone, then one with all of them.

    Raises:
        UserError: there is no such optimizer, or it does not take the options.
    """
    import torch

    from indexnet.tasks import create_optimizer

    def build(options: Mapping[str, Any]) -> torch.optim.Optimizer:
        return create_optimizer(options, [{"params": [torch.nn.Parameter(torch.zeros(1))]}])

    name = optimizer["name"]
    cls = type(build({"name": name, "lr": optimizer["lr"]}))
    options = {key: value for key, value in optimizer.items() if key not in ("name", "encoder_lr_multiplier")}
    check_options(f"optimizer {name!r}", cls, options, ("params",))
    types = option_types(cls)
    for key, value in options.items():
        if key in types and key != "lr":
            check_value(f"optimizer.{key}", value, types[key])
    for key, value in options.items():
        try:
            build({"name": name, "lr": optimizer["lr"], key: value})
        except (TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise UserError(f"optimizer.{key}={shown(value)} cannot work: {reason}.") from error
    build(optimizer)


def check_schedule(schedule: Mapping[str, Any], epochs: int | None) -> None:
    """Check that a schedule has what it needs; unknown options are those that no schedule has.

    Raises:
        UserError: an option is missing or unknown, or the schedule counts in epochs that are not given.
    """
    known = _SCHEDULES[schedule["name"]]
    for key in schedule:
        if key != "name" and not any(key in options for options in _SCHEDULES.values()):
            raise unknown_name("config key", f"schedule.{key}", [f"schedule.{option}" for option in known])
    for key in known:
        if key not in schedule:
            raise UserError(f"schedule.{key} is missing; schedule={schedule['name']} needs it.")
    if schedule["name"] == "multistep" and epochs is None:
        raise UserError("schedule=multistep counts in epochs; give training.epochs, or schedule=constant.")


def schedule_options(name: str) -> tuple[str, ...]:
    """Return the options of a schedule."""
    return _SCHEDULES[name]


def check_split(config: Mapping[str, Any]) -> None:
    """Check what the run is to be measured on.

    Raises:
        UserError: a data set without such a split, or a row of a table that is not measured on its test split.
    """
    if config.get("split", "test") == "test":
        return
    from indexnet.run.tables import experiment_files, load_experiment

    table = config["experiment"]["name"]
    if table in experiment_files() and "split=validation" not in load_experiment(table).overrides:
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


def check_parts(config: Mapping[str, Any]) -> None:
    """Check that the parts fit together, by building network and task without memory, and that the batch can be split.

    Raises:
        UserError: they do not.
    """
    from indexnet.tasks import get_task

    task = get_task(config["task"]["name"])
    network = network_without_memory(config)
    task(network, **{key: value for key, value in config["task"].items() if key not in ("name", "costs_size")})
    if config["training"]["size"] < task.smallest_size:
        raise UserError(
            f"training.size={config['training']['size']} is too small: the metrics of task={task.name} need images of "
            f"at least {task.smallest_size} pixels a side."
        )
    typed = read_config(config)
    _check_batch(typed.trainer, typed.training, typed.budget)


def network_without_memory(config: Mapping[str, Any]) -> Network:
    """Return the network of a configuration on the meta device; those that share it get the same one.

    Raises:
        UserError: it cannot be built from its options.
    """
    return _build(json.dumps(network_spec(config)))


@functools.lru_cache(maxsize=64)
def _build(spec: str) -> Network:
    import torch

    from indexnet.networks import create_network

    options = json.loads(spec)
    name = options.pop("name")
    try:
        with torch.device("meta"):
            return create_network(name, **options)
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:  # a width of 10^20, for example
        raise UserError(f"network={name} cannot be built from its options: {str(error).splitlines()[0]}.") from error


def _check_batch(trainer: TrainerConfig, training: TrainingConfig, budget: BudgetConfig) -> None:
    """Check that the global batch can be split over devices and accumulated batches, and how it is normalized.

    Raises:
        UserError: it cannot.
    """
    batch, parts = training.batch_size, trainer.processes * trainer.accumulate
    if batch % parts:
        key = "budget.max_batch_size" if budget.max_batch_size == batch else "training.batch_size"
        raise UserError(
            f"{key}={batch} is the global batch and cannot be split evenly over {trainer.devices} devices x "
            f"{trainer.num_nodes} nodes x {trainer.accumulate} accumulated batches; give a multiple of {parts}, or "
            "less of trainer.devices, trainer.num_nodes or trainer.accumulate."
        )
    check_sync_batchnorm(trainer, trainer.accelerator)


def check_sync_batchnorm(trainer: TrainerConfig, accelerator: str) -> None:
    """Check that batch norm over all devices is asked for where it exists.

    Args:
        trainer: the group of a configuration.
        accelerator: ``cpu``, ``gpu``, or ``auto`` where that is not settled yet.

    Raises:
        UserError: several processes on the CPU.
    """
    if trainer.sync_batchnorm and accelerator == "cpu" and trainer.processes > 1:
        raise UserError(
            "trainer.sync_batchnorm=true works on GPUs only, and these processes run on the CPU; give "
            "trainer.sync_batchnorm=false: each process then normalizes its own part of the batch."
        )
