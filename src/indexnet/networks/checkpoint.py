"""Checkpoints: plain data and tensors in one file, from which a network is rebuilt without anything else.

A checkpoint is a dict that ``torch.load(weights_only=True)`` reads::

    {
        "indexnet": {"version": 1, "task": {"name": ..}, "network": {"name": ..}, "config": {..}, "notice": "",
                     "source": ""},
        "state_dict": {"network.<key>": tensor, ..},
    }

Training adds Lightning's own keys beside these two; nothing here reads them.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from indexnet.core.annotations import fits, in_words
from indexnet.core.errors import UserError, shown
from indexnet.core.files import atomic_write
from indexnet.core.paths import check_checkpoint
from indexnet.core.readers import check_nesting
from indexnet.core.registry import load_plugins
from indexnet.networks.base import Network
from indexnet.networks.encoders.weights import DAMAGES, load_tensors
from indexnet.networks.released.base import source_of
from indexnet.networks.restore import load_state, restore_network
from indexnet.networks.spec import split_spec, without_pretrained
from indexnet.resampling.base import NONE

VERSION = 1
"""Version of the ``"indexnet"`` entry; raised when its meaning changes."""

_PREFIX = "network."
_ENTRY: dict[str, Any] = {"config": Mapping, "notice": str, "source": str}
_GROUPS = ("task", "data", "training", "paths", "experiment", "optimizer")
_CONFIG: dict[str, Any] = {**dict.fromkeys(_GROUPS, Mapping), "plugins": list[str]}
_HPARAMS: dict[str, Any] = {"optimizer": Mapping, "schedule": Mapping}
FOREIGN_OBJECTS = re.compile(r"Unsupported (global|class)|not an allowed global")
"""What PyTorch says of a class or function that it does not restore, as opposed to a file that is no pickle at all."""


class ReleasedError(UserError):
    """A file is a checkpoint that another project released, see :mod:`indexnet.networks.released`."""


def checkpoint_meta(
    task: Mapping[str, Any], network: Mapping[str, Any], config: Mapping[str, Any], notice: str = "", source: str = ""
) -> dict[str, Any]:
    """Build the ``"indexnet"`` entry of a checkpoint.

    Args:
        task: the task's ``name`` and options.
        network: ``name`` and options for :func:`indexnet.networks.create_network`, resampling and encoder included.
        config: the frozen configuration of the run, or an empty mapping.
        notice: what whoever uses the weights must know, such as their licence.
        source: where the weights come from, in words.

    Returns:
        Plain data only (dict, list, str, int, float, bool, None), copied.

    Raises:
        TypeError: a value is not plain data, so that ``weights_only=True`` could not read it back.
    """
    meta = {
        "version": VERSION,
        "task": dict(task),
        "network": dict(network),
        "config": dict(config),
        "notice": notice,
        "source": source,
    }
    for key in ("task", "network"):
        if not isinstance(meta[key].get("name"), str):  # type: ignore[attr-defined]
            raise TypeError(f"checkpoint entry {key!r} has no name: {meta[key]!r}")
    return plain_data(meta, "indexnet")  # type: ignore[no-any-return]


def save_checkpoint(path: str | Path, meta: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> None:
    """Write a checkpoint, atomically.

    Args:
        path: the file; an existing one is replaced, so whoever calls checks first.
        meta: what :func:`checkpoint_meta` built.
        state_dict: the network's own ``state_dict()``; the prefix ``network.`` is added here.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint_content(meta, state_dict), buffer)
    atomic_write(path, buffer.getvalue())


