"""What a report says, as data: rows in printed order, measured and printed numbers, ranks, what is missing and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from indexnet.core import statistics
from indexnet.report.costs import COSTS, Cost
from indexnet.report.numbers import parse_number
from indexnet.run.experiments.experiment import Column, Experiment, Row
from indexnet.run.run_sets import Run, RunSet

SMOKE_BUDGET = "smoke"
"""A few steps on a few images: whatever an experiment says, nothing can be ranked with it."""

FOLD = 4
"""Rows without any run that are folded away where other rows have runs; fewer stay in their places."""


@dataclass
class Measurement:
    """One metric of one row over its finished seeds.

    Attributes:
        values: seed -> value, the metric's own unit.
        higher_is_better: direction of the metric.
        printed: the paper's cell as printed, "" where there is none.
        comparable: whether the two may be subtracted.
        expected: the bound that it should stay below (above, where more is better), as the file gives it; "" for none.
        judged: whether the run is one that the bound is meant for.
        rank: 1 is best among the measured rows; None where the budget ranks nothing.
        tied: not the best, but the interval of the difference to the best contains 0.
        interval: of (this - best), None where it was not computed.
        pooled: whether the values are not the means of the per-image ones, as for numbers that are computed from the
            pixels of all images at once; then intervals are over seeds alone.
        delta: mean minus that of the table's baseline, over the seeds that both have; None where there is none, for the
            baseline itself, and where the budget ranks nothing.
        delta_interval: of that difference; None where it was not computed.
    """

    values: Mapping[int, float]
    higher_is_better: bool
    printed: str
    comparable: bool
    rank: int | None = None
    tied: bool = False
    interval: statistics.Interval | None = None
    pooled: bool = False
    expected: str = ""
    judged: bool = False
    delta: float | None = None
    delta_interval: statistics.Interval | None = None

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None without a finished run."""
        return fmean(self.values.values()) if self.values else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two."""
        return statistics.sample_sd(list(self.values.values()))

    @property
    def target(self) -> float | None:
        """The printed number; None where there is none."""
        return parse_number(self.printed)

    @property
    def difference(self) -> float | None:
        """Measured minus printed mean, only where the two are comparable."""
        target, mean = self.target, self.mean
        return mean - target if self.comparable and target is not None and mean is not None else None

    @property
    def passes(self) -> bool | None:
        """Whether the mean is on the good side of the expected bound; None where that is not to be told."""
        bound, mean = parse_number(self.expected), self.mean
        if not self.judged or bound is None or mean is None:
            return None
        return mean > bound if self.higher_is_better else mean < bound

    @property
    def best(self) -> bool:
        """Whether it has rank 1."""
        return self.rank == 1

    @property
    def sign(self) -> str:
        """``★`` for the best, ``≈`` for what does not differ significantly from it, else ""."""
        return "★" if self.best else "≈" if self.tied else ""

    @property
    def delta_sign(self) -> str:
        """``≈`` where the interval of :attr:`delta` holds 0, else ""."""
        return "≈" if self.delta_interval is not None and self.delta_interval.contains_zero else ""

    @property
    def best_seed(self) -> int | None:
        """The seed with the best value; the lowest of several."""
        if not self.values:
            return None
        sign = -1.0 if self.higher_is_better else 1.0
        return min(self.values, key=lambda seed: (sign * self.values[seed], seed))


_STATUSES = ("failed", "diverged", "unreadable", "running", "new")
"""Of a run without a result, most important first."""


@dataclass(frozen=True)
class TableRow(Row):
    """One line of the table: a row of the experiment, or one that only has runs.

    Attributes:
        number: 1-based position in its block, in printed order.
        exception: why its cells are known to differ from the printed ones; "" where they are not.
        runs: its runs, by seed.
        measured: metric -> measurement, one for every column of the table.
    """

    number: int = 0
    exception: str = ""
    runs: tuple[Run, ...] = ()
    measured: dict[str, Measurement] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """The label where the block is named already."""
        return self.label.removesuffix(f", {self.block}") if self.block else self.label

    @property
    def done(self) -> list[Run]:
        """Finished runs, by seed."""
        return [run for run in self.runs if run.status == "done"]

    def cost(self, key: str) -> float | None:
        """Mean of a number of the records over finished runs, for counts the same in all; of speeds the highest.

        Other work on the machine only slows a run: the fastest seed is the least disturbed.
        """
        values = [value for run in self.done if (value := run.record.number(key)) is not None]
        return (max if key == "train_samples_per_s" else fmean)(values) if values else None

    def status(self, seeds: int) -> str:
        """Say in one word how far the row is, for programs.

        Returns:
            ``pending`` (cannot be run), ``cited`` (is never run), ``done`` (all seeds), ``partial`` (some seeds),
            ``missing`` (no run), or what its runs are without any finished one: ``failed | diverged | unreadable |
            running | new``.
        """
        if self.runs_never:
            return "pending" if self.pending else "cited"
        if self.done:
            return "done" if len(self.done) >= seeds else "partial"
        statuses = [run.status for run in self.runs]
        return min(statuses, key=_STATUSES.index, default="missing")

    def state(self, seeds: int, *, short: bool = False) -> str:
        """How far the row is: ``pending``, ``cited``, ``2 of 2 seeds``, ``1 of 2, 1 diverged`` (short: no words)."""
        if self.runs_never:
            return "pending" if self.pending else "cited"
        parts = [f"{len(self.done)} of {seeds}" + ("" if short else " seed" if seeds == 1 else " seeds")]
        for status in ("running", "failed", "diverged", "unreadable"):
            count = sum(run.status == status for run in self.runs)
            if count:
                parts.append(f"{count} {'unfinished' if status == 'running' else status}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b between the printed and the measured order of ``rows`` rows; tau None where undefined."""

    tau: float | None
    rows: int


