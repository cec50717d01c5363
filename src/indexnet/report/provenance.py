"""On what measured numbers stand: facts, and what makes them hard to compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from indexnet.report.table import Protocol, Table, TableRow
from indexnet.run.experiments.experiment import Column, Experiment, key_of
from indexnet.run.run_sets import RunSet, read_config

FULL_BUDGET = "paper"
VALIDATION = "validation"
"""The ``split`` of records of runs that were not measured on test data."""


def check_protocol(
    experiment: Experiment,
    runs: RunSet | None,
    find_changes: Callable[[Mapping[str, Any]], list[list[str]] | None] | None = None,
) -> Protocol:
    """Put together what every finished run noted as changed when it was frozen.

    Rows that the experiment does not know are left out: nothing says what their protocol should be.

    Args:
        experiment: the experiment file.
        runs: its runs.
        find_changes: finds what a run that earlier versions froze would have noted, from its configuration; None where
            it cannot be told.
    """
    changed: dict[tuple[str, str, str], list[str]] = {}
    unknown: list[str] = []
    rows = {row.name: row for row in experiment.rows}
    finished = [(rows[run.row], run) for run in runs.runs if run.status == "done" and run.row in rows] if runs else []
    for row, run in finished:
        config = read_config(run) or {}
        found = config.get("changes")
        if config and "changes" not in config and find_changes is not None:
            found = find_changes(config)
        if not isinstance(found, list) or not all(isinstance(each, list) and len(each) == 3 for each in found):
            unknown.append(row.label)
            continue
        for key, value, planned in found:
            changed.setdefault((str(key), str(value), str(planned)), []).append(row.label)
    everyone = {row.label for row, _ in finished}
    return Protocol(
        tuple(
            f"{key} {value} instead of {planned}" + ("" if set(labels) == everyone else f" ({_some(labels)})")
            for (key, value, planned), labels in changed.items()
        ),
        tuple(dict.fromkeys(unknown)),
    )


def _printed_setting(experiment: Experiment, runs: RunSet | None) -> bool:
    return runs is not None and runs.budget == FULL_BUDGET and runs.data in experiment.printed_data


def comparable(experiment: Experiment, runs: RunSet | None, protocol: Protocol) -> bool:
    """Whether measured and printed numbers may be subtracted: the printed test data, nothing scaled down or changed."""
    return _printed_setting(experiment, runs) and protocol.followed and not _validated(runs)


def as_expected(experiment: Experiment, runs: RunSet | None, protocol: Protocol) -> bool:
    """Whether bounds that a table expects hold for these runs: its data or the printed ones, its whole protocol."""
    if runs is None or runs.budget != FULL_BUDGET or runs.data not in (*experiment.printed_data, experiment.data):
        return False
    return protocol.followed and not _validated(runs)


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
    yield f"The table is published for {asked}; {runs.data} has {there}, whose numbers stand in for them."


def protocol_warnings(experiment: Experiment, runs: RunSet | None, protocol: Protocol) -> Iterable[str]:
    """Say what the runs changed against the experiment file, and where that cannot be told."""
    yield from protocol.borrowed
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
        values = (
            (get(run), row) for row, run in finished if not (what.startswith("training data") and _sets_data(row))
        )
        groups = _grouped((None if value is None else str(value)[:12], row) for value, row in values)
        if len(groups) > 1:
            listed = "; ".join(f"{value}: {_some(labels)}" for value, labels in groups.items())
            yield f"The runs differ in their {what} ({listed}), so their numbers are not on equal terms."
    for row, run in finished:
        if run.record.curve_from is not None:
            yield f"{row.label}, seed {run.seed}: its learning curve is not known before step {run.record.curve_from}."
    validated = [row.label for row, run in finished if run.record.split == VALIDATION]
    if validated:
        yield f"Measured on validation data instead of test data: {_some(validated)}."
    for remark, labels in _grouped((run.record.code_remark() or None, row) for row, run in finished).items():
        yield f"{_some(labels)}: {remark}; `rerun=changed` does again what was made with other code."
    devices = dict.fromkeys(run.record.device for _, run in finished if run.record.device)
    if len(devices) > 1:
        yield f"The runs were made on different devices ({', '.join(devices)}), so their samples/s are not comparable."
    counts = _grouped((len(row.done) or None, row) for row in rows)
    if len(counts) > 1:
        listed = "; ".join(f"{count}: {_some(labels)}" for count, labels in sorted(counts.items()))
        yield f"The rows have different numbers of finished seeds ({listed})."
    for column in columns:
        empty = [row.label for row in rows if row.done and row.measured[column.metric].mean is None]
        if empty and len(empty) < sum(bool(row.done) for row in rows):
            yield f"{column.title}: the finished runs of {_some(empty)} have no such number."


def _sets_data(row: TableRow) -> bool:
    """Whether a row says how its training data are made, ``data.augment=false``: then that is what is compared."""
    swept = row.name.split("--")[1:]
    return any(key_of(text).startswith("data.") for text in (*row.overrides, *swept))


def _grouped(pairs: Iterable[tuple[Any, TableRow]]) -> dict[Any, list[str]]:
    groups: dict[Any, list[str]] = {}
    for value, row in pairs:
        if value is not None:
            groups.setdefault(value, []).append(row.label)
    return groups


def _some(labels: Iterable[str]) -> str:
    distinct = list(dict.fromkeys(labels))
    return ", ".join(distinct) if len(distinct) <= 4 else f"{len(distinct)} rows"


def facts(table: Table) -> list[tuple[str, str]]:
    """Say on what the measured numbers stand: data, budget, steps, seeds, hardware, time."""
    if table.runs is None:
        return [("Measured", "nothing yet: there are no runs")]
    runs = [run for _, run in table.done_runs]

    def distinct(values: Iterable[object], form: str = "{}") -> str:
        text = ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))
        return form.format(text) if text else ""

    def joined(*parts: str) -> str:
        return ", ".join(filter(None, parts))

    def counted(texts: Iterable[str]) -> str:
        found = Counter(texts).items()
        return "; ".join(text if n == len(runs) else f"{text} ({n} of {len(runs)} runs)" for text, n in found)

    train = distinct((run.record.data.train.count for run in runs), "{} training samples")
    splits = next((run.record.data.test.splits for run in runs if run.record.data.test.splits), {})
    named = f" ({', '.join(map(str, splits))})" if splits else ""
    counts = [run.record.test_counts for run in runs]
    count = distinct(each[""] for each in counts)
    further = dict.fromkeys(name for each in counts for name in each if name)
    also = [f"{distinct(each.get(name) for each in counts)} of {name}" for name in further]
    tested_on = ", and ".join(filter(None, [f"{count}{named}".strip(), *also]))
    test = f"tested on {tested_on}" if tested_on else ""
    held = {number for run in runs if (each := run.record.data.validation) is not None and (number := each.count)}
    validated = f"a validation split of {', '.join(map(str, sorted(held)))}" if held else ""
    stopped = [str(run.record.stopped) for run in runs if run.record.stopped is not None]
    tested = counted(f"the {run.record.tested} checkpoint" for run in runs if run.record.tested)
    steps = distinct((run.record.steps for run in runs), "{} steps")
    batch = distinct((run.record.training.get("batch_size") for run in runs), "batch {}")
    changes = table.protocol.changes
    changed = f"changed: {joined(*changes)}" if changes else ""

    # "instead of the table's" (in older records "the published"): of this project's own tables Protocol names those
    published = table.has_printed
    noted = [str(change) for run in runs for change in run.record.changes]
    against = counted(text for text in noted if published or "instead of the " not in text)
    files = list(filter(None, counted(name for run in runs for name in run.record.changed_code()).split("; ")))
    changed_code = "; ".join(files) if len(files) <= 3 else f"{'; '.join(files[:2])}; and {len(files) - 2} more files"
    days = sorted(run.record.finished[:10] for run in runs if run.record.finished)
    seconds = [value for run in runs if (value := run.record.number("wall_time_s")) is not None]
    versions = [
        distinct((run.record.versions.get(name) for run in runs), f"{name} {{}}") for name in ("indexnet", "torch")
    ]
    full = "the full protocol" if published else "full, as the experiment file says"
    if changes:
        full = "nothing capped, but the protocol is changed"
    found = [
        ("Data", ": ".join(filter(None, [table.runs.data, joined(train, validated, test)]))),
        ("Budget", table.runs.budget + (f" ({full})" if table.runs.budget == FULL_BUDGET else "")),
        ("Protocol", changed if len(changes) <= 2 else f"{len(changes)} settings changed, named below the table"),
        ("Training", joined(steps, batch)),
        ("Against the published protocol" if published else "Against the configuration", against),
        ("Tested", tested),
        ("Stopped early", f"{len(stopped)} of {len(runs)} runs, at step {', '.join(stopped)}" if stopped else ""),
        ("Seeds", ", ".join(map(str, table.seeds))),
        ("Runs finished", f"{table.done} of {table.expected}"),
        ("Hardware", distinct(run.record.device for run in runs)),
        ("Measured on", " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""),
        ("Time", f"{sum(seconds) / 60:.1f} min of run time in all" if seconds else ""),
        ("Versions", joined(*versions)),
        ("Code changed since", changed_code),
        ("Tags", counted(str(tag) for run in runs for tag in run.record.tags)),
    ]
    return [(name, text) for name, text in found if text]
