"""The columns of a table and their cells as text, for all formats: these choose columns, and add heads and marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from indexnet.report.numbers import count, fixed, flops, signed, significant, spread
from indexnet.report.table import COSTS, Cost, Measurement, Table, TableRow
from indexnet.run.experiments.experiment import Column

LINE_COSTS = tuple(cost.key for cost in COSTS if cost.line)
"""Record keys of the costs that a grid can show."""


class Field(NamedTuple):
    """A column of text.

    Attributes:
        kind: ``printed | expected | measured | best seed | difference`` of a metric, ``printed | counted`` of a cost.
        text: writes the cell of a row, "" where there is nothing.
        column: the metric; None for a cost.
    """

    kind: str
    text: Callable[[TableRow], str]
    column: Column | None = None


def title(column: Column) -> str:
    """Return a column's heading with which way is better."""
    return f"{column.title} {'↑' if column.higher_is_better else '↓'}"


def printed_head(table: Table) -> str:
    """Return the head of a column of printed numbers; it names their test split where another stands beside it."""
    return f"printed, {table.stand_in}" if table.stand_in else "printed"


def metric_fields(table: Table, column: Column, *, sd: bool = True) -> list[Field]:
    """Return what stands under a metric, with or without standard deviations."""

    def text(row: TableRow, kind: str) -> str:
        m, digits = row.measured[column.metric], column.digits
        if kind == "measured":  # with ★ for the best or ≈ for what equals it
            return f"{spread(m.mean, m.sd if sd else None, digits)} {m.sign}".rstrip()
        if kind == "best seed":
            return best_seed(m, digits)
        if kind == "expected":
            return expected(m)
        return m.printed if kind == "printed" else signed(m.difference, digits)

    return [Field(kind, partial(text, kind=kind), column) for kind in table.kinds(column)]


def expected(m: Measurement) -> str:
    """Write the bound, and whether the mean keeps to it where that can be told: ``< 24.00, pass``."""
    verdict = {True: ", pass", False: ", fail", None: ""}[m.passes]
    return f"{'>' if m.higher_is_better else '<'} {m.expected}{verdict}" if m.expected else ""


def best_seed(m: Measurement, digits: int) -> str:
    """Write the best seed's value and, in brackets, the seed; "" without a finished run."""
    return "" if m.best_seed is None else f"{fixed(m.values[m.best_seed], digits)} ({m.best_seed})"


def cost_fields(table: Table, cost: Cost) -> list[Field]:
    """Return what stands under a cost: what is printed, where any row prints it, and what was counted."""
    printed = Field("printed", lambda row: row.printed.get(cost.printed, ""))
    counted = Field("counted", lambda row: cost_text(table, row, cost.key))
    return [printed, counted] if table.prints_cost(cost) else [counted]


def cost_text(table: Table, row: TableRow, key: str) -> str:
    """Write one cost of a row, short; parameters with the difference to the reference row where the paper prints that.

    Args:
        table: with all rows.
        row: one of them.
        key: of the records.
    """
    value = row.cost(key)
    if value is None:
        return ""
    if key == "parameters":
        reference = table.reference(row)
        base = reference.cost(key) if reference is not None else None
        difference = base is not None and row.printed.get("params", "").startswith("+")
        return count(value) + (f" (+{count(value - (base or 0))})" if difference else "")
    return flops(value) if key == "paper_gflops" else significant(value)


def grid(
    table: Table,
    rows: Sequence[TableRow],
    columns: Sequence[Column],
    *,
    spreads: bool = True,
    best_seeds: bool = True,
    printed_costs: bool = True,
    costs: Sequence[str] = LINE_COSTS,
    here: str = "",
) -> tuple[list[str], list[list[str]]]:
    """Return heads and text cells for formats with one line of heads.

    Args:
        table: what to show.
        rows: which of its rows.
        columns: which of its columns.
        spreads: with the standard deviation of all columns, not only of the main one.
        best_seeds: with the best seed of the main column, where there is one.
        printed_costs: with printed costs, where there are any.
        costs: which counted and measured costs, of ``LINE_COSTS``.
        here: what measured columns are called beside printed ones; default the data and budget.
    """
    metrics = [(title(c), f) for c in columns for f in metric_fields(table, c, sd=spreads or c is table.main)]
    metrics = [(name, f) for name, f in metrics if best_seeds or f.kind != "best seed"]
    found = [(cost, f) for cost in COSTS if cost.line for f in cost_fields(table, cost)]
    printed = [(f"{cost.line}\nprinted", f) for cost, f in found if f.kind == "printed" and printed_costs]
    counted = [(cost.line, f) for cost, f in found if f.kind == "counted" and cost.key in costs]
    below = {"printed": f"\n{printed_head(table)}", "measured": f"\n{here or table.setting}" * table.has_printed}
    named = [(f"{name}{below[f.kind]}" if f.kind in below else f.kind, f) for name, f in metrics]
    fields = [*named, *printed, *counted]
    lines = [[str(r.number), r.short, *(f.text(r) for _, f in fields), r.state(len(table.seeds))] for r in rows]
    return ["#", "Row", *(name for name, _ in fields), "Runs"], lines
