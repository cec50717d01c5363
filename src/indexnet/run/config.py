"""Configuration: composed by Hydra, frozen into plain checked data, and plain data from there on.

Only this module and the plugins see Hydra's types; whoever needs one takes it from here.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob as Glob
from hydra.core.override_parser.types import Override as Override
from hydra.errors import HydraException
from hydra.types import HydraContext as HydraContext
from omegaconf import DictConfig as DictConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from indexnet.core.console import allow_anywhere
from indexnet.core.errors import UserError, shown
from indexnet.core.paths import VARIABLE, conf_dir
from indexnet.core.registry import load_plugins
from indexnet.run.freezing.checks import MISSING, check_choice, check_places
from indexnet.run.freezing.printed import row_as_printed
from indexnet.run.freezing.settle import (
    check_environment,
    check_typed,
    differences,
    printed_settings,
    settle,
    without_sweep,
)
from indexnet.run.further_tests import compose_tests
from indexnet.run.hints import explain, left_to_jobs, named_in_full, readable, unreadable
from indexnet.run.schema import flatten, known_keys

_MISTAKES = (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError)
"""What composing raises where a person's override or file is wrong."""


@contextlib.contextmanager
def composing() -> Iterator[None]:
    """Keep Hydra ready for many compositions, which costs a moment each time."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    if GlobalHydra.instance().is_initialized():  # inside a command that Hydra started
        yield
        return
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def compose(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration with Hydra.

    Args:
        overrides: Hydra overrides, ``group=option`` or ``group.key=value``.

    Raises:
        UserError: an override does not fit; the message names the nearest key or option.
    """
    return _check_typed(overrides, _written_out(overrides, _compose))


def compose_job(config: DictConfig, context: HydraContext, overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of one job of a sweep.

    Args:
        config: the sweep's own configuration, as Hydra composed it.
        context: Hydra's.
        overrides: of the job.

    Raises:
        UserError: an override does not fit.
    """
    loader = context.config_loader
    composed = _written_out(overrides, lambda words: loader.load_sweep_config(config, list(words)))
    return _check_typed(overrides, OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]))


def _written_out(
    overrides: Sequence[str], composed: Callable[[Sequence[str]], DictConfig], *, sweep: bool = False
) -> DictConfig:
    """Compose overrides, as :func:`named_in_full` writes those that Hydra does not know (``encoder=resnet50``).

    Args:
        overrides: of a command or a job.
        composed: composes them.
        sweep: whether for a sweep's own configuration, see :func:`indexnet.run.hints.left_to_jobs`.
    """
    overrides = as_meant(overrides)
    check_overrides(overrides)
    try:
        return composed(overrides)
    except UserError:  # says it already
        raise
    except _MISTAKES as error:
        if full := named_in_full(overrides, str(error)) or (sweep and left_to_jobs(overrides, str(error))):
            return _written_out(full, composed, sweep=sweep)
        raise _explained(error, overrides) from error


def _check_typed(words: Sequence[str], cfg: DictConfig) -> DictConfig:
    check_environment(OmegaConf.to_container(cfg))
    check_typed([override.key_or_group for override in parse_overrides(words) if not override.is_delete()], cfg)
    return cfg


def compose_command_line(arguments: Sequence[str]) -> list[DictConfig]:
    """Let Hydra read a command line: overrides and flags.

    Returns:
        The configuration of a single run; nothing for a sweep, which its launcher has run, and for a question about the
        configuration; several for a sweep whose launcher runs jobs in this process.

    Raises:
        UserError: an override does not fit.
    """
    if not any(text.startswith("-") or "hydra" in text for text in arguments):  # as below; Hydra would compose it twice
        cfg = compose(arguments)
        check_single(cfg)
        return [cfg]
    import hydra
    from hydra._internal.utils import get_args_parser  # which words are values of flags
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    composed: list[DictConfig] = []

    def keep(cfg: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.RUN:
            check_single(_check_typed(words.overrides, cfg))
        composed.append(cfg)

    with _command_line(arguments):
        parser = get_args_parser()
        allow_anywhere(parser)
        words, unknown = parser.parse_known_args(arguments)
        if words.shell_completion:  # Hydra's script asks with the whole line, and knows of no subcommands
            program, train, rest = os.environ.get("COMP_LINE", "train ").partition("train ")
            if not train:
                return []
            os.environ["COMP_LINE"] = program + rest
        else:
            given, words.overrides = words.overrides, as_meant(words.overrides)
            if not unknown:  # else Hydra says so; where none is, it takes overrides in one place only
                flags = [text for text in arguments if text not in given]
                sys.argv[1:] = arguments = [*words.overrides, *flags]
            check_overrides(words.overrides)
        for flag, value in (("name", words.config_name), ("path", words.config_path), ("dir", words.config_dir)):
            if value == "":  # which Hydra takes for one that was not given
                raise UserError(f"--config-{flag} is empty; give it a value, or leave it out.")
            if any(len(os.fsencode(part)) > 250 for part in (value or "").split("/")):  # Hydra adds .yaml and looks
                raise UserError(f"--config-{flag} {shown(value)[1:-1]}: nothing has such a long name; leave it out.")
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(keep)()
        except UserError:
            raise
        except _MISTAKES as error:
            if "'hydra/launcher/submitit_" in str(error):
                raise UserError(
                    "a sweep on a cluster needs hydra-submitit-launcher: pip install 'indexnet[sweep]'."
                ) from error
            if full := named_in_full(arguments, str(error)) or (words.multirun and left_to_jobs(arguments, str(error))):
                return compose_command_line(full)
            raise _explained(error, words.overrides) from error
    return composed


def check_single(cfg: DictConfig) -> None:
    """Refuse for a single run what says how a sweep goes on.

    Raises:
        UserError: it is set, or the configuration does not resolve.
    """
    plain = to_plain(cfg)
    for key in ("fail_fast", "retry_failed"):
        if plain.get(key) is True:
            raise UserError(f"{key}=true says how a sweep goes on; give -m too, or leave it out.")


@contextlib.contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Show Hydra a command line, and let its errors come through as exceptions."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["indexnet train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


def load_sweep(overrides: Sequence[str]) -> tuple[DictConfig, list[Override]]:
    """Compose a sweep's own configuration, Hydra's node included; call it inside :func:`composing`.

    Returns:
        The configuration, and the overrides that its jobs are made of.

    Raises:
        UserError: an override does not fit.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    loader = GlobalHydra.instance().config_loader()

    def composed(overrides: Sequence[str]) -> DictConfig:
        return loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)

    base = _written_out(overrides, composed, sweep=True)
    words = OmegaConf.to_container(base.hydra.overrides.task)  # as given, `${...}` too
    assert isinstance(words, list)
    return _check_typed([], base), parse_overrides([str(word) for word in words], loader)


