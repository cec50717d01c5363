"""What a run changes against the experiment file of its row: found when it is frozen, read by reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indexnet.run.run_sets import RunSet, read_config

if TYPE_CHECKING:
    from indexnet.run.experiment import Experiment


@dataclass(frozen=True)
class Protocol:
    """What is known about the protocol of an experiment's finished runs.

    Attributes:
        changes: what differs from the experiment file at the runs' data and budget, such as
            ``training.steps 600 instead of 60000``.
        unknown: labels of rows for which it cannot be told, because the configuration of a run cannot be read or that
            of the row cannot be composed.
    """

    changes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def followed(self) -> bool:
        """Whether every finished run is known to have followed the experiment file."""
        return not self.changes and not self.unknown


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


def _some(labels: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(labels))
    return ", ".join(distinct) if len(distinct) <= 4 else f"{len(distinct)} rows"
