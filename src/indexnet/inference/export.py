"""``indexnet export``: a trained network as one file that runs without this program."""

from __future__ import annotations

import copy
import io
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indexnet.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from indexnet.networks import Network
    from indexnet.tasks import Task


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
_CHOOSING = ("max_unpool", "holistic_max_index")
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


def with_protocol(task: Task) -> nn.Module:
    """Wrap a task's network with what belongs to its use, so that whoever runs the file cannot get it wrong.

    Matting: ImageNet normalisation of the image, clipping to [0, 1], and the trimap's word where it is known; also what
    the network gave before these two, which sizes other than the network's need. Depth and segmentation: the
    normalisation; depth at least 0. Reconstruction: clipping to [0, 1]. Denoising and any other task: the network as it
    is.

    Returns:
        A module of ``(image, trimap)`` that returns ``(alpha, raw)`` for matting, and of ``(image)`` that returns one
        tensor else, in eval mode.
    """
    from torch import nn

    from indexnet.networks.imagenet import normalise
    from indexnet.networks.tiled.matting_protocol import prepare_input

    class Matting(nn.Module):
        def __init__(self, network: Network) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Tensor, trimap: Tensor) -> tuple[Tensor, Tensor]:
            raw: Tensor = self.network(prepare_input(image, trimap))
            unknown = (trimap - 128 / 255).abs() < 0.5 / 255
            return raw.clamp(0, 1).where(unknown, trimap), raw

    class Image(nn.Module):
        def __init__(self, network: Network, normalised: bool, low: float | None, high: float | None) -> None:
            super().__init__()
            self.network, self.normalised, self.low, self.high = network, normalised, low, high

        def forward(self, image: Tensor) -> Tensor:
            output: Tensor = self.network(normalise(image) if self.normalised else image)
            return output if self.low is None and self.high is None else output.clamp(self.low, self.high)

    if task.name == "matting":
        return Matting(task.network).eval()
    low, high = {"depth": (0.0, None), "reconstruction": (0.0, 1.0)}.get(task.name, (None, None))
    return Image(task.network, task.name in ("depth", "segmentation"), low, high).eval()


def multiple_of(task: Task) -> int:
    """Return what height and width must be multiples of: 32 at least for matting, as in the released protocol."""
    multiple = math.lcm(task.network.size_multiple, 2 ** len(task.network.resampling.stages))
    return math.lcm(multiple, 32) if task.name == "matting" else multiple


def describe(task: Task, meta: Mapping[str, Any], checkpoint_sha256: str) -> dict[str, Any]:
    """Return what the file says of itself: plain data, ready for JSON.

    Args:
        task: with its network.
        meta: the checkpoint's ``"indexnet"`` entry.
        checkpoint_sha256: of the checkpoint file.
    """
    from indexnet import __version__
    from indexnet.networks import without_pretrained
    from indexnet.networks.imagenet import IMAGENET_MEAN, IMAGENET_STD

    matting, network, multiple = task.name == "matting", task.network, multiple_of(task)
    channels = network.in_channels - (1 if matting else 0)
    colours = {1: "gray (luma, ITU-R BT.601)", 3: "RGB"}.get(channels, f"{channels} channels")
    noisy = "noisy image" if task.name == "denoising" else "image"
    inputs = [_tensor("image", channels, f"{noisy}, {colours}, in [0, 1], not normalised")]
    if matting:
        inputs.append(
            _tensor("trimap", 1, "0 background, 128/255 unknown, 1 foreground: an 8-bit trimap of 0, 128, 255 over 255")
        )
    name, meaning = {
        "matting": ("alpha", "alpha in [0, 1]; equal to the trimap where that is known"),
        "depth": ("depth", "depth in metres, at least 0"),
        "segmentation": ("scores", "one score a class, without softmax; the class is the argmax over dimension 1"),
        "denoising": ("denoised", "the denoised image, not clipped: values may leave [0, 1]"),
        "reconstruction": ("reconstruction", "the reconstructed image, in [0, 1]"),
    }.get(task.name, ("output", "the output of the network"))
    if task.name == "denoising" and getattr(network, "residual", False):
        meaning += "; the network's residual is subtracted inside the graph"
    outputs = [_tensor(name, network.out_channels, meaning)]
    sizes = f"multiples of {multiple}, from {2 * multiple}" if multiple > 1 else "any"
    if matting:
        outputs.append(_tensor("raw", 1, "alpha before clipping and before the trimap's word, for other sizes"))
        sizes += (
            "; for another size resize up the image (float, bicubic) and the trimap (nearest), resize raw back "
            "(bicubic, OpenCV's INTER_CUBIC), clip it to [0, 1], and then put the trimap's known values back"
        )
    facts: dict[str, Any] = {
        "indexnet_version": __version__,
        "task": dict(meta["task"]),
        "network": without_pretrained(meta["network"]),
        "inputs": inputs,
        "outputs": outputs,
        "sizes": sizes,
        "size_multiple": multiple,
        **{key: meta[key] for key in ("notice", "source") if meta[key]},
        "checkpoint_sha256": checkpoint_sha256,
    }
    if task.name in ("matting", "depth", "segmentation"):
        facts["normalisation"] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "where": "inside the graph"}
    if classes := task.options.get("classes"):
        facts["classes"] = list(classes)
    return facts


