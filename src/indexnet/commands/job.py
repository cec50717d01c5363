"""``indexnet job``: one frozen configuration, from data to record."""

from __future__ import annotations

import argparse
from pathlib import Path

from indexnet.run.job import run_job

HELP = "run the frozen configuration of a run folder (what `train` starts for each run)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a run folder with its config.yaml")


def main(args: argparse.Namespace) -> int:
    """Run with parsed arguments."""
    return run_job(args.folder)
