"""Time and peak memory of trained networks against the size of the image."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from indexnet.core.machine import available_memory, memory_of
from indexnet.core.turns import in_turns
from indexnet.networks import Network
from indexnet.networks.tiled.memory import forward_bytes, is_out_of_memory

LIMIT = 100  # megapixels that an image may have


@dataclass
class Measurement:
    """One network at one size.

    Attributes:
        network: its name in the table.
        width: of the image, in pixels.
        height: of the image.
        median_s: seconds of one forward pass, the median; None where it does not fit.
        fastest_s: the least of the repeats.
        slowest_s: the most of them.
        memory_bytes: what the pass takes at its peak beyond the network, its input and the process at rest; on the CPU
            some 20 MB of it are the kernels' own at any size; None where that cannot be told.
        problem: why there are no figures.
    """

    network: str
    width: int
    height: int
    median_s: float | None = None
    fastest_s: float | None = None
    slowest_s: float | None = None
    memory_bytes: int | None = None
    problem: str = ""
    times_s: list[float] = field(default_factory=list, repr=False)

    @property
    def megapixels(self) -> float:
        """Millions of pixels."""
        return self.width * self.height / 1e6


def measure(
    networks: Sequence[tuple[str, Network]],
    sizes: Sequence[tuple[int, int]],
    device: torch.device,
    repeats: int,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Measurement]:
    """Time forward passes on one image, each network at each size, untiled.

    The first two passes of a pair are not timed: one that lets the libraries load and lay out what they keep, one that
    says what memory a pass takes. Then all pairs are timed in turns, the order reversed each time, so that what else
    the machine does meets them alike.

    Args:
        networks: names and networks in evaluation mode, on the device.
        sizes: (width, height), in ascending order.
        device: where they are.
        repeats: timed passes of a pair.
        progress: is told what is being done.

    Returns:
        One measurement a pair, network by network.
    """
    found: list[tuple[Measurement, Callable[[], None]]] = []
    with torch.inference_mode():
        for name, network in networks:
            for width, height in sizes:
                line = Measurement(name, width, height)
                progress(f"{name}: {width}x{height}, memory")
                found.append((line, _forward(network, width, height, device)))
                _first(line, found[-1][1], network, device)
        for turn, (line, forward) in in_turns(found, repeats):
            if not line.problem:
                progress(f"{line.network}: {line.width}x{line.height}, {turn + 1} of {repeats}")
                _timed(line, forward, device)
    for line, _ in found:
        if line.times_s and not line.problem:
            times = line.times_s
            line.median_s, line.fastest_s, line.slowest_s = statistics.median(times), min(times), max(times)
    return [line for line, _ in found]


def _forward(network: Network, width: int, height: int, device: torch.device) -> Callable[[], None]:
    def forward() -> None:
        parameter = next(network.parameters())
        # made anew for every pass, so that no size holds memory while another is measured
        network(torch.full((1, network.in_channels, height, width), 0.5, dtype=parameter.dtype, device=device))

    return forward


def _first(line: Measurement, forward: Callable[[], None], network: Network, device: torch.device) -> None:
    input_bytes = network.in_channels * line.width * line.height * next(network.parameters()).element_size()
    if device.type == "cpu":  # a machine without memory kills the process in the place of an error
        needed, free = forward_bytes(network, line.width * line.height, network.in_channels), available_memory()
        if needed > free:
            line.problem = f"needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
            return
    # the first pass of a size also loads kernels and fills caches, which would count as its memory or hide it
    if not _fits(line, forward, device):
        return
    taken = memory_of(lambda: _fits(line, forward, device), device)
    if taken is not None and not line.problem:
        line.memory_bytes = max(0, taken - input_bytes)


def _timed(line: Measurement, forward: Callable[[], None], device: torch.device) -> None:
    begun = time.perf_counter()
    if _fits(line, forward, device):
        line.times_s.append(time.perf_counter() - begun)


def _fits(line: Measurement, forward: Callable[[], None], device: torch.device) -> bool:
    try:
        forward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        line.problem = "out of memory"
    if line.problem and device.type == "cuda":  # only now has the error let go of its tensors
        torch.cuda.empty_cache()
    return not line.problem
