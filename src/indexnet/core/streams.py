"""Standard output and error that may lose their reader, or room on their disk, while a command is at work."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any

from indexnet.core.files import FULL_DISK

_GONE = (errno.EPIPE, errno.EIO)  # of a pipe, `indexnet ... | head -1`; of a terminal that was closed


class _Unread(io.FileIO):
    """A descriptor that is written to as long as somebody reads and while there is room; what finds none is lost."""

    told = False

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in FULL_DISK:
                self._tell(error)
                return len(data)
            if error.errno not in _GONE:
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # for other writers of this process and for processes that it starts
            os.close(null)
            return len(data)

    def _tell(self, error: OSError) -> None:
        """Say once on standard error that standard output has gaps."""
        if self.fileno() == 1 and not self.told:
            self.told = True
            text = f"indexnet: what standard output says is lost in part: {error.strerror}; the work goes on.\n"
            with contextlib.suppress(OSError):
                os.write(2, text.encode())


def outlive_readers() -> None:
    """Let this process go on when the reader of its output has gone: what it does matters, not what it says.

    So, too, where its output is written to a full disk; standard error says that once.

    A stream that was closed before the process began is opened to nowhere. Streams that somebody else has put in the
    place of the process's own are left alone.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif (
            stream is getattr(sys, f"__{name}__")
            and isinstance(stream, io.TextIOWrapper)
            and stream.fileno() == descriptor
            and not isinstance(getattr(stream.buffer, "raw", None), _Unread)
        ):
            stream.flush()
            raw: Any = _Unread(descriptor, "wb", closefd=False)
            buffer = raw if stream.write_through else io.BufferedWriter(raw)
            again = io.TextIOWrapper(
                buffer,
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, again)
            setattr(sys, f"__{name}__", again)
