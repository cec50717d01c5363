"""What a run is made of: data, task and network, built from its configuration and checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from indexnet.core.errors import UserError
from indexnet.core.schedules import in_steps
from indexnet.data import Dataset
from indexnet.data.base import Sample
from indexnet.networks.costs import count_costs
from indexnet.run.callback_options import monitors, no_validation
from indexnet.run.checkpoints import Monitor
from indexnet.run.experiments.experiment import hydra_value
from indexnet.run.further_tests import describe_further, further_splits
from indexnet.run.loader import (
    build_data,
    describe_splits,
    measured_splits,
    rank_zero_say,
    total_steps,
    training_splits,
    validation_interval,
)
from indexnet.run.record import DataRecord, Record, Samples
from indexnet.run.schema import BudgetConfig, Config, network_spec
from indexnet.tasks import Task, get_task


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        task: with its network.
        train_set: what it is trained on.
        tests: the splits that it is measured on, by name.
        steps: optimizer steps.
        limit: images of each of those splits that are measured; None: all.
        validations: the splits, by name, that it is validated on while it trains; empty: none.
        monitor: what the best checkpoint goes by; None: there is no validation.
    """

    task: Task
    train_set: Dataset
    tests: Mapping[str, Dataset]
    steps: int
    limit: int | None
    validations: Mapping[str, Dataset] = field(default_factory=dict)
    monitor: Monitor | None = None

    def counts(self, splits: Mapping[str, Dataset]) -> list[int]:
        """Return how many images of each split are measured."""
        return [len(split) if self.limit is None else min(self.limit, len(split)) for split in splits.values()]


def build_parts(config: Config, record: Record) -> Parts:
    """Build data and task, prepare the data, and record what they are.

    Raises:
        UserError: data are missing, or do not fit the task or the network.
    """
    training, budget = config.training, config.budget
    data = build_data(config.data, config.task["name"], training.size)
    (train_set, validation), tests = training_splits(data, training), measured_splits(data, record.split)
    steps, limit = total_steps(training, budget, len(train_set)), budget.max_test
    planned = total_steps(training, BudgetConfig(budget.name), len(train_set))
    task = _build_task(config, steps, planned)
    further = further_splits(config, task)
    validations, monitor = {}, None
    if training.validate_every and steps:
        if validation is None:
            raise no_validation(data.name, data.validation_remedy)
        modes, validations = monitors(task), {"": validation}
        key = config.trainer.monitor or next(iter(modes))
        monitor = Monitor(key, modes[key], validation_interval(training.validate_every, steps))
        task.monitor = key
    measured = [*tests.values(), *further.values(), *validations.values()]
    reads = [steps * training.batch_size, *(len(split) if limit is None else limit for split in measured)]
    for split, count in zip((train_set, *measured), reads, strict=True):
        if said := split.prepare(count):
            name = next((name for name, each in further.items() if each is split), f"{data.name}, {split.split}")
            rank_zero_say(f"data {name}: {said}")
    sample = _checked_sample(task, train_set, data.name, config.network["name"])
    if steps and (said := task.training_remark(sample, steps)):
        rank_zero_say(said)
    record.steps = steps
    record.data = DataRecord(
        data.name, Samples(len(train_set), train_set.fingerprint()), Samples(**describe_splits(tests)),
        None if validation is None else Samples(len(validation), validation.fingerprint()), describe_further(further),
    )  # fmt: skip
    side = config.task["costs_size"]
    size = (task.network.in_channels, side, side)
    costs = count_costs(task.network, size)
    record.parameters, record.resampling_parameters = costs.parameters, costs.resampling_parameters
    record.paper_gflops, record.true_gmacs, record.costs_input = costs.paper_gflops, costs.true_gmacs, list(size)
    task.freeze_parts(training.freeze)  # once counted: what is not trained is a part of the network's size
    return Parts(task, train_set, {**tests, **further}, steps, limit, validations, monitor)


