"""Loggers: CSV and TensorBoard by default, W&B where asked for."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from indexnet.run.config import config_hash
from indexnet.run.folder import RunFolder
from indexnet.run.loader import process_rank


def create_loggers(folder: RunFolder, config: dict[str, Any], start: int) -> list[Logger] | bool:
    """Build the loggers of a run; every one writes below the run's folder.

    Args:
        folder: of the run.
        config: its frozen configuration.
        start: optimizer steps that are done already; what was logged up to there is kept.

    Returns:
        The loggers, or False for none.
    """
    settings, loggers = config["logger"], []
    if settings["csv"]:
        loggers.append(_csv(folder, start))
    if settings["tensorboard"]:
        loggers.append(TensorBoardLogger(folder.path, name="", version="tensorboard"))
    if settings["wandb"]:
        loggers.append(_wandb(folder, config))
    return loggers or False


def _csv(folder: RunFolder, start: int) -> Logger:
    """Build the CSV logger; Lightning's empties the file of an earlier try, so its rows are handed over."""
    if process_rank() != 0:
        return CSVLogger(folder.path, name="", version="csv")
    file, kept = folder.path / "csv" / "metrics.csv", []
    if start and file.is_file():
        with file.open(newline="", encoding="utf-8") as lines:
            kept = [row for row in csv.DictReader(lines) if row.get("step", "").isdigit() and int(row["step"]) < start]
    shutil.rmtree(file.parent, ignore_errors=True)
    logger = CSVLogger(folder.path, name="", version="csv")
    if kept:
        logger.experiment.metrics.extend(kept)
    return logger


def _wandb(folder: RunFolder, config: dict[str, Any]) -> Logger:
    """One W&B run per (configuration, seed), grouped by experiment and row, offline unless the person is logged in."""
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    os.environ.setdefault("WANDB_SILENT", "true")
    experiment = config["experiment"]
    mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    return WandbLogger(
        project=config["logger"]["project"],
        name=f"{experiment['row'] or config['resampling']['name']}-seed{config['seed']}",
        id=config_hash(config),
        save_dir=folder.path,
        group=experiment["name"] or config["task"]["name"],
        job_type=experiment["row"] or "single",
        tags=[config["task"]["name"], config["resampling"]["name"], config["budget"]["name"]],
        config=config,
        mode=mode,
        resume="allow",
    )


def finish_loggers(loggers: Sequence[Logger], folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Hand over what the run has come to, and close.

    Args:
        loggers: of the first process of the run; empty where it failed before there were any.
        folder: of the run, with its record, per-image values and pictures written.
        record: as written; its status is ``running`` where the run was interrupted.
    """
    for logger in loggers:
        logger.finalize("success" if record["status"] == "done" else "failed")
