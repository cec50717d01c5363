"""Kill a sweep again and again, restart it with the same command, and compare it with one that nobody disturbed.

    python benchmarks/sweep_kills.py [--rows 6] [--seeds 2] [--kills 10] [--steps 24] [--devices 2] [--folder DIR]

The sweep is a part of `tpami/table3_matting` on the procedural scenes, on the CPU, with several checkpoints,
validations and processes in each run, and an average of the weights. ``kill -9`` hits the launcher or a process of a
job, ranks included, at moments that are observed and not guessed: before a job starts, while it starts, at a step, when
a checkpoint has appeared, in the test phase, and while pictures are written. After every kill `indexnet report` must
make its page of what is there. In the end the metrics of the records, the
learning curves, the best validation, `per_image.csv`, the weights and the report's `table.csv` must be the same to the
last bit, and no run may have lost its throughput or its memory. Kills that are left when the sweep is done come to the
same sweep in another folder. Exit code 1 where results differ, or where a planned kill never found its moment. Linux
only. Twenty minutes on two cores; a soak of some hours:

    python benchmarks/sweep_kills.py --kills 300 --folder DIR
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import indexnet.cli

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sweep_processes import job_processes, standing, state_of

EXPERIMENT = "tpami/table3_matting"
ROWS = ("b11", "b11_carafe", "hmi", "hin_nl_c", "o2o_shared_nl_c", "m2o_nl_c")
DEVICE_COLUMNS = ("train_samples_per_s", "peak_memory_mb")
"""What differs between any two runs of the same thing: columns of `table.csv`, and keys of a record."""

MOMENTS = ("no job", "start", "step", "checkpoint", "testing", "pictures")
"""When a kill comes, in the order in which a run passes them."""
LAUNCHER = "launcher"

_PATIENCE = 900.0  # seconds that a launcher may take before something hangs
_POLL = 0.01
_LONGEST_START = 4.0  # seconds into the start of a run; it takes longer than that to import torch


class Planned(NamedTuple):
    """One kill that is to come, at one of ``MOMENTS`` to the launcher or to ``process N`` of a run.

    Attributes:
        step: for a ``step``: the first one at which it may come.
        delay: for ``no job`` and ``start``: seconds after the launcher or the run has started.
    """

    moment: str
    whom: str
    step: int = 1
    delay: float = 0.0

    @property
    def phase(self) -> str:
        """The phase of a run in which it comes."""
        return "training" if self.moment in ("step", "checkpoint") else self.moment


class Kill(NamedTuple):
    """One kill that came: as planned, to which run (``ROW/seed=N``, or none), and what that was doing then."""

    moment: str
    whom: str
    run: str
    phase: str
    after: float  # seconds since the launcher had started


class Verdict(NamedTuple):
    """What came of it: kills, planned ones whose moment never came, reports made, runs compared, and what differs."""

    kills: list[Kill]
    missed: list[Planned]
    reports: int
    runs: int
    differences: list[str]
    seconds: tuple[float, float]  # that the undisturbed and the disturbed sweeps took
    sweeps: int  # that were disturbed


def plan_kills(kills: int, runs: int, steps: int, devices: int, rng: random.Random) -> list[Planned]:
    """Draw 2 kills or more: one in the test phase, of the launcher and of a rank, and of six one at each moment.

    The kills come in groups, each in the order in which a run passes the moments, so that half the runs are left for
    moments that were missed.
    """
    wanted = {"testing", LAUNCHER, *(["process 1"] if devices > 1 else [])} | (
        set(MOMENTS) if kills >= len(MOMENTS) else set()
    )
    while True:
        drawn = [_draw(steps, devices, rng) for _ in range(kills)]
        if wanted <= {word for each in drawn for word in (each.moment, each.whom)}:
            break
    groups = max(1, runs // 2)
    return [
        each
        for group in range(groups)
        for each in sorted(drawn[group::groups], key=lambda planned: MOMENTS.index(planned.moment))
    ]


def _draw(steps: int, devices: int, rng: random.Random) -> Planned:
    moment = rng.choice(MOMENTS)
    # further processes have nothing to do while the first one writes pictures
    processes = {"no job": 0, "pictures": 1}.get(moment, devices)
    whom = rng.choice([LAUNCHER, *(f"process {rank}" for rank in range(processes))])
    delay = rng.uniform(0, 0.5 if moment == "no job" else _LONGEST_START)
    return Planned(moment, whom, rng.randint(1, steps - 1), delay)


def command(rows: list[str], seeds: int, steps: int, devices: int, runs: Path, jobs: int = 1) -> list[str]:
    """Return the command of the sweep, ``jobs`` of its runs at a time."""
    return [
        *(sys.executable, "-m", "indexnet", "train", "-m", f"experiments={EXPERIMENT}", "data=scenes"),
        *(f"rows={','.join(rows)}", f"seeds={','.join(map(str, range(seeds)))}", f"paths.runs={runs}"),
        *("encoder.pretrained=false", "encoder.width=0.35", "training.size=64", f"training.batch_size={2 * devices}"),
        *("data.train_count=12", "data.test_count=3", f"training.steps={steps}", "trainer.checkpoint_every=2"),
        *("data.validation_count=4", "training.validate_every=5", "callbacks=[ema,early_stopping,lr_monitor]"),
        *("trainer.accelerator=cpu", f"trainer.devices={devices}", "trainer.num_workers=0"),
        f"hydra.launcher.n_jobs={jobs}",
    ]


def run_whole(arguments: list[str], log: Path) -> None:
    """Run the sweep undisturbed; what it prints goes to ``log``.

    Raises:
        RuntimeError: it did not end well.
    """
    if code := _start(arguments, log).wait():
        raise RuntimeError(f"the sweep that nobody disturbs ended with {code}: {log.read_text()}")


def run_disturbed(
    arguments: list[str], plan: list[Planned], log: Path, between: Callable[[], object] = lambda: None
) -> tuple[list[Kill], list[Planned]]:
    """Run the sweep, kill it at the planned moments one after the other, and start it again until it is done.

    ``between`` is called after every kill.

    Returns:
        The kills, and those planned ones that did not come because the sweep was done before.

    Raises:
        RuntimeError: a launcher ended otherwise than by a kill, or with lost runs that no kill explains, or it hangs.
    """
    kills: list[Kill] = []
    tries: dict[int, Try] = {}
    launcher, begun, disturbed = _start(arguments, log), time.monotonic(), False
    try:
        while (code := launcher.poll()) != 0:
            if code is not None:
                if not disturbed or code not in (-signal.SIGKILL, 3):
                    raise RuntimeError(f"the launcher ended with {code} after {len(kills)} kills: {log.read_text()}")
                launcher, begun, disturbed = _start(arguments, log), time.monotonic(), False
            after = time.monotonic() - begun
            if after > _PATIENCE:
                raise RuntimeError(f"the sweep hangs after {len(kills)} kills: {log.read_text()}")
            kill = _strike(plan[len(kills)], launcher, after, tries) if len(kills) < len(plan) else None
            if kill is not None:
                kills.append(kill)
                disturbed = True
                if kill.whom == LAUNCHER:
                    launcher.wait()
                between()
            time.sleep(_POLL)
        return kills, plan[len(kills) :]
    finally:
        launcher.kill()
        launcher.wait()


def _start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # sums on one thread are the same every time
    with log.open("ab") as file:
        return subprocess.Popen(arguments, env=environment, stdout=file, stderr=subprocess.STDOUT)


def _strike(planned: Planned, launcher: subprocess.Popen[bytes], after: float, tries: dict[int, Try]) -> Kill | None:
    """Kill if this is the moment."""
    at_work = job_processes(launcher.pid)
    for folder, processes in at_work.items():  # at once: a try has to be known from its beginning
        tries.setdefault(processes[0], Try(folder))
    if planned.moment == "no job":
        if at_work or after < planned.delay:
            return None
        launcher.kill()
        return Kill(planned.moment, planned.whom, "", "", after) if launcher.wait() else None
    for folder, processes in at_work.items():
        run = tries[processes[0]]
        moment = run.is_at(planned)  # asked in any case: it notes which checkpoint is known
        pid = launcher.pid if planned.whom == LAUNCHER else processes.get(int(planned.whom.split()[1]))
        if not moment or pid is None:
            continue
        with standing(processes[0]):
            phase, step = run.phase()
            if phase == planned.phase and state_of(pid) not in ("", "Z"):
                os.kill(pid, signal.SIGKILL)
                run.struck = True
                words = f"{phase}, step {step}" if phase == "training" else phase
                return Kill(planned.moment, planned.whom, f"{folder.parent.name}/{folder.name}", words, after)
    return None


class Try:
    """One try of a run, from the moment at which its first process was seen; what it does is read from its files.

    Attributes:
        struck: whether a kill has hit it; it is about to end, and another one would say nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.struck = folder, False
        self.since = time.monotonic()
        self._printed = len(self._console(0))
        self._pictures = self._changed("pictures/*")
        self._checkpoint = self._changed("checkpoints/last.ckpt")

    def phase(self) -> tuple[str, int]:
        """Return ``start``, ``training``, ``testing``, ``pictures`` or ``ended``, and the steps that are done."""
        try:
            status = json.loads((self.folder / "record.json").read_text())["status"]
        except FileNotFoundError:
            status = "running"
        console = self._console(self._printed).decode(errors="replace")
        step = max((step for step, _ in read_curve(self.folder)), default=-1) + 1  # every one is logged
        if status != "running":
            return "ended", step
        if self._changed("pictures/*") != self._pictures:
            return "pictures", step
        if "testing on " in console:
            return "testing", step
        first = re.search(r"^(?:training for|going on from step (\d+))", console, re.MULTILINE)
        if first and step > int(first[1] or 0):
            return "training", step
        return "start", step

    def is_at(self, planned: Planned) -> bool:
        """Return whether it is time for a kill."""
        checkpoint, known = self._changed("checkpoints/last.ckpt"), self._checkpoint
        self._checkpoint = checkpoint
        phase, step = self.phase()
        if self.struck or phase != planned.phase:
            return False
        if planned.moment == "start":
            return time.monotonic() - self.since >= planned.delay
        if planned.moment == "checkpoint":
            return checkpoint != known
        return planned.moment != "step" or step >= planned.step

    def _console(self, offset: int) -> bytes:
        try:
            return (self.folder / "console.log").read_bytes()[offset:]
        except FileNotFoundError:
            return b""

    def _changed(self, pattern: str) -> int:
        """Return when the newest of some files was written, in ns; 0 where there is none."""
        newest = 0
        for path in self.folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                newest = max(newest, path.stat().st_mtime_ns)
        return newest


