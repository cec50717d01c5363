"""What a job does between its first and its last record: build, train, test, measure."""

from __future__ import annotations

import datetime
import logging
import math
import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch

from indexnet.core.errors import UserError
from indexnet.core.files import DiskFullError
from indexnet.core.machine import cores, device_name
from indexnet.core.registry import load_plugins
from indexnet.networks.costs import count_costs
from indexnet.run import callbacks
from indexnet.run.checks import check_sync_batchnorm
from indexnet.run.loader import (
    StepStream,
    build_data,
    checkpoint_interval,
    describe_splits,
    evaluation_loader,
    log_interval,
    measured_splits,
    one_sentence,
    process_rank,
    total_steps,
    train_loader,
    worker_count,
)
from indexnet.run.loggers import create_loggers
from indexnet.run.processes import started_here
from indexnet.run.record import DataRecord, Record, Samples, skipped_files, write_rows
from indexnet.run.resume import find_checkpoint, note_code
from indexnet.run.schema import config_hash, network_spec
from indexnet.tasks import get_task
from indexnet.tasks.gallery import write_gallery

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from indexnet.data import Dataset
    from indexnet.run.folder import RunFolder
    from indexnet.run.processes import Ranks
    from indexnet.run.schema import Config, TrainerConfig
    from indexnet.tasks import Task


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        task: with its network.
        train_set: what it is trained on.
        tests: the splits that it is measured on, by name.
        steps: optimizer steps.
        limit: images of each of those splits that are measured; None: all.
    """

    task: Task
    train_set: Dataset
    tests: Mapping[str, Dataset]
    steps: int
    limit: int | None

    @property
    def counts(self) -> list[int]:
        """How many images of each split are measured."""
        return [len(split) if self.limit is None else min(self.limit, len(split)) for split in self.tests.values()]


def execute(
    folder: RunFolder,
    config: Config,
    record: Record,
    loggers: list[Logger],
    ranks: Ranks,
    since: float | None = None,
) -> None:
    """Fit, test and fill the record and the list of loggers.

    Args:
        folder: of the run.
        config: its frozen configuration.
        record: filled in the first process; of no use in the others.
        loggers: those of the run are added.
        ranks: the other processes.
        since: when the run began by the monotonic clock, time of earlier tries included; None: now.

    Raises:
        DivergedError: a loss or an output is not finite.
        UserError: a person's mistake; DiskFullError where there is no room.
    """
    load_plugins(config.plugins)
    settings, training, seed = config.trainer, config.training, config.seed
    accelerator = _accelerator(settings)
    torch.manual_seed(seed)
    parts = _build(config, record)
    task, steps = parts.task, parts.steps
    progress = callbacks.Progress(folder.path / "progress.json", steps, training.batch_size, since)
    resume, start = find_checkpoint(folder, config_hash(config.content), settle=process_rank() == 0)
    if process_rank() == 0:
        note_code(record, config, start)
        record.write(folder.path)  # a killed run leaves it, too
    skipped = callbacks.SkippedFiles()
    trainer = _trainer(folder, config, record, accelerator, steps, start, progress, skipped)
    loggers.extend(trainer.loggers)
    if trainer.world_size > min(parts.counts):
        raise UserError(
            f"trainer.devices x num_nodes = {trainer.world_size} is more than the {min(parts.counts)} images of a test "
            "set; use fewer."
        )
    ranks.start(trainer)
    if started_here():
        trainer.callbacks.append(callbacks.Terminable())  # type: ignore[attr-defined]
    if settings.channels_last:
        task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start < steps:
        stream = StepStream(
            len(parts.train_set), training.batch_size, steps, seed, start=start, accumulate=settings.accumulate,
            rank=trainer.global_rank, world=trainer.world_size, overfit=config.debug.overfit,
        )  # fmt: skip
        if settings.compile:
            task.network.compile()
        what = f"going on from step {start} of {steps}" if start else f"training for {steps} steps"
        _say(f"{what}, batch {training.batch_size}")
        loader = train_loader(parts.train_set, stream, worker_count(settings.num_workers))
        with one_sentence():
            trainer.fit(task, loader, ckpt_path=resume, weights_only=True)
        record.train_peak_memory_mb = round(progress.peak_memory_mb(trainer.strategy.root_device), 1)
    else:
        trained = torch.load(str(resume), weights_only=True, map_location="cpu")
        task.load_state_dict(trained["state_dict"])
        states = trained.get("callbacks", {})
        progress.load_state_dict(states.get(progress.state_key, {}))
        skipped.found = states.get(skipped.state_key, {}).get("found", {})
    rows = _test(parts, trainer, worker_count(settings.num_workers), record.split, ranks)
    if not trainer.is_global_zero:
        return
    record.metrics = {
        key.removeprefix("test/"): float(value) if math.isfinite(value) else None  # None: nothing to measure
        for key, value in trainer.callback_metrics.items()
        if "test/" in key
    }
    record.test_count = len(rows)
    record.skipped_files = skipped_files(skipped.found) if skipped.found else None
    record.train_samples_per_s = None if progress.samples_per_s is None else round(progress.samples_per_s, 3)
    record.test_samples_per_s = round(progress.test_samples_per_s * trainer.world_size, 3)
    record.peak_memory_mb = round(progress.peak_memory_mb(trainer.strategy.root_device), 1)
    record.device = device_name(trainer.strategy.root_device)
    write_rows(folder.path / "per_image.csv", rows)
    task.to(trainer.strategy.root_device)
    _write_pictures(folder, parts)


def _build(config: Config, record: Record) -> Parts:
    """Build data and task, prepare the data, and record what they are.

    Raises:
        UserError: data are missing, or do not fit the task or the network.
    """
    training, budget = config.training, config.budget
    data = build_data(config.data, config.task["name"], training.size)
    train_set, tests = data.train(), measured_splits(data, record.split)
    steps, limit = total_steps(training, budget, len(train_set)), budget.max_test
    task = _build_task(config, steps)
    reads = [steps * training.batch_size, *(len(split) if limit is None else limit for split in tests.values())]
    for split, count in zip((train_set, *tests.values()), reads, strict=True):
        if said := split.prepare(count):
            _say(f"data {data.name}, {split.split}: {said}")
    _check_samples(task, train_set, data.name, config.network["name"])
    record.steps = steps
    record.data = DataRecord(
        data.name, Samples(len(train_set), train_set.fingerprint()), Samples(**describe_splits(tests))
    )
    side = config.task["costs_size"]
    size = (task.network.in_channels, side, side)
    costs = count_costs(task.network, size)
    record.parameters, record.resampling_parameters = costs.parameters, costs.resampling_parameters
    record.paper_gflops, record.true_gmacs, record.costs_input = costs.paper_gflops, costs.true_gmacs, list(size)
    return Parts(task, train_set, tests, steps, limit)


def _test(parts: Parts, trainer: pl.Trainer, workers: int, split: str, ranks: Ranks) -> list[dict[str, Any]]:
    """Measure the test splits, and return the values of every image of all processes.

    Raises:
        DivergedError: an output is not finite.
    """
    task, expected = parts.task, sum(parts.counts)
    task.reset_test_metrics(list(parts.tests))
    loaders = [
        evaluation_loader(
            test_set, task.test_batch_size, workers, rank=trainer.global_rank, world=trainer.world_size,
            limit=parts.limit,
        )
        for test_set in parts.tests.values()
    ]  # fmt: skip
    _say(f"testing on {expected} images{'' if split == 'test' else f' of the {split} split'}")
    with one_sentence():
        trainer.test(task, loaders, verbose=False)
    ranks.finish()  # what becomes of the others does not matter any more
    if not task.predictions_finite:
        raise callbacks.DivergedError(f"the network's output is not finite after step {parts.steps}")
    rows = task.test_rows
    if len({row["name"] for row in rows}) != expected or len(rows) != expected:
        raise RuntimeError(f"{len(rows)} of {expected} test images were evaluated; the metrics would be wrong")
    return rows


def _say(text: str) -> None:
    """Print a line, in the first process."""
    if process_rank() == 0:
        print(text, flush=True)


def _write_pictures(folder: RunFolder, parts: Parts) -> None:
    """Write the gallery; a picture that fails is a bug to show, but no reason to lose a trained and tested run."""
    try:
        write_gallery(folder.path / "pictures", parts.task, parts.tests, limit=parts.limit)
    except DiskFullError:
        raise  # they can be made once there is room
    except Exception:
        traceback.print_exc()
        print(f"indexnet: {folder.path}: the run is complete, but its pictures could not be made.", file=sys.stderr)


def _accelerator(settings: TrainerConfig) -> str:
    """Settle the accelerator, and refuse what this machine does not have."""
    gpus = torch.cuda.device_count()
    wanted = settings.accelerator
    if wanted == "gpu" and gpus == 0:
        raise UserError("trainer.accelerator=gpu but this machine shows no CUDA device; give trainer.accelerator=cpu.")
    accelerator = ("gpu" if gpus else "cpu") if wanted == "auto" else wanted
    if accelerator == "gpu" and settings.devices > gpus:
        raise UserError(
            f"trainer.devices={settings.devices} but this machine has {gpus} GPU{'s' if gpus > 1 else ''}; "
            f"give trainer.devices={gpus}, or trainer.accelerator=cpu for processes on the CPU."
        )
    check_sync_batchnorm(settings, accelerator)
    if settings.sync_batchnorm and settings.processes == 1:
        _say("trainer.sync_batchnorm=true does nothing on one device")
    if accelerator == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cores() // settings.devices))
    return accelerator


def _check_samples(task: Task, train_set: Dataset, data: str, network: str) -> None:
    """Refuse a data set or a network, which the message names, that the task cannot use.

    Raises:
        UserError: samples lack what training reads, or have other channels than the network's input.
    """
    sample = train_set.sample(0, np.random.default_rng(0))
    missing = task.missing_keys(sample)
    if missing:
        raise UserError(
            f"data={data} gives no {', '.join(missing)}, which training task={task.name} needs; "
            "choose another data set."
        )
    given, wanted = task.input_channels(sample), task.network.in_channels
    if given != wanted:
        raise UserError(
            f"network={network} takes {wanted} input channels, but task={task.name} on "
            f"data={data} gives {given}; set network.in_channels={given} or choose another network."
        )
    given, wanted = task.network.out_channels, task.output_channels(sample)
    if given != wanted:
        raise UserError(
            f"network={network} has {given} output channels, but task={task.name} on "
            f"data={data} needs {wanted}; choose another network."
        )


def _build_task(config: Config, steps: int) -> Task:
    schedule, epochs = dict(config.schedule), config.training.epochs
    if schedule["name"] == "multistep" and epochs:
        schedule["milestones"] = [round(steps * epoch / epochs) for epoch in schedule["milestones"]]
    options = {key: value for key, value in config.task.items() if key not in ("name", "costs_size")}
    task = get_task(config.task["name"])(
        network=network_spec(config.content), optimizer=config.optimizer, schedule=schedule, **options
    )
    task.config = dict(config.content)
    encoder = config.encoder
    if encoder.get("name") is not None:
        weights = "pretrained" if encoder.get("pretrained") else "random"
        norm = "frozen" if encoder.get("freeze_bn") else "trained"
        rate = config.optimizer["encoder_lr_multiplier"]
        _say(f"encoder {encoder['name']}: {weights} weights, batch norm {norm}, learning rate x {rate:g}")
    return task


def _trainer(
    folder: RunFolder,
    config: Config,
    record: Record,
    accelerator: str,
    steps: int,
    start: int,
    *watching: pl.Callback,
) -> pl.Trainer:
    settings, seconds = config.trainer, config.budget.max_seconds
    every = checkpoint_interval(settings.checkpoint_every, steps)
    strategy = "ddp" if settings.processes > 1 else "auto"
    if accelerator == "cpu" and settings.processes > 2:
        # DDP otherwise regroups gradients after its first step, and a resumed run would add up three in another order
        strategy = "ddp_find_unused_parameters_true"
    show = sys.stderr.isatty() if settings.progress_bar == "auto" else settings.progress_bar
    # Lightning cannot see that the order of the data follows from the step
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # Lightning's, about torch
    warnings.filterwarnings("ignore", message=".*`Trainer.fit` stopped.*")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    files = callbacks.AtomicCheckpointIO(folder.previous_checkpoint())
    return pl.Trainer(
        accelerator=accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=strategy,
        precision=settings.precision,
        min_epochs=0,
        max_epochs=1,  # the stream of batches is the whole run
        max_steps=steps,
        max_time=datetime.timedelta(seconds=seconds) if seconds else None,
        min_steps=min(steps, 5) if seconds else None,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip,
        sync_batchnorm=settings.sync_batchnorm and settings.processes > 1,
        use_distributed_sampler=False,
        logger=create_loggers(folder, config.logger, record, config.content, start),
        log_every_n_steps=log_interval(steps),
        callbacks=[
            callbacks.StepSeed(config.seed),
            *watching,  # before what saves their state
            callbacks.Checkpoints(files, folder.checkpoint(), every, steps),
        ],
        plugins=[files],
        enable_checkpointing=False,
        enable_progress_bar=show,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder.path,
    )
