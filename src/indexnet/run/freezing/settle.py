"""A checked configuration becomes that of one run: ``auto`` is settled, the budget caps, what means nothing goes."""

from __future__ import annotations

import copy
import dataclasses
import functools
import glob
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from indexnet.core.errors import UserError, shown
from indexnet.core.paths import check_checkpoint, conf_dir
from indexnet.core.registry import option_names
from indexnet.core.schedules import schedule_options
from indexnet.run.experiments.experiment import EXPERIMENT_KEYS
from indexnet.run.folder import RunFolder, run_path
from indexnet.run.freezing.checks import (
    check_open,
    check_open_network,
    check_parts,
    check_schedule,
    check_split,
    network_without_memory,
)
from indexnet.run.identity import config_hash, is_place, without_new_defaults
from indexnet.run.initial import check_initial, settle_initial
from indexnet.run.later_keys import FIRST_LOSSES
from indexnet.run.resume import check_weights
from indexnet.run.schema import OPEN_GROUPS, PRINTED, SETTLED, ExperimentConfig, flatten, read_config
from indexnet.run.schema_checks import check_fixed
from indexnet.run.trainer_options import settle_trainer, with_present_names

_GROUPS = ("task", "network", "encoder", "resampling", "data", "optimizer", "schedule", "training", "budget", "debug")
"""Config groups that make a protocol; the others say where a run computes and where its results go."""

_FROM_OUTSIDE = ("paths.", "data.", "encoder.pretrained", "ckpt_path", "init.checkpoint")
"""What keys begin with that name files and folders, which the environment may say."""
_FROM_ENVIRONMENT = re.compile(r"\$\{\s*oc\s*\.\s*(?:env\b\s*:?\s*(\w*)|\$)")
_SECRET = re.compile(
    r"SECRET|PASSWORD|(?:\A|_|API)(?:KEYS?|TOKENS?|PASS|PASSWD|CREDENTIALS?|AUTH|JWT)(?:_|\Z)", re.IGNORECASE
)

_ABSENT = "unset"
EXPERIMENT_OWN = tuple(field.name for field in dataclasses.fields(ExperimentConfig))
"""Keys of the node ``experiment`` that a frozen configuration keeps."""


def without_sweep(plain: dict[str, Any]) -> dict[str, Any]:
    """Check the keys of a composed configuration and take away what is no part of a run: the sweep, the table.

    Raises:
        UserError: a key is missing, unknown or of another type.
    """
    experiment = plain.get("experiment")
    if isinstance(experiment, Mapping):
        table = EXPERIMENT_KEYS if "columns" in experiment else ()
        node = {key: value for key, value in experiment.items() if key in EXPERIMENT_OWN or key not in table}
        plain["experiment"] = node
    check_fixed(plain)
    for key in ("rows", "seeds"):
        if plain.pop(key) is not None:
            raise UserError(f"{key}=... selects runs of a sweep; give -m too.")
    if plain.pop("sweep", None) is not None:
        raise UserError("sweep=NAME names a sweep; give -m too, or leave it out.")
    for key in ("fail_fast", "retry_failed", "rerun"):
        plain.pop(key, None)
    return plain


