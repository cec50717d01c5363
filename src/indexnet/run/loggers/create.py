"""Loggers: CSV and TensorBoard by default, W&B where asked for."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from indexnet.core.console import warn
from indexnet.core.readers import DamagedFileError, read_csv
from indexnet.run.folder import RunFolder
from indexnet.run.loader import process_rank
from indexnet.run.loggers.curve import CurveLogger, known_from, rows_of
from indexnet.run.loggers.wandb_logging import finish_run, settle_mode, start_run
from indexnet.run.record import Record
from indexnet.run.resume import BROKEN
from indexnet.run.schema import LoggerConfig

Rows = list[dict[str, str]]


def create_loggers(
    folder: RunFolder,
    settings: LoggerConfig,
    record: Record,
    content: Mapping[str, Any],
    start: int,
    curve: str | None = None,
    every: int = 1,
) -> list[Logger] | bool:
    """Build the loggers of a run; every one writes below the run's folder.

    Args:
        folder: of the run.
        settings: which loggers.
        record: of the run as it begins, which is told where the learning curve has a gap; of no use in any process but
            the first.
        content: the run's frozen configuration, to be shown.
        start: optimizer steps that are done already; what was logged up to there is kept.
        curve: what was logged up to there, as the checkpoint holds it; None where it does not.
        every: optimizer steps between two logged losses.

    Returns:
        The loggers, or False for none.

    Raises:
        UserError: W&B is wanted and cannot be used.
    """
    loggers: list[Logger] = []
    rows: Rows | None = None
    if settings.csv:
        first = process_rank() == 0
        rows = _kept(folder, record, start, curve, every) if first else []
        if first and not rows:  # of a try that is not gone on with
            (folder.path / "csv" / "metrics.csv").unlink(missing_ok=True)
        loggers.append(CurveLogger(folder.path / "csv" / "metrics.csv", rows, writes=first))
    if settings.tensorboard:
        # what a killed try logged beyond its last checkpoint is logged again, and shown once
        loggers.append(TensorBoardLogger(folder.path, name="", version="tensorboard", purge_step=start))
    if settings.wandb and (mode := settle_mode(settings.mode)) != "disabled":
        run = None  # in all processes but the first, which log nothing
        if process_rank() == 0:
            run = start_run(folder, record, content, settings.project, mode, start, rows)
        loggers.append(_Wandb(project=settings.project, save_dir=folder.path, experiment=run))
    return loggers or False


def _kept(folder: RunFolder, record: Record, start: int, curve: str | None, every: int) -> Rows:
    """Return the logged rows of the steps that are done: what the checkpoint holds, or else what stands in the file."""
    if not start:
        return []
    file = folder.path / "csv" / "metrics.csv"
    rows: Rows = []
    if curve is not None:
        rows = rows_of(curve)
    else:
        with contextlib.suppress(FileNotFoundError):
            try:
                rows = read_csv(file)
            except DamagedFileError as error:
                aside = file.with_name(file.name + BROKEN)
                os.replace(file, aside)
                warn(f"indexnet: {error} It is kept as {aside.name}.")
    rows = [row for row in rows if row.get("step", "").isdecimal() and int(row["step"]) < start]
    record.curve_from = known_from(rows, start, every)
    if record.curve_from is not None:
        warn(
            f"indexnet: {folder.path}: the learning curve is not known before step {record.curve_from}: the checkpoint "
            f"does not hold it, and {file.name} does not either; the record says so (curve_from)."
        )
    return rows


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
