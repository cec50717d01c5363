"""What a report says in words, in all formats: the result, what signs mean, what is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from indexnet.core.statistics import LEVEL, Interval
from indexnet.report.fields import cost_text, share_text
from indexnet.report.numbers import fixed, signed, spread
from indexnet.report.relative import compared_with
from indexnet.report.table import SMOKE_BUDGET, Block, Table, TableRow

COST_RULE = (
    "GFLOPs by the papers' counting rule (convolutions, shared columns once, / 1024³); "
    "GMACs are what one image really costs (/ 10⁹)"
)

_HEADLINED = (("parameters", "parameters"), ("true_gmacs", "GMACs"))
_LISTED = 6  # rows that a remark names; of more it names one less and counts the others


# --- above the table ---------------------------------------------------------------------------------------------


def headline(table: Table) -> str:
    """Say the result in one or two sentences."""
    column = table.main
    if table.runs is None or not table.done:
        return (
            f"Nothing is measured yet. `indexnet train -m {table.experiment.chosen_by}` runs the table; "
            "this report can be made again at any time."
        )
    setting = f"on {table.runs.data} at budget {table.runs.budget}"
    left = table.expected - table.done
    unfinished = f" {left} of {table.expected} runs have no result yet." if left else ""
    cells = [row.measured[column.metric] for row in table.rows]
    if not table.ranks:
        return f"{_rows(sum(m.mean is not None for m in cells))} measured {setting}.{unfinished}"
    parts = []
    for block in table.blocks:
        for row in block.rows:
            m = row.measured[column.metric]
            if not m.best:
                continue
            seeds = "one seed: spread unknown"
            if len(m.values) > 1 and m.best_seed is not None:
                best = fixed(m.values[m.best_seed], column.digits)
                seeds = f"{len(m.values)} seeds; best {best}, seed {m.best_seed}"
            tied = [other.short for other in block.rows if other.measured[column.metric].tied]
            near = f", not significantly different from {some(tied)}" if tied else ""
            place = f"{block.label}: " if len(table.blocks) > 1 else ""
            over = f", {signed(m.delta, column.digits)} against {table.baseline}" if m.delta is not None else ""
            costs = _price(table, block, row)
            parts.append(f"{place}{row.short}, {spread(m.mean, m.sd, column.digits)} ({seeds}){over}{near}{costs}")
            break
    if not parts:
        return f"No finished run has the metric {column.metric}.{unfinished}"
    return f"Best {column.title} {setting}: {'; '.join(parts)}.{unfinished}"


def _price(table: Table, block: Block, row: TableRow) -> str:
    """Say what a block's best row costs, against the baseline where there is one, and which equal is the cheapest."""
    said = []
    for key, name in _HEADLINED:
        if text := cost_text(table, row, key).partition(" (")[0]:
            share = share_text(table, row, key)
            said.append(f"{text} {name}" + (f" ({share})" if share else ""))
    if not said:
        return ""
    text = f"; it costs {' and '.join(said)}"
    equal = [(cost, other) for other in block.rows if other.measured[table.main.metric].sign
             and (cost := other.cost("true_gmacs")) is not None]  # fmt: skip
    cost, cheapest = min(equal, key=lambda pair: pair[0], default=(0.0, row))
    if cost < (row.cost("true_gmacs") or 0.0):
        parts = [f"{cost_text(table, cheapest, key).partition(' (')[0]} {name}" for key, name in _HEADLINED]
        text += f", the cheapest of these, {cheapest.short}, {' and '.join(parts)}"
    return text


