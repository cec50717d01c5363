"""Whether the parts that a configuration names exist, take their options and fit; sentences on overrides."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.annotations import option_types
from indexnet.core.errors import UserError, shown
from indexnet.core.registry import check_options, nearest, unknown_name
from indexnet.core.schedules import SCHEDULES, check_length, get_schedule, schedule_options
from indexnet.run.callback_options import check_validation
from indexnet.run.experiments.experiment import EXPERIMENT_KEYS
from indexnet.run.schema import (
    OPEN_GROUPS,
    OPEN_TYPES,
    REQUIRED,
    BudgetConfig,
    ExperimentConfig,
    TrainerConfig,
    TrainingConfig,
    check_value,
    network_spec,
    read_config,
)
from indexnet.run.trainer_options import check_strategy

if TYPE_CHECKING:
    from indexnet.networks import Network

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
MISSING = {
    "encoder.name": "give encoder=NAME with the name of any timm model, for example encoder=resnet50",
    "optimizer.name": "give optimizer=NAME with the name of one that indexnet list optimizers shows",
}
"""What to give where a name is missing that has no default."""
_EXPERIMENT_SET = (*(each.name for each in dataclasses.fields(ExperimentConfig)), "n_jobs")
"""Keys of the node ``experiment`` that an override may set; the others describe the table, and its file says them."""
_TASK_ARGUMENTS = ("network", "optimizer", "schedule")


def override_complaint(text: str) -> str | None:
    """Return the sentence for a complaint of Hydra about the form of an override, None for any other."""
    for pattern, sentence in _COMPLAINTS.items():
        if match := re.search(pattern, text, re.DOTALL):
            return sentence.format(shown(match[1])[1:-1])
    return None


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


def named_in_full(words: Sequence[str], complaint: str) -> list[str] | None:
    """Return overrides with what no file has, ``encoder=timm encoder.name=resnet50`` and ``+optimizer.eps=1e-6``.

    Args:
        words: overrides and flags.
        complaint: Hydra's, about the option or the key that it cannot find.

    Returns:
        None where it is no encoder and no optimizer, and no option of optimizers or schedules.
    """
    if match := re.search(r"Could not find '(encoder|optimizer)/([^']+)'", complaint):
        group, name = match.groups()
        full = [f"{group}=timm", f"{group}.name={name}"]
        found = [full if _reads(word) == (group, name) and name != "timm" else [word] for word in words]
    elif match := re.search(r"Could not override '((?:optimizer|schedule)\.\w+)'", complaint):
        from indexnet.tasks.optimizers import every_option

        options = {*every_option(), *(option for name in SCHEDULES for option in schedule_options(name))}
        meant = nearest(match[1].partition(".")[2], options)  # unknown ones are told from what the class takes
        found = [[f"+{word}" if meant and _reads(word)[0] == match[1] else word] for word in words]
    else:
        return None
    written = [word for part in found for word in part]
    return written if written != list(words) else None


def _reads(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key, value.strip("'\"")


def complaint_in_words(text: str, cause: str, words: Sequence[str]) -> str:
    """Return the sentence for any other complaint of Hydra about overrides, as far as its first line tells."""
    if match := re.search(r"Error merging override (\S+)", text):
        reason = cause.strip().splitlines()
        return f"{match[1]}: this key takes another kind of value{f' ({reason[0]})' if reason else ''}."
    if match := re.search(r"Error resolving interpolation '([^']+)'", text):
        said = next((shown(each)[1:-1] for each in words if match[1] in each), match[1])
        return f"{said}: {match[1]} cannot be resolved; name one of the options in conf/."
    first = text.strip().splitlines()[0]
    first = f"{first[:200]}..." if len(first) > 300 else first
    first = first if first.endswith((".", "?")) else f"{first}."
    named = [each for each in words if each.lstrip("+~").partition("=")[0] in first]
    said = "" if named or "config directory" in first else ", ".join(shown(each)[1:-1] for each in words) + ": "
    return f"{said}the configuration cannot be composed: {first}"


def check_open(config: Mapping[str, Any]) -> None:
    """Check the groups that a person extends: their names, the names of their options, and the options' types.

    Values may still be ``auto`` where that is settled later.

    Raises:
        UserError: an unknown name or option, or a value of another type than its constructor's signature says.
    """
    from indexnet.tasks import get_task

    check_open_network(config)
    _check_part("task", config["task"], get_task, ("costs_size", *_TASK_ARGUMENTS))
    _check_optimizer(config["optimizer"], config["schedule"])


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
    get_schedule(config["schedule"]["name"])
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
    from indexnet.tasks import get_task

    task = get_task(config["task"]["name"])
    network = network_without_memory(config)
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
