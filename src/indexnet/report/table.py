"""What a report says, as data: rows in printed order, measured and printed numbers, ranks, what is missing and why."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexnet.report import statistics
from indexnet.report.numbers import parse_number
from indexnet.report.protocol import Protocol, check_protocol
from indexnet.report.records import Run, RunSet, read_per_image

if TYPE_CHECKING:
    from indexnet.run.experiments import Column, Experiment

FULL_BUDGET = "paper"
SMOKE_BUDGET = "smoke"
"""A few steps on a few images: whatever an experiment says, nothing can be ranked with it."""

OTHER_ROWS = "other rows"
"""The block of rows that an experiment with blocks does not know."""

COST_COLUMNS = ("params", "gflops")
"""CSV columns of printed costs; shown raw beside the counted ones."""


@dataclass
class Measurement:
    """One metric of one row over its finished seeds.

    Attributes:
        values: seed -> value, the metric's own unit.
        higher_is_better: direction of the metric.
        rank: 1 is best among the measured rows; None where the budget ranks nothing.
        best: whether it has rank 1.
        tied: not the best, but a paired bootstrap cannot tell it from the best.
        interval: of (this - best), None where it was not computed.
        pooled: whether the values are not the means of the per-image ones, as for numbers that are computed from the
            pixels of all images at once; the interval is of those means nevertheless.
        printed: the paper's cell as printed, "" where there is none.
        difference: measured minus printed mean, only where the two are comparable.
    """

    values: Mapping[int, float]
    higher_is_better: bool
    rank: int | None = None
    best: bool = False
    tied: bool = False
    interval: statistics.Interval | None = None
    pooled: bool = False
    printed: str = ""
    difference: float | None = None

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None without a finished run."""
        return statistics.mean(list(self.values.values())) if self.values else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two."""
        return statistics.sample_sd(list(self.values.values()))

    @property
    def best_seed(self) -> int | None:
        """The seed with the best value; the lowest of several."""
        if not self.values:
            return None
        sign = -1.0 if self.higher_is_better else 1.0
        return min(self.values, key=lambda seed: (sign * self.values[seed], seed))


@dataclass(frozen=True)
class Problem:
    """A run without a result: its row's label, seed, status (``missing`` included) and the reason."""

    label: str
    seed: int
    status: str
    reason: str


