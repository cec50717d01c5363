"""A checkpoint as something that predicts: loading, devices, memory, samples, captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import default_collate

from indexnet.core.errors import UserError
from indexnet.core.machine import available_memory
from indexnet.networks.checkpoint import checkpoint_meta, resampling_title
from indexnet.networks.folding import fold_norms
from indexnet.networks.tiled.tiling import needs_whole_image
from indexnet.resampling.watch import watch_stages
from indexnet.tasks.base import Task, restore_task
from indexnet.tasks.classical import CLASSICAL, ClassicalMatting
from indexnet.tasks.predictor import not_finite

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
        UserError: as :meth:`indexnet.tasks.Task.load_from_checkpoint`.
    """
    if str(path) in CLASSICAL:
        classical = ClassicalMatting(str(path), **(options or {}))
        entry = {"name": classical.name, **classical.options}
        return classical, checkpoint_meta(entry, {"name": str(path)}, {}, source=CLASSICAL[str(path)].paper)
    task, meta = restore_task(path, Task, **(options or {}))
    return task.eval(), meta


def load(path: str | Path, **options: Any) -> Task:
    """Load a trained task to use it; what ``indexnet.load`` is.

    ``load(path)(batch)`` predicts, ``load(path).network`` is the bare module. To train it further, take
    :meth:`indexnet.tasks.Task.load_from_checkpoint`.

    Args:
        path: see :func:`load_task`.
        **options: likewise.

    Returns:
        The task, in eval mode on the CPU.

    Raises:
        UserError: as :func:`load_task`.
    """
    return load_task(path, options)[0]


def is_classical(meta: Mapping[str, Any]) -> bool:
    """Return whether an entry that :func:`load_task` returned is that of a classical method, which has no network."""
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
    memory = parse_memory(text)
    if task.limits_memory:
        if memory == "auto" and photographs and not needs_whole_image(task.network):
            memory = _COMFORTABLE if available_memory() > _COMFORTABLE else "auto"
        task.memory = memory
    elif memory != "auto":
        raise UserError(f"--memory is for matting; the task {task.name} runs images as they are.")


def load_for_photographs(path: str | Path, device: str, memory: str) -> tuple[Task, dict[str, Any], torch.device]:
    """Load what is to run on a person's photographs; arguments as on the command line.

    Returns:
        As :func:`load_task`, the task still on the CPU, its network as it predicts fastest: norms folded into
        convolutions and, for the CPU, in channels-last; and the device, which for a classical method is the CPU.

    Raises:
        UserError: the checkpoint, the device or the memory cannot be used.
    """
    task, meta = load_task(path)
    classical = is_classical(meta)
    where = pick_device("cpu" if classical and device == "auto" else device)
    limit_memory(task, memory, photographs=where.type == "cpu" and not classical)
    if not classical:
        fold_norms(task.network)
        if where.type == "cpu":  # less time in every network
            task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return task, meta, where


def predict_sample(task: Task, sample: Sample) -> Tensor:
    """Run a trained network on one sample of any size.

    Args:
        task: in eval mode, on whatever device.
        sample: needs ``image`` (C, H, W) in [0, 1], and for matting ``trimap`` (1, H, W) in {0, 128/255, 1}.

    Returns:
        The task's prediction (K, H, W), on the CPU.

    Raises:
        UserError: it is not finite.
    """
    prediction, finite = task.predict_finite(default_collate([dict(sample)]))
    if not all(finite):
        raise not_finite(str(sample.get("name", "the image")))
    return prediction[0]


def predict_with_index_maps(task: Task, sample: Sample) -> tuple[Tensor, list[Tensor | None]]:
    """Predict without a limit of memory, since stages are watched once, not tile by tile; collect index maps.

    Returns:
        The prediction (K, H, W), and per stage the map (C or 1, 2h, 2w), or None where there is none; on the CPU.

    Raises:
        UserError: the prediction is not finite.
    """
    network, memory = task.network, task.memory
    task.memory = None
    try:
        with watch_stages(network.resampling) as seen:
            prediction = predict_sample(task, sample)
    finally:
        task.memory = memory
    maps: list[Tensor | None] = []
    for number, results in enumerate(seen):
        found = network.stage(number).index_maps(results[-1].guide) if results else None
        maps.append(None if found is None else found[0].detach().float().cpu())
    return prediction, maps


def check_channels(task: Task, sample: Sample) -> None:
    """Refuse a data set whose images have another number of channels than the network takes.

    Raises:
        UserError: they differ.
    """
    channels, expected = int(sample["image"].shape[0]), task.image_channels
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


def unique_captions(paths: Sequence[Path], metas: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each checkpoint: by its operator, or where that is the same by its file."""
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
