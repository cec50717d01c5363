"""Work on many items under a progress bar, in threads where that helps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from indexnet.core.console import error_console

_T = TypeVar("_T")
_U = TypeVar("_U")


def tracked(items: Iterable[_T], title: str, total: int) -> Iterator[_T]:
    """Give items on, under a progress bar where standard error is a terminal."""
    from rich.progress import track

    console = error_console()
    yield from track(items, title, total, console=console, transient=True, disable=not console.is_terminal)


def in_threads(work: Callable[[_T], _U], items: Sequence[_T], title: str) -> Iterator[_U]:
    """Call a function for each item in up to eight threads and give its results in order, under a progress bar.

    Pillow and OpenCV decode outside the interpreter's lock. Whoever stops asking stops the threads.
    """
    threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from tracked(threads.map(work, items), title, len(items))
    finally:
        threads.shutdown(cancel_futures=True)
