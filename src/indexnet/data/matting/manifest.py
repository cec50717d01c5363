"""What a prepared folder says of itself: ``manifest.jsonl``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.core.files import writing
from indexnet.core.readers import parse_json

MANIFEST = "manifest.jsonl"


class Manifest:
    """``manifest.jsonl`` of a folder, or that there is none.

    The first line says what the folder's files are made of. Each other line is one of its files, with its bytes and
    SHA-256, added once the file is whole.

    Attributes:
        folder: the folder.
        made_of: see :func:`~indexnet.data.matting.compositing.made_of`; ``trimaps`` is the rule of those that were
            made. None in a folder that has not been prepared.
        kept: trimaps that were there before, a person's own, which are never written.
        files: bytes and SHA-256 of each file that is whole, by its path in the folder.

    Raises:
        UserError: a line is not what this class writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / MANIFEST
        self.made_of: dict[str, Any] | None = None
        self.kept: list[str] = []
        self.files: dict[str, tuple[int, str]] = {}
        text = self.path.read_bytes() if os.path.isfile(self.path) else b""
        self._whole = text.rfind(b"\n") + 1  # a process that was killed may have left a part of a line
        for number, line in enumerate(text[: self._whole].splitlines(), 1):
            try:
                entry = parse_json(line.decode(), "it")
                if number == 1:
                    self.made_of, self.kept = dict(entry["made_of"]), list(entry["kept"])
                else:
                    self.files[entry["file"]] = int(entry["bytes"]), entry["sha256"]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"line {number} of {self.path} is damaged; delete this line.") from error

    def fits(self, made_of: dict[str, Any]) -> bool:
        """Return whether the folder has been prepared from these parts, whatever its others are."""
        return self.made_of is not None and self.made_of | made_of == self.made_of

    def as_written(self, paths: Iterable[Path | None]) -> bool:
        """Return whether those of these files that are listed still have their sizes."""
        noted = {self.folder / file: nbytes for file, (nbytes, _) in self.files.items()}
        return all(path.stat().st_size == noted[path] for path in paths if path and path in noted)

    def is_whole(self, file: str) -> bool:
        """Return whether a file was written, and still has its size."""
        path = self.folder / file
        return file in self.files and os.path.isfile(path) and path.stat().st_size == self.files[file][0]

    def begin(self, made_of: dict[str, Any], kept: Sequence[str]) -> None:
        """Cut off what a killed process left half-written, and in a new folder say what its files are made of.

        Raises:
            DiskFullError: there is no room.
        """
        with writing(self.path), self.path.open("ab") as file:
            file.truncate(self._whole)
        if self.made_of is None:
            self.made_of, self.kept = made_of, list(kept)
            self._append({"made_of": made_of, "kept": self.kept})

    def add(self, file: str, nbytes: int, sha256: str) -> None:
        """Note a file that is whole.

        Raises:
            DiskFullError: there is no room.
        """
        self._append({"file": file, "bytes": nbytes, "sha256": sha256})
        self.files[file] = nbytes, sha256

    def _append(self, entry: dict[str, Any]) -> None:
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
