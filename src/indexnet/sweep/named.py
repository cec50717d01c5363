"""A sweep with a name, ``sweep=NAME``: its jobs are the rows of a table, kept as ``<runs>/<name>/experiment.yaml``.

The file has the form of an experiment file and grows: the same command finds its rows in it, one with more values or
seeds adds to it, one with other fixed settings is refused.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.errors import UserError
from indexnet.core.files import atomic_write
from indexnet.core.locks import exclusive
from indexnet.core.paths import DEFAULT_RUNS, VARIABLE
from indexnet.run.experiments.experiment import Experiment, Row, key_of
from indexnet.run.experiments.table_file import Reader
from indexnet.run.experiments.tables import SWEEP_FILE, experiment_files, load_experiment, read_file, sweep_files
from indexnet.run.folder import difference
from indexnet.run.identity import config_hash, is_place
from indexnet.run.schema import is_of_sweep
from indexnet.sweep.expand import IN_FOLDER, Request, Setting, expand_request, read_request, table_jobs
from indexnet.sweep.launch import read_requests
from indexnet.sweep.naming import name_only_row, name_rows
from indexnet.sweep.sweep_file import as_text

if TYPE_CHECKING:
    from indexnet.run.config import Override

Configs = Sequence[Mapping[str, Any]]
Freeze = Callable[[Sequence[Sequence[str]]], Configs]
"""Composes and freezes jobs, given the overrides of each."""

_LOCK = ".experiment.lock"


@dataclass
class NamedSweep:
    """What a command with ``sweep=NAME`` asks for.

    Attributes:
        name: of the sweep.
        runs: folder of all runs.
        task: option of the config group.
        plugins: modules that it needs.
        fixed: overrides of all rows, as they are kept.
        rows: those that are asked for.
        seeds: those that are asked for.
        jobs: overrides of each job.
        planned: what the file makes of the first jobs, where the command line says something that is not in it.
        before: content of the file as this command found it, None where there was none.
        unsaid: of ``fixed``, what the command line does not repeat.
    """

    name: str
    runs: Path
    task: str
    plugins: Sequence[str]
    fixed: Sequence[str]
    rows: Sequence[Row]
    seeds: Sequence[int]
    jobs: list[list[str]]
    planned: list[list[str]]
    before: Mapping[str, Any] | None
    unsaid: Sequence[str]

    @property
    def path(self) -> Path:
        """The file that says what the sweep is."""
        return self.runs / self.name / SWEEP_FILE

    def check(self, configs: Configs, freeze: Freeze) -> None:
        """Refuse fixed settings that differ from those of the file.

        Args:
            configs: frozen, one for each job.
            freeze: makes frozen configurations of other overrides.

        Raises:
            UserError: they do; the message names the key.
        """
        try:
            planned = freeze(self.planned)
        except UserError as error:
            raise UserError(
                f"sweep={self.name}: what {self.path} says of all rows does not fit here: {error}"
            ) from error
        for there, config in zip(planned, configs, strict=False):
            if config_hash(there) != config_hash(config):
                raise UserError(
                    f"sweep={self.name} has other settings ({difference(there, config)}); sweep over that key, give "
                    f"sweep=ANOTHER_NAME, or move or delete {self.path.parent}."
                )

    def experiment(self, configs: Configs) -> Experiment:
        """Return the table as it is with what this command adds."""
        return _read(self.path, self._content(configs, self.before), self.name)

    def keep(self, configs: Configs) -> str:
        """Write the file, or what this command adds to it.

        Returns:
            What is new, for people; empty where nothing is.

        Raises:
            UserError: another command has changed the file since, so that the two do not go together.
        """
        with exclusive(self.path.parent / _LOCK, f"another command is writing {self.path}; give this one again."):
            there = read_file(self.name, self.runs)[1] if os.path.isfile(self.path) else None
            if there is not None and there != self.before:
                load_experiment(self.name, self.runs)  # another command, or a person, has written it
            if there != self.before:
                self._check_growth(there or {})
            content = self._content(configs, there)
            if content != there:
                atomic_write(self.path, as_text(content, f"The table of `indexnet train -m sweep={self.name}`."))
        return "\n".join(filter(None, (self._unsaid(), self._news(there, content["experiment"]))))

    def _unsaid(self) -> str:
        return f"As {self.path} says of all rows: {' '.join(self.unsaid)}" if self.unsaid else ""

    def _news(self, there: Mapping[str, Any] | None, node: Mapping[str, Any]) -> str:
        """Say which rows and seeds the file has since this command."""
        rows, seeds = node["rows"], node["seeds"]
        old = there["experiment"] if there else {"rows": [], "seeds": []}
        new = [row["name"] for row in rows if row not in old["rows"]]
        more = [str(seed) for seed in seeds if seed not in old.get("seeds", [0])]
        parts = [f"the row{'s'[: len(new) > 1]} {', '.join(new)}"] if new else []
        parts += [f"the seed{'s'[: len(more) > 1]} {', '.join(more)}"] if more else []
        return f"{self.path} {'gets' if there else 'has'} {' and '.join(parts)}" if parts else ""

    def _check_growth(self, there: Mapping[str, Any]) -> None:
        """Refuse rows of the same names, or other fixed settings, that came while this command was composing.

        Raises:
            UserError: there are some, or the file has gone.
        """
        node, before = there.get("experiment", {}), (self.before or {}).get("experiment", {}).get("rows", ())
        mine = {row.name: list(row.overrides) for row in self.rows}
        others = {row["name"]: list(row.get("overrides") or ()) for row in node.get("rows", ()) if row not in before}
        clash = any(mine.get(name, overrides) != overrides for name, overrides in others.items())
        fixed, now = (
            {key: value for key, value in _settings(texts).items() if not _is_in(key, ("data", "budget"))}
            for texts in (self.fixed, node.get("overrides") or ())
        )
        if clash or fixed != now:
            raise UserError(f"another command has just changed {self.path}; give this one again.")

    def _content(self, configs: Configs, there: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the content of the file with the rows and seeds of this command."""
        content: dict[str, Any] = copy.deepcopy(dict(there)) if there is not None else self._begin(configs)
        node = content["experiment"]
        automatic = node.get("title") == self._title(node["rows"])
        names = {row.name for row in _read(self.path, content, self.name).rows} if there is not None else set()
        node["rows"] += [
            {"name": row.name, "label": row.label, **({"overrides": list(row.overrides)} if row.overrides else {})}
            for row in self.rows
            if row.name not in names
        ]
        node["seeds"] = sorted({*node.get("seeds", [0]), *self.seeds})
        if automatic:
            node["title"] = self._title(node["rows"])
        return content

    def _begin(self, configs: Configs) -> dict[str, Any]:
        from indexnet.tasks import get_task

        metrics = get_task(configs[0]["task"]["name"]).metric_names
        fixed = [
            each for each in self.fixed if not (is_place(key_of(each)) or _is_in(key_of(each), ("data", "budget")))
        ]
        return {
            "defaults": [{"override /task": self.task}],
            **({"plugins": list(self.plugins)} if self.plugins else {}),
            "experiment": {
                "name": self.name,
                "title": self._title([]),
                "source": "this project",
                **({"notes": f"Settings of all rows: {' '.join(fixed)}."} if fixed else {}),
                "seeds": [],
                "columns": [{"metric": metric} for metric in metrics],
                **({"overrides": list(self.fixed)} if self.fixed else {}),
                "rows": [],
            },
        }

    def _title(self, rows: Iterable[Mapping[str, Any]]) -> str:
        keys = list(dict.fromkeys(key_of(text) for row in rows for text in row.get("overrides") or ()))
        return f"{self.task.capitalize()}, by {' and '.join(keys)}" if keys else self.task.capitalize()


