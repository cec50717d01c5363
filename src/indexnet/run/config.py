"""Configuration: composed by Hydra, frozen into plain checked data, and plain data from there on.

Only this module and the sweep plugins see a ``DictConfig``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from indexnet.core.errors import UserError
from indexnet.core.paths import conf_dir, config_file
from indexnet.core.registry import load_plugins, nearest, unknown_name
from indexnet.run.schema import _TOP, _TRAINING, check_batch, check_names, check_values, data_options, settle_schedule

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

_PROTOCOL = ("training.batch_size", "optimizer.lr")


def compose(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration with Hydra.

    Args:
        overrides: Hydra overrides, ``group=option`` or ``group.key=value``.

    Raises:
        UserError: an override does not fit; the message names the nearest key or option.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    try:
        if GlobalHydra.instance().is_initialized():  # inside a command that Hydra started
            return hydra.compose("config", list(overrides))
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return hydra.compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise explain(error, overrides) from error


def explain(error: Exception, overrides: Iterable[str]) -> UserError:
    """Turn Hydra's complaint about an override into one sentence with the nearest valid key."""
    text = str(error)
    if match := re.search(r"Could not find '([\w@/.-]+)'", text):
        group, _, option = match[1].rpartition("/")
        options = re.search(r"Available options in '[^']*':\n((?:\t.*\n?)+)", text)
        known = [line.strip() for line in options[1].splitlines()] if options else []
        if group.split("/")[0] == "experiments":  # Hydra lists one level of folders
            from indexnet.run.tables import list_experiments

            return unknown_name("experiment", match[1].partition("/")[2], list_experiments())
        return unknown_name(f"{group or 'config group'} option", option, known)
    if match := re.search(r"Could not override '([\w@/.]+)'", text):
        key = match[1]
        group = key.rpartition(".")[0]
        if key.startswith("hydra."):  # settings of the launcher or the sweeper
            known = _hydra_keys(overrides, group)
            guess = nearest(key, known)
            hint = f"Did you mean {guess!r}?" if guess else f"{group} has {', '.join(known)}." if known else ""
            return UserError(f"unknown config key {key!r}. {hint or '`indexnet train --cfg hydra` shows every key.'}")
        if key == "data.root":
            return UserError("data.root: this data set reads no folder; choose one that does with data=NAME.")
        known = [name for name in _known_keys(overrides, key) if not key.startswith(f"{name}.")]
        siblings = [name for name in known if name.rpartition(".")[0] == group]
        guess = nearest(key, siblings) or nearest(key, known)
        hint = f" Did you mean {guess!r}?" if guess else " `indexnet train --cfg job` shows every key."
        return UserError(f"unknown config key {key!r}.{hint}")
    if match := re.search(r"Ambiguous value for argument '([^=']+)=([^']*)'", text):
        return UserError(f"{match[1]}={match[2]} is a list of values; give -m to sweep over them, or one value.")
    if match := re.search(r"Error merging override (\S+)", text):
        reason = str(error.__cause__ or "").strip().splitlines()
        return UserError(f"{match[1]}: this key takes another kind of value{f' ({reason[0]})' if reason else ''}.")
    if match := re.search(r"Error parsing override '(.*)'", text):
        return UserError(
            f"{match[1]} cannot be read as an override; the form is key=value, interval(a,b) takes two numbers, and "
            "quotes protect brackets from the shell."
        )
    if "must be a string or a list" in text:
        nulls = ", ".join(o for o in overrides if o.endswith("=null")) or "a config group"
        return UserError(f"{nulls}: a config group cannot be null here; name one of the options in conf/.")
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return UserError(f"the configuration cannot be composed: {first}")


