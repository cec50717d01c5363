"""Several tables side by side as a page, Markdown, CSV, and in the terminal."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from indexnet import __version__
from indexnet.core.escape import csv_cell
from indexnet.report import remarks
from indexnet.report.across import (
    ON_FRONT,
    PRICES,
    UNKNOWN,
    Across,
    Contest,
    Grid,
    answers,
    prices,
    ranks,
    shared,
    short_name,
)
from indexnet.report.figures.axes import Series
from indexnet.report.figures.plots import scatter
from indexnet.report.html import GENERATOR, figure
from indexnet.report.markdown import table_of
from indexnet.report.rendering import render

if TYPE_CHECKING:
    from rich.console import Console

FRONT_RULE = (
    f"{ON_FRONT} on the front of that cost: no other row is as cheap and better, or cheaper and as good, by its mean."
)
RANKS_RULE = (
    "By the mean over seeds of each table's first metric. Sorted by how often a row is best or not "
    "significantly different from the best, then by its mean rank. An empty cell: not in that table, or not measured; "
    "the mean is over the others, so it compares little where rows are in different tables."
)
ANSWERS_RULE = (
    "The best of each table by its first metric, what does not differ significantly from it, and which of all these "
    "costs least."
)
COST_RULE = (
    "parameters and GMACs (what one image really costs, / 10⁹) are counted, for whole networks; time and memory are "
    "those of training, measured, so they can be compared on one device only"
)


def page(across: Across, time: str) -> str:
    """Write the page, a complete HTML document; ``time`` says when it is made."""
    drawn = [_figures(across, contest) for contest in across.contests]
    return render("across.html", **_content(across, drawn), time=time)


def markdown(across: Across) -> str:
    """Write the same in Markdown, without the figures."""
    drawn = [Markup("")] * len(across.contests)
    return render("across.md", **_content(across, drawn), table_of=table_of).rstrip() + "\n"


def _content(across: Across, drawn: list[Markup]) -> dict[str, Any]:
    measured = [table for table in across.tables if table.done]
    labels = [short_name(across.name, table) for table in measured]
    pairs = list(zip(labels, measured, strict=True))
    legends = ((label, text) for label, table in pairs for text in remarks.legend(table, columns=()))
    notes = [*shared(legends, labels), *([COST_RULE] if measured else [])]
    contests = [
        (each.label, _facts(each), prices(each), _warnings(each), figures)
        for each, figures in zip(across.contests, drawn, strict=True)
    ]
    return {
        "across": across,
        "title": f"Across {across.count} tables: {across.name}",
        "lead": headline(across),
        "banners": shared(((label, remarks.banner(table)) for label, table in pairs), labels),
        "answers": answers(across),
        "ranks": ranks(across),
        "numbers": {entrant.label: entrant.number for entrant in across.entrants},
        "notes": notes,
        "contests": contests,
        "front_rule": FRONT_RULE,
        "answers_rule": ANSWERS_RULE,
        "ranks_rule": RANKS_RULE,
        "generator": GENERATOR,
        "version": __version__,
    }


def _facts(contest: Contest) -> str:
    runs, table = contest.table.runs, contest.table
    where = f"{runs.data} at budget {runs.budget}" if runs is not None else ""
    return f"{table.experiment.title}: {where}, {table.done} of {table.expected} runs finished"


def _warnings(contest: Contest) -> list[str]:
    """Return what does not hold for a table; of several blocks it stands with the first."""
    table = contest.table
    return [*table.warnings, *remarks.missing(table)] if contest.block is table.blocks[0] else []


def headline(across: Across) -> str:
    """Say which row is most often best or not significantly worse, which tables lack runs or equal terms."""
    idle = [short_name(across.name, table) for table in across.tables if not table.done]
    uneven = dict.fromkeys(short_name(across.name, table) for table in across.tables if table.done and table.warnings)
    said = f" Not run: {', '.join(idle)}." if idle else ""
    said += f" Not all on equal terms, or with another protocol: {', '.join(uneven)}; see the notes." if uneven else ""
    if not across.contests:
        name = across.tables[0].experiment.chosen_by
        return f"Nothing is measured yet. `indexnet train -m {name}` runs the first table."
    counts = {entrant.label: sum(bool(m.sign) for m in across.places(entrant)) for entrant in across.entrants}
    most = max(counts.values(), default=0)
    if not most:
        return f"Nothing is ranked: the budgets are too small.{said}"
    names = [label for label, number in counts.items() if number == most]
    of = sum(bool(contest.winners) for contest in across.contests)
    verb = "is" if len(names) == 1 else "are each"
    return f"{remarks.some(names)} {verb} best, or not significantly different from the best, in {most} of {of}.{said}"


def _figures(across: Across, contest: Contest) -> Markup:
    """Draw quality against each cost with the front, where two rows or more have it."""
    column, drawn = contest.column, Markup("")
    numbers = {entrant.name: entrant.number for entrant in across.entrants}
    for price in PRICES:
        points, line = [], []
        for row in contest.rows:
            m = contest.measured(row)
            series = Series(numbers[row.base], row.short, list(m.values.values()), m.mean or 0.0, m.sd, m.best)
            points += [(series, cost)] if (cost := price.value(row)) else []
        for row in contest.front(price.value):
            line.append((price.value(row) or 0.0, contest.measured(row).mean or 0.0))
        if len(points) > 1:
            drawn += figure(scatter, points, price.head, column.title, column.digits, line)
    return drawn


def table_csv(across: Across) -> str:
    """Write one line per row of each contest: plain numbers, empty where there is none.

    ``<cost>_front`` is 1 where the row is on the front of that cost, else 0.
    """
    head = ["experiment", "task", "data", "budget", "block", "base", "row", "label", "metric", "mean", "sd", "n"]
    head += ["rank", "tied", *(name for price in PRICES for name in (price.key, f"{price.key}_front"))]
    lines: list[list[object]] = [[*head]]
    for contest in across.contests:
        table, runs = contest.table, contest.table.runs
        fronts = [{row.name for row in contest.front(price.value)} for price in PRICES]
        where = [runs.data, runs.budget] if runs is not None else ["", ""]
        for row in contest.rows:
            m = contest.measured(row)
            line: list[object] = [table.experiment.name, table.experiment.task, *where, row.block, row.base, row.name]
            line += [row.label, contest.column.metric, m.mean, m.sd, len(m.values), m.rank]
            line.append(int(m.tied) if m.rank is not None else None)
            for price, front in zip(PRICES, fronts, strict=True):
                line += [price.value(row), int(row.name in front)]
            lines.append(line)
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([[csv_cell(cell) for cell in line] for line in lines])
    return buffer.getvalue()


def show(across: Across, console: Console) -> None:
    """Print the answers and the ranks."""
    content = _content(across, [Markup("")] * len(across.contests))
    console.print(f"\n{content['title']}", style="bold", markup=False)
    for text in content["banners"]:
        console.print(text, style="yellow", markup=False)
    heads, lines = content["answers"]
    for line in lines:  # too wide for a table
        console.print(f"{line[0]} ({line[1]})", style="bold", markup=False)
        for place, (head, cell) in enumerate(zip(heads[2:], line[2:], strict=True)):
            if cell and (place < 2 or line[3] not in ("", UNKNOWN)):  # one row alone is also the cheapest
                console.print(f"  {head}: {cell}", markup=False)
    if across.entrants:
        console.print(_table(content["ranks"]))
    warnings = [f"{label}: {text}" for label, _, _, own, _ in content["contests"] for text in own]
    for text in (*content["notes"], *warnings):
        console.print(text, style="dim", markup=False)
    console.print(f"\n{content['lead']}", markup=False)


def _table(made: Grid) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, head in enumerate(made[0]):
        shown.add_column(Text(head), justify="right" if place else "left", overflow="fold", no_wrap=not place)
    for line in made[1]:
        shown.add_row(Text(line[0]), *(cell.replace(" of ", "/") for cell in line[1:]))
    return shown
