"""Put an experiment file and its runs together: means, ranks, ties, agreement, what is missing."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from indexnet.core import statistics
from indexnet.report import provenance
from indexnet.report.provenance import check_protocol
from indexnet.report.table import SMOKE_BUDGET, Agreement, Block, Measurement, Protocol, Table, TableRow, value_of
from indexnet.run.experiments.experiment import Column, Experiment, Row, known_metrics
from indexnet.run.run_sets import Run, RunSet, read_per_image

OTHER_ROWS = "other rows"
"""The block of rows that an experiment with blocks does not know."""


def build(
    experiment: Experiment, runs: RunSet | None, others: Sequence[str] = (), protocol: Protocol | None = None
) -> Table:
    """Put an experiment file and the runs found together.

    Args:
        experiment: the experiment file.
        runs: its runs on one data set and budget, or None.
        others: other data-budget combinations, only to be named.
        protocol: what the runs changed against the experiment file; default: what :func:`check_protocol` finds.
    """
    by_row: dict[str, list[Run]] = {}
    for run in runs.runs if runs else ():
        by_row.setdefault(run.row, []).append(run)
    rows = _rows(experiment, by_row, experiment.rows_on(runs.data) if runs else experiment.rows)
    seeds = tuple(sorted({*experiment.seeds, *(run.seed for row in rows for run in row.runs)}))
    protocol = protocol or check_protocol(experiment, runs)
    columns, stand_in = _columns(experiment, rows)
    columns = _in_their_units(columns, rows)
    comparable = provenance.comparable(experiment, runs, protocol) and not stand_in
    if not comparable:
        columns = _enough_digits(columns, rows)
    ranked = experiment.ranks and not (runs is not None and runs.budget == SMOKE_BUDGET)
    labels = dict.fromkeys(row.block for row in rows)
    judged = provenance.as_expected(experiment, runs, protocol)
    blocks = tuple(
        _block(
            label,
            [row for row in rows if row.block == label],
            columns,
            ranked=ranked,
            comparable=comparable,
            judged=judged,
            baseline=experiment.reference,
        )
        for label in labels
    )
    warnings = (
        *provenance.stand_in_warnings(experiment, runs, columns, stand_in),
        *provenance.protocol_warnings(experiment, runs, protocol),
        *provenance.run_warnings(rows, columns),
    )
    return Table(
        experiment, runs, tuple(others), columns, stand_in, blocks, seeds, ranked, comparable, protocol, warnings
    )


def _rows(experiment: Experiment, by_row: Mapping[str, Sequence[Run]], on_data: Sequence[Row]) -> list[TableRow]:
    """Return the experiment's rows on the data at hand or with runs there, then those that only have runs."""
    known = {row.name: row for row in experiment.rows}
    hidden = {row.name for row in experiment.rows if row.intermediate}
    block = OTHER_ROWS if any(row.block for row in experiment.rows) else ""  # comparable with none of theirs
    others = [
        Row(name, next((run.record.label for run in by_row[name] if run.record.label), name), (), {}, block=block)
        for name in sorted(set(by_row) - set(known))
        if name.partition("--")[0] not in hidden
    ]
    exceptions = {name: experiment.exceptions.get(row.base, "") for name, row in known.items()}
    numbers: Counter[str] = Counter()
    rows = []
    for row in (*(row for row in experiment.rows if not row.intermediate), *others):
        numbers[row.block] += 1
        if row not in on_data and row.name not in by_row:
            continue
        runs, exception = tuple(by_row.get(row.name, ())), exceptions.get(row.name, "")
        rows.append(TableRow(**vars(row), number=numbers[row.block], exception=exception, runs=runs))
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
    for column in (each for each in experiment.columns if not each.is_speed):
        bases.setdefault(column.metric.rpartition("/")[2], column)
    splits = dict.fromkeys(metric.rpartition("/")[0] for metric in found if metric.rpartition("/")[2] in bases)
    known = known_metrics()
    columns = tuple(
        dataclasses.replace(
            column,
            metric=f"{split}/{base}" if split else base,
            printed="" if index else column.printed,
            expected="" if index else column.expected,
            title=f"{split} {known[base].heading if base in known else base}".strip(),
            split=split,
        )
        for index, split in enumerate(splits)
        for base, column in bases.items()
        if index == 0 or (f"{split}/{base}" if split else base) in found
    )
    columns = (*columns, *(each for each in experiment.columns if each.is_speed)) if columns else ()
    if not any(column.printed for column in experiment.columns):  # then the splits stand in for none
        return columns or experiment.columns, ""
    first = experiment.columns[0].split or (experiment.printed_data[0] if experiment.printed_data else "its own")
    return (columns, first) if columns else (experiment.columns, "")


