"""A run's row as its experiment's files say, whatever a command line or a budget made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from indexnet.core.errors import UserError


def row_as_printed(
    config: Mapping[str, Any], plain: dict[str, Any] | None, composed: Callable[[Sequence[str]], dict[str, Any]]
) -> tuple[dict[str, Any], bool] | None:
    """Compose a run's row as its experiment's files say; None for a run of no table, or where that fails.

    Args:
        config: of the run.
        plain: the same as it was composed, which stands for the files of a sweep: it has none; None: not known.
        composed: composes overrides into plain data.

    Returns:
        The configuration, and whether it is at the run's data set and budget.
    """
    from indexnet.run.experiments.tables import experiment_files, load_experiment

    name, row, data = config["experiment"]["name"], config["experiment"]["row"], config["data"]["name"]
    if name is None or name not in experiment_files():  # of a sweep with a name: it has no files but its own command
        return (plain, True) if name and plain else None
    try:
        experiment = load_experiment(name)
        own = str(row).partition("--")[0]  # what follows names overrides of the command line
        known = next((each for each in experiment.rows if each.name == own), None)
        budget = f"budget={config['budget']['name']}"
        try:
            printed = composed([*experiment.composed_of(known, ["budget"]), budget])
            if printed["data"]["name"] != data:
                printed = composed([*experiment.composed_of(known, given := [budget, f"data={data}"]), *given])
            return printed, True
        except UserError:  # a budget or data set of a person's own
            return composed(experiment.composed_of(known)), False
    except UserError:
        return None
