"""``indexnet train``: one run, or with ``-m`` a sweep; configured by Hydra."""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from indexnet.core.errors import UserError
from indexnet.core.paths import VARIABLE, conf_dir, holds_experiments
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

options of each group (group=option), and what each of them sets: indexnet train group=option --cfg job --package group
{groups}
  trainer.KEY=VALUE has the arguments of Lightning's Trainer: docs/trainer.md
  encoder=NAME takes any encoder of timm, optimizer=NAME any of `indexnet list optimizers`

  training.validate_every=500 (0.1: ten times a run)   validate while training; callbacks=early_stopping, ema, ...
  test_checkpoint=best  trainer.monitor=val/ssim       which weights are tested, and what is best: docs/validation.md
  split=validation                                     measure on the validation split, not on the test images
  ckpt_path=FILE                                       start from the weights of a checkpoint

  --cfg job      show the composed configuration and stop (add --resolve)
  --hydra-help   Hydra's own help

A finished run is not run again, but with rerun=true, or with rerun=changed where its code has changed since; a killed
one goes on from its last checkpoint; one of a sweep that failed waits for retry_failed=true. Results: runs/
(paths.runs=DIR); tags=[mine] go into records, reports and W&B.

exit codes: 0 all done; 2 a mistake in what was given, nothing done; 3 some runs failed or diverged, listed;
4 a process of a run on several devices was killed or hung, the same command goes on
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
        print(_USAGE.replace("{groups}", _list_groups(_config_dir(arguments))), end="")
        return 0
    from indexnet.run.processes import leave_task

    leave_task()
    with _own_folder(arguments):
        from indexnet.run.config import compose_command_line, freeze, sweep_options

        composed = compose_command_line(arguments)
        if not composed:  # a sweep, which its launcher has run, or a question about the configuration
            return 0
        from indexnet.run.job import DIVERGED, run_job
        from indexnet.sweep.launch import PARTLY, end_rerun, prepare_jobs

        configs = [freeze(each) for each in composed]  # several: -m with a launcher in this process
        jobs = prepare_jobs(configs, rerun=sweep_options(composed[0])["rerun"])
        codes = []
        for job, config in zip(jobs, configs, strict=True):
            if job.damaged:
                raise UserError(job.damaged)
            # on several devices, the other processes are started by repeating the command of the first
            alone = read_config(config).trainer.processes == 1
            codes.append(run_job(job.folder) if alone else run_job_process(job.folder))
        end_rerun(jobs)
    return PARTLY if DIVERGED in codes else max(codes)


def _list_groups(own: Path | None) -> str:
    """Return a line or more for each config group, with its options, those in a person's own folder included."""
    options: dict[str, set[str]] = {}
    for folder in (conf_dir(), *([own] if own is not None else [])):
        for file in folder.glob("*/**/*.yaml"):
            group = file.parent.relative_to(folder).as_posix()
            if group.partition("/")[0] != "experiments":
                options.setdefault(group, set()).add(file.stem)
    width = max(map(len, options))
    columns = min(120, shutil.get_terminal_size((120, 24)).columns)
    lines = []
    for group, names in sorted(options.items()):
        indent = f"  {group:<{width}}  "
        text = " | ".join(sorted(names))
        lines.append(textwrap.fill(text, columns, initial_indent=indent, subsequent_indent=" " * len(indent)))
    return "\n".join(lines)


def _config_dir(arguments: Sequence[str]) -> Path | None:
    """Return what ``--config-dir`` names."""
    words = [word for text in arguments for word in text.split("=", 1)]
    given = [after for word, after in itertools.pairwise(words) if word in ("--config-dir", "-cd")]
    return Path(given[-1]).absolute() if given else None


@contextmanager
def _own_folder(arguments: Sequence[str]) -> Iterator[None]:
    """Let the experiments of ``--config-dir DIR`` be known to this command and to its jobs, where it holds some."""
    folder = _config_dir(arguments)
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
