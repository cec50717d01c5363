"""One stage of every operator, forward and backward on one map, against bilinear: changes of one show against it."""

from __future__ import annotations

from collections.abc import Sequence

from indexnet.benchmarks.base import TIME, BenchOptions, Figure, Progress
from indexnet.inference.operator_costs import REFERENCE, OperatorCost, measure_operators, usual_operators

PART = "operators"
SIZE, QUICK_SIZE = (4, 64, 128, 128), (2, 64, 48, 48)


def figures(options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure every operator on a map of 4x64x128x128; ``quick``: of 2x64x48x48."""
    size = QUICK_SIZE if options.quick else SIZE
    progress(f"maps of {'x'.join(map(str, size))}")
    return as_figures(measure_operators(usual_operators(), size, options.device, options.turns), options)


def as_figures(costs: Sequence[OperatorCost], options: BenchOptions) -> list[Figure]:
    """Return the times of all that were measured, as figures against the first."""
    reference = costs[0].step_s
    return [
        Figure(PART, cost.operator, "stage", REFERENCE, TIME, cost.step_s, reference, options.threads, options.turns)
        for cost in costs[1:]
        if cost.step_s is not None and reference is not None
    ]
