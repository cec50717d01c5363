"""Released state dicts become networks and checkpoints of this package, whichever source they are from."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.core.files import prepare_file, sha256_file
from indexnet.networks.base import Network
from indexnet.networks.checkpoint import (
    FOREIGN_OBJECTS,
    ReleasedError,
    checkpoint_content,
    checkpoint_meta,
    load_checkpoint,
    network_state,
    save_checkpoint,
)
from indexnet.networks.encoders.weights import check_kinds, read_checkpoint, state_dict_of
from indexnet.networks.released.base import SOURCES, ReleasedSource, source_of
from indexnet.networks.restore import build_without_memory, restore_network

# Synchronised batch normalisation leaves its own counters in the state dict.
_JUNK = re.compile(r".*\._(tmp_running_mean|tmp_running_var|running_iter|moving_average_fraction)$")


def from_released(state_dict: Mapping[str, Any], family: str | None = None) -> Network:
    """Build the network of a released state dict, with its weights, in evaluation mode.

    Args:
        state_dict: names to tensors as the released code saves them; names may start with ``module.``, and it may be a
            whole checkpoint with the key ``state_dict`` (optimizer state and counters are left out).
        family: family of the index networks. Only needed where modelwise and shared ones cannot be told apart: both
            have the same names and shapes; without it, equal values at all stages mean ``o2o_modelwise``.

    Returns:
        The network; its output equals that of the released code. (Of index-network matting, output stride 16 is
        recognised by the missing ``index6``; a max-unpooling network is taken to have 32, its weights do not tell.)

    Raises:
        UserError: it is not a state dict of a released network, or contradicts ``family``.
    """
    return _build(state_dict, family, "the state dict")[0]


def convert(
    input_path: str | Path, output_path: str | Path, family: str | None = None, overwrite: bool = False
) -> None:
    """Write a released checkpoint as one of this package, atomically.

    Args:
        input_path: a file of ``torch.save``: a state dict, or a checkpoint that holds one.
        output_path: the file to write.
        family: see :func:`from_released`.
        overwrite: whether an existing output may be replaced.

    Raises:
        UserError: the output exists, or the input cannot be read or is not a released checkpoint that is known.
    """
    source, target = Path(input_path), Path(output_path)
    if os.path.isdir(target):
        raise UserError(f"the output {target} is a folder; give the name of the file to write, such as a .ckpt in it.")
    if os.path.exists(target) and not overwrite:
        raise UserError(f"{target} exists; choose another output or give --overwrite.")
    prepare_file(target)
    released = _read(source)
    if isinstance(released, Mapping) and "indexnet" in released:
        raise UserError(f"{source} is a checkpoint of this program, which every command takes as it is.")
    content = _converted(source, released, family)
    save_checkpoint(target, content["indexnet"], network_state(content))


def load_any(path: str | Path, family: str | None = None) -> dict[str, Any]:
    """Read a checkpoint of this package or a released one; returns what ``load_checkpoint`` returns.

    Args:
        path: the file.
        family: that of the network which the weights are for; says which of two families a released file holds whose
            weights are the same for both.

    Raises:
        UserError: it is neither, or cannot be read.
    """
    path = Path(path)
    try:
        return load_checkpoint(path)
    except ReleasedError:
        content = _read(path)
        found = recognise_released(content, where=str(path)).get("resampling")
        alike = (found.get("family") if isinstance(found, Mapping) else None, family) == ("o2o_modelwise", "o2o_shared")
        return _converted(path, content, family if alike else None)


def recognise_released(
    state_dict: Mapping[str, Any], family: str | None = None, where: str = "the state dict"
) -> dict[str, Any]:
    """Return the network, ``name`` and options, that a released state dict was made with.

    Args:
        state_dict: see :func:`from_released`.
        family: see :func:`from_released`.
        where: what it is, for messages.

    Raises:
        UserError: see :func:`from_released`.
    """
    state, source = _clean(state_dict, where)
    return source.recognise(state, where, family)


def _converted(path: Path, content: Any, family: str | None) -> dict[str, Any]:
    network, spec, source = _build(content, family, str(path))
    meta = checkpoint_meta(
        task=source.task(spec),
        network=spec,
        config={},
        notice=source.info.notice,
        source=f"{path.name}, sha256 {sha256_file(path)}",
    )
    return checkpoint_content(meta, network.state_dict())


def _read(path: Path) -> Any:
    """Read the input. What PyTorch says of a file that it refuses, to load it unsafely, is never passed on."""
    try:
        return read_checkpoint(path)
    except UserError as error:
        cause = error.__cause__
        if cause is None:
            raise
    if isinstance(cause, OSError):
        reason = f"cannot be read ({cause.strerror or type(cause).__name__})"
    elif isinstance(cause, pickle.UnpicklingError) and FOREIGN_OBJECTS.search(str(cause)):
        reason = "holds Python objects beside tensors and is not opened, because loading such a file can run code"
    else:
        reason = "is no complete checkpoint file (damaged, cut off or something else)"
    raise UserError(f"{path} {reason}; give the checkpoint or state dict of a released network.") from cause


def _build(content: Any, family: str | None, where: str) -> tuple[Network, dict[str, Any], ReleasedSource]:
    state, source = _clean(content, where)
    spec = source.recognise(state, where, family)
    renamed = source.rename(state, spec, where)
    try:
        expected = build_without_memory(spec).state_dict()
    except UserError as error:
        raise UserError(f"{where} looks like a checkpoint of {source.info.title}, but {error}") from error
    for key in expected:  # files of very old PyTorch have no counters of batches
        if key.endswith("num_batches_tracked"):
            renamed.setdefault(key, torch.tensor(0))
    missing, extra = sorted(expected.keys() - renamed.keys()), sorted(renamed.keys() - expected.keys())
    shapes = [key for key in expected if key in renamed and renamed[key].shape != expected[key].shape]
    if missing or extra or shapes:
        faults = [
            f"{len(keys)} tensors {what} (first: {keys[0]})"
            for keys, what in ((missing, "are missing"), (extra, "are unknown"), (shapes, "have another shape"))
            if keys
        ]
        raise UserError(f"{where} looks like a checkpoint of {source.info.title}, but {' and '.join(faults)}.")
    return restore_network(spec, renamed, where).eval(), spec, source


def _clean(content: Any, where: str) -> tuple[dict[str, Tensor], ReleasedSource]:
    state = {key: value for key, value in state_dict_of(content, where).items() if not _JUNK.fullmatch(key)}
    source = source_of(state)
    if source is None:
        known = ", ".join(cls.info.title.removeprefix("the ") for cls in SOURCES.classes().values())
        raise UserError(
            f"{where} is not a checkpoint of a released network that is known here ({known}): its first name is "
            f"{next(iter(state), 'none')!r}."
        )
    check_kinds({}, state, where)
    return state, source
