"""The tables of ``indexnet evaluate``: metrics with bootstrap intervals, one or several methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from indexnet.core.console import print_table
from indexnet.core.escape import markdown, markdown_cell, markdown_table
from indexnet.core.statistics import FEWEST, INTERVAL, LEVEL, interval
from indexnet.inference.evaluation import Scores, bootstrap, group_count
from indexnet.metrics import MetricInfo

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """One metric of one method.

    Attributes:
        value: the metric over the images.
        bounds: its bootstrap interval over groups of images, None where there are too few.
        difference: from the first method, over the same images; None for the first.
        difference_bounds: the paired bootstrap interval of the difference.
    """

    value: float
    bounds: Bounds | None
    difference: float | None = None
    difference_bounds: Bounds | None = None

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference excludes zero."""
        return self.difference_bounds is not None and not self.difference_bounds[0] <= 0 <= self.difference_bounds[1]


@dataclass(frozen=True)
class Line:
    """One method of a table.

    Attributes:
        caption: its name.
        source: its checkpoint, or the paper of a classical method.
        cells: by metric.
    """

    caption: str
    source: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Comparison:
    """Several methods on the same images.

    Attributes:
        lines: a method each, in the order given.
        images: how many images all of them measured.
        groups: how many groups those belong to.
        infos: the metrics' facts, as they were measured.
    """

    lines: Sequence[Line]
    images: int
    groups: int
    infos: Mapping[str, MetricInfo]

    @property
    def keys(self) -> list[str]:
        """Metrics that every method has."""
        return [key for key in self.lines[0].cells if all(key in line.cells for line in self.lines)]


def compare_scores(methods: Sequence[tuple[str, str, Scores]]) -> Comparison:
    """Put methods side by side over the images that all of them measured.

    Args:
        methods: (caption, source, scores), at least one; with at least one image in common.
    """
    common = set.intersection(*(scores.names for _, _, scores in methods))
    first = methods[0][2]
    reference = {key: bootstrap(first, key, common) for key in first.results}
    values = first.over(common)
    lines = []
    for number, (caption, source, scores) in enumerate(methods):
        cells = {}
        for key, value in scores.over(common).items():
            replicates = bootstrap(scores, key, common)
            if number == 0 or key not in values:
                cells[key] = Cell(value, interval(replicates))
                continue
            base = reference[key]
            paired = None if replicates is None or base is None else replicates - base
            cells[key] = Cell(value, interval(replicates), value - values[key], interval(paired))
        lines.append(Line(caption, source, cells))
    infos = {key: metric.info for key, metric in first.metrics.items()}
    return Comparison(lines, len(common), group_count(first, common), infos)


def interval_note(images: int, groups: int) -> str:
    """Say what the intervals are, or that there are too few images for any."""
    what = _count(images, "image") if groups == images else f"{_count(groups, 'group')} of {images} images"
    if groups < FEWEST:
        return f"{what} {'is' if groups == 1 else 'are'} too few for {100 * LEVEL:.0f} % intervals"
    return f"{100 * LEVEL:.0f} % bootstrap intervals over {what}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _remark(comparison: Comparison, star: str) -> str:
    """Say what a cell of several methods holds; ``star`` is the mark as the format writes it."""
    remark = interval_note(comparison.images, comparison.groups)
    if len(comparison.lines) > 1:
        remark += "; signed: difference from the first method"
        remark += f", {star} where its paired interval excludes zero" if comparison.groups >= FEWEST else ""
    return remark


def heading(key: str, info: MetricInfo) -> str:
    """Write a metric's name, with its split's where it has one, and its unit."""
    return f"{key.rpartition('/')[0]} {info.heading}".strip()


def arrow(info: MetricInfo) -> str:
    """Return the arrow that says which way is better."""
    return "↑" if info.higher_is_better else "↓"


def format_number(value: float) -> str:
    """Write a number with four digits."""
    return f"{value:.4g}"


def format_bounds(bounds: Bounds | None, sign: bool = False) -> str:
    """Write an interval; "" where there is none."""
    if bounds is None:
        return ""
    return f"[{bounds[0]:+.4g}, {bounds[1]:+.4g}]" if sign else f"[{bounds[0]:.4g}, {bounds[1]:.4g}]"


def best_of(comparison: Comparison, key: str) -> float:
    """Return the best value of a metric; NaN where nothing is known."""
    values = [line.cells[key].value for line in comparison.lines if math.isfinite(line.cells[key].value)]
    return (max if comparison.infos[key].higher_is_better else min)(values, default=math.nan)


