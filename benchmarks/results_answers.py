"""The answers of the page of measured results: what is best at its cost, and what each operator reached where."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from results import Result

from indexnet.report.across import PRICES, Contest
from indexnet.report.numbers import count, significant, spread
from indexnet.report.table import Block, TableRow
from indexnet.run.experiments.experiment import Column

(GMACS,) = (price for price in PRICES if price.key == "true_gmacs")


def answers_text(results: Iterable[Result]) -> str:
    """Return a table with the rows of each table that are best at their cost, the cheapest first."""
    lines = [["Table", "Row", "Result", "GMACs", "Parameters", "Training samples/s"]]
    lines.append(["---", "---", *["---:"] * 4])
    for result in results:
        column = result.table.main
        for block in result.table.blocks:
            contest = Contest("", result.table, block)
            if len(contest.rows) < 2 or not result.table.ranks:
                continue
            about = _about(result, block, contest)
            for row in contest.front(GMACS.value):
                speed = row.cost("train_samples_per_s")
                lines.append([
                    about,
                    row.short,
                    with_mark(result, row, column),
                    GMACS.text(GMACS.value(row) or 0.0),
                    count(row.cost("parameters")),
                    significant(speed) if speed else "",
                ])  # fmt: skip
                about = ""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _about(result: Result, block: Block, contest: Contest) -> str:
    """Say which table it is, what it measures, and on how many rows and seeds its ★ and ≈ stand."""
    column = result.table.main
    seeds = sorted({len(row.done) for row in contest.rows})
    said = [
        f"{column.title} {'↑' if column.higher_is_better else '↓'}",
        f"{len(contest.rows)} of {sum(not row.runs_never for row in block.rows)} rows",
        f"{' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seed{'' if seeds == [1] else 's'}",
    ]
    best, *others = (contest.measured(row).values.keys() for row in contest.rows)
    compared = sum(bool(result.reported[row.name][f"{column.metric}_interval_low"]) for row in contest.rows)
    if not compared:
        said.append("one seed of the best, so what equals it is not known")
    elif compared < len(others):
        said.append(f"≈ known of {compared} rows")
    elif not any(len(best & each) > 1 for each in others):
        said.append("≈ over test images alone")
    label = f"[{result.table.experiment.title}{f', {block.label}' if block.label else ''}](#{result.name})"
    return f"{label}: {', '.join(said)}"


def across_text(results: Iterable[Result]) -> str:
    """Say what each operator reached in each table, where several tables have it: its best row there, and the place."""
    contests = [
        (result, block)
        for result in results
        for block in result.table.blocks
        if len({_operator(row) for row in block.rows if row.done}) > 1
    ]
    found: dict[str, dict[int, TableRow]] = {}
    for at, (result, block) in enumerate(contests):
        for row in Contest("", result.table, block).rows[::-1]:  # the best of an operator's rows last, so that it stays
            found.setdefault(_operator(row), {})[at] = row
    shown = {name: places for name, places in found.items() if len(places) > 1}
    if not shown:
        return ""
    heads = [f"[{result.short}](#{result.name})" for result, _ in contests]
    lines = [["Operator", *heads], ["---"] * (len(heads) + 1)]
    for name, places in sorted(
        shown.items(), key=lambda pair: fmean(_share(contests[at], row) for at, row in pair[1].items())
    ):
        cells = [_place(contests[at], places[at]) if at in places else "" for at in range(len(contests))]
        lines.append([f"`{name}`", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _operator(row: TableRow) -> str:
    """Name what is compared across tables: kernels of one tap weigh or copy a cell, and are another operator."""
    options = row.done[0].record.resampling
    name = str(options.get("family") or options["name"])
    return f"{name} k_up=1" if options.get("k_up") == 1 else name


def _order(contest: tuple[Result, Block]) -> list[TableRow]:
    best: dict[str, TableRow] = {}
    for row in Contest("", contest[0].table, contest[1]).rows:
        best.setdefault(_operator(row), row)
    return list(best.values())


def _share(contest: tuple[Result, Block], row: TableRow) -> float:
    """How far down the order a row is, from 0 (best) to 1."""
    order = _order(contest)
    return order.index(row) / (len(order) - 1)


def _place(contest: tuple[Result, Block], row: TableRow) -> str:
    result, _ = contest
    column, order = result.table.main, _order(contest)
    return f"{with_mark(result, row, column)} ({order.index(row) + 1} of {len(order)})"


def with_mark(result: Result, row: TableRow, column: Column) -> str:
    """Write mean and spread, with ★ for the best row and ≈ for what may be as good."""
    m = row.measured[column.metric]
    return f"{spread(m.mean, m.sd, column.digits)} {_sign(result, row, column)}".rstrip()


def _sign(result: Result, row: TableRow, column: Column) -> str:
    """★ for the best, ≈ for what images and seeds cannot tell from it, as the report found."""
    line = result.reported[row.name]
    if line[f"{column.metric}_rank"] == "1":
        return "★"
    return "≈" if line[f"{column.metric}_tied"] == "1" else ""
