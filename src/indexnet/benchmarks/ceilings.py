"""What a machine gives at most, measured: arithmetic by a product of matrices, bandwidth by a sum of long vectors."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

_SECONDS = 0.3  # that each measurement takes
_SIDE = {"cpu": 1024, "cuda": 8192}
_LENGTH = {"cpu": 2**25, "cuda": 2**28}  # numbers of each vector: far more than caches hold


def clock(device: torch.device) -> float:
    """Return the time in seconds, once the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Return floating-point operations per second of a product of two large square matrices, a multiply-add as two."""
    side = _SIDE[device.type]
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in "ab")
    out = torch.empty_like(a)
    return 2 * side**3 / _fastest(lambda: torch.mm(a, b, out=out), device)


def peak_bandwidth(device: torch.device) -> float:
    """Return bytes per second, read and written, of ``c = a + 2 b`` over long vectors of float32."""
    a, b, c = (torch.zeros(_LENGTH[device.type], device=device) for _ in "abc")
    return 3 * c.nbytes / _fastest(lambda: torch.add(a, b, alpha=2, out=c), device)


def _fastest(call: Callable[[], object], device: torch.device) -> float:
    call()  # the first one starts libraries and touches memory
    end = clock(device) + _SECONDS
    fastest = float("inf")
    while (begun := clock(device)) < end or fastest == float("inf"):
        call()
        fastest = min(fastest, clock(device) - begun)
    return fastest
