"""What the page of a report shows, for the template ``page.html``: one self-contained file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from markupsafe import Markup

from indexnet import __version__
from indexnet.core.metric_facts import GREY
from indexnet.core.statistics import INTERVAL, Interval
from indexnet.report import relative
from indexnet.report.across import Contest
from indexnet.report.costs import COSTS
from indexnet.report.fields import Field, cost_fields, head_of, metric_fields, title
from indexnet.report.figures.axes import Series
from indexnet.report.figures.curves import Lines, average, curve_panels, learning_curves
from indexnet.report.figures.plots import dot_plot, scatter
from indexnet.report.numbers import NumberText, fixed, signed
from indexnet.report.pictures import Strip, common, embed, samples
from indexnet.report.provenance import facts
from indexnet.report.rendering import render
from indexnet.report.table import Block, Measurement, Table, TableRow
from indexnet.run.experiments.experiment import Column
from indexnet.run.run_sets import Picture, read_curve

GENERATOR = "indexnet report"
"""Content of the page's generator tag; tells our reports from other people's files."""

_SIGNS = {"★": "best", "≈": "not significantly different from the best"}

FEW = 8
"""Rows whose learning curves can be told apart in one figure; where there are more, each has a small one as well."""


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: its content; a :class:`~indexnet.report.numbers.NumberText` is sorted by its number.
        css: its class.
        said: what a pointer on it shows.
        shown: the content with its markup, where it has any.
    """

    text: str
    css: str = ""
    said: str = ""
    shown: Markup | None = None


@dataclass(frozen=True)
class Group:
    """A column of a table, or neighbouring ones under one title.

    Attributes:
        title: over all of it.
        cells: writes a row's cells.
        names: of its columns; empty where it is a single one.
        css: class of the head of a single one.
        better: ``high`` or ``low``, where one of them is; a table is sorted by it first.
    """

    title: str
    cells: Callable[[TableRow], Iterable[Cell]] = lambda _: ()
    names: Sequence[str] = ()
    css: str = ""
    better: str = ""

    @property
    def columns(self) -> int:
        """How many columns it has."""
        return len(self.names) or 1


def page(table: Table, time: str) -> str:
    """Write the report.

    Args:
        table: what was measured.
        time: when the report is made, as text.

    Returns:
        A complete HTML document.
    """
    shown, column = _samples(table), table.main
    strips = [strip for _, blocks in shown for *_, mine in blocks for strip in mine]
    groups = {"results": _results(table), "folded": _folded(table), "seeds": _seeds(table), "costs": _costs(table)}
    improvements = relative.groups(table)
    groups["improved"] = [
        Group(name, partial(_cells, fields, start=len(fields) > 1), _names(table, fields), better="high")
        for name, fields in improvements
    ]
    series = [(block.label, _series(block, column)) for block in table.blocks]
    dots = [(label, rows) for label, rows in series if len(rows) > 1]
    return render(
        "page.html",
        table=table,
        time=time,
        version=__version__,
        generator=GENERATOR,
        facts=facts(table),
        first_group=Group("Row", css="row"),
        groups=groups,
        improved_over=relative.heading(table),
        improved=[row for row in table.rows if any(f.text(row) for _, each in improvements for f in each)],
        dots=[(label, _dots(table, column, rows)) for label, rows in dots],
        several_seeds=any(len(each.values) > 1 for _, rows in dots for _, each in rows),
        scatters=[(b.label, drawn) for b in table.blocks if (drawn := _scatters(table, b))],
        costs_input=_costs_input(table),
        numbered=list(dict.fromkeys((row.number, row.short) for row in table.rows if row.done)),
        curves=_all_curves(table),
        samples=shown,
        index_maps=any(p.kind == "index" for strip in strips for p in strip.pictures),
        unmeasured=GREY.get(table.experiment.task, ""),
        embedded=embed,
    )


# --- tables ------------------------------------------------------------------------------------------------------


def _results(table: Table) -> list[Group]:
    """Return the columns of measured and printed metrics."""
    lined = table.has_printed or table.names_best_seeds
    groups = []
    for column in table.columns:
        fields = metric_fields(table, column)
        heads = [head_of(table, field).replace(", ", ":\n") for field in fields]
        if table.has_printed:
            heads = [f"measured:\n{table.setting}" if each == "measured" else each for each in heads]
        cells = partial(_cells, fields, start=lined)
        better = "high" if column.higher_is_better else "low"
        groups.append(Group(title(column), cells, heads if len(heads) > 1 or table.has_printed else (), better=better))
    return [*groups, _seeds_run(table)]


def _seeds_run(table: Table) -> Group:
    def cells(row: TableRow) -> Iterator[Cell]:
        state = row.state(len(table.seeds), short=True)
        yield Cell(NumberText(state, None if row.runs_never else len(row.done)), "text")

    return Group("Seeds\nrun", cells, css="text")


