"""Inline SVG figures without any library: a dot plot, cost against quality, learning curves.

Every function returns one ``<svg>`` element as text. Colours are CSS variables (``--c0`` ... ``--c7``, ``--ink``,
``--muted``, ``--grid``), so one figure serves light and dark pages; marks carry ``<title>`` elements for pointers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from indexnet.report.numbers import count, fixed, significant, spread

COLOURS = 8
"""Number of distinct series colours; more series than that share them and are told apart by their numbers."""


@dataclass(frozen=True)
class Series:
    """One table row in a figure.

    Attributes:
        number: its number in the table, 1-based; also picks the colour.
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
    power: float = 10.0 ** math.floor(math.log10(value))
    return min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda v: (v < value * 0.999, v))


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
    return math.isclose(step / 10 ** math.floor(math.log10(step) + 1e-9) % 1, 0.0, abs_tol=1e-6)


def _svg(width: float, height: float, label: str, body: Sequence[str], css: str = "") -> str:
    return (
        f'<svg class="{css}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="{escape(label)}">{"".join(body)}</svg>'
    )


def _text(x: float, y: float, text: str, css: str = "tick", anchor: str = "start", extra: str = "") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _group(series: Series, body: Sequence[str]) -> str:
    return f'<g style="--s:var(--c{(series.number - 1) % COLOURS})">{"".join(body)}</g>'


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def dot_plot(series: Sequence[Series], title: str, digits: int, *, narrow: bool = False) -> str:
    """Draw one line per row: every seed a ring, the mean a disc, one standard deviation to each side a bar.

    Args:
        series: rows from top to bottom; at least one.
        title: the metric with its unit, and which way is better.
        digits: decimals of the written means.
        narrow: labels stand above their line instead of left of it (phones).
    """
    width, pitch = (340, 46) if narrow else (980, 32)
    left = 14 if narrow else min(300, 34 + max(len(s.label) for s in series) * 7.4)
    right = width - (14 if narrow else 128)
    top, bottom = 8, 8 + pitch * len(series)
    reach = [v for s in series for v in (*s.values, s.mean - (s.sd or 0), s.mean + (s.sd or 0))]
    axis = fit_axis(reach, left, right, margin=0.05)
    ticks = axis.ticks(4 if narrow else 7)
    body = [_line(axis(t), top, axis(t), bottom, "grid") for t in ticks]
    body += [_text(axis(t), bottom + 17, tick_text(t, ticks), anchor="middle") for t in ticks]
    body.append(_text((left + right) / 2, bottom + 37, title, "axis", "middle"))
    for index, s in enumerate(series):
        y = top + pitch * index + (32 if narrow else pitch / 2)
        text, css = spread(s.mean, s.sd, digits), "label strong" if s.best else "label"
        marks = [f"<title>{escape(f'{s.label}: {text}')}</title>", _line(left, y, right, y, "rail")]
        if s.sd is not None:
            marks.append(_line(axis(s.mean - s.sd), y, axis(s.mean + s.sd), y, "sd"))
        marks += [f'<circle class="ring" cx="{axis(v):.1f}" cy="{y:.1f}" r="4.2"/>' for v in s.values]
        marks.append(f'<circle class="disc" cx="{axis(s.mean):.1f}" cy="{y:.1f}" r="{6.5 if s.best else 5}"/>')
        if narrow:
            marks.append(_text(left, y - 13, _shorten(f"{s.number}  {s.label}", 27), css))
            marks.append(_text(right, y - 13, text, css + " number", "end"))
        else:
            marks.append(_text(20, y + 4.5, str(s.number), "tick", "end"))
            marks.append(_text(28, y + 4.5, _shorten(s.label, int((left - 34) / 7.2)), css))
            marks.append(_text(width - 4, y + 4.5, text, css + " number", "end"))
        body.append(_group(s, marks))
    means = "; ".join(f"{s.label} {spread(s.mean, s.sd, digits)}" for s in series)
    return _svg(width, bottom + 46, f"{title}. {means}", body, "narrow" if narrow else "wide")


