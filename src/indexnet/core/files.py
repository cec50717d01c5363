"""Files that are whole or not there: atomic writes, JSON, checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError

PART = ".part"
"""What the names of unfinished files end with; a process that is killed leaves one."""

_FULL = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the limit on the size of a file is reached",
}


class DiskFullError(UserError):
    """There is no room for a file; what was there before is still there."""


@contextlib.contextmanager
def disk_full_as_sentence(path: str | Path) -> Iterator[None]:
    """Turn the system's complaint about a full disk into one sentence that names ``path``.

    Raises:
        DiskFullError: the disk, the quota or the largest size of a file is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(
            f"{_FULL[error.errno]} while writing {path}; free some, then the same command goes on."
        ) from error


def atomic_write(path: str | Path, data: bytes | memoryview | str, *, keep: Path | None = None) -> None:
    """Write a file so that readers see the old or the new content, never a part of it.

    The folder is created where it does not exist. Text is written as UTF-8.

    Args:
        path: the file.
        data: its new content.
        keep: in the same folder; where the old file goes once the new one is safely on the disk, None: nowhere.

    Raises:
        DiskFullError: there is no room; the old content is untouched and nothing else is left.
    """
    path = Path(path)
    content = data.encode("utf-8") if isinstance(data, str) else data
    with disk_full_as_sentence(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content, keep)


def _replace(path: Path, content: bytes | memoryview, keep: Path | None) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; a result is as readable as any other file
        if keep is not None and path.exists():
            os.replace(path, keep)  # a kill between the two leaves the old content under this name
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write plain data as JSON, atomically. NaN and infinity are refused: JSON has no word for them."""
    atomic_write(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def format_bytes(count: int) -> str:
    """Write a number of bytes as people say it: ``13.0 MB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
