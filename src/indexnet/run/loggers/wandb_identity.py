"""Which W&B run a run folder has: there is one for each, and it stays the same wherever the folder is moved."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path

from indexnet.core.errors import UserError
from indexnet.core.files import write_json
from indexnet.core.readers import read_json, read_mapping
from indexnet.run.folder import RunFolder

_IDENTITY = "run.json"  # in the folder of W&B's files


def run_id(folder: RunFolder, digest: str, data_root: str | None) -> str:
    """Return the id of the folder's W&B run: 16 hexadecimal digits from its configuration's hash and where it lies.

    A run that is done again is another one.
    """
    again = folder.earlier_count()
    parts = (digest, str(data_root), str(folder.path.resolve()), *([str(again)] if again else []))
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


def kept_id(folder: RunFolder, digest: str, data_root: str | None) -> str:
    """Return :func:`run_id` as it was at first: it is kept with the run, whose folder and data may be moved since.

    A copy of a folder that is still there is another run.
    """
    place, file = str(folder.path.resolve()), folder.path / "wandb" / _IDENTITY
    found = run_id(folder, digest, data_root)
    with contextlib.suppress(FileNotFoundError, UserError):  # a damaged one is as good as none
        kept = read_mapping(file, read_json)
        known, there = str(kept.get("id")), Path(str(kept.get("folder")))
        copied = str(there) != place and (there / "wandb" / _IDENTITY).is_file()
        if re.fullmatch(r"[0-9a-f]{16}", known) and kept.get("config_hash") == digest and not copied:
            found = known
    write_json(file, {"id": found, "folder": place, "config_hash": digest})
    return found