@dataclass(frozen=True)
class Block:
    """Rows that are compared with each other: one repetition of the experiment's rows, or all.

    Attributes:
        label: what the repetition is called; "" where rows are not repeated.
        rows: in printed order.
        agreement: metric -> agreement with the printed order, for columns with printed numbers.
    """

    label: str
    rows: tuple[TableRow, ...]
    agreement: Mapping[str, Agreement]


@dataclass(frozen=True)
class Protocol:
    """What is known about the protocol of an experiment's finished runs.

    Attributes:
        changes: what differs from the experiment file at the runs' data and budget, such as
            ``training.steps 600 instead of 60000``.
        unknown: labels of rows for which it cannot be told, because the configuration of a run cannot be read or that
            of the row cannot be composed.
        borrowed: in what settings runs of other tables differ, as :func:`indexnet.run.borrowed.borrowed_remarks` says.
    """

    changes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    borrowed: tuple[str, ...] = ()

    @property
    def followed(self) -> bool:
        """Whether every finished run is known to have followed the experiment file."""
        return not self.changes and not self.unknown


@dataclass(frozen=True)
class Table:
    """Everything that a report shows but figures and pictures.

    Attributes:
        experiment: the experiment file.
        runs: the runs that were read, None where there are none.
        others: names of other data-budget combinations that have runs.
        columns: the experiment's; where the runs were tested on other splits than it names, what stands in for them.
        stand_in: the split that the printed numbers beside such columns are of; "" where nothing stands in.
        blocks: in printed order; rows that the file does not know come last.
        seeds: seeds that a complete table has.
        ranks: whether the measured numbers are good for ranks: the experiment is large enough, and so is the budget.
        comparable: whether the measured numbers come from the printed data, budget and protocol.
        protocol: what the runs changed against the experiment file.
        warnings: what makes the rows' numbers hard to compare, one sentence each.
    """

    experiment: Experiment
    runs: RunSet | None
    others: tuple[str, ...]
    columns: tuple[Column, ...]
    stand_in: str
    blocks: tuple[Block, ...]
    seeds: tuple[int, ...]
    ranks: bool
    comparable: bool
    protocol: Protocol
    warnings: tuple[str, ...]

    @property
    def rows(self) -> tuple[TableRow, ...]:
        """The rows of all blocks."""
        return tuple(row for block in self.blocks for row in block.rows)

    @property
    def folded(self) -> tuple[TableRow, ...]:
        """Rows without any run, where they are several and others have runs: formats for people fold them away."""
        idle = tuple(row for row in self.rows if not row.runs)
        return idle if FOLD <= len(idle) < len(self.rows) else ()

    @property
    def shown(self) -> tuple[TableRow, ...]:
        """The rows that are not folded away."""
        folded = {row.name for row in self.folded}
        return tuple(row for row in self.rows if row.name not in folded)

    def by_block(self, rows: Iterable[TableRow]) -> list[tuple[Block, tuple[TableRow, ...]]]:
        """Sort some of the rows into their blocks; blocks that have none of them are left out."""
        names = {row.name for row in rows}
        parts = [(block, tuple(row for row in block.rows if row.name in names)) for block in self.blocks]
        return [(block, part) for block, part in parts if part]

    @property
    def main(self) -> Column:
        """The column that ranks the table: the first."""
        return self.columns[0]

    def prints(self, column: Column) -> bool:
        """Whether any row prints a number for a column."""
        return any(row.measured[column.metric].printed for row in self.rows)

    def expects(self, column: Column) -> bool:
        """Whether any row has a bound for a column."""
        return any(row.measured[column.metric].expected for row in self.rows)

    def prints_cost(self, cost: Cost) -> bool:
        """Whether any row prints a cost."""
        return any(row.printed.get(cost.printed) for row in self.rows)

    @property
    def has_printed(self) -> bool:
        """Whether any row prints any number."""
        return any(map(self.prints, self.columns)) or any(map(self.prints_cost, COSTS))

    def kinds(self, column: Column) -> list[str]:
        """Say which of ``printed, expected, measured, best seed, difference, delta`` stand under a metric."""
        printed = self.prints(column)
        there = {
            "printed": printed,
            "expected": self.expects(column),
            "measured": True,
            "best seed": self.names_best_seeds and column is self.main,
            "difference": printed and self.comparable and not column.is_speed,
            "delta": any(row.measured[column.metric].delta is not None for row in self.rows),
        }
        return [kind for kind, given in there.items() if given]

    @property
    def measured_columns(self) -> tuple[Column, ...]:
        """The columns for which any finished run has a number."""
        return tuple(c for c in self.columns if any(row.measured[c.metric].values for row in self.rows))

    @property
    def compared(self) -> bool:
        """Whether any row was compared with the best one image by image."""
        return any(m.interval is not None for row in self.rows for m in row.measured.values())

    @property
    def done_runs(self) -> list[tuple[TableRow, Run]]:
        """Every finished run with its row."""
        return [(row, run) for row in self.rows for run in row.done]

    @property
    def several_seeds(self) -> bool:
        """Whether any row has more than one finished run."""
        return any(len(row.done) > 1 for row in self.rows)

    @property
    def names_best_seeds(self) -> bool:
        """Whether a row has several seeds to choose from, and choosing means something."""
        return self.ranks and any(len(row.measured[self.main.metric].values) > 1 for row in self.rows)

    @property
    def problems(self) -> list[tuple[TableRow, int, str, str]]:
        """Every run without a result: its row, seed, status (``missing`` and ``unfinished``, too) and the reason."""
        found = []
        for row in (row for row in self.rows if not row.runs_never):
            by_seed = {run.seed: run for run in row.runs}
            for seed in self.seeds:
                run = by_seed.get(seed)
                if run is None:
                    found.append((row, seed, "missing", "not launched yet"))
                elif run.status != "done":
                    found.append((row, seed, "unfinished" if run.status == "running" else run.status, run.reason))
        return found

    @property
    def setting(self) -> str:
        """The measured numbers' origin, for column heads: ``photos, small``; says where the protocol was changed."""
        if self.runs is None:
            return "not run"
        return f"{self.runs.data}, {self.runs.budget}" + (" (changed)" if self.protocol.changes else "")

    @property
    def done(self) -> int:
        """Finished runs of rows that can be run."""
        return sum(len(row.done) for row in self.rows if not row.runs_never)

    @property
    def expected(self) -> int:
        """Runs of a complete table."""
        return len(self.seeds) * sum(not row.runs_never for row in self.rows)

    @property
    def baseline(self) -> str:
        """Label of the table's baseline; "" where it declares none."""
        name = self.experiment.reference
        return next((row.short for row in self.rows if name is not None and row.base == name), "")

    def reference(self, row: TableRow) -> TableRow | None:
        """The row that a row's parameter difference refers to: of its own block, or of another if only that has run."""
        found = [other for other in self.rows if other.base == self.experiment.reference]
        return min(found, key=lambda other: (not other.done, other.block != row.block), default=None)


def value_of(run: Run, column: Column) -> float | None:
    """Return what a finished run has for a column: a metric, or how fast it trained; None where it has nothing."""
    return run.record.throughput(column.metric) if column.is_speed else run.metrics.get(column.metric)