def _folded(table: Table) -> list[Group]:
    """Return the columns that say what is published of rows without runs."""
    found = [(title(column), field) for column in table.columns for field in metric_fields(table, column)]
    found += [(cost.page, field) for cost in COSTS for field in cost_fields(table, cost)]
    printed = [(head, f) for head, f in found if f.kind == "printed" and any(map(f.text, table.folded))]
    return [*(Group(f"{head}\npublished", partial(_cells, [field])) for head, field in printed), _seeds_run(table)]


def _seeds(table: Table) -> list[Group]:
    """Return the columns of every seed and of the differences to the best; none where that says nothing."""
    if len(table.seeds) < 2 and not table.compared:
        return []

    def cells(column: Column, row: TableRow) -> Iterator[Cell]:
        m, digits = row.measured[column.metric], column.digits
        for number, seed in enumerate(table.seeds):
            text = NumberText(fixed(m.values.get(seed), digits), m.values.get(seed))
            best = table.names_best_seeds and seed == m.best_seed and len(m.values) > 1
            shown = Markup("<strong>{} ●</strong>").format(text) if best else None
            yield Cell(text, "" if number else "start", shown=shown)
        if table.compared:
            yield Cell(NumberText(_written(m.interval, digits), m.interval.low if m.interval else None))

    names = [f"seed {seed}" for seed in table.seeds] + ["minus the best"] * table.compared
    return [Group(title(column), partial(cells, column), names) for column in table.measured_columns]


def _costs(table: Table) -> list[Group]:
    """Return the columns of counted, measured and printed costs; none where there are no numbers."""
    if not any(row.done for row in table.shown) and not any(map(table.prints_cost, COSTS)):
        return []
    found = [(cost.page, cost_fields(table, cost)) for cost in COSTS if cost.page]
    return [
        Group(
            head,
            partial(_cells, fields, start=len(fields) > 1),
            _names(table, fields),
            better="high" if "samples/s" in head else "low",
        )
        for head, fields in found
    ]


def _names(table: Table, fields: Sequence[Field]) -> list[str]:
    """Return the heads of several columns under one title; none of a single one."""
    return [head_of(table, field) for field in fields] if len(fields) > 1 else []


def _cells(fields: Sequence[Field], row: TableRow, *, start: bool = False) -> Iterator[Cell]:
    """Write the cells of a group of columns; ``start`` draws a line before them."""
    for number, field in enumerate(fields):
        css = ["start"] if start and not number else []
        text, said, shown = field.text(row), "", None
        if field.kind == "printed":
            css = ["printed", *css]
        elif field.column and field.kind == "expected":
            passes = row.measured[field.column.metric].passes
            css = ["expected", *css, *(["fail"] if passes is False else ["pass"] if passes else [])]
        elif field.column and field.kind == "delta" and text:
            m, digits = row.measured[field.column.metric], field.column.digits
            shown = _with_sign(signed(m.delta, digits), m.delta_sign, "not significantly different from the baseline")
            said = f"{INTERVAL} {_written(m.delta_interval, digits)}" if m.delta_interval else ""
            css = ["delta", *css]
        elif field.column and field.kind == "measured" and text:
            m, digits = row.measured[field.column.metric], field.column.digits
            shown, said, css = _measured(m, digits), _spoken(m, digits), ["best"] * m.best + css
        yield Cell(text, " ".join(css), said, shown)


def _measured(m: Measurement, digits: int) -> Markup:
    """Write the mean, smaller the standard deviation, and the sign with its meaning for those who cannot see it."""
    sd = Markup(' <span class="sd">{}</span>').format(f"± {fixed(m.sd, digits)}" if m.sd is not None else "")
    return _with_sign(fixed(m.mean, digits) + sd, m.sign, _SIGNS.get(m.sign, ""))


def _with_sign(content: str, sign: str, meaning: str) -> Markup:
    """Write a sign, or the room for one, behind a cell's content."""
    label = Markup(' role="img" aria-label="{}"').format(meaning) if sign else ""
    return Markup('{}<span class="sign"{}>{}</span>').format(content, label, sign)


def _spoken(m: Measurement, digits: int) -> str:
    """Say what stands behind a measured cell: its rank, seeds and interval."""
    seeds = "; ".join(f"seed {seed}: {fixed(value, digits)}" for seed, value in sorted(m.values.items()))
    parts = [f"rank {m.rank}" if m.rank is not None else "", seeds]
    if m.interval is not None:
        parts.append(f"minus the best: {INTERVAL} {_written(m.interval, digits)}")
    return "; ".join(filter(None, parts))


def _written(interval: Interval | None, digits: int) -> str:
    return "" if interval is None else f"{signed(interval.low, digits)} to {signed(interval.high, digits)}"


# --- figures -----------------------------------------------------------------------------------------------------


def figure(draw: Callable[..., str], *values: Any) -> Markup:
    """Draw a figure twice, for a screen and for a phone; the style sheet shows one."""
    return Markup(f"<figure>{draw(*values)}{draw(*values, narrow=True)}</figure>")


