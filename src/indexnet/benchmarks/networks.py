"""Training steps of whole networks: loss, backward pass and optimizer, on one batch of random numbers.

The matting network with shipped index stages against itself with literal ones: the same weights, the same gradients.
The networks of the other tasks with index networks that share their weights, or their map, against themselves with max
unpooling: what these rows of the papers' tables cost beyond their baseline. FastDepth's decoder is narrower than its
encoder, which max unpooling cannot serve: there it is max pooling and nearest neighbours, the baseline of its table.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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
from indexnet.benchmarks.literal import literal_network
from indexnet.core.turns import medians
from indexnet.inference.operator_costs import clock_of
from indexnet.networks import Network, create_network
from indexnet.tasks import Task, get_task
from indexnet.tasks.optimizers import create_optimizer, parameter_groups

PART = "networks"
LITERAL, SHIPPED, LAST = "literal", "shipped", "channels-last"
MATTING: Mapping[str, Any] = {"name": "indexnet", "family": "m2o", "nonlinear": True, "context": True}
TIME_TARGET, MEMORY_TARGET, SHARED_TARGET = 0.75, 0.75, 1.15

ADAM = {"name": "adam", "lr": 1e-4}
SGD = {"name": "sgd", "lr": 1e-4, "momentum": 0.9}
LINEAR = {"name": "indexnet", "nonlinear": False, "context": False}
SHARED = {"o2o_shared, linear": {**LINEAR, "family": "o2o_shared"}, "hin, linear": {**LINEAR, "family": "hin"}}


@dataclass(frozen=True)
class Case:
    """A network as its task trains it.

    Attributes:
        task: its name.
        network: its name and options, without the resampling.
        optimizer: likewise.
        batch: how many crops; fewer than the papers'.
        size: their side in pixels.
        quick_size: their side where it is to be quick.
        unguided: what is meant by the reference, with its name in the table.
    """

    task: str
    network: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    batch: int
    size: int
    quick_size: int
    unguided: tuple[str, Mapping[str, Any]] = ("max_unpool", {"name": "max_unpool"})


MATTING_CASE = Case("matting", {"name": "matting_unet"}, ADAM, 4, 320, 128)
CASES = (
    Case("denoising", {"name": "dncnn_segnet"}, ADAM, 16, 40, 40),
    Case("segmentation", {"name": "segnet", "encoder": "vgg16_bn"}, SGD, 1, 320, 96),
    Case("depth", {"name": "fastdepth"}, SGD, 4, 224, 96, ("nearest", {"name": "nearest"})),
    Case("reconstruction", {"name": "autoencoder"}, SGD, 100, 32, 32),
)


class TrainingStep:
    """One step of a task on one batch, as a run takes it, without what a framework adds."""

    def __init__(self, task: Task, batch: Mapping[str, Tensor]) -> None:
        self.task, self.batch = task.train(), batch
        spec = task.optimizer_spec
        self.optimizer = create_optimizer(spec, parameter_groups(task.network, spec))

    def __call__(self, _: int = 0) -> None:
        """Take the step."""
        self.task.losses(self.batch)["loss"].backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def results(self) -> tuple[Tensor, Tensor]:
        """Return the loss, and the gradients of what is outside the index stages, one after another; no dropout."""
        dropout = [module for module in self.task.modules() if isinstance(module, nn.Dropout | nn.Dropout2d)]
        for module in dropout:  # what it drops depends on the memory format
            module.eval()
        loss = self.task.losses(self.batch)["loss"]
        loss.backward()
        for module in dropout:
            module.train()
        named = self.task.network.named_parameters()
        found = [p.grad.flatten() for name, p in named if p.grad is not None and not name.startswith("resampling.")]
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach(), torch.cat(found)


def figures(options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure the step of every network, on crops as its task takes them; ``quick``: on smaller ones.

    Raises:
        RuntimeError: the matting network gives other gradients than with literal stages.
    """
    found = matting(MATTING_CASE, options, progress)
    for case in CASES:
        found += shared_rows(case, options, progress)
    return found


