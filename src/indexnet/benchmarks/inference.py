"""Prediction of the matting network on one image of 1088x1920 against itself with literal index stages.

The forward pass alone, untiled: what the two differ in. Memory includes the output, but neither weights nor input. The
released forward pass holds the maps of all stages until it ends, which matters for memory alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from indexnet.benchmarks.base import (
    MEMORY,
    TIME,
    BenchOptions,
    Figure,
    Progress,
    check_equal,
    compared,
    peak_bytes,
)
from indexnet.benchmarks.literal import literal_network
from indexnet.benchmarks.networks import LAST, LITERAL, MATTING, SHIPPED
from indexnet.core.turns import medians
from indexnet.inference.operator_costs import clock_of
from indexnet.networks import Network, create_network

PART = "inference"
HELD = "literal, maps held"
TARGET = 0.7
SIZE, QUICK_SIZE = (1088, 1920), (288, 480)


def figures(options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure time and memory on one image; ``quick``: on one of 288x480.

    Raises:
        RuntimeError: a form predicts something else than with literal stages.
    """
    return measure(QUICK_SIZE if options.quick else SIZE, options, progress)


def measure(size: tuple[int, int], options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure on an image of (height, width), multiples of 32."""
    torch.manual_seed(0)
    network = create_network("matting_unet", resampling=dict(MATTING)).eval().to(options.device)
    x = torch.rand(1, 4, *size).to(options.device)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    case = f"{size[0]}x{size[1]}"
    forms: dict[str, Callable[..., Tensor]] = {
        LITERAL: partial(_predict, literal_network(network), x),
        SHIPPED: partial(_predict, network, x),
        LAST: partial(_predict, last, x.contiguous(memory_format=torch.channels_last)),
    }
    progress(f"{case}: memory")
    expected = forms[LITERAL]()
    for name in (SHIPPED, LAST):
        check_equal(PART, case, name, forms[name](), expected)
    measured: dict[str, Callable[..., Tensor]] = {
        **forms,
        HELD: partial(_predict, literal_network(network, hold=True), x),
    }
    memory = {name: peak_bytes(form, options.device) for name, form in measured.items()}
    progress(f"{case}: time")
    times = medians(forms, options.turns, clock_of(options.device))
    pairs: dict[tuple[str, str], float | None] = {(SHIPPED, LITERAL): TARGET, (LAST, LITERAL): None}
    room: dict[tuple[str, str], float | None] = {
        (SHIPPED, HELD): TARGET,
        (LAST, HELD): None,
        (SHIPPED, LITERAL): None,
        (LAST, LITERAL): None,
    }
    about = (options.turns, options.threads)
    return [
        *compared(PART, case, TIME, times, pairs, *about),
        *compared(PART, case, MEMORY, memory, room, *about),
    ]


@torch.inference_mode()
def _predict(network: Network, x: Tensor, _: int = 0) -> Tensor:
    return network(x)  # type: ignore[no-any-return]
