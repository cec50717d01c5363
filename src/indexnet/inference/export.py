"""``indexnet export``: a trained network as one file that runs without this program."""

from __future__ import annotations

import copy
import io
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from indexnet.tasks import Task
    from indexnet.tasks.export_module import ExportModule, TensorInfo


SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}
TOLERANCE = 1e-4
"""Largest difference to PyTorch that is accepted, times the largest magnitude of the output where that is above 1."""
CHOICES_SHARE = {"random": 0.01, "a photograph": 0.1}
"""Share of the values that may differ more where the network takes maxima: of two nearly equal ones either may win.
Flat regions of photographs hold exact ties, which rounding alone decides: in a network with random weights ONNX Runtime
moved 3 % of the values (8 % of one image), and PyTorch itself 2 % after a change of the input by 1e-7."""

Run = Callable[[Sequence["Tensor"]], "list[Tensor]"]
"""An exported file at work: from its inputs to its outputs."""

_OPSET = 17
_METADATA = "indexnet.json"  # name of the extra file in a torch.export archive


# --- what is exported ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """How far an exported file is from PyTorch on one input.

    Attributes:
        kind: of input, a key of :data:`CHOICES_SHARE`.
        size: of input, in words.
        largest: the largest absolute difference.
        share: the share of values that differ by more than ``allowed``.
        allowed: the tolerance for this output.
    """

    kind: str
    size: str
    largest: float
    share: float
    allowed: float

    def __str__(self) -> str:
        beyond = f", {100 * self.share:.2f} % of the values beyond {self.allowed:.1e}" if self.share else ""
        return f"{self.kind}, {self.size}: largest difference {self.largest:.1e}{beyond}"


def describe(module: ExportModule, task: Task, meta: Mapping[str, Any], checkpoint_sha256: str) -> dict[str, Any]:
    """Return what the file says of itself: plain data, ready for JSON.

    Args:
        module: what is exported, see :meth:`indexnet.tasks.Task.export_module`.
        task: whose module it is.
        meta: the checkpoint's ``"indexnet"`` entry.
        checkpoint_sha256: of the checkpoint file.
    """
    from indexnet import __version__
    from indexnet.networks import without_pretrained
    from indexnet.networks.imagenet import IMAGENET_MEAN, IMAGENET_STD

    multiple = task.input_multiple(task.network, task.options)
    sizes = f"multiples of {multiple}, from {2 * multiple}" if multiple > 1 else "any"
    facts: dict[str, Any] = {
        "indexnet_version": __version__,
        "task": dict(meta["task"]),
        "network": without_pretrained(meta["network"]),
        "inputs": [info.describe() for info in module.inputs],
        "outputs": [info.describe() for info in module.outputs],
        "sizes": "; ".join(filter(None, [sizes, module.other_sizes])),
        "size_multiple": multiple,
        **{key: meta[key] for key in ("notice", "source") if meta[key]},
        "checkpoint_sha256": checkpoint_sha256,
    }
    if module.normalised:
        facts["normalisation"] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "where": "inside the graph"}
    if task.classes:
        facts["classes"] = list(task.classes)
    return facts


def _listed(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    import torch

    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def export(module: ExportModule, kind: str, facts: Mapping[str, Any]) -> tuple[bytes, list[Difference]]:
    """Export a network and check it.

    Args:
        module: on the CPU, in eval mode; it stays as it is.
        kind: ``onnx`` or ``torch_export``.
        facts: what :func:`describe` returned.

    Returns:
        The file's content, and how far it is from PyTorch on each input that was tried.

    Raises:
        UserError: an operation cannot be exported, or the file differs from PyTorch by more than :data:`TOLERANCE`.
    """
    import torch

    from indexnet.resampling.base import ResamplingStage

    exported = copy.deepcopy(module).requires_grad_(False)
    stages = list(module.network.resampling.stages)
    for stage in exported.network.resampling.modules():
        if isinstance(stage, ResamplingStage):
            stage.prepare_export()
    multiple = facts["size_multiple"]
    unit = multiple * math.ceil(32 / multiple)
    example = _random_inputs(module.inputs, 2, 2 * unit, 3 * unit, seed=0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about shapes that become constants: what the check below is for
        content, run = (_to_onnx if kind == "onnx" else _to_torch_export)(exported, example, facts)
        takes_maxima = any(stage.takes_maxima for stage in stages)
        differences = _compare(module, run, facts, unit, takes_maxima)
    refuse_differences(differences, kind, facts, takes_maxima)
    return content, differences


def refuse_differences(
    differences: Sequence[Difference], kind: str, facts: Mapping[str, Any], takes_maxima: bool
) -> None:
    """Refuse a file that is further from PyTorch than rounding explains.

    Args:
        differences: on every input that was tried.
        kind: of file.
        facts: what :func:`describe` returned.
        takes_maxima: whether the network does, see :data:`CHOICES_SHARE`.

    Raises:
        UserError: it is.
    """
    for difference in differences:
        if not difference.share <= (CHOICES_SHARE[difference.kind] if takes_maxima else 0.0) or not math.isfinite(
            difference.largest
        ):
            raise UserError(
                f"the {kind} file would differ from PyTorch ({difference}; at most {difference.allowed:.1e} is "
                f"accepted), so it was not written; please report this network: {json.dumps(facts['network'])}."
            )


# --- formats ---------------------------------------------------------------------------------------------------------


def require_onnx() -> None:
    """Refuse where the packages are missing.

    Raises:
        UserError: they are.
    """
    import importlib.util

    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format onnx needs {' and '.join(missing)}: pip install 'indexnet[export]', or give "
            f"--format torch_export."
        )


def _to_onnx(module: ExportModule, example: Sequence[Tensor], facts: Mapping[str, Any]) -> tuple[bytes, Run]:
    import onnx
    import onnxruntime
    import torch
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    inputs, outputs = ([entry["name"] for entry in facts[kind]] for kind in ("inputs", "outputs"))
    buffer = io.BytesIO()
    torch.onnx.register_custom_op_symbolic("aten::unflatten", _unflatten, _OPSET)  # type: ignore[attr-defined]
    try:
        # the exporter that traces: ten times as fast on these networks as the one on torch.export, the same result
        torch.onnx.export(
            module,
            tuple(example),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=_OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: {0: "batch", 2: "height", 3: "width"} for name in (*inputs, *outputs)},
        )
    except (torch.onnx.OnnxExporterError, RuntimeError, TypeError) as error:
        raise _not_exported("onnx", facts, error) from error
    model = onnx.load_model_from_string(buffer.getvalue())
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"indexnet.{key}", value if isinstance(value, str) else json.dumps(value)
    model.producer_name, model.producer_version = "indexnet", facts["indexnet_version"]
    content: bytes = model.SerializeToString()
    try:
        onnx.checker.check_model(content)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except (onnx.checker.ValidationError, failures.Fail, failures.InvalidGraph, failures.NotImplemented) as error:
        raise _not_exported("onnx", facts, error) from error

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        feeds = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True)}
        try:
            return [torch.from_numpy(output) for output in session.run(outputs, feeds)]
        except failures.Fail as error:  # at a size that was not traced
            raise _not_exported("onnx", facts, error) from error

    return content, run


def _unflatten(graph: Any, x: Any, dim: Any, sizes: Any) -> Any:
    """Write ``unflatten`` as a reshape by the sizes of its input; torch's own way fixes those that it has traced."""
    import torch
    from torch.onnx import symbolic_helper as helper

    rank = helper._get_tensor_rank(x)
    assert rank is not None
    split, shape = helper._get_const(dim, "i", "dim") % rank, graph.op("Shape", x)
    axes = [graph.op("Constant", value_t=torch.tensor([axis])) for axis in range(rank)]
    kept = [graph.op("Gather", shape, axis, axis_i=0) for axis in axes]
    new = [sizes]
    if helper._is_packed_list(sizes):
        new = [helper._unsqueeze_helper(graph, size, [0]) for size in helper._unpack_list(sizes)]
    return graph.op("Reshape", x, graph.op("Concat", *kept[:split], *new, *kept[split + 1 :], axis_i=0))


