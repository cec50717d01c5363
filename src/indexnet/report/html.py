"""What the page of a report shows, for the template ``page.html``: one self-contained file without scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from indexnet import __version__
from indexnet.report import plots, remarks
from indexnet.report.numbers import fixed, signed
from indexnet.report.pictures import Strip, common, embed, samples
from indexnet.report.provenance import facts
from indexnet.report.rendering import render
from indexnet.report.table import COSTS, Block, Measurement, Table, TableRow
from indexnet.run.run_sets import Picture, read_curve

if TYPE_CHECKING:
    from indexnet.run.experiment import Column

GENERATOR = "indexnet report"
"""Content of the page's generator tag; tells our reports from other people's files."""

_SIGNS = {"★": "best", "≈": "not told apart from the best"}
_OTHER_COSTS = (
    ("true_gmacs", "GMACs"),
    ("train_samples_per_s", "Training\nsamples/s"),
    ("peak_memory_mb", "Peak MB"),
)
_UNMEASURED = {
    "segmentation": " Grey pixels of the true classes have no label and do not count.",
    "depth": " Grey pixels of error maps have no measured depth and do not count.",
}


@dataclass(frozen=True)
class Group:
    """A column of a table, or neighbouring ones under one title.

    Attributes:
        title: over all of it.
        names: of its columns; empty where it is a single one.
        css: class of the head of a single one.
        key: CSV column of its printed numbers.
        cost: record key of its counted numbers.
    """

    title: str
    names: Sequence[str] = ()
    css: str = ""
    key: str = ""
    cost: str = ""

    @property
    def columns(self) -> int:
        """How many columns it has."""
        return len(self.names) or 1


@dataclass(frozen=True)
class Curves:
    """Learning curves: one figure, or a small frame per row where there are too many lines for one."""

    key: Sequence[tuple[int, str]]
    faint: bool
    figure: Markup | None = None
    panels: Sequence[tuple[str, Markup]] = ()


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
    rows = [(block.label, _series(block, column)) for block in table.blocks]
    dots = [(label, series) for label, series in rows if len(series) > 1]
    return render(
        "page.html",
        table=table,
        time=time,
        version=__version__,
        generator=GENERATOR,
        facts=facts(table),
        colours=plots.COLOURS,
        first_group=Group("Row", css="row"),
        groups=groups,
        signs=_SIGNS,
        spoken=_spoken,
        interval=_interval,
        dots=[(label, _dots(table, column, series)) for label, series in dots if column],
        several_seeds=any(len(s.values) > 1 for _, series in dots for s in series),
        scatters=[(b.label, drawn) for b in table.blocks if column and (drawn := _scatters(b, column))],
        costs_input=_costs_input(table),
        numbered=list(dict.fromkeys((row.number, row.short) for row in table.rows if row.done)),
        curves=_curves(table),
        samples=shown,
        index_maps=any(p.kind == "index" for strip in strips for p in strip.pictures),
        unmeasured=_UNMEASURED,
        embedded=embed,
    )


# --- tables ------------------------------------------------------------------------------------------------------


def _results(table: Table) -> list[Group]:
    """Return the columns of measured and printed metrics."""
    names = {
        "printed": remarks.printed_head(table).replace(", ", ":\n"),
        "measured": f"measured:\n{table.setting}" if table.has_printed else "measured",
    }
    groups = []
    for column in table.columns:
        kinds = [names.get(kind, kind) for kind in table.kinds(column)]
        groups.append(Group(remarks.title(column), kinds if len(kinds) > 1 or table.has_printed else ()))
    return [*groups, Group("Seeds\nrun", css="text")]


def _folded(table: Table) -> list[Group]:
    """Return the columns that say what is printed of rows without runs."""
    printed = [(column.printed, remarks.title(column)) for column in table.columns if column.printed]
    printed += [(key, title) for key, _, title in COSTS]
    groups = [
        Group(f"{title}\nprinted", key=key)
        for key, title in printed
        if any(row.printed.get(key) for row in table.folded)
    ]
    return [*groups, Group("Seeds\nrun", css="text")]


def _seeds(table: Table) -> list[Group]:
    """Return the columns of every seed and of the differences to the best; none where that says nothing."""
    if len(table.seeds) < 2 and not table.compared:
        return []
    names = [f"seed {seed}" for seed in table.seeds] + ["minus the best"] * table.compared
    return [Group(remarks.title(column), names) for column in table.measured_columns]


def _costs(table: Table) -> list[Group]:
    """Return the columns of counted, measured and printed costs; none where there are no numbers."""
    if not any(row.done for row in table.shown) and not any(table.prints_cost(key) for key, *_ in COSTS):
        return []
    counted = [
        Group(title, ("printed", "counted") if table.prints_cost(key) else (), key=key, cost=cost)
        for key, cost, title in COSTS
    ]
    return [*counted, *(Group(title, cost=cost) for cost, title in _OTHER_COSTS)]


def _spoken(m: Measurement, digits: int) -> str:
    """Say what stands behind a measured cell: its rank, seeds and interval."""
    seeds = "; ".join(f"seed {seed}: {fixed(value, digits)}" for seed, value in sorted(m.values.items()))
    parts = [f"rank {m.rank}" if m.rank is not None else "", seeds]
    if m.interval is not None:
        what = "mean of the images' own numbers minus the best's" if m.pooled else "minus the best"
        parts.append(f"{what}: 95 % interval {_interval(m, digits)}")
    return "; ".join(filter(None, parts))


def _interval(m: Measurement, digits: int) -> str:
    return f"{signed(m.interval.low, digits)} to {signed(m.interval.high, digits)}" if m.interval is not None else ""


# --- figures -----------------------------------------------------------------------------------------------------


def _figure(draw: Callable[..., str], *values: Any) -> Markup:
    """Draw a figure twice, for a screen and for a phone; the style sheet shows one."""
    return Markup(f"<figure>{draw(*values)}{draw(*values, narrow=True)}</figure>")


def _series(block: Block, column: Column | None) -> list[plots.Series]:
    return [_one(row, column) for row in block.rows if column and row.measured[column.metric].mean is not None]


def _one(row: TableRow, column: Column) -> plots.Series:
    m = row.measured[column.metric]
    return plots.Series(row.number, row.short, list(m.values.values()), m.mean or 0.0, m.sd, m.best)


def _dots(table: Table, column: Column, series: Sequence[plots.Series]) -> Markup:
    better = "more" if column.higher_is_better else "less"
    return _figure(plots.dot_plot, series, f"{column.title}, {better} is better ({table.setting})", column.digits)


def _scatters(block: Block, column: Column) -> Markup:
    drawn = Markup("")
    for key, title in (("parameters", "parameters"), ("paper_gflops", "GFLOPs, the papers' counting rule")):
        points = [
            (_one(row, column), cost)
            for row in block.rows
            if row.measured[column.metric].mean is not None and (cost := row.cost(key)) is not None and cost > 0
        ]
        if len(points) > 1:
            drawn += _figure(plots.scatter, points, title, column.title, column.digits)
    return drawn


def _costs_input(table: Table) -> str:
    """Return the shape of the input that costs were counted for; "" where it is not the same for all rows."""
    shapes = [shape for _, run in table.done_runs if (shape := run.record.costs_input)]
    if len({str(shape) for shape in shapes}) != 1:
        return ""
    shape = shapes[0]
    return " × ".join(map(str, shape)) + " (channels, height, width)" if isinstance(shape, list) else str(shape)


def _curves(table: Table) -> Curves | None:
    rows = []
    for row in table.rows:
        curves = [curve for run in row.runs if run.status != "unreadable" and len(curve := read_curve(run)) > 1]
        if curves:
            rows.append((row, curves))
    if not rows:
        return None
    several, faint = len(table.blocks) > 1, any(len(curves) > 1 for _, curves in rows)
    if len(rows) <= plots.COLOURS and not several:
        lines = [(plots.Series(row.number, row.short, (), 0.0, None), curves) for row, curves in rows]
        return Curves([(s.number, s.label) for s, _ in lines], faint, _figure(plots.learning_curves, lines))
    drawn = {row.block for row, _ in rows}
    places = {block.label: place for place, block in enumerate(table.blocks, 1) if block.label in drawn}
    panels: dict[str, list[tuple[plots.Series, list[list[tuple[int, float]]]]]] = {}
    for row, curves in rows:  # a line per block where rows are repeated
        number, label = (places[row.block], row.block) if several else (row.number, row.short)
        series = plots.Series(number, label, (), 0.0, None)
        panels.setdefault(f"{row.number} {row.short}", []).append((series, curves))
    frames = map(Markup, plots.curve_panels(list(panels.items())))
    key = [(place, label) for label, place in places.items()] if several else []
    return Curves(key, faint, panels=list(zip(panels, frames, strict=True)))


# --- pictures ----------------------------------------------------------------------------------------------------


def _samples(table: Table) -> list[tuple[str, list[tuple[str, tuple[Picture, ...], tuple[Strip, ...]]]]]:
    """Return (sample, (block, pictures to show once, strips of pictures) for every block)."""
    found = []
    for name, strips in samples(table, limit=2 if len(table.rows) <= 10 else 1):
        blocks = [(block.label, [s for s in strips if s.row.block == block.label]) for block in table.blocks]
        found.append((name, [(label, *common(mine)) for label, mine in blocks if mine]))
    return found