def checkpoint_content(meta: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what :func:`save_checkpoint` writes, and :func:`load_checkpoint` reads; arguments as there."""
    tensors = {f"{_PREFIX}{key}": tensor.detach().cpu() for key, tensor in state_dict.items()}
    return {"indexnet": dict(meta), "state_dict": tensors}


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this program, onto the CPU. No code of the file is run.

    Returns:
        The whole dict; ``["indexnet"]`` and ``["state_dict"]`` are there and have the right types.

    Raises:
        UserError: there is no such file, it cannot be read, or it is a checkpoint of something else.
    """
    path = Path(path)
    check_checkpoint(path)
    try:
        content = load_tensors(path)
    except pickle.UnpicklingError as error:
        if FOREIGN_OBJECTS.search(str(error)):
            raise UserError(
                f"{path} holds Python objects beside tensors and is not opened, because loading such a file can run "
                "code; give a checkpoint that `indexnet train` or `indexnet convert` wrote."
            ) from error
        raise UserError(f"{path} is no checkpoint file; give a .ckpt that `indexnet train` wrote.") from error
    except DAMAGES as error:
        raise UserError(
            f"{path} is no complete checkpoint file (damaged, cut off or something else); "
            "copy it again or give a .ckpt that `indexnet train` wrote."
        ) from error
    _check_content(path, content)
    return content  # type: ignore[no-any-return]


def load_network(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """Rebuild a trained network from its checkpoint alone.

    Returns:
        The network on the CPU in eval mode, and the checkpoint's ``"indexnet"`` entry.

    Raises:
        UserError: as :func:`load_checkpoint`, or the weights do not fit the network that the file describes.
    """
    content = load_checkpoint(path)
    meta: dict[str, Any] = content["indexnet"]
    check_plugins(path, meta)
    network = restore_network(without_pretrained(meta["network"]), network_state(content), path)
    return network.eval(), meta


def check_plugins(path: str | Path, meta: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that was trained with plugins which nobody has asked for.

    Args:
        path: of the checkpoint, for the message.
        meta: its ``"indexnet"`` entry.

    Raises:
        UserError: it was.
    """
    config = meta.get("config")
    wanted = config.get("plugins") if isinstance(config, dict) else None
    if missing := [str(name) for name in wanted or () if name not in load_plugins()]:
        raise UserError(
            f"{path} was trained with plugins, and no file gets to run code by itself; if you trust them, give the "
            f"variable INDEXNET_PLUGINS={','.join(missing)}."
        )


def load_weights(network: Network, content: Mapping[str, Any], path: str | Path, strict: bool = True) -> None:
    """Give a network the weights of a checkpoint.

    Args:
        network: it gets them.
        content: what :func:`load_checkpoint` returned.
        path: of the checkpoint, for the message.
        strict: whether every weight must be there, and no other.

    Raises:
        UserError: they do not fit, or are not finite.
    """
    described = content["indexnet"]["network"]["name"]
    load_state(network, network_state(content), path, described, strict=strict)


def network_state(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the network's own state dict of what :func:`load_checkpoint` returned."""
    return {k.removeprefix(_PREFIX): v for k, v in content["state_dict"].items() if k.startswith(_PREFIX)}


def resampling_title(meta: Mapping[str, Any]) -> str:
    """Name a checkpoint for a person: the label of its experiment's row, or its resampling operator and options."""
    experiment = meta.get("config", {}).get("experiment") or {}
    if experiment.get("label") or experiment.get("row"):
        return str(experiment.get("label") or experiment["row"])
    name, options = split_spec("resampling", meta["network"].get("resampling") or NONE)
    if name == NONE:
        return str(meta["network"]["name"])
    words = [options.get("family") or name, *(key for key in ("nonlinear", "context") if options.get(key))]
    return ", ".join([*words, f"{options['pooling']} pooling"] if options.get("pooling") else words)


def _check_content(path: Path, content: Any) -> None:
    meta = content.get("indexnet") if isinstance(content, dict) else None
    if not isinstance(meta, dict) or not isinstance(content.get("state_dict"), dict):
        state = content.get("state_dict", content) if isinstance(content, dict) else {}
        released = source_of(state) if isinstance(state, dict) else None
        if released is not None:
            raise ReleasedError(
                f"{path} is a checkpoint of {released.info.title}; `indexnet convert {path} OUTPUT.ckpt` makes "
                "one for this program."
            )
        raise UserError(
            f"{path} is a checkpoint of something else: it lacks the entry 'indexnet'; "
            "give a .ckpt that `indexnet train` or `indexnet convert` wrote."
        )
    version = meta.get("version")
    if type(version) is not int or version != VERSION:
        raise UserError(
            f"{path} has checkpoint format {shown(version)} but this program reads format {VERSION}; "
            "use the version of indexnet that wrote it."
        )
    for key, default in (("config", {}), ("notice", ""), ("source", "")):
        meta[key] = default if meta.get(key) is None else meta[key]
    try:
        check_nesting(meta, f"{path}, entry indexnet,")
        content["indexnet"] = meta = plain_data(meta, "indexnet")
    except (TypeError, UserError) as error:
        raise UserError(f"{path} is damaged: {error}; copy or train it again.") from error
    for key in ("task", "network"):
        if not isinstance(meta.get(key), dict) or not isinstance(meta[key].get("name"), str):
            raise UserError(f"{path} is damaged: its entry indexnet.{key} has no name; copy or train it again.")
    for node, types, where in (
        (meta, _ENTRY, "indexnet"),
        (meta["config"], _CONFIG, "indexnet.config"),
        (content.get("hyper_parameters"), _HPARAMS, "hyper_parameters"),
    ):
        for key, kind in types.items():
            value = node.get(key) if isinstance(node, dict) else node
            if value is not None and not fits(value, kind):
                raise UserError(
                    f"{path} is damaged: its entry {where}.{key} must be {in_words(kind)}, not {shown(value)}; copy or "
                    "train it again."
                )
    for key in content["state_dict"]:
        if not isinstance(key, str):
            raise UserError(f"{path} is damaged: a weight is called {shown(key)}, which is no text; copy it again.")


def plain_data(value: Any, where: str) -> Any:
    """Return a copy of what a checkpoint may hold: dict, list (tuples become lists), str, int, float, bool, None.

    Args:
        value: anything.
        where: what it is, for the message.

    Raises:
        TypeError: there is something else in it.
    """
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise TypeError(f"{where} has the key {key!r}; checkpoints have text keys only")
        return {key: plain_data(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}; checkpoints hold plain data only")
