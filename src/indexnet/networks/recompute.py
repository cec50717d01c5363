"""Activation checkpointing: parts of a network keep their inputs alone, and run again in the backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
    exactly; without gradients nothing changes at all.
    """
    for part in _parts(network):
        part.forward = MethodType(_sequence if isinstance(part, nn.Sequential) else _METHODS["forward"], part)
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
    def run(part: nn.Module, *inputs: Any) -> Any:
        return _again_in_backward(partial(getattr(type(part), name), part), [part], *inputs)

    return run


def _sequence(part: nn.Sequential, x: Tensor) -> Tensor:
    for segment in _segments(part):
        x = _again_in_backward(partial(_run, segment), segment, x)
    return x


_METHODS = {name: _method(name) for name in ("forward", "down", "pass_through", "up")}


def _run(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _segments(chain: nn.Sequential) -> list[list[nn.Module]]:
    """Cut a long chain into about as many segments as each has layers; each begins with a layer that has kernels.

    What follows one, a norm and an activation in place, stays with it: it would change the segment's input.
    """
    layers = list(chain)
    begins = [i for i, layer in enumerate(layers) if any(each.ndim > 1 for each in layer.parameters())]
    if len(begins) < _SEGMENTED:
        return [layers]
    cuts = [0, *begins[:: math.ceil(math.sqrt(len(begins)))][1:], len(layers)]
    return [layers[begin:end] for begin, end in pairwise(cuts)]


def _again_in_backward(function: Callable[..., Any], modules: Sequence[nn.Module], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return function(*inputs)
    if torch.compiler.is_compiling():  # a compiler runs no side effect again
        return checkpoint(function, *inputs, use_reentrant=False)
    return checkpoint(function, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _on_copies(modules)))


@contextmanager
def _on_copies(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let modules work on copies of their buffers meanwhile: running statistics must not be updated twice."""
    inside = [part for module in modules for part in module.modules()]
    shared = [part for stage in inside if isinstance(stage, ResamplingStage) for part in stage.shared.values()]
    inside += [part for module in shared for part in module.modules()]
    kept = [(part, name, buffer) for part in inside for name, buffer in part.named_buffers(recurse=False)]
    for part, name, buffer in kept:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in kept:
            setattr(part, name, buffer)
