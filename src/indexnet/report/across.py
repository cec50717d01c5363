"""Several tables side by side: which of their rows is best where, and what it costs there."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from indexnet.report.numbers import NumberText, count, fixed, significant, spread
from indexnet.report.table import Block, Measurement, Table, TableRow
from indexnet.run.experiments.experiment import Column


class Price(NamedTuple):
    """What a row costs, of which less is better.

    Attributes:
        key: CSV column.
        head: heading.
        least: heading of the row that takes the least.
        value: over finished runs, see :meth:`indexnet.report.table.TableRow.cost`; None where not known.
        text: writes it.
    """

    key: str
    head: str
    least: str
    value: Callable[[TableRow], float | None]
    text: Callable[[float], str]


def _time(row: TableRow) -> float | None:
    speed = row.cost("train_samples_per_s")
    return 1000 / speed if speed else None


PRICES = (
    Price("parameters", "Parameters", "fewest parameters", lambda row: row.cost("parameters"), count),
    Price("true_gmacs", "GMACs", "fewest GMACs", lambda row: row.cost("true_gmacs"), significant),
    Price("train_ms_per_sample", "Training ms/sample", "fastest (ms/sample)", _time, significant),
    Price("peak_memory_mb", "Peak MB", "least memory (MB)", lambda row: row.cost("peak_memory_mb"), significant),
)
"""Counted, then measured; see :class:`indexnet.run.record.Record`."""

ON_FRONT = "◆"
"""Marks a cost at which no other row is as cheap and better, or cheaper and as good."""

UNKNOWN = "not known"
"""Stands for the rows that equal the best where there are no per-image results, nor several seeds, to tell."""


@dataclass(frozen=True)
class Contest:
    """Rows that are compared with each other: a table, or a block of one.

    Attributes:
        label: a short name, unique.
        table: the table.
        block: its rows.
    """

    label: str
    table: Table
    block: Block

    @property
    def column(self) -> Column:
        """The metric that ranks it."""
        return self.table.main

    @property
    def rows(self) -> list[TableRow]:
        """Rows with a number, best first."""
        sign = -1.0 if self.column.higher_is_better else 1.0
        found = [(sign * mean, row) for row in self.block.rows if (mean := self.measured(row).mean) is not None]
        return [row for _, row in sorted(found, key=lambda pair: pair[0])]

    @property
    def winners(self) -> list[TableRow]:
        """The best row, and those that do not differ significantly from it; none where the budget ranks nothing."""
        return [row for row in self.rows if self.measured(row).sign]

    def measured(self, row: TableRow) -> Measurement:
        """Return what a row of this contest has reached."""
        return row.measured[self.column.metric]

    def front(self, value: Callable[[TableRow], float | None]) -> list[TableRow]:
        """Return the rows to which no other is superior at a cost: as cheap and better, or cheaper and as good.

        Cheapest first; rows whose cost is not known are left out. Means are compared: the difference
        to a row of the front need not be significant.
        """
        found: list[TableRow] = []
        sign = -1.0 if self.column.higher_is_better else 1.0
        points = [
            (cost, sign * (self.measured(row).mean or 0.0), row)
            for row in self.rows
            if (cost := value(row)) is not None
        ]
        best = float("inf")
        last: tuple[float, float] | None = None
        for cost, loss, row in sorted(points, key=lambda point: point[:2]):
            if loss < best or (cost, loss) == last:
                found.append(row)
                best, last = loss, (cost, loss)
        return found


@dataclass(frozen=True)
class Entrant:
    """A row that several tables have.

    Attributes:
        number: 1-based place on the page.
        name: base name of the row.
        label: what people read.
        rows: label of a contest -> the row there; only where it was measured.
    """

    number: int
    name: str
    label: str
    rows: Mapping[str, TableRow]


@dataclass(frozen=True)
class Across:
    """Several tables side by side.

    Attributes:
        name: of the folder of experiments.
        tables: in the order of their names, those without runs included; one of several data sets is there for each.
        contests: of the tables that have runs.
        entrants: those that were measured anywhere: by how often they are best or not significantly worse, then by
            their mean rank.
    """

    name: str
    tables: tuple[Table, ...]
    contests: tuple[Contest, ...]
    entrants: tuple[Entrant, ...]

    @property
    def count(self) -> int:
        """How many tables they are; one of several data sets is one."""
        return len({table.experiment.name for table in self.tables})

    def places(self, entrant: Entrant) -> list[Measurement]:
        """Return what a row has reached in the contests that it took part in and that rank."""
        found = [each.measured(row) for each in self.contests if (row := entrant.rows.get(each.label))]
        return [measurement for measurement in found if measurement.rank is not None]

    def mean_rank(self, entrant: Entrant) -> float | None:
        """Return the mean rank of a row over the contests that rank it."""
        ranks = [float(m.rank) for m in self.places(entrant) if m.rank is not None]
        return fmean(ranks) if ranks else None


def put_together(name: str, tables: Sequence[Table]) -> Across:
    """Put tables side by side; rows of one base name are one entrant."""
    times = Counter(table.experiment.name for table in tables)  # more than once: of several data sets

    def label(table: Table, block: Block) -> str:
        data = table.runs.data if table.runs is not None and times[table.experiment.name] > 1 else ""
        return ", ".join(filter(None, (short_name(name, table), block.label or data)))

    contests = tuple(
        Contest(label(table, block), table, block) for table in tables if table.done for block in table.blocks
    )
    found: dict[str, dict[str, TableRow]] = {}
    for contest in contests:
        for row in contest.rows:
            found.setdefault(row.base, {})[contest.label] = row
    entrants = [Entrant(0, base, next(iter(rows.values())).short, rows) for base, rows in found.items()]
    across = Across(name, tuple(tables), contests, ())

    def order(entrant: Entrant) -> tuple[float, float]:
        places = across.places(entrant)
        return -sum(bool(m.sign) for m in places), across.mean_rank(entrant) or float("inf")

    numbered = (dataclasses.replace(each, number=number) for number, each in enumerate(sorted(entrants, key=order), 1))
    return Across(name, tuple(tables), contests, tuple(numbered))


def short_name(folder: str, table: Table) -> str:
    """Return what a table is called inside of the folder of its experiment."""
    return table.experiment.name.removeprefix(f"{folder}/")


Grid = tuple[list[str], list[list[str]]]
"""Heads and lines of text."""


def answers(across: Across) -> Grid:
    """Say for each contest what is best, what does not differ significantly from it, and which of these costs least."""
    head = ["table", "metric", "best", "not significantly different from it", *(price.least for price in PRICES)]
    lines = []
    for contest in across.contests:
        winners, column = contest.winners, contest.column
        if not winners:
            continue
        best, *others = sorted(winners, key=lambda row: not contest.measured(row).best)
        m = contest.measured(best)
        line = [contest.label, column.title, f"{best.short}, {spread(m.mean, m.sd, column.digits)}"]
        compared = contest.table.compared or len(contest.rows) == 1
        line.append(", ".join(row.short for row in others) if compared else UNKNOWN)
        for price in PRICES:
            costs = [(cost, row) for row in winners if (cost := price.value(row)) is not None]
            cost, row = min(costs, key=lambda pair: pair[0], default=(0.0, None))
            line.append(f"{row.short}, {price.text(cost)}" if row is not None else "")
        lines.append(line)
    return head, lines


def ranks(across: Across) -> Grid:
    """Give the rank of each row in each contest, with ★ for the best and ≈ for what equals it."""
    head = ["row", *(contest.label for contest in across.contests), "best or ≈", "mean rank"]
    lines = []
    for entrant in across.entrants:
        line = [entrant.label]
        for contest in across.contests:
            row = entrant.rows.get(contest.label)
            m = contest.measured(row) if row is not None else None
            rank = None if m is None else m.rank
            line.append("" if m is None or rank is None else NumberText(f"{rank} {m.sign}".rstrip(), rank))
        places = across.places(entrant)
        won = sum(bool(m.sign) for m in places)
        line += [NumberText(f"{won} of {len(places)}", won) if places else ""]
        lines.append([*line, fixed(across.mean_rank(entrant), 1)])
    return head, lines


def prices(contest: Contest) -> Grid:
    """Give quality and costs of the rows of a contest, best first; ◆ marks what is on the front of a cost."""
    column = contest.column
    arrow = "↑" if column.higher_is_better else "↓"
    head = ["row", "rank", f"{column.title} {arrow}", *(price.head for price in PRICES)]
    fronts = [{row.name for row in contest.front(price.value)} for price in PRICES]
    lines = []
    for row in contest.rows:
        m = contest.measured(row)
        line = [row.short, "" if m.rank is None else str(m.rank)]
        line.append(NumberText(f"{spread(m.mean, m.sd, column.digits)} {m.sign}".rstrip(), m.mean))
        for price, front in zip(PRICES, fronts, strict=True):
            cost = price.value(row)
            text = "" if cost is None else f"{price.text(cost)} {ON_FRONT if row.name in front else ''}".rstrip()
            line.append(NumberText(text, cost))
        lines.append(line)
    return head, lines


def shared(texts: Iterable[tuple[str, str]], labels: Sequence[str]) -> list[str]:
    """Write (label, text) as one line a text, with the labels that it is about unless it is about all."""
    about: dict[str, list[str]] = {}
    for label, text in texts:
        if text and label not in about.setdefault(text, []):
            about[text].append(label)
    return [text if len(own) == len(labels) > 1 else f"{', '.join(own)}: {text}" for text, own in about.items()]
