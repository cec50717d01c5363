"""A table as CSV, as Markdown, and in the terminal; and the sentences that all formats share."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from indexnet.report.numbers import count, fixed, parse_number, signed, significant, spread
from indexnet.report.statistics import LEVEL
from indexnet.report.table import COST_COLUMNS, SMOKE_BUDGET, Block, Measurement, Table, TableRow, facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table as RichTable

    from indexnet.run.experiments import Column

COSTS = ("parameters", "resampling_parameters", "paper_gflops", "true_gmacs", "train_samples_per_s", "peak_memory_mb")
"""Record keys that every table shows."""


_SIGNS = ("★", "≈")
_NAMED = 4  # rows that a sentence names; more are counted
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
    parts = []
    lonely = False
    for block in table.blocks:
        best = next((row for row in block.rows if row.measured[column.metric].best), None)
        if best is None:
            continue
        cell = best.measured[column.metric]
        n = len(cell.values)
        mean = spread(cell.mean, cell.sd, column.digits)
        said = f"{mean} over {n} seeds" if n > 1 else mean
        tied = [row.short for row in block.rows if row.measured[column.metric].tied]
        near = f", not to be told apart from {_and(tied)}" if tied else ""
        parts.append((block.label, f"{best.short}, {said}{near}"))
        lonely = lonely or n == 1
    if not parts:
        return f"No finished run has the metric {column.metric}.{unfinished}"
    seed = " (one seed: the spread over seeds is unknown)" if lonely else ""
    listed = "; ".join(f"at {label}, {text}" if label else text for label, text in parts)
    return f"Best {column.title} {setting}: {listed}{seed}.{unfinished}"


def _and(names: list[str]) -> str:
    if len(names) > _NAMED:
        return f"{len(names)} other rows"
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
    spreads = [max(c.values.values()) - min(c.values.values()) for c in cells if len(c.values) > 1]
    reach = []
    for block in table.blocks:
        means = [mean for row in block.rows if (mean := row.measured[column.metric].mean) is not None]
        reach += [max(means) - min(means)] if len(means) > 1 else []
    if reach:
        within = f" of one of the {len(table.blocks)} blocks" if len(table.blocks) > 1 else ""
        text += f" {column.title}: the rows' means{within} differ by up to {fixed(max(reach), column.digits)}"
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
    found = [
        (block.label, column.title, tau, agreed.rows)
        for block in table.blocks
        for column in table.columns
        if (agreed := block.agreement.get(column.metric)) is not None and (tau := agreed.tau) is not None
    ]
    if not found:
        return ""
    same = len(table.blocks) > 1 and len({rows for *_, rows in found}) == 1
    parts: dict[str, list[str]] = {}
    for label, title, tau, rows in found:
        parts.setdefault(label, []).append(f"{title} {fixed(tau, 2)}" + ("" if same else f" ({rows} rows)"))
    said = "; ".join(f"{label}: {', '.join(taus)}" if label else ", ".join(taus) for label, taus in parts.items())
    each = f" of {found[0][3]} rows" if same else ""
    return f"Kendall's τ-b between printed and measured order{each} (1 same, 0 unrelated, −1 reversed): {said}."


def legend(table: Table, costs: bool = True) -> list[str]:
    """Explain the signs in the table, and its cost columns where ``costs``."""
    lines = []
    if any(len(m.values) > 1 for row in table.rows for m in row.measured.values()):
        lines.append("mean ± sample standard deviation over seeds")
    cells = [m for row in table.rows for m in row.measured.values()]
    if any(m.best for m in cells):
        lines.append("★ best mean of the column" + (", in each block" if len(table.blocks) > 1 else ""))
    intervals = [m.interval for m in cells if m.interval is not None]
    if any(m.tied for m in cells):
        counts, seeds = sorted({i.images for i in intervals}), min(i.seeds for i in intervals)
        images = f"{counts[0]} to {counts[-1]} images" if len(counts) > 1 else f"{counts[0]} images"
        over = f"{images} and {seeds} seeds" if seeds > 1 else f"{images}; one seed, so images only"
        lines.append(
            f"≈ not to be told apart from the best: the {LEVEL:.0%} interval of the difference holds 0 "
            f"(paired bootstrap over {over}; not corrected for the number of rows)"
        )
    elif any(m.best for m in cells) and not intervals:
        measured = max(
            sum(bool(row.measured[c.metric].values) for row in b.rows) for b in table.blocks for c in table.columns
        )
        if measured == 1:
            lines.append("only one row is measured, so there is nothing to compare it with")
        else:
            lines.append("no per-image results, so it is not known which differences are real")
    pooled = [
        column.title
        for column in table.columns
        if any(row.measured[column.metric].pooled and row.measured[column.metric].interval for row in table.rows)
    ]
    if pooled:
        lines.append(
            f"{', '.join(pooled)}: computed from all images at once, so not the mean of the images' own numbers; "
            "what ≈ compares is that mean"
        )
    if costs and any(row.done for row in table.rows):
        lines.append(
            "GFLOPs by the papers' counting rule (convolutions, shared columns once, / 1024³); "
            "GMACs are what one image really costs (/ 10⁹)"
        )
    return lines


def parameters(table: Table, row: TableRow) -> str:
    """Write a row's parameter count; with the difference to the reference row where the paper prints that."""
    value = row.cost("parameters")
    reference = table.reference(row)
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
    """Write the table as CSV: one line per row, plain numbers, empty where there is none.

    ``base`` is what a row is called in every ``block``, where rows are repeated.
    """
    head = ["number", "block", "base", "row", "label", "pending", "data", "budget", "seeds_finished", "seeds_expected"]
    for column in table.columns:
        names = ["mean", "sd", "n", "best", "best_seed", "rank", "best_or_tied", "printed", "difference"]
        head += [f"{column.metric}_{name}" for name in names]
    head += [*COSTS, "printed_params", "printed_gflops"]
    lines: list[list[object]] = [list(head)]
    for row in table.rows:
        setting = [table.runs.data, table.runs.budget] if table.runs else ["", ""]
        names = [row.block, row.base, row.name, row.label, row.pending]
        line: list[object] = [row.number, *names, *setting, len(row.done), len(table.seeds)]
        for column in table.columns:
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
    """Return heads and text cells for formats with one line of heads; the cells are in the order of ``table.rows``.

    Args:
        table: what to show.
        detail: 5 all; 4 without GMACs and throughput; 3 also without metrics that nothing measured; 2 also without
            the spread of all but the main metric; 1 also without printed costs and GFLOPs; 0 the main metric alone.
        here: what measured columns are called beside printed ones; default the data and budget.
    """
    head = ["#", "Row"]
    columns = []
    for column in table.columns:
        measured = any(row.measured[column.metric].values for row in table.rows)
        if column is table.main or detail > 3 or (detail > 0 and measured):
            columns.append((column, table.prints(column)))
    for column, printed in columns:
        title = f"{column.title} {arrow(column)}"
        head += [f"{title}\n{printed_head(table)}"] if printed else []
        head.append(f"{title}\n{here or table.setting}" if table.has_printed else title)
        head += ["difference"] if table.comparable and printed else []
    costs = [key for key in COST_COLUMNS if detail > 1 and table.prints_cost(key)]
    head += [{"params": "Params\nprinted", "gflops": "GFLOPs\nprinted"}[key] for key in costs]
    keys = ["paper_gflops"] if detail > 1 else []
    keys += ["true_gmacs", "train_samples_per_s"] if detail > 4 else []
    names = {"paper_gflops": "GFLOPs", "true_gmacs": "GMACs", "train_samples_per_s": "samples/s"}
    head += ["Params", *(names[key] for key in keys), "Runs"]
    lines = []
    for row in table.rows:
        line = [str(row.number), row.short]
        for column, printed in columns:
            m = row.measured[column.metric]
            line += [m.printed] if printed else []
            sd = m.sd if detail > 2 or column is table.main else None
            line.append(spread(m.mean, sd, column.digits) + mark(m))
            line += [signed(m.difference, column.digits)] if table.comparable and printed else []
        line += [row.printed.get(key, "") for key in costs]
        line += [parameters(table, row), *(cost_text(row, key) for key in keys), row.state(len(table.seeds))]
        lines.append(line)
    return head, lines


