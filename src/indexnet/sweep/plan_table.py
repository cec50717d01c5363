"""What a table takes, as a table, sentences and plain data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from indexnet.core.files import format_bytes
from indexnet.core.machine import available_memory
from indexnet.sweep.plan import Sweep, nearest_folder
from indexnet.sweep.plan_estimate import PlannedRow, Totals
from indexnet.sweep.progress import duration


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _size(mb: float) -> str:
    return format_bytes(round(mb * 2**20))


def table(sweep: Sweep, rows: Sequence[PlannedRow]) -> Table:
    """Lay the rows out as a table."""
    shown = Table(box=box.SIMPLE_HEAD, title=_title(sweep), title_justify="left", title_style="bold")
    shown.add_column("row", overflow="fold", min_width=8)
    for heading in ("s/step", "steps", "start", "test", "one run", "memory", "disk", "runs left"):
        shown.add_column(heading, justify="right", no_wrap=heading != "runs left")
    for row in rows:
        left = f"{len(row.left)} of {row.runs}"
        found = row.estimate
        if found is None:
            word = "" if row.left else "damaged" if row.damaged else "failed before" if row.failed else "done"
            shown.add_row(Text(row.name), "cannot run" if row.error else word, str(row.steps), *[""] * 5, left)
            continue
        about = "" if found.is_whole else "~"
        shown.add_row(
            Text(row.name),
            about + _seconds(found.step_s),
            str(found.steps),
            duration(found.start_s),
            duration(found.test_s),
            about + duration(found.seconds),
            about + _size(found.memory_mb),
            format_bytes(found.disk_bytes),
            left,
        )
    return shown


def _title(sweep: Sweep) -> str:
    data = dict.fromkeys(config.data["name"] for config in sweep.configs)
    budgets = dict.fromkeys(config.budget.name for config in sweep.configs)
    return f"{sweep.experiment.name}: data {', '.join(data)}, budget {', '.join(budgets)}"


def remarks(sweep: Sweep, rows: Sequence[PlannedRow], totals: Totals, limit: float) -> Iterator[tuple[str, bool]]:
    """Yield what there is to say below the table, in sentences, and whether each is a warning."""
    runs, left = sum(row.runs for row in rows), sum(len(row.left) for row in rows)
    text = f"{left} of {runs} runs are left"
    if begun := sum(step > 0 for row in rows for step in row.left):
        text += f", {begun} of them begun"
    if failed := sum(row.failed for row in rows):
        text += f"; {failed} failed before and stay as they are (retry_failed=true tries them again)"
    yield f"{text}.", False
    for sentence in (each for row in rows for each in row.damaged):
        yield f"A run cannot be used and is left out: {sentence}", True
    for error in dict.fromkeys(row.error for row in rows if row.error):
        yield f"{', '.join(row.name for row in rows if row.error == error)}: {error.rstrip('.')}.", True
    measured = [row for row in rows if row.estimate is not None]
    if not measured:
        return
    if unknown := sum(len(row.left) for row in rows if row.estimate is None):
        yield f"{unknown} runs were not measured and are left out below.", True
    gpu = any(row.device_mb for row in measured)
    noun = "GPU" if gpu else "machine"
    walls = [
        f"{'too few' if wall is None else duration(wall)} on {count} {noun}{'s' if count > 1 else ''}"
        for count, wall in totals.wall_s.items()
    ]
    each = "" if gpu else f", {sweep.n_jobs} at a time on each"
    yield f"Time left with the like of this device: {', '.join(walls)}{each}.", False
    if gpu and sweep.n_jobs == 1:
        yield "`indexnet train -m` uses one GPU after the other unless told hydra.launcher.n_jobs=NUMBER.", False
    yield from _memory(sweep, measured, totals)
    yield from _disk(sweep, totals)
    if any(row.estimate is not None and not row.estimate.is_whole for row in rows):
        yield (
            f"~: a few steps of the real batch take longer than {limit:g} s; from smaller batches, by a straight line.",
            False,
        )
    if any(row.name != row.config.experiment.row for row in rows):
        yield "What the table repeats its rows for was measured once.", False
    yield f"Measured on {', '.join(dict.fromkeys(row.device for row in measured))}; other devices differ.", False


def _memory(sweep: Sweep, measured: Sequence[PlannedRow], totals: Totals) -> Iterator[tuple[str, bool]]:
    device_mb = next((row.device_mb for row in measured if row.device_mb), None)
    there = available_memory() / 2**20 if device_mb is None else device_mb
    what = "available on this machine" if device_mb is None else "of the GPU"
    times = f" ({sweep.n_jobs} runs at a time)" if sweep.n_jobs > 1 else ""
    needs = f"Memory: {_size(totals.memory_mb)}{times} of the {_size(there)} {what}"
    if totals.memory_mb < there:
        yield f"{needs}.", False
    elif sweep.n_jobs > 1:
        yield f"{needs}: too much; give a smaller hydra.launcher.n_jobs.", True
    else:
        yield f"{needs}: too much; give trainer.accumulate_grad_batches, a smaller budget or another device.", True


def _disk(sweep: Sweep, totals: Totals) -> Iterator[tuple[str, bool]]:
    runs = Path(sweep.configs[0].paths.runs)
    free = shutil.disk_usage(nearest_folder(runs)).free
    needs = totals.disk_bytes + totals.training_bytes
    text = (
        f"Disk: {format_bytes(totals.disk_bytes)} for what is left, {format_bytes(totals.training_bytes)} more while "
        f"it trains; {format_bytes(free)} are free at {runs}"
    )
    yield (f"{text}.", False) if needs < free else (f"{text}: too little; free some or give paths.runs=FOLDER.", True)


def as_json(sweep: Sweep, rows: Sequence[PlannedRow], totals: Totals) -> dict[str, Any]:
    """Return the plan as plain data; seconds, MiB and bytes."""
    return {
        "experiment": sweep.experiment.name,
        "n_jobs": sweep.n_jobs,
        "rows": [
            {
                "row": row.name,
                "data": row.config.data["name"],
                "budget": row.config.budget.name,
                "devices": row.devices,
                "runs": row.runs,
                "left": len(row.left),
                "failed": row.failed,
                "damaged": len(row.damaged),
                "device": row.device or None,
                "error": row.error or None,
                **({} if row.estimate is None else {**asdict(row.estimate), "seconds": row.estimate.seconds}),
            }
            for row in rows
        ],
        **asdict(totals),
        "wall_s": {str(count): wall for count, wall in totals.wall_s.items()},
    }
