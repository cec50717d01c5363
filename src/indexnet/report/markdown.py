"""A table as CSV and as Markdown, and the grid of text cells that Markdown and the terminal share."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from indexnet.report import remarks
from indexnet.report.numbers import parse_number, signed
from indexnet.report.provenance import facts
from indexnet.report.rendering import render
from indexnet.report.table import COSTS, Measurement, Table, TableRow
from indexnet.run.record import COSTS as COST_CELLS

if TYPE_CHECKING:
    from indexnet.run.experiment import Column

MEASURED = ("mean", "sd", "n", "best", "best_seed", "per_seed", "difference", "rank", "tied")
"""CSV columns of every metric, as ``<metric>_<name>``; see :func:`table_csv`."""

INTERVAL = ("interval_low", "interval_high")

_HEADS = {
    "parameters": "Params",
    "paper_gflops": "GFLOPs",
    "true_gmacs": "GMACs",
    "train_samples_per_s": "samples/s",
}
COST_KEYS = tuple(_HEADS)
"""Record keys of the cost columns that people see."""


def table_csv(table: Table) -> str:
    """Write the table as CSV: one line per row, plain numbers, empty where there is none.

    The columns follow from the experiment file alone, but on data sets whose test splits have other names.

    * ``number, block, base, row, label``: what the row is; ``base`` is what it is called in every ``block``, where rows
      are repeated.
    * ``status, pending, data, budget, seeds_finished, seeds_expected``: how far it is, as in :meth:`TableRow.status`.
    * for every metric ``printed_<metric>``; ``<metric>_mean, _sd, _n`` over seeds; ``_best`` and ``_best_seed``;
      ``_per_seed`` as ``seed:value`` joined by semicolons; ``_difference`` to the printed number where they are
      comparable; ``_rank``; ``_tied`` 1 where the row cannot be told apart from the best, else 0; ``_interval_low`` and
      ``_interval_high`` of the difference to the best.
    * costs by their keys in the records, and ``printed_params, printed_gflops``.
    """
    head = ["number", "block", "base", "row", "label", "status", "pending", "data", "budget"]
    head += ["seeds_finished", "seeds_expected"]
    for column in table.columns:
        head += [f"printed_{column.metric}", *(f"{column.metric}_{name}" for name in (*MEASURED, *INTERVAL))]
    head += [*COST_CELLS, "printed_params", "printed_gflops"]
    lines: list[list[object]] = [list(head)]
    for row in table.rows:
        setting = [table.runs.data, table.runs.budget] if table.runs else ["", ""]
        names = [row.block, row.base, row.name, row.label, row.status(len(table.seeds)), row.pending]
        line: list[object] = [row.number, *names, *setting, len(row.done), len(table.seeds)]
        for column in table.columns:
            line += _measured(row.measured[column.metric])
        line += [row.cost(key) for key in COST_CELLS]
        exact = parse_number(row.printed.get("params_value", ""))
        printed_params = exact if exact is not None else parse_number(row.printed.get("params", ""))
        lines.append([*line, printed_params, parse_number(row.printed.get("gflops", ""))])
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(
        [["" if c is None else _plain(c) for c in line] for line in lines]
    )
    return buffer.getvalue()


def _measured(m: Measurement) -> list[object]:
    """Return the printed number and the cells of ``MEASURED`` and ``INTERVAL``."""
    seed = m.best_seed
    best = None if seed is None else m.values[seed]
    per_seed = ";".join(f"{seed}:{_plain(value)}" for seed, value in sorted(m.values.items()))
    tied = int(m.tied) if m.rank is not None else None
    bounds = [m.interval.low, m.interval.high] if m.interval is not None else [None, None]
    found = [m.mean, m.sd, len(m.values) or None, best, seed, per_seed, m.difference, m.rank, tied]
    return [parse_number(m.printed), *found, *bounds]


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def grid(
    table: Table,
    rows: Sequence[TableRow],
    columns: Sequence[Column],
    *,
    spreads: bool = True,
    best_seeds: bool = True,
    printed_costs: bool = True,
    costs: Sequence[str] = COST_KEYS,
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
        costs: which counted and measured costs, of ``COST_KEYS``.
        here: what measured columns are called beside printed ones; default the data and budget.
    """
    kinds = {column.metric: table.kinds(column) for column in columns}
    if not best_seeds:
        kinds = {metric: [kind for kind in found if kind != "best seed"] for metric, found in kinds.items()}
    head = ["#", "Row"]
    for column in columns:
        title = remarks.title(column)
        heads = {
            "printed": f"{title}\n{remarks.printed_head(table)}",
            "measured": f"{title}\n{here or table.setting}" if table.has_printed else title,
        }
        head += [heads.get(kind, kind) for kind in kinds[column.metric]]
    shown = [key for key, *_ in COSTS if printed_costs and table.prints_cost(key)]
    head += [{"params": "Params\nprinted", "gflops": "GFLOPs\nprinted"}[key] for key in shown]
    head += [*(_HEADS[key] for key in costs), "Runs"]
    lines = []
    for row in rows:
        line = [str(row.number), row.short]
        for column in columns:
            m, digits = row.measured[column.metric], column.digits
            cells = {
                "printed": m.printed,
                "measured": remarks.measured(m, digits, sd=spreads or column is table.main),
                "best seed": remarks.best_seed(m, digits),
                "difference": signed(m.difference, digits),
            }
            line += [cells[kind] for kind in kinds[column.metric]]
        line += [row.printed.get(key, "") for key in shown]
        line += [remarks.cost(table, row, key) for key in costs]
        lines.append([*line, row.state(len(table.seeds))])
    return head, lines


def markdown(table: Table) -> str:
    """Write the report's words and table as Markdown."""

    def tables(rows: Sequence[TableRow]) -> list[tuple[str, list[str], list[list[str]]]]:
        return [(block.label, *grid(table, part, table.columns)) for block, part in table.by_block(rows)]

    shown, folded = tables(table.shown), tables(table.folded)
    text = render("report.md", table=table, facts=facts(table), shown=shown, folded=folded, line=_line)
    return text.rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
