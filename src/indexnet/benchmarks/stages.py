"""Index stages, forward and backward, against the papers' literal form and against their own convolutions.

Each row of the ablation (family x linearity x context) at the five resolutions at which the matting network has index
stages. The forms run with the same weights and inputs: the literal four columns; the shipped stage, channels-first and
channels-last; and the stage's own convolutions alone, in both. Time is that of all five stages, memory that of the
first, gradients of the parameters included.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

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
from indexnet.benchmarks.literal import LiteralStage
from indexnet.core.turns import medians
from indexnet.inference.operator_costs import clock_of
from indexnet.resampling import create_resampling, fuse_columns
from indexnet.resampling.indexnet import FAMILIES, IndexNet

PART = "stages"
SITES = ((32, 1), (24, 2), (32, 4), (64, 8), (160, 16))
"""Channels and stride of the maps that the matting network on MobileNetV2 halves."""

KINDS = {"linear": (False, False), "nonlinear": (True, False), "with context": (True, True)}
TARGETS = {"hin": 0.7, "o2o_modelwise": 0.2, "o2o_shared": 0.2, "o2o_unshared": 0.9, "m2o": 0.9}
"""Largest time against the literal form that is meant to be."""

ALL, MEAN_TARGET, MEMORY_TARGET, CONVOLUTIONS_TARGET = "geometric mean", 0.5, 0.6, 1.4
LITERAL, SHIPPED, LAST, CONVOLUTIONS, CONVOLUTIONS_LAST = (
    "literal",
    "shipped",
    "channels-last",
    "convolutions",
    "convolutions, channels-last",
)

Step = Callable[[], Tensor]


class Site:
    """One stage in all forms, with its input and the gradients that come back."""

    def __init__(self, family: str, kind: str, shape: tuple[int, int, int, int], device: torch.device) -> None:
        torch.manual_seed(0)
        n, c, h, w = shape
        nonlinear, context = KINDS[kind]
        self.literal = LiteralStage(c, family, nonlinear, context).to(device)
        resampling = create_resampling("indexnet", [c], family=family, nonlinear=nonlinear, context=context)
        (stage,) = resampling.to(device).stages
        assert isinstance(stage, IndexNet)
        self.resampling, self.stage = resampling, stage
        self.stage.index_network.load_state_dict(fuse_columns(self.literal.state_dict()))
        tensors = [torch.randn(size, device=device) for size in (shape, (n, c, h // 2, w // 2), shape, shape)]
        self.first, self.last = (
            [tensor.contiguous(memory_format=layout) for tensor in tensors]
            for layout in (torch.contiguous_format, torch.channels_last)
        )

    def forms(self) -> dict[str, Step]:
        """Return what runs forward and backward and hands out the gradient of the input, by name."""
        return {
            LITERAL: partial(self._step, self._literal, self.first),
            SHIPPED: partial(self._step, self._shipped, self.first),
            LAST: partial(self._step, self._shipped, self.last),
            CONVOLUTIONS: partial(self._step, self._convolutions, self.first),
            CONVOLUTIONS_LAST: partial(self._step, self._convolutions, self.last),
        }

    def _step(self, form: Callable[[Tensor, Sequence[Tensor]], None], tensors: Sequence[Tensor]) -> Tensor:
        x, *upstream = tensors
        x = x.detach().requires_grad_()
        modules: tuple[nn.Module, ...] = (self.literal, self.resampling)
        for module in modules:
            module.zero_grad(set_to_none=True)
        form(x, upstream)
        assert x.grad is not None
        return x.grad

    def _literal(self, x: Tensor, upstream: Sequence[Tensor]) -> None:
        torch.autograd.backward(list(self.literal(x)), list(upstream))

    def _shipped(self, x: Tensor, upstream: Sequence[Tensor]) -> None:
        # the decoder between down and up is the identity in both
        features, skip, guide, size = self.stage.down(x)
        torch.autograd.backward([features, skip, self.stage.up(features, guide, size)], list(upstream))

    def _convolutions(self, x: Tensor, _: Sequence[Tensor]) -> None:
        logits = self.stage.index_network(x, x.shape[1])
        logits.backward(logits.detach())


def figures(options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure all rows: two crops of 320 pixels, ``quick``: of 128.

    Raises:
        RuntimeError: the shipped form gives something else than the literal one.
    """
    found = []
    for family in FAMILIES:
        for kind in KINDS:
            progress(f"{family}, {kind}")
            found += measure(family, kind, 2, 128 if options.quick else 320, options)
    for form in (SHIPPED, LAST):
        rows = [each for each in found if (each.form, each.reference, each.quantity) == (form, LITERAL, TIME)]
        values, references = ([getattr(each, name) for each in rows] for name in ("value", "reference_value"))
        means = {form: statistics.geometric_mean(values), LITERAL: statistics.geometric_mean(references)}
        target = {(form, LITERAL): MEAN_TARGET if form == SHIPPED else None}
        found += compared(PART, ALL, TIME, means, target, options.turns, options.threads)
    return found


def measure(family: str, kind: str, batch: int, crop: int, options: BenchOptions) -> list[Figure]:
    """Measure one row on crops whose side is a multiple of 32."""
    case = f"{family}, {kind}"
    sites = [
        Site(family, kind, (batch, channels, crop // stride, crop // stride), options.device).forms()
        for channels, stride in SITES
    ]
    for site in sites:
        expected = site[LITERAL]()
        for name in (SHIPPED, LAST):
            check_equal(PART, case, name, site[name](), expected)

    def all_sites(name: str, _: int) -> None:
        for site in sites:
            site[name]()

    times = medians({name: partial(all_sites, name) for name in sites[0]}, options.turns, clock_of(options.device))
    memory = {name: peak_bytes(step, options.device) for name, step in sites[0].items()}
    wanted = {
        (SHIPPED, LITERAL): TARGETS[family],
        (LAST, LITERAL): None,
        (SHIPPED, CONVOLUTIONS): CONVOLUTIONS_TARGET,
        (LAST, CONVOLUTIONS_LAST): None,
    }
    room = {(SHIPPED, LITERAL): MEMORY_TARGET, (LAST, LITERAL): None}
    return [
        *compared(PART, case, TIME, times, wanted, options.turns, options.threads),
        *compared(PART, case, MEMORY, memory, room, options.turns, options.threads),
    ]
