"""One stage of every operator, forward and backward on one map, against bilinear: changes of one show against it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from indexnet.benchmarks.base import TIME, BenchOptions, Figure, Progress
from indexnet.core.errors import UserError
from indexnet.inference.operator_costs import REFERENCE, OperatorCost, measure_operators, usual_operators

PART = "operators"
SIZE, QUICK_SIZE = (4, 64, 128, 128), (2, 64, 48, 48)


def figures(options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure every operator on a map of 4x64x128x128; ``quick``: of 2x64x48x48."""
    size = map_size(options.quick)
    progress(f"maps of {'x'.join(map(str, size))}")
    return as_figures(measure_operators(usual_operators(), size, options.device, options.turns), options)


def map_size(quick: bool, text: str | None = None) -> tuple[int, int, int, int]:
    """Return (N, C, H, W) of the encoder map, as text says it or as usual.

    Raises:
        UserError: the text is no size, or too small a one.
    """
    if text is None:
        return QUICK_SIZE if quick else SIZE
    words = text.split(",")
    if len(words) != 4 or not all(re.fullmatch(r"\s*[1-9]\d{0,5}\s*", word) for word in words):
        raise UserError(f"--size {text} must be batch, channels, height and width, as 4,64,128,128.")
    count, channels, height, width = map(int, words)
    if min(height, width) < 3:  # of one pixel alone, nothing can be normalised
        raise UserError(f"--size {text}: height and width must be at least 3, so that two are left when halved.")
    return count, channels, height, width


def as_figures(costs: Sequence[OperatorCost], options: BenchOptions) -> list[Figure]:
    """Return the times of all that were measured, as figures against the first."""
    reference = costs[0].step_s
    return [
        Figure(PART, cost.operator, "stage", REFERENCE, TIME, cost.step_s, reference, options.threads, options.turns)
        for cost in costs[1:]
        if cost.step_s is not None and reference is not None
    ]
