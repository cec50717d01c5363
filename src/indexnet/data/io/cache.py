"""Decode once: the arrays behind a split's samples, kept in memory where they fit, or in a folder."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexnet.core.errors import UserError
from indexnet.core.files import atomic_write, format_bytes
from indexnet.core.machine import available_memory
from indexnet.data.io.progress import in_threads

Arrays = tuple[npt.NDArray[Any], ...]
Cache = bool | str

_SHARE = 4  # ``auto`` keeps what fits in one part of so many of the available memory
_LOOKED_AT = 32  # items that an estimate looks at
_MAPPED = 128  # files that stay mapped: each holds a descriptor, and a process often has no more than 1,024


def check_cache(cache: Any, folder: bool = False) -> Cache:
    """Return the option ``data.cache``: ``"auto"``, True or False.

    Args:
        cache: what was given.
        folder: whether it may also be a folder, whose name has a slash so that no misspelt word becomes one.

    Raises:
        UserError: it is something else.
    """
    if cache == "auto" or isinstance(cache, bool):
        return bool(cache) if isinstance(cache, bool) else "auto"
    if folder and isinstance(cache, str | Path) and os.sep in str(cache):
        if os.path.exists(cache) and not os.path.isdir(cache):
            raise UserError(f"data.cache={cache} is a file; name a folder, or give auto, true or false.")
        return str(cache)
    also = ", or a folder such as ./cache" if folder else ""
    raise UserError(f"data.cache must be auto, true or false{also}; got {cache!r}.")


@dataclass
class Store:
    """Items that are decoded from files: anew whenever asked for, or, after :meth:`prepare`, once.

    An item is a tuple of arrays, and the same whether it is kept or not; kept ones are read-only. Picklable where
    ``load`` is. Forked processes share what was prepared before them; a pickled copy carries it along.

    Args:
        count: number of items.
        load: decodes one item; thread-safe.
        size_of: about how many bytes a decoded item takes, without decoding it; asked only by ``prepare``.
        cache: True keeps the items, False never does, ``"auto"`` does where they fit in a quarter of the memory that
            is available (shared by the processes of this machine's run). The name of a folder: decoded items are files
            there, mapped into the memory of all processes that use them, now and later.
        what: what an item is, in the plural.
        key: gives what an item depends on, as a name for its file; without it a folder means ``"auto"``.
    """

    count: int
    load: Callable[[int], Arrays]
    size_of: Callable[[int], int]
    cache: Cache = "auto"
    what: str = "images"
    key: Callable[[int], str] | None = None
    kept: list[Arrays] | None = field(default=None, init=False, repr=False)
    _mapped: dict[int, Arrays] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Arrays:
        if not 0 <= index < self.count:
            raise IndexError(f"item {index} of {self.count}")
        if self.folder is not None:
            return self._from_folder(index, self.folder)
        return self.load(index) if self.kept is None else self.kept[index]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": {}}  # a mapped array would be pickled with all it holds

    @property
    def folder(self) -> str | None:
        """The folder that decoded items are kept in."""
        return None if isinstance(self.cache, bool) or self.cache == "auto" or self.key is None else self.cache

    def estimate(self) -> int:
        """Return about how many bytes all decoded items take, from up to 32 of them, evenly spread."""
        looked_at = sorted({int(i) for i in np.linspace(0, self.count - 1, min(self.count, _LOOKED_AT))})
        return round(sum(map(self.size_of, looked_at)) / max(1, len(looked_at)) * self.count)

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
        if self.folder is not None:
            return self._fill(self.folder, reads)
        automatic = not isinstance(self.cache, bool)
        if self.cache is False or (automatic and reads is not None and reads < self.count):
            return ""
        if self.kept is None and automatic:
            wanted, free = self.estimate(), available_memory() // _processes()
            if wanted * _SHARE > free:
                are, them = ("is", "it") if self.count == 1 else ("are", "them")
                return (
                    f"{self._counted} would take {format_bytes(wanted)} decoded, more than a quarter of the "
                    f"{format_bytes(free)} available, and {are} read again for every sample (data.cache=true keeps "
                    f"{them})"
                )
        if self.kept is None:
            self.kept = list(in_threads(self._fixed, range(self.count), self._title))
        return f"{self._counted} decoded once, {format_bytes(self.nbytes)} in memory"

    @property
    def _counted(self) -> str:
        what, gap, where = self.what.partition(" ")
        return f"{self.count} {what.removesuffix('s') if self.count == 1 else what}{gap}{where}"

    @property
    def _title(self) -> str:
        return f"decoding {self.what}"

    def _fixed(self, index: int) -> Arrays:
        item = self.load(index)
        for array in item:
            array.flags.writeable = False  # nobody changes what later samples are made from
        return item

    def _fill(self, folder: str, reads: int | None) -> str:
        """Decode into the folder what is not there."""
        if reads is not None and reads < self.count:
            return ""
        # the processes of a run begin at different items, and each finds what the others have written
        first = int(os.environ.get("LOCAL_RANK") or 0) * self.count // _processes()
        order = [(first + index) % self.count for index in range(self.count)]

        # the headers are read here, not in the threads: Python before 3.11.8 cannot parse in several at a time
        files = in_threads(lambda index: self._file(index, folder), order, self._title)
        kept = sum(array.nbytes for path in files for array in _unpacked(path))
        return f"{self._counted} decoded once, {format_bytes(kept)} in {folder}"

    def _from_folder(self, index: int, folder: str) -> Arrays:
        """Return an item that is mapped from the folder's file; those asked for last stay mapped."""
        item = self._mapped.pop(index, None)
        if item is None:
            item = _unpacked(self._file(index, folder))
        self._mapped[index] = item
        if len(self._mapped) > _MAPPED:
            self._mapped.pop(next(iter(self._mapped)), None)
        return item

    def _file(self, index: int, folder: str) -> Path:
        """Return an item's file; decode the item into it before if there is none."""
        assert self.key is not None
        path = Path(folder) / f"{self.key(index)}{_ENDING}"
        if not os.path.exists(path):
            atomic_write(path, _packed(self.load(index)))
        return path


_ENDING = ".arrays"
_ALIGNED = 64


def _packed(item: Arrays) -> bytes:
    """Put arrays one after another as a file: the .npy format, each at a multiple of 64 bytes."""
    file = io.BytesIO()
    for array in item:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        file.write(bytes(-file.tell() % _ALIGNED))
    return file.getvalue()


def _unpacked(path: Path) -> Arrays:
    """Map the arrays of a file, read-only."""
    found = []
    whole = np.memmap(path, np.uint8, "r")
    with path.open("rb") as file:
        while file.tell() < whole.size:
            np.lib.format.read_magic(file)
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            end = start + int(np.prod(shape)) * kind.itemsize
            found.append(whole[start:end].view(kind).reshape(shape))
            file.seek(end + -end % _ALIGNED)
    return tuple(found)


def _processes() -> int:
    """Number of this machine's processes that will decode the same files, as their launcher names it."""
    text = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or "1"
    return max(1, int(text)) if text.isdigit() else 1
