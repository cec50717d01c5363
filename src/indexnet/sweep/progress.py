"""What a person sees of a sweep: a live table in a terminal, plain lines elsewhere, and a summary."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.console import create_console, output_console, say, tell
from indexnet.core.errors import UserError
from indexnet.run.experiments.tables import load_experiment
from indexnet.run.folder import RunFolder
from indexnet.run.record import DamagedRunError, Record
from indexnet.run.resume import resumed_step
from indexnet.run.schema import BudgetConfig, TrainingConfig, read_config
from indexnet.sweep.pool import Outcome, Running, View

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


_WORDS = {"done": "done", "before": "done before", "diverged": "diverged", "failed": "failed", "stopped": "stopped"}
_COLOURS = {"done": "green", "before": "dim", "diverged": "yellow", "failed": "red", "stopped": "yellow"}
_SHOWN = 8  # ended jobs that the live table keeps in sight


def create_view(total: int, n_jobs: int, console: Console | None = None) -> View:
    """Return the view that suits where the output goes.

    Args:
        total: number of jobs.
        n_jobs: processes at a time.
        console: where to; default standard output.
    """
    if (console or output_console()).is_terminal:
        # of the terminal's own width: what is drawn in place must not wrap
        return LiveView(total, n_jobs, console or create_console(sys.stdout, highlight=False))
    return PlainView(total, console or output_console())


def announce(configs: Sequence[Mapping[str, Any]], n_jobs: int, more: Iterable[str] = ()) -> None:
    """Say what a sweep is about to do: how many runs, on which data, how long each, and what its budget cuts.

    Args:
        configs: of its jobs, as frozen.
        n_jobs: runs at a time.
        more: what else there is to say; empty texts are nothing.
    """

    def listed(values: Iterable[object]) -> str:
        return ", ".join(dict.fromkeys(map(str, values)))

    typed = [read_config(config) for config in configs]
    names = list(dict.fromkeys(each.experiment.name for each in typed if each.experiment.name))
    data = listed(each.data["name"] for each in typed)
    printed = ""
    with contextlib.suppress(UserError):  # its file may be gone; the jobs are frozen
        where_runs = typed[0].paths.runs
        printed = listed(each for name in names for each in load_experiment(name, where_runs).printed_data)
    where = f"{data} (published on {printed})" if printed and printed != data else data
    lengths = listed(_length(each.training, each.budget) for each in typed)
    together = f", {n_jobs} at a time" if n_jobs > 1 and len(configs) > 1 else ""
    runs = f"{len(configs)} run{'' if len(configs) == 1 else 's'}" + (f" of {', '.join(names)}" if names else "")
    budget = listed(each.budget.name for each in typed)
    tell(f"{runs}{together}: data {where}; budget {budget}, {lengths}")
    for text in filter(None, more):
        tell(text)


def _length(training: TrainingConfig, budget: BudgetConfig) -> str:
    """Return how long a run trains: ``200 steps of 32``, ``3 steps of 2 (20 cut by budget.max_steps)``."""
    batch, cap = training.batch_size, budget.max_steps
    if training.steps is None:
        most = f", at most {cap} steps" if cap else ""
        return f"{training.epochs} epochs in batches of {batch}{most}"
    if cap and cap < training.steps:
        return f"{cap} steps of {batch} ({training.steps} cut by budget.max_steps)"
    return f"{training.steps} steps of {batch}"


def duration(seconds: float) -> str:
    """Write a duration as people say it: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def metrics_line(folder: Path) -> str:
    """Return a finished run's metrics in one line; empty where there is no record."""
    try:
        return (RunFolder(folder).record() or Record()).metrics_line()
    except DamagedRunError:
        return ""


def outcome_line(outcome: Outcome) -> str:
    """Return what there is to say of a job that has ended, in one line: its metrics, or why it has none."""
    if outcome.status not in ("done", "before"):
        return outcome.reason
    return "; but ".join(filter(None, [metrics_line(outcome.job.folder), outcome.reason]))


def _steps(running: Running) -> tuple[str, str, str, str]:
    """Return what to show as step, loss, last validation and time left."""
    progress = running.progress()
    validated = [f"{key.removeprefix('val/')} {value:.4g}" for key, value in progress.items() if key.startswith("val/")]
    match progress:
        case {"step": step, "steps": steps, "loss": loss, "eta_s": left}:
            seen = (f"{loss:.4g}", validated[0] if validated else "")  # the task's first metric
            if step >= steps:
                return "testing", *seen, ""
            return f"{int(step)} / {int(steps)}", *seen, duration(left)
    return "starting", "", "", ""