def matting(case: Case, options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure the matting network against itself with literal stages."""
    progress(f"{case.task}: {LITERAL}")
    network = _network(case, MATTING, options.device)
    batch = _batch(case, network, options)
    networks = {
        LITERAL: literal_network(network),
        SHIPPED: network,
        LAST: copy.deepcopy(network).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
    }
    steps = {name: _step(case, each, batch) for name, each in networks.items()}
    results = {name: step.results() for name, step in steps.items()}
    # sums of another order grow to hundredths of such gradients, as single precision does against double; those of the
    # stages alone are compared in their part
    check_equal(PART, case.task, SHIPPED, results[SHIPPED][1], results[LITERAL][1], tolerance=2e-2)
    check_equal(PART, case.task, LAST, results[LAST][0], results[LITERAL][0])
    targets = {
        TIME: {(SHIPPED, LITERAL): TIME_TARGET, (LAST, LITERAL): None},
        MEMORY: {(SHIPPED, LITERAL): MEMORY_TARGET, (LAST, LITERAL): None},
    }
    return _measured(case, steps, targets, options, progress)


def shared_rows(case: Case, options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure a network with index networks that share against itself with its table's baseline."""
    reference, unguided = case.unguided
    steps = {}
    for name, resampling in {reference: unguided, **SHARED}.items():
        progress(f"{case.task}: {name}")
        network = _network(case, resampling, options.device)
        steps[name] = _step(case, network, _batch(case, network, options))
    targets: dict[str, dict[tuple[str, str], float | None]] = {
        TIME: {(name, reference): SHARED_TARGET for name in SHARED},
        MEMORY: {(name, reference): None for name in SHARED},
    }
    return _measured(case, steps, targets, options, progress)


def _measured(
    case: Case,
    steps: Mapping[str, Callable[[int], object]],
    targets: Mapping[str, Mapping[tuple[str, str], float | None]],
    options: BenchOptions,
    progress: Progress,
) -> list[Figure]:
    progress(f"{case.task}: time")
    times = medians(steps, options.turns, clock_of(options.device))
    progress(f"{case.task}: memory")
    memory = {name: peak_bytes(lambda step=step: step(0), options.device) for name, step in steps.items()}  # type: ignore[misc]
    about = (options.turns, options.threads)
    return [
        *compared(PART, case.task, TIME, times, targets[TIME], *about),
        *compared(PART, case.task, MEMORY, memory, targets[MEMORY], *about),
    ]


def _network(case: Case, resampling: Mapping[str, Any], device: torch.device) -> Network:
    torch.manual_seed(0)
    spec = dict(case.network)
    return create_network(spec.pop("name"), resampling=dict(resampling), **spec).to(device)


def _step(case: Case, network: Network, batch: Mapping[str, Tensor]) -> TrainingStep:
    return TrainingStep(get_task(case.task)(network, case.optimizer), batch)


def _batch(case: Case, network: Network, options: BenchOptions) -> dict[str, Tensor]:
    """Return a batch of random numbers with all that the task's loss reads."""
    size = case.quick_size if options.quick else case.size
    plane = (case.batch, 1, size, size)
    channels = network.in_channels - (case.task == "matting")
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def picture() -> Tensor:
        return random(case.batch, channels, size, size)

    batch = {"image": picture()}
    if case.task == "matting":
        levels = torch.tensor([0, 128 / 255, 1])
        trimap = levels[torch.randint(3, plane, generator=generator)]
        batch |= {"alpha": random(*plane), "trimap": trimap, "fg": picture(), "bg": picture()}
    elif case.task == "segmentation":
        batch["label"] = torch.randint(network.out_channels, (case.batch, size, size), generator=generator)
    elif case.task == "depth":
        batch["depth"] = 1 + 9 * random(*plane)
    return {key: value.to(options.device) for key, value in batch.items()}
