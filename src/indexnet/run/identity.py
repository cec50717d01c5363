"""What a run is: the hash of its configuration, and which keys are no part of it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from indexnet.run.later_keys import FIRST_LOSSES
from indexnet.run.schema import GROUPS, Config
from indexnet.run.trainer_options import with_first_names, with_present_names


@functools.cache
def places() -> frozenset[str]:
    """Return the keys, and the groups as wholes, that say where or how and not what."""
    found = []
    for each in dataclasses.fields(Config):
        found += [each.name] if each.metadata.get("place") else []
        found += [f"{each.name}.{key}" for key in each.metadata.get("places", ())]
        inner = dataclasses.fields(GROUPS[each.name]) if each.name in GROUPS else ()
        found += [f"{each.name}.{key.name}" for key in inner if key.metadata.get("place")]
    return frozenset(found)


def is_place(key: str) -> bool:
    """Whether a dotted key says where results or files lie or how they are made, not what they are."""
    return key in places() or key.partition(".")[0] in places()


@functools.cache
def _later() -> tuple[tuple[str, str, Any], ...]:
    """Return group (empty for a single key), key and default of the fields that earlier versions did not have."""
    kinds = {"": Config, **GROUPS}
    fields = [(group, each) for group, kind in kinds.items() for each in dataclasses.fields(kind)]
    found = [(group, each.name, _default(each)) for group, each in fields if each.metadata.get("later")]
    return (*found, *((each.name, *item) for _, each in fields for item in each.metadata.get("later_keys", {}).items()))


def _default(field: dataclasses.Field[Any]) -> Any:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return list(default) if isinstance(default, tuple) else default


def without_new_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the keys that earlier versions did not have, where they are at their defaults."""
    found = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    for group, key, default in _later():
        node = found.get(group, {}) if group else found
        if key in node and (list(node[key]) if isinstance(node[key], tuple) else node[key]) == default:
            del node[key]
    if "tests" in found:
        new = {key: default for group, key, default in _later() if group == "data"}
        found["tests"] = [
            {k: v for k, v in each.items() if k not in new or v != new[k]} if isinstance(each, Mapping) else each
            for each in found["tests"]
        ]
    task = found.get("task") or {}
    if "loss" in task and task["loss"] == FIRST_LOSSES.get(str(task.get("name"))):
        del task["loss"]
    return found


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that name a frozen configuration, wherever its data lie and its results go."""
    content = {key: value for key, value in without_new_defaults(config).items() if not is_place(key)}
    unused = {"root"}
    if content.get("split") == "test":  # what every run was measured on before there was a choice
        del content["split"]
        if not config["training"].get("validate_every"):
            unused.add("validation_count")
    if not content.get("plugins"):
        content.pop("plugins", None)
    if "init" in content:
        content["init"] = {key: value for key, value in content["init"].items() if not is_place(f"init.{key}")}
    content["data"] = {key: value for key, value in content["data"].items() if key not in unused}
    if "cache" in content["data"]:
        content["data"]["cache"] = "auto"  # part of every hash since before it was known to change no sample
    if "tests" in content:
        content["tests"] = [{k: v for k, v in each.items() if k not in ("root", "cache")} for each in content["tests"]]
    trainer = with_present_names(content["trainer"])
    content["trainer"] = with_first_names({key: trainer[key] for key in trainer if not is_place(f"trainer.{key}")})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
