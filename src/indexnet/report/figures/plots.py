"""A dot plot of quality, and quality against cost."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from indexnet.report.figures.axes import (
    Series,
    cost_text,
    fit_axis,
    group,
    horizontal,
    line,
    marker,
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
from indexnet.report.numbers import fixed, spread

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""


def dot_plot(
    series: Sequence[Series], title: str, digits: int, baseline: Series | None = None, *, narrow: bool = False
) -> str:
    """Draw one line per row: every seed a ring, the mean a disc, one standard deviation to each side a bar.

    Every line is named, so colour marks nothing but the best.

    Args:
        series: rows from top to bottom; at least one.
        title: the metric with its unit, and which way is better.
        digits: decimals of the written means.
        baseline: one of the rows, whose mean is drawn through all lines.
        narrow: labels stand above their line instead of left of it (phones).
    """
    width, pitch = (340, 46) if narrow else (980, 28)
    said = [spread(s.mean, s.sd, digits) for s in series]
    left = 14 if narrow else min(320, 44 + max(text_width(s.label, 14) for s in series))
    right = width - (14 if narrow else 18 + max(text_width(each, 14) for each in said))
    top = 8 if baseline is None else 24
    bottom = top + pitch * len(series)
    reach = [v for s in series for v in (*s.values, s.mean - (s.sd or 0), s.mean + (s.sd or 0))]
    axis = fit_axis(reach, left, right, margin=0.05)
    ticks = axis.ticks(4 if narrow else 7)
    body = horizontal(axis, ticks, [tick_text(t, ticks) for t in ticks], (left, right, top, bottom))
    body.append(text((left + right) / 2, bottom + 37, shorten(title, right - left, 12.5), "axis", "middle"))
    if baseline is not None:
        x, name = axis(baseline.mean), shorten(f"baseline: {baseline.label}", right - left, 12)
        half = text_width(name) / 2
        body.append(line(x, top - 6, x, bottom, "baseline"))
        body.append(text(min(max(x, left + half), right - half), top - 11, name, "tick", "middle"))
    numbers = [f"{s.number}  " if narrow else "" for s in series]
    rooms = [
        right - left - text_width(number + each, 14) - 8 if narrow else left - 42
        for number, each in zip(numbers, said, strict=True)
    ]
    names = shorten_apart([s.label for s in series], rooms, 14)
    for index, (s, written, name) in enumerate(zip(series, said, names, strict=True)):
        y = top + pitch * index + (32 if narrow else pitch / 2)
        css = "label strong" if s.best else "label"
        marks = [f"<title>{escape(f'{s.label}: {written}')}</title>", line(left, y, right, y, "rail")]
        if s.sd is not None:
            marks.append(line(axis(s.mean - s.sd), y, axis(s.mean + s.sd), y, "sd"))
        marks += [f'<circle class="ring" cx="{axis(v):.1f}" cy="{y:.1f}" r="4"/>' for v in s.values]
        marks.append(f'<circle class="disc" cx="{axis(s.mean):.1f}" cy="{y:.1f}" r="{6 if s.best else 5}"/>')
        if narrow:
            marks.append(text(left, y - 13, numbers[index] + name, css))
            marks.append(text(right, y - 13, written, css + " number", "end"))
        else:
            marks.append(text(26, y + 4.5, str(s.number), "tick", "end"))
            marks.append(text(34, y + 4.5, name, css))
            marks.append(text(width - 4, y + 4.5, written, css + " number", "end"))
        body.append(f'<g class="{"winner" if s.best else "plain"}">{"".join(marks)}</g>')
    means = "; ".join(f"{s.label} {each}" for s, each in zip(series, said, strict=True))
    return svg(width, bottom + 46, f"{title}. {means}", body, "narrow" if narrow else "wide")


def scatter(
    points: Sequence[tuple[Series, float]],
    x_title: str,
    y_title: str,
    digits: int,
    front: Sequence[tuple[float, float]] = (),
    first: Sequence[int] = (),
    *,
    narrow: bool = False,
) -> str:
    """Draw quality against cost: a numbered mark per row, one standard deviation as a bar, names where they fit.

    Args:
        points: (row, cost), cost > 0; at least one. Costs that span more than a factor of 8 get a logarithmic axis.
        x_title: the cost with its unit.
        y_title: the metric with its unit.
        digits: decimals of the written means.
        front: (cost, mean) of the rows to join by a line, cheapest first.
        first: numbers of rows that are named before others, besides the best and those of the front.
        narrow: a smaller frame without names (phones).
    """
    width, height = (340, 310) if narrow else (560, 400)
    costs = [cost for _, cost in points]
    log = max(costs) / min(costs) > 8
    reach = [v for s, _ in points for v in (s.mean - (s.sd or 0), s.mean + (s.sd or 0))]
    top, bottom = 34, height - 54
    y_axis = fit_axis(reach, bottom, top, margin=0.1)
    ticks = y_axis.ticks(5)
    texts = [tick_text(t, ticks) for t in ticks]
    left, right = max(36, room_for(texts)), width - 16
    x_axis = fit_axis(costs, left, right, log=log, margin=0.1)
    x_ticks = x_axis.ticks(4)
    frame = (left, right, top, bottom)
    body = vertical(y_axis, ticks, texts, frame)
    body += horizontal(x_axis, x_ticks, [round_text(t) for t in x_ticks], frame)
    body.append(text(4, 16, shorten(y_title, width - 8, 12.5), "axis"))
    x_text = x_title + (" (logarithmic)" if log else "")
    body.append(text((left + right) / 2, height - 14, shorten(x_text, right - left, 12.5), "axis", "middle"))
    if len(front) > 1:
        places = " ".join(f"{x_axis(cost):.1f},{y_axis(mean):.1f}" for cost, mean in front)
        body.append(f'<polyline class="front" points="{places}"/>')
    size = 9 if len(points) <= 12 else 8
    placed = [(x_axis(c) - 10, y_axis(s.mean) - 10, x_axis(c) + 10, y_axis(s.mean) + 10) for s, c in points]

    def important(point: tuple[Series, float]) -> int:
        s, cost = point
        return 2 * s.best + ((cost, s.mean) in front or s.number in first)

    names: list[str] = []
    for s, cost in sorted(points, key=important, reverse=not narrow):
        x, y = x_axis(cost), y_axis(s.mean)
        what = f"{s.label}: {spread(s.mean, s.sd, digits)} at {cost_text(cost)}"
        marks = [f"<title>{escape(what)}</title>"]
        if s.sd is not None:
            marks.append(line(x, y_axis(s.mean - s.sd), x, y_axis(s.mean + s.sd), "sd thin"))
        marks += [marker(s, x, y, size), text(x, y + 3.8, str(s.number), "inside", "middle")]
        wide = text_width(s.label, 12.5 if s.best else 11.5)  # bold is wider
        box = None if narrow else _place(x, y, wide, placed, (left, top, right, bottom))
        if box:
            placed.append(box)
            marks.append(text(box[0], box[3] - 3, s.label, "label small strong" if s.best else "label small"))
        names.append(group(s, marks))
    body += reversed(names)  # the most important on top
    said = "; ".join(f"{s.label}: {cost_text(c)}, {fixed(s.mean, digits)}" for s, c in points)
    label = f"{y_title} against {x_title}. {said}"
    return svg(width, height, label, body, "narrow" if narrow else "wide")


def _place(x: float, y: float, width: float, placed: Sequence[Box], frame: Box) -> Box | None:
    """Find room for a label beside a mark: right, left, above, below, aslant; None where all are taken."""
    spots = ((x + 13, y - 7), (x - 13 - width, y - 7), (x - width / 2, y - 25), (x - width / 2, y + 12))
    aslant = ((x + 10, y - 20), (x + 10, y + 8), (x - 10 - width, y - 20), (x - 10 - width, y + 8))
    for a, b in (*spots, *aslant):
        c, d = a + width, b + 13.0
        inside = a >= frame[0] and b >= frame[1] and c <= frame[2] and d <= frame[3]
        if inside and not any(a < o[2] and o[0] < c and b < o[3] and o[1] < d for o in placed):
            return a, b, c, d
    return None
