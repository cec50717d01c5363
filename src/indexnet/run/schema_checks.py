"""Whether data fit the schema: a configuration that was composed, and one that a file holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from indexnet.core.annotations import check_value, fits, in_words
from indexnet.core.errors import UserError, shown
from indexnet.core.readers import DamagedFileError
from indexnet.run.experiments.experiment import Seed
from indexnet.run.hints import nearest_key
from indexnet.run.schema import (
    GROUPS,
    NAMED,
    OPEN_GROUPS,
    OPEN_TYPES,
    PRINTED,
    SETTLED,
    SWEEP_TYPES,
    TYPES,
    Config,
    Options,
    SweepConfig,
    known_keys,
    required,
    types_of,
)
from indexnet.run.trainer_options import refusal


def check_fixed(config: Mapping[str, Any]) -> None:
    """Check that a composed configuration has the keys that there are, each with a value of its type.

    Raises:
        UserError: a key is missing or unknown, or a value cannot work.
    """
    types, groups = TYPES | SWEEP_TYPES | {"seed": Seed}, (*GROUPS, *OPEN_GROUPS)
    known = [key for key in types if key not in SETTLED]
    for key in config:
        if key not in known:
            raise unknown_key(key, known)
    for key in (*required(Config), *required(SweepConfig)):
        if key not in config:
            remedy = f"name one of the options of conf/{key}" if key in groups else f"it must be {in_words(types[key])}"
            raise UserError(f"{key} is missing; {remedy}.")
    for key, value in config.items():
        if key in groups and not isinstance(value, Mapping):
            raise UserError(f"{key}={shown(value)} must name one of the options of conf/{key}.")
        if key in GROUPS:
            _check_group(key, value)
        elif key not in groups:
            check_value(key, value, types[key])


def _check_group(group: str, node: Mapping[str, Any]) -> None:
    types = {key: hint for key, hint in types_of(group).items() if f"{group}.{key}" not in SETTLED}
    for key in node:
        if key not in types:
            raise unknown_key(f"{group}.{key}", [f"{group}.{each}" for each in types])
    for key in required(GROUPS[group]):
        if key not in node:
            raise UserError(f"{group}.{key} is missing; it must be {in_words(types[key])}.")
    for key, value in node.items():
        check_value(f"{group}.{key}", value, types[key])


def unknown_key(key: str, known: Iterable[str]) -> UserError:
    """Return the complaint about a key that does not exist."""
    if sentence := refusal(key):
        return UserError(sentence)
    names = list(known)
    guess = nearest_key(key, [*names, *known_keys()])
    hint = f" Did you mean {guess!r}?" if guess else ""
    return UserError(f"unknown config key {key!r}.{hint} Known: {', '.join(sorted(names))}.")


def check_frozen(content: Mapping[str, Any], source: str) -> None:
    """Check that a file holds a frozen configuration: every group, and of the keys that it has, values of their types.

    Raises:
        DamagedFileError: it does not; the message names the file and the key.
    """

    def check(key: str, value: Any, hint: Any) -> None:
        if not fits(value, hint) and not (key in SETTLED and value is None):
            raise DamagedFileError(f"{source}: {key}={shown(value)} must be {in_words(hint)}.")

    for key in required(Config):
        if key not in content:
            raise DamagedFileError(f"{source} lacks {key}.")
    for key, value in content.items():
        if key not in TYPES:
            continue
        check(key, value, Options if key in GROUPS else TYPES[key])
        if not _is_plain(value):
            raise DamagedFileError(f"{source}: {key} must hold texts, numbers, truth values, null, lists and mappings.")
        for name, hint in types_of(key).items() if key in GROUPS else ():
            if name in value:
                check(f"{key}.{name}", value[name], hint)
    for group in NAMED:
        check(f"{group}.name", content[group].get("name"), str)
    for dotted, hint in OPEN_TYPES.items():
        group, _, key = dotted.partition(".")
        if key in content[group]:
            check(dotted, content[group][key], hint)
    for key, value in (content.get("protocol") or {}).items():
        if key not in PRINTED or not fits(value, float):
            raise DamagedFileError(f"{source}: protocol.{key}={shown(value)} is no published number.")
    if not isinstance(devices := content["trainer"].get("devices", 1), int | list) or devices == -1:
        raise DamagedFileError(f"{source}: trainer.devices={shown(devices)} must be a number or a list of GPUs.")


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)
