"""Lines over named places with intervals, a frame per metric: one drawing, as SVG and as PNG.

Unlike the other figures, which live in a page with a style sheet, these are files of their own.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from indexnet.report.figures.axes import Axis, fit_axis, text_width, tick_text
from indexnet.report.figures.looks import LIGHT, look

_INK, _MUTED, _GRID, _PAPER = "#1c1f24", "#5c6470", "#e4e6ea", "#ffffff"
_WIDTH, _HEIGHT = 460, 310  # of a frame, pixels
_HEAD, _LEGEND, _FOOT = 40, 22, 28
_SCALE = 2  # of the PNG, which is drawn twice as large again and shrunk
_MARKERS = ((24, 0.0, 4.0), (4, math.pi / 4, 4.6), (4, 0.0, 5.2), (3, math.pi / 6, 5.6))
"""Corners, turn and radius of points: disc, square, diamond, triangle, so that colours alone tell nothing."""

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        label: its name.
        points: (value, interval or None) at every place.
    """

    label: str
    points: Sequence[tuple[float, tuple[float, float] | None]]


@dataclass(frozen=True)
class Panel:
    """One frame.

    Attributes:
        title: what the vertical axis shows.
        places: names along the horizontal axis.
        lines: at least one, each with a point per place.
        axis: what the places are, with their unit.
    """

    title: str
    places: Sequence[str]
    lines: Sequence[Line]
    axis: str = ""


@dataclass(frozen=True)
class Shape:
    """A polyline; closed where it is filled."""

    points: Sequence[tuple[float, float]]
    colour: str
    width: float = 1.0
    filled: bool = False


@dataclass(frozen=True)
class Label:
    """A line of text at its base line."""

    x: float
    y: float
    text: str
    size: int = 12
    anchor: Anchor = "start"
    colour: str = _INK
    bold: bool = False


Mark = Shape | Label


def _colour(number: int) -> str:
    return LIGHT[look(number + 1).colour]


