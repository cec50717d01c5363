"""Doing one image after the other whatever happens, while the next ones are read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from indexnet.core.console import error_console, say, tracked, warn
from indexnet.core.errors import UserError
from indexnet.inference.image_files import Item

_T = TypeVar("_T")


@dataclass
class Outcome:
    """What became of a folder.

    Attributes:
        done: files that were done.
        failed: (file, sentence) of those that were not.
    """

    done: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def exit_code(self) -> int:
        """Return 0 where all is done, 3 where a part is, 2 where nothing is."""
        if not self.failed:
            return 0
        return 3 if self.done else 2


class ReadAhead(Generic[_T]):
    """Read the next items in a thread while the present one is worked on; to be used in a ``with`` statement.

    Args:
        items: what will be asked for, in this order.
        read: reads one item.
        ahead: how many items beyond the present one are read, and held in memory.
    """

    def __init__(self, items: Iterable[Item], read: Callable[[Item], _T], ahead: int = 1) -> None:
        self._rest = list(items)
        self._read = read
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._futures: dict[Item, Future[_T]] = {}

    def __enter__(self) -> ReadAhead[_T]:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def peek(self, item: Item) -> _T:
        """Return what was read; what ``read`` raised is raised here."""
        if item not in self._futures:
            self._futures[item] = self._pool.submit(self._read, item)
        return self._futures[item].result()

    def take(self, item: Item) -> _T:
        """Return what was read and forget it, while the next items are being read."""
        place = self._rest.index(item)
        for following in self._rest[place : place + 1 + self._ahead]:
            if following not in self._futures:
                self._futures[following] = self._pool.submit(self._read, following)
        self._rest = self._rest[place + 1 :]
        return self._futures.pop(item).result()


def do_each(items: Sequence[Item], work: Callable[[Item], str | None], title: str) -> Outcome:
    """Do each item under a progress bar; what fails is told at once and kept, the others are done.

    Args:
        items: what to do.
        work: does one; returns a remark for the person, or None. A ``UserError``, a failing disk or too little memory
            fails this item only.
        title: what the progress bar says.
    """
    from indexnet.networks.tiled.memory import is_out_of_memory

    outcome = Outcome()
    console = error_console()
    with contextlib.closing(tracked(items, title, len(items), console=console)) as shown:
        for item in shown:
            try:
                if item.problem:
                    raise UserError(item.problem)
                remark = work(item)
            except UserError as error:
                sentence = str(error)
            except OSError as error:
                sentence = f"{error.filename or item.image}: {error.strerror or error}."
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                sentence = f"{item.image} is too large for the memory; make it smaller, or give --device cpu."
            else:
                outcome.done.append(str(item.image))
                if remark:
                    say(console, remark)
                continue
            outcome.failed.append((str(item.image), sentence))
            say(console, sentence)
    return outcome


def list_failures(outcome: Outcome, total: int) -> None:
    """Say at the end, on stderr, which files were not done."""
    if outcome.failed:
        names = ", ".join(name for name, _ in outcome.failed)
        warn(f"not done, for the reasons above: {len(outcome.failed)} of {total}: {names}")
