"""What a job does between its first and its last record: build, train, test, measure."""

from __future__ import annotations

import datetime
import logging
import math
import os
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

from indexnet.core.errors import UserError
from indexnet.core.files import DiskFullError
from indexnet.core.machine import cores, device_name
from indexnet.core.registry import load_plugins
from indexnet.data import Dataset
from indexnet.networks.recompute import checkpoint_activations
from indexnet.run import acceleration, callbacks
from indexnet.run.callback_options import create_callbacks, monitors, named_callbacks, remarks
from indexnet.run.checkpoints import AtomicCheckpointIO, Checkpoints, SaveFirst
from indexnet.run.folder import RunFolder
from indexnet.run.freezing.checks import check_processes
from indexnet.run.identity import config_hash
from indexnet.run.initial import load_initial
from indexnet.run.loader import (
    StepStream,
    evaluation_loader,
    log_interval,
    one_sentence,
    process_rank,
    rank_zero_remark,
    rank_zero_say,
    train_loader,
    worker_count,
)
from indexnet.run.loggers.create import create_loggers
from indexnet.run.parts import Parts, build_parts, describe
from indexnet.run.processes import Ranks, started_here
from indexnet.run.record import Record, skipped_files, write_rows
from indexnet.run.resume import find_checkpoint, load_weights, note_code, read_checkpoint
from indexnet.run.schema import Config, TrainerConfig
from indexnet.run.trainer_options import check_gpus, does_nothing, lightning_arguments
from indexnet.tasks.gallery import write_gallery


