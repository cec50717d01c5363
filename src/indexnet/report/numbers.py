"""Numbers as people read them: printed cells to values, and values to short text."""

from __future__ import annotations

import math
import re

MINUS = "\N{MINUS SIGN}"
UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
PRINTED = re.compile(r"([+-]?)\s*(\d+(?:\.\d+)?)\s*([KMG]?)")
"""A printed cell: sign, number, unit."""


class NumberText(str):
    """A number as text, with the number itself, by which tables of pages are sorted.

    Attributes:
        value: the number; not there where there is none.
    """

    value: float

    def __new__(cls, text: str, value: float | None) -> NumberText:
        """Write a number as text."""
        made = super().__new__(cls, text)
        if value is not None:
            made.value = value
        return made


def parse_number(text: str) -> float | None:
    """Return the value of a printed cell: ``"50.2"``, ``"3.75M"``, ``"+4.99K"``; None for anything else or nothing."""
    match = PRINTED.fullmatch(text.strip().replace(MINUS, "-"))
    return float(match[1] + match[2]) * UNITS[match[3]] if match else None


def count(value: float | None) -> str:
    """Write a count with three significant digits: 16, 4.99K, 3.75M, 131M; "" for None."""
    if value is None:
        return ""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= limit * 0.9995:
            return f"{significant(value / limit)}{suffix}"
    return f"{value:.0f}"


def significant(value: float, digits: int = 3) -> str:
    """Write a number with ``digits`` significant digits, without an exponent and with a proper minus."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value: 0.9996 has that of 1.00
    return fixed(value, max(0, digits - 1 - exponent))


def flops(value: float) -> str:
    """Write billions of operations: two decimals as papers do, three significant digits below 1."""
    return fixed(value, 2) if value >= 1 else significant(value)


def fixed(value: float | None, digits: int) -> str:
    """Write a number with a fixed number of decimals and a proper minus; "" for None."""
    return "" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int) -> str:
    """Write a difference with its sign: +0.12, -0.30 (proper minus); "" for None."""
    return "" if value is None else f"{value:+.{digits}f}".replace("-", MINUS)


def spread(mean: float | None, sd: float | None, digits: int) -> str:
    """Write ``mean ± sd``; the mean alone where there is no sd; "" where there is no mean."""
    if mean is None:
        return ""
    return fixed(mean, digits) if sd is None else f"{fixed(mean, digits)} ± {fixed(sd, digits)}"