def describe(parts: Parts, config: Config, record: Record, device: str, folder: Path) -> list[str]:
    """Say in five lines what a run is about to do.

    Args:
        parts: of the run.
        config: its frozen configuration.
        record: knows the parameters.
        device: name of what it computes on.
        folder: of the run.
    """
    training, uncut, network = config.training, config.uncut, config.network["name"]
    encoder = config.encoder.get("name")
    options = [f"{key}={hydra_value(value)}" for key, value in config.resampling.items() if key != "name"]
    operator = config.resampling["name"] + (f" ({', '.join(options)})" if options else "")
    counts, whole = sum(parts.counts(parts.tests)), sum(len(split) for split in parts.tests.values())
    measured = "test" if config.split == "test" else f"test (its {config.split} split)"
    data = f"{len(parts.train_set)} images to train, {counts} to {measured}"
    if config.tests:
        data += f" ({', '.join(each['name'] for each in config.tests if isinstance(each, Mapping))} too)"
    if parts.validations and parts.monitor:
        data += f", {sum(parts.counts(parts.validations))} to validate every {parts.monitor.every} steps"
    batch = uncut.get("training.batch_size", training.batch_size)
    planned = total_steps(replace(training, batch_size=batch), BudgetConfig(config.budget.name), len(parts.train_set))
    tests = max(whole, uncut.get("data.test_count", 0))
    cuts = (
        (_cut(parts.steps, planned), "steps" if planned != 1 else "step"),
        ("batch", _cut(training.batch_size, batch)),
        ("size", _cut(training.size, uncut.get("training.size", training.size))),
        (_cut(counts, tests), "test images" if tests > 1 else "test image"),
    )
    trainer = config.trainer
    processes = f"{trainer.processes} process{'es' if trainer.processes > 1 else ''}"
    if trainer.accumulate_grad_batches > 1:
        processes += f", {trainer.accumulate_grad_batches} batches a step"
    return [
        f"{config.task['name']}: network {network}{f' on {encoder}' if encoder else ''}, operator {operator}; "
        f"{record.parameters:,} parameters, {record.resampling_parameters:,} of them the operator's"
        + (f"; weights from {config.ckpt_path}" if config.ckpt_path else "")
        + (f"; not trained: {', '.join(config.training.freeze)}" if config.training.freeze else ""),
        f"data {config.data['name']}: {data}",
        f"budget {config.budget.name}: {', '.join(' '.join(words) for words in cuts)}",
        f"device {device}: precision {trainer.precision}, {processes}",
        f"folder {folder}",
    ]


def _cut(value: int, whole: int) -> str:
    """Return a number, and what it would be without the budget where that is more."""
    return f"{value} of {whole}" if value < whole else str(value)


def _checked_sample(task: Task, train_set: Dataset, data: str, network: str) -> Sample:
    """Return a training sample; refuse a data set or a network, which the message names, that the task cannot use.

    Raises:
        UserError: samples lack what training reads, or have other channels than the network's input.
    """
    sample = train_set.sample(0, np.random.default_rng(0))
    missing = task.missing_keys(sample)
    if missing:
        raise UserError(
            f"data={data} gives no {', '.join(missing)}, which training task={task.name} needs; {task.remedy(missing)}."
        )
    given, wanted = task.input_channels(sample), task.network.in_channels
    if given != wanted:
        raise UserError(
            f"network={network} takes {wanted} input channels, but task={task.name} on "
            f"data={data} gives {given}; set network.in_channels={given} or choose another network."
        )
    if task.network.reduction != 1 and not task.takes_reduced:
        raise UserError(
            f"network={network} predicts at 1/{task.network.reduction} of the resolution, which task={task.name} does "
            "not take; choose another network."
        )
    given, wanted = task.network.out_channels, task.output_channels(sample)
    if given != wanted:
        raise UserError(
            f"network={network} has {given} output channels, but task={task.name} on "
            f"data={data} needs {wanted}; choose another network."
        )
    return sample


def _build_task(config: Config, steps: int, planned: int) -> Task:
    schedule = {"name": "constant"}  # where nothing is trained
    if steps:
        schedule = in_steps(config.schedule, steps, planned, config.training.epochs)
    options = {key: value for key, value in config.task.items() if key not in ("name", "costs_size")}
    task = get_task(config.task["name"])(
        network=network_spec(config.content), optimizer=config.optimizer, schedule=schedule, **options
    )
    task.config = dict(config.content)
    encoder = config.encoder
    if encoder.get("name") is not None:
        weights = "pretrained" if encoder.get("pretrained") else "random"
        norm = f", batch norm {'frozen' if encoder['freeze_bn'] else 'trained'}" if "freeze_bn" in encoder else ""
        rate = config.optimizer["encoder_lr_multiplier"]
        rank_zero_say(f"encoder {encoder['name']}: {weights} weights{norm}, learning rate x {rate:g}")
    return task
