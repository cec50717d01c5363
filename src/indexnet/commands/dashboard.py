"""``indexnet dashboard``: the W&B workspace and report of an experiment, as code."""

from __future__ import annotations

import argparse
from pathlib import Path

from indexnet.core.console import busy, tell
from indexnet.core.errors import UserError

HELP = "make the W&B workspace and report of an experiment: files, or with --publish on the server"

PROJECT = "indexnet"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "experiment", metavar="EXPERIMENT", help="an experiment, as in `indexnet list experiments`, or a sweep"
    )
    parser.add_argument("--entity", metavar="NAME", help="W&B user or team (default: who is logged in)")
    parser.add_argument("--project", metavar="NAME", default=PROJECT, help=f"W&B project (default: {PROJECT})")
    parser.add_argument("--runs", metavar="DIR", help="folder of the runs, which say what there is (default: runs)")
    parser.add_argument(
        "--data", metavar="DATA-BUDGET", help="which runs, e.g. photos-small (default: the most complete, then newest)"
    )
    parser.add_argument("--output", metavar="DIR", help="default: reports/EXPERIMENT/dashboard")
    parser.add_argument("--publish", action="store_true", help="save both on the W&B server and print their addresses")


def main(args: argparse.Namespace) -> int:
    """Write the workspace and the report, and publish them where asked to.

    Raises:
        UserError: unknown experiment or data, wandb-workspaces is missing, or W&B cannot be used for ``--publish``.
    """
    from indexnet.core.paths import runs_folder
    from indexnet.report.build import build
    from indexnet.run.experiments.tables import load_experiment
    from indexnet.run.run_sets import choose, find_run_sets

    base = runs_folder(args.runs)
    experiment = load_experiment(args.experiment, base)
    runs = choose(find_run_sets(base, experiment.name, experiment.borrowed), args.data, str(base / experiment.name))
    with busy("reading the runs"):
        table = build(experiment, runs)
    try:
        from indexnet.report.dashboard import publish, write
    except ImportError as error:
        raise UserError(
            "indexnet dashboard needs the package wandb-workspaces: pip install 'indexnet[report]'."
        ) from error
    folder = Path(args.output or Path("reports") / experiment.name / "dashboard")
    paths = write(table, folder, args.entity or "", args.project)
    tell(f"Workspace: {paths[0]}\nReport: {paths[1]}")
    upload = f"`wandb sync {base / experiment.name}/*/*/*/wandb` uploads runs that were logged offline"
    if not args.publish:
        tell(f"Nothing is on a server yet: --publish saves both there; {upload}.")
        return 0
    for what, address in publish(table, folder, args.entity, args.project).items():
        tell(f"Published {what}: {address}")
    tell(f"They show what is there; {upload}.")
    return 0