@dataclass
class TableRow:
    """One line of the table.

    Attributes:
        number: 1-based position in its block, in printed order.
        name: folder-safe name.
        label: a person's name, with the block's.
        pending: why it cannot be run yet; "" where it can.
        exception: why its cells are known to differ from the printed ones; "" where they are not.
        printed: the paper's raw cells by CSV column.
        runs: its runs, by seed.
        block: which repetition of the experiment's rows it belongs to; "" where they are not repeated.
        base: what it is called in every block; its name where rows are not repeated.
        measured: metric -> measurement, one for every column of the table.
    """

    number: int
    name: str
    label: str
    pending: str
    exception: str
    printed: Mapping[str, str]
    runs: tuple[Run, ...]
    block: str = ""
    base: str = ""
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
        """Mean of a number of the records over finished runs (identical in all of them for counts)."""
        values = [value for run in self.done if (value := run.number(key)) is not None]
        return statistics.mean(values) if values else None

    def state(self, seeds: int) -> str:
        """How far the row is: ``pending``, ``2 of 2 seeds``, ``1 of 2 seeds, 1 diverged``."""
        if self.pending:
            return "pending"
        parts = [f"{len(self.done)} of {seeds} seed{'' if seeds == 1 else 's'}"]
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
        comparable: whether the measured numbers come from the printed data, budget and protocol.
        protocol: what the runs changed against the experiment file.
        problems: runs without a result.
        warnings: what makes the rows' numbers hard to compare, one sentence each.
    """

    experiment: Experiment
    runs: RunSet | None
    others: tuple[str, ...]
    columns: tuple[Column, ...]
    stand_in: str
    blocks: tuple[Block, ...]
    seeds: tuple[int, ...]
    comparable: bool
    protocol: Protocol
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    @property
    def rows(self) -> tuple[TableRow, ...]:
        """The rows of all blocks."""
        return tuple(row for block in self.blocks for row in block.rows)

    @property
    def main(self) -> Column | None:
        """The column that ranks the table: the first."""
        return self.columns[0] if self.columns else None

    def prints(self, column: Column) -> bool:
        """Whether any row prints a number for a column."""
        return any(row.measured[column.metric].printed for row in self.rows)

    def prints_cost(self, key: str) -> bool:
        """Whether any row prints a cost; ``key`` as in ``COST_COLUMNS``."""
        return any(row.printed.get(key) for row in self.rows)

    @property
    def has_printed(self) -> bool:
        """Whether any row prints any number."""
        return any(map(self.prints, self.columns)) or any(map(self.prints_cost, COST_COLUMNS))

    @property
    def ranks(self) -> bool:
        """Whether the measured numbers are good for ranks at all."""
        return _ranks(self.experiment, self.runs)

    @property
    def setting(self) -> str:
        """The measured numbers' origin, for column heads: ``photos, small``; says where the protocol was changed."""
        if self.runs is None:
            return "not run"
        return f"{self.runs.data}, {self.runs.budget}" + (" (changed)" if self.protocol.changes else "")

    @property
    def done(self) -> int:
        """Finished runs of rows that can be run."""
        return sum(len(row.done) for row in self.rows if not row.pending)

    @property
    def expected(self) -> int:
        """Runs of a complete table."""
        return len(self.seeds) * sum(not row.pending for row in self.rows)

    def reference(self, row: TableRow) -> TableRow | None:
        """The row that a row's parameter difference refers to: of its own block, or of another if only that has run."""
        found = [other for other in self.rows if other.base == self.experiment.reference]
        return min(found, key=lambda other: (not other.done, other.block != row.block), default=None)


def build(experiment: Experiment, runs: RunSet | None, others: Sequence[str] = ()) -> Table:
    """Put an experiment file and the runs found together.

    Args:
        experiment: the experiment file.
        runs: its runs on one data set and budget, or None.
        others: other data-budget combinations, only to be named.
    """
    by_row: dict[str, list[Run]] = {}
    for run in runs.runs if runs else ():
        by_row.setdefault(run.row, []).append(run)
    rows = _rows(experiment, by_row)
    seeds = tuple(sorted({*experiment.seeds, *(run.seed for row in rows for run in row.runs)}))
    protocol = check_protocol(experiment, runs)
    columns, stand_in = _columns(experiment, rows)
    comparable = _comparable(experiment, runs, protocol) and not stand_in
    ranked = _ranks(experiment, runs)
    labels = dict.fromkeys(row.block for row in rows)
    blocks = tuple(
        _block(label, [row for row in rows if row.block == label], columns, ranked, comparable) for label in labels
    )
    problems = tuple(_problems(rows, seeds))
    warnings = (
        *_stand_in_warnings(experiment, runs, columns, stand_in),
        *_protocol_warnings(experiment, runs, protocol),
        *_warnings(rows, columns),
    )
    return Table(
        experiment, runs, tuple(others), columns, stand_in, blocks, seeds, comparable, protocol, problems, warnings
    )


def _rows(experiment: Experiment, by_row: Mapping[str, Sequence[Run]]) -> list[TableRow]:
    """Return the experiment's rows, then those that only have runs."""
    rows: list[TableRow] = []
    numbers: dict[str, int] = {}

    def number(block: str) -> int:
        numbers[block] = numbers.get(block, 0) + 1
        return numbers[block]

    for row in experiment.rows:
        exception, runs = experiment.exceptions.get(row.base, ""), tuple(by_row.get(row.name, ()))
        rows.append(
            TableRow(
                number(row.block), row.name, row.label, row.pending, exception, row.printed, runs, row.block, row.base
            )
        )
    repeated = any(row.block for row in rows)
    for name in sorted(set(by_row) - {row.name for row in rows}):
        label = next((str(run.record["label"]) for run in by_row[name] if run.record.get("label")), name)
        block = OTHER_ROWS if repeated else ""  # a row without a block is comparable with none of theirs
        rows.append(TableRow(number(block), name, label, "", "", {}, tuple(by_row[name]), block, name))
    return rows