class PlainView(View):
    """One line for each thing that happens.

    Args:
        total: number of jobs.
        console: where to.
        every: seconds between two lines about jobs that run.
    """

    def __init__(self, total: int, console: Console, *, every: float = 60.0) -> None:
        self.total, self.console, self.every = total, console, every
        self.ends = 0
        self._last = time.monotonic()

    def started(self, running: Running) -> None:
        step = resumed_step(RunFolder(running.job.folder))
        begins = f"goes on from step {step}:" if step else "started "
        say(self.console, f"{begins} {running.job.title} seed={running.job.seed}")

    def ended(self, outcome: Outcome) -> None:
        self.ends += 1
        job = outcome.job
        what = outcome_line(outcome)
        took = f" in {duration(outcome.seconds)}" if outcome.seconds else ""
        said = f"{_WORDS[outcome.status]:8s} {job.title} seed={job.seed}{took} ({self.ends} of {self.total}): {what}"
        say(self.console, said)

    def tick(self, running: Sequence[Running]) -> None:
        if time.monotonic() - self._last < self.every:
            return
        self._last = time.monotonic()
        for each in running:
            step, loss, validated, left = _steps(each)
            more = f", loss {loss}{f', validation {validated}' if validated else ''}, {left} left" if left else ""
            say(self.console, f"running  {each.job.title} seed={each.job.seed}: {step}{more}")


class LiveView(View):
    """A table that changes in place: running jobs with step, loss and time left, and the last ones that ended.

    Args:
        total: number of jobs.
        n_jobs: processes at a time.
        console: a terminal.
        every: seconds between two drawings.
    """

    def __init__(self, total: int, n_jobs: int, console: Console, *, every: float = 0.5) -> None:
        from rich.live import Live

        self.total, self.n_jobs, self.every = total, n_jobs, every
        self.outcomes: list[Outcome] = []
        self.running: Sequence[Running] = ()
        self._begin = time.monotonic()
        self._drawn = 0.0
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> View:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.running = ()
        self._draw()
        self._live.stop()

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def tick(self, running: Sequence[Running]) -> None:
        self.running = running
        if time.monotonic() - self._drawn >= self.every:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """Build the table of this moment."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, title=self._title(), title_justify="left", title_style="bold")
        table.add_column("row", overflow="fold")
        for heading in ("seed", "step", "loss", "validation", "left"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("")
        for outcome in self.outcomes[-_SHOWN:]:
            what = outcome_line(outcome)
            words = Text(f"{_WORDS[outcome.status]}  {what}", style=_COLOURS[outcome.status])
            table.add_row(Text(outcome.job.title), str(outcome.job.seed), "", "", "", "", words)
        for each in self.running:
            spent = duration(time.monotonic() - each.started)
            table.add_row(Text(each.job.title), str(each.job.seed), *_steps(each), f"running {spent}")
        waiting = self.total - len(self.outcomes) - len(self.running)
        if waiting > 0:
            table.add_row(Text(f"{waiting} more", style="dim"), "", "", "", "", "", "")
        return table

    def _title(self) -> str:
        ends = len(self.outcomes)
        text = f"{ends} of {self.total} runs, {duration(time.monotonic() - self._begin)}"
        times = [outcome.seconds for outcome in self.outcomes if outcome.status == "done"]
        left = self.total - ends
        if times and left:
            text += f", about {duration(sum(times) / len(times) * left / self.n_jobs)} left"
        return text


def summarize(outcomes: Sequence[Outcome], folders: Sequence[Path], seconds: float) -> None:
    """Print what came of a sweep: counts, where the results are, and every job without a result.

    Args:
        outcomes: of all jobs.
        folders: those of the sweep, as a person would name them.
        seconds: wall time of the sweep.
    """
    counts = Counter(outcome.status for outcome in outcomes)
    parts = [f"{counts['done'] + counts['before']} of {len(outcomes)} runs done"]
    if counts["before"]:
        parts[0] += f" ({counts['before']} before)"
    parts += [f"{counts[status]} {status}" for status in ("failed", "diverged", "stopped") if counts[status]]
    tell(f"{', '.join(parts)}, in {duration(seconds)}: {', '.join(map(str, folders))}")
    if changed := sum(outcome.status == "before" and outcome.reason != "" for outcome in outcomes):
        runs = "a run that was done before" if changed == 1 else f"{changed} runs that were done before"
        tell(f"The code of {runs} has changed since: rerun=changed does {'it' if changed == 1 else 'them'} again")
    for outcome in outcomes:
        if outcome.status in ("failed", "diverged", "stopped"):
            job = outcome.job
            tell(f"{outcome.status}: {job.title} seed={job.seed}: {outcome.reason}")
            if not job.damaged and os.path.isfile(job.console):  # it has not started, else
                tell(f"  {_short(job.console)}")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
