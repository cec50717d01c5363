"""A table as CSV, as Markdown, and in the terminal; and the sentences that all formats share."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from indexnet.report.numbers import count, fixed, parse_number, signed, significant, spread
from indexnet.report.statistics import LEVEL
from indexnet.report.table import COST_COLUMNS, SMOKE_BUDGET, Measurement, Table, TableRow, facts

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from indexnet.run.experiments import Column

COSTS = ("parameters", "resampling_parameters", "paper_gflops", "true_gmacs", "train_samples_per_s", "peak_memory_mb")
"""Record keys that every table shows."""


_SIGNS = ("★", "≈")
_NAME = 18  # characters that a row's name keeps in a narrow terminal


def arrow(column: Column) -> str:
    """Return which way is better."""
    return "↑" if column.higher_is_better else "↓"


def mark(measurement: Measurement) -> str:
    """Return the sign behind a measured cell: best, or not to be told apart from it."""
    return " ★" if measurement.best else " ≈" if measurement.tied else ""


def headline(table: Table) -> str:
    """Say the result in one or two sentences."""
    column = table.main
    if table.runs is None or not table.done or column is None:
        return (
            f"Nothing is measured yet. `indexnet train -m experiments={table.experiment.name}` runs the table; "
            "this report can be made again at any time."
        )
    measured = [row for row in table.rows if row.measured[column.metric].mean is not None]
    setting = f"on {table.runs.data} at budget {table.runs.budget}"
    left = table.expected - table.done
    unfinished = f" {left} of {table.expected} runs have no result yet." if left else ""
    if not table.ranks:
        return f"{len(measured)} rows measured {setting}.{unfinished}"
    best = next((row for row in measured if row.measured[column.metric].best), None)
    if best is None:
        return f"No finished run has the metric {column.metric}.{unfinished}"
    cell = best.measured[column.metric]
    n = len(cell.values)
    said = f"{spread(cell.mean, cell.sd, column.digits)} over {n} seeds" if n > 1 else fixed(cell.mean, column.digits)
    tied = [row.label for row in measured if row.measured[column.metric].tied]
    near = f", not to be told apart from {_and(tied)}" if tied else ""
    seed = "" if n > 1 else " (one seed: the spread over seeds is unknown)"
    return f"Best {column.title} {setting}: {best.label}, {said}{near}{seed}.{unfinished}"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def banner(table: Table) -> str:
    """Say that the budget ranks nothing, with the spread that makes it so; "" where the budget does rank."""
    if table.ranks:
        return ""
    smoke = table.runs is not None and table.runs.budget == SMOKE_BUDGET
    text = (
        f"{'The budget smoke' if smoke else 'This budget'} ranks nothing: it is too small to tell the rows apart, so "
    )
    text += "no best row, rank or correlation is given. It shows that everything runs, and how far results spread."
    column = table.main
    if column is None:
        return text
    cells = [row.measured[column.metric] for row in table.rows if row.measured[column.metric].mean is not None]
    means = [cell.mean for cell in cells if cell.mean is not None]
    spreads = [max(c.values.values()) - min(c.values.values()) for c in cells if len(c.values) > 1]
    if len(means) > 1:
        text += f" {column.title}: the rows' means differ by up to {fixed(max(means) - min(means), column.digits)}"
        if spreads:
            text += f", seeds of one row by up to {fixed(max(spreads), column.digits)}"
        text += "."
    return text


def comparison(table: Table) -> str:
    """Say how the printed numbers relate to the measured ones; "" where nothing is printed or nothing measured."""
    if not table.has_printed:
        return ""
    printed = f"Printed: {table.experiment.source}, with the paper's data and protocol."
    if table.runs is None:
        return printed
    measured = f"Measured: {table.runs.data} at budget {table.runs.budget}."
    if table.comparable:
        return f"{printed} {measured} Same data, budget and protocol; differences are measured minus printed."
    if table.protocol.changes:
        measured = f"{measured[:-1]}, with a changed protocol ({', '.join(table.protocol.changes)})."
    return f"{printed} {measured} These are different things, so no differences are given: compare orders, not numbers."


def agreement(table: Table) -> str:
    """Say how far the measured order agrees with the printed one; "" where that cannot be said."""
    if not table.ranks:
        return ""
    parts = []
    for column in table.experiment.columns:
        found = table.agreement.get(column.metric)
        if found is not None and found.tau is not None:
            parts.append(f"{column.title} {fixed(found.tau, 2)} ({found.rows} rows)")
    if not parts:
        return ""
    return f"Kendall's τ-b between printed and measured order (1 same, 0 unrelated, −1 reversed): {', '.join(parts)}."


def legend(table: Table, costs: bool = True) -> list[str]:
    """Explain the signs in the table, and its cost columns where ``costs``."""
    lines = []
    if any(len(m.values) > 1 for row in table.rows for m in row.measured.values()):
        lines.append("mean ± sample standard deviation over seeds")
    cells = [m for row in table.rows for m in row.measured.values()]
    if any(m.best for m in cells):
        lines.append("★ best mean of the column")
    intervals = [m.interval for m in cells if m.interval is not None]
    if any(m.tied for m in cells):
        images, seeds = min(i.images for i in intervals), min(i.seeds for i in intervals)
        over = f"{images} images and {seeds} seeds" if seeds > 1 else f"{images} images; one seed, so images only"
        lines.append(
            f"≈ not to be told apart from the best: the {LEVEL:.0%} interval of the difference holds 0 "
            f"(paired bootstrap over {over}; not corrected for the number of rows)"
        )
    elif any(m.best for m in cells) and not intervals:
        measured = max(sum(bool(row.measured[c.metric].values) for row in table.rows) for c in table.experiment.columns)
        if measured == 1:
            lines.append("only one row is measured, so there is nothing to compare it with")
        else:
            lines.append("no per-image results, so it is not known which differences are real")
    if costs and any(row.done for row in table.rows):
        lines.append(
            "GFLOPs by the papers' counting rule (convolutions, shared columns once, / 1024³); "
            "GMACs are what one image really costs (/ 10⁹)"
        )
    return lines


def parameters(table: Table, row: TableRow) -> str:
    """Write a row's parameter count; with the difference to the reference row where the paper prints that."""
    value = row.cost("parameters")
    reference = table.reference()
    base = reference.cost("parameters") if reference is not None else None
    if value is not None and base is not None and row.printed.get("params", "").startswith("+"):
        return f"{count(value)} (+{count(value - base)})"
    return count(value)