def _in_their_units(columns: Sequence[Column], rows: Sequence[TableRow]) -> tuple[Column, ...]:
    """Head columns with the unit that the runs measured in; with none where runs of one column differ."""
    known, done = known_metrics(), [run.record.units for row in rows for run in row.done]
    found = []
    for column in columns:
        info = known.get(column.metric.rpartition("/")[2])
        units = {each.get(info.name, info.unit) for each in done} if info else set()
        if info and units - {info.unit}:
            heading = info._replace(unit=units.pop() if len(units) == 1 else "").heading
            column = dataclasses.replace(column, title=column.title.replace(info.heading, heading))
        found.append(column)
    return tuple(found)


def _enough_digits(columns: Sequence[Column], rows: Sequence[TableRow]) -> tuple[Column, ...]:
    """Give columns the decimals that show three significant digits, where the paper's are fewer.

    The paper's decimals suit its own numbers; on other data the same error may be a hundredth of it.
    """
    found = []
    for column in columns:
        values = [abs(value_of(run, column) or 0.0) for row in rows for run in row.done]
        values = sorted(value for value in values if value)
        needed = 2 - math.floor(math.log10(values[len(values) // 2])) if values else 0
        found.append(dataclasses.replace(column, digits=max(column.digits, min(needed, 6))))
    return tuple(found)


def _block(
    label: str,
    rows: Sequence[TableRow],
    columns: Sequence[Column],
    *,
    ranked: bool,
    comparable: bool,
    judged: bool,
    baseline: str | None,
) -> Block:
    """Measure, rank and compare the rows of one block with each other."""
    agreement = {}
    for column in columns:
        for row in rows:
            found = {run.seed: value_of(run, column) for run in row.done}
            values = {seed: value for seed, value in found.items() if value is not None}
            printed, expected = (row.printed.get(key, "") if key else "" for key in (column.printed, column.expected))
            row.measured[column.metric] = Measurement(
                values,
                column.higher_is_better,
                printed,
                comparable and not column.is_speed,
                expected=expected,
                judged=judged,
            )
        if column.is_speed:  # what ran elsewhere, or beside something else, is not worse for it
            continue
        cells = [row.measured[column.metric] for row in rows]
        ranks = statistics.ranks([cell.mean for cell in cells], column.higher_is_better)
        for cell, rank in zip(cells, ranks, strict=True):
            cell.rank = rank if ranked else None
        pairs = [(cell.target, cell.mean) for cell in cells if cell.target is not None and cell.mean is not None]
        if any(cell.printed for cell in cells):
            tau = statistics.kendall_tau_b([a for a, _ in pairs], [b for _, b in pairs])
            agreement[column.metric] = Agreement(tau, len(pairs))
    if ranked:
        reference = next((row for row in rows if baseline is not None and row.base == baseline), None)
        _compare(rows, [column for column in columns if not column.is_speed], reference)
    return Block(label, tuple(rows), agreement)


def _compare(rows: Sequence[TableRow], columns: Sequence[Column], baseline: TableRow | None) -> None:
    """Compare every row with the best of each column and with the baseline, image by image and seed by seed.

    Of a number that is computed from the pixels of all images at once, and where there are no per-image results, seeds
    alone are compared.
    """
    tables = {(row.name, run.seed): read_per_image(run) for row in rows for run in row.done}

    def scores(row: TableRow, metric: str) -> statistics.Scores:
        found = {run.seed: tables[row.name, run.seed].get(metric, {}) for run in row.done}
        return {seed: images for seed, images in found.items() if images}

    for column in columns:
        measured = [row.measured[column.metric] for row in rows]
        every = [scores(row, column.metric) for row in rows]
        pooled = any(_pooled(m.values, images) for m, images in zip(measured, every, strict=True))
        if pooled or any(m.values.keys() != images.keys() for m, images in zip(measured, every, strict=True)):
            every = [{seed: {"all": value} for seed, value in m.values.items()} for m in measured]
        best = next((at for at, m in enumerate(measured) if m.best), None)
        base = next((at for at, row in enumerate(rows) if row is baseline), None)
        if best is None:
            continue
        for at, m in enumerate(measured):
            m.pooled = pooled
            if m.mean is None:
                continue
            if base is not None and at != base:
                m.delta = statistics.paired_difference(m.values, measured[base].values)
                m.delta_interval = statistics.paired_interval(every[at], every[base])
            if at != best:
                m.interval = statistics.paired_interval(every[at], every[best])
                m.tied = m.interval is not None and m.interval.contains_zero and not m.best


def _pooled(values: Mapping[int, float], scores: statistics.Scores) -> bool:
    """Whether any seed's value is something else than the mean of its per-image values, beyond rounding."""
    return any(
        not math.isclose(value, fmean(scores[seed].values()), rel_tol=1e-6, abs_tol=1e-9)
        for seed, value in values.items()
        if scores.get(seed)
    )