def read_curve(folder: Path, key: str = "train/loss") -> list[tuple[int, str]]:
    """Return step, counted from 0, and training loss, or another value, of every step at which a run logged it."""
    try:
        with (folder / "csv" / "metrics.csv").open(newline="", encoding="utf-8") as file:
            return [(int(row["step"]), row[key]) for row in csv.DictReader(file) if row.get(key)]
    except (FileNotFoundError, ValueError, KeyError):  # not there yet, or being written
        return []


def compare(whole: Path, disturbed: Path) -> tuple[int, list[str]]:
    """Compare two folders of runs; return how many the first one has, and what differs."""
    import torch

    found = []
    folders = sorted(path.parent.relative_to(whole) for path in whole.rglob("record.json"))
    for folder in folders:
        a, b = whole / folder, disturbed / folder
        if not (b / "record.json").is_file():
            found.append(f"{folder} is missing")
            continue
        records = [json.loads((each / "record.json").read_text()) for each in (a, b)]
        for key in ("status", "metrics", "test_count", "steps", "batch", "config_hash", "best"):
            if records[0][key] != records[1][key]:
                found.append(f"{folder}: {key} {records[1][key]} instead of {records[0][key]}")
        if records[0]["status"] != "done":
            found.append(f"{folder} is {records[0]['status']} in the sweep that nobody disturbed")
            continue
        for key in DEVICE_COLUMNS:
            if records[0][key] is not None and not records[1][key]:
                found.append(f"{folder}: {key} is lost")
        for key in ("train/loss", "val/sad", "lr-Adam"):
            if not read_curve(a, key) or read_curve(a, key) != read_curve(b, key):
                found.append(f"{folder}: the curve of {key} differs")
        if (a / "per_image.csv").read_bytes() != (b / "per_image.csv").read_bytes():
            found.append(f"{folder}: per_image.csv differs")
        states = [torch.load(each / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for each in (a, b)]
        if states[0].keys() != states[1].keys():
            found.append(f"{folder}: other weights")
        same = {name for name, value in states[0].items() if name in states[1] and torch.equal(value, states[1][name])}
        found += [f"{folder}: weight {name} differs" for name in states[0] if name not in same]
    tables = [_table(runs) for runs in (whole, disturbed)]
    for row, (a_line, b_line) in enumerate(zip(*tables, strict=True), 1):
        found += [
            f"table.csv, row {row}: {key} {b_line[key]} instead of {a_line[key]}"
            for key in a_line
            if (bool(a_line[key]) > bool(b_line[key]) if key in DEVICE_COLUMNS else a_line[key] != b_line[key])
        ]
    return len(folders), found


def _table(runs: Path) -> list[dict[str, str]]:
    output = runs.parent / f"{runs.name}-report"
    with contextlib.redirect_stdout(io.StringIO()):
        if code := indexnet.cli.main(["report", EXPERIMENT, "--runs", str(runs), "--output", str(output)]):
            raise RuntimeError(f"the report of {runs} ended with {code}")
    with (output / "table.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def measure(
    folder: Path, *, rows: int, seeds: int, kills: int, steps: int, devices: int, jobs: int = 1, seed: int = 0
) -> Verdict:
    """Run the sweeps below a folder and compare them.

    Raises:
        RuntimeError: a launcher ended otherwise than by its kill, or hangs, or a report failed.
    """
    missed = plan_kills(kills, rows * seeds, steps, devices, random.Random(seed))

    def words(name: str) -> list[str]:
        return command(list(ROWS[:rows]), seeds, steps, devices, folder / name, jobs)

    begun = time.monotonic()
    run_whole(words("whole"), folder / "whole.log")
    middle, reports, runs = time.monotonic(), 0, 0
    came: list[Kill] = []
    differences: list[str] = []
    for sweep in itertools.count(1):
        name = "killed" if sweep == 1 else f"killed-{sweep}"

        def report(runs: Path = folder / name) -> None:
            nonlocal reports
            if any(runs.rglob("record.json")):
                _table(runs)
                reports += 1

        found, missed = run_disturbed(words(name), missed, folder / f"{name}.log", report)
        came += found
        count, differing = compare(folder / "whole", folder / name)
        runs += count
        differences += [f"{name}: {each}" for each in differing]
        if not found or not missed:
            break
        print(f"{len(came)} kills in {sweep} sweeps, {len(differences)} differences", flush=True)
    return Verdict(came, missed, reports, runs, differences, (middle - begun, time.monotonic() - middle), sweep)


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = {"rows": 6, "seeds": 2, "kills": 10, "steps": 24, "devices": 2, "jobs": 1, "seed": 0}
    for name, default in usual.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"default: {default}")
    parser.add_argument("--folder", type=Path, help="an empty folder that keeps the sweeps (default: a temporary one)")
    args = parser.parse_args()
    if not 1 <= args.rows <= len(ROWS):
        parser.error(f"--rows must be 1 to {len(ROWS)}")
    if args.kills < 2:
        parser.error("--kills must be at least 2")
    if not 4 <= args.steps < 200:
        parser.error("--steps must be 4 to 199: in longer runs not every step is logged")
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
        if any(args.folder.iterdir()):
            parser.error(f"--folder {args.folder} is not empty")
    with contextlib.nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as folder:
        verdict = measure(Path(folder).resolve(), **{name: getattr(args, name) for name in usual})
    for number, kill in enumerate(verdict.kills, 1):
        where = f"{kill.run} {kill.phase}"
        print(f"{number:3d}  {kill.moment:10s}  kill -9 {kill.whom:9s}  after {kill.after:6.1f} s  {where}")
    disturbed = f"{verdict.sweeps} with {len(verdict.kills)} kills {verdict.seconds[1]:.0f} s"
    print(f"one sweep undisturbed {verdict.seconds[0]:.0f} s, {disturbed}")
    print(f"{verdict.reports} reports while it was disturbed")
    for text in verdict.differences:
        print(text)
    same = "the same to the last bit" if not verdict.differences else f"{len(verdict.differences)} differences"
    print(f"{verdict.runs} runs (metrics, curves, per_image.csv, weights) and table.csv: {same}")
    for planned in verdict.missed:
        print(f"no sweep came to the kill of {planned.whom} at: {planned.moment}; give more --rows or --seeds")
    return 1 if verdict.differences or verdict.missed else 0


if __name__ == "__main__":
    sys.exit(main())
