"""Every configuration key with its type, its default and what it means, from the schema and from constructors."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import yaml

from indexnet.core.annotations import in_words, option_types
from indexnet.core.paths import conf_dir
from indexnet.core.schedules import SCHEDULES
from indexnet.data import get_data, list_data
from indexnet.networks import get_network, list_encoders, list_networks, list_pyramids
from indexnet.networks.encoders import encoder_factory
from indexnet.resampling import get_resampling, list_resampling
from indexnet.run.schema import GROUPS, OPEN_TYPES, OWN_KEYS, SETTLED, SWEEP_TYPES, TYPES, Config, SweepConfig, types_of
from indexnet.run.trainer_options import OWN, PASSED
from indexnet.tasks import get_task, list_tasks
from indexnet.tasks.optimizers import list_optimizers, optimizer_class

MISSING = "set by the task"


@dataclasses.dataclass(frozen=True)
class Key:
    """One key: ``training.batch_size``; an empty meaning is a mistake that a test finds."""

    name: str
    kind: str
    default: str
    meaning: str


def meanings(target: Callable[..., Any]) -> dict[str, str]:
    """Return what docstrings say of arguments and attributes by name: of a class also what its bases say.

    Where a docstring only points to another place ("see :class:`PooledStage`"), what a base says is taken.
    """
    places = inspect.getmro(target) if isinstance(target, type) else (target,)
    found: dict[str, str] = {}
    for place in (*places, *([target.Options, *target.Options.__mro__] if hasattr(target, "Options") else ())):
        for section in re.findall(r"^(?:Args|Attributes):\n((?: .*\n?|\n)*)", inspect.getdoc(place) or "", re.M):
            for names, text in re.findall(r"^    ([\w, ]+): (.*(?:\n {5,}.*)*)", section, re.M):
                text = re.sub(r"\s+", " ", text).strip().rstrip(".")
                found = dict.fromkeys(names.split(", "), text) | found if not text.startswith("see ") else found
    return found


def fixed_keys() -> dict[str, list[Key]]:
    """Return the keys of the fixed groups, by heading."""
    alone = {key: kind for key, kind in TYPES.items() if key not in GROUPS and not _is_open(key)}
    found = {"Keys without a group": _keys("", Config, alone, meanings(Config), "config")}
    found["Keys of sweeps"] = _keys("", SweepConfig, SWEEP_TYPES, meanings(SweepConfig), "config")
    for group, cls in GROUPS.items():
        said = PASSED | OWN if group == "trainer" else meanings(cls)
        file = f"{group}/{_usual('config')['defaults'].get(group)}"
        found[group] = _keys(f"{group}.", cls, types_of(group), said, file)
    return found


def _is_open(key: str) -> bool:
    return (conf_dir() / key).is_dir() and key != "callbacks"


def _keys(prefix: str, cls: type[Any], types: Mapping[str, Any], said: Mapping[str, str], file: str) -> list[Key]:
    """Return keys with what the usual file of their group sets, or else the default of their field."""
    fields = {each.name: each for each in dataclasses.fields(cls)}
    usual = _usual("config").get(prefix[:-1], {}) | _usual(file)
    usual |= usual.get(prefix[:-1]) or {}
    keys = []
    for name, hint in types.items():
        if f"{prefix}{name}" not in SETTLED:
            default = fields[name].default
            if default is dataclasses.MISSING:
                factory = fields[name].default_factory
                default = inspect.Parameter.empty if factory is dataclasses.MISSING else factory()
            keys.append(Key(f"{prefix}{name}", in_words(hint), _shown(usual.get(name, default)), said.get(name, "")))
    return keys


def _usual(file: str) -> dict[str, Any]:
    """Return what a file of ``conf/`` sets; its list of defaults as a mapping; nothing where there is none."""
    path = conf_dir() / f"{file}.yaml"
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    defaults = [each for each in found.get("defaults", ()) if isinstance(each, dict)]
    return found | {"defaults": {key: value for each in defaults for key, value in each.items()}}


def open_keys() -> Iterator[tuple[str, str, str, list[Key]]]:
    """Yield group, name, what it is, and its keys, of everything that a group chooses by name."""
    yield from _part("task", list_tasks(), get_task, ("network", "optimizer", "schedule"))
    yield from _part("network", [each.name for each in list_networks()], get_network, ("resampling", "encoder"))
    for kind, names in (("chains of layers", list_encoders()), ("pyramids of maps", list_pyramids())):
        keys = _options("encoder", names[0], encoder_factory(names[0]), ("name", "in_channels", "downsampling"))
        yield "encoder", kind, f"`{'`, `'.join(names)}`", keys
    names = [each.name for each in list_resampling()]
    yield from _part("resampling", names, get_resampling, ("channels", "decoder_channels"))
    yield from _part("data", [each.name for each in list_data()], get_data, ("task", "size"))  # training.size is it
    yield from _part("schedule", list(SCHEDULES), SCHEDULES.__getitem__, ())
    for name in sorted(path.stem for path in (conf_dir() / "optimizer").glob("*.yaml") if path.stem != "timm"):
        own = {key.partition(".")[2]: text for key, text in OWN_KEYS.items() if key.startswith("optimizer.")}
        usual, what = _usual(f"optimizer/{name}"), list_optimizers()[name]
        types = option_types(optimizer_class(name)) | {k.partition(".")[2]: kind for k, kind in OPEN_TYPES.items()}
        keys = [
            Key(f"optimizer.{key}", _words(types.get(key, Any)), _shown(value), own.get(key, f"of `{what}`"))
            for key, value in usual.items()
            if key not in ("name", "defaults")
        ]
        yield "optimizer", name, what, keys


def _part(group: str, names: list[str], find: Callable[[str], Any], skip: tuple[str, ...]) -> Iterator[Any]:
    for name in sorted(names):
        cls = find(name)
        if cls.__module__.startswith("indexnet."):  # not of a plugin
            info = getattr(cls, "info", None)
            what = info.title if info else (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
            yield group, name, what, _options(group, name, cls, skip)


def _options(group: str, name: str, target: Callable[..., Any], skip: tuple[str, ...]) -> list[Key]:
    """Return the keys of what a constructor takes, with the defaults that ``conf/`` has, or else its own."""
    usual, said = _usual(f"{group}/{name}"), meanings(target)
    usual = usual.get(group, usual)
    own = {key.partition(".")[2]: kind for key, kind in OPEN_TYPES.items() if key.startswith(f"{group}.")}
    types = option_types(target)
    if poolings := getattr(target, "poolings", None):
        types["pooling"] = Literal[*poolings]
    parameters = dict(_parameters(target))
    names = [*parameters, *(key for key in own if f"{group}.{key}" in OWN_KEYS)]
    return [
        Key(
            f"{group}.{key}",
            _words(own.get(key, types.get(key, Any))),
            _shown(usual.get(key, parameters.get(key, inspect.Parameter.empty))),
            OWN_KEYS.get(f"{group}.{key}", said.get(key, "")),
        )
        for key in names
        if key not in skip
    ]


def _parameters(target: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Yield the options of a constructor and of those that it hands further ones to, each with its default."""
    seen: set[str] = set()
    places = [target] if not isinstance(target, type) or hasattr(target, "__signature__") else inspect.getmro(target)
    for place in places:
        if isinstance(place, type) and place is not target and "__init__" not in vars(place):
            continue
        parameters = inspect.signature(place).parameters.values()
        for each in parameters:
            if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL) and each.name not in seen:
                seen.add(each.name)
                yield each.name, each.default
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return