def printed_head(table: Table) -> str:
    """Return the head of a column of printed numbers; it names their test split where another stands beside it."""
    return f"printed, {table.stand_in}" if table.stand_in else "printed"


def exceptions(table: Table) -> list[str]:
    """Say which rows' costs are known to disagree with the printed ones, and why."""
    return _reasons("known exception", [(row.short, row.exception) for row in table.rows])


def pending(table: Table) -> list[str]:
    """Say which rows cannot be run yet, and why."""
    return _reasons("pending", [(row.short, row.pending) for row in table.rows])


def _reasons(what: str, rows: list[tuple[str, str]]) -> list[str]:
    """Write one line per reason, with the names of all rows that have it; a row of several blocks once."""
    by_reason: dict[str, list[str]] = {}
    for label, reason in rows:
        names = by_reason.setdefault(reason, [])
        if label not in names:
            names.append(label)
    return [f"{', '.join(names)}: {what}, {reason}" for reason, names in by_reason.items() if reason]


def notes(table: Table) -> list[str]:
    """Return every remark below the table, most important first."""
    found = [*table.warnings, comparison(table), agreement(table), *exceptions(table), *pending(table)]
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
    for block, part in _by_block(table, cells):
        lines += [f"## {block.label}", ""] if block.label else []
        lines.append(_md_line([name.replace("\n", " ") for name in head]))
        lines.append(_md_line(["---" if index < 2 else "---:" for index in range(len(head))]))
        lines += [_md_line(line) for line in part] + [""]
    lines += [f"* {text}" for text in (*legend(table), *notes(table))] + [""]
    if table.problems:
        lines += ["## Runs without a result", "", "| Row | Seeds | Status | Reason |", "|---|---|---|---|"]
        lines += [_md_line(list(line)) for line in problems(table)] + [""]
    return "\n".join(lines)


def _by_block(table: Table, lines: list[list[str]]) -> Iterator[tuple[Block, list[list[str]]]]:
    """Cut the lines of :func:`grid` into the table's blocks."""
    start = 0
    for block in table.blocks:
        yield block, lines[start : start + len(block.rows)]
        start += len(block.rows)


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
    for block, lines in _by_block(table, cells):
        if block.label:
            shown.add_section()
            shown.add_row("", f"[bold]{escape(block.label)}[/]")
        for row, line in zip(block.rows, lines, strict=True):
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
