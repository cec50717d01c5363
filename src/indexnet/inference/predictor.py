"""A checkpoint as something that predicts: loading, devices, memory, samples, captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import default_collate

from indexnet.core.errors import UserError
from indexnet.data.base import Float32, UInt8, planes
from indexnet.networks.tiled.matting_protocol import to_uint8
from indexnet.tasks import Task, create_task
from indexnet.tasks.matting import MattingTask

Sample = Mapping[str, Any]
"""One sample of a data set, without batch axis; keys and ranges by task, see :mod:`indexnet.data`."""


_COMFORTABLE = 4_000_000_000  # bytes


def load_task(path: str | Path, options: Mapping[str, Any] | None = None) -> tuple[Task, dict[str, Any]]:
    """Rebuild a trained network and its task from a checkpoint alone.

    Args:
        path: a checkpoint; or the name of a classical matting method, see :data:`indexnet.tasks.classical.CLASSICAL`.
        options: options of the task that take the place of the checkpoint's, such as how it measures.

    Returns:
        The task, in eval mode on the CPU, and the checkpoint's ``"indexnet"`` entry; for a classical method one whose
        network is its name.

    Raises:
        UserError: as :func:`indexnet.networks.checkpoint.load_network`, or the task or an option is unknown.
    """
    from indexnet.networks.checkpoint import checkpoint_meta, load_network
    from indexnet.tasks.classical import CLASSICAL, ClassicalMatting

    if str(path) in CLASSICAL:
        classical = ClassicalMatting(str(path), **(options or {}))
        entry = {"name": classical.name, **classical.options}
        return classical, checkpoint_meta(entry, {"name": str(path)}, {}, source=CLASSICAL[str(path)].paper)
    network, meta = load_network(path)
    meta["task"] = {**meta["task"], **(options or {})}
    return create_task(meta["task"], network), meta


def is_classical(meta: Mapping[str, Any]) -> bool:
    """Return whether an entry that :func:`load_task` returned is that of a classical method, which has no network."""
    from indexnet.tasks.classical import CLASSICAL

    return meta["network"]["name"] in CLASSICAL


def limit_memory(task: Task, text: str, photographs: bool = False) -> None:
    """Apply ``--memory`` to a task.

    Args:
        task: any.
        text: as it was given.
        photographs: whether ``auto`` keeps the command below 4 GB of the machine's memory where it could have more, as
            suits a person's computer; tiles take longer. Measurements run whole images wherever they fit.

    Raises:
        UserError: it is not understood, or limits a task whose predictions know no limit.
    """
    from indexnet.core.machine import available_memory
    from indexnet.networks.tiled.tiling import pools_everywhere
    from indexnet.tasks.matting import MattingTask

    memory = parse_memory(text)
    if isinstance(task, MattingTask):
        if memory == "auto" and photographs and not pools_everywhere(task.network):
            memory = _COMFORTABLE if available_memory() > _COMFORTABLE else "auto"
        task.memory = memory
    elif memory != "auto":
        raise UserError(f"--memory is for matting; the task {task.name} runs images as they are.")


def tiled_count(task: Task) -> int:
    """Return how many images a task has run in tiles."""
    return int(getattr(task, "tiled", 0))


def predict_sample(task: Task, sample: Sample) -> Tensor:
    """Run a trained network on one sample of any size.

    Args:
        task: in eval mode, on whatever device.
        sample: needs ``image`` (C, H, W) in [0, 1], and for matting ``trimap`` (1, H, W) in {0, 128/255, 1}.

    Returns:
        The task's prediction (K, H, W), on the CPU.
    """
    return predict_batch(task, default_collate([dict(sample)]))[0]


def predict_batch(task: Task, batch: Sample) -> Tensor:
    """Run a trained network on samples of one size; as :func:`predict_sample`, with a batch axis everywhere."""
    parameter = next(task.network.parameters(), None)
    device = "cpu" if parameter is None else parameter.device
    moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    with torch.inference_mode():
        return task.infer(moved).cpu()


def needs_trimap(task: Task) -> bool:
    """Return whether a task reads a trimap beside the image."""
    return "trimap" in task.needs


def image_sample(task: Task, image: UInt8, trimap: UInt8 | None = None, name: str = "") -> Sample:
    """Make a sample of an image from anywhere.

    Args:
        task: its network decides the channels: one for gray images gets the luma (ITU-R BT.601).
        image: uint8 (H, W, 3), RGB.
        trimap: uint8 (H, W) in {0, 128, 255}.
        name: the sample's name.

    Raises:
        UserError: the image is too small for the network's halvings.
    """
    sample: dict[str, Any] = {"name": name}
    network = task.network
    resized = needs_trimap(task)  # to a multiple of 32; other tasks run at the image's own size
    smallest = 2 ** max(0, len(network.resampling.stages) - 1) + 1
    if not resized and min(image.shape[:2]) < smallest:
        raise UserError(
            f"{name}: the image is {image.shape[1]}x{image.shape[0]} pixels but this network halves "
            f"{len(network.resampling.stages)} times; give images of at least {smallest}x{smallest}."
        )
    gray = network.in_channels == 1 and not resized
    sample["image"] = planes(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) if gray else image)
    if trimap is not None:
        sample["trimap"] = planes(trimap)
    return sample


def check_channels(task: Task, sample: Sample) -> None:
    """Refuse a data set whose images have another number of channels than the network takes.

    Raises:
        UserError: they differ.
    """
    channels = int(sample["image"].shape[0])
    expected = task.network.in_channels - (1 if needs_trimap(task) else 0)
    if channels != expected:
        raise UserError(
            f"the data set's images have {channels} channels but the network takes {expected}; "
            f"give data.channels={expected} where the data set has that option, or another data set."
        )


def pick_device(name: str) -> torch.device:
    """Settle ``--device``: ``auto`` is the first GPU where there is one, else the CPU.

    Raises:
        UserError: no such device, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name} is unknown; give auto, cpu, cuda or cuda:N.") from error
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UserError(f"--device {name}: this machine shows {count} CUDA devices; give --device cpu or auto.")
    if device.type not in ("cpu", "cuda", "mps") or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise UserError(f"--device {name} cannot be used here; give auto, cpu, cuda or cuda:N.")
    return device