def sweep_options(config: DictConfig) -> dict[str, Any]:
    """Return, as plain data, what a sweep's own configuration says beside that of its runs, and where those go.

    Raises:
        UserError: one does not resolve. (The types are checked in the configuration of every run.)
    """
    found: dict[str, Any] = {"task": OmegaConf.select(config, "hydra.runtime.choices.task")}
    for key in ("plugins", "fail_fast", "retry_failed", "rerun", "seed", "paths.runs"):
        try:
            value = OmegaConf.select(config, key)
        except OmegaConfBaseException as error:
            raise UserError(f"{key} cannot be resolved: {str(error).splitlines()[0]}.") from error
        found[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return found


def follows_seed(cfg: DictConfig) -> bool:
    """Whether a value of a composed configuration is made from the seed."""
    return re.search(r"\$\{[^}]*\bseed\b", OmegaConf.to_yaml(cfg)) is not None


def parse_overrides(words: Sequence[str], loader: Any = None) -> list[Override]:
    """Read overrides without applying them; a loader of Hydra's lets ``glob(...)`` find the options of a group.

    Raises:
        UserError: one cannot be read.
    """
    try:
        return list(OverridesParser.create(config_loader=loader).parse_overrides(as_meant(words)))
    except HydraException as error:
        raise _explained(error, words) from error


def as_meant(words: Iterable[str]) -> list[str]:
    """Return overrides with quotes where Hydra's grammar needs them, see :func:`indexnet.run.hints.readable`.

    Raises:
        UserError: one cannot be read.
    """
    return [_as_meant(word) for word in words]


@functools.cache
def _as_meant(word: str) -> str:
    if len(key := word.partition("=")[0]) > 200:  # Hydra looks for a file of this name
        raise UserError(f"{shown(key)[1:-1]}: no key has such a long name; `indexnet train --cfg job` shows every key.")
    for written in (lambda text: text, readable):
        with contextlib.suppress(HydraException):
            if (text := written(word)) is not None and not text.startswith("="):
                OverridesParser.create().parse_override(text)
                return text
    raise unreadable(word)


def check_overrides(words: Sequence[str]) -> None:
    """Refuse what Hydra would take without effect, or would stumble over: no text for a group, a key of a table's file.

    Raises:
        UserError: an override is wrong, whatever the configuration.
    """
    groups = {path.name for path in conf_dir().iterdir() if path.is_dir()} - {"hydra"} | {"experiments"}
    for override in parse_overrides(words):
        key, said = override.key_or_group, shown(override.input_line)[1:-1]
        check_places(key, None if override.is_delete() else override.value(), said)
        if key not in groups or override.is_sweep_override() or override.is_delete():
            continue
        check_choice(key, override.value(), said)


def _explained(error: Exception, overrides: Sequence[str]) -> UserError:
    return explain(error, overrides, lambda key: _keys_near(overrides, key))


def _keys_near(overrides: Sequence[str], bad: str) -> list[str]:
    """Return the dotted keys that there could be in the place of one that there is not."""
    if bad.startswith("hydra."):
        return _hydra_keys(overrides, bad.rpartition(".")[0])
    return _composed_keys(overrides, bad)


def _composed_keys(overrides: Iterable[str], bad: str) -> list[str]:
    """Return dotted keys and group names of the config composed without the override that names ``bad``."""
    rest = [o for o in overrides if not o.lstrip("+~").startswith(bad) and "," not in o]
    try:
        found: Any = OmegaConf.to_container(_compose(rest), resolve=False)
    except Exception:  # the other overrides may be wrong too; what is fixed still helps
        return [*known_keys(), "experiments"]
    return [*found, *flatten(found), "experiments"]


def _hydra_keys(overrides: Iterable[str], group: str) -> list[str]:
    """Return the dotted keys of a group of Hydra's own configuration, ``hydra.launcher`` or ``hydra.sweeper``."""
    chosen = [o for o in overrides if re.match(r"hydra/(launcher|sweeper)=", o)]
    try:
        keys = [str(key) for key in OmegaConf.select(_compose(chosen, return_hydra_config=True), group)]
    except Exception:  # the choice of launcher or sweeper may be wrong too
        return []
    return [f"{group}.{key}" for key in keys if not key.startswith("_")]


def _compose(overrides: Sequence[str], **options: Any) -> DictConfig:
    import hydra

    with composing():
        return hydra.compose("config", list(overrides), **options)


def to_plain(cfg: DictConfig) -> dict[str, Any]:
    """Resolve a composed configuration into str, int, float, bool, None, list and dict.

    Raises:
        UserError: an interpolation does not work out, or a value is missing.
    """
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        if key in MISSING:
            raise UserError(f"{key} is missing; {MISSING[key]}.") from error
        raise UserError(f"{key or 'the configuration'} cannot be resolved: {str(error).splitlines()[0]}.") from error
    assert isinstance(config, dict)
    config.pop("hydra", None)
    plain: dict[str, Any] = json.loads(json.dumps(config))
    if isinstance(plain.get("tests"), list) and plain["tests"]:
        plain["tests"] = compose_tests(plain, lambda words: _composed_data(words, os.environ.get(VARIABLE)))
    return plain


@functools.lru_cache(maxsize=64)  # the rows of a table name the same ones
def _composed_data(words: tuple[str, ...], folders: str | None) -> dict[str, Any]:
    return dict(to_plain(compose(words))["data"])


def freeze(cfg: DictConfig) -> dict[str, Any]:
    """Resolve, check and cap a composed configuration into the plain data that one run needs.

    The experiment node is reduced to where the run belongs (name, row, label), the budget's caps are applied to
    ``training`` and ``data``, and every name and option is checked against what it configures. A row of a table also
    has ``protocol``: the settings that its files print, whatever the command line or a budget made of them, and
    ``changes``: in what else it differs from what its files say at its data set and budget.

    Raises:
        UserError: an unknown name, key or option, or a value that cannot work.
    """
    plain = without_sweep(to_plain(cfg))
    load_plugins(plain.get("plugins"))
    config = settle(plain)
    if printed := _as_printed(config, plain):
        config["protocol"] = printed_settings(printed[0])
        with contextlib.suppress(UserError):  # today's file may not suit this data set: then nothing is known
            if printed[1]:
                config["changes"] = differences(plain, printed[0]) and differences(config, settle(printed[0]))
    return config


def _as_printed(config: Mapping[str, Any], plain: dict[str, Any] | None = None) -> tuple[dict[str, Any], bool] | None:
    with composing():
        return row_as_printed(config, plain, lambda words: without_sweep(to_plain(compose(words))))


def find_changes(config: Mapping[str, Any]) -> list[list[str]] | None:
    """Return what :func:`freeze` would note as ``changes`` of a run that an earlier version froze.

    Returns:
        Key, value and planned value of each; None where it cannot be told.
    """
    try:
        printed = _as_printed(config)
        return differences(config, settle(printed[0])) if printed and printed[1] else None
    except UserError:
        return None
