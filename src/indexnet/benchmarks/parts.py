"""Measures parts of the benchmark, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

from indexnet.benchmarks.base import BenchOptions, Figure, Progress

Tracked = Callable[[Iterable[Any], str, int], Iterable[Any]]


def measure(
    parts: Sequence[str], options: Sequence[BenchOptions], progress: Progress, tracked: Tracked
) -> list[Figure]:
    """Measure some parts with each of some options.

    Args:
        parts: of :data:`indexnet.benchmarks.PARTS`.
        options: one for each number of threads.
        progress: is told what is being measured.
        tracked: gives items on while it shows how far they are, see :func:`indexnet.core.console.tracked`.

    Raises:
        RuntimeError: two forms that are compared do not give the same.
    """
    found: list[Figure] = []
    jobs = [(part, each) for each in options for part in parts]
    for part, each in tracked(jobs, "bench", len(jobs)):
        progress(part)
        with threads(each.threads):
            found += import_module(f"indexnet.benchmarks.{part}").figures(each, lambda text: progress(text))
    return found


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let PyTorch use so many threads for a while; None: as many as it does."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
