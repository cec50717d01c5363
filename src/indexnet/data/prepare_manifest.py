"""What a prepared folder says of itself: ``manifest.jsonl``, see ``read_manifest``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.core.files import disk_full_as_sentence
from indexnet.data.matting.compositing import MANIFEST, read_manifest
from indexnet.data.prepare_outputs import Batch, Copy, Output, Trimap


class Manifest:
    """``manifest.jsonl`` of a prepared folder.

    Attributes:
        path: the file.
        made_of: see :class:`Batch`; None in a folder that has not been prepared.
        kept: trimaps that were there before, a person's own, which are never written.
        files: bytes and SHA-256 of each file that is whole, by its path in the folder.
    """

    def __init__(self, folder: Path) -> None:
        """Read it.

        Raises:
            UserError: a line is not what this module writes.
        """
        self.path = folder / MANIFEST
        found = read_manifest(folder)
        self.made_of, self.kept, self.files, self._whole = found.made_of, found.kept, found.files, found.whole

    def begin(self, batch: Batch) -> list[Output]:
        """Cut off what a killed process left half-written, and in a new folder say what its files are made of.

        Returns:
            What belongs to the folder.
        """
        with disk_full_as_sentence(self.path), self.path.open("ab") as file:
            file.truncate(self._whole)
        if self.made_of is None:
            self.made_of = batch.made_of
            self.kept = [
                output.file
                for output in batch.outputs
                if isinstance(output, Trimap) and (batch.folder / output.file).exists()
            ]
            self._append({"made_of": self.made_of, "kept": self.kept})
        return self.own(batch)

    def own(self, batch: Batch) -> list[Output]:
        """Return what belongs to the folder, whether it has been written or not."""
        kept = set(self.kept)
        return [output for output in batch.outputs if output.file not in kept]

    def add(self, file: str, nbytes: int, sha256: str) -> None:
        """Note a file that is whole."""
        self._append({"file": file, "bytes": nbytes, "sha256": sha256})
        self.files[file] = nbytes, sha256

    def _append(self, entry: dict[str, Any]) -> None:
        with disk_full_as_sentence(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def is_done(self, output: Output) -> bool:
        """Return whether a file was written, and still has its size."""
        if output.file not in self.files:
            return False
        try:
            return (self.path.parent / output.file).stat().st_size == self.files[output.file][0]
        except OSError:
            return False

    def check(self, batch: Batch) -> None:
        """Refuse to write a batch into a folder of other files.

        Raises:
            UserError: it was prepared from something else, or holds files of these names from elsewhere.
        """
        if self.made_of is None:
            for output in batch.outputs:
                path = batch.folder / output.file
                if not isinstance(output, Copy | Trimap) and path.exists():
                    raise UserError(
                        f"{path} exists and was not written by this command; give output=DIR for another folder."
                    )
        elif self.made_of != batch.made_of:
            keys = sorted(self.made_of.keys() | batch.made_of.keys())
            other = [key for key in keys if self.made_of.get(key) != batch.made_of.get(key)]
            raise UserError(
                f"{batch.folder} was prepared with other values of {', '.join(other)}; remove it, or give output=DIR "
                "for another folder."
            )
