"""Checks of option values that several operators share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from indexnet._names import nearest
from indexnet.errors import UserError


def check_choice(operator: str, option: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuse a value that is not one of ``choices``, naming the nearest one.

    Raises:
        UserError: the value is none of them.
    """
    # True == 1, so membership alone would take a bool for a number and the reverse.
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return
    guess = nearest(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else None
    hint = f" Did you mean {guess!r}?" if guess else ""
    known = ", ".join(repr(choice) for choice in choices)
    raise UserError(f"resampling {operator!r}: {option}={value!r} is not one of {known}.{hint}")


def check_positive(operator: str, option: str, value: Any, *, odd: bool = False) -> None:
    """Refuse anything but a positive (odd) integer.

    Raises:
        UserError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (odd and value % 2 == 0):
        kind = "a positive odd integer" if odd else "a positive integer"
        raise UserError(f"resampling {operator!r}: {option} must be {kind}, got {value!r}.")