def _columns(experiment: Experiment, rows: Sequence[TableRow]) -> tuple[tuple[Column, ...], str]:
    """Return the columns to show, and the split whose printed numbers stand beside those of other splits.

    An experiment names the test splits of its printed data set. On a data set with others, or with one that has no
    name, every split that the runs were tested on gets the experiment's metrics as columns; the printed numbers of the
    experiment's first split go beside those of the first.
    """
    found = list(dict.fromkeys(metric for row in rows for run in row.done for metric in run.metrics))
    metrics = {column.metric: column for column in experiment.columns}
    if not found or any(metric in metrics for metric in found):
        return experiment.columns, ""
    bases: dict[str, Column] = {}
    for column in experiment.columns:
        bases.setdefault(column.metric.rpartition("/")[2], column)
    splits = dict.fromkeys(metric.rpartition("/")[0] for metric in found if metric.rpartition("/")[2] in bases)
    columns = tuple(
        dataclasses.replace(
            column,
            metric=f"{split}/{base}" if split else base,
            printed="" if index else column.printed,
            title=f"{split} {_title(base)}".strip(),
            split=split,
        )
        for index, split in enumerate(splits)
        for base, column in bases.items()
        if index == 0 or (f"{split}/{base}" if split else base) in found
    )
    first = experiment.columns[0].split or (experiment.printed_data[0] if experiment.printed_data else "its own")
    return (columns, first) if columns else (experiment.columns, "")


def _title(metric: str) -> str:
    """Return a metric's heading, without any split."""
    from indexnet.metrics import list_metrics

    info = next((info for info in list_metrics() if info.name == metric), None)
    if info is None:
        return metric
    return f"{info.title} ({info.unit})" if info.unit else info.title


def _stand_in_warnings(
    experiment: Experiment, runs: RunSet | None, columns: Sequence[Column], stand_in: str
) -> Iterable[str]:
    if not stand_in or runs is None:
        return
    wanted = list(dict.fromkeys(column.split for column in experiment.columns if column.split))
    tested = list(dict.fromkeys(column.split for column in columns if column.split))
    asked = f"the test splits {' and '.join(wanted)}" if wanted else "one test split"
    there = f"the test splits {' and '.join(tested)}" if tested else "one test split"
    yield f"The table is printed for {asked}; {runs.data} has {there}, whose numbers stand in for them."


def _block(label: str, rows: Sequence[TableRow], columns: Sequence[Column], ranked: bool, comparable: bool) -> Block:
    """Measure, rank and compare the rows of one block with each other."""
    agreement = {}
    for column in columns:
        _measure(rows, column, ranked, comparable)
        cells = [row.measured[column.metric] for row in rows]
        pairs = [
            (printed, cell.mean)
            for cell in cells
            if (printed := parse_number(cell.printed)) is not None and cell.mean is not None
        ]
        if any(cell.printed for cell in cells):
            tau = statistics.kendall_tau_b([a for a, _ in pairs], [b for _, b in pairs])
            agreement[column.metric] = Agreement(tau, len(pairs))
    if ranked:
        _mark_ties(rows, columns)
    return Block(label, tuple(rows), agreement)


def _ranks(experiment: Experiment, runs: RunSet | None) -> bool:
    return experiment.ranks and not (runs is not None and runs.budget == SMOKE_BUDGET)


def _printed_setting(experiment: Experiment, runs: RunSet | None) -> bool:
    return runs is not None and runs.budget == FULL_BUDGET and runs.data in experiment.printed_data


