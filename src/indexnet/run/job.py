"""``indexnet job FOLDER``: one frozen configuration, from data to record. Knows nothing of Hydra."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.errors import UserError

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import Logger

    from indexnet.data import Data, Dataset
    from indexnet.run.folder import RunFolder
    from indexnet.run.ranks import Ranks
    from indexnet.tasks import Task

HELP = "run the frozen configuration of a run folder (what `train` starts for each run)"
DIVERGED = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a run folder with its config.yaml")


def main(args: argparse.Namespace) -> int:
    """Run with parsed arguments."""
    return run_job(args.folder)


def run_job(path: Path) -> int:
    """Run the frozen configuration of a folder, or return at once where it is done.

    Returns:
        0 done; 5 diverged; 4 where another process of the run was killed: the record still says ``running``, and the
        same command goes on. A person's mistake raises UserError, a bug its own exception; both are recorded. A full
        disk raises DiskFullError and leaves the record at ``running``.
    """
    from indexnet.run.processes import LEADER, follow

    if os.environ.get(LEADER, str(os.getpid())) != str(os.getpid()):
        follow()  # first of all: what comes next takes seconds
    from indexnet.run.folder import RunFolder

    folder = RunFolder(path.resolve())
    config = folder.config()
    if config["trainer"]["accelerator"] == "cpu":  # before torch is imported: DDP warns of the strategy of _trainer
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from indexnet.run.loader import process_rank

    if process_rank() != 0:  # of several: the first holds the lock and writes the record
        return _run_further_process(folder, config)
    with folder.lock():
        if folder.status() in ("done", "diverged"):
            return _finished(folder, before=True)
        code = _run_first_process(folder, config)
    if code == 0:
        _finished(folder)
    return code


def _run_first_process(folder: RunFolder, config: dict[str, Any]) -> int:
    from indexnet.files import PART, DiskFullError, disk_full_as_sentence, write_json
    from indexnet.run import record as records
    from indexnet.run.callbacks import DivergedError
    from indexnet.run.config import config_hash
    from indexnet.run.loggers import finish_loggers
    from indexnet.run.ranks import INTERRUPTED, Cause, Ranks, is_killing

    path = folder.path
    earlier = folder.record() or {}
    record = records.start(config, config_hash(config))
    before = 0.0
    if earlier.get("status") == "running":  # killed; this try goes on
        record["started"], before = earlier["started"], _elapsed(path / "progress.json")
    for left in path.rglob(f".*{PART}"):  # of a try that was killed while it wrote
        left.unlink()
    write_json(path / "record.json", record)
    begun = time.monotonic()
    code = 1
    loggers: list[Logger] = []

    def conclude() -> None:
        if record["status"] == "running":
            return
        record["finished"] = records.now()
        record["wall_time_s"] = round(before + time.monotonic() - begun, 2)
        record.pop("pid", None)
        if record["status"] in ("done", "diverged"):  # first, for what is finished is not looked at again
            folder.previous_checkpoint().unlink(missing_ok=True)
        write_json(path / "record.json", record)
        (path / "progress.json").unlink(missing_ok=True)

    def explain(cause: Cause) -> int:
        """Act on what happened in another process; return the exit code."""
        if cause.killed:
            print(f"indexnet: {path}: {cause.text}; the same command goes on.", file=sys.stderr, flush=True)
            return INTERRUPTED
        record["status"], record["error"] = "failed", f"{'UserError: ' if cause.user else ''}{cause.text}"
        return 2 if cause.user else 1

    def stuck(cause: Cause) -> None:
        """End this process, which waits for another that is gone; in a thread of its own."""
        failed = 1
        try:
            failed = explain(cause)
            conclude()
            if not cause.killed:
                print(f"indexnet: {path}: {cause.text}", file=sys.stderr, flush=True)
        finally:
            os._exit(failed)

    ranks = Ranks(path, stuck)
    try:
        with disk_full_as_sentence(path):
            _execute(folder, config, record, loggers, ranks, before)
        record["status"], code = "done", 0
    except DivergedError as error:
        record["status"], record["error"] = "diverged", str(error)
        print(f"indexnet: {path}: {error}; a smaller optimizer.lr usually helps.", file=sys.stderr)
        code = DIVERGED
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns the first into the second
        raise KeyboardInterrupt from error  # the record stays "running": the same command goes on
    except DiskFullError:
        raise  # the record stays "running" here, too
    except BaseException as error:
        cause = ranks.cause(error)
        if cause is None:
            record["status"], record["error"] = "failed", f"{type(error).__name__}: {error}"
            raise
        code = explain(cause)
        if cause.user:
            raise UserError(cause.text) from None
        if not cause.killed:
            raise RuntimeError(cause.text) from (None if is_killing(error) else error)
    finally:
        try:
            with disk_full_as_sentence(path):
                conclude()
                finish_loggers(loggers, folder, record)
        finally:
            ranks.close(code)
    return code


def _run_further_process(folder: RunFolder, config: dict[str, Any]) -> int:
    """Take part in a run whose first process records it; an error of this process is left for that one."""
    from indexnet.run.callbacks import DivergedError
    from indexnet.run.loader import process_rank
    from indexnet.run.ranks import INTERRUPTED, Cause, Ranks, is_killing, tell_error

    def stuck(cause: Cause) -> None:
        os._exit(INTERRUPTED)

    ranks = Ranks(folder.path, stuck, first=False)
    code = 0
    try:
        _execute(folder, config, {}, [], ranks)
    except DivergedError:
        pass  # the first process says so
    except (KeyboardInterrupt, SystemExit):
        code = INTERRUPTED
    except BaseException as error:
        code = 2 if isinstance(error, UserError) else INTERRUPTED if is_killing(error) else 1
        if code != INTERRUPTED:
            tell_error(folder.path, process_rank(), error)
        if code == 1:
            raise
    finally:
        ranks.close(code)
    return code


def _elapsed(path: Path) -> float:
    """Return the training seconds that a killed try had come to."""
    from indexnet.files import read_json

    try:
        return float(read_json(path)["elapsed_s"])
    except (OSError, ValueError, KeyError):
        return 0.0


def _finished(folder: RunFolder, before: bool = False) -> int:
    record = folder.record()
    assert record is not None
    if record["status"] == "diverged":
        print(f"indexnet: {folder.path}: {record['error']}.", file=sys.stderr)
        return DIVERGED
    found = record["metrics"].items()
    metrics = ", ".join(f"{name} {'not measurable' if value is None else f'{value:.4g}'}" for name, value in found)
    print(f"{'done before' if before else 'done'}: {folder.path}: {metrics} (on {record['test_count']} images)")
    return 0


def _execute(
    folder: RunFolder,
    config: dict[str, Any],
    record: dict[str, Any],
    loggers: list[Logger],
    ranks: Ranks,
    before: float = 0.0,
) -> None:
    """Fit, test and fill the record and the list of loggers."""
    import torch

    from indexnet.data import create_data
    from indexnet.run import record as records
    from indexnet.run.callbacks import DivergedError, Progress, Terminable
    from indexnet.run.config import data_options
    from indexnet.run.loader import (
        StepStream,
        evaluation_loader,
        one_sentence,
        process_rank,
        total_steps,
        train_loader,
        worker_count,
    )
    from indexnet.run.ranks import started_here
    from indexnet.run.resume import find_checkpoint

    settings, training, seed = config["trainer"], config["training"], config["seed"]
    accelerator = _accelerator(settings)
    torch.manual_seed(seed)
    options = data_options(config)
    data = create_data(options.pop("name"), **options)
    train_set, tests = data.train(), records.measured_splits(data, config)
    steps = total_steps(training, config["budget"], len(train_set))
    task = _build_task(config, steps)
    limit = config["budget"].get("max_test")
    reads = [steps * training["batch_size"], *(len(split) if limit is None else limit for split in tests.values())]
    for split, count in zip((train_set, *tests.values()), reads, strict=True):
        if (said := split.prepare(count)) and process_rank() == 0:
            print(f"data {data.name}, {split.split}: {said}", flush=True)
    _check_samples(config, task, train_set)
    record.update(_describe(config, task, data, train_set, tests, steps))

    progress = Progress(folder.path / "progress.json", steps, training["batch_size"], before)
    resume, start = find_checkpoint(folder, config, settle=process_rank() == 0)
    trainer = _trainer(folder, config, accelerator, steps, start, progress)
    loggers.extend(trainer.loggers)
    counts = [len(test_set) if limit is None else min(limit, len(test_set)) for test_set in tests.values()]
    if trainer.world_size > min(counts):
        raise UserError(
            f"trainer.devices x num_nodes = {trainer.world_size} is more than the {min(counts)} images of a test set; "
            "use fewer."
        )
    ranks.start(trainer)
    if started_here():
        trainer.callbacks.append(Terminable())  # type: ignore[attr-defined]
    workers = worker_count(settings["num_workers"])
    if settings["channels_last"]:
        task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start < steps:
        stream = StepStream(
            len(train_set), training["batch_size"], steps, seed, start=start, accumulate=settings["accumulate"],
            rank=trainer.global_rank, world=trainer.world_size, overfit=config["debug"]["overfit"],
        )  # fmt: skip
        if settings["compile"]:
            task.network.compile()
        if process_rank() == 0:
            what = f"going on from step {start} of {steps}" if start else f"training for {steps} steps"
            print(f"{what}, batch {training['batch_size']}", flush=True)
        with one_sentence():
            trainer.fit(task, train_loader(train_set, stream, workers), ckpt_path=resume, weights_only=True)
    else:
        task.load_state_dict(torch.load(str(resume), weights_only=True, map_location="cpu")["state_dict"])
    task.begin_tests(list(tests))
    loaders = [
        evaluation_loader(
            test_set, task.test_batch_size, workers, rank=trainer.global_rank, world=trainer.world_size, limit=limit
        )
        for test_set in tests.values()
    ]
    collector = _collector(task)
    trainer.callbacks.append(collector)  # type: ignore[attr-defined]
    if process_rank() == 0:
        which = "" if record["split"] == "test" else f" of the {record['split']} split"
        print(f"testing on {sum(counts)} images{which}", flush=True)
    with one_sentence():
        trainer.test(task, loaders, verbose=False)
    expected = sum(counts)
    if not task.predictions_finite:
        raise DivergedError(f"the network's output is not finite after step {steps}")
    rows = collector.rows
    if len({row["name"] for row in rows}) != expected or len(rows) != expected:
        raise RuntimeError(f"{len(rows)} of {expected} test images were evaluated; the metrics would be wrong")
    if not trainer.is_global_zero:
        return
    record["metrics"] = {
        key.removeprefix("test/"): float(value) if math.isfinite(value) else None  # None: nothing to measure
        for key, value in trainer.callback_metrics.items()
        if "test/" in key
    }
    record["test_count"] = len(rows)
    record["train_samples_per_s"] = None if progress.samples_per_s is None else round(progress.samples_per_s, 3)
    record["peak_memory_mb"] = round(records.peak_memory_mb(trainer.strategy.root_device), 1)
    record["device"] = records.device_name(trainer.strategy.root_device)
    records.write_rows(folder.path / "per_image.csv", rows)
    task.to(trainer.strategy.root_device)
    _write_pictures(folder, task, tests, limit)


def _write_pictures(folder: RunFolder, task: Task, tests: Mapping[str, Dataset], limit: int | None) -> None:
    """Write the gallery; a picture that fails is a bug to show, but no reason to lose a trained and tested run."""
    import traceback

    from indexnet.files import DiskFullError
    from indexnet.run.gallery import write_gallery

    try:
        write_gallery(folder.path / "pictures", task, tests, limit=limit)
    except DiskFullError:
        raise  # they can be made once there is room
    except Exception:
        traceback.print_exc()
        print(f"indexnet: {folder.path}: the run is complete, but its pictures could not be made.", file=sys.stderr)


def _accelerator(settings: dict[str, Any]) -> str:
    """Settle the accelerator, and refuse what this machine does not have."""
    import torch

    from indexnet.run.checks import check_sync_batchnorm
    from indexnet.run.loader import process_rank

    gpus = torch.cuda.device_count()
    wanted = settings["accelerator"]
    if wanted == "gpu" and gpus == 0:
        raise UserError("trainer.accelerator=gpu but this machine shows no CUDA device; give trainer.accelerator=cpu.")
    accelerator = ("gpu" if gpus else "cpu") if wanted == "auto" else str(wanted)
    if accelerator == "gpu" and settings["devices"] > gpus:
        raise UserError(
            f"trainer.devices={settings['devices']} but this machine has {gpus} GPU{'s' if gpus > 1 else ''}; "
            f"give trainer.devices={gpus}, or trainer.accelerator=cpu for processes on the CPU."
        )
    check_sync_batchnorm(settings, accelerator)
    if settings["sync_batchnorm"] and settings["devices"] * settings["num_nodes"] == 1 and process_rank() == 0:
        print("trainer.sync_batchnorm=true does nothing on one device", flush=True)
    if accelerator == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, cores // settings["devices"]))
    return accelerator


def _check_samples(config: dict[str, Any], task: Task, train_set: Dataset) -> None:
    """Refuse a data set or a network that the task cannot use.

    Raises:
        UserError: samples lack what training reads, or have other channels than the network's input.
    """
    import numpy as np

    sample = train_set.sample(0, np.random.default_rng(0))
    missing = task.missing_keys(sample)
    if missing:
        raise UserError(
            f"data={config['data']['name']} gives no {', '.join(missing)}, which training task={task.name} needs; "
            "choose another data set."
        )
    given, wanted = task.input_channels(sample), task.network.in_channels
    if given != wanted:
        raise UserError(
            f"network={config['network']['name']} takes {wanted} input channels, but task={task.name} on "
            f"data={config['data']['name']} gives {given}; set network.in_channels={given} or choose another network."
        )
    given, wanted = task.network.out_channels, task.output_channels(sample)
    if given != wanted:
        raise UserError(
            f"network={config['network']['name']} has {given} output channels, but task={task.name} on "
            f"data={config['data']['name']} needs {wanted}; choose another network."
        )


def _build_task(config: dict[str, Any], steps: int) -> Task:
    from indexnet.run.config import network_spec
    from indexnet.run.loader import process_rank
    from indexnet.tasks import get_task

    schedule = dict(config["schedule"])
    if schedule["name"] == "multistep":
        epochs = config["training"]["epochs"]
        schedule["milestones"] = [round(steps * epoch / epochs) for epoch in schedule["milestones"]]
    options = {key: value for key, value in config["task"].items() if key not in ("name", "costs_size")}
    task = get_task(config["task"]["name"])(
        network=network_spec(config), optimizer=config["optimizer"], schedule=schedule, **options
    )
    task.config = config
    encoder = config["encoder"]
    if encoder.get("name") is not None and process_rank() == 0:
        weights = "pretrained" if encoder.get("pretrained") else "random"
        norm = "frozen" if encoder.get("freeze_bn") else "trained"
        rate = config["optimizer"]["encoder_lr_multiplier"]
        print(f"encoder {encoder['name']}: {weights} weights, batch norm {norm}, learning rate x {rate:g}", flush=True)
    return task


def _describe(
    config: dict[str, Any], task: Task, data: Data, train_set: Dataset, tests: Mapping[str, Dataset], steps: int
) -> dict[str, Any]:
    """Return the part of the record that is known before training."""
    import torch

    from indexnet.networks import create_network
    from indexnet.networks.costs import count_costs
    from indexnet.run import record as records

    side = config["task"]["costs_size"]
    size = (task.network.in_channels, side, side)
    spec = dict(task.network_spec)
    with torch.device("meta"):
        costs = count_costs(create_network(spec.pop("name"), **spec), size)
    return {
        "steps": steps,
        "data": {
            "name": data.name,
            "train": {"count": len(train_set), "fingerprint": train_set.fingerprint()},
            "test": records.describe_splits(tests),
        },
        "parameters": costs.parameters,
        "resampling_parameters": costs.resampling_parameters,
        "paper_gflops": costs.paper_gflops,
        "true_gmacs": costs.true_gmacs,
        "costs_input": list(size),
    }


def _trainer(
    folder: RunFolder, config: dict[str, Any], accelerator: str, steps: int, start: int, progress: pl.Callback
) -> pl.Trainer:
    import warnings

    import pytorch_lightning as pl

    from indexnet.run.callbacks import AtomicCheckpointIO, Checkpoints, StepSeed
    from indexnet.run.loggers import create_loggers

    settings = config["trainer"]
    every = settings["checkpoint_every"]
    if every == "auto":
        every = max(1, min(1000, steps // 20))
    devices = settings["devices"] * settings["num_nodes"]
    strategy = "ddp" if devices > 1 else "auto"
    if accelerator == "cpu" and devices > 2:
        # DDP otherwise regroups gradients after its first step, and a resumed run would add up three in another order
        strategy = "ddp_find_unused_parameters_true"
    show = sys.stderr.isatty() if settings["progress_bar"] == "auto" else bool(settings["progress_bar"])
    # Lightning cannot see that the order of the data follows from the step
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # Lightning's, about torch
    warnings.filterwarnings("ignore", message=".*`Trainer.fit` stopped.*")
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    return pl.Trainer(
        accelerator=accelerator,
        devices=settings["devices"],
        num_nodes=settings["num_nodes"],
        strategy=strategy,
        precision=settings["precision"],
        max_epochs=1,  # the stream of batches is the whole run
        max_steps=steps,
        accumulate_grad_batches=settings["accumulate"],
        gradient_clip_val=settings["gradient_clip"],
        sync_batchnorm=settings["sync_batchnorm"] and devices > 1,
        use_distributed_sampler=False,
        logger=create_loggers(folder, config, start),
        log_every_n_steps=max(1, min(50, steps // 100)),
        callbacks=[
            StepSeed(config["seed"]),
            progress,
            Checkpoints(folder.checkpoint(), every, steps),
        ],
        plugins=[AtomicCheckpointIO(folder.previous_checkpoint())],
        enable_checkpointing=False,
        enable_progress_bar=show,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder.path,
    )


def _collector(task: Task) -> Any:
    """Return a callback that gathers the per-image values of all ranks."""
    import pytorch_lightning as pl
    import torch.distributed as dist

    from indexnet.tasks import metric_key

    class Collector(pl.Callback):
        def __init__(self) -> None:
            self.rows: list[dict[str, Any]] = []

        def on_test_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int, loader: int = 0
        ) -> None:
            split = task.test_sets[loader]
            keys = [metric_key(split, name) for name in task.metric_names]
            columns = {key: task.test_metrics[key].latest.tolist() for key in keys}
            for i, name in enumerate(batch["name"]):
                values = {key: column[i] for key, column in columns.items()}
                self.rows.append({"name": metric_key(split, name), **values})

        def on_test_epoch_end(self, trainer: Any, module: Any) -> None:
            if trainer.world_size > 1:
                gathered: list[Any] = [None] * trainer.world_size
                dist.all_gather_object(gathered, self.rows)
                self.rows = [row for rows in gathered for row in rows]
            self.rows.sort(key=lambda row: str(row["name"]))

    return Collector()