def _known_keys(overrides: Iterable[str], bad: str) -> list[str]:
    """Return dotted keys and group names of the config composed without the override that names ``bad``."""
    rest = [o for o in overrides if not o.lstrip("+~").startswith(bad)]
    groups = [path.name for path in conf_dir().iterdir() if path.is_dir()] + ["experiments"]
    try:
        import hydra
        from hydra.core.global_hydra import GlobalHydra

        if GlobalHydra.instance().is_initialized():
            cfg = hydra.compose("config", [o for o in rest if "," not in o])
        else:
            with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
                cfg = hydra.compose("config", [o for o in rest if "," not in o])
    except Exception:  # the other overrides may be wrong too; the group names still help
        return groups
    return groups + list(_flatten(OmegaConf.to_container(cfg, resolve=False)))


def _hydra_keys(overrides: Iterable[str], group: str) -> list[str]:
    """Return the dotted keys of a group of Hydra's own configuration, ``hydra.launcher`` or ``hydra.sweeper``."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    chosen = [o for o in overrides if re.match(r"hydra/(launcher|sweeper)=", o)]
    try:
        if GlobalHydra.instance().is_initialized():
            cfg = hydra.compose("config", chosen, return_hydra_config=True)
        else:
            with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
                cfg = hydra.compose("config", chosen, return_hydra_config=True)
        keys = [str(key) for key in OmegaConf.select(cfg, group)]
    except Exception:  # the choice of launcher or sweeper may be wrong too
        return []
    return [f"{group}.{key}" for key in keys if not key.startswith("_")]


def _flatten(node: Any, prefix: str = "") -> Iterable[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _flatten(value, f"{prefix}{key}.")


def freeze(cfg: DictConfig) -> dict[str, Any]:
    """Resolve, check and cap a composed configuration into the plain data that one run needs.

    The experiment node is reduced to where the run belongs (name, row, label), the budget's caps are applied to
    ``training`` and ``data``, and every name and option is checked against what it configures. A row of a table also
    has ``protocol``: the settings that its files print, whatever the command line or a budget made of them.

    Raises:
        UserError: an unknown name, key or option, or a value that cannot work.
    """
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration cannot be resolved: {str(error).splitlines()[0]}") from error
    assert isinstance(config, dict)
    config.pop("hydra", None)
    plain: dict[str, Any] = json.loads(json.dumps(config))  # str, int, float, bool, None, list and dict only
    for key in plain:
        if key not in _TOP:
            raise unknown_name("config key", key, _TOP)
    for key in plain["training"]:
        if key not in _TRAINING:
            raise unknown_name("config key", f"training.{key}", [f"training.{name}" for name in _TRAINING])
    load_plugins(plain.get("plugins"))
    if not plain.get("plugins"):  # as configurations were frozen before there were any
        plain.pop("plugins", None)
    experiment = plain["experiment"]
    plain["experiment"] = {key: experiment.get(key) for key in ("name", "row", "label")}
    for key in ("fail_fast", "retry_failed"):
        if not isinstance(plain.get(key, False), bool):
            raise UserError(f"{key}={plain[key]} must be true or false.")
    for key in ("rows", "seeds", "fail_fast", "retry_failed"):
        plain.pop(key, None)
    check_values(plain)
    _apply_budget(plain)
    plain["schedule"] = settle_schedule(plain["schedule"], plain["training"]["epochs"])
    _settle_encoder(plain)
    _settle_data(plain)
    check_names(plain)
    check_batch(plain)
    if protocol := _printed_protocol(plain):
        plain["protocol"] = protocol
    return plain


def _printed_protocol(config: Mapping[str, Any]) -> dict[str, float]:
    """Return the global batch and the learning rate that the experiment's own files set, by key.

    Empty for a run that belongs to no table.
    """
    import yaml

    from indexnet.run.tables import experiment_files, load_experiment

    name, row = config["experiment"]["name"], config["experiment"]["row"]
    file = experiment_files().get(name)
    if file is None:
        return {}
    found: dict[str, Any] = {}
    for source in (config_file("task", config["task"]["name"]), file):
        content = yaml.safe_load(source.read_text(encoding="utf-8")) if source is not None else {}
        for key in _PROTOCOL:
            group, _, option = key.partition(".")
            if option in (content.get(group) or {}):
                found[key] = content[group][option]
    own = str(row).partition("--")[0]  # what follows names overrides of the command line
    for override in next((each.overrides for each in load_experiment(name).rows if each.name == own), ()):
        key, _, text = override.partition("=")
        if key in _PROTOCOL:
            found[key] = yaml.safe_load(text)
    return {key: value for key, value in found.items() if isinstance(value, int | float)}


def _settle_encoder(config: dict[str, Any]) -> None:
    """Replace ``auto`` in what depends on whether the encoder starts from pretrained weights.

    With them as in the paper: batch norm frozen, a hundredth of the learning rate. Without: neither, for a frozen batch
    norm at mean 0 and variance 1 beside a hundredth of the learning rate could not train.

    Raises:
        UserError: an encoder is given to a network that brings its own, or none to one that needs it.
    """
    from indexnet.core.registry import option_names
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


def _settle_data(config: dict[str, Any]) -> None:
    """Replace ``auto`` in what follows from the data set: the network's channels and classes, the classes' names.

    Raises:
        UserError: the data set, its options or its classes do not fit.
    """
    from indexnet.data import create_data

    keys = (("network", "in_channels"), ("network", "classes"), ("task", "classes"))
    found = [(group, key) for group, key in keys if config[group].get(key) == "auto"]
    if not found:
        return
    options = data_options(config)
    data = create_data(options.pop("name"), **options)
    for group, key in found:
        if key == "in_channels":
            config[group][key] = data.channels
        elif not data.classes:
            raise UserError(f"data={data.name} names no classes; give {group}.{key}.")
        else:
            config[group][key] = list(data.classes) if group == "task" else len(data.classes)


def _apply_budget(config: dict[str, Any]) -> None:
    budget, training = config["budget"], config["training"]
    for key in ("batch_size", "size"):
        value, cap = training.get(key), budget.get(f"max_{key}")
        if value is not None and cap is not None:
            training[key] = min(value, cap)
    if config["data"].get("test_count") is not None and budget.get("max_test") is not None:
        config["data"]["test_count"] = min(config["data"]["test_count"], budget["max_test"])


def compose_sweep(
    overrides: Sequence[str], expand: Callable[[Sequence[Override]], Iterable[list[str]]]
) -> tuple[list[dict[str, Any]], int, bool]:
    """Compose and freeze the runs that ``indexnet train -m`` would make of the same overrides; nothing is written.

    Args:
        overrides: of the command line.
        expand: gives the overrides of each run.

    Returns:
        The frozen configurations in the sweep's order, how many runs go on at a time, and whether failed ones are
        tried again.

    Raises:
        UserError: what ``indexnet train -m`` would refuse as well.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from hydra.types import RunMode

    configs: list[dict[str, Any]] = []
    frozen: dict[tuple[str, ...], dict[str, Any]] = {}
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):  # once for all runs
        try:
            loader = GlobalHydra.instance().config_loader()
            base = loader.load_configuration("config", list(overrides), run_mode=RunMode.MULTIRUN)
            own = OverridesParser.create(config_loader=loader).parse_overrides(list(base.hydra.overrides.task))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise error if isinstance(error, UserError) else explain(error, overrides) from error
        for job in expand(own):
            (seed,) = (text for text in job if text.startswith("seed="))
            rest = tuple(text for text in job if text != seed)
            if rest not in frozen:  # seeds differ in nothing else, and composing takes its time
                frozen[rest] = freeze(compose(job))
            configs.append({**frozen[rest], "seed": int(seed.removeprefix("seed="))})
    launcher = base.hydra.launcher  # that of a cluster has no n_jobs: all runs at a time, on one device each
    n_jobs = launcher.n_jobs if "n_jobs" in launcher else 1
    if n_jobs is None:
        n_jobs = base.experiment.get("n_jobs", 1)
    return configs, int(n_jobs), bool(base.get("retry_failed", False))
