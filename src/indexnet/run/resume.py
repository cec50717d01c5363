"""What a run starts from and goes on from: weights, checkpoints, where the last one may be damaged, and its code."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from indexnet.core.console import tell
from indexnet.core.errors import UserError
from indexnet.core.files import atomic_write, sha256_file, write_json
from indexnet.core.paths import check_checkpoint
from indexnet.core.readers import DamagedFileError, read_json, read_mapping
from indexnet.core.registry import listed_plugins
from indexnet.core.sources import OWN, Sources, read_sources
from indexnet.run.folder import RunFolder, difference
from indexnet.run.identity import config_hash
from indexnet.run.record import Record
from indexnet.run.schema import Config

if TYPE_CHECKING:
    from indexnet.networks import Network
    from indexnet.networks.encoders.weights import Kind
    from indexnet.tasks import Task

BROKEN = ".broken"
"""What is added to the name of a damaged file that is kept."""
CURVE = "curve"
"""Where a checkpoint has what was logged up to its step, see :mod:`indexnet.run.loggers.curve`."""


class Found(NamedTuple):
    """Where a run goes on.

    Attributes:
        path: of the checkpoint; None: at the beginning.
        step: optimizer steps that are done.
        ended: whether training has ended early (early stopping), so that only the test is left.
        curve: what was logged up to there, as ``csv/metrics.csv`` has it; None where the checkpoint does not say.
    """

    path: Path | None = None
    step: int = 0
    ended: bool = False
    curve: str | None = None


def find_checkpoint(folder: RunFolder, digest: str, *, settle: bool) -> Found:
    """Return the newest whole checkpoint.

    Every process of a run asks for itself, at its own time, and all get the same answer: it follows from the content of
    the files, which the first process tidies in a way that does not change it, and no new checkpoint is written before
    all processes have met.

    Args:
        folder: of the run.
        digest: the hash of its configuration.
        settle: put the files in order and say what was damaged; for the first process of a run, which holds its lock.

    Raises:
        UserError: a checkpoint belongs to another configuration, or may not be read.
    """
    last, previous = folder.checkpoint(), folder.previous_checkpoint()
    damaged: list[Path] = []
    found = Found()
    for path in (last, previous):
        checkpoint = read_checkpoint(path)
        if checkpoint is not None:
            _check_owner(path, checkpoint["indexnet"]["config"], folder, digest)
            state = checkpoint.get("callbacks", {}).get("Checkpoints", {})
            curve = checkpoint.get(CURVE)
            ended = bool(state.get("stopped"))
            found = Found(path, int(checkpoint["global_step"]), ended, curve if isinstance(curve, str) else None)
            break
        if path.exists():
            damaged.append(path)
    if settle:
        _settle(damaged, found, last)
    return found


def resumed_step(folder: RunFolder) -> int:
    """Return the step that a run would go on from, 0 for its beginning.

    The last checkpoint's step stands in a small file beside it; where that is not there or belongs to another
    checkpoint, the checkpoints themselves are read, which takes torch.
    """
    last = folder.checkpoint()
    with contextlib.suppress(OSError, DamagedFileError):
        noted = read_mapping(_step_file(last), read_json)
        step = noted.get("step")
        if noted.get("bytes") == last.stat().st_size and isinstance(step, int):
            return step
    for path in (last, folder.previous_checkpoint()):
        with contextlib.suppress(UserError):
            if os.path.isfile(path) and (checkpoint := read_checkpoint(path)) is not None:
                return int(checkpoint["global_step"])
    return 0


def write_checkpoint(path: Path, content: memoryview, step: int, previous: Path | None = None) -> None:
    """Write a checkpoint and beside it its step, so that a kill at any moment leaves no step of another checkpoint.

    Args:
        path: of the checkpoint.
        content: of the file.
        step: optimizer steps that are done.
        previous: where the checkpoint goes that this one replaces; None: nowhere.

    Raises:
        DiskFullError: there is no room; the checkpoints that are there stay.
    """
    forget_step(path)
    atomic_write(path, content, keep=previous)
    write_json(_step_file(path), {"step": step, "bytes": content.nbytes})


def forget_step(path: Path) -> None:
    """Remove the file that says a checkpoint's step."""
    _step_file(path).unlink(missing_ok=True)


def _step_file(path: Path) -> Path:
    return path.with_suffix(".step")


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint onto the CPU; None where there is none, or where it is damaged or cut off.

    Raises:
        UserError: it may not be read.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch writes the checksums but does not compare them
                return None
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
        used = checkpoint["global_step"], checkpoint["state_dict"], checkpoint["indexnet"]["config"]
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    except MemoryError:
        raise
    except Exception:  # whatever random bytes make of zipfile, pickle and torch
        return None
    good = isinstance(used[0], int) and isinstance(used[1], dict) and isinstance(used[2], dict)
    return checkpoint if good else None


def check_weights(path: Path, network: Network) -> None:
    """Check that a checkpoint holds the weights of such a network.

    Args:
        path: of the checkpoint.
        network: on any device, the one without memory too.

    Raises:
        UserError: it cannot be read, or holds those of another network.
    """
    check_checkpoint(path, "ckpt_path=")
    name, there = describe_weights(str(path), path.stat().st_mtime_ns, family_of(network))
    from indexnet.networks.encoders.weights import weight_kinds

    own = weight_kinds(network.state_dict())
    wrong = next((key for key in {**own, **there} if own.get(key) != there.get(key)), None)
    if wrong is not None:
        theirs, ours = ("absent" if (found := each.get(wrong)) is None else f"{found[0]} of {found[1]}"
                        for each in (there, own))  # fmt: skip
        raise UserError(
            f"ckpt_path={path} holds the weights of another network, {name} ({wrong} is {theirs} there, {ours} here); "
            "give a checkpoint of the same network and operator."
        )


