"""Rows that are runs of other rows, or start from their checkpoints: found, checked, never in a circle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from indexnet.core.errors import UserError
from indexnet.core.registry import unknown_name
from indexnet.run.experiments.experiment import Experiment, Row, Target

_Key = tuple[str, str]


def link(experiment: Experiment, load: Callable[[str], Experiment]) -> Experiment:
    """Return a table whose rows know the rows that they are or start from.

    Args:
        experiment: as its file says.
        load: reads another one, as its file says.

    Raises:
        UserError: a row names a table or a row that there is not, one of another task, or itself in a circle.
    """
    if not any(row.same_as or row.starts_from for row in experiment.rows):
        return experiment
    linker = _Linker(experiment, load)
    rows = tuple(linker.linked(experiment, row, ()) for row in experiment.rows)
    return dataclasses.replace(experiment, rows=rows)


class _Linker:
    def __init__(self, experiment: Experiment, load: Callable[[str], Experiment]) -> None:
        self.tables, self.load = {experiment.name: experiment}, load
        self.done: dict[_Key, Row] = {}

    def linked(self, table: Experiment, row: Row, path: tuple[_Key, ...]) -> Row:
        """Return a row with what it is or starts from.

        Args:
            table: that the row is in.
            row: as its file says.
            path: the rows that led here.
        """
        key = (table.name, row.name)
        if key in path:
            circle = " -> ".join(f"{name}:{each}" for name, each in (*path[path.index(key) :], key))
            raise UserError(
                f"rows are or start from each other in a circle, {circle}; one of them must be its own run."
            )
        said = row.same_as or row.starts_from
        if said and key not in self.done:
            other, there = self._find(table, row, said)
            there = self.linked(other, there, (*path, key))
            target = there.run_of or Target(other, there)
            # weights of another task's network fit, too, as far as names and shapes agree
            if row.same_as and target.experiment.task != table.task:
                raise UserError(
                    f"{_place(table, row)} names {target.name}, a row of task={target.experiment.task}, and this table "
                    f"is of task={table.task}; name a row of the same task."
                )
            how = "is the run of" if row.same_as else "starts from"
            pending = row.pending or (there.runs_never and f"it {how} {target.name}: {there.runs_never}")
            changes = {"run_of": target, "overrides": target.row.overrides} if row.same_as else {"start": target}
            row = dataclasses.replace(row, pending=pending, **changes)
        return self.done.setdefault(key, row)

    def _find(self, table: Experiment, row: Row, said: str) -> tuple[Experiment, Row]:
        """Return the table and the row that a row names, of a table with blocks that of the same block."""
        name, _, wanted = said.rpartition(":")
        place = _place(table, row)
        if name and name not in self.tables:
            try:
                self.tables[name] = self.load(name)
            except UserError as error:
                raise UserError(f"{place} names {said}: {error}") from error
        other = self.tables[name or table.name]
        rows = {each.name: each for each in other.rows}
        rows = {each.base: each for each in other.rows if each.block == row.block} | rows
        if wanted not in rows:
            raise unknown_name(f"row of {other.name}, which {place} names:", wanted, rows)
        return other, rows[wanted]


def _place(table: Experiment, row: Row) -> str:
    return f"{'same_as' if row.same_as else 'init.row'} of row {row.name!r} of {table.name}"
