"""What a configuration is made of: the type of every key of the fixed groups.

A frozen configuration is plain data, so that its bytes and its hash never change; :func:`read_config` gives the typed
view that a run works with. The groups that a person extends (:data:`OPEN_GROUPS`) have the keys that their constructors
take, see :mod:`indexnet.run.freezing.checks`.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from indexnet.core.annotations import Positive, Rule
from indexnet.core.errors import UserError
from indexnet.run.experiments.experiment import Seed
from indexnet.run.later_keys import LATER_KEYS
from indexnet.run.trainer_options import Devices, Precision, device_count, with_present_names, with_trainer

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

    Attributes:
        batch_size: samples of one optimizer step, over all devices and accumulated batches.
        size: side of a training sample in pixels.
        steps: optimizer steps of the run; it goes before ``epochs``. 0 trains nothing.
        epochs: passes over the training samples, where ``steps`` is not given.
        validate_every: optimizer steps between two validations, or a fraction of the run below 1; null: never.
        holdout: share of the training split that is held out to validate on; ``auto``: a tenth where a data set has no
            validation split, else nothing.
        freeze: parts of the network that are not trained, by the names that the state dict has, ``[encoder]``.
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
    """The file that parts of a network start from, or the row that it is of, see :mod:`indexnet.run.initial`.

    Attributes:
        checkpoint: a checkpoint of another network, some parts of which this one starts from.
        parts: which parts, ``{OWN: THEIRS}``, by the names that the state dicts have; null: all that fits.
        row: the row of a table whose last checkpoint it is; tables set this.
        sha256: of the file; freezing adds it.
    """

    checkpoint: Text | None = field(default=None, metadata=_PLACE)
    parts: Mapping[str, Text] | None = None
    row: Text | None = None
    sha256: Text | None = None


@dataclass(frozen=True)
class TrainerConfig:
    """How it is computed; what keys mean: :mod:`indexnet.run.trainer_options`. Frozen ``devices`` are never texts."""

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
    """What is logged beside the record.

    Attributes:
        csv: training curves as ``csv/metrics.csv`` in the run's folder.
        tensorboard: the same for TensorBoard.
        wandb: the run at Weights & Biases.
        project: name of the W&B project.
        mode: of W&B: ``auto`` is online where somebody is logged in and the server answers, else offline.
    """

    csv: bool
    tensorboard: bool
    wandb: bool
    project: Text
    mode: Mode = "auto"


@dataclass(frozen=True)
class BudgetConfig:
    """The caps of a budget; null caps nothing.

    Attributes:
        name: what folders, records and reports call it.
        max_steps: most optimizer steps; the milestones of the learning rate shrink with them.
        max_batch_size: largest ``training.batch_size``.
        max_size: largest ``training.size`` in pixels.
        max_test: most images of a test or of a validation.
        max_seconds: of a run that only measures, see :mod:`indexnet.sweep.plan_probe`; ``indexnet plan`` sets it.
    """

    name: Text
    max_steps: Positive | None = None
    max_batch_size: Positive | None = None
    max_size: Positive | None = None
    max_test: Positive | None = None
    max_seconds: PositiveNumber | None = None


@dataclass(frozen=True)
class DebugConfig:
    """Modes for finding mistakes.

    Attributes:
        overfit: train on one and the same batch, whose loss a sound network must drive down.
    """

    overfit: bool


@dataclass(frozen=True)
class PathsConfig:
    """Where results go and data sets lie.

    Attributes:
        runs: folder of all runs, seen from where the command is given.
        data: folder that holds the data sets, each in a folder of its own; ``data.root`` names another.
    """

    runs: Text
    data: Text


@dataclass(frozen=True)
class ExperimentConfig:
    """Which row of which table a run is; all null for one that belongs to no table.

    Attributes:
        name: of the table, that of its file; ``-m experiments=NAME`` sets it.
        row: name of the row; the table sets it.
        label: what reports call the row; the table sets it.
    """

    name: Text | None
    row: Text | None
    label: Text | None


@dataclass(frozen=True)
class Config:
    """Every key of a frozen configuration, with its type; ``Options`` are open groups.

    Attributes:
        task: what is learned: loss, metrics, what a person gets.
        network: the whole network.
        encoder: its encoder; ``none`` where a network brings its own.
        resampling: the operator that halves and doubles its maps.
        data: the data set.
        optimizer: by name, torch's and timm's.
        schedule: of the learning rate.
        training: how much is trained.
        trainer: how it is computed.
        logger: what is logged beside the record.
        budget: caps that make a run cheaper.
        debug: modes for finding mistakes.
        paths: where results go and data sets lie.
        experiment: the row of a table that a run is; the table sets it.
        seed: of the weights, the order of samples, augmentation and dropout.
        split: what the trained network is measured on; ``validation`` never reads the test images.
        callbacks: Lightning's callbacks by name, or one of your own by its import path.
        test_checkpoint: which weights are tested: the last, or the best in validation.
        ckpt_path: a checkpoint of the same network whose weights, all of them, the run starts from.
        tests: further data sets to test on, names or mappings with a ``name`` and options.
        init: parts of the network that start from another network's checkpoint.
        plugins: modules of your own that register operators, networks, data sets, tasks or metrics.
        tags: words of your own to find the run by; they change nothing.
        protocol: what the row's files say of batch and learning rate; freezing adds it.
        changes: what the command changed against the row; freezing adds it.
        uncut: what the budget has cut, as it was, by dotted key; freezing adds it.
        content: the plain data that all this was read from.
    """

    task: Options = field(metadata={"later_keys": LATER_KEYS["task"]})
    network: Options = field(metadata={"later_keys": LATER_KEYS["network"]})
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
    uncut: Options = field(default_factory=dict, metadata=_PLACE)
    content: Options = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class SweepConfig:
    """The keys that say which runs a command makes and how they go on; no part of a frozen configuration.

    Attributes:
        rows: which rows of the table; null: all.
        seeds: which seeds; null: those that the table names.
        fail_fast: stop everything at the first failure, instead of going on with the others.
        retry_failed: run again what failed before, instead of leaving it.
        sweep: a name for the runs of ``-m``, which become a table of that name; null: each stands alone.
        rerun: do finished runs again: all of them, or those whose code has ``changed``.
    """

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

TYPES: dict[str, Any] = typing.get_type_hints(Config, include_extras=True)
"""The types of the top keys of a run."""
del TYPES["content"]
SWEEP_TYPES: dict[str, Any] = typing.get_type_hints(SweepConfig, include_extras=True)
"""Those of the keys of a sweep."""
GROUPS: dict[str, Any] = {key: hint for key, hint in TYPES.items() if dataclasses.is_dataclass(hint)}
"""The fixed groups and what they hold."""
OPEN_GROUPS: tuple[str, ...] = tuple(key for key, hint in TYPES.items() if hint == Options and key not in SETTLED)
"""The groups whose keys are what their constructors take."""

NAMED = ("task", "network", "resampling", "data", "optimizer", "schedule")
"""Groups that always choose something by name."""

OWN_KEYS: dict[str, str] = {
    "task.costs_size": "side in pixels of the input for which parameters and multiply-adds are recorded",
    "optimizer.lr": "learning rate, never scaled by batch or devices",
    "optimizer.encoder_lr_multiplier": "factor on the encoder's rate; `auto`: 0.01 with pretrained weights, else 1",
    "optimizer.no_decay_norms_and_biases": "no weight decay on the scales and shifts of norms and on biases",
}
"""What keys of open groups mean that no constructor has; the others are in the docstrings of the constructors."""

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
    found = {key: value for key, value in content.items() if key in TYPES and not (key in SETTLED and value is None)}
    groups = ((f"{group}.", content.get(group) or {}, kind) for group, kind in GROUPS.items())
    for prefix, node, kind in (("", content, Config), *groups):
        if missing := [f"{prefix}{key}" for key in required(kind) if key not in node]:
            raise UserError(f"{source} lacks {', '.join(missing)}; the command that made the run writes it anew.")
    for key, kind in GROUPS.items():
        found[key] = kind(**{name: value for name, value in (content.get(key) or {}).items() if name in types_of(key)})
    return Config(**found, content=given)


@functools.cache
def types_of(group: str) -> dict[str, Any]:
    """Return the types of a fixed group's keys."""
    return typing.get_type_hints(GROUPS[group], include_extras=True)


@functools.cache
def required(kind: Any) -> tuple[str, ...]:
    """Return the names of the fields without a default."""
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    return tuple(each.name for each in dataclasses.fields(kind) if (each.default, each.default_factory) == missing)


@functools.cache
def known_keys() -> tuple[str, ...]:
    """Return the dotted keys of the fixed groups, the names of the groups and the single keys."""
    inner = [f"{group}.{key}" for group in GROUPS for key in types_of(group)]
    return tuple(key for key in (*TYPES, *SWEEP_TYPES, *inner) if key not in SETTLED)


@functools.cache
def single_keys() -> frozenset[str]:
    """Return the keys of a configuration that are no groups: a folder of that name is none either."""
    return frozenset(TYPES.keys() | SWEEP_TYPES.keys()) - {*GROUPS, *OPEN_GROUPS, "callbacks"}


def is_of_sweep(key: str) -> bool:
    """Whether a key says which runs a sweep makes or how it goes on, and is no part of a run."""
    return key in SWEEP_TYPES


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