def asked_jobs(overrides: Sequence[Override], options: Mapping[str, Any]) -> tuple[list[list[str]], NamedSweep | None]:
    """Return the overrides of each job that a parsed command line asks for, and its sweep where that has a name.

    Args:
        overrides: of the command line.
        options: those of :func:`indexnet.run.config.sweep_options`.

    Raises:
        UserError: what is asked for is not there, or does not go together.
    """
    request = read_request(overrides)
    runs = Path(str(options["paths.runs"] or DEFAULT_RUNS))
    if request.sweep is not None:
        named = _named(request, request.sweep, runs, options)
        return named.jobs, named
    return list(expand_request(request)), None


def _named(request: Request, name: str, runs: Path, options: Mapping[str, Any]) -> NamedSweep:
    """Return what a request with a name asks for.

    Raises:
        UserError: the name is taken, or a sweep of that name cannot have such settings.
    """
    if request.experiments:
        raise UserError(f"experiments={','.join(request.experiments)} has a name already; leave out sweep={name}.")
    if name in (files := experiment_files()):
        raise UserError(
            f"sweep={name}: {files[name]} is a table of that name; launch it with experiments={name}, or give another "
            "name."
        )
    kept = load_experiment(name, runs) if name in sweep_files(runs) else None
    if kept is None:
        _check_free(runs / name)
    table = kept or _new_table(name, options)
    axes = [axis for axis in request.axes if _is_setting(axis, name, kept)]
    row_keys = {key_of(text) for row in table.rows for text in row.overrides}
    swept = [axis for axis in axes if (axis[0].swept or axis[0].key in row_keys) and axis[0].key not in IN_FOLDER]
    others = [axis for axis in axes if axis not in swept]
    _check_repeats(swept, axes)
    if request.rows is not None and (kept is None or swept):
        raise UserError("rows=... selects rows of a sweep as they are, and this makes new ones; leave out rows=.")
    rows, seeds = list(table.rows), list(table.seeds)
    if kept is None or swept:
        rows, seeds = _rows(swept, table), [options["seed"]]
    seeds = seeds if request.seeds is None else request.seeds
    before = _settings(table.overrides)
    moved = [group for group in ("data", "budget") if _moved(group, others, before)]
    keys = {axis[0].key for axis in axes}
    unsaid = [text for text in table.overrides if key_of(text) not in keys and not _is_in(key_of(text), moved)]
    fixed = [text for text in table.overrides if not _is_in(key_of(text), moved)]
    new = [axis for axis in others if kept is not None and _is_new(axis[0], before, moved)]
    _check_rows(name, [] if swept else rows, new)
    here = dataclasses.replace(table, rows=tuple(rows), overrides=tuple(fixed))
    jobs = list(table_jobs(here, Request(rows=request.rows, seeds=seeds, axes=others)))
    planned = [axis for axis in others if axis not in new]
    return NamedSweep(
        name=name,
        runs=runs,
        task=table.task,
        plugins=table.plugins,
        fixed=table.overrides if kept is not None else [a[0].text for a in others if _is_kept(a[0].key)],
        rows=rows,
        seeds=seeds,
        jobs=jobs,
        planned=list(table_jobs(here, Request(rows=request.rows, seeds=seeds[:1], axes=planned))) if new else [],
        before=read_file(name, runs)[1] if kept is not None else None,
        unsaid=unsaid,
    )


