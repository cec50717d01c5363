"""Small runs with ``logger=wandb``."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

from indexnet.run.config import compose, freeze
from indexnet.run.folder import RunFolder, prepare
from indexnet.run.identity import config_hash
from indexnet.run.job import first_record
from indexnet.run.loggers.create import create_loggers
from indexnet.run.loggers.wandb_identity import first_id
from indexnet.run.loggers.wandb_logging import start_run
from indexnet.run.record import Record
from indexnet.run.schema import read_config

TINY = [
    "experiments=thesis/table3_2_reconstruction",
    "experiment.row=ip_iu_o2o_modelwise",
    "data=photos",
    "network.widths=[4,8]",
    "training.batch_size=4",
    "data.train_count=32",
    "data.test_count=5",
    "trainer.accelerator=cpu",
    "trainer.num_workers=0",
    "logger=wandb",
]


@functools.cache
def _tiny(*overrides: str) -> dict[str, Any]:
    return freeze(compose([*TINY, *overrides]))


def prepare_tiny(tmp_path: Path, *overrides: str) -> RunFolder:
    config = copy.deepcopy(_tiny(*overrides))  # which is composed once for all that differ in their place alone
    config["paths"]["runs"] = str(tmp_path / "runs")
    return prepare(config)


def _begun(folder: RunFolder) -> tuple[Record, dict[str, Any]]:
    content = folder.config()
    record = first_record(read_config(content))
    record.data.name = content["data"]["name"]
    return record, content


def identity(folder: RunFolder) -> str:
    """Return the id of the W&B run that a folder has."""
    return str(json.loads((folder.path / "wandb" / "run.json").read_text())["id"])


def identity_of_old(folder: RunFolder) -> str:
    """Return the id that an earlier version, which did not keep it, has given the folder's run."""
    content = folder.config()
    return first_id(folder, config_hash(content), content["data"].get("root"))


def start_wandb(folder: RunFolder, mode: str, start: int = 0, rows: Any = ()) -> Any:
    record, content = _begun(folder)
    return start_run(folder, record, content, content["logger"]["project"], mode, start, rows)


def loggers_of(folder: RunFolder, start: int = 0) -> Any:
    record, content = _begun(folder)
    return create_loggers(folder, read_config(content).logger, record, content, start)


def loss_rows(steps):
    return [{"epoch": "0", "step": str(step), "train/loss": repr(1 / (step + 1)), "test/psnr": ""} for step in steps]


def record_of(status: str, **more) -> dict:
    return {"status": status, "metrics": {}, "steps": 8, **more}