def banner(table: Table) -> str:
    """Say that the budget ranks nothing, with the spread that makes it so; "" where the budget does rank."""
    if table.ranks:
        return ""
    smoke = table.runs is not None and table.runs.budget == SMOKE_BUDGET
    text = (
        f"{'The budget smoke' if smoke else 'This budget'} ranks nothing: it is too small to tell the rows apart, so "
        "no best row, rank or correlation is given. It shows that everything runs, and how far results spread."
    )
    column = table.main
    seeds, means = [], []
    for block in table.blocks:
        cells = [m for row in block.rows if (m := row.measured[column.metric]).values]
        means += [_reach([m.mean or 0.0 for m in cells])] if len(cells) > 1 else []
        seeds += [_reach(list(m.values.values())) for m in cells if len(m.values) > 1]
    if not means:
        return text
    within = f" of one of the {len(table.blocks)} blocks" if len(table.blocks) > 1 else ""
    apart = f", seeds of one row by up to {fixed(max(seeds), column.digits)}" if seeds else ""
    return f"{text} {column.title}: the rows' means{within} differ by up to {fixed(max(means), column.digits)}{apart}."


def _reach(values: Sequence[float]) -> float:
    return max(values) - min(values)


# --- below the table ---------------------------------------------------------------------------------------------


def comparison(table: Table) -> str:
    """Say how the published numbers relate to the measured ones; "" where nothing is published."""
    if not table.has_printed:
        return ""
    printed = f"Published: {table.experiment.source}, with the paper's data and protocol."
    if table.runs is None:
        return printed
    changed = ", with the changed protocol named above" if table.protocol.changes else ""
    measured = f"Measured: {table.runs.data} at budget {table.runs.budget}{changed}."
    if table.comparable:
        return f"{printed} {measured} Same data, budget and protocol; differences are measured minus published."
    return f"{printed} {measured} These are different things, so no differences are given: compare orders, not numbers."


def agreement(table: Table) -> str:
    """Say how far the measured order agrees with the published one; "" where that cannot be said."""
    found = [
        (block.label if len(table.blocks) > 1 else "", column.title, agreed)
        for block in (table.blocks if table.ranks else ())
        for column in table.columns
        if (agreed := block.agreement.get(column.metric)) is not None and agreed.tau is not None
    ]
    counts = {agreed.rows for *_, agreed in found}
    parts: dict[str, list[str]] = {}
    for label, heading, agreed in found:
        rows = f" ({agreed.rows} rows)" if len(counts) > 1 else ""
        parts.setdefault(label, []).append(f"{heading} {fixed(agreed.tau, 2)}{rows}")
    taus = "; ".join(f"{label}: {', '.join(listed)}" if label else ", ".join(listed) for label, listed in parts.items())
    each = f" of {counts.pop()} rows" if len(counts) == 1 else ""
    said = f"Kendall's τ-b between published and measured order{each} (1 same, 0 unrelated, −1 reversed)"
    return f"{said}: {taus}." if taus else ""


def legend(table: Table, *, columns: Collection[str] = ("best_seeds", "deltas", "costs"), star: str = "★") -> list[str]:
    """Explain the signs in the table.

    Args:
        table: what is shown.
        columns: of ``best_seeds``, ``deltas`` (to the baseline) and ``costs`` those that are shown.
        star: what marks the best mean.
    """
    cells = [m for row in table.rows for m in row.measured.values()]
    ranked, tied = any(m.best for m in cells), any(m.tied for m in cells)
    intervals = [m.interval for m in cells if m.interval is not None]
    several = any(len(m.values) > 1 for m in cells)
    lines = ["mean ± sample standard deviation over seeds"] if several else []
    if ranked:
        lines.append(f"{star} best mean of the column" + (", in each block" if len(table.blocks) > 1 else ""))
    if "best_seeds" in columns and table.names_best_seeds:
        lines.append("best seed: the value of a row's best run and, in brackets, its seed")
    if "deltas" in columns and table.baseline and any(m.delta is not None for m in cells):
        known = any(m.delta_interval is not None for m in cells)
        lines.append(
            f"minus {table.baseline}: the difference to the table's baseline"
            + (", over the seeds that both have" if several else "")
            + (f"; ≈ there: its {LEVEL:.0%} interval contains 0" if known else "")
        )
    if tied:
        lines.append(
            f"≈ not significantly different from the best: the {LEVEL:.0%} interval of the difference (Student's t "
            f"over {_over(intervals)}; not corrected for the number of rows) contains 0"
        )
    elif ranked and not intervals:
        metrics = [column.metric for column in table.columns]
        compared = any(sum(bool(r.measured[m].values) for r in b.rows) > 1 for b in table.blocks for m in metrics)
        lines.append(
            "one seed and no per-image results, so it is not known which differences are real"
            if compared
            else "only one row is measured, so there is nothing to compare it with"
        )
    by_column = [(column.title, [row.measured[column.metric] for row in table.rows]) for column in table.columns]
    pooled = [name for name, column in by_column if any(m.pooled for m in column)]
    if pooled and ranked:
        lines.append(
            f"{', '.join(pooled)}: computed from all images at once, so that seeds alone say which differences are real"
        )
    return [*lines, COST_RULE] if "costs" in columns and table.done_runs else lines


