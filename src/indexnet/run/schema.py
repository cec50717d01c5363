"""What a configuration is made of: the type of every key of the fixed groups.

A frozen configuration is plain data, so that its bytes and its hash never change; :func:`read_config` gives the typed
view that a run works with. The groups that a person extends (:data:`OPEN_GROUPS`) have the keys that their constructors
take, see :mod:`indexnet.run.freezing.checks`.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from indexnet.core.annotations import Positive, Rule, check_value, fits, in_words
from indexnet.core.errors import UserError, shown
from indexnet.core.readers import DamagedFileError
from indexnet.run.experiments.experiment import Seed
from indexnet.run.hints import nearest_key
from indexnet.run.later_keys import LATER_KEYS
from indexnet.run.trainer_options import Devices, Precision, device_count, refusal, with_present_names, with_trainer

Count = Annotated[int, Rule("an integer of at least 0", lambda value: value >= 0)]
PositiveNumber = Annotated[float, Rule("a positive number", lambda value: value > 0)]
NonNegative = Annotated[float, Rule("a number of at least 0", lambda value: value >= 0)]
Text = Annotated[str, Rule("a text", lambda value: value.strip() != "" and "\0" not in value)]
Tag = Annotated[str, Rule("a text of at most 64 characters", lambda value: 0 < len(value.strip()) == len(value) <= 64)]
Options = Mapping[str, Any]

_STEPS = "a number of steps, or a fraction of the run below 1"
Every = Annotated[float, Rule(_STEPS, lambda value: 0 < value < 1 or (value >= 1 and value == int(value)))]
Share = Annotated[float, Rule("a share between 0 and 1", lambda value: 0 <= value < 1)]

_PLACE = {"place": True}
"""Marks a field that says where results or files lie or how they are made, not what they are: no part of the hash."""
_LATER = {"later": True}
"""Marks a field that earlier versions did not have: at its default it is left out of configurations and hashes."""
Rerun = Literal["changed"] | bool
"""Which finished runs are done again: all, none, or those whose code has changed."""
Mode = Literal["auto", "online", "offline", "disabled"]
MODES: tuple[str, ...] = typing.get_args(Mode)


@dataclass(frozen=True)
class TrainingConfig:
    """How much is trained: the global batch, the side of a training sample, how long; and how often it is validated.

    No steps at all train nothing: the run tests what the seed, or other weights, gave it.
    """

    batch_size: Positive
    size: Positive
    steps: Count | None = None
    epochs: Positive | None = None
    validate_every: Every | None = field(default=None, metadata=_LATER)
    holdout: Literal["auto"] | Share = field(default="auto", metadata=_LATER)
    freeze: Sequence[Text] = field(default=(), metadata=_LATER)


@dataclass(frozen=True)
class InitConfig:
    """The file that parts of a network start from, or the row that it is of, see :mod:`indexnet.run.initial`."""

    checkpoint: Text | None = field(default=None, metadata=_PLACE)
    parts: Mapping[str, Text] | None = None
    row: Text | None = None
    sha256: Text | None = None


@dataclass(frozen=True)
class TrainerConfig:
    """How it is computed, see :mod:`indexnet.run.trainer_options`; frozen ``devices`` are a number or a list."""

    accelerator: Text
    devices: Devices
    num_nodes: Positive
    precision: Precision
    accumulate_grad_batches: Positive
    sync_batchnorm: bool
    gradient_clip_val: PositiveNumber | None
    channels_last: bool
    compile: bool
    num_workers: Literal["auto"] | Count = field(metadata=_PLACE)
    checkpoint_every: Literal["auto"] | Positive
    enable_progress_bar: Literal["auto"] | bool = field(metadata=_PLACE)
    monitor: Text | None = field(default=None, metadata=_LATER)
    strategy: Text = field(default="auto", metadata=_LATER)
    gradient_clip_algorithm: Literal["norm", "value"] = field(default="norm", metadata=_LATER)
    log_every_n_steps: Literal["auto"] | Positive = field(default="auto", metadata=_LATER)
    enable_model_summary: bool = field(default=False, metadata=_LATER)
    deterministic: bool | Literal["warn"] = field(default=False, metadata=_LATER)
    benchmark: bool = field(default=False, metadata=_LATER)
    inference_mode: bool = field(default=True, metadata=_LATER)
    profiler: Literal["simple", "advanced", "pytorch"] | None = field(default=None, metadata=_LATER)
    detect_anomaly: bool = field(default=False, metadata=_LATER)
    timeout: PositiveNumber = field(default=1800.0, metadata=_LATER | _PLACE)
    fused_optimizer: bool = field(default=False, metadata=_LATER)
    checkpoint_activations: bool = field(default=False, metadata=_LATER)

    @property
    def local_devices(self) -> int:
        """Devices of one machine; of a frozen configuration."""
        return device_count(self.devices)

    @property
    def processes(self) -> int:
        """Processes of the run, one for each device; of a frozen configuration."""
        return self.local_devices * self.num_nodes


@dataclass(frozen=True)
class LoggerConfig:
    """What is logged beside the record."""

    csv: bool
    tensorboard: bool
    wandb: bool
    project: Text
    mode: Mode = "auto"


@dataclass(frozen=True)
class BudgetConfig:
    """The caps of a budget; null caps nothing."""

    name: Text
    max_steps: Positive | None = None
    max_batch_size: Positive | None = None
    max_size: Positive | None = None
    max_test: Positive | None = None
    max_seconds: PositiveNumber | None = None  # of a run that only measures, see indexnet.sweep.plan_probe


@dataclass(frozen=True)
class DebugConfig:
    """Modes for finding mistakes."""

    overfit: bool


@dataclass(frozen=True)
class PathsConfig:
    """Where results go and data sets lie."""

    runs: Text
    data: Text


@dataclass(frozen=True)
class ExperimentConfig:
    """Which row of which table a run is; all null for one that belongs to no table."""

    name: Text | None
    row: Text | None
    label: Text | None


@dataclass(frozen=True)
class Config:
    """Every key of a frozen configuration, with its type; ``Options`` are open groups.

    Attributes:
        content: the plain data that all this was read from.
    """

    task: Options = field(metadata={"later_keys": LATER_KEYS["task"]})
    network: Options
    encoder: Options
    resampling: Options = field(metadata={"later_keys": LATER_KEYS["resampling"]})
    data: Options = field(metadata={"places": ("root", "cache"), "later_keys": LATER_KEYS["data"]})
    optimizer: Options
    schedule: Options
    training: TrainingConfig
    trainer: TrainerConfig
    logger: LoggerConfig = field(metadata=_PLACE)
    budget: BudgetConfig
    debug: DebugConfig
    paths: PathsConfig = field(metadata=_PLACE)
    experiment: ExperimentConfig
    seed: Count  # before one beyond what libraries take was refused, there were runs of such
    split: Literal["test", "validation"] = "test"
    callbacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, metadata=_LATER)
    test_checkpoint: Literal["last", "best"] = field(default="last", metadata=_LATER)
    ckpt_path: Text | None = field(default=None, metadata=_LATER)
    tests: Sequence[Text | Options] = field(default=(), metadata=_LATER)
    init: InitConfig = field(default_factory=InitConfig)
    plugins: Sequence[Text] | None = field(default=(), metadata=_PLACE)
    tags: Sequence[Tag] = field(default=(), metadata=_PLACE)
    protocol: Options = field(default_factory=dict, metadata=_PLACE)
    changes: Sequence[Sequence[str]] = field(default=(), metadata=_PLACE)
    uncut: Options = field(default_factory=dict, metadata=_PLACE)  # what the budget has cut, as it was, by dotted key
    content: Options = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class SweepConfig:
    """The keys that say which runs a command makes and how they go on; no part of a frozen configuration."""

    rows: Sequence[Text] | Text | None
    seeds: Sequence[Seed] | Seed | None
    fail_fast: bool
    retry_failed: bool
    sweep: Text | None = None
    rerun: Rerun = False


PRINTED = ("training.batch_size", "optimizer.lr")
"""Settings of which a row of a table keeps, as ``protocol``, what its files print."""

SETTLED = ("protocol", "changes", "uncut", "budget.max_seconds", "init.sha256")
"""Keys that nobody sets: freezing adds all but ``budget.max_seconds``, which is of a run of ``indexnet plan``."""

_TYPES: dict[str, Any] = typing.get_type_hints(Config, include_extras=True)
del _TYPES["content"]
_SWEEP_TYPES: dict[str, Any] = typing.get_type_hints(SweepConfig, include_extras=True)
GROUPS: dict[str, Any] = {key: hint for key, hint in _TYPES.items() if dataclasses.is_dataclass(hint)}
"""The fixed groups and what they hold."""
OPEN_GROUPS: tuple[str, ...] = tuple(key for key, hint in _TYPES.items() if hint == Options and key not in SETTLED)
"""The groups whose keys are what their constructors take."""

_NAMED = ("task", "network", "resampling", "data", "optimizer", "schedule")
"""Groups that always choose something by name."""

OPEN_TYPES: dict[str, Any] = {
    "network.in_channels": Literal["auto"] | Positive,
    "network.classes": Literal["auto"] | Positive,
    "task.classes": Literal["auto"] | Sequence[str] | None,
    "task.costs_size": Positive,
    "encoder.freeze_bn": Literal["auto"] | bool,
    "optimizer.lr": PositiveNumber,
    "optimizer.encoder_lr_multiplier": Literal["auto"] | NonNegative,
    "optimizer.no_decay_norms_and_biases": bool,
}
"""What keys of open groups take beyond their constructors' signatures, or instead: ``auto``, and keys of our own."""