def settle(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the frozen form of a configuration whose fixed groups are checked.

    Raises:
        UserError: an unknown name or option, or parts that do not fit together.
    """
    config: dict[str, Any] = copy.deepcopy(dict(plain))
    _check_files(config)
    check_split(config)
    training = read_config(config).training
    if training.steps is None and training.epochs is None:
        raise UserError("training.steps and training.epochs are both null; give one of them.")
    for group in CHOSEN:
        config[group] = own_options(group, config[group])
    check_open(config)
    check_schedule(config["schedule"], config["training"])
    _reduce(config)
    _settle_auto(config)
    check_parts(config)
    if config.get("ckpt_path") is not None and not os.path.isfile(RunFolder(run_path(config)).checkpoint()):
        check_weights(Path(config["ckpt_path"]), network_without_memory(config))
    if "init" in config and not os.path.isfile(RunFolder(run_path(config)).checkpoint()):
        check_initial(config["init"], network_without_memory(config))
    return without_new_defaults(config)


def _check_files(config: Mapping[str, Any]) -> None:
    """Check that files of weights are there, before torch is imported.

    Raises:
        UserError: one is not. A run that has a checkpoint of its own needs no more what it began with; which of the
            single runs it is, only the whole configuration tells.
    """
    pretrained, start = config["encoder"].get("pretrained"), config.get("ckpt_path")
    if isinstance(pretrained, str) and not os.path.isfile(pretrained):
        raise UserError(
            f"encoder.pretrained={shown(pretrained).strip(chr(39))} is no file; give the path of a state dict, true or "
            "false."
        )
    if start is not None and not os.path.isfile(start):
        single = config["experiment"]["name"] is None
        runs = glob.iglob(f"{glob.escape(config['paths']['runs'])}/single/*") if single else [run_path(config)]
        if not any(os.path.isfile(RunFolder(Path(each)).checkpoint()) for each in runs):
            check_checkpoint(start, "ckpt_path=")


def settle_network(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose network can be built; options of task and optimizer are not checked for that.

    Raises:
        UserError: an unknown name or option, or encoder, network and data do not fit together.
    """
    config = copy.deepcopy(dict(plain))
    config["data"] = own_options("data", config["data"])
    check_open_network(config)
    _settle_auto(config)
    return config


def settled_before(plain: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the frozen form of a row of a table whose run has ended, by what its folder holds; None where it has not.

    Nothing is built for that, and no torch is imported: a sweep that is done is seen to be so at once.
    """
    if plain["experiment"]["name"] is None:  # its folder is named after the frozen form
        return None
    config = copy.deepcopy(dict(plain))
    try:
        folder = RunFolder(run_path(config))
        if folder.status() not in ("done", "diverged"):
            return None
        there = folder.config()
        if config["trainer"]["devices"] in ("auto", -1):
            config["trainer"]["devices"] = there["trainer"]["devices"]
        config["schedule"] = own_options("schedule", config["schedule"])
        if config["optimizer"].get("no_decay_norms_and_biases") is False:
            del config["optimizer"]["no_decay_norms_and_biases"]
        _reduce(config)
        for group in OPEN_GROUPS:
            config[group] |= {key: there[group][key] for key, value in config[group].items() if value == "auto"}
    except (UserError, LookupError, TypeError):  # a mistake, which freezing explains
        return None
    config = without_new_defaults(config) | {key: there[key] for key in SETTLED if key in there}
    return config if config_hash(config) == config_hash(there) else None


def _settle_auto(config: dict[str, Any]) -> None:
    _settle_encoder(config)
    _settle_pooling(config)
    _settle_data(config)


def _reduce(config: dict[str, Any]) -> None:
    """Apply the budget's caps, settle how the trainer's options are spelled, and drop what is empty."""
    config["trainer"] = settle_trainer(config["trainer"])
    for key in ("plugins", "tags"):
        if not config.get(key):
            config.pop(key, None)
    settle_initial(config)
    if isinstance(loss := config["task"].get("loss", ...), Mapping):  # null, too, is the usual one
        config["task"]["loss"] = {key: _number(weight) for key, weight in loss.items() if weight != 0}
    elif loss is None:
        del config["task"]["loss"]
    budget, uncut = read_config(config).budget, {}
    for group, key, most in (
        ("training", "batch_size", budget.max_batch_size),
        ("training", "size", budget.max_size),
        ("task", "short_side", budget.max_size if config["task"].get("evaluation", "whole") != "whole" else None),
        ("data", "test_count", budget.max_test),
    ):
        value = config[group].get(key)
        if most is not None and value is not None and value > most:
            uncut[f"{group}.{key}"], config[group][key] = value, most
    if (whole := uncut.get("training.batch_size")) is not None:  # a part is as large as before, or the whole batch
        parts = config["trainer"]["accumulate_grad_batches"]
        config["trainer"]["accumulate_grad_batches"] = max(1, parts * config["training"]["batch_size"] // whole)
    if uncut:
        config["uncut"] = uncut


def _number(value: Any) -> Any:
    """Return an integer as a float, so that 1 and 1.0 are one configuration; anything else as it is."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


CHOSEN = ("optimizer", "schedule", "data")
"""Groups of which a task's or a table's file may set what means nothing to the option that a person chooses."""


_NEEDED = {"warmup_start": "warmup", "base_momentum": "cycle_momentum", "max_momentum": "cycle_momentum"}


def own_options(group: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """Return one of :data:`CHOSEN` without what only other options of it have, such as a task's milestones.

    A warm-up of no steps is left out too, and decay for all parameters: as it was when there was no choice.

    Raises:
        UserError: there is no such optimizer, schedule or data set.
    """
    if not isinstance(node.get("name"), str):  # which is refused later
        return dict(node)
    own, others = _own_keys(group, node["name"]), _keys_of_files(group)
    unused = {"warmup", "warmup_start"} if node.get("warmup") == 0 else set()
    unused |= {"no_decay_norms_and_biases"} if node.get("no_decay_norms_and_biases") is False else set()
    kept = [key for key in node if key not in unused and (key in own or key not in others)]
    return {key: node[key] for key in ("name", *kept)}


def check_environment(config: Any) -> None:
    """Refuse ``${oc.env:NAME}`` where its value would be written into records, checkpoints and logs.

    Args:
        config: a mapping, as it was composed, nothing resolved.

    Raises:
        UserError: a key that names no place has one, or any key one whose name is that of a secret.
    """
    for key, value in flatten(config).items():
        names = [] if key.startswith("hydra.") else _FROM_ENVIRONMENT.findall(str(value))
        if names and not key.startswith(_FROM_OUTSIDE):
            raise UserError(
                f"{key}: ${{oc.env:{names[0]}}} would be written into config.yaml, the record and checkpoints, secret "
                "or not; write the value itself. The environment says places only: of paths, data, encoder.pretrained, "
                "ckpt_path and init.checkpoint."
            )
        if (secret := next((name for name in names if not name or _SECRET.search(name)), None)) is not None:
            raise UserError(
                f"{key}: ${{oc.env:{secret}}} has the name of a secret, and would be written into config.yaml; "
                "take another variable for a place, or write it out."
            )


def check_typed(keys: Sequence[str], config: Mapping[str, Any]) -> None:
    """Refuse what a person gives for another optimizer, schedule or data set than the chosen one; files may say it.

    Args:
        keys: of a person's overrides.
        config: as it was composed.

    Raises:
        UserError: a key means nothing.
    """
    for key in keys:
        group, _, option = key.partition(".")
        node = config.get(group) if group in CHOSEN else None
        if not option or not isinstance(node, Mapping) or not isinstance(name := node.get("name"), str):
            continue
        if (needed := _NEEDED.get(option)) and group == "schedule" and not node.get(needed, True):
            raise UserError(f"{key} means nothing without {group}.{needed}; give that too.")
        if option in _keys_of_files(group, name) or option not in _keys_of_files(group):  # else torch is imported
            continue
        if option not in (own := _own_keys(group, name)):
            listed = ", ".join(sorted(own - {"name"}))
            raise UserError(f"{key} means nothing to {group}={name}; leave it out. Its options: {listed}.")


def _own_keys(group: str, name: str) -> set[str]:
    if group == "schedule":
        return {"name", *schedule_options(name)}
    if group == "data":
        from indexnet.data import get_data

        return {"name", *option_names(get_data(name))}
    from indexnet.tasks.optimizers import GROUPING, optimizer_options

    return {*GROUPING, *optimizer_options(name)}


@functools.cache
def _keys_of_files(group: str, name: str = "*") -> frozenset[str]:
    files = (conf_dir() / group).glob(f"{name}.yaml")
    return frozenset(key for file in files for key in yaml.safe_load(file.read_text(encoding="utf-8")))


def _settle_encoder(config: dict[str, Any]) -> None:
    """Replace ``auto`` in what depends on whether the encoder starts from pretrained weights.

    With them as in the paper: batch norm frozen, a hundredth of the learning rate. Without: neither, for a frozen batch
    norm at mean 0 and variance 1 beside a hundredth of the learning rate could not train.

    Raises:
        UserError: an encoder is given to a network that brings its own, or none to one that needs it.
    """
    from indexnet.networks import get_network

    encoder, optimizer, network = config["encoder"], config["optimizer"], config["network"]["name"]
    if encoder.get("name") is None and "encoder" in option_names(get_network(network)):
        raise UserError(f"network={network} needs an encoder; name one, for example encoder=vgg16_bn.")
    if encoder.get("name") is not None and "encoder" not in option_names(get_network(network)):
        raise UserError(f"network={network} brings its own encoder; give encoder=none instead of {encoder['name']!r}.")
    pretrained = bool(encoder.get("pretrained"))
    if encoder.get("freeze_bn") == "auto":
        encoder["freeze_bn"] = pretrained
    if optimizer.get("encoder_lr_multiplier") == "auto":
        optimizer["encoder_lr_multiplier"] = 0.01 if pretrained else 1.0


def _settle_pooling(config: dict[str, Any]) -> None:
    """Leave out an operator's usual pooling where the network's encoder always halves by itself."""
    from indexnet.networks import get_network
    from indexnet.resampling import get_resampling

    resampling = config["resampling"]
    if get_network(config["network"]["name"]).upsamples_only and "pooling" in resampling:
        usual = inspect.signature(get_resampling(resampling["name"])).parameters["pooling"].default
        if resampling["pooling"] == usual:
            del resampling["pooling"]


def _settle_data(config: dict[str, Any]) -> None:
    """Replace ``auto`` in what follows from the data set: the network's channels and classes, the classes' names.

    Raises:
        UserError: the data set, its options or its classes do not fit.
    """
    from indexnet.run.loader import build_data

    keys = (("network", "in_channels"), ("network", "classes"), ("task", "classes"))
    found = [(group, key) for group, key in keys if config[group].get(key) == "auto"]
    if not found:
        return
    data = build_data(config["data"], config["task"]["name"], config["training"]["size"])
    for group, key in found:
        if key == "in_channels":
            config[group][key] = data.channels
        elif not data.classes:
            raise UserError(f"data={data.name} names no classes; give {group}.{key}.")
        else:
            config[group][key] = list(data.classes) if group == "task" else len(data.classes)


def printed_settings(config: Mapping[str, Any]) -> dict[str, float]:
    """Return the global batch and the learning rate of a configuration that is as its files say, by key."""
    found = _settings(config)
    return {key: found[key] for key in PRINTED if isinstance(found.get(key), int | float)}


def differences(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> list[list[str]]:
    """Return key, value and planned value of every setting of the protocol in which two configurations differ."""
    found, planned = _settings(actual), _settings(expected)
    keys = dict.fromkeys((*planned, *found))
    return [[key, _text(found.get(key)), _text(planned.get(key))] for key in keys if found.get(key) != planned.get(key)]


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that make a protocol, by dotted key."""
    groups = {group: config.get(group) for group in _GROUPS}
    task = config["task"]
    groups["task"] = {"loss": FIRST_LOSSES.get(task.get("name"))} | task
    found = flatten(groups)
    # all else of the trainer leaves the optimisation problem as it is
    trainer = with_present_names(config["trainer"])
    for key in ("gradient_clip_val", "gradient_clip_algorithm"):
        found[f"trainer.{key}"] = trainer.get(key)
    if isinstance(found.get("encoder.pretrained"), str):  # a file of weights instead of a download
        found["encoder.pretrained"] = True
    # costs_size: the input for which costs are counted
    left_out = {key for key, value in found.items() if value is None or is_place(key)} | {"task.costs_size"}
    return {key: value for key, value in found.items() if key not in left_out}


def _text(value: Any) -> str:
    if value is None:
        return _ABSENT
    return str(value).lower() if isinstance(value, bool) else str(value)