def print_single(title: str, scores: Scores) -> None:
    """Print one method's metrics: a line each, with the interval, the range over images and the worst one."""
    table = Table(title=escape(title), title_justify="left")
    groups = group_count(scores)
    bounded = groups >= FEWEST
    for head in ("metric", "result", *[INTERVAL] * bounded, "lowest", "highest", "worst image"):
        right = head in ("result", INTERVAL, "lowest", "highest")
        table.add_column(head, justify="right" if right else "left", no_wrap=head != "worst image")
    for key, result in scores.results.items():
        info = scores.metrics[key].info
        measured = [row for row in scores.rows if math.isfinite(row.get(key, math.nan))]
        if not measured:
            continue
        worst = (min if info.higher_is_better else max)(measured, key=lambda row: row[key])
        values = [row[key] for row in measured]
        bounds = [escape(format_bounds(interval(bootstrap(scores, key))))] * bounded
        cells = [format_number(result), *bounds, format_number(min(values)), format_number(max(values))]
        table.add_row(f"{escape(heading(key, info))} {arrow(info)}", *cells, escape(str(worst["name"])))
    print_table(table, interval_note(len(scores.rows), groups))


def _cell_texts(comparison: Comparison, line: Line, key: str, star: str) -> tuple[list[str], list[str]]:
    """Write a cell: value and interval; difference and interval, empty for the first method."""
    cell = line.cells[key]
    texts = [format_number(cell.value), format_bounds(cell.bounds)]
    if cell.difference is None:
        return texts, []
    mark = f" {star}" if cell.differs else ""
    return texts, [f"{cell.difference:+.4g}{mark}", format_bounds(cell.difference_bounds, sign=True)]


def print_comparison(title: str, comparison: Comparison) -> None:
    """Print several methods: a line each; in a cell the value, its interval, and the difference from the first."""
    table = Table(title=escape(title), title_justify="left", show_lines=True)
    table.add_column("method", overflow="fold")
    for key in comparison.keys:
        info = comparison.infos[key]
        table.add_column(f"{escape(heading(key, info))} {arrow(info)}", justify="right", overflow="fold")
    for line in comparison.lines:
        cells = []
        for key in comparison.keys:
            (value, *bounds), difference = _cell_texts(comparison, line, key, "*")
            value = f"[bold]{value}[/]" if line.cells[key].value == best_of(comparison, key) else value
            cells.append("\n".join([value, *(escape(text) for text in (*bounds, *difference) if text)]))
        table.add_row(escape(line.caption), *cells)
    print_table(table, _remark(comparison, "*"))


def table_rows(comparison: Comparison, conditions: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return a row per method for CSV: of a metric its value, interval, difference and the difference's interval.

    Args:
        comparison: of methods; or of every method under every condition, condition by condition.
        conditions: what columns of their own say of these; there are no differences then.
    """
    rows = []
    for place, line in enumerate(comparison.lines):
        row: dict[str, Any] = {"method": line.caption, "source": line.source}
        row |= conditions[place % len(conditions)] if conditions else {}
        row |= {"images": comparison.images, "groups": comparison.groups}
        for key in comparison.keys:
            cell = line.cells[key]
            row |= {key: cell.value, **_bounds_columns(key, cell.bounds)}
            if not conditions:
                row[f"{key}_difference"] = cell.difference
                row |= _bounds_columns(f"{key}_difference", cell.difference_bounds)
        rows.append(row)
    return rows


def _bounds_columns(key: str, bounds: Bounds | None) -> dict[str, float | None]:
    """Return the columns of an interval, without numbers where there is none."""
    low, high = bounds or (None, None)
    return {f"{key}_low": low, f"{key}_high": high}


def table_markdown(title: str, comparison: Comparison) -> str:
    """Write the table for a text or an issue, best values bold, sources below."""
    keys = comparison.keys
    heads = [f"{heading(key, comparison.infos[key])} {arrow(comparison.infos[key])}" for key in keys]
    rows = []
    for line in comparison.lines:
        cells = []
        for key in keys:
            (value, *bounds), difference = _cell_texts(comparison, line, key, r"\*")
            value = f"**{value}**" if line.cells[key].value == best_of(comparison, key) else value
            parts = [" ".join(filter(None, texts)) for texts in ([value, *bounds], difference)]
            cells.append("<br>".join(filter(None, parts)))
        rows.append([markdown_cell(line.caption), *cells])
    remark = _remark(comparison, r"\*")
    lines = [f"# {markdown(title)}", "", markdown_table(["method", *heads], rows, len(heads) + 1), ""]
    lines += [f"{remark[0].upper()}{remark[1:]}.", ""]
    lines += [f"* {markdown(line.caption)}: {markdown(line.source)}" for line in comparison.lines]
    return "\n".join(lines) + "\n"


def finite_or_none(value: float | None) -> float | None:
    """Return a number that JSON knows."""
    return value if value is not None and math.isfinite(value) else None


def cells_json(line: Line) -> dict[str, Any]:
    """Return a method's metrics, intervals and differences as plain data."""
    found: dict[str, Any] = {
        "metrics": {key: finite_or_none(cell.value) for key, cell in line.cells.items()},
        "intervals": {key: cell.bounds for key, cell in line.cells.items()},
    }
    if any(cell.difference is not None for cell in line.cells.values()):
        found["differences"] = {
            key: {"value": finite_or_none(cell.difference), "interval": cell.difference_bounds}
            for key, cell in line.cells.items()
        }
    return found