def _over(intervals: Sequence[Interval]) -> str:
    """Say what intervals cover: ``60 to 68 images and 2 seeds; one seed: images only``."""
    images = {i.images for i in intervals if i.images > 1}
    seeds = {i.seeds for i in intervals if i.seeds > 1}
    over = " and ".join(f"{_range(counts)} {what}" for counts, what in ((images, "images"), (seeds, "seeds")) if counts)
    if any(i.seeds == 1 for i in intervals):
        over += "; one seed: images only" if seeds else "; one seed, so images only"
    return over


def _range(numbers: set[int]) -> str:
    return f"{min(numbers)}" if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def relative(table: Table) -> str:
    """Say what relative improvements are; "" where the table has none."""
    if table.experiment.relative_to is None:
        return ""
    said = (
        f"Improvement over {compared_with(table)}, in per cent of its number: (its - this) / its where less is better, "
        "(this - its) / its where more is. Worst metric: the smallest of them, so that a row is at least so much "
        "better in all."
    ).replace(" - ", " \N{MINUS SIGN} ")
    if not table.has_printed:
        return said
    return (
        f"{said} Published is compared with published, measured with measured; of a row that is only cited, the "
        "published number stands in for the measured one where the two are comparable."
    )


def speed(table: Table) -> str:
    """Say what columns of speed are; "" where the table has none."""
    if not any(column.is_speed for column in table.columns):
        return ""
    return (
        "Speed: of training alone, of whole batches; hours are all steps at that speed. It depends on the device, so "
        f"it is never ranked{', and published and measured are not subtracted' * table.has_printed}."
    )


def protocol(table: Table) -> str:
    """Say how the notes of an experiment file relate to the runs at hand."""
    said = "What the experiment file asks for"
    if table.runs is None or not table.done:
        return f"{said}; nothing is measured yet."
    steps = sorted({run.record.steps for _, run in table.done_runs if run.record.steps is not None})
    trained = f", {' to '.join(f'{step:,}' for step in dict.fromkeys([steps[0], steps[-1]]))} steps" if steps else ""
    ran = f"{said}. The runs at hand: {table.runs.data} at budget {table.runs.budget}{trained}"
    changes = table.protocol.changes
    named = "; ".join(changes) if len(changes) <= 2 else f"{len(changes)} settings, named below the results"
    return f"{ran}; they changed {named}." if changes else f"{ran}."


def notes(table: Table) -> list[str]:
    """Return what stands below the table and is no warning, most important first."""
    found = [comparison(table), agreement(table), expected(table), speed(table)]
    found += [*exceptions(table), *pending(table), *cited(table)]
    if table.others:
        found.append(f"Other data and budgets with runs: {', '.join(table.others)} (choose one with --data).")
    return [text for text in found if text]


def exceptions(table: Table) -> list[str]:
    """Say which rows' costs are known to disagree with the published ones, and why."""
    return _reasons("known exception", ((row.short, row.exception) for row in table.rows))


def pending(table: Table) -> list[str]:
    """Say which rows cannot be run yet, and why."""
    return _reasons("pending", ((row.short, row.pending) for row in table.rows))


