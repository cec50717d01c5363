"""What is to be done about a resampling call, and why."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.foreign.plan import LEAVE, OPTIONAL, POOL, POOLS, REPLACE, STRIDED, TRANSPOSED, UPSAMPLE
from indexnet.resampling.foreign.recording import Occurrence

FEW = 16
"""Fewer inputs than these has a first convolution, which costs most where its stride is taken away."""


def _ratio(occurrence: Occurrence) -> tuple[float, float]:
    (h, w), (height, width) = occurrence.map.size or (1, 1), occurrence.result.size or (1, 1)
    return height / h, width / w


def verdict_up(group: list[Occurrence], others: list[Occurrence]) -> tuple[str, str]:
    """Return the verdict on an upsampling and why.

    Args:
        group: each time that it is called in one run.
        others: in the run at the other size.
    """
    both = [*group, *others]
    if not others:
        return LEAVE, "is called at one of two input sizes only"
    ratios = {_ratio(each) for each in both}
    if ratios != {(2.0, 2.0)}:
        rows = sorted({f"{row:.3g}" if row == column else f"{row:.3g}, {column:.3g}" for row, column in ratios})
        return LEAVE, f"x{' or x'.join(rows)}, not x2"
    problem = _problem(both)
    if problem:
        return LEAVE, problem
    return _transposed_verdict(both[0]) if both[0].kind == TRANSPOSED else (REPLACE, "x2")


def _transposed_verdict(occurrence: Occurrence) -> tuple[str, str]:
    if not _has_weight(occurrence.owner.module):
        return LEAVE, "a convolution without a module of its own"
    return OPTIONAL, "x2 with weights of its own, which nothing uses once it is replaced"


def _has_weight(module: nn.Module) -> bool:
    return _is_plain(module) and isinstance(getattr(module, "weight", None), Tensor)


def _problem(both: list[Occurrence]) -> str:
    first = both[0]
    widths = sorted({each.map.tensor.shape[1] for each in both})
    if len(widths) > 1:
        return f"called with maps of {', '.join(map(str, widths))} channels; give each a module of its own"
    module = first.owner.module
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) and not _is_plain(module):
        return f"its owner, a {type(module).__name__}, goes through its children, so that none can be added"
    if not first.map.tensor.is_floating_point():
        return "its map is not floating point"
    return ""


def _is_plain(module: nn.Module) -> bool:
    return not any(True for _ in module.children())


def halves(occurrence: Occurrence) -> bool:
    """Whether a call makes a map smaller, but not to one value a channel."""
    (h, w), (height, width) = occurrence.map.size or (1, 1), occurrence.result.size or (1, 1)
    return height < h and width < w and not (height == 1 and width == 1)


def _pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


def verdict_down(group: list[Occurrence], others: list[Occurrence]) -> tuple[str, str]:
    """Return the verdict on a downsampling and why, see :func:`verdict_up`."""
    first = group[0]
    if not others:
        return LEAVE, "is called at one of two input sizes only"
    problem = _problem([*group, *others])
    if problem:
        return LEAVE, problem
    return _pool_verdict(first.options) if first.kind == POOL else _conv_verdict(first)


def _pool_verdict(options: dict[str, Any]) -> tuple[str, str]:
    kernel = _pair(options["kernel_size"])
    stride, padding = _pair(options.get("stride") or kernel), _pair(options.get("padding", 0))
    if options.get("return_indices"):
        return LEAVE, "its indices are used"
    if stride == (2, 2) and _pair(options.get("dilation", 1)) == (1, 1) and not options.get("divisor_override"):
        if (kernel, padding) == ((2, 2), (0, 0)):
            return POOLS, "cells of 2x2"
        if (kernel, padding) == ((3, 3), (1, 1)):
            return POOLS, "approximately: cells of 2x2 in place of 3x3"
    return LEAVE, "no pool of cells of 2x2"


def _conv_verdict(occurrence: Occurrence) -> tuple[str, str]:
    module, options = occurrence.owner.module, occurrence.options
    if not _has_weight(module):
        return LEAVE, "a convolution without a module of its own"
    if _pair(options.get("stride", 1)) != (2, 2):
        return LEAVE, f"stride {_pair(options.get('stride', 1))[0]}, not 2"
    inputs = occurrence.map.tensor.shape[1]
    if inputs < FEW:
        return OPTIONAL, f"has {inputs} inputs, too few to be made at full size unless it is named"
    return STRIDED, "stride 1, then the operator"


def how(occurrence: Occurrence) -> str:
    """Return how a call resamples, in a few words."""
    options = occurrence.options
    if occurrence.kind == UPSAMPLE:
        return str(options.get("mode", "nearest")) + (", aligned" if options.get("align_corners") else "")
    if occurrence.kind == POOL:
        stride = options.get("stride") or options["kernel_size"]
        name = "max" if options["function"] is F.max_pool2d else "avg"
        return f"{name} {_pair(options['kernel_size'])[0]}, stride {_pair(stride)[0]}"
    weight = getattr(occurrence.owner.module, "weight", None)
    size = weight.shape[-1] if isinstance(weight, Tensor) else "?"
    name = "transposed" if occurrence.kind == TRANSPOSED else "conv"
    return f"{name} {size}, stride {_pair(options.get('stride', 1))[0]}"
