"""Several forms of one computation, timed in turns, so that what else the machine does meets all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

_T = TypeVar("_T")


def in_turns(items: Sequence[_T], turns: int) -> Iterator[tuple[int, _T]]:
    """Yield (turn, item) for all items in each turn, every other turn in the opposite order."""
    for turn in range(turns):
        for item in items[:: -1 if turn % 2 else 1]:
            yield turn, item


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
    for turn, name in in_turns(list(forms), turns + 1):
        begun = clock()
        forms[name](turn)
        times[name].append(clock() - begun)
    return {name: statistics.median(values[1:]) for name, values in times.items()}
