"""``indexnet sweep save NAME FILE``: an experiment file of a sweep that was launched with ``sweep=NAME``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from indexnet.core.console import tell
from indexnet.core.paths import DEFAULT_RUNS, runs_folder

HELP = "make an experiment file of a sweep that was launched with sweep=NAME"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    save = actions.add_parser("save", help=HELP, description=HELP)
    save.add_argument("sweep", metavar="NAME", help="a sweep, as in `indexnet status`")
    save.add_argument("file", metavar="FILE", type=Path, help="what to write, DIR/experiments/NAME.yaml")
    save.add_argument("--runs", metavar="DIR", help=f"folder of the runs (default: {DEFAULT_RUNS})")


def main(args: argparse.Namespace) -> int:
    """Write the file, and say how it is used.

    Raises:
        UserError: there is no such sweep, or the file cannot be there.
    """
    from indexnet.sweep.sweep_file import save_sweep

    name, folder = save_sweep(args.sweep, args.file, runs_folder(args.runs))
    more = [] if folder is None else ["--config-dir", str(folder)]
    command = shlex.join(["indexnet", "train", "-m", f"experiments={name}", *more])
    tell(f"Wrote {args.file}. The same runs as a table of that name: {command}")
    return 0
