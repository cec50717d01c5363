"""The console command ``indexnet``: finds the subcommand, turns a person's mistakes into one sentence."""

from __future__ import annotations

import argparse
import importlib
import sys

from indexnet import __version__, _startup
from indexnet.core.console import allow_any_text, warn
from indexnet.core.errors import UserError
from indexnet.core.machine import limit_reached, mismatched_wheels
from indexnet.core.streams import outlive_readers

# Each module has HELP, configure(parser) and main(args) -> exit code, and imports nothing heavy at its top.
COMMANDS = {
    "train": "indexnet.commands.train",
    "evaluate": "indexnet.commands.evaluate",
    "predict": "indexnet.commands.predict",
    "cutout": "indexnet.commands.cutout",
    "app": "indexnet.commands.app",
    "compare": "indexnet.commands.compare",
    "robustness": "indexnet.commands.robustness",
    "status": "indexnet.commands.status",
    "sweep": "indexnet.commands.sweep",
    "plan": "indexnet.commands.plan",
    "report": "indexnet.commands.report",
    "dashboard": "indexnet.commands.dashboard",
    "costs": "indexnet.commands.costs",
    "bench": "indexnet.commands.bench",
    "profile": "indexnet.commands.profile",
    "sites": "indexnet.commands.sites",
    "convert": "indexnet.commands.convert",
    "export": "indexnet.commands.export",
    "data": "indexnet.commands.data",
    "list": "indexnet.commands.list",
    "job": "indexnet.commands.job",
}
_HIDDEN = {"job"}  # launched by `train`, once per run

_EPILOG = "exit codes: 0 all done; 2 a mistake in what was given, nothing done; 3 partly done, the rest is listed"


def _parser(commands: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="indexnet",
        description="Train, compare and use coupled downsampling and upsampling operators for dense prediction.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"indexnet {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in commands:
        module = importlib.import_module(COMMANDS[name])
        text = argparse.SUPPRESS if name in _HIDDEN and len(commands) > 1 else module.HELP
        if text is argparse.SUPPRESS:
            continue
        subparser = subparsers.add_parser(name, help=text, description=text, epilog=_EPILOG)
        module.configure(subparser)
        subparser.set_defaults(main=module.main)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the console command and return its exit code.

    Args:
        argv: arguments without the program's name; default those of the process.

    Returns:
        0 all done; 2 a person's mistake, nothing done; 3 partly done. Bugs keep their traceback.
    """
    _startup.install()
    outlive_readers()
    allow_any_text()
    arguments = sys.argv[1:] if argv is None else list(argv)
    selected = [arguments[0]] if arguments and arguments[0] in COMMANDS else list(COMMANDS)
    try:
        if arguments[:1] in (["train"], ["-sc"]):  # Hydra reads the rest; its completion script leaves out `train`
            from indexnet.commands.train import train

            return train(arguments[arguments[0] == "train" :])
        args = _parser(selected).parse_args(arguments)
        return int(args.main(args))
    except UserError as error:
        warn(f"indexnet: {mismatched_wheels(error) or error}")
        return 2
    except KeyboardInterrupt:
        warn("indexnet: interrupted; the same command goes on where this one stopped.")
        return 130
    except (OSError, RuntimeError) as error:
        if not (sentence := limit_reached(error) or mismatched_wheels(error)):
            raise
        warn(f"indexnet: {sentence}")
        return 2