def scatter(
    points: Sequence[tuple[Series, float]],
    x_title: str,
    y_title: str,
    digits: int,
    front: Sequence[tuple[float, float]] = (),
    *,
    narrow: bool = False,
) -> str:
    """Draw quality against cost: one numbered disc per row, one standard deviation as a bar, names where they fit.

    Args:
        points: (row, cost), cost > 0; at least one. Costs that span more than a factor of 8 get a logarithmic axis.
        x_title: the cost with its unit.
        y_title: the metric with its unit.
        digits: decimals of the written means.
        front: (cost, mean) of the rows to join by a line, cheapest first.
        narrow: a smaller frame without names (phones).
    """
    width, height = (340, 300) if narrow else (540, 380)
    left, right, top, bottom = 52, width - 14, 14, height - 54
    costs = [cost for _, cost in points]
    x_axis = fit_axis(costs, left, right, log=max(costs) / min(costs) > 8, margin=0.1)
    reach = [v for s, _ in points for v in (s.mean - (s.sd or 0), s.mean + (s.sd or 0))]
    y_axis = fit_axis(reach, bottom, top, margin=0.1)
    ticks, x_ticks = y_axis.ticks(5), x_axis.ticks(4)
    body = [_line(left, y_axis(t), right, y_axis(t), "grid") for t in ticks]
    body += [_text(left - 7, y_axis(t) + 4, tick_text(t, ticks), anchor="end") for t in ticks]
    body += [_line(x_axis(t), top, x_axis(t), bottom, "grid") for t in x_ticks]
    body += [_text(x_axis(t), bottom + 17, _round(t), anchor="middle") for t in x_ticks]
    x_text = x_title + (" (logarithmic)" if x_axis.log else "")
    body.append(_text((left + right) / 2, height - 14, x_text, "axis", "middle"))
    middle = (top + bottom) / 2
    body.append(_text(13, middle, y_title, "axis", "middle", f' transform="rotate(-90 13 {middle:.0f})"'))
    if len(front) > 1:
        places = " ".join(f"{x_axis(cost):.1f},{y_axis(mean):.1f}" for cost, mean in front)
        body.append(f'<polyline class="front" points="{places}"/>')
    placed = [(x_axis(cost) - 10, y_axis(s.mean) - 10, x_axis(cost) + 10, y_axis(s.mean) + 10) for s, cost in points]
    for s, cost in sorted(points, key=lambda point: point[0].best):
        x, y = x_axis(cost), y_axis(s.mean)
        what = f"{s.label}: {spread(s.mean, s.sd, digits)} at {_cost(cost)}"
        marks = [f"<title>{escape(what)}</title>"]
        if s.sd is not None:
            marks.append(_line(x, y_axis(s.mean - s.sd), x, y_axis(s.mean + s.sd), "sd thin"))
        marks.append(f'<circle class="disc" cx="{x:.1f}" cy="{y:.1f}" r="9"/>')
        marks.append(_text(x, y + 3.8, str(s.number), "inside", "middle"))
        named = not narrow and len(points) <= 12
        box = named and _place(x, y, len(s.label) * (8.4 if s.best else 6.9), placed, (left, top, right, bottom))
        if box:
            placed.append(box)
            marks.append(_text(box[0], box[3] - 3, s.label, "label small strong" if s.best else "label small"))
        body.append(_group(s, marks))
    said = "; ".join(f"{s.label}: {_cost(c)}, {fixed(s.mean, digits)}" for s, c in points)
    label = f"{y_title} against {x_title}. {said}"
    return _svg(width, height, label, body, "narrow" if narrow else "wide")


Box = tuple[float, float, float, float]


def _place(x: float, y: float, width: float, placed: Sequence[Box], frame: Box) -> Box | None:
    """Find room for a label beside a disc: right, left, above, below; None where all are taken."""
    spots = ((x + 13, y - 7), (x - 13 - width, y - 7), (x - width / 2, y - 25), (x - width / 2, y + 12))
    aslant = ((x + 9, y - 20), (x + 9, y + 8), (x - 9 - width, y - 20), (x - 9 - width, y + 8))
    for a, b in (*spots, *aslant):
        c, d = a + width, b + 13.0
        inside = a >= frame[0] and b >= frame[1] and c <= frame[2] and d <= frame[3]
        if inside and not any(a < o[2] and o[0] < c and b < o[3] and o[1] < d for o in placed):
            return a, b, c, d
    return None


def _cost(value: float) -> str:
    return count(value) if value >= 100 else significant(value)


def _round(value: float) -> str:
    """Write a round number without trailing zeros: 0.03, 1M."""
    text = _cost(value)
    digits, suffix = (text[:-1], text[-1]) if text[-1] in "KMG" else (text, "")
    return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + suffix


Curve = Sequence[tuple[int, float]]