REQUIRED = ("task.costs_size", "optimizer.lr")
"""Keys of open groups that every configuration has."""


def read_config(content: Mapping[str, Any], source: str = "the configuration") -> Config:
    """Return the typed view of a frozen configuration, ``read_config(content).trainer.devices``.

    Args:
        content: plain data; earlier versions left out what has a default now.
        source: where it stands, for messages.

    Raises:
        UserError: a key is missing.
    """
    given, content = content, with_trainer(content, with_present_names)
    found = {key: value for key, value in content.items() if key in _TYPES and not (key in SETTLED and value is None)}
    groups = ((f"{group}.", content.get(group) or {}, kind) for group, kind in GROUPS.items())
    for prefix, node, kind in (("", content, Config), *groups):
        if missing := [f"{prefix}{key}" for key in _required(kind) if key not in node]:
            raise UserError(f"{source} lacks {', '.join(missing)}; the command that made the run writes it anew.")
    for key, kind in GROUPS.items():
        found[key] = kind(**{name: value for name, value in (content.get(key) or {}).items() if name in _types_of(key)})
    return Config(**found, content=given)


def check_frozen(content: Mapping[str, Any], source: str) -> None:
    """Check that a file holds a frozen configuration: every group, and of the keys that it has, values of their types.

    Raises:
        DamagedFileError: it does not; the message names the file and the key.
    """

    def check(key: str, value: Any, hint: Any) -> None:
        if not fits(value, hint) and not (key in SETTLED and value is None):
            raise DamagedFileError(f"{source}: {key}={shown(value)} must be {in_words(hint)}.")

    for key in _required(Config):
        if key not in content:
            raise DamagedFileError(f"{source} lacks {key}.")
    for key, value in content.items():
        if key not in _TYPES:
            continue
        check(key, value, Options if key in GROUPS else _TYPES[key])
        if not _is_plain(value):
            raise DamagedFileError(f"{source}: {key} must hold texts, numbers, truth values, null, lists and mappings.")
        for name, hint in _types_of(key).items() if key in GROUPS else ():
            if name in value:
                check(f"{key}.{name}", value[name], hint)
    for group in _NAMED:
        check(f"{group}.name", content[group].get("name"), str)
    for dotted, hint in OPEN_TYPES.items():
        group, _, key = dotted.partition(".")
        if key in content[group]:
            check(dotted, content[group][key], hint)
    for key, value in (content.get("protocol") or {}).items():
        if key not in PRINTED or not fits(value, float):
            raise DamagedFileError(f"{source}: protocol.{key}={shown(value)} is no printed number.")
    if not isinstance(devices := content["trainer"].get("devices", 1), int | list) or devices == -1:
        raise DamagedFileError(f"{source}: trainer.devices={shown(devices)} must be a number or a list of GPUs.")


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