def execute(
    folder: RunFolder,
    config: Config,
    record: Record,
    loggers: list[Logger],
    ranks: Ranks,
    since: float | None = None,
    further: Sequence[pl.Callback] = (),
) -> None:
    """Fit, test and fill the record and the list of loggers.

    Args:
        folder: of the run.
        config: its frozen configuration.
        record: filled in the first process; of no use in the others.
        loggers: those of the run are added.
        ranks: the other processes.
        since: when the run began by the monotonic clock, time of earlier tries included; None: now.
        further: callbacks beside those of the configuration; for what watches a run and is no part of it.

    Raises:
        DivergedError: a loss or an output is not finite.
        UserError: a person's mistake; DiskFullError where there is no room.
    """
    load_plugins(config.plugins)
    settings, training, seed = config.trainer, config.training, config.seed
    accelerator = _accelerator(settings)
    settings, without = acceleration.settle(settings, accelerator, config.optimizer)
    if settings.precision != config.trainer.precision:
        record.changes.append(f"precision {settings.precision} instead of {config.trainer.precision}")
    config = replace(config, trainer=settings)
    for line in without:
        rank_zero_remark(line)
    torch.manual_seed(seed)
    parts = build_parts(config, record)
    task, steps, workers = parts.task, parts.steps, worker_count(settings.num_workers)
    progress = callbacks.Progress(folder.path / "progress.json", steps, training.batch_size, since)
    resume, start, ended, curve = find_checkpoint(folder, config_hash(config.content), settle=process_rank() == 0)
    if process_rank() == 0:
        note_code(record, config, start)
        record.write(folder.path)  # a killed run leaves it, too
    skipped = callbacks.SkippedFiles()
    initial: dict[str, Any] | None = None
    if resume is None and config.ckpt_path is not None:
        initial = dict(load_weights(task, Path(config.ckpt_path)))
    elif resume is None and "init" in config.content:
        initial, said = load_initial(task, config.init)
        rank_zero_say(said)
    if task.notice:
        begun = config.ckpt_path or config.init.checkpoint or config.encoder.get("pretrained")
        rank_zero_say(f"notice of {begun}: {task.notice}")
    checkpoints = Checkpoints(folder, settings.checkpoint_every, steps, parts.monitor, initial)
    chosen = create_callbacks(config.callbacks, parts.monitor, monitors(task))
    first = [callbacks.StepSeed(seed), SaveFirst(checkpoints)]
    alive = callbacks.Alive(ranks.beats.beat)
    compiled = [acceleration.Compiled(task.network)] if settings.compile else []
    watching = [*first, *compiled, *further, *chosen, progress, skipped, alive]
    watching.append(checkpoints)  # the last: it saves the others' states
    trainer = _trainer(folder, config, record, accelerator, parts, start, curve, watching)
    if trainer.progress_bar_callback is None and not chosen:  # else somebody may read what no logger does
        task.log_every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    task.loss_in_bar = accelerator != "gpu"  # callbacks.LoggedBar reads it there
    if record.curve_from is not None:
        record.write(folder.path)
    loggers.extend(trainer.loggers)
    for what, splits in (("test", parts.tests), ("validation", parts.validations)):
        if splits and trainer.world_size > (least := min(parts.counts(splits))):
            raise UserError(
                f"trainer.devices x num_nodes = {trainer.world_size} is more than the {least} images of a {what} set; "
                "use fewer."
            )
    for line in describe(parts, config, record, device_name(trainer.strategy.root_device), folder.path):
        rank_zero_say(line)
    for line in remarks(config.callbacks, parts.steps):
        rank_zero_say(line)
    ranks.start(trainer)
    if started_here():
        trainer.callbacks.append(callbacks.Terminable())  # type: ignore[attr-defined]
    if settings.channels_last:
        task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.fused_optimizer:
        task.optimizer_spec["fused"] = True
    if settings.checkpoint_activations:
        checkpoint_activations(task.network)
    if (start < steps and not ended) or resume is None:
        stream = StepStream(
            len(parts.train_set), training.batch_size, steps, seed, start=start,
            accumulate=settings.accumulate_grad_batches, rank=trainer.global_rank, world=trainer.world_size,
            overfit=config.debug.overfit,
        )  # fmt: skip
        what = f"going on from step {start} of {steps}" if start else f"training for {steps} steps"
        rank_zero_say(f"{what}, batch {training.batch_size}" if steps else "training for no steps: nothing is learned")
        loader = train_loader(parts.train_set, stream, workers)
        validating = _loaders(parts.validations, parts, trainer, workers) or None
        with one_sentence(), acceleration.compile_errors(settings.compile), named_callbacks(config.callbacks, chosen):
            trainer.fit(task, loader, validating, ckpt_path=resume, weights_only=True)
        if steps == 0:  # Lightning has set everything up, and called no callback
            trainer.save_checkpoint(folder.checkpoint())
        done = trainer.global_step
    else:
        done = start
        trained = torch.load(str(resume), weights_only=True, map_location="cpu")
        task.load_state_dict(trained["state_dict"])
        states = trained.get("callbacks", {})
        progress.load_state_dict(states.get(progress.state_key, {}))
        skipped.found = states.get(skipped.state_key, {}).get("found", {})
        checkpoints.load_state_dict(states.get(checkpoints.state_key, checkpoints.state_dict()))
    record.train_peak_memory_mb = round(progress.peak_memory_mb(trainer.strategy.root_device), 1)
    record.best, record.initial = checkpoints.best or None, checkpoints.initial
    record.stopped = done if checkpoints.stopped else None
    record.tested = config.test_checkpoint if parts.monitor else None
    if config.test_checkpoint == "best":
        task.load_state_dict(_best(folder, checkpoints.best))
    with named_callbacks(config.callbacks, chosen):
        rows = _test(parts, trainer, workers, record.split, ranks)
    if not trainer.is_global_zero:
        return
    record.metrics = {
        key.removeprefix("test/"): float(value) if math.isfinite(value) else None  # None: nothing to measure
        for key, value in trainer.callback_metrics.items()
        if "test/" in key
    }
    record.units = {
        name: metric.info.unit
        for name, metric in task.test_metrics[0].items()
        if metric.info.unit != type(metric).info.unit
    }
    record.test_count = len(rows)
    record.skipped_files = skipped_files(skipped.found) if skipped.found else None
    record.train_samples_per_s = None if progress.samples_per_s is None else round(progress.samples_per_s, 3)
    record.test_samples_per_s = round(progress.test_samples_per_s * trainer.world_size, 3)
    record.peak_memory_mb = round(progress.peak_memory_mb(trainer.strategy.root_device), 1)
    record.device = device_name(trainer.strategy.root_device)
    write_rows(folder.path / "per_image.csv", rows)
    task.to(trainer.strategy.root_device, torch.float32)  # outside Lightning nobody casts what a network takes
    _write_pictures(folder, parts)


