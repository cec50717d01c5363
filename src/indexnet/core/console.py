"""What is said to a person, and what commands say alike."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from indexnet.core.escape import visible

_T = TypeVar("_T")

DEVICE_HELP = "auto (the default: a GPU where there is one), cpu, cuda or cuda:N"
MEMORY_HELP = "what a prediction of matting may take: auto (what is free), none (no limit), or 4GB, 512MB"


_PLAIN = {
    "↑": "^", "↓": "v", "★": "*", "≈": "~", "→": "->", "×": "x", "±": "+-", "τ": "tau", "…": "...", "–": "-", "—": "-",
    "≥": ">=", "≤": "<=", "μ": "u", "²": "2",
}  # fmt: skip
"""What stands for signs that a terminal or a pipe cannot show."""


def allow_any_text() -> None:
    """Let stdout and stderr take any text, whatever their encoding: what it lacks is written plainly, or escaped.

    Pipes of Windows and some clusters are no UTF-8; and names of files may hold bytes that no encoding has.
    """
    codecs.register_error("indexnet.plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):  # what stands in their places may have none
            reconfigure(errors="indexnet.plain")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    bytes_of_names = (f"\\x{ord(each) - 0xDC00:02x}" if 0xDC80 <= ord(each) <= 0xDCFF else "" for each in lost)
    escaped = (each.encode("ascii", "backslashreplace").decode() for each in lost)
    shown = (_PLAIN.get(each) or byte or other for each, byte, other in zip(lost, bytes_of_names, escaped, strict=True))
    return "".join(shown), error.end


def create_console(file: Any = None, **options: Any) -> Any:
    """Return a rich console on a stream, by default the process's present stdout.

    There it has at least 80 columns: rich drops columns of tables that do not fit, a narrow terminal wraps them.
    """
    console = _console_class()(file=sys.stdout if file is None else file, **options)
    if file is None:
        console.width = max(80, console.width)
    return console


@functools.cache  # rich is imported where something is said
def _console_class() -> Any:
    from rich.console import Console
    from rich.segment import Segment

    class PlainConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Any:
            """Render; what somebody's names would do to the terminal is written out instead."""
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else visible(text), style, control)

    return PlainConsole


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

    An item that takes long does not silence the lines, which say what :func:`note` was told of it last.

    Args:
        items: what is worked on.
        title: says what is done.
        total: how many items there are.
        console: where to; default standard error.
        every: seconds between two lines where there is no bar.
    """
    console = error_console() if console is None else console
    bar = _bar if console.is_terminal else functools.partial(_lines, every=every)
    with bar(console, title, total) as (show, advance):
        _listeners.append(show)
        try:
            for item in items:
                show("")
                yield item
                advance()
        finally:
            _listeners.remove(show)


_Shown = tuple[Callable[[str], None], Callable[[], None]]
_listeners: list[Callable[[str], None]] = []


def note(text: str) -> None:
    """Say how far the item is that :func:`tracked` has given last, for its bar or its next line: ``tile 3 of 24``."""
    if _listeners:
        _listeners[-1](text)


@contextlib.contextmanager
def _lines(console: Any, title: str, total: int, every: float) -> Iterator[_Shown]:
    begun, done, inside = time.monotonic(), 0, ""
    over = threading.Event()

    def show(text: str) -> None:
        nonlocal inside
        inside = f", {text}" if text else ""

    def advance() -> None:
        nonlocal done
        done += 1

    def talk() -> None:
        while not over.wait(every):
            try:
                say(console, f"{title}: {done} of {total}{inside}, {time.monotonic() - begun:.0f} s")
            except (OSError, ValueError):  # the reader of our output has gone
                return

    talking = threading.Thread(target=talk, daemon=True)
    talking.start()
    try:
        yield show, advance
    finally:
        over.set()
        talking.join()


@contextlib.contextmanager
def _bar(console: Any, title: str, total: int) -> Iterator[_Shown]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    words = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[inside]}"))
    with Progress(*words, TimeRemainingColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(title, total=total, inside="")
        yield lambda text: progress.update(bar, inside=text), lambda: progress.advance(bar)


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