def _check_free(folder: Path) -> None:
    """Refuse the folder of a table whose file is not known here.

    Raises:
        UserError: it is one, or no folder at all, or its file cannot be read now.
    """
    file = folder / SWEEP_FILE
    if os.path.lexists(file) and not os.path.isfile(file):  # on a disk that is not there at the moment
        raise UserError(
            f"{file}, which says what the sweep is, cannot be read; restore it, or give sweep=ANOTHER_NAME."
        )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"{folder} is a file, and the sweep's folder would be of that name; give it another name.")
    arguments = [
        text for place in folder.glob("*") for request in read_requests(place) for text in request["arguments"]
    ]
    if any(text.startswith("experiments=") for text in arguments):
        raise UserError(
            f"{folder} holds runs of a table whose file is not known here ({VARIABLE}, --config-dir); give the sweep "
            "another name."
        )


def _new_table(name: str, options: Mapping[str, Any]) -> Experiment:
    plugins = tuple(map(str, options["plugins"] or ()))
    return Experiment(name, "", "", str(options["task"]), "", (), (), (), None, {}, plugins=plugins, is_sweep=True)


def _is_setting(axis: Sequence[Setting], name: str, kept: Experiment | None) -> bool:
    """Return whether an override is more than the task, which a sweep has anyway.

    Raises:
        UserError: a sweep with a name cannot have it.
    """
    key, text = axis[0].key, axis[0].text
    if key == "experiment" or key.startswith("experiment."):
        raise UserError(f"{text}: sweep={name} names its rows itself; leave it out.")
    if axis[0].swept and (key in ("task", "paths", "paths.runs", "plugins") or is_of_sweep(key)):
        why = ", whose metrics are its columns" if key == "task" else ""
        raise UserError(f"{key}: a sweep with a name has one {key}{why}; give one, or leave out sweep={name}.")
    if key == "task" and kept is not None and text != f"task={kept.task}":
        raise UserError(f"sweep={name} is of task={kept.task}, and {text} is given; give sweep=ANOTHER_NAME.")
    return key != "task"


