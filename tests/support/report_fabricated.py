"""Fabricated experiments and run folders for the tests of reports: small, deterministic, in the real layout."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from indexnet.report.build import build
from indexnet.run.experiments.experiment import Column, Experiment, Row
from indexnet.run.run_sets import find_run_sets

PSNR = {"metric": "psnr", "title": "PSNR (dB)", "higher_is_better": True, "digits": 2}
MAE = {"metric": "mae", "title": "MAE", "higher_is_better": False, "digits": 4}


def column(**values: Any) -> Any:
    return Column(**{"printed": "", **values})


def row(name: str, label: str = "", **values: Any) -> Any:
    return Row(**{"name": name, "label": label or name, "overrides": (), "printed": {}, "pending": "", **values})


def experiment(rows: Sequence[Any], columns: Sequence[Any], **values: Any) -> Any:
    defaults = {
        "name": "made_up",
        "title": "A made-up table",
        "source": "nobody (2021), table 1",
        "task": "reconstruction",
        "notes": "",
        "seeds": (0, 1),
        "reference": None,
        "exceptions": {},
        "ranks": True,
        "cost_input": (1, 32, 32),
    }
    return Experiment(**{**defaults, **values, "rows": tuple(rows), "columns": tuple(columns)})


def built(runs: Path, rows: Sequence[Any], columns: Sequence[Any], **values: Any) -> Any:
    """The table of a made-up experiment and of its runs in this folder."""
    return build(experiment(rows, columns, **values), find_run_sets(runs, "made_up")[0])


def record(metrics: Mapping[str, float] | None = None, **values: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "schema": 1,
        "status": "done",
        "label": None,
        "training": {"steps": 200, "batch_size": 64},
        "steps": 200,
        "metrics": dict(metrics or {}),
        "test_count": 4,
        "data": {
            "name": "photos",
            "train": {"count": 4096, "fingerprint": "aa"},
            "test": {"count": 4, "fingerprint": "bb"},
        },
        "parameters": 100_000,
        "resampling_parameters": 0,
        "paper_gflops": 0.05,
        "true_gmacs": 0.054,
        "costs_input": [1, 32, 32],
        "train_samples_per_s": 900.0,
        "peak_memory_mb": 512.0,
        "device": "a CPU (1 threads)",
        "versions": {"indexnet": "0.1.0", "torch": "2.13.0"},
        "git": "0123456789abcdef",
        "wall_time_s": 12.0,
        "started": "2026-11-21T09:00:00+00:00",
        "finished": "2026-11-21T09:00:12+00:00",
        "config_hash": "c0ffee",
        "error": None,
    }
    return {**found, **values}


def write_run(
    runs: Path,
    row_name: str,
    seed: int,
    content: Mapping[str, Any] | None,
    *,
    name: str = "made_up",
    setting: str = "photos-small",
    per_image: Mapping[str, Sequence[float | str]] | None = None,
    splits: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    curve: Sequence[tuple[int, float]] | None = None,
    pictures: Sequence[tuple[str, str, int | None, np.ndarray]] = (),
) -> Path:
    """Write one run folder.

    Args:
        per_image: values of one test split by metric.
        splits: the same for several named splits.
        pictures: (sample, kind, stage, pixels).
    """
    folder = runs / name / setting / row_name / f"seed={seed}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
    if content is not None:
        (folder / "record.json").write_text(json.dumps(content), encoding="utf-8")
    tables = splits or ({"": per_image} if per_image else {})
    if tables:  # as the run writes it: every image fills its own split's columns
        columns = [f"{split}/{metric}".strip("/") for split, values in tables.items() for metric in values]
        with (folder / "per_image.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["name", *columns], restval="")
            writer.writeheader()
            for split, values in tables.items():
                for index, cells in enumerate(zip(*values.values(), strict=True)):
                    line = {f"{split}/{metric}".strip("/"): cell for metric, cell in zip(values, cells, strict=True)}
                    writer.writerow({"name": f"{split}/image {index}".strip("/"), **line})
    if curve:
        (folder / "csv").mkdir()
        lines = [f"{step},,{value}" for step, value in curve]
        (folder / "csv" / "metrics.csv").write_text("\n".join(["step,test/psnr,train/loss", *lines, "200,30.0,"]))
    if pictures:
        (folder / "pictures").mkdir()
        entries = []
        for number, (sample, kind, stage, pixels) in enumerate(pictures):
            file = f"{number}.png"
            Image.fromarray(pixels).save(folder / "pictures" / file)
            entries.append({"file": file, "sample": sample, "kind": kind, "stage": stage, "caption": ""})
        (folder / "pictures" / "pictures.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def falling_loss(start: float, end: float, steps: int = 200) -> list[tuple[int, float]]:
    return [(step, end + (start - end) * math.exp(-step / 30)) for step in range(0, steps, 2)]
