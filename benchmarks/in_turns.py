"""What benchmarks share: several forms of one computation, timed so that other work on the machine meets all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def medians(
    forms: Mapping[str, Callable[[int], object]], turns: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the median seconds of every form.

    Args:
        forms: take the number of the turn. Each runs once a turn, every other turn in the opposite order.
        turns: that count; one more comes first and warms up.
        clock: gives seconds; after what has been asked for is done.
    """
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(turns + 1):
        for name in list(forms)[:: -1 if turn % 2 else 1]:
            begun = clock()
            forms[name](turn)
            times[name].append(clock() - begun)
    return {name: statistics.median(values[1:]) for name, values in times.items()}