@functools.cache
def _types_of(group: str) -> dict[str, Any]:
    return typing.get_type_hints(GROUPS[group], include_extras=True)


@functools.cache
def _required(kind: Any) -> tuple[str, ...]:
    """Return the names of the fields without a default."""
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    return tuple(each.name for each in dataclasses.fields(kind) if (each.default, each.default_factory) == missing)


@functools.cache
def known_keys() -> tuple[str, ...]:
    """Return the dotted keys of the fixed groups, the names of the groups and the single keys."""
    inner = [f"{group}.{key}" for group in GROUPS for key in _types_of(group)]
    return tuple(key for key in (*_TYPES, *_SWEEP_TYPES, *inner) if key not in SETTLED)


@functools.cache
def single_keys() -> frozenset[str]:
    """Return the keys of a configuration that are no groups: a folder of that name is none either."""
    return frozenset(_TYPES.keys() | _SWEEP_TYPES.keys()) - {*GROUPS, *OPEN_GROUPS, "callbacks"}


def unknown_key(key: str, known: Iterable[str]) -> UserError:
    """Return the complaint about a key that does not exist."""
    if sentence := refusal(key):
        return UserError(sentence)
    names = list(known)
    guess = nearest_key(key, [*names, *known_keys()])
    hint = f" Did you mean {guess!r}?" if guess else ""
    return UserError(f"unknown config key {key!r}.{hint} Known: {', '.join(sorted(names))}.")


