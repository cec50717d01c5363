"""What makes a training faster: half precision, a compiled network, a fused optimizer; and where it cannot be had.

A run goes on without what its machine, its network or its optimizer does not have, and says so in one sentence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from indexnet.core.errors import UserError
from indexnet.core.machine import cpu_has_bfloat16
from indexnet.run.loader import rank_zero_remark, rank_zero_say
from indexnet.run.schema import TrainerConfig

_FUSED = ("adam", "adamw", "sgd")  # torch's, on the CPU and on CUDA
_OTHERWISE = {"fused": False, "foreach": True, "differentiable": True}  # options that no fused form goes with
_TIMED = 3  # steps until it is said how long compiling took: the first compiles, the second may still warm up


def settle(trainer: TrainerConfig, accelerator: str, optimizer: Mapping[str, Any]) -> tuple[TrainerConfig, list[str]]:
    """Return a run's options without what cannot be had here, and a sentence for each.

    Args:
        trainer: as frozen.
        accelerator: ``cpu`` or ``gpu``.
        optimizer: its name and options.
    """
    said, mixed = [], trainer.precision in ("bf16-mixed", "16-mixed")
    if trainer.precision == "bf16-mixed" and accelerator == "gpu" and not _gpu_has_bfloat16():
        trainer = replace(trainer, precision="32-true")
        said.append("trainer.precision=bf16-mixed: this GPU has no bfloat16, so the run computes in 32-true")
    if trainer.precision == "bf16-mixed" and accelerator == "cpu" and cpu_has_bfloat16() is False:
        said.append("trainer.precision=bf16-mixed is slower than 32-true here: this processor has no bfloat16")
    why, other = "", [f"{key}={str(value).lower()}" for key, value in _OTHERWISE.items() if optimizer.get(key) is value]
    if optimizer["name"] not in _FUSED:
        why = f"optimizer={optimizer['name']} has no fused form"
    elif other:
        why = f"optimizer.{other[0]} asks for another form"
    elif trainer.gradient_clip_val is not None and mixed:
        why = "Lightning clips no gradients of fused optimizers in mixed precision"
    if trainer.fused_optimizer and why:
        trainer = replace(trainer, fused_optimizer=False)
        said.append(f"trainer.fused_optimizer=true does nothing: {why}")
    return trainer, said


def _gpu_has_bfloat16() -> bool:
    return torch.cuda.get_device_capability() >= (8, 0) or torch.version.hip is not None


class Compiled(pl.Callback):
    """Compile a network for its training, and say how long that took; or why it could not be compiled.

    Validation and test run the network as it is written, whose images differ in size, so that nothing is compiled for
    each of them. The network's weights keep their names.

    Args:
        network: is compiled when training starts.
        backend: one of ``torch.compile``.
        clock: returns the time in seconds.

    Attributes:
        graphs: how many pieces were compiled.
        problems: why others were not, which run as they are written; each is said once, after the step that met it.
    """

    def __init__(
        self, network: nn.Module, backend: str = "inductor", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.network, self.backend, self.clock = network, backend, clock
        self.graphs = self._said = 0
        self.problems: list[str] = []
        self._began = 0.0
        self._took: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.network.compile(backend=self._compile)

    def _compile(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        """Compile a piece of the network; what cannot be compiled here is run operation by operation."""
        from torch._dynamo import lookup_backend

        try:
            compiled = lookup_backend(self.backend)(graph, inputs)
        except Exception as error:  # whatever a compiler may raise; the run does without
            if (problem := _one_line(error)) not in self.problems:
                self.problems.append(problem)
            return graph.forward
        self.graphs += 1
        return compiled

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        self._began = self.clock()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *arguments: Any) -> None:
        if len(self._took) < _TIMED:
            self._took.append(self.clock() - self._began)
            if not self.graphs and not self.problems:
                self.problems.append("PyTorch found nothing in it that it can compile")
            if self.graphs and len(self._took) == _TIMED:
                pieces = "" if self.graphs == 1 else f", in {self.graphs} pieces"
                rank_zero_say(f"compiling took {max(0.0, self._took[0] - self._took[-1]):.0f} s{pieces}")
        for problem in self.problems[self._said :]:
            what = "the run goes on without, for the network"
            if self.graphs:
                what = "a piece of the network runs as it is written, for it"
            rank_zero_remark(f"trainer.compile=true: {what} cannot be compiled: {problem}")
        self._said = len(self.problems)


@contextmanager
def compile_errors(compiled: bool) -> Iterator[None]:
    """Give what a compiler cannot do, and says too late to go on without it, in the backward pass, one sentence.

    Args:
        compiled: whether there is a compiler.

    Raises:
        UserError: it cannot.
    """
    try:
        yield
    except Exception as error:
        # compiled code that does not get its maps as it expects them, met where maps have odd sizes
        layout = isinstance(error, AssertionError) and str(error).startswith("expected size")
        if not compiled or not (layout or type(error).__module__.startswith(("torch._inductor", "torch._dynamo"))):
            raise
        raise UserError(f"the network cannot be compiled: {_one_line(error)}; give trainer.compile=false.") from error


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}".rstrip(".")
