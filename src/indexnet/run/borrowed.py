"""Rows that are runs of other tables (``same_as``): in which settings these differ from the table that has the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from indexnet.core.errors import UserError
from indexnet.run.config import compose, composing, to_plain
from indexnet.run.experiments.experiment import Experiment, key_of
from indexnet.run.freezing.settle import CHOSEN, differences, own_options, without_sweep

_MOST = 6


def borrowed_remarks(experiment: Experiment, configs: Iterable[Mapping[str, Any]] | None = None) -> list[str]:
    """Say which rows are trained by another table's settings, and which these are; files alone are compared.

    A row's own overrides are no difference: it would have them here as well. One that cannot be composed is left out,
    for that is said where it is run.

    Args:
        experiment: the table.
        configs: frozen, of runs, of which alone it is said; None: of all.
    """
    asked = None if configs is None else {_place(config) for config in configs}
    found: dict[tuple[str, str], list[str]] = {}
    with composing():
        for row in experiment.rows:
            if row.run_of is None or (other := row.run_of.experiment).name == experiment.name:
                continue
            if asked is not None and (other.name, row.run_of.row.name) not in asked:
                continue
            own = row.run_of.row.overrides
            try:
                there = _composed(other.composed_of(row.run_of.row))
                here = _composed([*experiment.composed_of(None, map(key_of, own)), *own])
                changed = differences(there, here) and differences(_meant(there), _meant(here))
            except UserError:
                continue
            texts = [f"{key} {value} instead of {planned}" for key, value, planned in changed]
            more = f" and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
            if texts:
                found.setdefault((other.name, ", ".join(texts[:_MOST]) + more), []).append(row.name)
    return [
        f"{', '.join(names)} of {experiment.name} (same_as): trained by the settings of {other}, {said}; to be "
        "compared with the other rows only if that is meant."
        for (other, said), names in found.items()
    ]


def _place(config: Mapping[str, Any]) -> tuple[str, str]:
    """Return the table of a run and its row, without what a command line swept over."""
    return str(config["experiment"]["name"]), str(config["experiment"]["row"]).partition("--")[0]


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    return without_sweep(to_plain(compose(overrides)))


def _meant(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without what only other optimizers, schedules or data sets have."""
    return {**config, **{group: own_options(group, config[group]) for group in CHOSEN}}
