"""A figure of a benchmark, and how it is taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

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
    """

    threads: int = 1
    turns: int = 7
    quick: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


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
    return [
        Figure(part, case, name, reference, TIME, value, found[reference], threads, turns, (targets or {}).get(name))
        for name, value in found.items()
        if name != reference
    ]
