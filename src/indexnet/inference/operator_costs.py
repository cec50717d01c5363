"""Time and memory of operators on one map, forward and backward, against one of them."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.core.machine import memory_of
from indexnet.core.readers import plain_value
from indexnet.core.turns import in_turns
from indexnet.networks.tiled.memory import is_out_of_memory
from indexnet.resampling.base import (
    NONE,
    OPERATORS,
    Resampling,
    ResamplingStage,
    WidthError,
    create_resampling,
    list_resampling,
)
from indexnet.resampling.pooling import POOLINGS
from indexnet.resampling.watch import watch_stages

REFERENCE = "bilinear"
"""The operator that the others are compared with; always measured, first."""


@dataclass
class OperatorCost:
    """What one stage of an operator takes; figures are None where it does not fit.

    Attributes:
        operator: as it was asked for, ``carafe`` or ``carafe:k_up=3``.
        parameters: weights of the stage.
        forward_s: seconds of ``down`` and ``up``, the median.
        backward_s: seconds of the backward pass.
        step_s: of both together.
        saved_bytes: what the forward pass keeps for the backward pass, every storage once, without the encoder map and
            the weights, which are kept anyway.
        peak_bytes: the most that both take at once above what is held before, results, gradients and what operations
            use for a moment included, see :func:`indexnet.core.machine.memory_of`; None also where it cannot be told.
        problem: why there are no figures, such as a map that ``up`` does not double.
        forward_times_s, backward_times_s: of every turn.
    """

    operator: str
    parameters: int | None = None
    forward_s: float | None = None
    backward_s: float | None = None
    step_s: float | None = None
    saved_bytes: int | None = None
    peak_bytes: int | None = None
    problem: str = ""
    forward_times_s: list[float] = field(default_factory=list, repr=False)
    backward_times_s: list[float] = field(default_factory=list, repr=False)


def usual_operators() -> list[str]:
    """Return every registered operator, by name, and ``nearest`` with each pooling that is not its usual one."""
    poolings = (f"nearest:pooling={pooling}" for pooling in POOLINGS if pooling not in ("max", "encoder"))
    return [*(info.name for info in list_resampling()), *poolings]


def parse_operator(text: str) -> tuple[str, dict[str, Any]]:
    """Read ``NAME`` or ``NAME:OPTION=VALUE,OPTION=VALUE``.

    Raises:
        UserError: it is neither, there is no such operator or option, or the network would have to halve.
    """
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for word in rest.split(",") if rest else ():
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UserError(f"{text!r}: {word!r} must be OPTION=VALUE, as in indexnet:family=hin,context=false.")
        if key in options:
            raise UserError(f"{text!r}: {key} is given twice; give each option once.")
        options[key] = plain_value(value)
    OPERATORS.checked(name, options)
    if name == NONE:
        raise UserError("'none' is the absence of an operator; there is nothing to measure.")
    if options.get("pooling") == "encoder":
        raise UserError(f"{text!r}: pooling=encoder leaves the halving to a network; give another pooling.")
    return name, options


def measure_operators(
    operators: Sequence[str],
    size: tuple[int, int, int, int],
    device: torch.device,
    repeats: int,
    progress: Callable[[Iterable[Any], str, int], Iterable[Any]] = lambda items, title, total: items,
) -> list[OperatorCost]:
    """Measure one stage of every operator on one encoder map, in float32.

    The decoder map is what ``down`` gives, so that encoder and decoder are equally wide; gradients come from the
    doubled map and from the skip. The first passes of each operator, which find what memory it takes, are not timed.
    Then all are timed in turns, the order reversed each time.

    Args:
        operators: as for :func:`parse_operator`; :data:`REFERENCE` is put first.
        size: (N, C, H, W) of the encoder map.
        device: where.
        repeats: timed passes.
        progress: gives items on while it shows how far they are, see :func:`indexnet.core.console.tracked`.

    Returns:
        One for each, in their order; what the width or the memory is too small for has a problem in place of figures.

    Raises:
        UserError: an operator, an option or its value is unknown, one is given twice, or the map alone does not fit.
    """
    for text, times in Counter(operators).items():
        if times > 1:
            raise UserError(f"{text!r} is given twice; give each operator once.")
    wanted = [REFERENCE, *(text for text in operators if text != REFERENCE)]
    parsed = [(text, *parse_operator(text)) for text in wanted]
    torch.manual_seed(0)
    try:
        x, *cotangents = (torch.randn(size, device=device) for _ in range(3))
    except RuntimeError as error:
        raise UserError(
            f"a map of {' x '.join(map(str, size))} does not fit into memory; give a smaller one."
        ) from error
    x.requires_grad_()
    found: list[tuple[OperatorCost, Resampling | None]] = []
    for text, name, options in progress(parsed, "memory", len(parsed)):
        found.append(_first(text, name, options, x, cotangents))
    fitting = [(cost, resampling) for cost, resampling in found if resampling is not None]
    turns = in_turns(fitting, repeats)
    for _, (cost, resampling) in progress(turns, "time", repeats * len(fitting)):
        _timed(cost, resampling, x, cotangents)
    for cost, _ in fitting:
        forward, backward = cost.forward_times_s, cost.backward_times_s
        cost.forward_s, cost.backward_s = statistics.median(forward), statistics.median(backward)
        cost.step_s = statistics.median(a + b for a, b in zip(forward, backward, strict=True))
    return [cost for cost, _ in found]


def _first(
    text: str, name: str, options: Mapping[str, Any], x: Tensor, cotangents: Sequence[Tensor]
) -> tuple[OperatorCost, Resampling | None]:
    cost = OperatorCost(text)
    try:
        resampling = create_resampling(name, [x.shape[1]], **options).to(x.device)
    except UserError as error:
        if options and not isinstance(error.__cause__, WidthError):  # the value of one is wrong
            raise
        cost.problem = str(error)
        return cost, None
    cost.parameters = sum(parameter.numel() for parameter in resampling.parameters())
    try:
        with watch_stages(resampling):
            _forward(resampling, x)
        cost.saved_bytes = saved_bytes(lambda: _forward(resampling, x), [x, *resampling.parameters()])
        _step(resampling, x, cotangents)
        _forget(resampling, x)
        cost.peak_bytes = memory_of(lambda: _step(resampling, x, cotangents), x.device)
    except UserError as error:  # it does not double its map
        cost.problem = str(error)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        cost.problem = "out of memory"
    _forget(resampling, x)
    if cost.problem:
        if x.device.type == "cuda":  # only now has the error let go of its tensors
            torch.cuda.empty_cache()
        return OperatorCost(text, cost.parameters, problem=cost.problem), None
    return cost, resampling


def _forward(resampling: Resampling, x: Tensor) -> tuple[Tensor, Tensor]:
    (stage,) = resampling.stages
    assert isinstance(stage, ResamplingStage)
    down = stage.down(x)
    return stage.up_and_skip(down.features, down)


def _step(resampling: Resampling, x: Tensor, cotangents: Sequence[Tensor]) -> None:
    torch.autograd.backward(_forward(resampling, x), cotangents)


def _forget(resampling: Resampling, x: Tensor) -> None:
    x.grad = None
    resampling.zero_grad(set_to_none=True)


def _timed(cost: OperatorCost, resampling: Resampling, x: Tensor, cotangents: Sequence[Tensor]) -> None:
    clock = clock_of(x.device)
    begun = clock()
    results = _forward(resampling, x)
    between = clock()
    torch.autograd.backward(results, cotangents)
    cost.backward_times_s.append(clock() - between)
    cost.forward_times_s.append(between - begun)
    _forget(resampling, x)


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return a clock in seconds that waits until the device has done what was asked for."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def saved_bytes(forward: Callable[[], object], kept: Sequence[Tensor] = ()) -> int:
    """Return the bytes that a forward pass keeps for the backward pass.

    Args:
        forward: runs it and returns what it gives.
        kept: tensors that are held anyway, whose storages do not count.
    """
    held = {tensor.untyped_storage().data_ptr() for tensor in kept}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        results = forward()  # held, so that no storage is freed whose place another could take
    del results
    return sum(found.values())