def _words(hint: Any) -> str:
    return "what the meaning says" if hint is Any else in_words(hint)


def _shown(value: Any) -> str:
    """Return a value as YAML has it, in one line; nothing for none."""
    if value is inspect.Parameter.empty:
        return ""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
    return f"`{text}`"


def _table(keys: list[Key]) -> str:
    if not keys:
        return "No options.\n"
    lines = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        cells = [f"`{key.name}`", key.kind, key.default or MISSING, tidy(key.meaning)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def tidy(text: str) -> str:
    """Return the text of a docstring as Markdown: its names in code, without the roles of references."""
    return re.sub(r"(?::\w+:)?`+~?([^`]+)`+", r"`\1`", text)


def markdown(place: str) -> str:
    """Return the tables of the page on configuration keys."""
    parts = ["## Keys of every configuration\n"]
    for heading, keys in fixed_keys().items():
        parts += [f"### {heading if ' ' in heading else f'`{heading}`'}\n", _table(keys)]
    before = ""
    for group, name, what, keys in open_keys():
        if group != before:
            parts.append(f"## Group `{group}`\n\n{tidy(meanings(Config)[group]).capitalize()}\n")
        before = group
        parts += [f"### {group}: {name}\n", f"{tidy(what)}\n" if what else "", _table(keys)]
    return "\n".join(parts)
