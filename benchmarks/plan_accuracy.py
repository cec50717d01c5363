"""How well `indexnet plan` tells the time, memory and disk of a sweep: planned, then run, as ratios real / planned.

    python benchmarks/plan_accuracy.py [EXPERIMENT] [override ...]

By default a part of the quickstart, some minutes on two cores. Everything goes to a temporary folder. Exit code 1 where
the wall time is off by more than ``--tolerance``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from indexnet.run.record import Record

DEFAULT = ["rows=max_unpool,carafe,o2o_shared,m2o", "seeds=0"]


def main() -> int:
    """Plan, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", default="quickstart")
    parser.add_argument("overrides", nargs="*", default=DEFAULT)
    parser.add_argument("--limit", default="10", help="seconds of measured training for each row")
    parser.add_argument("--tolerance", type=float, default=0.3, help="of the wall time, as a share (%(default)g)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runs, file = Path(place) / "runs", Path(place) / "plan.json"
        words = [*args.overrides, f"paths.runs={runs}"]
        begun = time.monotonic()
        plan = ["plan", args.experiment, *words, "--devices", "1", "--limit", args.limit, "--json", str(file)]
        subprocess.run([sys.executable, "-m", "indexnet", *plan], check=True)
        planned = json.loads(file.read_text())
        middle = time.monotonic()
        sweep = ["train", "-m", f"experiments={args.experiment}", *words]
        subprocess.run([sys.executable, "-m", "indexnet", *sweep], check=True)
        real, planning = time.monotonic() - middle, middle - begun
        print(f"\n{'row':24s} {'':>6s} {'planned':>12s} {'real':>12s} {'ratio':>6s}")
        for row in planned["rows"]:
            for run in sorted(runs.glob(f"{args.experiment}/*/{row['row']}/seed=*")):
                size = sum(each.stat().st_size for each in run.rglob("*") if each.is_file())
                if (record := Record.read(run)) and record.peak_memory_mb:
                    show(row["row"], "MiB", row["memory_mb"], record.peak_memory_mb)
                show(row["row"], "kB", row["disk_bytes"] / 1000, size / 1000)
        wall = planned["wall_s"]["1"]
        ratio = show("whole sweep", "s", wall, real)
        print(f"planning took {planning:.0f} s, {planning / real:.2f} of the sweep")
    return 0 if abs(ratio - 1) <= args.tolerance else 1


def show(what: str, unit: str, planned: float, real: float) -> float:
    """Print one comparison and return real / planned."""
    print(f"{what:24s} {unit:>6s} {planned:12.1f} {real:12.1f} {real / planned:6.2f}")
    return real / planned


if __name__ == "__main__":
    sys.exit(main())
