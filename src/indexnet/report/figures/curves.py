"""Learning curves: one figure for all rows, and a small frame for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from indexnet.report.figures.axes import (
    Axis,
    Frame,
    Series,
    fit_axis,
    group,
    horizontal,
    line,
    room_for,
    round_text,
    shorten,
    shorten_apart,
    svg,
    text,
    text_width,
    tick_text,
    vertical,
)

Curve = Sequence[tuple[int, float]]
Lines = Sequence[tuple[Series, Sequence[Curve]]]
"""Rows with a curve per seed; the means of ``Series`` are not used."""


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


def learning_curves(rows: Lines, what: str = "training loss", *, narrow: bool = False) -> str:
    """Draw the training loss of every row over its steps, or what validation gave: the mean over seeds strong.

    The vertical axis is logarithmic where all values are positive and span more than a factor of 5.

    Args:
        rows: at least one curve with two points.
        what: the vertical axis shows.
        narrow: only numbers at the ends of the lines, no names (phones).
    """
    size = 11.5
    labels = shorten_apart([s.label for s, _ in rows], [180] * len(rows), size)
    names = [str(s.number) if narrow else f"{s.number} {label}" for (s, _), label in zip(rows, labels, strict=True)]
    width, least = (340, 300) if narrow else (980, 380)
    height = max(least, 90 + 14 * len(rows))
    margin = 28 + max(text_width(name, size) for name in names)
    thinned = _thinned(rows, 60 if narrow else 120)
    frame = _CurveFrame.fit([thinned], (width - margin, 34, height - 50), 4 if narrow else 6, 5)
    left, right, top, bottom = frame.box
    title = f"{what}, logarithmic" if frame.y.log else what
    body = [*frame.grid, text(4, 16, shorten(title, width - 8, 12.5), "axis")]
    body.append(text((left + right) / 2, height - 10, "training step", "axis", "middle"))
    lines, ends = frame.draw(thinned)
    label = f"{what[0].upper()}{what[1:]} over steps for " + ", ".join(s.label for s, _ in rows)
    written = {s.number: name for (s, _), name in zip(rows, names, strict=True)}
    body += [*lines, *_ends(ends, right, (top, bottom), written)]
    return svg(width, height, label, body, "narrow" if narrow else "wide")


def curve_panels(
    panels: Sequence[tuple[str, Lines]], what: str = "training loss", others: str = ""
) -> tuple[str, list[str]]:
    """Draw one small frame per row with its curves, all frames with the same axes, for tables of many rows.

    Args:
        panels: (the frame's name, its lines).
        what: the vertical axis shows.
        others: an id, unique on the page, under which the means of all rows are drawn once, to stand grey behind each
            frame's own; "": nothing does.

    Returns:
        What the frames refer to, "" for nothing; the frames.
    """
    thinned = [_thinned(rows, 60) for _, rows in panels]
    width, height = 320, 190
    right = width - (42 if any(len(rows) > 1 for rows in thinned) else 14)
    frame = _CurveFrame.fit(thinned, (right, 10, 164), 4, 4)
    shared = behind = ""
    if others:
        grey = "".join(frame.path(average(curves), "other") for rows in thinned for _, curves in rows if curves)
        shared = f'<svg width="0" height="0" aria-hidden="true"><defs><g id="{others}">{grey}</g></defs></svg>'
        behind = f'<use href="#{others}"/>'
    drawn = []
    for (name, _), rows in zip(panels, thinned, strict=True):
        lines, ends = frame.draw(rows)
        written = {s.number: str(s.number) for s, _ in rows}
        numbers = _ends(ends, right, frame.box[2:], written) if len(ends) > 1 else []
        label = f"{what[0].upper()}{what[1:]} over steps: {name}"
        drawn.append(svg(width, height, label, [*frame.grid, behind, *lines, *numbers]))
    return shared, drawn


def _thinned(rows: Lines, points: int) -> Lines:
    return [(s, [thin(curve, points) for curve in curves if len(curve) > 1]) for s, curves in rows]


@dataclass(frozen=True)
class _CurveFrame:
    """Axes of training steps and losses with their grid."""

    x: Axis
    y: Axis
    box: Frame
    grid: Sequence[str]

    @classmethod
    def fit(cls, every: Sequence[Lines], sides: tuple[float, float, float], x_ticks: int, y_ticks: int) -> _CurveFrame:
        """Fit axes to all curves; the sides are right, top and bottom, the texts of the axis choose the left one."""
        right, top, bottom = sides
        points = [point for lines in every for _, curves in lines for curve in curves for point in curve]
        values, last = [value for _, value in points], max(step for step, _ in points)
        log = min(values) > 0 and max(values) / min(values) > 5
        y = fit_axis(values, bottom, top, log=log, margin=0.03)
        ticks = y.ticks(y_ticks)
        texts = [round_text(t) if log else tick_text(t, ticks) for t in ticks]
        left = room_for(texts)
        x = Axis(0, last, left, right) if last > 0 else Axis(-1, 1, left, right)
        box, steps = (left, right, top, bottom), x.ticks(x_ticks)
        grid = vertical(y, ticks, texts, box) + horizontal(x, steps, [round_text(t) for t in steps], box)
        return cls(x, y, box, grid)

    def draw(self, rows: Lines) -> tuple[list[str], list[tuple[float, Series]]]:
        """Return a group of lines for every row, and where they end."""
        groups, ends = [], []
        for s, curves in rows:
            if not curves:
                continue
            centre = average(curves) or curves[0]
            paths = [self.path(curve, "faint") for curve in curves] if len(curves) > 1 else []
            groups.append(group(s, [f"<title>{escape(s.label)}</title>", *paths, self.path(centre, "curve")]))
            ends.append((self.y(centre[-1][1]), s))
        return groups, ends

    def path(self, curve: Curve, css: str) -> str:
        """Return a curve as a polyline."""
        points = " ".join(f"{self.x(step):.1f},{self.y(value):.1f}" for step, value in curve)
        return f'<polyline class="{css}" points="{points}"/>'


def _ends(
    ends: Sequence[tuple[float, Series]], right: float, within: tuple[float, float], names: dict[int, str]
) -> list[str]:
    """Write the name of every line at its end, so that colours alone tell nothing."""
    return [
        group(
            s,
            [line(right + 4, y, right + 18, y, "sample"), text(right + 22, y + 4, names[s.number], "coloured small")],
        )
        for y, s in _spaced(ends, within)
    ]


def _spaced(
    ends: Sequence[tuple[float, Series]], within: tuple[float, float], gap: float = 13.5
) -> list[tuple[float, Series]]:
    """Move labels apart to at least ``gap`` pixels, in their order, and inside of the frame where it is high enough."""
    placed: list[tuple[float, Series]] = []
    for y, s in sorted(ends, key=lambda end: end[0]):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, s))
    if not placed:
        return placed
    shift = math.fsum(y for y, _ in ends) / len(ends) - math.fsum(y for y, _ in placed) / len(placed)
    shift = max(min(shift, within[1] - placed[-1][0]), within[0] - placed[0][0])
    return [(y + shift, s) for y, s in placed]