def check_fixed(config: Mapping[str, Any]) -> None:
    """Check that a composed configuration has the keys that there are, each with a value of its type.

    Raises:
        UserError: a key is missing or unknown, or a value cannot work.
    """
    types, groups = _TYPES | _SWEEP_TYPES | {"seed": Seed}, (*GROUPS, *OPEN_GROUPS)
    known = [key for key in types if key not in SETTLED]
    for key in config:
        if key not in known:
            raise unknown_key(key, known)
    for key in (*_required(Config), *_required(SweepConfig)):
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
    types = {key: hint for key, hint in _types_of(group).items() if f"{group}.{key}" not in SETTLED}
    for key in node:
        if key not in types:
            raise unknown_key(f"{group}.{key}", [f"{group}.{each}" for each in types])
    for key in _required(GROUPS[group]):
        if key not in node:
            raise UserError(f"{group}.{key} is missing; it must be {in_words(types[key])}.")
    for key, value in node.items():
        check_value(f"{group}.{key}", value, types[key])


def is_of_sweep(key: str) -> bool:
    """Whether a key says which runs a sweep makes or how it goes on, and is no part of a run."""
    return key in _SWEEP_TYPES


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted key, ``{"optimizer.lr": 0.01}``."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def network_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`indexnet.networks.create_network` needs: name and options, resampling and encoder included."""
    spec = {**config["network"], "resampling": dict(config["resampling"])}
    if config["encoder"].get("name") is not None:
        spec["encoder"] = dict(config["encoder"])
    return spec
