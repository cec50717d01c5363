"""Loggers: CSV and TensorBoard by default, W&B where asked for."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from indexnet.run.folder import RunFolder
from indexnet.run.loader import process_rank
from indexnet.run.loggers.wandb_logging import finish_run, settle_mode, start_run
from indexnet.run.record import Record
from indexnet.run.schema import LoggerConfig

Rows = list[dict[str, str]]


def create_loggers(
    folder: RunFolder, settings: LoggerConfig, record: Record, content: Mapping[str, Any], start: int
) -> list[Logger] | bool:
    """Build the loggers of a run; every one writes below the run's folder.

    Args:
        folder: of the run.
        settings: which loggers.
        record: of the run as it begins; of no use in any process but the first.
        content: the run's frozen configuration, to be shown.
        start: optimizer steps that are done already; what was logged up to there is kept.

    Returns:
        The loggers, or False for none.

    Raises:
        UserError: W&B is wanted and cannot be used.
    """
    loggers: list[Logger] = []
    rows: Rows | None = None
    if settings.csv:
        rows = [] if process_rank() else _kept(folder, start)
        loggers.append(_csv(folder, rows))
    if settings.tensorboard:
        # what a killed try logged beyond its last checkpoint is logged again, and shown once
        loggers.append(TensorBoardLogger(folder.path, name="", version="tensorboard", purge_step=start))
    if settings.wandb and (mode := settle_mode(settings.mode)) != "disabled":
        run = None  # in all processes but the first, which log nothing
        if process_rank() == 0:
            run = start_run(folder, record, content, settings.project, mode, start, rows)
        loggers.append(_Wandb(project=settings.project, save_dir=folder.path, experiment=run))
    return loggers or False


def _kept(folder: RunFolder, start: int) -> Rows:
    """Return the logged rows of the steps that are done, and set their file aside where :func:`_csv` finds it again."""
    file, aside = folder.path / "csv" / "metrics.csv", folder.path / ".metrics.csv"
    if file.is_file() and not aside.is_file():  # there already where a process was killed between here and _csv
        os.replace(file, aside)
    if not start or not aside.is_file():
        return []
    with aside.open(newline="", encoding="utf-8") as lines:
        return [row for row in csv.DictReader(lines) if row.get("step", "").isdigit() and int(row["step"]) < start]


def _csv(folder: RunFolder, kept: Rows) -> Logger:
    """Build the CSV logger; Lightning's empties the file of an earlier try, so its rows are handed over."""
    if process_rank() != 0:
        return CSVLogger(folder.path, name="", version="csv")
    shutil.rmtree(folder.path / "csv", ignore_errors=True)
    # every row goes to the file at once: a killed run goes on with what stands there
    logger = CSVLogger(folder.path, name="", version="csv", flush_logs_every_n_steps=1)
    if kept:
        logger.experiment.metrics.extend(kept)
        logger.save()
    (folder.path / ".metrics.csv").unlink(missing_ok=True)
    return logger


class _Wandb(WandbLogger):
    """Lightning's logger, but a W&B that breaks does not take the training with it."""

    _broken = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log, or after a first failure do nothing."""
        if self._broken:
            return
        try:
            super().log_metrics(metrics, step)
        except Exception as error:
            self._broken = True
            print(f"indexnet: W&B does not log any more ({error}); the run goes on without it.", file=sys.stderr)


def finish_loggers(loggers: Sequence[Logger], folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Hand over what the run has come to, and close.

    Args:
        loggers: of the first process of the run; empty where it failed before there were any.
        folder: of the run, with its record, per-image values and pictures written.
        record: as written; its status is ``running`` where the run was interrupted.
    """
    for logger in loggers:
        logger.finalize("success" if record["status"] == "done" else "failed")
        if isinstance(logger, WandbLogger):
            finish_run(logger.experiment, folder, record)