def family_of(network: Network) -> str | None:
    """Return the family of a network's index networks, which the names in a released checkpoint may leave open."""
    return network.resampling.options.get("family")


@functools.lru_cache(maxsize=16)
def describe_weights(path: str, changed: int, family: str | None) -> tuple[str, dict[str, Kind]]:
    """Return the network's name, and what its weights are; a sweep asks once for all of its runs.

    Raises:
        UserError: the file cannot be read, or holds what is no number.
    """
    from indexnet.networks.checkpoint import network_state
    from indexnet.networks.encoders.weights import check_finite, check_kinds, weight_kinds
    from indexnet.networks.released.convert import load_any

    content = load_any(path, family)
    state = network_state(content)
    check_kinds({}, state, path)
    check_finite(state, path)
    name: str = content["indexnet"]["network"]["name"]
    return name, weight_kinds(state)


def load_weights(task: Task, path: Path) -> dict[str, str]:
    """Give a task the weights of a checkpoint of the same network, and the notice that comes with them.

    Args:
        task: it gets them.
        path: of a checkpoint of this program, or a released one.

    Returns:
        The checkpoint's ``path`` and ``sha256``.

    Raises:
        UserError: it cannot be read, or belongs to another network.
    """
    from indexnet.networks import checkpoint
    from indexnet.networks.released.convert import load_any

    check_weights(path, task.network)
    content = load_any(path, family_of(task.network))
    checkpoint.load_weights(task.network, content, path)
    task.notice = content["indexnet"]["notice"]
    return {"path": str(path), "sha256": sha256_file(path)}


_DECIDE = ("resampling", "networks", "tasks", "data", "metrics", "losses")
"""Rooms whose code decides what a run comes to; but for what only shows or exports it."""
_SHOW = ("tasks.contact_sheet", "tasks.export_module", "tasks.gallery", "tasks.visualization", "data.io.progress")


def code_of(config: Config) -> Sources:
    """Return the sources that decide what a run comes to: of its parts, and of a person's plugins.

    Of this package these are the modules that define its task and metrics, network, encoder, operator and data set, and
    what they import from the rooms of such things. Of plugins they are the modules that ``plugins`` and the variable
    name, those that define a part of the run, and what these import from their own folder.

    Raises:
        UserError: a part is not known.
    """
    from indexnet.data.base import get_data
    from indexnet.data.matting.pipelines.base import PIPELINES
    from indexnet.metrics.base import METRICS
    from indexnet.networks import get_network
    from indexnet.resampling import get_resampling
    from indexnet.tasks import get_task

    task, metrics = get_task(config.task["name"]), METRICS.classes()
    parts: list[type[Any]] = [task, *(metrics[name] for name in task.metric_names if name in metrics)]
    parts += [get_network(config.network["name"]), get_resampling(config.resampling["name"])]
    parts += [get_data(each["name"]) for each in (config.data, *config.tests) if isinstance(each, Mapping)]
    if (pipeline := PIPELINES.classes().get(str(config.data.get("pipeline")))) is not None:
        parts.append(pipeline)
    encoder = [f"{OWN}.networks.encoders.encoder"] if config.encoder.get("name") is not None else []
    targets = [str(each.get("_target_")).rpartition(".")[0] for each in config.callbacks.values()]
    own = [module for module in targets if module.partition(".")[0] != "pytorch_lightning"]
    modules = [*encoder, *(part.__module__ for part in parts), *(config.plugins or ()), *listed_plugins(), *own]
    return read_sources(modules, _decides)


def _decides(module: str) -> bool:
    inner = module.removeprefix(f"{OWN}.")
    return inner.partition(".")[0] in _DECIDE and inner not in _SHOW


def note_code(record: Record, config: Config, start: int) -> None:
    """Record the code that a run goes on with, and say where an earlier try had another.

    Args:
        record: of the run, with the code of its earlier tries.
        config: its frozen configuration.
        start: optimizer steps that are done already; without any, nothing is left of an earlier try.
    """
    found = code_of(config)
    if start == 0:
        record.code_before = {}
    changed = [name for name, before in record.code.items() if start and found.digests.get(name) != before]
    for name in changed:
        record.code_before.setdefault(name, []).append(record.code[name])
    record.code, record.code_folders = found.digests, found.folders
    if changed:
        tell(f"{', '.join(changed)} changed since this run began; it goes on, and its record says so")


def _check_owner(path: Path, there: Mapping[str, Any], folder: RunFolder, digest: str) -> None:
    if config_hash(there) != digest:
        raise UserError(
            f"{path} belongs to a run with another configuration ({difference(there, folder.config())}); move it away, "
            "and this run starts from the beginning."
        )


def _settle(damaged: list[Path], found: Found, last: Path) -> None:
    """Put damaged files aside and a copy of the checkpoint that is used in the place of the last one."""
    path, step = found.path, found.step
    if path != last:
        forget_step(last)
    for file in damaged:
        os.replace(file, file.with_name(file.name + BROKEN))
    if damaged:
        names = " and ".join(file.name for file in damaged)
        where = f"going on from {path.name}, step {step}" if path else "starting from the beginning"
        verb = "is" if len(damaged) == 1 else "are"
        print(f"indexnet: {last.parent}: {names} {verb} damaged, kept as *{BROKEN}; {where}.", file=sys.stderr)
    if path is not None and path != last:
        atomic_write(last, path.read_bytes())  # a copy: another process may be reading this one
