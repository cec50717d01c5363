"""Activation checkpointing: parts of a network keep their inputs alone, and run again in the backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from indexnet.networks.base import Network
from indexnet.resampling.base import Resampling, ResamplingStage

_SEGMENTED = 6  # layers with kernels from which on a chain is more than one part


def checkpoint_activations(network: Network) -> None:
    """Let the parts of a network run again in the backward pass, and keep nothing of what is inside them until then.

    Parts are the outermost ``nn.Sequential`` modules (units of an encoder, layers of a decoder; long ones in segments),
    modules of a class that says ``recomputed = True``, and what the stages of the resampling do. Losses, gradients,
    statistics of batch normalisation, random numbers and the names of the weights are those of the network as it was,
    exactly; without gradients nothing changes at all. What changes its input in place cannot run again: layers at the
    beginning of a part that do so keep what they kept before. There are no second derivatives: ``create_graph=True``
    ends in torch's ``CheckpointError``.
    """
    for part in _parts(network):
        if type(part).forward is nn.Sequential.forward:
            part.forward = MethodType(_sequence, part)
        elif not _changes_input([part]):
            part.forward = MethodType(_METHODS["forward"], part)
    for stage in network.resampling.modules():
        if isinstance(stage, ResamplingStage):
            for name in ("down", "pass_through", "up"):
                setattr(stage, name, MethodType(_METHODS[name], stage))


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.Sequential) or getattr(child, "recomputed", False):
            yield child
        elif not isinstance(child, Resampling):
            yield from _parts(child)


# Bound methods of the parts, so that a copy of a network runs its own parts and not those of the original.


def _method(name: str) -> Callable[..., Any]:
    def run(part: nn.Module, *inputs: Any, **options: Any) -> Any:
        return _again_in_backward(partial(getattr(type(part), name), part, **options), [part], *inputs)

    return run


def _sequence(part: nn.Sequential, x: Tensor) -> Tensor:
    layers = list(part)
    while _changes_input(layers):
        x = layers.pop(0)(x)
    for segment in _segments(layers):
        x = _again_in_backward(partial(_run, segment), segment, x)
    return x


_METHODS = {name: _method(name) for name in ("forward", "down", "pass_through", "up")}


def _run(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _changes_input(layers: Sequence[nn.Module]) -> bool:
    """Tell whether layers may change what they are given: one that works in place comes before all with weights."""
    for part in (part for layer in layers for part in layer.modules()):
        if next(part.parameters(recurse=False), None) is not None:
            return False
        if getattr(part, "inplace", False):
            return True
    return False


def _segments(layers: list[nn.Module]) -> list[list[nn.Module]]:
    """Cut a long chain into about as many segments as each has layers; each begins with a layer that has kernels.

    What follows one, a norm and an activation in place, stays with it: it would change the segment's input.
    """
    kernels = [i for i, layer in enumerate(layers) if any(each.ndim > 1 for each in layer.parameters())]
    begins = [i for i in kernels if not _changes_input(layers[i:])]
    if len(begins) < _SEGMENTED:
        return [layers]
    cuts = [0, *begins[:: math.ceil(math.sqrt(len(begins)))][1:], len(layers)]
    return [layers[begin:end] for begin, end in pairwise(cuts)]


def _again_in_backward(function: Callable[..., Any], modules: Sequence[nn.Module], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return function(*inputs)
    if torch.compiler.is_compiling():  # a compiler runs no side effect again
        return checkpoint(function, *inputs, use_reentrant=False)
    return checkpoint(function, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _OnCopies(modules)))


class _OnCopies:
    """Let modules work on copies of their buffers meanwhile: running statistics must not be updated twice.

    Entered by each backward pass over the same output.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules
        self.kept: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        inside = [part for module in self.modules for part in module.modules()]
        shared = [part for stage in inside if isinstance(stage, ResamplingStage) for part in stage.shared.values()]
        inside += [part for module in shared for part in module.modules()]
        self.kept = [(part, name, buffer) for part in inside for name, buffer in part.named_buffers(recurse=False)]
        for part, name, buffer in self.kept:
            setattr(part, name, buffer.clone())

    def __exit__(self, *error: object) -> None:
        for part, name, buffer in self.kept:
            setattr(part, name, buffer)
        self.kept = []
