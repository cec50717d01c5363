"""Tables of what was measured, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from indexnet.benchmarks.base import MEMORY, TIME, Figure
from indexnet.inference.latency import Measurement

OPERATOR_HEADS = (
    "operator", "forward\nms", "backward\nms", "ratio", "saved\nMB", "ratio", "peak\nMB", "ratio", "params",
)  # fmt: skip


def figure_table(figures: Sequence[Figure], title: str) -> Table:
    """Lay figures out, time and memory of a form side by side; a ratio above its target is marked."""
    shown = _table(title, case=13, form=13, against=10)
    for heading in ("ms", "ratio", "MB", "ratio"):
        shown.add_column(heading, justify="right", no_wrap=True)
    lines: dict[tuple[str, str, str], dict[str, Figure]] = {}
    for figure in figures:
        lines.setdefault((figure.case, figure.form, figure.reference), {})[figure.quantity] = figure
    last = ""
    for (case, form, reference), found in lines.items():
        cells: list[Text] = []
        for quantity, unit in ((TIME, 1e-3), (MEMORY, 1e6)):
            each = found.get(quantity)
            cells += [Text(""), Text("")] if each is None else [Text(f"{each.value / unit:.1f}"), _ratio(each)]
        shown.add_row(Text(case if case != last else ""), Text(form), Text(reference), *cells)
        last = case
    if any(figure.target is not None and figure.ratio > figure.target for figure in figures):
        shown.caption, shown.caption_justify = "* more than is aimed at; --json FILE has the targets", "left"
    return shown


def _ratio(figure: Figure) -> Text:
    text = f"{figure.ratio:.{2 if figure.ratio >= 0.1 else 3}f}"
    if figure.target is None or figure.ratio <= figure.target:
        return Text(text)
    return Text(f"{text}*", style="yellow")


def operator_table(rows: Sequence[Sequence[str]], title: str) -> Table:
    """Lay the cells of operators out, which :data:`OPERATOR_HEADS` stand above."""
    shown = _table(title, **{OPERATOR_HEADS[0]: 8})
    for heading in OPERATOR_HEADS[1:]:
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, *cells in rows:
        shown.add_row(Text(name), *cells)
    return shown


def latency_table(lines: Sequence[Measurement], title: str) -> Table:
    """Lay the measurements of networks out."""
    shown = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    shown.add_column("network", overflow="fold", min_width=8)
    for heading in ("size", "ms", "fastest to\nslowest", "ms per\nmegapixel", "peak\nmemory, MB"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        name, size = Text(line.network), f"{line.width}x{line.height}"
        if line.median_s is None or line.fastest_s is None or line.slowest_s is None:
            shown.add_row(name, size, Text("does not fit", style="yellow"), "", "", "")
            continue
        shown.add_row(
            name,
            size,
            f"{1e3 * line.median_s:.1f}",
            f"{1e3 * line.fastest_s:.1f} to {1e3 * line.slowest_s:.1f}",
            f"{1e3 * line.median_s / line.megapixels:.0f}",
            "" if line.memory_bytes is None else f"{line.memory_bytes / 1e6:.0f}",
        )
    return shown


def _table(title: str, **widths: int) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))  # 80 characters wide
    shown.title, shown.title_justify, shown.title_style = title, "left", "bold"
    for name, width in widths.items():
        shown.add_column(name, overflow="fold", min_width=width)
    return shown