def _series(block: Block, column: Column) -> list[tuple[TableRow, Series]]:
    found = [(row, row.measured[column.metric]) for row in block.rows]
    return [
        (row, Series(row.number, row.short, list(m.values.values()), m.mean, m.sd, m.best))
        for row, m in found
        if m.mean is not None
    ]


def _dots(table: Table, column: Column, series: Sequence[tuple[TableRow, Series]]) -> Markup:
    """Draw the rows best first, where the budget ranks them, with the baseline's mean through all."""
    better = "more" if column.higher_is_better else "less"
    rows = [each for _, each in series]
    if table.ranks:
        rows.sort(key=lambda each: each.mean, reverse=column.higher_is_better)
    base = next((each for row, each in series if table.ranks and row.base == table.experiment.reference), None)
    return figure(dot_plot, rows, f"{column.title}, {better} is better", column.digits, base)


def _scatters(table: Table, block: Block) -> Markup:
    """Draw quality against what is counted, with the rows to which none is superior."""
    drawn, column = Markup(""), table.main
    contest = Contest(block.label, table, block)
    base = [row.number for row in block.rows if row.base == table.experiment.reference]
    y_title = f"{column.title}, {'more' if column.higher_is_better else 'less'} is better"
    for key, name in (("parameters", "parameters"), ("true_gmacs", "GMACs of one image")):
        points = [(series, cost) for row, series in _series(block, column) if (cost := row.cost(key) or 0) > 0]
        front = contest.front(partial(TableRow.cost, key=key)) if table.ranks else []
        line = [(row.cost(key) or 0.0, row.measured[column.metric].mean or 0.0) for row in front]
        if len(points) > 1:
            drawn += figure(scatter, points, name, y_title, column.digits, line, base)
    return drawn


def _costs_input(table: Table) -> str:
    """Return the shape of the input that costs were counted for; "" where it is not the same for all rows."""
    shapes = {tuple(run.record.costs_input) for _, run in table.done_runs if run.record.costs_input}
    return f"{' × '.join(map(str, *shapes))} (channels, height, width)" if len(shapes) == 1 else ""


def _all_curves(table: Table) -> list[dict[str, Any]]:
    """Return the curves of the training loss, and of every metric that was measured while training."""
    wanted = {"train/loss": "training loss"}
    for column in table.columns:  # validation is one split, where tests may be several
        wanted[f"val/{column.metric.rpartition('/')[2]}"] = f"{column.title} in validation"
    return [found for key, what in wanted.items() if (found := _curves(table, key, what))]


def _curves(table: Table, key: str, what: str) -> dict[str, Any]:
    """Return curves of what was logged: one figure, or a small frame per row where there are too many lines for one."""
    rows = []
    for row in table.rows:
        curves = [curve for run in row.runs if run.status != "unreadable" and len(curve := read_curve(run, key)) > 1]
        if curves:
            rows.append((row, curves))
    if not rows:
        return {}
    several, faint = len(table.blocks) > 1, any(len(curves) > 1 for _, curves in rows)
    found: dict[str, Any] = {"what": what, "faint": faint, "key": []}
    if not several:
        lines = [(Series(row.number, row.short), curves) for row, curves in rows]
        if len(lines) > FEW:
            lines = [(each, [average(curves) or curves[0]]) for each, curves in lines]
        found |= {"key": [(s.number, s.label) for s, _ in lines], "figure": figure(learning_curves, lines, what)}
        if len(rows) <= FEW:
            return found
    drawn = {row.block for row, _ in rows}
    places = {block.label: place for place, block in enumerate(table.blocks, 1) if block.label in drawn}
    panels: dict[str, Lines] = {}
    for row, curves in rows:  # a line per block where rows are repeated
        number, label = (places[row.block], row.block) if several else (row.number, row.short)
        name = f"{row.number} {row.short}"
        panels[name] = [*panels.get(name, []), (Series(number, label), curves)]
    shared, frames = curve_panels(list(panels.items()), what, "" if several else f"all-{key.replace('/', '-')}")
    if several:
        found["key"] = [(place, label) for label, place in places.items()]
    return found | {"shared": Markup(shared), "panels": list(zip(panels, map(Markup, frames), strict=True))}


# --- pictures ----------------------------------------------------------------------------------------------------


def _samples(table: Table) -> list[tuple[str, list[tuple[str, tuple[Picture, ...], tuple[Strip, ...]]]]]:
    """Return (sample, (block, pictures to show once, strips of pictures) for every block)."""
    found = []
    for name, strips in samples(table, limit=2 if len(table.rows) <= 10 else 1):
        blocks = [(block.label, [s for s in strips if s.row.block == block.label]) for block in table.blocks]
        found.append((name, [(label, *common(mine)) for label, mine in blocks if mine]))
    return found
