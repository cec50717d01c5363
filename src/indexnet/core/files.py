"""Files that are whole or not there: atomic writes, JSON, checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError

PART = ".part"
"""What the names of unfinished files end with; a process that is killed leaves one."""

_UNFINISHED = re.compile(r"\.(.+)\.[a-z0-9_]{8}" + re.escape(PART), re.DOTALL)
_LONGEST = 235  # bytes of a file's name that its unfinished file repeats; the longest name has 255
FULL_DISK = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the limit on the size of a file is reached",
}
"""What the system says where there is no room for a file."""


class DiskFullError(UserError):
    """There is no room for a file; what was there before is still there."""


class UnwritableError(UserError):
    """A place cannot be written to.

    Attributes:
        reason: the system's word for why.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path} cannot be written ({reason}); give another place, or make this one writable.")
        self.reason = reason


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn whatever the system says while ``path`` is written, and nothing else is done, into one sentence.

    Raises:
        DiskFullError: the disk, the quota or the largest size of a file is full.
        UnwritableError: the place is read-only, another's, no folder, or cannot be written for another reason.
    """
    try:
        with disk_full_as_sentence(path):
            yield
    except OSError as error:
        raise UnwritableError(path, error.strerror or str(error)) from error


@contextlib.contextmanager
def disk_full_as_sentence(path: str | Path) -> Iterator[None]:
    """Turn the system's complaint about a full disk into one sentence that names ``path``.

    For what does more than writing, such as a whole run; where nothing but writing is done, :func:`writing`.

    Raises:
        DiskFullError: the disk, the quota or the largest size of a file is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise DiskFullError(
            f"{FULL_DISK[error.errno]} while writing {path}; free some, then the same command goes on."
        ) from error


def check_writable(path: str | Path) -> None:
    """Refuse a file or a folder that could not be written, before the work whose result it is to hold; makes nothing.

    Raises:
        UnwritableError: it could not, or the first folder above it that exists is no folder or cannot be written to.
    """
    path = place = Path(path).absolute()
    with writing(path):
        while not place.exists():
            place = place.parent
        if place != path and not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        folder = place if place.is_dir() else place.parent  # a file is replaced, whatever its own permissions
        if not os.access(folder, os.W_OK):
            raise UnwritableError(path, f"{folder} is not writable")


def atomic_write(
    path: str | Path, data: bytes | memoryview | str, *, keep: Path | None = None, settled: bool = True
) -> None:
    """Write a file so that readers see the old or the new content, never a part of it.

    The folder is created where it does not exist. Text is written as UTF-8.

    Args:
        path: the file.
        data: its new content.
        keep: in the same folder; where the old file goes once the new one is safely on the disk, None: nowhere.
        settled: wait until the new content is on the disk. Without, a machine that loses its power may lose both: for
            what is written often, and means nothing once its process is gone.

    Raises:
        DiskFullError: there is no room; the old content is untouched and nothing else is left.
        UnwritableError: it cannot be written for another reason; likewise.
    """
    path = Path(path)
    content = data.encode("utf-8") if isinstance(data, str) else data
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content, keep, settled)


def _replace(path: Path, content: bytes | memoryview, keep: Path | None, settled: bool) -> None:
    handle, temporary = _create_part(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if settled:
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; a result is as readable as any other
            if keep is not None and path.exists():
                os.replace(path, keep)  # a kill between the two leaves the old content under this name
            os.replace(temporary, path)  # while it is locked: until then remove_parts may look at it
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _create_part(path: Path) -> tuple[int, str]:
    """Create the unfinished file of ``path``, and lock it, so that :func:`remove_parts` leaves it."""
    while True:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{_shortened(path.name)}.", suffix=PART)
        with contextlib.suppress(OSError):  # a file system without locks
            if not lock(handle):  # remove_parts has it, and will remove it
                os.close(handle)
                continue
        if os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)  # it did, before it was locked


def _shortened(name: str) -> str:
    return os.fsencode(name)[:_LONGEST].decode(errors="ignore")


def remove_parts(folder: str | Path, names: Iterable[str] | None = None) -> None:
    """Remove the unfinished files that killed processes left in a folder; those that a process is writing stay.

    Args:
        folder: may be missing; folders in it are not looked into.
        names: of the files whose unfinished forms are meant; default those of any file of ours.
    """
    ours = None if names is None else {_shortened(name) for name in names}
    with contextlib.suppress(OSError):  # nothing depends on it
        for part in sorted(Path(folder).glob(f".*{PART}")):
            match = _UNFINISHED.fullmatch(part.name)
            if match is None or part.is_symlink() or not (ours is None or match[1] in ours):
                continue
            handle = os.open(part, os.O_RDWR)
            try:
                if lock(handle):
                    part.unlink(missing_ok=True)
            finally:
                os.close(handle)


def lock(handle: int, *, shared: bool = False) -> bool:
    """Lock an open file without waiting; return False where another process holds it.

    Raises:
        OSError: the file system has no locks.
    """
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def prepare_folder(folder: str | Path, *inside: str) -> None:
    """Refuse a folder for results that could not be written; remove what killed commands left half-written in it.

    Args:
        folder: need not exist, and is not made.
        inside: folders in it that results go to as well.

    Raises:
        UnwritableError: see :func:`check_writable`; or it is a file.
    """
    for each in (Path(folder), *(Path(folder) / name for name in inside)):
        check_writable(each)
        if each.exists() and not each.is_dir():
            raise UnwritableError(each, "it is a file, not a folder")
        remove_parts(each)


def prepare_file(path: str | Path) -> None:
    """Do for one file what :func:`prepare_folder` does for a folder.

    Raises:
        UnwritableError: see :func:`check_writable`.
    """
    check_writable(path)
    remove_parts(Path(path).parent, [Path(path).name])


def write_json(path: str | Path, value: Any, *, settled: bool = True) -> None:
    """Write plain data as JSON, as :func:`atomic_write`. NaN and infinity are refused: JSON has no word for them."""
    atomic_write(path, json.dumps(value, indent=1, allow_nan=False) + "\n", settled=settled)


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