def parse_memory(text: str) -> int | Literal["auto"] | None:
    """Settle ``--memory``, as :func:`indexnet.networks.tiled.matting_protocol.infer_alpha` takes it.

    Args:
        text: ``auto``, ``none``, or a number with a unit of 1000s (``MB``, ``GB``) or 1024s (``MiB``, ``GiB``).

    Returns:
        Bytes; ``"auto"``; None where there is no limit.

    Raises:
        UserError: it is none of these.
    """
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word == "none":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b", word)
    amount = float(found[1]) * (1024 if found[3] else 1000) ** ("kmgt".index(found[2]) + 1) if found and found[2] else 0
    if amount < 1e6:
        raise UserError(f"--memory {text} must be auto, none, or at least a megabyte, as 4GB or 512MB.")
    return int(amount)


def as_samples(batch: Sequence[Sample]) -> list[list[Sample]]:
    """Split samples into runs of one image size each, in order, so that each run can be collated."""
    groups: list[list[Sample]] = []
    for sample in batch:
        if groups and groups[-1][0]["image"].shape == sample["image"].shape:
            groups[-1].append(sample)
        else:
            groups.append([sample])
    return groups


def finite_alpha(task: MattingTask, image: UInt8, trimap: UInt8, name: str) -> Float32:
    """Predict the alpha of a photograph, see :meth:`indexnet.tasks.matting.MattingTask.predict_alpha`.

    Raises:
        UserError: also where the network gives no numbers.
    """
    alpha = task.predict_alpha(image, trimap, name)
    if not np.isfinite(alpha).all():
        raise UserError(f"{name}: the network's output is not finite; its training diverged: use another one.")
    return alpha


def quantise_alpha(alpha: Float32, depth: Literal[8, 16]) -> UInt8 | npt.NDArray[np.uint16]:
    """Bring alpha in [0, 255] to what a PNG holds.

    Args:
        alpha: (H, W), as :meth:`indexnet.tasks.matting.MattingTask.predict_alpha` returns it.
        depth: 8: cut to whole levels, as the paper measures it; 16: rounded, 65535 is opaque.

    Returns:
        uint8 or uint16 (H, W).
    """
    return to_uint8(alpha) if depth == 8 else np.rint(np.clip(alpha, 0, 255) * np.float32(257)).astype(np.uint16)


def unique_captions(paths: Sequence[Path], metas: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each checkpoint: by its operator, or where that is the same by its file."""
    from indexnet.networks.checkpoint import resampling_title

    titles = [resampling_title(meta) for meta in metas]
    counts = Counter(titles)
    names = [f"{t} ({_place(p)})" if counts[t] > 1 else t for t, p in zip(titles, paths, strict=True)]
    repeated = Counter(names)
    return [f"{number}: {name}" if repeated[name] > 1 else name for number, name in enumerate(names, start=1)]


def _place(path: Path) -> str:
    """Say which checkpoint: the run folder's name for ``<run>/checkpoints/last.ckpt``, else the file's."""
    resolved = path.resolve()
    if resolved.parent.name == "checkpoints":
        return "/".join(resolved.parent.parent.parts[-2:])
    return path.stem
