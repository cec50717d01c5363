"""On what measured numbers stand: facts, and what makes them hard to compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from indexnet.report.protocol import Protocol
from indexnet.report.table import FULL_BUDGET, Table, TableRow
from indexnet.run.run_sets import RunSet

if TYPE_CHECKING:
    from indexnet.run.experiment import Column, Experiment


VALIDATION = "validation"
"""The ``split`` of records of runs that were not measured on test data."""


def _printed_setting(experiment: Experiment, runs: RunSet | None) -> bool:
    return runs is not None and runs.budget == FULL_BUDGET and runs.data in experiment.printed_data


def comparable(experiment: Experiment, runs: RunSet | None, protocol: Protocol) -> bool:
    """Whether measured and printed numbers may be subtracted: the printed test data, nothing scaled down or changed."""
    return _printed_setting(experiment, runs) and protocol.followed and not _validated(runs)


def _validated(runs: RunSet | None) -> bool:
    """Whether any finished run was measured on validation instead of test data."""
    return any(run.status == "done" and run.record.split == VALIDATION for run in (runs.runs if runs else ()))


def stand_in_warnings(
    experiment: Experiment, runs: RunSet | None, columns: Sequence[Column], stand_in: str
) -> Iterable[str]:
    """Say which test splits stand in for those that the table is printed for."""
    if not stand_in or runs is None:
        return
    wanted = list(dict.fromkeys(column.split for column in experiment.columns if column.split))
    tested = list(dict.fromkeys(column.split for column in columns if column.split))
    asked = f"the test splits {' and '.join(wanted)}" if wanted else "one test split"
    there = f"the test splits {' and '.join(tested)}" if tested else "one test split"
    yield f"The table is printed for {asked}; {runs.data} has {there}, whose numbers stand in for them."


def protocol_warnings(experiment: Experiment, runs: RunSet | None, protocol: Protocol) -> Iterable[str]:
    """Say what the runs changed against the experiment file, and where that cannot be told."""
    if protocol.changes:
        yield f"The runs do not follow the experiment's protocol: {', '.join(protocol.changes)}."
    if protocol.unknown and _printed_setting(experiment, runs):  # elsewhere nothing hangs on it
        yield (
            f"Whether the runs follow the experiment's protocol cannot be told for {_some(protocol.unknown)}: "
            "config.yaml of a run cannot be read, an earlier version made it, or the experiment could not be composed."
        )


def run_warnings(rows: Sequence[TableRow], columns: Sequence[Column]) -> Iterable[str]:
    """What differs between finished runs although a table needs it equal."""
    finished = [(row, run) for row in rows for run in row.done]
    checks = {
        "training steps": lambda run: run.record.steps,
        "batch sizes": lambda run: run.record.training.get("batch_size"),
        "test images": lambda run: run.record.test_count,
        "test data (fingerprints)": lambda run: run.record.data.test.fingerprint,
        "training data (fingerprints)": lambda run: run.record.data.train.fingerprint,
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
    validated = [row.label for row, run in finished if run.record.split == VALIDATION]
    if validated:
        yield f"Measured on validation data instead of test data: {_some(list(dict.fromkeys(validated)))}."
    devices = dict.fromkeys(run.record.device for _, run in finished if run.record.device)
    if len(devices) > 1:
        yield f"The runs were made on different devices ({', '.join(devices)}), so their samples/s are not comparable."
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
    train = distinct(run.record.data.train.count for run in runs)
    test = distinct(run.record.test_count or run.record.data.test.count for run in runs)
    splits = next((run.record.data.test.splits for run in runs if run.record.data.test.splits), {})
    if splits:
        test += f" ({', '.join(map(str, splits))})"
    sizes = [f"{train} training samples" if train else "", f"tested on {test}" if test else ""]
    steps = distinct(run.record.steps for run in runs)
    batch = distinct(run.record.training.get("batch_size") for run in runs)
    training = [f"{steps} steps" if steps else "", f"batch {batch}" if batch else ""]
    days = sorted(run.record.finished[:10] for run in runs if run.record.finished)
    seconds = [value for run in runs if (value := run.record.number("wall_time_s")) is not None]
    versions = [f"{name} {distinct(run.record.versions.get(name) for run in runs)}" for name in ("indexnet", "torch")]
    full = "the full protocol" if table.has_printed else "full, as the experiment file says"
    if table.protocol.changes:
        full = "nothing capped, but the protocol is changed"
    found = [
        ("Data", ": ".join(filter(None, [table.runs.data, ", ".join(filter(None, sizes))]))),
        ("Budget", table.runs.budget + (f" ({full})" if table.runs.budget == FULL_BUDGET else "")),
        ("Protocol", _changes(table.protocol.changes)),
        ("Training", ", ".join(filter(None, training))),
        ("Against the printed protocol", "; ".join(_recorded_changes(table))),
        ("Seeds", ", ".join(map(str, table.seeds))),
        ("Runs finished", f"{table.done} of {table.expected}"),
        ("Hardware", distinct(run.record.device for run in runs)),
        ("Measured on", " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""),
        ("Time", f"{sum(seconds) / 60:.1f} min of run time in all" if seconds else ""),
        ("Versions", ", ".join(text for text in versions if not text.endswith(" "))),
    ]
    return [(name, text) for name, text in found if text]


def _changes(changes: Sequence[str]) -> str:
    if len(changes) > 2:
        return f"{len(changes)} settings changed, named below the table"
    return f"changed: {', '.join(changes)}" if changes else ""


def _recorded_changes(table: Table) -> list[str]:
    """Return what the runs themselves recorded as changed, with the number of runs where it is not all of them."""
    runs = [run for row in table.rows for run in row.done]
    counts: dict[str, int] = {}
    for run in runs:
        for change in map(str, run.record.changes):
            counts[change] = counts.get(change, 0) + 1
    return [text if count == len(runs) else f"{text} ({count} of {len(runs)} runs)" for text, count in counts.items()]
