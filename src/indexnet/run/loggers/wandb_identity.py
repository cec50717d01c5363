"""Which W&B run a run folder has: there is one for each, and it stays the same wherever the folder is moved."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.core.files import write_json
from indexnet.core.readers import read_json, read_mapping
from indexnet.run.folder import RunFolder

_IDENTITY = "run.json"  # in the folder of W&B's files


def first_id(folder: RunFolder, digest: str, data_root: str | None) -> str:
    """Return the id that earlier versions, which kept none, gave a folder's W&B run: it follows from where it lies."""
    again = folder.earlier_count()
    parts = (digest, str(data_root), str(folder.path.resolve()), *([str(again)] if again else []))
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


def kept_id(folder: RunFolder, digest: str, data_root: str | None) -> str:
    """Return the id of a folder's W&B run, 16 hexadecimal digits: it is kept with the run, which may be moved.

    A copy of a folder that is still there is another run, and so is a run that is done again.
    """
    place, kept, found = str(folder.path.resolve()), _read(folder.path), secrets.token_hex(8)
    if kept:
        there = Path(str(kept.get("folder")))
        copied = str(there) != place and _read(there).get("id") == kept["id"]  # another run may have taken its place
        if kept.get("config_hash") == digest and not copied:
            found = str(kept["id"])
    elif any((folder.path / "wandb").glob("*run-*")):
        found = first_id(folder, digest, data_root)
    write_json(folder.path / "wandb" / _IDENTITY, {"id": found, "folder": place, "config_hash": digest})
    return found


def _read(folder: Path) -> dict[str, Any]:
    """Return what is kept in a run's folder; empty where nothing is, or it is damaged."""
    try:
        kept = read_mapping(folder / "wandb" / _IDENTITY, read_json)
    except (FileNotFoundError, UserError):
        return {}
    known = kept.get("id")
    return kept if isinstance(known, str) and re.fullmatch(r"[0-9a-f]{16}", known) else {}
