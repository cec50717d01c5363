"""The columns of a table and their cells as text, for all formats: these choose columns, and add heads and marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from indexnet.report.costs import COSTS, Cost
from indexnet.report.numbers import NumberText, count, fixed, flops, parse_number, signed, significant, spread
from indexnet.report.table import Measurement, Table, TableRow
from indexnet.run.experiments.experiment import Column

LINE_COSTS = tuple(cost.key for cost in COSTS if cost.line)
"""Record keys of the costs that a grid can show."""


class Field(NamedTuple):
    """A column of text.

    Attributes:
        kind: ``printed | expected | measured | best seed | difference | delta`` of a metric, ``printed | counted |
            share`` of a cost.
        text: writes the cell of a row, "" where there is nothing.
        column: the metric; None for a cost.
    """

    kind: str
    text: Callable[[TableRow], str]
    column: Column | None = None


def title(column: Column) -> str:
    """Return a column's heading with which way is better."""
    return f"{column.title} {'↑' if column.higher_is_better else '↓'}"


def head_of(table: Table, field: Field) -> str:
    """Return the head of a column below its metric or cost: ``published``, ``minus bilinear``."""
    if field.kind == "printed":  # names the test split where another stands beside it
        return f"published, {table.stand_in}" if table.stand_in and field.column else "published"
    return {"delta": f"minus {table.baseline}", "share": f"vs {table.baseline}"}.get(field.kind, field.kind)


def metric_fields(table: Table, column: Column, *, sd: bool = True) -> list[Field]:
    """Return what stands under a metric, with or without standard deviations."""

    def text(row: TableRow, kind: str) -> str:
        m, digits = row.measured[column.metric], column.digits
        if kind == "measured":  # with ★ for the best or ≈ for what equals it
            return NumberText(f"{spread(m.mean, m.sd if sd else None, digits)} {m.sign}".rstrip(), m.mean)
        if kind == "best seed":
            return best_seed(m, digits)
        if kind == "expected":
            return NumberText(expected(m), parse_number(m.expected))
        if kind == "delta":
            return NumberText(f"{signed(m.delta, digits)} {m.delta_sign}".rstrip(), m.delta)
        if kind == "printed":
            return NumberText(m.printed, m.target)
        return NumberText(signed(m.difference, digits), m.difference)

    return [Field(kind, partial(text, kind=kind), column) for kind in table.kinds(column)]


def expected(m: Measurement) -> str:
    """Write the bound, and whether the mean keeps to it where that can be told: ``< 24.00, pass``."""
    verdict = {True: ", pass", False: ", fail", None: ""}[m.passes]
    return f"{'>' if m.higher_is_better else '<'} {m.expected}{verdict}" if m.expected else ""


def best_seed(m: Measurement, digits: int) -> str:
    """Write the best seed's value and, in brackets, the seed; "" without a finished run."""
    if m.best_seed is None:
        return ""
    value = m.values[m.best_seed]
    return NumberText(f"{fixed(value, digits)} ({m.best_seed})", value)


def cost_fields(table: Table, cost: Cost) -> list[Field]:
    """Return what stands under a cost: what a paper says, where it does, what was counted, and against the baseline."""
    printed = Field("printed", lambda row: _printed(row, cost))
    counted = Field("counted", lambda row: cost_text(table, row, cost.key))
    share = Field("share", lambda row: share_text(table, row, cost.key))
    there = {printed: table.prints_cost(cost), counted: True, share: any(map(share.text, table.rows))}
    return [field for field, given in there.items() if given]


def _printed(row: TableRow, cost: Cost) -> str:
    text = row.printed.get(cost.printed, "")
    return NumberText(text, parse_number(text))


COUNTED = ("parameters", "paper_gflops", "true_gmacs")
"""Costs that do not depend on the machine, so that rows can be compared in per cent."""


def share_text(table: Table, row: TableRow, key: str) -> str:
    """Write by how much a counted cost differs from the baseline's, in per cent of it: ``+12 %``; "" for none."""
    base = table.reference(row)
    own, other = row.cost(key), base.cost(key) if base is not None else None
    if key not in COUNTED or base is None or row.base == base.base or own is None or not other:
        return ""
    share = 100 * (own / other - 1)
    text = "0" if abs(share) < 0.05 else signed(share, 0 if abs(share) >= 10 else 1)
    return NumberText(f"{text}\N{NO-BREAK SPACE}%", share)


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
        return NumberText(count(value) + (f" (+{count(value - (base or 0))})" if difference else ""), value)
    return NumberText(flops(value) if key == "paper_gflops" else significant(value), value)


def grid(
    table: Table,
    rows: Sequence[TableRow],
    columns: Sequence[Column],
    *,
    spreads: bool = True,
    best_seeds: bool = True,
    printed_costs: bool = True,
    costs: Sequence[str] = LINE_COSTS,
    deltas: bool = True,
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
        deltas: with the difference of the main column to the baseline, where there is one.
        here: what measured columns are called beside published ones; default the data and budget.
    """
    metrics = [(title(c), f) for c in columns for f in metric_fields(table, c, sd=spreads or c is table.main)]
    metrics = [(name, f) for name, f in metrics if best_seeds or f.kind != "best seed"]
    metrics = [(name, f) for name, f in metrics if f.kind != "delta" or (deltas and f.column == table.main)]
    found = [(cost, f) for cost in COSTS if cost.line for f in cost_fields(table, cost)]
    printed = [(f"{cost.line}\npublished", f) for cost, f in found if f.kind == "printed" and printed_costs]
    counted = [(cost.line, f) for cost, f in found if f.kind == "counted" and cost.key in costs]
    measured = f"\n{here or table.setting}" * table.has_printed

    def head(name: str, field: Field) -> str:
        if field.kind == "measured":
            return f"{name}{measured}"
        return f"{name}\n{head_of(table, field)}" if field.kind == "printed" else head_of(table, field)

    named = [(head(name, f), f) for name, f in metrics]
    fields = [*named, *printed, *counted]
    lines = [[str(r.number), r.short, *(f.text(r) for _, f in fields), r.state(len(table.seeds))] for r in rows]
    return ["#", "Row", *(name for name, _ in fields), "Runs"], lines