def cost_text(row: TableRow, key: str) -> str:
    """Write one cost of a row, short."""
    value = row.cost(key)
    if value is None:
        return ""
    if key in ("parameters", "resampling_parameters"):
        return count(value)
    return fixed(value, 2) if key == "paper_gflops" and value >= 1 else significant(value)


def table_csv(table: Table) -> str:
    """Write the table as CSV: one line per row, plain numbers, empty where there is none."""
    head = ["number", "row", "label", "pending", "data", "budget", "seeds_finished", "seeds_expected"]
    for column in table.experiment.columns:
        names = ["mean", "sd", "n", "best", "best_seed", "rank", "best_or_tied", "printed", "difference"]
        head += [f"{column.metric}_{name}" for name in names]
    head += [*COSTS, "printed_params", "printed_gflops"]
    lines: list[list[object]] = [list(head)]
    for row in table.rows:
        setting = [table.runs.data, table.runs.budget] if table.runs else ["", ""]
        line: list[object] = [row.number, row.name, row.label, row.pending, *setting, len(row.done), len(table.seeds)]
        for column in table.experiment.columns:
            m = row.measured[column.metric]
            seed = m.best_seed
            best = None if seed is None else m.values[seed]
            tied = int(m.best or m.tied) if m.rank is not None else None
            printed = parse_number(m.printed)
            line += [m.mean, m.sd, len(m.values) or None, best, seed, m.rank, tied, printed, m.difference]
        line += [row.cost(key) for key in COSTS]
        exact = parse_number(row.printed.get("params_value", ""))
        printed_params = exact if exact is not None else parse_number(row.printed.get("params", ""))
        lines.append([*line, printed_params, parse_number(row.printed.get("gflops", ""))])
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(
        [["" if c is None else _plain(c) for c in line] for line in lines]
    )
    return buffer.getvalue()


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def grid(table: Table, detail: int = 5, here: str = "") -> tuple[list[str], list[list[str]]]:
    """Return heads and text cells for formats with one line of heads.

    Args:
        table: what to show.
        detail: 5 all; 4 without GMACs and throughput; 3 also without metrics that nothing measured; 2 also without
            the spread of all but the main metric; 1 also without printed costs and GFLOPs; 0 the main metric alone.
        here: what measured columns are called beside printed ones; default the data and budget.
    """
    head = ["#", "Row"]
    columns = []
    for column in table.experiment.columns:
        cells = [row.measured[column.metric] for row in table.rows]
        if column is table.main or detail > 3 or (detail > 0 and any(cell.values for cell in cells)):
            columns.append((column, any(cell.printed for cell in cells)))
    for column, printed in columns:
        title = f"{column.title} {arrow(column)}"
        head += [f"{title}\nprinted"] if printed else []
        head.append(f"{title}\n{here or table.setting}" if table.has_printed else title)
        head += ["difference"] if table.comparable else []
    costs = [key for key in COST_COLUMNS if detail > 1 and any(row.printed.get(key) for row in table.rows)]
    head += [{"params": "Params\nprinted", "gflops": "GFLOPs\nprinted"}[key] for key in costs]
    keys = ["paper_gflops"] if detail > 1 else []
    keys += ["true_gmacs", "train_samples_per_s"] if detail > 4 else []
    names = {"paper_gflops": "GFLOPs", "true_gmacs": "GMACs", "train_samples_per_s": "samples/s"}
    head += ["Params", *(names[key] for key in keys), "Runs"]
    lines = []
    for row in table.rows:
        line = [str(row.number), row.label]
        for column, printed in columns:
            m = row.measured[column.metric]
            line += [m.printed] if printed else []
            sd = m.sd if detail > 2 or column is table.main else None
            line.append(spread(m.mean, sd, column.digits) + mark(m))
            line += [signed(m.difference, column.digits)] if table.comparable else []
        line += [row.printed.get(key, "") for key in costs]
        line += [parameters(table, row), *(cost_text(row, key) for key in keys), row.state(len(table.seeds))]
        lines.append(line)
    return head, lines


