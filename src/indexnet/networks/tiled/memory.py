"""How much memory a forward pass takes: estimated without running it, and told from what the device has."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from indexnet.core.machine import available_memory, resident_memory
from indexnet.networks.layers import run_on_meta

# Measured on CPU and four networks: the kernels' workspace is up to a quarter of the live tensors, and what does not
# grow with the image is about the weights again, in the kernels' own layout.
_WORKSPACE = 1.3
_FIXED = 160 * 2**20
_PROBE = 512  # side of the image by which a network is judged
_SHARE = 0.8  # of what is free, as an automatic budget
_per_pixel: WeakKeyDictionary[nn.Module, tuple[torch.dtype, float]] = WeakKeyDictionary()


class _Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, on whatever device, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now: int = 0
        self.peak: int = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def forget(_: Any) -> None:
            self.now -= size
            del self._known[key]

        self.now += size
        self._known[key] = weakref.ref(storage, forget)


def uncompiled() -> AbstractContextManager[Any]:
    """Return a context in which compiled modules run as they are written; PyTorch before 2.6 has none."""
    return torch.compiler.set_stance("force_eager") if hasattr(torch.compiler, "set_stance") else nullcontext()


def as_written(network: nn.Module) -> AbstractContextManager[Any]:
    """Return :func:`uncompiled` for a network that was compiled, else a context that changes nothing.

    For images of any size: a compiled network would be compiled again for them.
    """
    return nullcontext() if network._compiled_call_impl is None else uncompiled()


def live_bytes(network: nn.Module, size: tuple[int, int, int]) -> int:
    """Return the most bytes of activations that are alive at once in a forward pass on one image, without running it.

    Args:
        network: any module that maps (1, C, H, W); its mode is what it is, parameters may be on any device.
        size: (C, H, W) of the image; it counts, the parameters do not.
    """
    live = _Live()
    with uncompiled():
        run_on_meta(network, (1, *size), live)
    return live.peak


def forward_bytes(network: nn.Module, pixels: int, channels: int = 4) -> int:
    """Estimate the memory that a forward pass on one image takes beyond the network itself; rather too much.

    Args:
        network: in evaluation mode.
        pixels: of the image.
        channels: of the image.
    """
    parameter = next(network.parameters(), None)
    dtype = torch.float32 if parameter is None else parameter.dtype
    known = _per_pixel.get(network)
    if known is None or known[0] != dtype:
        known = (dtype, live_bytes(network, (channels, _PROBE, _PROBE)) / _PROBE**2)
        _per_pixel[network] = known
    fixed = _FIXED + sum(p.numel() * p.element_size() for p in network.parameters())
    return int(_WORKSPACE * known[1] * pixels) + fixed


def room(device: torch.device, memory: int | Literal["auto"]) -> int:
    """Return the bytes that a computation may still take on a device.

    Args:
        device: where it runs.
        memory: what the process may hold in all (on a GPU: there; else of the machine's memory), what it holds already
            included; ``"auto"``: what is free, less a fifth.
    """
    cuda = device.type == "cuda"
    if memory != "auto":
        return memory - (torch.cuda.memory_allocated(device) if cuda else resident_memory())
    if cuda:
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(_SHARE * (torch.cuda.mem_get_info(device)[0] + kept))
    return int(_SHARE * available_memory())


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the device or the machine had no memory left."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "not enough memory", "out of memory")
    )
