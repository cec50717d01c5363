"""A report in the terminal: as many columns as fit, the other metrics in tables below, rows without runs left out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from indexnet.report import relative, remarks
from indexnet.report.fields import grid
from indexnet.report.table import Table
from indexnet.run.experiments.experiment import Column

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

_SIGNS = ("★", "≈")
_NAME = 16  # characters that a row's name keeps in a narrow terminal
_GAP = 2  # between columns
_HARD = "\N{NO-BREAK SPACE}"

_LEAST: dict[str, Any] = {"deltas": False, "best_seeds": False, "spreads": False, "printed_costs": False, "costs": ()}
_LEVELS: tuple[dict[str, Any], ...] = (
    {},
    {"costs": ("parameters", "paper_gflops", "train_samples_per_s")},
    {"deltas": False, "costs": ("parameters", "paper_gflops", "train_samples_per_s")},
    {"deltas": False, "costs": ("parameters",)},
    {"deltas": False, "printed_costs": False, "costs": ("parameters",)},
    {"deltas": False, "printed_costs": False, "costs": ()},
    {**_LEAST, "best_seeds": True, "costs": ("parameters",)},
    {**_LEAST, "best_seeds": True},
    {**_LEAST, "costs": ("parameters",)},
    _LEAST,
)
"""Options of :func:`indexnet.report.fields.grid`, most telling first."""


def show(table: Table, console: Console) -> None:
    """Print the table with what it means and what is missing."""

    def say(text: str, style: str = "dim") -> None:
        if text:
            console.print(text, style=style, markup=False)

    console.print()
    say(table.experiment.title, "bold")
    if table.runs:
        said = f"Measured here: {table.runs.data} at budget {table.runs.budget}, "
        said += f"{table.done} of {table.expected} runs finished"
        say(said + (f"; also there: {', '.join(table.others)} (--data)" if table.others else ""))
    say(remarks.banner(table), "yellow")
    tables, columns = layout(table, console.width)
    for each in tables:
        console.print(each)
    if improved := _improvements(table):
        say(relative.heading(table), "bold")
        console.print(improved)
    if table.folded:
        say(f"Left out here: {remarks.folded(table)}; the files of the report have them.")
    for text in (
        *remarks.legend(table, columns=columns),
        *table.warnings,
        remarks.comparison(table),
        remarks.agreement(table),
        remarks.relative(table),
        remarks.expected(table),
        remarks.speed(table),
        *remarks.pending(table),
        *remarks.cited(table),
        *remarks.missing(table),
    ):
        say(text)
    for label, seeds, status, reason in remarks.problems(table):
        if status != "missing":
            say(f"{label}, seed{'s' if ',' in seeds else ''} {seeds}: {status}, {reason}", "red")
    say(f"\n{remarks.headline(table)}", "")


def _improvements(table: Table) -> RichTable | None:
    """Build the table of improvements over one row; None where there are none."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    head, lines = relative.grid(table, table.shown)
    if not lines:
        return None
    shown = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(head):
        shown.add_column(escape(name), justify="left" if index in (1, 2) else "right", overflow="fold")
    for line in lines:
        shown.add_row(*map(escape, line))
    return shown


def layout(table: Table, width: int) -> tuple[list[RichTable], list[str]]:
    """Build the tables for a terminal of ``width`` characters.

    Returns:
        (one table where all metrics fit into it, else one for the main metric and further ones for the others;
        which columns of :func:`indexnet.report.remarks.legend` they have).
    """
    measured = table.measured_columns  # a metric that no finished run has is named below, unless none has any
    groups: list[Sequence[Column]] = [measured or table.columns]
    levels = [_fitting(table, groups[0], _LEVELS, width)]
    if levels == [None]:
        groups = list(_groups(table, measured or table.columns[:1], width))
        levels = [_fitting(table, groups[0], _LEVELS, width)]  # tables after the first repeat no costs
        levels += [_fitting(table, group, ({**_LEAST, "spreads": True},), width) for group in groups[1:]]
    chosen = [_LEAST if level is None else level for level in levels]
    tables = [_build(table, group, level) for group, level in zip(groups, chosen, strict=True)]
    return tables, [name for name in ("best_seeds", "deltas") if chosen[0].get(name, True)]


def _groups(table: Table, columns: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """Pack columns into as few tables as hold them, in their order, the first one alone."""
    yield [columns[0]]
    group: list[Column] = []
    for column in columns[1:]:
        if group and _width(table, [*group, column], {**_LEAST, "spreads": True}) > width:
            yield group
            group = []
        group.append(column)
    if group:
        yield group


def _fitting(
    table: Table, columns: Sequence[Column], levels: Sequence[dict[str, Any]], width: int
) -> dict[str, Any] | None:
    """Return the most telling options that fit, None where none do."""
    return next((level for level in levels if _width(table, columns, level) <= width), None)


def _width(table: Table, columns: Sequence[Column], options: dict[str, Any]) -> int:
    widths = _cells(table, columns, options)[2]
    return sum(widths) - widths[1] + min(widths[1], _NAME) + _GAP * len(widths)


def _build(table: Table, columns: Sequence[Column], options: dict[str, Any]) -> RichTable:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    head, cells, widths = _cells(table, columns, options)
    shown = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(head):
        if index == 1:
            shown.add_column(name, min_width=min(widths[1], _NAME), overflow="fold")
        else:
            shown.add_column(escape(name), justify="right", no_wrap=True, min_width=widths[index])
    lines = iter(cells)
    for block, rows in table.by_block(table.shown):
        if block.label:
            shown.add_section()
            shown.add_row("", f"[bold]{escape(block.label)}[/]")
        for row in rows:
            line = (f"[bold green]{escape(c)}[/]" if c.endswith("★") else escape(c) for c in next(lines))
            shown.add_row(*line, style="dim" if row.runs_never else None)
    return shown


def _cells(
    table: Table, columns: Sequence[Column], options: dict[str, Any]
) -> tuple[list[str], list[list[str]], list[int]]:
    """Return heads, cells and the widths of their columns."""
    head, lines = grid(table, table.shown, columns, here="here", **options)
    for line in lines:
        line[-1] = line[-1].split(" seed")[0].replace(" of ", "/")  # what failed is listed below the table
    for index in range(2, len(head) - 1):  # a place for the sign in every line keeps decimals below each other
        if any(line[index].endswith(_SIGNS) for line in lines):
            for line in lines:
                line[index] += "" if line[index].endswith(_SIGNS) or not line[index] else "  "
    bodies = [max((len(line[index]) for line in lines), default=0) for index in range(len(head))]
    head = [name if index < 2 else _narrowed(name, bodies[index]) for index, name in enumerate(head)]
    widths = [max(body, *map(len, name.split("\n"))) for body, name in zip(bodies, head, strict=True)]
    return head, lines, widths


def _narrowed(name: str, width: int) -> str:
    """Break a head into lines no wider than its column's cells, where its words allow that."""
    hard = name.replace(" ↑", f"{_HARD}↑").replace(" ↓", f"{_HARD}↓")
    width = max(width, *(len(word) for word in hard.replace("\n", " ").split(" ")))
    lines = [part for line in hard.split("\n") for part in textwrap.wrap(line, width, break_on_hyphens=False)]
    return "\n".join(lines).replace(_HARD, " ")
