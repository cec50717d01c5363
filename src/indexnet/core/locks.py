"""Locks on files: one process at a time, and none outlives the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from indexnet.core.errors import UserError
from indexnet.core.files import lock, writing

_TRY_S = 0.5  # seconds to try for a lock: whoever asks whether it is held holds it for a moment
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


class HeldError(UserError):
    """Another process holds a lock."""


@contextlib.contextmanager
def exclusive(path: Path, message: str) -> Iterator[None]:
    """Hold an advisory lock on a file.

    Raises:
        HeldError: another process holds it; says ``message``.
        UserError: the file system has no locks.
        DiskFullError: there is no room for the file; UnwritableError where it cannot be made.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(handle)
    deadline = time.monotonic() + _TRY_S
    try:
        while not _locks(handle, path):
            if time.monotonic() > deadline:
                raise HeldError(message)
            time.sleep(0.02)
        yield
    finally:
        if handle in _held:
            _held.remove(handle)
            os.close(handle)


def held(path: Path) -> bool:
    """Return whether a process holds a lock file; looks with a shared lock, and makes nothing.

    Raises:
        UserError: the file system has no locks.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _locks(handle, path, shared=True)
    finally:
        os.close(handle)


def _locks(handle: int, path: Path, *, shared: bool = False) -> bool:
    """Do what :func:`lock` does; a file system without locks is a UserError."""
    try:
        return lock(handle, shared=shared)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise UserError(
            f"the file system of {path.parent} has no file locks ({error.strerror}); put paths.runs on another one "
            "(Lustre: mount with flock)."
        ) from error


_held: set[int] = set()


def _let_go() -> None:
    """Close the locks of the process that this one was forked from, which would outlive it in a loader process."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
