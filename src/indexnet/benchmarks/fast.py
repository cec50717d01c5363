"""Matting training steps as ``trainer=fast`` and ``trainer.checkpoint_activations`` make them, against the default one.

The network with many-to-one index networks, nonlinear and with context; loss, gradients and the optimizer's step on one
batch of random crops. All forms start with the same weights; that their first losses agree is checked before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from indexnet.benchmarks.base import MEMORY, TIME, BenchOptions, Figure, Progress, check_equal, compared, peak_bytes
from indexnet.core.turns import medians
from indexnet.inference.operator_costs import clock_of
from indexnet.networks.recompute import checkpoint_activations
from indexnet.tasks import create_optimizer, create_task

PART, PLAIN, COMPILED = "fast", "as by default", "trainer=fast"
FORMS: Mapping[str, frozenset[str]] = {
    PLAIN: frozenset(),
    "fused optimizer": frozenset({"fused"}),
    "channels-last": frozenset({"last"}),
    "bf16, channels-last": frozenset({"bf16", "last"}),
    "bf16, channels-last, fused": frozenset({"bf16", "last", "fused"}),
    COMPILED: frozenset({"bf16", "last", "fused", "compile"}),
    "recomputed": frozenset({"recompute"}),
}
NETWORK: Mapping[str, Any] = {
    "name": "matting_unet",
    "resampling": {"name": "indexnet", "family": "m2o", "nonlinear": True, "context": True},
}
_TOLERANCE = 0.02  # of the loss, which half precision rounds


def figures(options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure with two crops of 320 pixels; ``quick``: of 96, and without the compiled form, as where ``brief``.

    Raises:
        RuntimeError: the first loss of a form is another one.
    """
    brief = options.quick or options.brief  # compiling takes minutes
    forms = {name: how for name, how in FORMS.items() if not (brief and "compile" in how)}
    return measure(NETWORK, forms, 96 if options.quick else 320, options, progress)


def measure(
    network: Mapping[str, Any],
    forms: Mapping[str, frozenset[str]],
    size: int,
    options: BenchOptions,
    progress: Progress,
) -> list[Figure]:
    """Measure steps of a network on crops of ``size`` pixels; the first form is the one that others are compared to."""
    shape, generator = (2, 3, size, size), torch.Generator().manual_seed(0)
    batch = {key: torch.rand(shape, generator=generator) for key in ("image", "fg", "bg")}
    batch["alpha"] = torch.rand(shape, generator=generator)[:, :1]
    batch["trimap"] = torch.full_like(batch["alpha"], 128 / 255)
    batch = {key: value.to(options.device) for key, value in batch.items()}
    steps, first = {}, None
    for name, how in forms.items():
        progress(f"{PART}: {name}")
        steps[name] = training_step(network, how, batch)
        loss = steps[name](0)
        first = loss if first is None else first
        check_equal(PART, "matting", name, loss, first, _TOLERANCE)
    progress(f"{PART}: time")
    times = medians(steps, options.turns, clock_of(options.device))
    progress(f"{PART}: memory")
    memory = {name: peak_bytes(lambda step=step: step(0), options.device) for name, step in steps.items()}  # type: ignore[misc]
    reference, *others = forms
    pairs = dict.fromkeys(((name, reference) for name in others), None)
    about = (pairs, options.turns, options.threads)
    return [*compared(PART, "matting", TIME, times, *about), *compared(PART, "matting", MEMORY, memory, *about)]


def training_step(
    network: Mapping[str, Any], how: frozenset[str], batch: Mapping[str, Tensor]
) -> Callable[[int], Tensor]:
    """Return a step of matting with some of the options; it returns the loss, a scalar."""
    torch.manual_seed(0)
    device = batch["image"].device
    task = create_task("matting", dict(network)).to(device)
    if "last" in how:
        task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if "recompute" in how:
        checkpoint_activations(task.network)
    if "compile" in how:
        task.network.compile()
    spec = {"name": "adam", "lr": 1e-4, **({"fused": True} if "fused" in how else {})}
    optimizer = create_optimizer(spec, [{"params": list(task.parameters())}])

    def step(_: int) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16) if "bf16" in how else nullcontext():
            loss: Tensor = task.losses(batch)["loss"]
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