def _comparable(experiment: Experiment, runs: RunSet | None, protocol: Protocol) -> bool:
    """Whether measured and printed numbers may be subtracted: the printed data set, nothing scaled down or changed."""
    return _printed_setting(experiment, runs) and protocol.followed


def _protocol_warnings(experiment: Experiment, runs: RunSet | None, protocol: Protocol) -> Iterable[str]:
    if protocol.changes:
        yield f"The runs do not follow the experiment's protocol: {', '.join(protocol.changes)}."
    if protocol.unknown and _printed_setting(experiment, runs):  # elsewhere nothing hangs on it
        yield (
            f"Whether the runs follow the experiment's protocol cannot be told for {_some(protocol.unknown)}: "
            "config.yaml of a run cannot be read, or the experiment cannot be composed."
        )


def _measure(rows: Sequence[TableRow], column: Column, ranked: bool, comparable: bool) -> None:
    for row in rows:
        values = {run.seed: run.metrics[column.metric] for run in row.done if column.metric in run.metrics}
        printed = row.printed.get(column.printed, "") if column.printed else ""
        measurement = Measurement(values, column.higher_is_better, printed=printed)
        target, mean = parse_number(printed), measurement.mean
        if comparable and target is not None and mean is not None:
            measurement.difference = mean - target
        row.measured[column.metric] = measurement
    if ranked:
        means = [row.measured[column.metric].mean for row in rows]
        for row, rank in zip(rows, statistics.ranks(means, column.higher_is_better), strict=True):
            row.measured[column.metric].rank = rank
            row.measured[column.metric].best = rank == 1


def _mark_ties(rows: Sequence[TableRow], columns: Sequence[Column]) -> None:
    """Compare every row with the best of each column, image by image.

    Where a number is computed from the pixels of all images at once, per-image values say less: a row whose per-image
    values are better on average than those of the best row is not told apart from it.
    """
    tables = {(row.name, run.seed): read_per_image(run) for row in rows for run in row.done}

    def scores(row: TableRow, metric: str) -> statistics.Scores:
        found = {run.seed: tables[row.name, run.seed].get(metric, {}) for run in row.done}
        return {seed: images for seed, images in found.items() if images}

    for column in columns:
        every = {row.name: scores(row, column.metric) for row in rows}
        best = next((row for row in rows if row.measured[column.metric].best), None)
        if best is None:
            continue
        pooled = any(_pooled(row.measured[column.metric].values, every[row.name]) for row in rows)
        for row in rows:
            measurement = row.measured[column.metric]
            measurement.pooled = pooled
            if row is best or measurement.mean is None:
                continue
            interval = statistics.paired_bootstrap(every[row.name], every[best.name])
            measurement.interval = interval
            if interval is not None and not measurement.best:
                reversed_ = interval.low > 0 if column.higher_is_better else interval.high < 0
                measurement.tied = interval.contains_zero or reversed_


def _pooled(values: Mapping[int, float], scores: statistics.Scores) -> bool:
    """Whether any seed's value is something else than the mean of its per-image values, beyond rounding."""
    return any(
        not math.isclose(value, statistics.mean(list(scores[seed].values())), rel_tol=1e-6, abs_tol=1e-9)
        for seed, value in values.items()
        if scores.get(seed)
    )


def _problems(rows: Iterable[TableRow], seeds: Sequence[int]) -> Iterable[Problem]:
    for row in rows:
        if row.pending:
            continue
        by_seed = {run.seed: run for run in row.runs}
        for seed in seeds:
            run = by_seed.get(seed)
            if run is None:
                yield Problem(row.label, seed, "missing", "not launched yet")
            elif run.status != "done":
                yield Problem(row.label, seed, "unfinished" if run.status == "running" else run.status, run.reason)