def _tensor(name: str, channels: int, meaning: str) -> dict[str, Any]:
    return {"name": name, "shape": ["batch", channels, "height", "width"], "dtype": "float32", "meaning": meaning}


def _listed(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    import torch

    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def export(task: Task, kind: str, facts: Mapping[str, Any]) -> tuple[bytes, list[Difference]]:
    """Export a task's network and check it.

    Args:
        task: on the CPU.
        kind: ``onnx`` or ``torch_export``.
        facts: what :func:`describe` returned.

    Returns:
        The file's content, and how far it is from PyTorch on each input that was tried.

    Raises:
        UserError: an operation cannot be exported, or the file differs from PyTorch by more than :data:`TOLERANCE`.
    """
    import torch

    original = with_protocol(task)
    exported = with_protocol(task)
    exported.network = _exportable(task.network)
    unit = facts["size_multiple"] * math.ceil(32 / facts["size_multiple"])
    example = _random_inputs(facts, 2, 2 * unit, 3 * unit, seed=0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about shapes that become constants: what the check below is for
        content, run = (_to_onnx if kind == "onnx" else _to_torch_export)(exported, example, facts)
        chooses = task.network.resampling.info.name in _CHOOSING
        differences = _compare(original, run, facts, unit, chooses)
    for difference in differences:
        if not difference.share <= (CHOICES_SHARE[difference.kind] if chooses else 0.0) or not math.isfinite(
            difference.largest
        ):
            raise UserError(
                f"the {kind} file would differ from PyTorch ({difference}; at most {difference.allowed:.1e} is "
                f"accepted), so it was not written; please report this network: {json.dumps(facts['network'])}."
            )
    return content, differences


def _exportable(network: Network) -> Network:
    """Return a copy that computes the same with operations that exporters know.

    Unpooling becomes a scatter, and weights that channels share are repeated for the known number of channels.
    """
    import types

    from indexnet.resampling.indexnet import IndexNetStage
    from indexnet.resampling.max_unpool import MaxUnpool

    network = copy.deepcopy(network).eval().requires_grad_(False)
    for stage in network.resampling.stages:
        if isinstance(stage, MaxUnpool):
            stage.up = types.MethodType(_unpool_by_scatter, stage)  # type: ignore[method-assign]
        elif isinstance(stage, IndexNetStage) and stage.index_network.shared:
            stage._borrowed = (_fixed_channels(stage.index_network, stage.channels),)  # type: ignore[assignment]
    return network


def _unpool_by_scatter(stage: nn.Module, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
    assert guide is not None
    n, c = x.shape[:2]
    plane = x.new_zeros((n, c, size[0] * size[1]))
    return plane.scatter(2, guide.flatten(2), x.flatten(2)).reshape(n, c, size[0], size[1])


def _fixed_channels(network: Any, channels: int) -> Callable[[Tensor], Tensor]:
    """Return an index network of shared weights as a function of maps of ``channels`` channels."""
    from torch.nn import functional as F

    first = network.first.weight.repeat(channels, 1, 1, 1)
    hidden = network.first.weight.shape[0]

    def logits(x: Tensor) -> Tensor:
        n, height, width = x.shape[0], x.shape[2] // 2, x.shape[3] // 2
        out = F.conv2d(x, first, stride=2, padding=network.padding, groups=channels)
        if network.nonlinear:
            # one image a channel: normalisation and the second layer treat all channels alike
            out = F.relu6(network.norm(out.reshape(n * channels, hidden, height, width)))
            out = network.second(out)
        return out.reshape(n, channels, 4, height, width)

    return logits


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


def _to_onnx(module: nn.Module, example: Sequence[Tensor], facts: Mapping[str, Any]) -> tuple[bytes, Run]:
    import onnx
    import onnxruntime
    import torch
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    inputs, outputs = ([entry["name"] for entry in facts[kind]] for kind in ("inputs", "outputs"))
    buffer = io.BytesIO()
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
        return [torch.from_numpy(output) for output in session.run(outputs, feeds)]

    return content, run


def _to_torch_export(module: nn.Module, example: Sequence[Tensor], facts: Mapping[str, Any]) -> tuple[bytes, Run]:
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
    original: nn.Module,
    run: Run,
    facts: Mapping[str, Any],
    unit: int,
    chooses: bool,
) -> list[Difference]:
    """Run both on random and on real input, each at two sizes and batch sizes that were not traced.

    Of several outputs the difference of the one that is furthest off is returned. Where the network takes maxima, the
    first alone is compared: matting's raw is what its alpha is made of, and its range, which clipping hides, multiplies
    the differences that :data:`CHOICES_SHARE` forgives.
    """
    odd = 5 if facts["size_multiple"] == 1 else 0
    found = []
    for batch, height, width in ((1, 3 * unit + odd, 2 * unit), (3, 4 * unit, 5 * unit + odd)):
        for kind, make in (("random", _random_inputs), ("a photograph", _real_inputs)):
            tensors = make(facts, batch, height, width, seed=batch)
            size = f"{batch} x {height}x{width}"
            each: list[Difference] = []
            for got, expected in zip(run(tensors), _listed(original(*tensors)), strict=True):
                if got.shape != expected.shape:
                    raise UserError(
                        f"the exported file gives {tuple(got.shape)} where PyTorch gives {tuple(expected.shape)}, so "
                        f"it was not written; please report this network: {json.dumps(facts['network'])}."
                    )
                apart = (got - expected).abs()
                allowed = TOLERANCE * max(1.0, expected.abs().max().item())
                share = (~(apart <= allowed)).float().mean().item()
                if each and chooses:
                    break
                each.append(Difference(kind, size, apart.max().item(), share, allowed))
            found.append(max(each, key=lambda difference: (difference.share, difference.largest)))
    return found


def _random_inputs(facts: Mapping[str, Any], batch: int, height: int, width: int, seed: int) -> list[Tensor]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.rand(batch, facts["inputs"][0]["shape"][1], height, width, generator=generator)]
    if len(facts["inputs"]) > 1:
        levels = torch.tensor([0.0, 128 / 255, 1.0])
        tensors.append(levels[torch.randint(0, 3, (batch, 1, height, width), generator=generator)])
    return tensors


def _real_inputs(facts: Mapping[str, Any], batch: int, height: int, width: int, seed: int) -> list[Tensor]:
    """Shrink scikit-image's photographs; the trimap is foreground, a band, background, side by side."""
    import cv2
    import numpy as np
    import torch

    from indexnet.data.io import skimage_photographs

    channels = facts["inputs"][0]["shape"][1]
    windows = []
    for name in ("astronaut.png", "coffee.png", "chelsea.png")[:batch]:
        picture = skimage_photographs.load(name, 1 if channels == 1 else 3)
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, -1)
        windows.append(np.resize(resized.transpose(2, 0, 1), (channels, height, width)))
    tensors = [torch.from_numpy(np.stack(windows).astype(np.float32) / np.float32(255))]
    if len(facts["inputs"]) > 1:
        trimap = torch.full((batch, 1, height, width), 128 / 255)
        trimap[..., : width // 4], trimap[..., -width // 4 :] = 1.0, 0.0
        tensors.append(trimap)
    return tensors
