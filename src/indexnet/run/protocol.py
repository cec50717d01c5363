"""Whether runs followed the protocol of their experiment file, and what was changed on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from indexnet.run.run_sets import RunSet, read_config

if TYPE_CHECKING:
    from indexnet.run.tables import Experiment


GROUPS = ("task", "network", "encoder", "resampling", "data", "optimizer", "schedule", "training", "budget", "debug")
"""Config groups that make a protocol; the others say where a run computes and where its results go."""

_OTHER = frozenset(("data.root", "task.costs_size"))  # where data lie, and for which input costs are counted
_TRAINER = ("gradient_clip",)  # all else of the trainer leaves the optimisation problem as it is
_ABSENT = "unset"


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


def check_protocol(experiment: Experiment, runs: RunSet | None) -> Protocol:
    """Compare the configuration of every finished run with the one that its row composes to without further overrides.

    Rows that the experiment does not know are left out: nothing says what their protocol should be.
    """
    changed: dict[tuple[str, str, str], list[str]] = {}
    unknown: list[str] = []
    rows = {row.name: row for row in experiment.rows}
    finished = [(rows[run.row], run) for run in runs.runs if run.status == "done" and run.row in rows] if runs else []
    for row, run in finished:
        actual = read_config(run)
        # composing takes a moment per row: not without need
        expected = _composed(experiment.name, row.overrides, runs.data, runs.budget) if actual and runs else None
        if expected is None or actual is None:
            unknown.append(row.label)
            continue
        for change in _differences(_protocol(actual), _protocol(expected)):
            changed.setdefault(change, []).append(row.label)
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


@lru_cache(maxsize=256)
def _composed(name: str, overrides: tuple[str, ...], data: str, budget: str) -> Mapping[str, Any] | None:
    """Freeze a row as the experiment file says, at a data set and budget; None where that is not possible."""
    from indexnet.run.config import compose, freeze

    asked = [f"experiments={name}", *overrides, f"budget={budget}"]
    try:
        config = compose(asked)
        if config.data.name != data:
            config = compose([*asked, f"data={data}"])
        return freeze(config)
    except Exception:  # whatever is wrong with the files of today, a report of earlier runs can still be made
        return None


def _protocol(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that make a protocol, by dotted key."""
    found = {key: value for group in GROUPS for key, value in _flatten(config.get(group), group)}
    trainer = config.get("trainer")
    if isinstance(trainer, Mapping):
        found |= {f"trainer.{key}": trainer.get(key) for key in _TRAINER}
    if isinstance(found.get("encoder.pretrained"), str):  # a file of weights instead of a download
        found["encoder.pretrained"] = True
    return {key: value for key, value in found.items() if key not in _OTHER}


def _flatten(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flatten(value, f"{prefix}.{key}")
    elif node is not None:
        yield prefix, node


def _differences(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key in dict.fromkeys((*expected, *actual)):
        value, planned = actual.get(key), expected.get(key)
        if value != planned:
            yield key, _text(value), _text(planned)


def _text(value: Any) -> str:
    if value is None:
        return _ABSENT
    return str(value).lower() if isinstance(value, bool) else str(value)