def _to_torch_export(module: ExportModule, example: Sequence[Tensor], facts: Mapping[str, Any]) -> tuple[bytes, Run]:
    import torch
    from torch.export import Dim

    multiple = facts["size_multiple"]
    height, width = Dim("height", min=2), Dim("width", min=2)
    shape = {0: Dim("batch", min=1), 2: multiple * height, 3: multiple * width}
    try:
        program = torch.export.export(module, tuple(example), dynamic_shapes=(shape,) * len(example))
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError, TypeError) as error:
        raise _not_exported("torch_export", facts, error) from error
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={_METADATA: json.dumps(facts)})
    content = buffer.getvalue()
    read = torch.export.load(io.BytesIO(content)).module()

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        return _listed(read(*tensors))

    return content, run


def _not_exported(kind: str, facts: Mapping[str, Any], error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    return UserError(
        f"network {facts['network']['name']!r} cannot be exported to {kind}, because an operation of it is not known "
        f"there ({reason}); try the other --format."
    )


# --- the check -------------------------------------------------------------------------------------------------------


def _compare(
    original: ExportModule,
    run: Run,
    facts: Mapping[str, Any],
    unit: int,
    takes_maxima: bool,
) -> list[Difference]:
    """Run both on random and on real input, each at two sizes and batch sizes that were not traced.

    Of several outputs the difference of the one that is furthest off is returned. Where the network takes maxima, the
    first alone is compared: matting's raw is what its alpha is made of, and its range, which clipping hides, multiplies
    the differences that :data:`CHOICES_SHARE` forgives.
    """
    import torch

    odd = 5 if facts["size_multiple"] == 1 else 0
    found = []
    for batch, height, width in ((1, 3 * unit + odd, 2 * unit), (3, 4 * unit, 5 * unit + odd)):
        for kind, make in (("random", _random_inputs), ("a photograph", _real_inputs)):
            tensors = make(original.inputs, batch, height, width, seed=batch)
            size = f"{batch} x {height}x{width}"
            each: list[Difference] = []
            for got, expected in zip(run(tensors), _listed(original(*tensors)), strict=True):
                if got.shape != expected.shape:
                    raise UserError(
                        f"the exported file gives {tuple(got.shape)} where PyTorch gives {tuple(expected.shape)}, so "
                        f"it was not written; please report this network: {json.dumps(facts['network'])}."
                    )
                if not bool(torch.isfinite(expected).all()):
                    raise UserError(
                        "the network's output is not finite, so the file was not written; its training diverged: use "
                        "another one."
                    )
                apart = (got - expected).abs()
                allowed = TOLERANCE * max(1.0, expected.abs().max().item())
                share = (~(apart <= allowed)).float().mean().item()
                if each and takes_maxima:
                    break
                each.append(Difference(kind, size, apart.max().item(), share, allowed))
            found.append(max(each, key=lambda difference: (difference.share, difference.largest)))
    return found


def _random_inputs(inputs: Sequence[TensorInfo], batch: int, height: int, width: int, seed: int) -> list[Tensor]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for info in inputs:
        shape = (batch, info.channels, height, width)
        if info.levels:
            chosen = torch.randint(0, len(info.levels), shape, generator=generator)
            tensors.append(torch.tensor(info.levels)[chosen])
        else:
            tensors.append(torch.rand(shape, generator=generator))
    return tensors


def _real_inputs(inputs: Sequence[TensorInfo], batch: int, height: int, width: int, seed: int) -> list[Tensor]:
    """Shrink scikit-image's photographs; of levels the highest, a band, and the lowest lie side by side."""
    import cv2
    import numpy as np
    import torch

    from indexnet.data.io import skimage_photographs

    channels = inputs[0].channels
    windows = []
    for name in ("astronaut.png", "coffee.png", "chelsea.png")[:batch]:
        picture = skimage_photographs.load(name, 1 if channels == 1 else 3)
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, -1)
        windows.append(np.resize(resized.transpose(2, 0, 1), (channels, height, width)))
    tensors = [torch.from_numpy(np.stack(windows).astype(np.float32) / np.float32(255))]
    for info in inputs[1:]:
        guide = torch.full((batch, info.channels, height, width), info.levels[len(info.levels) // 2])
        guide[..., : width // 4], guide[..., -width // 4 :] = info.levels[-1], info.levels[0]
        tensors.append(guide)
    return tensors


def small_checkpoint(path: str | Path) -> bytes:
    """Return a checkpoint's file without what only training needs, its kernels in half precision.

    The optimizer's state goes, and the run's configuration with its places on a disk, but for plugins and the name of
    its row; the entry ``source`` says in words what the configuration said. Weights of one dimension (norms, biases)
    stay as they are, as rounding would save little there.

    Args:
        path: of the checkpoint.

    Raises:
        UserError: as :func:`load_checkpoint`, or a weight is too large for half precision.
    """
    import torch

    from indexnet.networks.checkpoint import checkpoint_content, checkpoint_meta, load_checkpoint, network_state
    from indexnet.networks.encoders.weights import check_finite

    content = load_checkpoint(path)
    meta, state = content["indexnet"], network_state(content)
    for key, value in state.items():
        if value.is_floating_point() and value.ndim > 1:
            state[key] = value.half()
    check_finite(state, f"{path} in half precision")
    config: Mapping[str, Any] = meta["config"]
    data, training = (config.get(key) or {} for key in ("data", "training"))
    source = meta["source"]
    if data and training:
        length = next(f"{training[unit]} {unit}" for unit in ("steps", "epochs") if training.get(unit) is not None)
        trained = f"trained by indexnet on {data.get('name')}, {length} of batches of {training.get('batch_size')} at"
        source = "; ".join(filter(None, [source, f"{trained} {training.get('size')} pixels"]))
    own = {key: config[key] for key in ("plugins", "experiment") if config.get(key)}
    buffer = io.BytesIO()
    small = checkpoint_meta(meta["task"], meta["network"], own, meta["notice"], source)
    torch.save(checkpoint_content(small, state), buffer)
    return buffer.getvalue()
