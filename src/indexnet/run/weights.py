"""The weights that a run starts from, ``ckpt_path``: checked before anything starts, loaded where it does."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from indexnet.core.errors import UserError
from indexnet.core.files import sha256_file
from indexnet.core.paths import check_checkpoint

if TYPE_CHECKING:
    from indexnet.networks import Network
    from indexnet.tasks import Task


def check_weights(path: Path, network: Network) -> None:
    """Check that a checkpoint holds the weights of such a network.

    Args:
        path: of the checkpoint.
        network: on any device, the one without memory too.

    Raises:
        UserError: it cannot be read, or holds those of another network.
    """
    check_checkpoint(path, "ckpt_path=")
    name, there = _described(str(path), path.stat().st_mtime_ns, _family(network))
    from indexnet.networks.encoders.weights import number_kind

    own = {key: (tuple(value.shape), number_kind(value)) for key, value in network.state_dict().items()}
    wrong = next((key for key in {**own, **there} if own.get(key) != there.get(key)), None)
    if wrong is not None:
        theirs, ours = ("absent" if (found := each.get(wrong)) is None else f"{found[0]} of {found[1]}"
                        for each in (there, own))  # fmt: skip
        raise UserError(
            f"ckpt_path={path} holds the weights of another network, {name} ({wrong} is {theirs} there, {ours} here); "
            "give a checkpoint of the same network and operator."
        )


def _family(network: Network) -> str | None:
    """Return the family of a network's index networks, which the names in a released checkpoint may leave open."""
    return network.resampling.options.get("family")


@functools.lru_cache(maxsize=16)
def _described(path: str, changed: int, family: str | None) -> tuple[str, dict[str, tuple[tuple[int, ...], str]]]:
    """Return the network's name, and what its weights are; a sweep asks once for all of its runs.

    Raises:
        UserError: the file cannot be read, or holds what is no number.
    """
    from indexnet.networks.checkpoint import network_state
    from indexnet.networks.encoders.weights import check_finite, check_kinds, number_kind
    from indexnet.networks.released_checkpoints import load_any

    content = load_any(path, family)
    state = network_state(content)
    check_kinds({}, state, path)
    check_finite(state, path)
    name: str = content["indexnet"]["network"]["name"]
    return name, {key: (tuple(value.shape), number_kind(value)) for key, value in state.items()}


def load_weights(task: Task, path: Path) -> dict[str, str]:
    """Give a task the weights of a checkpoint of the same network, and the notice that comes with them.

    Args:
        task: it gets them.
        path: of a checkpoint of this program or of the released matting code.

    Returns:
        The checkpoint's ``path`` and ``sha256``.

    Raises:
        UserError: it cannot be read, or belongs to another network.
    """
    from indexnet.networks import checkpoint
    from indexnet.networks.released_checkpoints import load_any

    check_weights(path, task.network)
    content = load_any(path, _family(task.network))
    checkpoint.load_weights(task.network, content, path)
    task.notice = content["indexnet"]["notice"]
    return {"path": str(path), "sha256": sha256_file(path)}