def _marker(x: float, y: float, number: int) -> Shape:
    count, turn, reach = _MARKERS[(number + number // len(LIGHT)) % len(_MARKERS)]
    around = [turn + 2 * math.pi * k / count for k in range(count)]
    points = [(x + reach * math.cos(a), y + reach * math.sin(a)) for a in around]
    return Shape(points, _colour(number), filled=True)


def _frame(panel: Panel, left: float, top: float) -> list[Mark]:
    x0, x1, y0, y1 = left + 58, left + _WIDTH - 18, top + 34, top + _HEIGHT - 44
    reach = [v for line in panel.lines for value, bounds in line.points for v in (value, *(bounds or ()))]
    finite = [v for v in reach if math.isfinite(v)] or [0.0]
    axis = fit_axis(finite, y1, y0)
    if axis.low < 0 <= min(finite):
        axis = Axis(0.0, axis.high, y1, y0)
    ticks = axis.ticks(5)
    step = (x1 - x0) / max(1, len(panel.places))
    marks: list[Mark] = [Label(left + 10, top + 20, panel.title, 14, bold=True)]
    for tick in ticks:
        marks.append(Shape([(x0, axis(tick)), (x1, axis(tick))], _GRID))
        marks.append(Label(x0 - 6, axis(tick) + 4, tick_text(tick, ticks), anchor="end", colour=_MUTED))
    middles = [x0 + step * (k + 0.5) for k in range(len(panel.places))]
    for x, place in zip(middles, panel.places, strict=True):
        marks.append(Label(x, y1 + 18, place, anchor="middle", colour=_MUTED))
    if panel.axis:
        marks.append(Label((x0 + x1) / 2, y1 + 35, panel.axis, anchor="middle", colour=_MUTED))
    bars = any(bounds for line in panel.lines for _, bounds in line.points)
    spread = min(7.0, step * 0.6 / max(1, len(panel.lines))) if bars else 0.0
    for number, line in enumerate(panel.lines):
        shift = spread * (number - (len(panel.lines) - 1) / 2)  # intervals of several lines stand side by side
        at = [(x + shift, axis(value)) for x, (value, _) in zip(middles, line.points, strict=True)]
        colour = _colour(number)
        for (x, _), (_, bounds) in zip(at, line.points, strict=True):
            if bounds is not None:
                marks.append(Shape([(x, axis(bounds[0])), (x, axis(bounds[1]))], colour, 1.2))
        seen = [point for point in at if math.isfinite(point[1])]
        marks.append(Shape(seen, colour, 2.0))
        marks += [_marker(x, y, number) for x, y in seen]
    return marks


def _arrange(panels: Sequence[Panel], title: str, footer: str, columns: int) -> tuple[int, int, list[Mark]]:
    """Return the picture's width and height, and everything in it."""
    columns = min(columns, len(panels))
    width = columns * _WIDTH + 20
    labels = [line.label for line in panels[0].lines]
    marks: list[Mark] = [Label(16, 28, title, 18, bold=True)]
    x, y = 22.0, float(_HEAD + 14)
    for number, label in enumerate(labels):
        room = 34 + text_width(label, 13)
        if x > 22 and x + room > width:
            x, y = 22.0, y + _LEGEND
        marks += [_marker(x, y - 4, number), Label(x + 10, y, label, 13)]
        x += room
    top = y + 12
    for number, panel in enumerate(panels):
        marks += _frame(panel, (number % columns) * _WIDTH + 10, top + (number // columns) * _HEIGHT)
    height = top + math.ceil(len(panels) / columns) * _HEIGHT
    for line in textwrap.wrap(footer, max(20, int((width - 32) / 6.4))):
        marks.append(Label(16, height + 14, line, 12, colour=_MUTED))
        height += 18
    return width, math.ceil(height + _FOOT - 12), marks


def draw_svg(panels: Sequence[Panel], title: str, footer: str, columns: int = 2) -> str:
    """Draw frames under a title and a legend.

    Args:
        panels: at least one; all with the same lines.
        title: of the whole.
        footer: a sentence or two below.
        columns: frames in a row.

    Returns:
        An SVG document on white.
    """
    width, height, marks = _arrange(panels, title, footer, columns)
    parts = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, Helvetica, Arial, sans-serif" role="img" aria-label="{escape(title)}">',
        f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
    ]
    for mark in marks:
        if isinstance(mark, Label):
            weight = ' font-weight="700"' if mark.bold else ""
            parts.append(
                f'<text x="{mark.x:.1f}" y="{mark.y:.1f}" font-size="{mark.size}" text-anchor="{mark.anchor}" '
                f'fill="{mark.colour}"{weight}>{escape(mark.text)}</text>'
            )
            continue
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
        if mark.filled:
            parts.append(f'<polygon points="{points}" fill="{mark.colour}"/>')
        else:
            line = f'fill="none" stroke="{mark.colour}" stroke-width="{mark.width}" stroke-linejoin="round"'
            parts.append(f'<polyline points="{points}" {line}/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def draw_png(panels: Sequence[Panel], title: str, footer: str, columns: int = 2) -> bytes:
    """Draw what :func:`draw_svg` draws, as a PNG of twice its size."""
    from PIL import Image, ImageDraw, ImageFont

    width, height, marks = _arrange(panels, title, footer, columns)
    fine = 2 * _SCALE
    large = Image.new("RGB", (width * fine, height * fine), _PAPER)
    draw = ImageDraw.Draw(large)
    for mark in marks:
        if isinstance(mark, Label):
            continue
        points = [(x * fine, y * fine) for x, y in mark.points]
        if mark.filled:
            draw.polygon(points, fill=mark.colour)
        elif len(points) > 1:
            draw.line(points, fill=mark.colour, width=max(1, round(mark.width * fine)), joint="curve")
    picture = large.resize((width * _SCALE, height * _SCALE), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for mark in marks:
        if isinstance(mark, Label):
            font = ImageFont.load_default(size=mark.size * _SCALE)
            place = (mark.x * _SCALE, mark.y * _SCALE)
            draw.text(place, mark.text, mark.colour, font, anchors[mark.anchor])  # the font has one weight
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
