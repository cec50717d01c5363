"""The record of a run: everything that a report needs, in one JSON file."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import io
import math
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from indexnet.run.folder import SCHEMA

_PACKAGES = ("indexnet", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "hydra-core", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Return the revision of the checkout that runs, with ``-dirty`` where it has changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def device_name(device: torch.device) -> str:
    """Return what a person calls the device, with the threads or memory that matter."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB)"
    return f"{_cpu_model()} ({torch.get_num_threads()} threads)"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak of this process: allocated device memory on CUDA, resident memory on the CPU, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def start(config: dict[str, Any], config_digest: str) -> dict[str, Any]:
    """Return the record of a run that begins."""
    experiment, trainer = config["experiment"], config["trainer"]
    devices = trainer["devices"] * trainer["num_nodes"]
    batch = config["training"]["batch_size"]
    printed = config.get("protocol") or {}
    return {
        "schema": SCHEMA,
        "status": "running",
        "experiment": experiment["name"],
        "row": experiment["row"],
        "label": experiment["label"],
        "task": config["task"]["name"],
        "seed": config["seed"],
        "budget": config["budget"]["name"],
        "training": config["training"],
        "resampling": config["resampling"],
        "batch": {
            "global": batch,
            "devices": devices,
            "accumulate": trainer["accumulate"],
            "per_device": batch // (devices * trainer["accumulate"]),
            "printed": printed.get("training.batch_size"),
        },
        "changes": _changes(config, printed),
        "split": config.get("split", "test"),
        "metrics": {},
        "versions": versions(),
        "git": git_revision(),
        "config_hash": config_digest,
        "started": now(),
        "pid": os.getpid(),
        "error": None,
    }


def _changes(config: Mapping[str, Any], printed: Mapping[str, float]) -> list[str]:
    """Say in which of the printed settings a run differs, one sentence each."""
    used = {"training.batch_size": config["training"]["batch_size"], "optimizer.lr": config["optimizer"]["lr"]}
    words = {"training.batch_size": "global batch", "optimizer.lr": "optimizer.lr"}
    return [
        f"{words[key]} {used[key]:g} instead of the printed {value:g}"
        for key, value in printed.items()
        if used[key] != value
    ]


def skipped_files(found: Mapping[str, int]) -> dict[str, Any]:
    """Describe the damaged files that a run went without.

    Args:
        found: what is wrong with each, naming it, and how many training samples have met it.
    """
    return {"count": len(found), "files": [{"problem": line, "samples": found[line]} for line in sorted(found)]}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``per_image.csv``, atomically: a line per image, a column per metric; a cell without a number is empty.

    Args:
        path: the file.
        rows: ``name`` and metrics; rows of different test splits have different metrics.
    """
    from indexnet.core.files import atomic_write

    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        empty = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        writer.writerow({**row, **dict.fromkeys(empty, "")})
    atomic_write(path, text.getvalue())
