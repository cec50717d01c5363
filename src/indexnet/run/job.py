"""``indexnet job FOLDER``: one frozen configuration, from data to record. Knows nothing of Hydra."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from indexnet.core.errors import UserError
from indexnet.core.files import DiskFullError, disk_full_as_sentence, remove_parts
from indexnet.core.machine import keep_freed_memory
from indexnet.core.registry import load_plugins
from indexnet.run import processes
from indexnet.run.experiments.experiment import known_metrics
from indexnet.run.folder import RunFolder
from indexnet.run.freezing.checks import check_open, check_schedule
from indexnet.run.identity import config_hash
from indexnet.run.processes import (
    FULL,
    HANG_LOG,
    INTERRUPTED,
    LEADER,
    Cause,
    follow,
    killed_process,
    write_error,
)
from indexnet.run.record import DamagedRunError, Record, git_revision, now, read_progress, versions
from indexnet.run.resume import forget_step
from indexnet.run.schema import Config, read_config

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger


DIVERGED = 5


def run_job(path: Path) -> int:
    """Run the frozen configuration of a folder, or return at once where it is done.

    Returns:
        0 done; 5 diverged; 4 where another process of the run was killed: the record still says ``running``, and the
        same command goes on. A person's mistake raises UserError, a bug its own exception; both are recorded. A full
        disk raises DiskFullError and leaves the record at ``running``.
    """
    if os.environ.get(LEADER, str(os.getpid())) != str(os.getpid()):
        follow()  # first of all: what comes next takes seconds
    folder = RunFolder(path.resolve())
    folder.check_places()
    content = folder.config()
    config = read_config(content, f"{folder.path / 'config.yaml'}")
    keep_freed_memory()
    if config.trainer.accelerator == "cpu":  # before torch is imported: DDP warns of the strategy of fit._trainer
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from indexnet.run.loader import process_rank

    if process_rank() != 0:  # of several: the first holds the lock and writes the record
        return _run_further_process(folder, config)
    with folder.lock():
        folder.settle()
        folder.check_config(content)
        if folder.status() in ("done", "diverged"):
            return _finished(folder, before=True)
        _check_options(folder, config)
        code = _run_first_process(folder, config)
    if code == 0:
        _finished(folder)
    return code


def _check_options(folder: RunFolder, config: Config) -> None:
    """Refuse options that freezing would have refused, in a configuration that no record vouches for.

    Raises:
        DamagedRunError: there is one.
    """
    if folder.record() is not None:
        return
    try:
        load_plugins(config.plugins)
    except UserError:  # said, and recorded, where they are needed
        return
    try:
        check_open(config.content)
        check_schedule(config.schedule, config.content["training"])
    except UserError as error:
        raise DamagedRunError(f"{folder.path / 'config.yaml'}: {error}") from error


def first_record(config: Config) -> Record:
    """Return the record of a run that begins."""
    batch, devices = config.training.batch_size, config.trainer.processes
    used = {"training.batch_size": ("global batch", batch), "optimizer.lr": ("optimizer.lr", config.optimizer["lr"])}
    return Record(
        experiment=config.experiment.name,
        row=config.experiment.row,
        label=config.experiment.label,
        task=config.task["name"],
        seed=config.seed,
        budget=config.budget.name,
        training=dict(config.content["training"]),
        resampling=dict(config.resampling),
        batch={
            "global": batch,
            "devices": devices,
            "accumulate": config.trainer.accumulate_grad_batches,
            "per_device": batch // (devices * config.trainer.accumulate_grad_batches),
            "printed": config.protocol.get("training.batch_size"),
        },
        changes=[
            f"{used[key][0]} {used[key][1]:g} instead of the table's {value:g}"
            for key, value in config.protocol.items()
            if used[key][1] != value
        ],
        split=config.split,
        tags=list(config.tags),
        versions=versions(),
        git=git_revision(),
        config_hash=config_hash(config.content),
        started=now(),
        pid=os.getpid(),
    )


def _run_first_process(folder: RunFolder, config: Config) -> int:
    from indexnet.run.callbacks import DivergedError
    from indexnet.run.fit import execute
    from indexnet.run.loggers.create import finish_loggers
    from indexnet.run.loggers.wandb_logging import UnusableError

    path = folder.path
    earlier, record = folder.record(), first_record(config)
    if earlier is not None:  # killed or failed; this try goes on
        record.started = earlier.started or record.started
        record.code, record.code_before = earlier.code, earlier.code_before
        record.wall_time_s = max(earlier.wall_time_s or 0.0, read_progress(path).get("elapsed_s", 0.0))
    for inside in (path, *(each for each in path.rglob("*") if each.is_dir())):  # of a try that was killed
        remove_parts(inside)
    record.write(path)
    since = time.monotonic() - (record.wall_time_s or 0.0)
    code = 1
    loggers: list[Logger] = []
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]  # room for the record where files have run out

    def conclude() -> None:
        while spare:
            os.close(spare.pop())
        if record.status == "running":
            return
        record.finished, record.wall_time_s, record.pid = now(), round(time.monotonic() - since, 2), None
        if record.status in ("done", "diverged"):  # first, for what is finished is not looked at again
            folder.previous_checkpoint().unlink(missing_ok=True)
            forget_step(folder.checkpoint())
            (path / HANG_LOG).unlink(missing_ok=True)  # of an earlier try
        record.write(path)
        (path / "progress.json").unlink(missing_ok=True)

    def explain(cause: Cause) -> int:
        """Act on what happened in another process, and say it; return the exit code."""
        if cause.kind == "killed":
            print(f"indexnet: {path}: {cause.text}; the same command goes on.", file=sys.stderr, flush=True)
            return INTERRUPTED
        if cause.kind == "failed":
            print(cause.trace or f"indexnet: {path}: {cause.text}", file=sys.stderr, flush=True)
        if cause.kind != "full":
            record.status, record.error = "failed", f"{'UserError: ' if cause.kind == 'mistake' else ''}{cause.text}"
        return 1 if cause.kind == "failed" else 2

    def stuck(cause: Cause) -> None:
        """End this process, which waits for another that is gone; in a thread of its own."""
        if record.status != "running":
            return
        failed = 1
        try:
            failed = explain(cause)
            conclude()
            if cause.kind in ("full", "mistake"):
                print(f"indexnet: {path}: {cause.text}", file=sys.stderr, flush=True)
        finally:
            os._exit(failed)

    ranks = processes.Ranks(path, stuck, hang=config.trainer.timeout)
    try:
        with disk_full_as_sentence(path):
            execute(folder, config, record, loggers, ranks, since)
        record.status, code = "done", 0
    except DivergedError as error:
        record.status, record.error = "diverged", str(error)
        print(f"indexnet: {path}: {error}; {error.remedy}.", file=sys.stderr)
        code = DIVERGED
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns the first into the second
        raise KeyboardInterrupt from error  # the record stays "running": the same command goes on
    except (DiskFullError, UnusableError):
        raise  # the record stays "running" here, too
    except BaseException as error:
        cause = ranks.cause(error)
        if cause is None:
            record.status, record.error = "failed", f"{type(error).__name__}: {error}"
            raise
        code = explain(cause)
        if cause.kind == "full":
            raise DiskFullError(cause.text) from None
        if cause.kind == "mistake":
            raise UserError(cause.text) from None
        if cause.kind == "failed" and not killed_process(error):  # an error of its own besides
            raise RuntimeError(cause.text) from error
    finally:
        try:
            with disk_full_as_sentence(path):
                conclude()
                finish_loggers(loggers, folder, record.to_json())
        finally:
            ranks.close(code)
    return code


def _run_further_process(folder: RunFolder, config: Config) -> int:
    """Take part in a run whose first process records it; an error of this process is left for that one."""
    from indexnet.run.callbacks import DivergedError
    from indexnet.run.fit import execute
    from indexnet.run.loader import process_rank

    def stuck(cause: Cause) -> None:
        os._exit(INTERRUPTED)

    ranks = processes.Ranks(folder.path, stuck, first=False, hang=config.trainer.timeout)
    code = 0
    try:
        with disk_full_as_sentence(folder.path):
            execute(folder, config, Record(), [], ranks)
    except DivergedError:
        pass  # the first process says so
    except BaseException as error:
        mistake = isinstance(error, UserError)
        if isinstance(error, KeyboardInterrupt | SystemExit) or (not mistake and killed_process(error)):
            code = INTERRUPTED
        else:
            code = FULL if isinstance(error, DiskFullError) else 2 if mistake else 1
            told = write_error(folder.path, process_rank(), error)  # by the first process, once
            if code == 1 and not told:
                raise
    finally:
        ranks.close(code)
    return code


def _finished(folder: RunFolder, before: bool = False) -> int:
    record = folder.record()
    assert record is not None
    remark = record.code_remark() if before else ""
    again = f"{remark}: rerun=changed does it again" if remark else ""
    if record.status == "diverged":
        print(f"indexnet: {folder.path}: {record.error}.{again and f' But {again}.'}", file=sys.stderr)
        return DIVERGED
    said = "done before" if before else "done"
    print(f"{said}: {folder.path}, measured on {record.test_count} images{again and f'; but {again}'}:")
    for name, value in record.metrics.items():
        print(f"  {_result(name, value, record.units)}")
    return 0


def _result(name: str, value: float | None, units: Mapping[str, str]) -> str:
    """Return a metric as a person reads it: ``psnr = 27.31 dB (higher is better)``."""
    if value is None:
        return f"{name} is not measurable"
    info = known_metrics().get(name.rpartition("/")[2])
    unit, better = "", ""
    if info is not None:
        unit = units.get(info.name, info.unit)
        unit = f"{'' if unit == '%' else ' '}{unit}" if unit else ""
        better = f" ({'higher' if info.higher_is_better else 'lower'} is better)"
    return f"{name} = {value:.4g}{unit}{better}"