def thin(curve: Curve, points: int = 120) -> list[tuple[int, float]]:
    """Shorten a curve to at most ``points`` bins of equal step width: (last step, mean value) of each."""
    if len(curve) <= points:
        return list(curve)
    first, last = curve[0][0], curve[-1][0]
    bins: list[list[tuple[int, float]]] = [[] for _ in range(points)]
    for step, value in curve:
        bins[min(points - 1, (step - first) * points // max(1, last - first))].append((step, value))
    return [(kept[-1][0], math.fsum(v for _, v in kept) / len(kept)) for kept in bins if kept]


def average(curves: Sequence[Curve]) -> list[tuple[int, float]]:
    """Return the mean of several curves at the steps that all of them have."""
    tables = [dict(curve) for curve in curves]
    steps = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    return [(step, math.fsum(table[step] for table in tables) / len(tables)) for step in steps]


def learning_curves(
    rows: Sequence[tuple[Series, Sequence[Curve]]], what: str = "training loss", *, narrow: bool = False
) -> str:
    """Draw the training loss of every row over its steps, or what validation gave: the mean over seeds strong.

    The vertical axis is logarithmic where all values are positive and span more than a factor of 5.

    Args:
        rows: (row, one curve per seed); at least one curve with two points. The means of ``Series`` are not used.
        what: the vertical axis shows.
        narrow: only numbers at the ends of the lines, no names (phones).
    """
    width, height = (340, 300) if narrow else (980, 360)
    margin = 30 if narrow else 30 + max(len(s.label) for s, _ in rows) * 6.9
    thinned = _thinned(rows, 60 if narrow else 120)
    frame = _CurveFrame.fit([thinned], (52, width - margin, 10, height - 46), 4 if narrow else 6, 5)
    title = f"training step; {what}" + (" on a logarithmic axis" if frame.y.log else "")
    body = [*frame.grid, _text((frame.x.start + frame.x.end) / 2, height - 8, title, "axis", "middle")]
    lines, ends = frame.draw(thinned)
    label = f"{what[0].upper()}{what[1:]} over steps for " + ", ".join(s.label for s, _ in rows)
    body += [*lines, *_ends(ends, frame.x.end, named=not narrow)]
    return _svg(width, height, label, body, "narrow" if narrow else "wide")


def curve_panels(
    panels: Sequence[tuple[str, Sequence[tuple[Series, Sequence[Curve]]]]], what: str = "training loss"
) -> list[str]:
    """Draw one small frame per row with its curves, all frames with the same axes, for tables of many rows.

    Args:
        panels: (the frame's name, its lines as for :func:`learning_curves`).
        what: the vertical axis shows.
    """
    thinned = [_thinned(rows, 60) for _, rows in panels]
    width, height = 320, 190
    right = width - (30 if any(len(rows) > 1 for rows in thinned) else 14)
    frame = _CurveFrame.fit(thinned, (46, right, 8, 164), 4, 4)
    drawn = []
    for (name, _), rows in zip(panels, thinned, strict=True):
        lines, ends = frame.draw(rows)
        numbers = _ends(ends, right) if len(ends) > 1 else []
        drawn.append(
            _svg(width, height, f"{what[0].upper()}{what[1:]} over steps: {name}", [*frame.grid, *lines, *numbers])
        )
    return drawn


Lines = Sequence[tuple[Series, Sequence[Curve]]]


def _thinned(rows: Lines, points: int) -> Lines:
    return [(s, [thin(curve, points) for curve in curves if len(curve) > 1]) for s, curves in rows]


@dataclass(frozen=True)
class _CurveFrame:
    """Axes of training steps and losses with their grid."""

    x: Axis
    y: Axis
    grid: Sequence[str]

    @classmethod
    def fit(cls, every: Sequence[Lines], box: Box, x_ticks: int, y_ticks: int) -> _CurveFrame:
        left, right, top, bottom = box
        points = [point for lines in every for _, curves in lines for curve in curves for point in curve]
        values, last = [value for _, value in points], max(step for step, _ in points)
        log = min(values) > 0 and max(values) / min(values) > 5
        y = fit_axis(values, bottom, top, log=log, margin=0.03)
        x = Axis(0, last, left, right) if last > 0 else Axis(-1, 1, left, right)
        ticks = y.ticks(y_ticks)
        grid = [_line(left, y(t), right, y(t), "grid") for t in ticks]
        grid += [_text(left - 7, y(t) + 4, _round(t) if log else tick_text(t, ticks), anchor="end") for t in ticks]
        grid += [_text(x(t), bottom + 17, _round(t), anchor="middle") for t in x.ticks(x_ticks)]
        return cls(x, y, grid)

    def draw(self, rows: Lines) -> tuple[list[str], list[tuple[float, Series]]]:
        """Return a group of lines for every row, and where they end."""
        groups, ends = [], []
        for s, curves in rows:
            if not curves:
                continue
            centre = average(curves) or curves[0]
            paths = [self._path(curve, "faint") for curve in curves] if len(curves) > 1 else []
            groups.append(_group(s, [f"<title>{escape(s.label)}</title>", *paths, self._path(centre, "curve")]))
            ends.append((self.y(centre[-1][1]), s))
        return groups, ends

    def _path(self, curve: Curve, css: str) -> str:
        points = " ".join(f"{self.x(step):.1f},{self.y(value):.1f}" for step, value in curve)
        return f'<polyline class="{css}" points="{points}"/>'


def _ends(ends: Sequence[tuple[float, Series]], right: float, *, named: bool = False) -> list[str]:
    """Write the number of every line at its end, so that colours alone tell nothing; its name as well where asked."""
    return [
        _group(s, [_text(right + 8, y + 4, f"{s.number} {s.label}" if named else str(s.number), "coloured small")])
        for y, s in _spaced(ends)
    ]


def _spaced(ends: Sequence[tuple[float, Series]], gap: float = 14.0) -> list[tuple[float, Series]]:
    """Move labels apart to at least ``gap`` pixels, keeping their order and their centre of gravity roughly."""
    placed: list[tuple[float, Series]] = []
    for y, s in sorted(ends, key=lambda end: end[0]):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, s))
    if not placed:
        return placed
    shift = math.fsum(y for y, _ in ends) / len(ends) - math.fsum(y for y, _ in placed) / len(placed)
    return [(y + shift, s) for y, s in placed]