def _warnings(rows: Sequence[TableRow], columns: Sequence[Column]) -> Iterable[str]:
    """What differs between finished runs although a table needs it equal."""
    finished = [(row, run) for row in rows for run in row.done]
    checks = {
        "training steps": lambda run: run.record.get("steps"),
        "batch sizes": lambda run: run.nested("training", "batch_size"),
        "test images": lambda run: run.record.get("test_count"),
        "test data (fingerprints)": lambda run: run.nested("data", "test", "fingerprint"),
        "training data (fingerprints)": lambda run: run.nested("data", "train", "fingerprint"),
    }
    for what, get in checks.items():
        groups: dict[str, list[str]] = {}
        for row, run in finished:
            value = get(run)
            if value is not None:
                labels = groups.setdefault(str(value)[:12], [])
                if row.label not in labels:
                    labels.append(row.label)
        if len(groups) > 1:
            listed = "; ".join(f"{value}: {_some(labels)}" for value, labels in groups.items())
            yield f"The runs differ in their {what} ({listed}), so their numbers are not on equal terms."
    counts: dict[int, list[str]] = {}
    for row in rows:
        if row.done:
            counts.setdefault(len(row.done), []).append(row.label)
    if len(counts) > 1:
        listed = "; ".join(f"{count}: {_some(labels)}" for count, labels in sorted(counts.items()))
        yield f"The rows have different numbers of finished seeds ({listed})."
    for column in columns:
        empty = [row.label for row in rows if row.done and row.measured[column.metric].mean is None]
        if empty and len(empty) < sum(bool(row.done) for row in rows):
            yield f"{column.title}: the finished runs of {_some(empty)} have no such number."


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels) if len(labels) <= 4 else f"{len(labels)} rows"


def facts(table: Table) -> list[tuple[str, str]]:
    """Say on what the measured numbers stand: data, budget, steps, seeds, hardware, time."""
    runs = [run for row in table.rows for run in row.done]

    def distinct(values: Iterable[object]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))

    if table.runs is None:
        return [("Measured", "nothing yet: there are no runs")]
    train = distinct(run.nested("data", "train", "count") for run in runs)
    test = distinct(run.record.get("test_count") or run.nested("data", "test", "count") for run in runs)
    splits = next((found for run in runs if isinstance(found := run.nested("data", "test", "splits"), Mapping)), {})
    if splits:
        test += f" ({', '.join(map(str, splits))})"
    sizes = [f"{train} training samples" if train else "", f"tested on {test}" if test else ""]
    steps = distinct(run.record.get("steps") for run in runs)
    batch = distinct(run.nested("training", "batch_size") for run in runs)
    training = [f"{steps} steps" if steps else "", f"batch {batch}" if batch else ""]
    days = sorted(str(run.record.get("finished") or "")[:10] for run in runs if run.record.get("finished"))
    seconds = [value for run in runs if (value := run.number("wall_time_s")) is not None]
    versions = [f"{name} {distinct(run.nested('versions', name) for run in runs)}" for name in ("indexnet", "torch")]
    full = "the full protocol" if table.has_printed else "full, as the experiment file says"
    if table.protocol.changes:
        full = "nothing capped, but the protocol is changed"
    found = [
        ("Data", ": ".join(filter(None, [table.runs.data, ", ".join(filter(None, sizes))]))),
        ("Budget", table.runs.budget + (f" ({full})" if table.runs.budget == FULL_BUDGET else "")),
        ("Protocol", f"changed: {', '.join(table.protocol.changes)}" if table.protocol.changes else ""),
        ("Training", ", ".join(filter(None, training))),
        ("Seeds", ", ".join(map(str, table.seeds))),
        ("Runs finished", f"{table.done} of {table.expected}"),
        ("Hardware", distinct(run.record.get("device") for run in runs)),
        ("Measured on", " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""),
        ("Time", f"{sum(seconds) / 60:.1f} min of run time in all" if seconds else ""),
        ("Versions", ", ".join(text for text in versions if not text.endswith(" "))),
    ]
    return [(name, text) for name, text in found if text]
