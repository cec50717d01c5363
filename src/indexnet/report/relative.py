"""Relative improvement over one row of a table: metric by metric, and of the worst metric."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from indexnet.core.statistics import paired_means
from indexnet.report.fields import Field
from indexnet.report.numbers import NumberText, signed
from indexnet.report.table import Table, TableRow
from indexnet.run.experiments.experiment import Column

KINDS = ("printed", "measured")


def columns_of(table: Table) -> list[Column]:
    """Return the columns that improve: all but those of speed."""
    return [column for column in table.columns if not column.is_speed]


def improvement(table: Table, row: TableRow, column: Column, kind: str) -> float | None:
    """Return by how much a row is better than the reference in one metric, as a share of the reference's number.

    (reference - row) / reference where less is better, (row - reference) / reference where more is. Measured numbers
    are means over the seeds that both rows have. A cited reference has no measured number; its printed one stands in
    where printed and measured numbers are comparable.

    Args:
        table: with the reference in it, ``relative_to`` of the experiment.
        row: another row.
        column: a metric.
        kind: ``printed`` or ``measured``: which numbers are compared.

    Returns:
        0.161 for 16.1 % better, negative for worse; None for the reference itself, and where a number is missing or
        the reference's is not positive.
    """
    reference = _reference(table, row)
    if reference is None or row.base == reference.base:
        return None
    own, other = row.measured[column.metric], reference.measured[column.metric]
    if kind == "printed":
        value, base = own.target, other.target
    elif (means := paired_means(own.values, other.values)) is not None:
        value, base = means
    else:
        value, base = own.mean, other.target if reference.cited and table.comparable else None
    if value is None or base is None or base <= 0:
        return None
    return (value - base if column.higher_is_better else base - value) / base


def worst(table: Table, row: TableRow, kind: str) -> float | None:
    """Return the smallest improvement over all metrics of the table: "at least so much better".

    Arguments as for :func:`improvement`; None where any metric has none.
    """
    found = [improvement(table, row, column, kind) for column in columns_of(table)]
    known = [value for value in found if value is not None]
    return min(known) if known and len(known) == len(found) else None


def _reference(table: Table, row: TableRow) -> TableRow | None:
    """Return the row that all are compared with: that of the row's own block."""
    name = table.experiment.relative_to
    found = [other for other in table.rows if other.base == name and other.block == row.block]
    return found[0] if found and name is not None else None


def fields(table: Table, column: Column | None) -> list[Field]:
    """Return the columns of text, in per cent, of one metric or with None of the worst: as printed, as measured.

    A kind for which no row has a number is left out.
    """

    def text(row: TableRow, kind: str) -> str:
        value = worst(table, row, kind) if column is None else improvement(table, row, column, kind)
        return "" if value is None else NumberText(signed(100 * value, 1), value)

    found = [Field(kind, partial(text, kind=kind)) for kind in KINDS]
    return [field for field in found if any(map(field.text, table.rows))]


def heading(table: Table) -> str:
    """Return what the improvements are over: ``Improvement over Deep Matting (%)``."""
    return f"Improvement over {compared_with(table)} (%)"


def compared_with(table: Table) -> str | None:
    """Return the label of the row that all are compared with, its name where the table does not show it."""
    name = table.experiment.relative_to
    return next((row.short for row in table.rows if row.base == name), name)


def groups(table: Table) -> list[tuple[str, list[Field]]]:
    """Return titles and columns: the worst metric, then each; empty where the table has no such row or no numbers."""
    if table.experiment.relative_to is None:
        return []
    titles = [column.title.partition(" (")[0] for column in columns_of(table)]  # a share has no unit
    named: list[tuple[str, Column | None]] = [("worst metric", None), *zip(titles, columns_of(table), strict=True)]
    found = [(title, fields(table, column)) for title, column in named]
    return [(title, each) for title, each in found if each]


def grid(table: Table, rows: Sequence[TableRow]) -> tuple[list[str], list[list[str]]]:
    """Return heads and cells for formats with one line of heads.

    A row has a line for its printed numbers, and one for its measured ones; none where it has none.
    """
    found = groups(table)
    lines = []
    for row in rows:
        for kind in KINDS:
            cells = [next((field.text(row) for field in each if field.kind == kind), "") for _, each in found]
            named = "published" if kind == "printed" else kind
            lines += [[str(row.number), row.short, named, *cells]] if any(cells) else []
    return ["#", "Row", "", *(title for title, _ in found)], lines
