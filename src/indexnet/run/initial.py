"""What parts of a network start from: the weights of another checkpoint whose names and shapes agree.

``ckpt_path`` is for the same network, and takes all of it or nothing. ``init`` is for another network, or for some
parts of one: ``init.checkpoint=FILE init.parts={encoder: encoder}``. Either is read once, at step 0.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from indexnet.core.errors import UserError
from indexnet.core.files import sha256_file
from indexnet.core.paths import check_checkpoint
from indexnet.run.folder import RunFolder, run_path
from indexnet.run.record import DamagedRunError
from indexnet.run.resume import describe_weights, family_of
from indexnet.run.schema import InitConfig

if TYPE_CHECKING:
    from indexnet.networks import Network
    from indexnet.networks.encoders.weights import Kind
    from indexnet.tasks import Task

_SAID = 3  # weights that a sentence names


class Match(NamedTuple):
    """Which weights of a network take which of another.

    Attributes:
        taken: theirs by own name.
        left: why a weight of a named part keeps its value, by own name.
        counts: of each own part, by name ("" for the whole network), how many weights it has and how many are taken.
    """

    taken: dict[str, str]
    left: dict[str, str]
    counts: dict[str, tuple[int, int]]


def settle_initial(config: dict[str, Any]) -> None:
    """Reduce the group ``init`` of a composed configuration to what is said, and add what the file is.

    The file's place is no part of what a run is, its content is: its SHA-256, or the row whose checkpoint it will be.

    Raises:
        UserError: what is said does not go together, or there is no such file and the run needs it.
    """
    init = {key: value for key, value in (config.pop("init", None) or {}).items() if value not in (None, {})}
    if not init:
        return
    path, is_row = init.get("checkpoint"), "row" in init
    if config.get("ckpt_path") is not None:
        raise UserError(
            "ckpt_path and init are both given; ckpt_path starts from all of a checkpoint of the same network, init "
            "from what fits: give one of them."
        )
    if is_row and (path is not None or config["experiment"]["name"] is None):
        raise UserError(
            f"init.row={init['row']} is said by the rows of tables alone, in their files; give init.checkpoint=FILE."
        )
    if path is None and not is_row:
        raise UserError("init.parts says which parts start from init.checkpoint; give init.checkpoint=FILE too.")
    if path is not None:
        init["sha256"] = _digest(config, path)
    config["init"] = init


def _digest(config: Mapping[str, Any], path: str) -> str:
    """Return the SHA-256 of a file; of one that has gone, what a run knows that has a checkpoint of its own."""
    if os.path.isfile(path):
        stat = os.stat(path)
        check_checkpoint(path, "init.checkpoint=")
        return _hashed(path, stat.st_mtime_ns, stat.st_size)
    if config["experiment"]["name"] is not None:
        folder = RunFolder(run_path(config))
        if os.path.isfile(folder.checkpoint()) and os.path.isfile(folder.path / "config.yaml"):
            there = folder.config().get("init") or {}
            if there.get("sha256") and there.get("checkpoint") == path:
                return str(there["sha256"])
    check_checkpoint(path, "init.checkpoint=")
    raise AssertionError(path)


@functools.lru_cache(maxsize=64)
def _hashed(path: str, changed: int, size: int) -> str:
    return sha256_file(Path(path))


def check_initial(init: Mapping[str, Any], network: Network) -> None:
    """Check that the parts which a frozen configuration names fit, where the file is known.

    Args:
        init: the group of the configuration.
        network: of the run, on any device.

    Raises:
        UserError: the file cannot be read, or a part does not fit.
    """
    from indexnet.networks.encoders.weights import weight_kinds

    path = init.get("checkpoint")
    if path is not None:
        _, there = describe_weights(path, os.stat(path).st_mtime_ns, family_of(network))
        match(weight_kinds(network.state_dict()), there, init.get("parts") or {}, f"init.checkpoint={path}")


def match(own: Mapping[str, Kind], theirs: Mapping[str, Kind], parts: Mapping[str, str], source: str) -> Match:
    """Find for each weight of the named parts the one of the same name behind the part's in another network.

    Args:
        own: the network's weights.
        theirs: those of the other one.
        parts: own part to theirs; of parts inside each other the innermost counts; empty: the whole network.
        source: of the others, for messages.

    Raises:
        UserError: a part is unknown here or there, or not one weight of it fits.
    """
    from indexnet.networks.parts import check_part_name, is_in

    for part, other in parts.items():
        check_part_name(part, own, "init.parts", "the network")
        check_part_name(other, theirs, "init.parts", f"the network of {source}")
    found = Match({}, {}, {})
    fitting: dict[str, int] = dict.fromkeys(parts or ("",), 0)
    for name, kind in own.items():
        inside = [part for part in parts if is_in(name, part)]
        if parts and not inside:
            continue
        part = max(inside, key=len, default="")
        other = parts[part] + name[len(part) :] if parts else name
        there = theirs.get(other)
        if there == kind:
            found.taken[name] = other
            fitting[part] += len(kind[0]) > 0  # a counter of batches fits every other
        else:
            said = "absent there" if there is None else f"{there[0]} of {there[1]} there, {kind[0]} of {kind[1]} here"
            found.left[name] = said
        whole, taken = found.counts.get(part, (0, 0))
        found.counts[part] = whole + 1, taken + (there == kind)
    for part, count in fitting.items():
        if not count and (part in found.counts or not parts):
            inside = [name for name in found.left if not part or is_in(name, part)]
            why = f" ({inside[0]} is {found.left[inside[0]]})" if inside else ""
            what = f"of the part {part!r} no weight" if part else "no weight"
            raise UserError(
                f"init: {what} fits what {source} holds{why}; give a checkpoint of such a network, or other init.parts."
            )
    return found


def load_initial(task: Task, init: InitConfig) -> tuple[dict[str, Any], str]:
    """Give the parts of a task's network their first weights.

    Returns:
        What the record keeps: ``path``, ``sha256``, ``row`` of a row's, the names of what was ``loaded``, and why
        others were ``left``; and the same in a line.

    Raises:
        UserError: the file is not there or not finished, has changed since the run was frozen, or a part does not fit.
    """
    import torch

    from indexnet.networks.checkpoint import network_state
    from indexnet.networks.encoders.weights import weight_kinds
    from indexnet.networks.released.convert import load_any

    path = _finished(init)
    digest, source = sha256_file(path), init.row or f"init.checkpoint={path}"
    if init.sha256 is not None and digest != init.sha256:
        raise UserError(f"init.checkpoint={path} has changed since this run was made of it; give the command again.")
    _, there = describe_weights(str(path), path.stat().st_mtime_ns, family_of(task.network))
    found = match(weight_kinds(task.network.state_dict()), there, init.parts or {}, source)
    content = load_any(path, family_of(task.network))
    state, own = network_state(content), task.network.state_dict()
    with torch.no_grad():
        for name, other in found.taken.items():
            own[name].copy_(state[other])
    task.notice = content["indexnet"]["notice"]
    kept: dict[str, Any] = {"path": str(path), "sha256": digest, "loaded": list(found.taken), "left": found.left}
    if init.row is not None:
        kept["row"] = init.row
    return kept, _in_words(found, init.parts or {}, source)


def _finished(init: InitConfig) -> Path:
    """Return the file, that of a row only once its run is done."""
    if init.row is None:
        assert init.checkpoint is not None
        check_checkpoint(init.checkpoint, "init.checkpoint=")
        return Path(init.checkpoint)
    table, _, row = init.row.rpartition(":")
    remedy = f"indexnet train -m experiments={table} rows={row.partition('--')[0]} trains it"
    if init.checkpoint is None:
        raise UserError(f"this run starts from {init.row}, and it is not known where that lies; {remedy}.")
    folder = RunFolder(Path(init.checkpoint).parent.parent)
    try:
        status = folder.status()
    except DamagedRunError as error:
        raise UserError(f"this run starts from {init.row}, whose record cannot be read: {error}") from error
    if status != "done" or not os.path.isfile(init.checkpoint):
        has = {"new": "has not been trained", "running": "is not finished", "done": "has lost its checkpoint"}
        raise UserError(
            f"this run starts from {init.row}, which {has.get(status, status)} ({folder.path}); {remedy}, and a run "
            "that failed is tried again with retry_failed=true."
        )
    return Path(init.checkpoint)


def _in_words(found: Match, parts: Mapping[str, str], source: str) -> str:
    counts = [
        f"{taken} of {whole} weights" + (f" of {part} from {parts[part]}" if part else "")
        for part, (whole, taken) in found.counts.items()
    ]
    left = [f"{name} ({why})" for name, why in list(found.left.items())[:_SAID]]
    more = len(found.left) - len(left)
    left += [f"{more} more, which its record names"] if more else []
    return f"init: {', '.join(counts)} of {source}" + (f"; left: {', '.join(left)}" if left else "")