def _check_repeats(swept: Sequence[Sequence[Setting]], axes: Sequence[Sequence[Setting]]) -> None:
    """Refuse a row that would be there twice.

    Raises:
        UserError: there is one.
    """
    for axis in swept:
        key, texts = axis[0].key, [setting.text for setting in axis]
        if sum(other[0].key == key for other in axes) > 1:
            raise UserError(f"{key}= is given twice; give all in one, {key}=A,B.")
        for text in texts:
            if texts.count(text) > 1:
                raise UserError(f"{key}: {text.partition('=')[2]} is given twice.")


def _check_rows(name: str, rows: Iterable[Row], new: Iterable[Sequence[Setting]]) -> None:
    """Refuse a group that would take the options of rows as they are with it.

    Raises:
        UserError: there is one.
    """
    for row, axis in itertools.product(rows, new):
        if any(key_of(text).startswith(f"{axis[0].key}.") for text in row.overrides):
            raise UserError(
                f"sweep={name}: {axis[0].text} would replace what its row {row.name!r} is made of "
                f"({', '.join(row.overrides)}); leave it out, or give sweep=ANOTHER_NAME."
            )


def _rows(swept: Sequence[Sequence[Setting]], table: Experiment) -> list[Row]:
    """Return the rows that these settings make: those of the table that are made of the same, and new ones."""
    if not swept:
        return [Row(*name_only_row(table.name), (), {})]
    fixed = _settings(table.overrides)
    known = [({**fixed, **_settings(row.overrides)}, row) for row in table.rows]
    points = [[setting.text for setting in point] for point in itertools.product(*swept)]
    found = [next((row for made, row in known if made == {**fixed, **_settings(point)}), None) for point in points]
    new = [_settings(point) for point, row in zip(points, found, strict=True) if row is None]
    names = iter(name_rows(new, [row.name for row in table.rows], [row.label for row in table.rows]))
    return [row or Row(*next(names), tuple(point), {}) for point, row in zip(points, found, strict=True)]


def _settings(overrides: Iterable[str]) -> dict[str, str]:
    """Return the value of each key that overrides set, as they write it."""
    return {key_of(text): text if text.startswith("~") else text.partition("=")[2] for text in overrides}


def _moved(group: str, axes: Iterable[Sequence[Setting]], before: Mapping[str, str]) -> bool:
    """Return whether a command is for another data set or budget than the file: its options are no others' there."""
    return any(
        axis[0].key == group and any(_settings([s.text]) != {group: before.get(group)} for s in axis) for axis in axes
    )


def _is_in(key: str, groups: Iterable[str]) -> bool:
    return any(f"{key}.".startswith(f"{group}.") for group in groups)


def _is_new(setting: Setting, before: Mapping[str, str], moved: Iterable[str]) -> bool:
    """Return whether the file does not say what a command says of all rows; where and how runs go on is not meant."""
    key = setting.key
    if is_of_sweep(key) or is_place(key) or key in IN_FOLDER or _is_in(key, moved):
        return False
    return _settings([setting.text]) != {key: before.get(key)}


def _is_kept(key: str) -> bool:
    """Return whether the file of a sweep names such a setting of all its rows."""
    return not is_of_sweep(key) and (not is_place(key) or key == "paths.data" or key.startswith("data."))


def _read(path: Path, content: Mapping[str, Any], name: str) -> Experiment:
    return Reader(path, content, name, is_sweep=True).read()
