"""CPU seconds of the console command's starts, as multiples of importing torch alone, and what the imports consist of.

    python benchmarks/startup.py [--repetitions 3]

User and system time of whole processes, the least of the repetitions; `train` is one step on the CPU, with its test.
"""

from __future__ import annotations

import argparse
import collections
import re
import resource
import subprocess
import sys
import tempfile

TRAIN = (
    *("train", "task=reconstruction", "resampling=max_unpool", "training.steps=1", "training.batch_size=2"),
    *("data.test_count=2", "trainer.accelerator=cpu", "trainer.num_workers=0"),
)
COMMANDS = (("--help",), ("list",), ("costs", "tpami/table6_sunrgbd"), TRAIN)
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+([^.\s]+)")


def cpu_seconds(arguments: list[str]) -> float:
    """Run Python with arguments in an empty folder; return the CPU seconds of the process and its children.

    Raises:
        CalledProcessError: it did not end well.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def profile(arguments: list[str]) -> list[tuple[str, float]]:
    """Return the seconds that importing the modules of each package takes, the longest first."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *arguments], cwd=folder, check=True, capture_output=True, text=True
        )
    seconds: collections.Counter[str] = collections.Counter()
    for microseconds, package in _LINE.findall(done.stderr):
        seconds[package] += int(microseconds)
    return [(package, total / 1e6) for package, total in seconds.most_common(12)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    repetitions = parser.parse_args().repetitions
    cases = {"import torch": ["-c", "import torch"]}
    cases |= {" ".join(words[:2]): ["-m", "indexnet", *words] for words in COMMANDS}
    seconds = dict.fromkeys(cases, float("inf"))
    for _ in range(repetitions):  # in turn, so that the load of the machine is alike for all
        for name, arguments in cases.items():
            seconds[name] = min(seconds[name], cpu_seconds(arguments))
    for name, value in seconds.items():
        print(f"{name:30} {value:6.2f} s  {value / seconds['import torch']:5.2f} x import torch")
    print("\nimports of train, by package:")
    for package, value in profile(["-m", "indexnet", *TRAIN]):
        print(f"{package:30} {value:6.2f} s")


if __name__ == "__main__":
    main()
