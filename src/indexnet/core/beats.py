"""Signs of life of processes that work in one folder."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


class Beats:
    """Tells the processes of a run that one of them goes on, also while others wait for it.

    Each process has a file in the run's folder, whose time changes: no place of its own, and no message that a process
    that waits would have to take part in.

    Args:
        folder: of the run.

    Attributes:
        rank: of this process.
        count: beats of this process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.rank, self.count = folder, 0, 0
        self._shown = 0
        self._seen: set[tuple[str, int]] = set()

    def beat(self) -> None:
        """Note that this process goes on; costs nothing."""
        self.count += 1

    def look(self) -> bool:
        """Show the others whether this process has gone on, and return whether any has since the last look.

        Where it has itself, the others are not looked at.
        """
        own = self.folder / f".process{self.rank}.beat"
        if (count := self.count) != self._shown:
            with contextlib.suppress(OSError):  # a full disk, say
                if not self._shown:  # made but once: when the run ends it is to stay away
                    own.touch()
                now = time.time_ns()  # the system's own stamp is the same for some milliseconds
                os.utime(own, ns=(now, now))
            self._shown = count
            return True
        seen: set[tuple[str, int]] = set()
        with contextlib.suppress(OSError):
            seen = {(file.name, file.stat().st_mtime_ns) for file in self._files() if file != own}
        new, self._seen = not seen <= self._seen, seen  # a file that is gone is no beat
        return new

    def forget(self) -> None:
        """Remove the files of all processes."""
        for file in self._files():
            file.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return list(self.folder.glob(".process*.beat"))
