"""Whether the parts that a configuration names exist, take their options and fit."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from indexnet.core.annotations import check_part, check_value, option_types
from indexnet.core.errors import UserError, shown
from indexnet.core.registry import check_options, unknown_name
from indexnet.core.schedules import check_length, get_schedule, schedule_options
from indexnet.run.callback_options import check_validation
from indexnet.run.experiments.experiment import EXPERIMENT_KEYS
from indexnet.run.further_tests import check_tests
from indexnet.run.schema import (
    OPEN_GROUPS,
    OPEN_TYPES,
    REQUIRED,
    BudgetConfig,
    ExperimentConfig,
    TrainerConfig,
    TrainingConfig,
    network_spec,
    read_config,
)
from indexnet.run.trainer_options import check_strategy

if TYPE_CHECKING:
    from indexnet.networks import Network

MISSING = {
    "encoder.name": "give encoder=NAME with the name of any timm model, for example encoder=resnet50",
    "optimizer.name": "give optimizer=NAME with the name of one that indexnet list optimizers shows",
}
"""What to give where a name is missing that has no default."""
_EXPERIMENT_SET = (*(each.name for each in dataclasses.fields(ExperimentConfig)), "n_jobs")
"""Keys of the node ``experiment`` that an override may set; the others describe the table, and its file says them."""
_TASK_ARGUMENTS = ("network", "optimizer", "schedule")


def check_places(key: str, value: Any, said: str) -> None:
    """Refuse what has another place: a key of a table's file; and, of other programs with Hydra, folder and experiment.

    Args:
        key: of an override.
        value: that it is given; None: nothing.
        said: the override, for messages.

    Raises:
        UserError: it is one of these.
    """
    inner = key.removeprefix("experiment.").partition(".")[0]
    if key != inner and inner in EXPERIMENT_KEYS.keys() - set(_EXPERIMENT_SET):
        raise UserError(f"{said}: the file of an experiment says this; change it there, not on the command line.")
    if key == "experiment" and value is not None and not isinstance(value, dict):
        name = said.partition("=")[2]
        raise UserError(f"{said}: an experiment is a table here, of several runs; give -m experiments={name}.")
    if key in ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"):
        raise UserError(
            f"{said}: a run's folder is built from its names, so that the same command finds it and goes on; give "
            "paths.runs=DIR for the folder of all runs."
        )


def check_choice(group: str, value: Any, said: str) -> None:
    """Check that an override gives a config group the name of an option.

    Args:
        group: name of the group.
        value: that it is given.
        said: the override, for messages.

    Raises:
        UserError: it is a mapping, a list or too long.
    """
    if group == "callbacks" and isinstance(value, list):  # several of its options
        return
    if isinstance(value, dict):
        raise UserError(f"{said}: {group} is a config group; choose one of its options, or set {group}.KEY=VALUE.")
    if not isinstance(value, str) and not (group == "experiments" and value is None):
        what = "cannot be null here" if value is None else "is chosen by the name of one option"
        raise UserError(f"{said}: the config group {group} {what}; name one of the options in conf/{group}.")
    if isinstance(value, str) and len(value) > 200:  # longer than a file's name can be
        raise UserError(f"{said}: no option of {group} has such a long name; name one of those in conf/{group}.")


def check_open(config: Mapping[str, Any]) -> None:
    """Check the groups that a person extends: their names, the names of their options, and the options' types.

    Values may still be ``auto`` where that is settled later.

    Raises:
        UserError: an unknown name or option, or a value of another type than its constructor's signature says.
    """
    from indexnet.losses import check_terms
    from indexnet.tasks import get_task

    check_open_network(config)
    _check_part("task", config["task"], get_task, ("costs_size", *_TASK_ARGUMENTS))
    if terms := get_task(config["task"]["name"]).loss_terms:
        check_terms(terms, config["task"].get("loss"))
    _check_optimizer(config["optimizer"], config["schedule"])


def check_open_network(config: Mapping[str, Any]) -> None:
    """Do what :func:`check_open` does, but for the options of task and optimizer, whose classes need Lightning.

    Raises:
        UserError: as there.
    """
    from indexnet.data import get_data
    from indexnet.networks import get_network
    from indexnet.networks.encoders import encoder_factory
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
    get_schedule(config["schedule"]["name"])
    _check_part("resampling", config["resampling"], get_resampling, ("channels", "decoder_channels"))
    _check_part("network", config["network"], get_network, ("resampling", "encoder"))
    _check_part("data", config["data"], get_data, ("task",))
    check_tests(config, lambda group: _check_part("data", group, get_data, ("task",)))
    if config["encoder"]["name"] is not None:
        _check_part("encoder", config["encoder"], encoder_factory, ("name", "in_channels", "downsampling"))
    elif more := [key for key in config["encoder"] if key != "name"]:
        raise UserError(f"encoder.{more[0]} belongs to an encoder, and encoder=none has no options; name an encoder.")


def _check_part(
    group: str, node: Mapping[str, Any], find: Callable[[str], Callable[..., Any]], skip: tuple[str, ...]
) -> None:
    own = {key.partition(".")[2]: kind for key, kind in OPEN_TYPES.items() if key.startswith(f"{group}.")}
    options = {key: value for key, value in node.items() if f"{group}.{key}" != "task.costs_size"}
    check_part(group, options, find(node["name"]), skip, own)


def _check_optimizer(optimizer: Mapping[str, Any], schedule: Mapping[str, Any]) -> None:
    """Check the options of an optimizer by building one; where that fails, the option that fails alone is named.

    Raises:
        UserError: there is no such optimizer, or it does not take the options or the schedule.
    """
    import torch

    from indexnet.tasks.optimizers import GROUPING, create_optimizer, optimizer_class

    def build(options: Mapping[str, Any]) -> torch.optim.Optimizer:
        return create_optimizer(options, [{"params": [torch.nn.Parameter(torch.zeros(1))]}])

    name, cls = optimizer["name"], optimizer_class(optimizer["name"])
    options = {key: value for key, value in optimizer.items() if key not in GROUPING}
    check_options(f"optimizer {name!r}", cls, options, ("params",))
    types = option_types(cls)
    for key, value in options.items():
        if key in types and key != "lr":
            check_value(f"optimizer.{key}", value, types[key])
    try:
        built = build(optimizer)
    except UserError:
        for key, value in options.items():
            try:
                build({"name": name, "lr": optimizer["lr"], key: value})
            except UserError as error:
                reason = str(error.__cause__ or error).strip().splitlines()[0].rstrip(".")
                raise UserError(f"optimizer.{key}={shown(value)} cannot work: {reason}.") from error
        raise
    if schedule.get("cycle_momentum") is True and not built.defaults.keys() & {"momentum", "betas"}:
        raise UserError(f"schedule.cycle_momentum=true, but optimizer={name} has no momentum; leave it out.")


def check_schedule(schedule: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    """Check that a schedule, without what only others have, takes its options and suits the run.

    Raises:
        UserError: an option is missing, unknown or of another type, or the run is shorter or has no validation.
    """
    name = schedule["name"]
    for key in schedule:
        if key not in ("name", *schedule_options(name)):
            known = [f"schedule.{option}" for option in schedule_options(name)]
            raise unknown_name("config key", f"schedule.{key}", known)
    check_length(schedule, training.get("steps"), training.get("epochs"))
    if get_schedule(name).validates and not training.get("validate_every"):
        raise UserError(
            f"schedule={name} follows validation while training, and there is none; give training.validate_every, or "
            "another schedule, such as cosine."
        )


def check_split(config: Mapping[str, Any]) -> None:
    """Check what the run is to be measured on.

    Raises:
        UserError: a data set without such a split, or a row of a table that is not measured on its test split.
    """
    if config.get("split", "test") == "test":
        return
    from indexnet.run.experiments.tables import experiment_files, load_experiment

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
    from indexnet.networks.parts import check_frozen_parts
    from indexnet.tasks import get_task

    task = get_task(config["task"]["name"])
    network = network_without_memory(config)
    check_frozen_parts(network, config["training"].get("freeze") or ())
    built = task(network, **{key: value for key, value in config["task"].items() if key not in ("name", "costs_size")})
    if config["training"]["size"] < task.smallest_size:
        raise UserError(
            f"training.size={config['training']['size']} is too small: the metrics of task={task.name} need images of "
            f"at least {task.smallest_size} pixels a side."
        )
    typed = read_config(config)
    check_validation(typed, built)
    _check_batch(typed.trainer, typed.training, typed.budget)


def network_without_memory(config: Mapping[str, Any]) -> Network:
    """Return the network of a configuration on the meta device; those that share it get the same one.

    Raises:
        UserError: it cannot be built from its options.
    """
    return _build(json.dumps(network_spec(config)))


@functools.lru_cache(maxsize=64)
def _build(spec: str) -> Network:
    from indexnet.networks.restore import build_without_memory

    return build_without_memory(json.loads(spec))


def _check_batch(trainer: TrainerConfig, training: TrainingConfig, budget: BudgetConfig) -> None:
    """Check that the global batch can be split over devices and accumulated batches, and how it is normalized.

    Raises:
        UserError: it cannot.
    """
    batch, parts = training.batch_size, trainer.processes * trainer.accumulate_grad_batches
    if batch % parts:
        key = "budget.max_batch_size" if budget.max_batch_size == batch else "training.batch_size"
        raise UserError(
            f"{key}={batch} is the global batch and cannot be split evenly over {trainer.local_devices} devices "
            f"x {trainer.num_nodes} nodes x {trainer.accumulate_grad_batches} accumulated batches; give a multiple of "
            f"{parts}, or less of trainer.devices, trainer.num_nodes or trainer.accumulate_grad_batches."
        )
    check_processes(trainer, trainer.accelerator)


def check_processes(trainer: TrainerConfig, accelerator: str) -> None:
    """Check that batch norm over all devices is asked for where it exists, and that the strategy resumes exactly.

    Args:
        trainer: the group of a configuration.
        accelerator: ``cpu``, ``gpu``, or ``auto`` where that is not settled yet.

    Raises:
        UserError: several processes on the CPU.
    """
    check_strategy(trainer.strategy, accelerator, trainer.processes)
    if trainer.sync_batchnorm and accelerator == "cpu" and trainer.processes > 1:
        raise UserError(
            "trainer.sync_batchnorm=true works on GPUs only, and these processes run on the CPU; give "
            "trainer.sync_batchnorm=false: each process then normalizes its own part of the batch."
        )
