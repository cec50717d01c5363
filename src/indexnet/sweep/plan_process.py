"""Measure the rows of a table, each in a fresh process and away from the folders of its runs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexnet.sweep.plan_estimate import Loading, estimate
from indexnet.sweep.plan_sweep import PlannedRow, Sweep

_SLOW_LOADING = 2.0  # seconds of decoding from which on a data set is measured by itself instead of in every row
_POLL = 0.05
NOTES = "plan.json"
"""The file in its folder that a measuring process writes what it finds to."""

Say = Callable[[str], None]


@dataclass
class _Measuring:
    """One process that measures, with its folder; seconds on the monotonic clock."""

    row: PlannedRow
    folder: Path
    process: subprocess.Popen[bytes]
    spawned: float
    ended: float = 0.0

    def notes(self) -> dict[str, Any]:
        """Return what the process has found, with an ``error`` where it did not come to its end."""
        from indexnet.core.files import read_json

        found: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            found = read_json(self.folder / NOTES)
        code = self.process.returncode
        if code != 0 and "error" not in found:
            killed = f"was killed by signal {-code}, as the system does when memory runs out"
            found["error"] = f"its measuring process {killed if code < 0 else f'ended with exit code {code}'}"
        return found

    def files(self) -> dict[str, int]:
        """Return the bytes that it left, by first folder or file."""
        sizes: dict[str, int] = {}
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name != NOTES:
                top = path.relative_to(self.folder).parts[0]
                sizes[top] = sizes.get(top, 0) + path.stat().st_size
        return sizes


def measure_rows(sweep: Sweep, rows: Sequence[PlannedRow], limit: float, say: Say = lambda text: None) -> None:
    """Measure every row that has runs left, and give it an estimate or an error.

    On the CPU as many at a time as the sweep runs, so that they disturb each other as its runs will; on a GPU one at a
    time.

    Args:
        sweep: the runs.
        rows: of it.
        limit: seconds of measured training for each row.
        say: is told what begins.
    """
    import torch

    wanted = [row for row in rows if row.left]
    gpu = torch.cuda.is_available() and any(row.config["trainer"]["accelerator"] != "cpu" for row in wanted)
    loadings: dict[str, Loading] = {}
    own_data = {_data_key(row): row for row in reversed(wanted) if row.config["data"].get("cache")}

    def load(row: PlannedRow, folder: Path) -> list[str]:
        say(f"loading data {row.config['data']['name']}")
        return [*_prepare(row.config, folder, limit), "--data", str(row.steps * row.config["training"]["batch_size"])]

    def loaded(done: _Measuring) -> None:
        found = done.notes()
        if found.get("prepare_s", 0.0) >= _SLOW_LOADING:
            loadings[_data_key(done.row)] = Loading(found["prepare_s"], found["prepare_mb"], found["sample_s"])

    _run(list(own_data.values()), load, loaded, 1)
    missing: dict[str, str] = {}  # encoders whose weights are not here: no need to look for them once more

    def start(row: PlannedRow, folder: Path) -> list[str] | None:
        row.error = missing.get(json.dumps(row.config["encoder"]), "")
        if row.error:
            return None
        say(f"measuring {row.name}")
        return _prepare(_short(row, _data_key(row) in loadings), folder, limit)

    def ended(done: _Measuring) -> None:
        row, found = done.row, done.notes()
        row.error = found.get("error", "")
        if "encoder.pretrained" in row.error:
            missing[json.dumps(row.config["encoder"])] = row.error
        if found.get("points"):
            row.device, row.device_mb = found["device"], found["cuda_mb"]
            row.estimate = estimate(
                found, spawned=done.spawned, ended=done.ended, steps=row.steps, tests=row.tests, files=done.files(),
                loading=loadings.get(_data_key(row)),
            )  # fmt: skip

    _run(wanted, start, ended, 1 if gpu else sweep.n_jobs)


def _data_key(row: PlannedRow) -> str:
    return json.dumps([row.config["data"], row.config["training"]["size"]], sort_keys=True)


def _short(row: PlannedRow, is_loaded: bool) -> dict[str, Any]:
    """Return the configuration of a measured run: few test images, no W&B, no second decoding of a slow data set."""
    from indexnet.tasks import get_task

    config = row.config
    few = row.devices * max(4, 3 * get_task(config["task"]["name"]).test_batch_size)
    cap = config["budget"].get("max_test")
    return {
        **config,
        "budget": {**config["budget"], "max_test": few if cap is None else min(few, cap)},
        "data": {**config["data"], "cache": False} if is_loaded else config["data"],
        "logger": {**config["logger"], "wandb": False},
        "trainer": {**config["trainer"], "progress_bar": False},
    }


def _prepare(config: dict[str, Any], folder: Path, limit: float) -> list[str]:
    """Freeze a configuration into a folder; return the command that measures it."""
    import yaml

    from indexnet.core.files import atomic_write

    frozen = {**config, "paths": {**config["paths"], "runs": str(folder.parent)}}
    atomic_write(folder / "config.yaml", yaml.safe_dump(frozen, sort_keys=False))
    return [sys.executable, "-m", "indexnet.sweep.plan_measure", str(folder), f"{limit:g}"]


def _run(
    rows: Sequence[PlannedRow],
    start: Callable[[PlannedRow, Path], list[str] | None],
    ended: Callable[[_Measuring], None],
    n_jobs: int,
) -> None:
    """Run a process for each row, ``n_jobs`` at a time; the folder of each is gone when it has ended."""
    from indexnet.core.machine import die_with_parent
    from indexnet.run.processes import job_environment, terminate_as_interrupt

    waiting, running = deque(rows), list[tuple[_Measuring, tempfile.TemporaryDirectory[str]]]()
    try:
        with terminate_as_interrupt():
            while waiting or running:
                while waiting and len(running) < n_jobs:
                    row, place = waiting.popleft(), tempfile.TemporaryDirectory(prefix="indexnet-plan-")
                    folder = Path(place.name).resolve() / "run"
                    command = start(row, folder)
                    if command is None:
                        place.cleanup()
                        continue
                    with (folder / "console.log").open("wb") as console:
                        spawned = time.monotonic()
                        process = subprocess.Popen(
                            command,
                            env=job_environment(row.devices, n_jobs),
                            stdin=subprocess.DEVNULL,
                            stdout=console,
                            stderr=subprocess.STDOUT,
                            preexec_fn=die_with_parent(os.getpid()),
                        )
                    running.append((_Measuring(row, folder, process, spawned), place))
                time.sleep(_POLL)
                for each in [pair for pair in running if pair[0].process.poll() is not None]:
                    running.remove(each)
                    each[0].ended = time.monotonic()
                    ended(each[0])
                    each[1].cleanup()
    finally:
        for measuring, place in running:
            measuring.process.kill()
            measuring.process.wait()
            place.cleanup()
