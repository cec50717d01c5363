"""What a report says, as data: rows in printed order, measured and printed numbers, ranks, what is missing and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexnet.report import statistics
from indexnet.report.numbers import parse_number
from indexnet.report.protocol import Protocol, check_protocol
from indexnet.report.records import Run, RunSet, read_per_image

if TYPE_CHECKING:
    from indexnet.run.experiments import Column, Experiment, Row

FULL_BUDGET = "paper"
SMOKE_BUDGET = "smoke"
"""A few steps on a few images: whatever an experiment says, nothing can be ranked with it."""

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
        printed: the paper's cell as printed, "" where there is none.
        difference: measured minus printed mean, only where the two are comparable.
    """

    values: Mapping[int, float]
    higher_is_better: bool
    rank: int | None = None
    best: bool = False
    tied: bool = False
    interval: statistics.Interval | None = None
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
        number: 1-based position, in printed order.
        name: folder-safe name.
        label: a person's name.
        pending: why it cannot be run yet; "" where it can.
        exception: why its cells are known to differ from the printed ones; "" where they are not.
        printed: the paper's raw cells by CSV column.
        runs: its runs, by seed.
        measured: metric -> measurement, one for every column of the experiment.
    """

    number: int
    name: str
    label: str
    pending: str
    exception: str
    printed: Mapping[str, str]
    runs: tuple[Run, ...]
    measured: dict[str, Measurement] = field(default_factory=dict)

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
class Table:
    """Everything that a report shows but figures and pictures.

    Attributes:
        experiment: the experiment file.
        runs: the runs that were read, None where there are none.
        others: names of other data-budget combinations that have runs.
        rows: in printed order; rows that the file does not know come last.
        seeds: seeds that a complete table has.
        agreement: metric -> agreement with the printed order, for columns with printed numbers.
        comparable: whether the measured numbers come from the printed data, budget and protocol.
        protocol: what the runs changed against the experiment file.
        problems: runs without a result.
        warnings: what makes the rows' numbers hard to compare, one sentence each.
    """

    experiment: Experiment
    runs: RunSet | None
    others: tuple[str, ...]
    rows: tuple[TableRow, ...]
    seeds: tuple[int, ...]
    agreement: Mapping[str, Agreement]
    comparable: bool
    protocol: Protocol
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    @property
    def main(self) -> Column | None:
        """The column that ranks the table: the first."""
        return self.experiment.columns[0] if self.experiment.columns else None

    @property
    def has_printed(self) -> bool:
        """Whether any row prints any number."""
        return any(row.measured[c.metric].printed for row in self.rows for c in self.experiment.columns) or any(
            row.printed.get(key) for row in self.rows for key in COST_COLUMNS
        )

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

    def reference(self) -> TableRow | None:
        """The row that parameter differences refer to."""
        return next((row for row in self.rows if row.name == self.experiment.reference), None)


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
    rows = [_row(number, row, experiment, by_row) for number, row in enumerate(experiment.rows, 1)]
    known = {row.name for row in experiment.rows}
    for name in sorted(set(by_row) - known):
        label = next((str(run.record["label"]) for run in by_row[name] if run.record.get("label")), name)
        rows.append(TableRow(len(rows) + 1, name, label, "", "", {}, tuple(by_row[name])))
    seeds = tuple(sorted({*experiment.seeds, *(run.seed for row in rows for run in row.runs)}))
    protocol = check_protocol(experiment, runs)
    comparable = _comparable(experiment, runs, protocol)
    ranked = _ranks(experiment, runs)
    agreement = {}
    for column in experiment.columns:
        _measure(rows, column, ranked, comparable)
        pairs = [
            (printed, measured)
            for row in rows
            if (printed := parse_number(row.measured[column.metric].printed)) is not None
            and (measured := row.measured[column.metric].mean) is not None
        ]
        if any(row.measured[column.metric].printed for row in rows):
            tau = statistics.kendall_tau_b([a for a, _ in pairs], [b for _, b in pairs])
            agreement[column.metric] = Agreement(tau, len(pairs))
    if ranked:
        _mark_ties(rows, experiment.columns)
    problems = tuple(_problems(rows, seeds))
    warnings = (*_protocol_warnings(experiment, runs, protocol), *_warnings(rows))
    return Table(
        experiment, runs, tuple(others), tuple(rows), seeds, agreement, comparable, protocol, problems, warnings
    )


def _row(number: int, row: Row, experiment: Experiment, by_row: Mapping[str, Sequence[Run]]) -> TableRow:
    runs = tuple(by_row.get(row.name, ()))
    return TableRow(
        number, row.name, row.label, row.pending, experiment.exceptions.get(row.name, ""), row.printed, runs
    )


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
    """Compare every row with the best of each column, image by image."""
    tables = {(row.name, run.seed): read_per_image(run) for row in rows for run in row.done}

    def scores(row: TableRow, metric: str) -> statistics.Scores:
        found = {run.seed: tables[row.name, run.seed].get(metric, {}) for run in row.done}
        return {seed: images for seed, images in found.items() if images}

    for column in columns:
        best = next((row for row in rows if row.measured[column.metric].best), None)
        if best is None:
            continue
        for row in rows:
            measurement = row.measured[column.metric]
            if row is best or measurement.mean is None:
                continue
            interval = statistics.paired_bootstrap(scores(row, column.metric), scores(best, column.metric))
            measurement.interval = interval
            measurement.tied = interval is not None and interval.contains_zero and not measurement.best


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


def _warnings(rows: Sequence[TableRow]) -> Iterable[str]:
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