def cited(table: Table) -> list[str]:
    """Say which rows are only cited, and whose numbers they are."""
    found: dict[str, dict[str, None]] = {}
    for row in table.rows:
        if row.cited:
            found.setdefault(row.cited, {})[row.short] = None
    return [f"{', '.join(names)}: cited from {source}, never run here" for source, names in found.items()]


def expected(table: Table) -> str:
    """Say how bounds are read and why none is judged; "" where the table has none."""
    cells = [m for row in table.rows for m in row.measured.values() if m.expected]
    if not cells:
        return ""
    said = "Expected: the mean should be below (>: above) the bound that the source gives"
    if any(m.judged for m in cells):
        return f"{said}; pass or fail."
    return f"{said}; judged at budget paper on the table's own data with its protocol unchanged, so not here."


def _reasons(what: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    """Write one line per reason, with the names of all rows that have it; a row of several blocks once."""
    by_reason: dict[str, dict[str, None]] = {}
    for label, reason in rows:
        by_reason.setdefault(reason, {})[label] = None
    return [f"{', '.join(names)}: {what}, {reason}" for reason, names in by_reason.items() if reason]


# --- what is missing ---------------------------------------------------------------------------------------------


def missing(table: Table) -> list[str]:
    """Say what the table lacks; empty where it is complete, or nothing is measured at all."""
    if table.runs is None:
        return []
    lines = []
    idle = [row for row in table.rows if not row.runs and not row.runs_never]
    if idle:
        named = []
        for block, rows in table.by_block(idle):
            every = len(rows) == len(block.rows) > _LISTED
            names = f"all {len(rows)} rows" if every else some([row.short for row in rows])
            named.append(f"{block.label}: {names}" if len(table.blocks) > 1 else names)
        lines.append(f"Not run: {len(idle)} of {_rows(len(table.rows))} ({'; '.join(named)}).")
    wanted = len(table.seeds)
    short = [f"{row.label} ({len(row.done)})" for row in table.rows if row.runs and len(row.done) < wanted]
    if short:
        lines.append(f"Fewer than {wanted} finished seed{'' if wanted == 1 else 's'}: {some(short)}.")
    statuses = [status for _, _, status, _ in table.problems]
    kinds = ("failed", "diverged", "unreadable", "unfinished", "new")
    if without := [f"{statuses.count(kind)} {kind}" for kind in kinds if kind in statuses]:
        lines.append(f"Runs without a result: {', '.join(without)}.")
    empty = [column.title for column in table.columns if column not in table.measured_columns]
    if empty and table.done:
        lines.append(f"No finished run has {', '.join(empty)}.")
    return lines


def problems(table: Table) -> list[tuple[str, str, str, str]]:
    """Return (row, seeds, status, reason) of runs without a result; equal ones of a row share a line.

    Rows without any run are left out: :func:`missing` names them.
    """
    lines: dict[tuple[str, str, str], list[int]] = {}
    for row, seed, status, reason in table.problems:
        if row.runs:
            lines.setdefault((row.label, status, reason), []).append(seed)
    return [(label, ", ".join(map(str, seeds)), status, reason) for (label, status, reason), seeds in lines.items()]


def status_hint(table: Table) -> str:
    """Say which command shows where the sweep stands."""
    return f"`indexnet status {table.experiment.name}` shows where the sweep stands."


def folded(table: Table) -> str:
    """Say how many rows without runs are folded away; "" where none are."""
    waiting = sum(bool(row.pending) for row in table.folded)
    only_cited = sum(bool(row.cited) for row in table.folded)
    counts = {"not run": len(table.folded) - waiting - only_cited, "pending": waiting, "cited": only_cited}
    return ", ".join(f"{_rows(number)} {what}" for what, number in counts.items() if number)


def _rows(number: int) -> str:
    return f"{number} row{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """List names; of many the first ones, and how many more there are."""
    if len(names) <= _LISTED:
        return ", ".join(names)
    return f"{', '.join(names[: _LISTED - 1])} and {len(names) - _LISTED + 1} more"
