"""Work on many items in threads, under a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from indexnet.core.console import tracked

_T = TypeVar("_T")
_U = TypeVar("_U")


def in_threads(work: Callable[[_T], _U], items: Sequence[_T], title: str) -> Iterator[_U]:
    """Call a function for each item in up to eight threads and give its results in order, under a progress bar.

    Pillow and OpenCV decode outside the interpreter's lock. Whoever stops asking stops the threads.
    """
    threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from tracked(threads.map(work, items), title, len(items))
    finally:
        threads.shutdown(cancel_futures=True)
