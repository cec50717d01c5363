"""What is said to a person, and what commands say alike."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")

DEVICE_HELP = "auto (the default: a GPU where there is one), cpu, cuda or cuda:N"
MEMORY_HELP = "what a prediction of matting may take: auto (what is free), none (no limit), or 4GB, 512MB"


def create_console(file: Any = None, **options: Any) -> Any:
    """Return a rich console on a stream, by default the process's present stdout.

    There it has at least 80 columns: rich drops columns of tables that do not fit, a narrow terminal wraps them.
    """
    from rich.console import Console  # where something is said, not before

    console = Console(file=sys.stdout if file is None else file, **options)
    if file is None:
        console.width = max(80, console.width)
    return console


def error_console() -> Any:
    """Return a rich console on the process's present stderr."""
    return create_console(sys.stderr)


def output_console() -> Any:
    """Return a rich console on the process's present stdout; 120 columns where that is no terminal."""
    console = create_console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    return console


def say(console: Any, text: str) -> None:
    """Print a line above a progress bar, as it is: no wrapping, no markup."""
    console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)


def tracked(
    items: Iterable[_T], title: str, total: int, *, console: Any = None, every: float = 30.0
) -> Generator[_T, None, None]:
    """Give items on, under a progress bar where the console is a terminal, elsewhere with a line now and then.

    Args:
        items: what is worked on.
        title: says what is done.
        total: how many items there are.
        console: where to; default standard error.
        every: seconds between two lines where there is no bar.
    """
    console = error_console() if console is None else console
    if not console.is_terminal:
        said = time.monotonic()
        for done, item in enumerate(items):
            if time.monotonic() - said >= every:
                said = time.monotonic()
                say(console, f"{title}: {done} of {total}")
            yield item
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(title, total=total)
        for item in items:
            yield item
            progress.advance(bar)


def busy(title: str) -> Any:
    """Return a context that shows on a terminal's standard error that something is being done; nothing elsewhere."""
    return error_console().status(title)


def tell(text: str) -> None:
    """Print a line on stdout, as it is."""
    say(output_console(), text)


def warn(text: str) -> None:
    """Print a line on stderr, as it is."""
    say(error_console(), text)


def print_table(table: Any, remark: str = "") -> None:
    """Print a rich table on stdout and, dimmed, what is to be known about it."""
    console = create_console()
    console.print(table)
    if remark:
        console.print(remark, style="dim", highlight=False, markup=False)


def allow_anywhere(parser: argparse.ArgumentParser) -> None:
    """Let positional arguments stand between options; plain argparse takes only their first group."""
    plain = parser.parse_known_args

    def parse(args: Any = None, namespace: Any = None) -> Any:
        parser.parse_known_args = plain  # type: ignore[method-assign]  # the next line comes back to it
        try:
            return parser.parse_known_intermixed_args(args, namespace)
        finally:
            parser.parse_known_args = parse  # type: ignore[method-assign]

    parser.parse_known_args = parse  # type: ignore[method-assign]