def notes(table: Table) -> list[str]:
    """Return every remark below the table, most important first."""
    found = [*table.warnings, comparison(table), agreement(table)]
    found += [f"{row.label}: known exception, {row.exception}" for row in table.rows if row.exception]
    found += [f"{row.label}: pending, {row.pending}" for row in table.rows if row.pending]
    if table.others:
        found.append(f"Other data and budgets with runs: {', '.join(table.others)} (choose one with --data).")
    return [text for text in found if text]


def problems(table: Table) -> list[tuple[str, str, str, str]]:
    """Return (row, seeds, status, reason) of runs without a result; equal ones of a row share a line."""
    lines: dict[tuple[str, str, str], list[int]] = {}
    for p in table.problems:
        lines.setdefault((p.label, p.status, p.reason), []).append(p.seed)
    return [(label, ", ".join(map(str, seeds)), status, reason) for (label, status, reason), seeds in lines.items()]


def markdown(table: Table) -> str:
    """Write the report's words and table as Markdown."""
    experiment = table.experiment
    lines = [f"# {experiment.title}", "", f"Source: {experiment.source}. Experiment `{experiment.name}`.", ""]
    if banner(table):
        lines += [f"> **{banner(table)}**", ""]
    lines += [headline(table), ""]
    lines += [experiment.notes.strip(), ""] if experiment.notes.strip() else []
    lines += [f"* {name}: {text}" for name, text in facts(table)] + [""]
    head, cells = grid(table)
    lines.append(_md_line([name.replace("\n", " ") for name in head]))
    lines.append(_md_line(["---" if index < 2 else "---:" for index in range(len(head))]))
    lines += [_md_line(line) for line in cells] + [""]
    lines += [f"* {text}" for text in (*legend(table), *notes(table))] + [""]
    if table.problems:
        lines += ["## Runs without a result", "", "| Row | Seeds | Status | Reason |", "|---|---|---|---|"]
        lines += [_md_line(list(line)) for line in problems(table)] + [""]
    return "\n".join(lines)


def _md_line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def terminal(table: Table, width: int) -> RichTable:
    """Build the table for a terminal of ``width`` characters: as many columns as fit; long names are wrapped."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    head, cells, widths = _fitting(table, width)
    shown = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for index, name in enumerate(head):
        if index == 1:
            shown.add_column(name, min_width=min(widths[1], _NAME), overflow="fold")
        else:
            shown.add_column(escape(name), justify="right", no_wrap=True, min_width=widths[index])
    for row, line in zip(table.rows, cells, strict=True):
        style = "dim" if row.pending else None
        shown.add_row(*(f"[bold green]{escape(c)}[/]" if c.endswith("★") else escape(c) for c in line), style=style)
    return shown


def _fitting(table: Table, width: int) -> tuple[list[str], list[list[str]], list[int]]:
    """The most detailed heads and cells that fit, and the widths of their columns."""
    head: list[str] = []
    lines: list[list[str]] = []
    widths: list[int] = []
    for detail in (5, 4, 3, 2, 1, 0):
        head, lines = grid(table, detail, here="here")
        for line in lines:
            line[-1] = line[-1].split(" seed")[0].replace(" of ", "/")  # what failed is listed below the table
        for index in range(2, len(head) - 1):  # a place for the sign in every line keeps decimals below each other
            if any(line[index].endswith(_SIGNS) for line in lines):
                for line in lines:
                    line[index] += "" if line[index].endswith(_SIGNS) or not line[index] else "  "
        columns = zip(head, *lines, strict=True)
        widths = [max(len(part) for text in column for part in text.split("\n")) for column in columns]
        if sum(widths) - widths[1] + min(widths[1], _NAME) + 3 * len(widths) <= width:
            break
    return head, lines, widths
