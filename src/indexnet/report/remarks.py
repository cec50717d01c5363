"""What a report says in words: sentences, signs and short numbers that all formats share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexnet.core.statistics import LEVEL
from indexnet.report.numbers import count, fixed, significant, spread
from indexnet.report.table import SMOKE_BUDGET, Measurement, Table, TableRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from indexnet.run.tables import Column


COST_RULE = (
    "GFLOPs by the papers' counting rule (convolutions, shared columns once, / 1024³); "
    "GMACs are what one image really costs (/ 10⁹)"
)

_NAMED = 4  # rows that a sentence names; more are counted
_LISTED = 6  # the same, where naming them is what the sentence is for


def arrow(column: Column) -> str:
    """Return which way is better."""
    return "↑" if column.higher_is_better else "↓"


def mark(measurement: Measurement) -> str:
    """Return the sign behind a measured cell: best, or not to be told apart from it."""
    return " ★" if measurement.best else " ≈" if measurement.tied else ""


def best_seed(measurement: Measurement, digits: int) -> str:
    """Write the best seed's value and, in brackets, the seed; "" without a finished run."""
    seed = measurement.best_seed
    return "" if seed is None else f"{fixed(measurement.values[seed], digits)} ({seed})"


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
        top = best_seed(cell, column.digits).replace("(", "(seed ")
        said = f"{mean} over {n} seeds, the best of them {top}" if n > 1 else mean
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
        measured = f"{measured[:-1]}, with the changed protocol named above."
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


def legend(table: Table, *, costs: bool = True, best_seeds: bool = True, star: str = "★") -> list[str]:
    """Explain the signs in the table.

    Args:
        table: what is shown.
        costs: explain its cost columns as well.
        best_seeds: explain the column of best seeds as well.
        star: what marks the best mean.
    """
    lines = []
    if any(len(m.values) > 1 for row in table.rows for m in row.measured.values()):
        lines.append("mean ± sample standard deviation over seeds")
    cells = [m for row in table.rows for m in row.measured.values()]
    if any(m.best for m in cells):
        lines.append(f"{star} best mean of the column" + (", in each block" if len(table.blocks) > 1 else ""))
    if best_seeds and table.names_best_seeds:
        lines.append("best seed: the value of a row's best run and, in brackets, its seed")
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
        lines.append(COST_RULE)
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


def missing(table: Table) -> list[str]:
    """Say in plain words what the table lacks; empty where it is complete, or nothing is measured at all."""
    if table.runs is None:
        return []
    idle = [row for row in table.rows if not row.runs and not row.pending]
    lines = []
    if idle:
        named = [
            f"{block.label}: {_listed(rows, block.rows)}" if block.label else _listed(rows, block.rows)
            for block, rows in table.by_block(idle)
        ]
        lines.append(f"Not run: {len(idle)} of {_rows(len(table.rows))} ({'; '.join(named)}).")
    wanted = len(table.seeds)
    short = [f"{row.label} ({len(row.done)})" for row in table.rows if row.runs and len(row.done) < wanted]
    if short:
        lines.append(f"Fewer than {wanted} finished seed{'' if wanted == 1 else 's'}: {_some(short)}.")
    statuses = [problem.status for problem in table.problems]
    said = [
        f"{count} {status}"
        for status in ("failed", "diverged", "unreadable", "unfinished", "new")
        if (count := statuses.count(status))
    ]
    if said:
        lines.append(f"Runs without a result: {', '.join(said)}.")
    empty = [c.title for c in table.columns if not any(row.measured[c.metric].values for row in table.rows)]
    if empty and table.done:
        lines.append(f"No finished run has {', '.join(empty)}.")
    return lines


def _rows(number: int) -> str:
    return f"{number} row{'' if number == 1 else 's'}"


def _listed(rows: Sequence[TableRow], every: Sequence[TableRow]) -> str:
    """Name rows, or say that all of ``every`` are meant."""
    if len(rows) == len(every) > _LISTED:
        return f"all {len(rows)} rows"
    return _some([row.short for row in rows])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED + 1} more" if len(names) > _LISTED else ""
    return ", ".join(names[: _LISTED - 1] if more else names) + more


def status_hint(table: Table) -> str:
    """Say which command shows where the sweep stands."""
    return f"`indexnet status {table.experiment.name}` shows where the sweep stands."


def folded(table: Table) -> str:
    """Say how many rows without runs are folded away; "" where none are."""
    idle = [row for row in table.folded if not row.pending]
    waiting = len(table.folded) - len(idle)
    parts = [f"{_rows(len(idle))} not run" if idle else "", f"{_rows(waiting)} pending" if waiting else ""]
    return ", ".join(filter(None, parts))


def notes(table: Table) -> list[str]:
    """Return every remark below the table, most important first."""
    found = [*table.warnings, comparison(table), agreement(table), *exceptions(table), *pending(table)]
    if table.others:
        found.append(f"Other data and budgets with runs: {', '.join(table.others)} (choose one with --data).")
    return [text for text in found if text]


def problems(table: Table) -> list[tuple[str, str, str, str]]:
    """Return (row, seeds, status, reason) of runs without a result; equal ones of a row share a line.

    Rows without any run are left out: :func:`missing` names them.
    """
    idle = {row.label for row in table.rows if not row.runs}
    lines: dict[tuple[str, str, str], list[int]] = {}
    for p in (p for p in table.problems if p.label not in idle):
        lines.setdefault((p.label, p.status, p.reason), []).append(p.seed)
    return [(label, ", ".join(map(str, seeds)), status, reason) for (label, status, reason), seeds in lines.items()]
