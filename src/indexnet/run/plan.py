"""``indexnet plan EXPERIMENT``: what a table will take in time, memory and disk, measured before anything is spent."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from indexnet.run.plan_estimate import Totals
    from indexnet.run.plan_process import Say
    from indexnet.run.plan_sweep import PlannedRow, Sweep

HELP = "measure a few steps of every row of an experiment and say what the table takes: time, memory and disk"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.usage = "indexnet plan [-h] [--devices N,N] [--limit SECONDS] [--json FILE] EXPERIMENT [override ...]"
    parser.add_argument("experiment", metavar="EXPERIMENT", help="an experiment, as in `indexnet list experiments`")
    parser.add_argument(
        "overrides", metavar="override", nargs="*", help="as for `indexnet train -m`: rows=, seeds=, budget=, data= ..."
    )
    parser.add_argument("--devices", default="1,2,4,8", metavar="N,N", help="device counts to plan for (%(default)s)")
    parser.add_argument(
        "--limit",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="seconds of measured training for each row, and again for its test images (%(default)g); where a few "
        "steps of the real batch take longer, smaller ones are measured and a straight line is drawn",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan as JSON too")
    parser.epilog = (
        "exit codes: 0 all rows measured; 2 a mistake in what was given; 3 some rows cannot run here, listed"
    )


def main(args: argparse.Namespace) -> int:
    """Measure and print.

    Returns:
        0; 3 where some rows could not be measured, which the table says.
    """
    from rich.console import Console

    from indexnet.run.launch import PARTLY
    from indexnet.run.plan_process import measure_rows
    from indexnet.run.plan_sweep import compose_sweep, group_rows

    counts = _device_counts(args.devices)
    if not args.limit > 0:
        raise UserError(f"--limit {args.limit:g}: the time to measure must be more than 0 seconds.")
    if args.json is not None and args.json.is_dir():
        raise UserError(f"--json {args.json} is a folder; give the name of a file.")
    begun = time.monotonic()
    sweep = compose_sweep(args.experiment, args.overrides)
    rows = group_rows(sweep)
    before = time.monotonic() - begun
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    with _said(sum(bool(row.left) for row in rows)) as say:
        measure_rows(sweep, rows, args.limit, say)
    totals = _totals(sweep, rows, counts, before)
    console.print(table(sweep, rows))
    for text, is_warning in remarks(sweep, rows, totals, args.limit):
        console.print(text, style="yellow" if is_warning else None, markup=False, soft_wrap=True)
    if args.json is not None:
        from indexnet.files import write_json

        write_json(args.json, as_json(sweep, rows, totals))
    return PARTLY if any(row.error for row in rows) else 0


def _device_counts(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--devices {text}: give whole numbers above 0 with commas between, like 1,2,4.")
    return list(dict.fromkeys(map(int, parts)))


@contextmanager
def _said(total: int) -> Iterator[Say]:
    """Show on standard error what is being measured: a bar in a terminal, else lines."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda text: console.print(text, markup=False, soft_wrap=True)
        return
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("measuring", total=total)
        begun = 0

        def say(text: str) -> None:
            nonlocal begun
            begun += text.startswith("measuring")
            progress.update(bar, description=text, completed=max(0, begun - 1))

        yield say


def _totals(sweep: Sweep, rows: Sequence[PlannedRow], counts: Sequence[int], before: float) -> Totals:
    from indexnet.run.plan_estimate import Cost, add_up

    costs = [Cost(row.estimate, row.runs, row.left, row.devices) for row in rows if row.estimate is not None]
    if any(row.device_mb for row in rows):
        jobs = -(-sweep.n_jobs * max((row.devices for row in rows), default=1) // _gpus())
        return add_up(costs, counts, n_jobs=sweep.n_jobs, share=jobs, before=before)
    return add_up(costs, counts, per_device=sweep.n_jobs, n_jobs=sweep.n_jobs, share=sweep.n_jobs, before=before)


def _gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _size(mb: float) -> str:
    from indexnet.data.store import in_words

    return in_words(round(mb * 2**20))


def table(sweep: Sweep, rows: Sequence[PlannedRow]) -> Table:
    """Lay the rows out as a table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from indexnet.data.store import in_words
    from indexnet.run.progress import duration

    shown = Table(box=box.SIMPLE_HEAD, title=_title(sweep), title_justify="left", title_style="bold")
    shown.add_column("row", overflow="fold", min_width=8)
    for heading in ("s/step", "steps", "start", "test", "one run", "memory", "disk", "runs left"):
        shown.add_column(heading, justify="right", no_wrap=heading != "runs left")
    for row in rows:
        left = f"{len(row.left)} of {row.runs}"
        found = row.estimate
        if found is None:
            word = "" if row.left else "failed before" if row.failed else "done"
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
            in_words(found.disk_bytes),
            left,
        )
    return shown


def _title(sweep: Sweep) -> str:
    data = dict.fromkeys(config["data"]["name"] for config in sweep.configs)
    budgets = dict.fromkeys(config["budget"]["name"] for config in sweep.configs)
    return f"{sweep.experiment.name}: data {', '.join(data)}, budget {', '.join(budgets)}"


def remarks(sweep: Sweep, rows: Sequence[PlannedRow], totals: Totals, limit: float) -> Iterator[tuple[str, bool]]:
    """Yield what there is to say below the table, in sentences, and whether each is a warning."""
    from indexnet.run.progress import duration

    runs, left = sum(row.runs for row in rows), sum(len(row.left) for row in rows)
    text = f"{left} of {runs} runs are left"
    if begun := sum(step > 0 for row in rows for step in row.left):
        text += f", {begun} of them begun"
    if failed := sum(row.failed for row in rows):
        text += f"; {failed} failed before and stay as they are (retry_failed=true tries them again)"
    yield f"{text}.", False
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
    if any(row.name != row.config["experiment"]["row"] for row in rows):
        yield "What the table repeats its rows for was measured once.", False
    yield f"Measured on {', '.join(dict.fromkeys(row.device for row in measured))}; other devices differ.", False


def _memory(sweep: Sweep, measured: Sequence[PlannedRow], totals: Totals) -> Iterator[tuple[str, bool]]:
    from indexnet._memory import available_memory

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
        yield f"{needs}: too much; give trainer.accumulate, a smaller budget or another device.", True


def _disk(sweep: Sweep, totals: Totals) -> Iterator[tuple[str, bool]]:
    from indexnet.data.store import in_words

    runs = Path(sweep.configs[0]["paths"]["runs"])
    there = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    needs = totals.disk_bytes + totals.training_bytes
    text = (
        f"Disk: {in_words(totals.disk_bytes)} for what is left, {in_words(totals.training_bytes)} more while it "
        f"trains; {in_words(free)} are free at {runs}"
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
                "data": row.config["data"]["name"],
                "budget": row.config["budget"]["name"],
                "devices": row.devices,
                "runs": row.runs,
                "left": len(row.left),
                "failed": row.failed,
                "device": row.device or None,
                "error": row.error or None,
                **({} if row.estimate is None else {**asdict(row.estimate), "seconds": row.estimate.seconds}),
            }
            for row in rows
        ],
        **asdict(totals),
        "wall_s": {str(count): wall for count, wall in totals.wall_s.items()},
    }
