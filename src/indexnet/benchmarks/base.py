"""A figure of a benchmark, and how it is taken."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from indexnet.core.machine import memory_of
from indexnet.core.turns import medians

TIME, MEMORY = "time", "memory"

Progress = Callable[[str], None]
"""Is told what is being measured."""


@dataclass(frozen=True)
class BenchOptions:
    """How a part of the benchmark is measured.

    Attributes:
        threads: that PyTorch uses, and is told to use before the part begins.
        turns: that count.
        quick: take sizes that are measured in seconds instead of those of the papers.
        device: where to measure.
        brief: leave out forms that take minutes before they are timed, as where all parts are measured.
    """

    threads: int = 1
    turns: int = 7
    quick: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    brief: bool = False


@dataclass(frozen=True)
class Figure:
    """One form of a computation against another one that gives the same.

    Attributes:
        part: of the benchmark, as ``operators``.
        case: what is computed, as ``m2o nonlinear, with context``.
        form: how, as ``channels-last``.
        reference: against what, as ``literal``.
        quantity: ``time`` in seconds or ``memory`` in bytes; less is better in both.
        value: of the form, the median of its turns.
        reference_value: of the reference.
        threads: of PyTorch.
        turns: that counted.
        target: the largest ratio that is meant to be; None: none is.
    """

    part: str
    case: str
    form: str
    reference: str
    quantity: str
    value: float
    reference_value: float
    threads: int
    turns: int
    target: float | None = None

    @property
    def ratio(self) -> float:
        """The form's share of the reference."""
        return self.value / self.reference_value

    @property
    def key(self) -> str:
        """What a baseline knows the figure by; it does not depend on the machine."""
        return f"{self.part}: {self.case}: {self.form} / {self.reference}, {self.quantity}, {self.threads} thread(s)"


def time_figures(
    part: str,
    case: str,
    forms: Mapping[str, Callable[[int], object]],
    turns: int,
    threads: int,
    *,
    reference: str,
    targets: Mapping[str, float] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Figure]:
    """Time all forms in turns, and return those other than the reference against it.

    Args:
        part: of the benchmark.
        case: what is computed.
        forms: by name; each takes the number of the turn. That they give the same is checked before.
        turns: that count.
        threads: that PyTorch was told to use.
        reference: the name of one of the forms.
        targets: the largest ratio that is meant to be, by form.
        clock: see :func:`indexnet.core.turns.medians`.
    """
    found = medians(forms, turns, clock)
    pairs = {(name, reference): (targets or {}).get(name) for name in forms if name != reference}
    return compared(part, case, TIME, found, pairs, turns, threads)


def compared(
    part: str,
    case: str,
    quantity: str,
    found: Mapping[str, float],
    pairs: Mapping[tuple[str, str], float | None],
    turns: int,
    threads: int,
) -> list[Figure]:
    """Return figures of what was measured.

    Args:
        part: of the benchmark.
        case: what is computed.
        quantity: :data:`TIME` or :data:`MEMORY`.
        found: seconds or bytes of each form.
        pairs: a form and its reference, and the largest ratio that is meant to be.
        turns: that counted.
        threads: that PyTorch was told to use.
    """
    return [
        Figure(part, case, form, reference, quantity, found[form], found[reference], threads, turns, target)
        for (form, reference), target in pairs.items()
    ]


def check_equal(part: str, case: str, form: str, value: Tensor, expected: Tensor, tolerance: float = 1e-3) -> None:
    """Refuse to time a form that gives something else than its reference.

    In norm: a hidden value at a kink of ReLU6 falls on either side by rounding.

    Raises:
        RuntimeError: the two differ by more than a part, ``tolerance``, of the reference.
    """
    if not (value - expected).norm() <= tolerance * expected.norm():
        raise RuntimeError(f"bench {part}, {case}: the form {form!r} gives something else than its reference.")


def peak_bytes(step: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes that tensors take at once during a step, above what they took before it.

    On the CPU that is what PyTorch's allocator hands out, to its kernels too: the same in every run, unlike the memory
    of the process.
    """
    if device.type == "cuda":
        return memory_of(step, device) or 0
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or the profiler says on stderr when it begins and ends
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = [each for each in json.loads(trace.read_text())["traceEvents"] if each.get("name") == "[memory]"]
    events.sort(key=lambda each: each["ts"])
    totals = [each["args"]["Total Allocated"] for each in events]
    return int(max(totals) - (totals[0] - events[0]["args"]["Bytes"])) if totals else 0
