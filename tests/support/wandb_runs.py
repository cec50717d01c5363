"""Small runs with ``logger=wandb``."""

from __future__ import annotations

from pathlib import Path

from indexnet.run.config import compose, freeze
from indexnet.run.folder import RunFolder, prepare

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


def prepare_tiny(tmp_path: Path, *overrides: str) -> tuple[RunFolder, dict]:
    config = freeze(compose([*TINY, *overrides, f"paths.runs={tmp_path / 'runs'}"]))
    return prepare(config), config


def loss_rows(steps):
    return [{"epoch": "0", "step": str(step), "train/loss": repr(1 / (step + 1)), "test/psnr": ""} for step in steps]


def record_of(status: str, **more) -> dict:
    return {"status": status, "metrics": {}, "steps": 8, **more}
