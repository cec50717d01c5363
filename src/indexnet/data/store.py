"""Decode once: the arrays behind a split's samples, kept in memory where they fit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexnet.errors import UserError

Arrays = tuple[npt.NDArray[Any], ...]
Cache = bool | str

_SHARE = 4  # ``auto`` keeps what fits in one part of so many of the available memory
_LOOKED_AT = 32  # items that an estimate looks at


def check_cache(cache: Any) -> Cache:
    """Return the option ``data.cache``: ``"auto"``, True or False.

    Raises:
        UserError: it is something else.
    """
    if cache == "auto" or isinstance(cache, bool):
        return bool(cache) if isinstance(cache, bool) else "auto"
    raise UserError(f"data.cache must be auto, true or false; got {cache!r}.")


def estimate_bytes(count: int, size_of: Callable[[int], int]) -> int:
    """Return about how many bytes ``count`` items take, from up to 32 of them, evenly spread.

    Args:
        count: number of items.
        size_of: gives the bytes of one item without decoding it.
    """
    looked_at = sorted({int(i) for i in np.linspace(0, count - 1, min(count, _LOOKED_AT))})
    return round(sum(map(size_of, looked_at)) / max(1, len(looked_at)) * count)


@dataclass
class Store:
    """Items that are decoded from files: anew whenever asked for, or, after :meth:`prepare`, once.

    An item is a tuple of arrays, and the same whether it is kept or not; kept ones are read-only. Picklable where
    ``load`` is. Forked processes share what was prepared before them; a pickled copy carries it along.

    Args:
        count: number of items.
        load: decodes one item; thread-safe.
        estimate: about how many bytes all decoded items take; asked only by ``prepare``.
        cache: True keeps the items, False never does, ``"auto"`` does where they fit in a quarter of the memory that
            is available (shared by the processes of this machine's run).
        what: what an item is, in the plural.
    """

    count: int
    load: Callable[[int], Arrays]
    estimate: Callable[[], int]
    cache: Cache = "auto"
    what: str = "images"
    kept: list[Arrays] | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Arrays:
        if not 0 <= index < self.count:
            raise IndexError(f"item {index} of {self.count}")
        return self.load(index) if self.kept is None else self.kept[index]

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(array.nbytes for item in self.kept or () for array in item)

    def prepare(self, reads: int | None = None) -> str:
        """Decode all items where that is wanted, with a progress bar if standard error is a terminal.

        Args:
            reads: how many items will be asked for, repetitions counted; None: many. With ``auto``, fewer than there
                are items are left to be decoded one by one.

        Returns:
            What was done, in one sentence; "" with ``cache=False``.

        Raises:
            UserError: ``load`` raised it; of several, that of the first item. Nothing is kept then.
        """
        if self.cache is False or (self.cache == "auto" and reads is not None and reads < self.count):
            return ""
        if self.kept is None and self.cache == "auto":
            wanted, free = self.estimate(), available_memory() // _processes()
            if wanted * _SHARE > free:
                return (
                    f"{self.count} {self.what} would take {in_words(wanted)} decoded, more than a quarter of the "
                    f"{in_words(free)} available, and are read again for every sample (data.cache=true keeps them)"
                )
        if self.kept is None:
            self.kept = list(_decoded(self.load, self.count, self.what))
        return f"{self.count} {self.what} decoded once, {in_words(self.nbytes)} in memory"


def _decoded(load: Callable[[int], Arrays], count: int, what: str) -> Iterator[Arrays]:
    """Decode in threads (Pillow and OpenCV work outside the interpreter's lock), in order."""
    from rich.console import Console
    from rich.progress import track

    threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for item in track(
            threads.map(load, range(count)),
            description=f"decoding {what}",
            total=count,
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        ):
            for array in item:
                array.flags.writeable = False
            yield item
    finally:
        threads.shutdown(cancel_futures=True)


def _processes() -> int:
    """Number of this machine's processes that will decode the same files, as their launcher names it."""
    text = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or "1"
    return max(1, int(text)) if text.isdigit() else 1


def available_memory() -> int:
    """Return the bytes that this process can still take: of the machine, or of its control group if that has less."""
    found = [_machine_memory()]
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        folder = Path("/sys/fs/cgroup")
        try:
            stat = dict(line.split() for line in (folder / limit).with_name("memory.stat").read_text().splitlines())
            taken = int((folder / used).read_text()) - int(stat.get(cached, 0))  # cached files give way
            found.append(int((folder / limit).read_text()) - taken)
        except (OSError, ValueError):  # no such version of control groups, or "max": no limit
            continue
    return max(0, min(found))


def _machine_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: half of all there is
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def in_words(count: int) -> str:
    """Write a number of bytes as people say it: ``13.0 MB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
