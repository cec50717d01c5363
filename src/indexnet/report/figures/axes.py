"""Axes, ticks and the parts of SVG that all figures are made of.

Figures are one ``<svg>`` element as text. Colours are CSS variables, so that one figure serves light and dark pages;
marks carry ``<title>`` elements for pointers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from indexnet.report.figures.looks import look, style
from indexnet.report.numbers import count, fixed, significant


@dataclass(frozen=True)
class Series:
    """One table row in a figure.

    Attributes:
        number: its number in the table, 1-based; also picks its look.
        label: its name.
        values: one value per seed.
        mean: over seeds.
        sd: over seeds, None for one seed.
        best: drawn with emphasis.
    """

    number: int
    label: str
    values: Sequence[float] = ()
    mean: float = 0.0
    sd: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Axis:
    """A numeric axis from ``low`` to ``high`` in data units, drawn between two pixel positions."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel position of a value."""
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values inside the axis."""
        if self.log:
            return _log_ticks(self.low, self.high, about)
        step = _nice((self.high - self.low) / max(about, 1))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]


def _nice(value: float) -> float:
    """Return the smallest round step that gives at most a quarter more ticks than steps of ``value``."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= value * 0.8)


def _log_ticks(low: float, high: float, about: int) -> list[float]:
    found: list[float] = []
    for mantissas in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [m * 10.0**p for p in powers for m in mantissas if low * 0.999 <= m * 10.0**p <= high * 1.001]
        if len(found) >= 3:
            break
    every = max(1, math.ceil(len(found) / max(about + 1, 1)))
    return found[::every]


def fit_axis(values: Sequence[float], start: float, end: float, *, log: bool = False, margin: float = 0.06) -> Axis:
    """Return an axis that holds all values with a margin (a share of the range) on both sides."""
    low, high = min(values), max(values)
    if log:
        ratio = max(high / low, 1.2) ** margin
        return Axis(low / ratio, high * ratio, start, end, True)
    room = (high - low) * margin or abs(high) * 0.05 or 1.0
    return Axis(low - room, high + room, start, end)


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """Write a tick with as many decimals as the tick spacing needs."""
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    step = min(steps, default=abs(value) or 1.0)
    return fixed(value, max(0, min(6, -math.floor(math.log10(step) + 1e-9) + (not _one_digit(step)))))


def _one_digit(step: float) -> bool:
    leading = step / 10 ** math.floor(math.log10(step) + 1e-9)
    return math.isclose(leading, round(leading), abs_tol=1e-6)


def cost_text(value: float) -> str:
    """Write a cost with three significant digits: 0.0312, 3.75M."""
    return count(value) if value >= 100 else significant(value)


def round_text(value: float) -> str:
    """Write a round number without trailing zeros: 0.03, 1M."""
    text = cost_text(value)
    digits, suffix = (text[:-1], text[-1]) if text[-1] in "KMG" else (text, "")
    return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + suffix


def text_width(text: str, size: float = 12.0) -> float:
    """Return about how many pixels a line of text takes; rather too many, as fonts differ."""
    return len(text) * size * 0.6


def shorten(text: str, width: float, size: float) -> str:
    """Cut a text that takes more than ``width`` pixels, in its middle."""
    return shorten_apart([text], [width], size)[0]


def shorten_apart(texts: Sequence[str], widths: Sequence[float], size: float) -> list[str]:
    """Cut texts that take more than their width in pixels; all at one place, near the middle, where most still differ.

    Labels of a sweep are alike but for a value, which may stand anywhere.
    """
    lengths = [max(1, int(width / (size * 0.6))) for width in widths]

    def cut(text: str, length: int, tail: int) -> str:
        tail = min(tail, length - 1)
        return (
            text if len(text) <= length else f"{text[: length - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"
        )

    middle = max(lengths, default=0) // 2
    tails = sorted(range(max(lengths, default=1)), key=lambda tail: abs(tail - middle))
    found = ([cut(text, length, tail) for text, length in zip(texts, lengths, strict=True)] for tail in tails)
    return max(found, key=lambda each: len(set(each)))


Frame = tuple[float, float, float, float]
"""Left, right, top, bottom of the drawing area, in pixels."""


def horizontal(axis: Axis, ticks: Sequence[float], texts: Sequence[str], frame: Frame) -> list[str]:
    """Draw upright grid lines with texts below, but those that would touch the one before or leave the figure."""
    left, right, top, bottom = frame
    parts, end = [], -math.inf
    for tick, written in zip(ticks, texts, strict=True):
        x, half = axis(tick), text_width(written) / 2
        parts.append(line(x, top, x, bottom, "grid"))
        if x - half > max(end + 4, left - 13) and x + half < right + 13:
            parts.append(text(x, bottom + 17, written, anchor="middle"))
            end = x + half
    return parts


def vertical(axis: Axis, ticks: Sequence[float], texts: Sequence[str], frame: Frame) -> list[str]:
    """Draw level grid lines with their texts on the left."""
    left, right, _, _ = frame
    lines = [line(left, axis(t), right, axis(t), "grid") for t in ticks]
    return lines + [text(left - 7, axis(t) + 4, each, anchor="end") for t, each in zip(ticks, texts, strict=True)]


def room_for(texts: Sequence[str]) -> float:
    """Return how much room the texts of a vertical axis need on its left, in pixels."""
    return 14 + max((text_width(each) for each in texts), default=0)


def svg(width: float, height: float, label: str, body: Sequence[str], css: str = "") -> str:
    """Return an ``<svg>`` element that says what it shows."""
    return (
        f'<svg class="{css}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="{escape(label)}">{"".join(body)}</svg>'
    )


def text(x: float, y: float, content: str, css: str = "tick", anchor: str = "start") -> str:
    """Return a line of text at its base line."""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """Return a straight line."""
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def group(series: Series, body: Sequence[str]) -> str:
    """Return the marks of a row, in its look; ``data-row`` is its number."""
    css = f"m{look(series.number).marker}"
    return f'<g class="{css}" data-row="{series.number}" style="{style(series.number)}">{"".join(body)}</g>'


def marker(series: Series, x: float, y: float, size: float) -> str:
    """Return a row's marker: a disc or a square, filled or hollow; ``size`` is half its height."""
    if look(series.number).marker % 2 == 0:
        return f'<circle class="disc" cx="{x:.1f}" cy="{y:.1f}" r="{size:g}"/>'
    side = 1.9 * size
    return (
        f'<rect class="disc" x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:g}" height="{side:g}" rx="2"/>'
    )