def _test(parts: Parts, trainer: pl.Trainer, workers: int, split: str, ranks: Ranks) -> list[dict[str, Any]]:
    """Measure the test splits, and return the values of every image of all processes.

    Raises:
        DivergedError: an output is not finite.
    """
    task, expected = parts.task, sum(parts.counts(parts.tests))
    task.test_sets = tuple(parts.tests)
    loaders = _loaders(parts.tests, parts, trainer, workers)
    rank_zero_say(f"testing on {expected} images{'' if split == 'test' else f' of the {split} split'}")
    with one_sentence():
        trainer.test(task, loaders, verbose=False)
    ranks.finish()  # what becomes of the others does not matter any more
    if not task.predictions_finite:
        raise callbacks.DivergedError(f"the network's output is not finite after step {parts.steps}")
    rows = task.test_rows
    if len({row["name"] for row in rows}) != expected or len(rows) != expected:
        raise RuntimeError(f"{len(rows)} of {expected} test images were evaluated; the metrics would be wrong")
    return rows


def _best(folder: RunFolder, best: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights of the best checkpoint.

    Raises:
        UserError: there is none, or it is gone, damaged, or another one than this run's.
    """
    path = folder.best_checkpoint()
    if not best:
        raise UserError("test_checkpoint=best: no validation gave a finite number; give test_checkpoint=last.")
    if (checkpoint := read_checkpoint(path)) is None:
        raise UserError(
            f"{path} is gone or damaged, and test_checkpoint=best tests it; delete {folder.path} to run again."
        )
    if checkpoint["global_step"] != best["step"]:  # of a killed try that came further, with other code or another GPU
        raise UserError(
            f"{path} is of step {checkpoint['global_step']}, and the best validation was at step {best['step']}: a try "
            f"that was killed came to other numbers; delete {folder.path} to run again."
        )
    return dict(checkpoint["state_dict"])


def _loaders(splits: Mapping[str, Dataset], parts: Parts, trainer: pl.Trainer, workers: int) -> list[Any]:
    """Return a loader of every split that is measured: this process's share."""
    size, limit = parts.task.test_batch_size, parts.limit
    rank, world = trainer.global_rank, trainer.world_size
    return [evaluation_loader(each, size, workers, rank=rank, world=world, limit=limit) for each in splits.values()]


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
    check_gpus(settings.devices, accelerator, gpus)
    check_processes(settings, accelerator)
    for line in does_nothing(vars(settings), settings.processes):
        rank_zero_remark(line)
    if accelerator == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cores() // settings.local_devices))
    return accelerator


def _trainer(
    folder: RunFolder,
    config: Config,
    record: Record,
    accelerator: str,
    parts: Parts,
    start: int,
    curve: str | None,
    watching: list[pl.Callback],
) -> pl.Trainer:
    settings, seconds, steps = config.trainer, config.budget.max_seconds, parts.steps
    options = lightning_arguments(
        vars(settings), accelerator=accelerator, processes=settings.processes, log_interval=log_interval(steps),
        folder=folder.path,
    )  # fmt: skip
    # Lightning cannot see that the order of the data follows from the step
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # Lightning's, about torch
    warnings.filterwarnings("ignore", message=".*`Trainer.fit` stopped.*")
    warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
    warnings.filterwarnings("ignore", message=".*module.s. in eval mode at the start.*")  # norms of frozen parts
    warnings.filterwarnings("ignore", message=".*across ranks is zero.*")  # where nothing is trained
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    if options["enable_progress_bar"] and accelerator == "gpu":  # Lightning's own bar would wait for each step
        watching = [*watching, callbacks.LoggedBar()]
    return pl.Trainer(
        **options,
        min_epochs=0,
        max_epochs=1,  # the stream of batches is the whole run
        max_steps=steps,
        max_time=datetime.timedelta(seconds=seconds) if seconds else None,
        min_steps=min(steps, 5) if seconds else None,
        use_distributed_sampler=False,
        logger=create_loggers(
            folder, config.logger, record, config.content, start, curve, options["log_every_n_steps"]
        ),
        callbacks=watching,
        val_check_interval=parts.monitor.every * settings.accumulate_grad_batches if parts.monitor else None,
        plugins=[AtomicCheckpointIO(folder)],
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=folder.path,
    )
