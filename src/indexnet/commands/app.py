"""``indexnet app``: a page in the browser, only on this machine, that runs a trained network on your own pictures."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import socket
import threading
from pathlib import Path

from indexnet.core.console import DEVICE_HELP, MEMORY_HELP, tell
from indexnet.core.errors import UserError
from indexnet.core.paths import check_methods
from indexnet.inference.app import ADDRESS
from indexnet.inference.methods import METHODS_HELP

_SWEEP = 60  # seconds between two looks for files that are too old

HELP = "open a page in the browser, on this machine only, that runs a trained network on your pictures"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help=METHODS_HELP)
    parser.add_argument("--port", type=int, default=7860, help="where the page is (7860); 0 takes any that is free")
    parser.add_argument("--max-upload", default="20MB", metavar="SIZE", help="the largest file that is taken (20MB)")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--memory", default="auto", metavar="SIZE", help=MEMORY_HELP)


def main(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, which ends the process with status 0.

    Raises:
        UserError: gradio is not installed, the port is taken, or the checkpoint or an option cannot be used.
    """
    check_methods([args.checkpoint])
    limit = _bytes(args.max_upload)
    port = free_port(args.port)
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise UserError("the page needs gradio; install it with: pip install 'indexnet[app]'.")
    from indexnet.inference.app import guard
    from indexnet.inference.loading import load_for_photographs

    task, meta, device = load_for_photographs(args.checkpoint, args.device, args.memory)
    task.warm_up()
    task.to(device).eval()
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with guard.private_folder() as folder:
            guard.isolate(folder)
            from indexnet.inference.app.page import serve
            from indexnet.inference.app.session import Session

            guard.stay_here()
            page = serve(Session(task, meta), folder, args.checkpoint.name, port, limit)
            tell(f"the page is at http://{ADDRESS}:{port} (only on this machine); Ctrl-C ends it")
            guard.plain_output()
            while not ended.wait(_SWEEP):
                guard.sweep(folder, guard.KEPT)
            logging.disable()  # of connections that break off now
            page.server.force_exit = True  # waits for none; an upload under way would make the folder anew
            page.server.close()
        os._exit(0)  # Python would wait for open connections, and for a prediction, which cannot be interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port(port: int) -> int:
    """Return a port that can be bound on this machine: the one asked for, or for 0 any.

    Raises:
        UserError: it is no port, or taken.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port} is no port; give one from 1024 to 65535.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise UserError(f"--port {port} cannot be used ({error.strerror}); give another, or 0 for any.") from error
        return int(probe.getsockname()[1])


def _bytes(text: str) -> int:
    """Return the bytes of ``20MB``; units are of 1024s, as browsers show them.

    Raises:
        UserError: it is something else.
    """
    found = re.fullmatch(r"(\d+)\s*([kmg])b", text.strip().lower())
    if not found or not int(found[1]):
        raise UserError(f"--max-upload {text} must be a size such as 20MB or 1GB.")
    return int(found[1]) << 10 * ("kmg".index(found[2]) + 1)
