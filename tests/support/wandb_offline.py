"""Reads what W&B wrote offline. The format is not documented; ``wandb leet inspect`` is its one public reader."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class OfflineRun:
    """One ``.wandb`` file.

    Attributes:
        folder: ``offline-run-<time>-<id>``.
        run: how it was started: ``run_id``, ``display_name``, ``run_group``, ``job_type``, ``tags``, ``project``.
        config: as given at the start.
        summary: the last value of every key; nested as logged.
        history: rows in order.
        files: paths below ``files/`` that belong to the run.
        step_metrics: glob or name -> its x axis.
        exit_code: None where the process was killed.
    """

    folder: Path
    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    step_metrics: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None


def offline_runs(folder: Path) -> list[Path]:
    """Return the ``.wandb`` files of a run folder, oldest first."""
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def read_offline(path: Path) -> OfflineRun:
    """Read a ``.wandb`` file, also one that a killed process left unfinished."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=False, cwd=path.parent).stdout
    found = OfflineRun(path.parent)
    for line in output.splitlines():
        entry = json.loads(line)
        kind = entry["type"]
        value = entry[kind]
        if kind == "run":
            found.config = {k: v for k, v in value["config"]["update"].items() if k != "_wandb"}
            found.run = {k: v for k, v in value.items() if k != "config"}
        elif kind == "summary":
            found.summary.update(value.get("update", {}))
        elif kind == "history":
            found.history.append(_nested(value["item"]))
        elif kind == "files":
            found.files += [file["path"] for file in value["files"]]
        elif kind == "metric" and "step_metric" in value:
            found.step_metrics[value.get("glob_name") or value["name"]] = value["step_metric"]
        elif kind == "exit":
            found.exit_code = value.get("exit_code", 0)
    return found


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    """Undo the reader's flattening: ``{"table.path": ...}`` is ``{"table": {"path": ...}}``."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        name, _, inner = key.partition(".")
        if inner:
            found.setdefault(name, {})[inner] = value
        else:
            found[name] = value
    return found
