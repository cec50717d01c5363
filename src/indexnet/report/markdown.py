"""A table as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from indexnet.core.escape import csv_cell, markdown_cell, markdown_table
from indexnet.report import relative
from indexnet.report.costs import COSTS
from indexnet.report.fields import grid
from indexnet.report.numbers import parse_number
from indexnet.report.provenance import facts
from indexnet.report.rendering import render
from indexnet.report.table import Measurement, Table, TableRow

MEASURED = ("mean", "sd", "n", "best", "best_seed", "per_seed", "difference", "rank", "tied")
"""CSV columns of every metric, as ``<metric>_<name>``; see :func:`table_csv`."""

INTERVAL = ("interval_low", "interval_high")


def table_csv(table: Table) -> str:
    """Write the table as CSV: one line per row, plain numbers, empty where there is none.

    The columns follow from the experiment file alone, but on data sets whose test splits have other names.

    * ``number, block, base, row, label``: what the row is; ``base`` is what it is called in every ``block``, where rows
      are repeated.
    * ``status, pending, data, budget, seeds_finished, seeds_expected``: how far it is, as in :meth:`TableRow.status`.
    * for every metric ``printed_<metric>``; where it has a bound ``expected_<metric>`` and ``<metric>_passes`` (1 or 0,
      empty where it is not judged); ``<metric>_mean, _sd, _n`` over seeds; ``_best`` and ``_best_seed``;
      ``_per_seed`` as ``seed:value`` joined by semicolons; ``_difference`` to the printed number where they are
      comparable; ``_rank``; ``_tied`` 1 where the row does not differ significantly from the best, else 0;
      ``_interval_low`` and ``_interval_high`` of the difference to the best.
    * where the table has a row that others are relative to: for every metric ``<metric>_relative`` and
      ``printed_<metric>_relative``, and of the worst metric ``relative_worst`` and ``printed_relative_worst``, as
      shares (0.161 is 16.1 % better), see :mod:`indexnet.report.relative`.
    * costs by their keys in the records, and ``printed_params, printed_gflops``.
    * where the table declares a baseline, at the end: for every metric ``<metric>_minus_baseline`` with
      ``_minus_baseline_low`` and ``_minus_baseline_high``, the 95 % interval.
    """
    head = ["number", "block", "base", "row", "label", "status", "pending", "data", "budget"]
    head += ["seeds_finished", "seeds_expected"]
    for column in table.columns:
        head += [f"printed_{column.metric}", *(f"{column.metric}_{name}" for name in (*MEASURED, *INTERVAL))]
        head += [f"expected_{column.metric}", f"{column.metric}_passes"] if column.expected else []
    improved = relative.columns_of(table) if table.experiment.relative_to is not None else []
    for name in [*(f"{column.metric}_relative" for column in improved), "relative_worst"] if improved else []:
        head += [name, f"printed_{name}"]
    printed = [cost.printed for cost in COSTS if cost.printed]
    head += [*(cost.key for cost in COSTS), *(f"printed_{key}" for key in printed)]
    subtracted = [column for column in table.columns if table.experiment.reference is not None and not column.is_speed]
    head += [f"{column.metric}_minus_baseline{bound}" for column in subtracted for bound in ("", "_low", "_high")]
    lines: list[list[object]] = [[*head]]
    for row in table.rows:
        setting = [table.runs.data, table.runs.budget] if table.runs else ["", ""]
        names = [row.block, row.base, row.name, row.label, row.status(len(table.seeds)), row.pending]
        line: list[object] = [row.number, *names, *setting, len(row.done), len(table.seeds)]
        for column in table.columns:
            m = row.measured[column.metric]
            line += _measured(m)
            line += [parse_number(m.expected), None if m.passes is None else int(m.passes)] if column.expected else []
        for column in improved:
            line += [relative.improvement(table, row, column, kind) for kind in ("measured", "printed")]
        line += [relative.worst(table, row, kind) for kind in ("measured", "printed")] if improved else []
        line += [row.cost(cost.key) for cost in COSTS]
        for key in printed:  # the exact number, where the file of printed numbers has one
            exact = parse_number(row.printed.get(f"{key}_value", ""))
            line.append(parse_number(row.printed.get(key, "")) if exact is None else exact)
        for column in subtracted:
            m = row.measured[column.metric]
            bounds = [m.delta_interval.low, m.delta_interval.high] if m.delta_interval is not None else [None, None]
            line += [m.delta, *bounds]
        lines.append(line)
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([[csv_cell(_plain(cell)) for cell in line] for line in lines])
    return buffer.getvalue()


def _measured(m: Measurement) -> list[object]:
    """Return the printed number and the cells of ``MEASURED`` and ``INTERVAL``."""
    seed = m.best_seed
    best = None if seed is None else m.values[seed]
    per_seed = ";".join(f"{seed}:{_plain(value)}" for seed, value in sorted(m.values.items()))
    tied = int(m.tied) if m.rank is not None else None
    bounds = [m.interval.low, m.interval.high] if m.interval is not None else [None, None]
    found = [m.mean, m.sd, len(m.values) or None, best, seed, per_seed, m.difference, m.rank, tied]
    return [m.target, *found, *bounds]


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def markdown(table: Table) -> str:
    """Write the report's words and table as Markdown."""

    def tables(rows: Sequence[TableRow]) -> list[tuple[str, list[str], list[list[str]]]]:
        return [(block.label, *grid(table, part, table.columns)) for block, part in table.by_block(rows)]

    shown, folded = tables(table.shown), tables(table.folded)
    improved = [(block.label, *relative.grid(table, block.rows)) for block in table.blocks]
    text = render(
        "report.md",
        table=table,
        facts=facts(table),
        shown=shown,
        folded=folded,
        improved=[each for each in improved if each[2]],
        improved_over=relative.heading(table),
        table_of=table_of,
    )
    return text.rstrip() + "\n"


def table_of(head: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> Markup:
    """Write a table in Markdown whose cells are plain text; columns from ``left`` on are aligned right."""
    written = [list(map(markdown_cell, line)) for line in (head, *lines)]
    return Markup(markdown_table(written[0], written[1:], left))
