"""The weights that a run starts from, ``ckpt_path``: checked before anything starts, loaded where it does."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from indexnet.core.errors import UserError
from indexnet.core.files import sha256_file

if TYPE_CHECKING:
    from indexnet.networks import Network
    from indexnet.tasks import Task


def missing_weights(path: str | Path) -> UserError:
    """Return the complaint about a checkpoint that is not there."""
    return UserError(f"ckpt_path={path} is no file; give a checkpoint to start from.")


def check_weights(path: Path, network: Network) -> None:
    """Check that a checkpoint holds the weights of such a network.

    Args:
        path: of the checkpoint.
        network: on any device, the one without memory too.

    Raises:
        UserError: it cannot be read, or holds those of another network.
    """
    if not path.is_file():
        raise missing_weights(path)
    name, shapes = _shapes(str(path), path.stat().st_mtime_ns)
    own = {f"network.{key}": tuple(value.shape) for key, value in network.state_dict().items()}
    wrong = next((key for key in {**own, **shapes} if own.get(key) != shapes.get(key)), None)
    if wrong is not None:
        there, here = (str(each.get(wrong, "absent")) for each in (shapes, own))
        raise UserError(
            f"ckpt_path={path} holds the weights of another network, {name} ({wrong} is {there} there, {here} here); "
            "give a checkpoint of the same network and operator."
        )


@functools.lru_cache(maxsize=16)
def _shapes(path: str, changed: int) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return the network's name and the shapes of its weights; a sweep asks once for all of its runs."""
    from indexnet.networks.checkpoint import load_checkpoint

    content = load_checkpoint(path)
    return content["indexnet"]["network"]["name"], {k: tuple(v.shape) for k, v in content["state_dict"].items()}


def load_weights(task: Task, path: Path) -> dict[str, str]:
    """Give a task the weights of a checkpoint of the same network.

    Returns:
        The checkpoint's ``path`` and ``sha256``.

    Raises:
        UserError: it cannot be read, or belongs to another network.
    """
    from indexnet.networks.checkpoint import load_checkpoint

    check_weights(path, task.network)
    task.load_state_dict(load_checkpoint(path)["state_dict"])
    return {"path": str(path), "sha256": sha256_file(path)}
