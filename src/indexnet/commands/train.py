"""``indexnet train``: one run, or with ``-m`` a sweep; configured by Hydra."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from indexnet.run.processes import run_job_process
from indexnet.run.schema import read_config

HELP = "train one configuration, or with -m a sweep or a whole table (Hydra overrides; train --help)"

_USAGE = """\
usage: indexnet train [-m] [group=option ...] [group.key=value ...] [Hydra flags]

  one run        indexnet train task=reconstruction resampling=max_unpool training.steps=200
  a sweep        indexnet train -m task=reconstruction resampling.family=hin,m2o seed=0,1 sweep=NAME
                 (rows of a table: indexnet status NAME, indexnet report NAME; more values and seeds add to it)
  a table        indexnet train -m experiments=quickstart          (see: indexnet list experiments)
  some of it     indexnet train -m experiments=quickstart rows=hin,m2o seeds=0 budget=smoke
  two at a time  indexnet train -m experiments=quickstart hydra.launcher.n_jobs=2
  two devices    indexnet train trainer.devices=2
  a cluster      indexnet train -m experiments=quickstart hydra/launcher=slurm hydra.launcher.partition=NAME
  a search       indexnet train -m hydra/sweeper=optuna 'optimizer.lr=tag(log,interval(1e-4,1e-1))'

  your own       indexnet train -m experiments=mine --config-dir DIR   (DIR/experiments/mine.yaml; plugins=[my_module])

  --cfg job      show the composed configuration and stop (add --resolve)
  --hydra-help   Hydra's own help

A finished run is not run again; a killed one goes on from its last checkpoint; one of a sweep that failed waits for
retry_failed=true. Results: runs/ (paths.runs=DIR).

exit codes: 0 all done; 2 a mistake in what was given, nothing done; 3 some runs failed or diverged, listed;
4 a process of a run on several devices was killed, the same command goes on
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Accept whatever Hydra reads."""
    parser.add_argument("overrides", nargs=argparse.REMAINDER, help="Hydra overrides and flags")


def main(args: argparse.Namespace) -> int:
    """Run with parsed arguments."""
    return train(args.overrides)


def train(arguments: Sequence[str]) -> int:
    """Compose the configuration and run it.

    Args:
        arguments: Hydra overrides and flags.

    Returns:
        The exit code.
    """
    if "-h" in arguments or "--help" in arguments:
        print(_USAGE, end="")
        return 0
    from indexnet.run.processes import leave_task

    leave_task()
    with _own_folder(arguments):
        from indexnet.run.config import compose_command_line, freeze

        composed = compose_command_line(arguments)
        if not composed:  # a sweep, which its launcher has run, or a question about the configuration
            return 0
        from indexnet.run.folder import prepare
        from indexnet.run.job import DIVERGED, run_job
        from indexnet.sweep.launch import PARTLY

        configs = [freeze(each) for each in composed]  # several: -m with a launcher in this process
        folders = [prepare(config).path for config in configs]
        codes = []
        for folder, config in zip(folders, configs, strict=True):
            # on several devices, the other processes are started by repeating the command of the first
            alone = read_config(config).trainer.processes == 1
            codes.append(run_job(folder) if alone else run_job_process(folder))
    return PARTLY if DIVERGED in codes else max(codes)


@contextmanager
def _own_folder(arguments: Sequence[str]) -> Iterator[None]:
    """Let the experiments of ``--config-dir DIR`` be known to this command and to its jobs, where it holds some."""
    from indexnet.core.paths import VARIABLE, holds_experiments

    words = [word for text in arguments for word in text.split("=", 1)]
    given = [after for word, after in itertools.pairwise(words) if word in ("--config-dir", "-cd")]
    folder = Path(given[-1]).absolute() if given else None
    before = os.environ.get(VARIABLE)
    if folder is not None and holds_experiments(folder):
        os.environ[VARIABLE] = os.pathsep.join([str(folder), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
