"""What a sweep costs beside its runs: wall time of N trivial runs in a sweep and on their own; time per finished run.

    python benchmarks/sweep_overhead.py [--jobs 8] [--skipped 42]

The runs are rows of the quickstart at budget smoke, on the CPU. On their own means `indexnet job FOLDER`, one process
after the other, which is what a sweep does between its own start and end. Targets: a ratio of at most 1.15, and at most
0.3 s for a run that was done before; exit code 1 where one is missed. A few minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = "max_unpool,hin"
OPTIONS = (
    *("experiments=quickstart", f"rows={ROWS}", "budget=smoke", "data.train_count=8", "trainer.accelerator=cpu"),
    *("trainer.num_workers=0", "hydra.launcher.n_jobs=1"),
)
MOST, MOST_SKIPPED = 1.15, 0.3


def run(*arguments: str, folder: Path) -> float:
    """Run the console command in a folder; return its wall time in seconds.

    Raises:
        RuntimeError: it did not end well.
    """
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "indexnet", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()}")
    return seconds


def sweep(seeds: int, folder: Path) -> float:
    """Run a sweep of two rows and so many seeds; return its wall time in seconds."""
    return run("train", "-m", *OPTIONS, f"seeds={','.join(map(str, range(seeds)))}", folder=folder)


def measure_ratio(jobs: int, folder: Path) -> tuple[float, float]:
    """Return the wall times of a sweep of ``jobs`` runs and of the same runs on their own, in seconds."""
    seeds = jobs // 2
    whole = sweep(seeds, folder)
    alone = 0.0
    for path in sorted(folder.glob("runs/quickstart/*/*/seed=*")):
        config = path / "config.yaml"
        copy = folder / "alone" / path.parent.name / path.name
        copy.mkdir(parents=True)
        shutil.copy(config, copy)
        alone += run("job", str(copy), folder=folder)
    return whole, alone


def measure_skipped(jobs: int, folder: Path) -> tuple[float, float]:
    """Return the wall times, in seconds, of a sweep of two runs and of one of ``jobs`` that are all done.

    The records are made up: what a finished run costs does not depend on what it found.
    """
    code = (
        "import sys; from indexnet.sweep import pool; from indexnet.cli import main\n"
        f"job = lambda folder: [sys.executable, '-S', '-c', {_FINISH!r}, str(folder)]\n"
        "pool.launch.__kwdefaults__['command'] = job\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    few, many = 1, jobs // 2
    for seeds in (few, many):
        arguments = ("train", "-m", *OPTIONS, f"seeds={','.join(map(str, range(seeds)))}")
        subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, check=True, capture_output=True)
    return min(sweep(few, folder) for _ in range(3)), min(sweep(many, folder) for _ in range(3))


_FINISH = """
import json, sys
record = {"schema": 1, "status": "done", "metrics": {"psnr": 1.5}}
with open(sys.argv[1] + "/record.json", "w") as file:
    json.dump(record, file)
"""


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8, metavar="N", help="runs of the sweep, even (default: 8)")
    parser.add_argument("--skipped", type=int, default=42, metavar="N", help="finished runs, even (default: 42)")
    args = parser.parse_args()
    for name in ("jobs", "skipped"):
        if getattr(args, name) < 4 or getattr(args, name) % 2:
            parser.error(f"--{name} must be even and at least 4")
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        few, many = measure_skipped(args.skipped, Path(first))
        each = (many - few) / (args.skipped - 2)
        print(f"all done before: 2 runs {few:.2f} s, {args.skipped} runs {many:.2f} s: {1000 * each:.1f} ms a run")
        print(f"the whole command, shared among {args.skipped} runs: {1000 * many / args.skipped:.0f} ms a run")
        whole, alone = measure_ratio(args.jobs, Path(second))
    print(f"{args.jobs} runs in a sweep {whole:.1f} s, on their own {alone:.1f} s: {whole / alone:.3f}")
    return 0 if whole / alone <= MOST and each <= MOST_SKIPPED else 1


if __name__ == "__main__":
    sys.exit(main())
