"""Experiments: one printed table as a file of rows, protocol and columns, with the printed numbers as CSV beside it.

An experiment file is two things at once. For Hydra it is an option of the group ``experiments`` that sets task, network
and training protocol. Its node ``experiment`` is for this module: what the table is called, which rows it has, as a
union of single rows and grids, and which columns are compared with what the paper printed.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from indexnet._names import unknown_name
from indexnet.errors import UserError
from indexnet.run.config import experiments_dir

FAMILIES = {
    "hin": "HIN",
    "o2o_modelwise": "modelwise O2O",
    "o2o_shared": "shared O2O",
    "o2o_unshared": "unshared O2O",
    "m2o": "M2O",
}
"""Families of index networks as tables call them; ``{family}`` in a template."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_OVERRIDE = re.compile(r"([~+]{0,2}[\w/@.-]+)=(.*)", re.DOTALL)
_FIELD = re.compile(r"\{([\w.]+)\}")
_PLAIN = re.compile(r"[\w.+/-]+")
_KEYS = frozenset(
    (
        *("name", "title", "source", "printed", "printed_data", "baseline", "columns", "seeds", "exceptions", "notes"),
        *("ranks", "rows", "cost_input", "n_jobs"),
    )
)
_ROW_KEYS = frozenset(("name", "label", "overrides", "grid", "printed", "pending"))
_COLUMN_KEYS = frozenset(("metric", "printed", "title", "higher_is_better", "digits", "pending"))


@dataclass(frozen=True)
class Column:
    """One measured column of a table.

    Attributes:
        metric: our metric's name, as in the records.
        printed: CSV column of the printed numbers; "" where none are printed.
        title: heading.
        higher_is_better: direction.
        digits: decimals to show.
    """

    metric: str
    printed: str
    title: str
    higher_is_better: bool
    digits: int = 3


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: unique and fit for a folder.
        label: what people read.
        overrides: Hydra overrides that make the row.
        printed: the paper's raw cells by CSV column; empty where the row is not printed.
        pending: why the row cannot be run yet; "" where it can.
    """

    name: str
    label: str
    overrides: tuple[str, ...]
    printed: Mapping[str, str]
    pending: str = ""


@dataclass(frozen=True)
class Experiment:
    """A table: what it says, what its rows are, what they are compared with.

    Attributes:
        name: path of the file below ``experiments/``, without suffix.
        title: heading.
        source: where the printed numbers stand.
        task: the task that all rows train.
        notes: what a reader must know, plain text.
        rows: in printed order, pending ones included.
        seeds: of every row.
        columns: the first one ranks the table.
        reference: row that printed differences (``+4.99K``) refer to, or None.
        exceptions: rows whose costs are known to disagree with the printed ones, and why.
        ranks: False where the protocol is too small to rank anything; every output must say so.
        cost_input: (C, H, W) for which the table prints costs; None: the task's own.
        printed_data: names of our data sets that are the printed one; elsewhere numbers are not subtracted.
        n_jobs: runs at a time where the command line does not say.
    """

    name: str
    title: str
    source: str
    task: str
    notes: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    columns: tuple[Column, ...]
    reference: str | None
    exceptions: Mapping[str, str]
    ranks: bool = True
    cost_input: tuple[int, int, int] | None = None
    printed_data: tuple[str, ...] = ()
    n_jobs: int = 1

    def select(self, names: Sequence[str] | None) -> tuple[Row, ...]:
        """Return the rows of these names in the table's order, or all that can be run.

        Raises:
            UserError: a name is unknown or given twice, or its row is pending.
        """
        if names is None:
            return tuple(row for row in self.rows if not row.pending)
        known = {row.name: row for row in self.rows}
        for name in names:
            if name not in known:
                raise unknown_name(f"row of experiment {self.name}:", name, known)
            if known[name].pending:
                raise UserError(f"row {name!r} of experiment {self.name} cannot run yet: {known[name].pending}.")
            if list(names).count(name) > 1:
                raise UserError(f"rows: {name!r} is given twice.")
        return tuple(row for row in self.rows if row.name in names)


def list_experiments() -> list[str]:
    """Return the names of all experiment files, sorted; those at the top first."""
    folder = experiments_dir()
    names = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return sorted(names, key=lambda name: (name.count("/"), name))


def load_experiment(name: str) -> Experiment:
    """Read and check an experiment file.

    Args:
        name: as in :func:`list_experiments`.

    Raises:
        UserError: there is no such experiment, or its file is wrong; the message names the file and the place.
    """
    path = experiments_dir() / f"{name}.yaml"
    if name not in list_experiments():
        raise unknown_name("experiment", name, list_experiments())
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("experiment"), Mapping):
        raise UserError(f"{path} has no mapping `experiment`, which says what the table is.")
    return _Reader(path, content, name).read()


class _Reader:
    """Reads one file; every complaint names it."""

    def __init__(self, path: Path, content: Mapping[str, Any], name: str) -> None:
        self.path, self.content, self.name = path, content, name
        self.node: Mapping[str, Any] = content["experiment"]
        self.lines = self._csv()

    def error(self, text: str) -> UserError:
        return UserError(f"{self.path}: {text}")

    def read(self) -> Experiment:
        self.check_keys("experiment", self.node, _KEYS)
        for key in ("name", "title", "source"):
            if not isinstance(self.node.get(key), str) or not self.node[key].strip():
                raise self.error(f"experiment.{key} must be a text.")
        if self.node["name"] != self.name:
            raise self.error(f"experiment.name is {self.node['name']!r}; its place says {self.name!r}.")
        rows = tuple(self._rows())
        if not rows:
            raise self.error("experiment.rows is empty.")
        names = [row.name for row in rows]
        for name in names:
            if names.count(name) > 1:
                raise self.error(f"two rows are called {name!r}; every row needs a name of its own.")
        reference = self.node.get("baseline")
        if reference is not None and reference not in names:
            raise self.wrap(unknown_name("row in experiment.baseline:", str(reference), names))
        exceptions = self.node.get("exceptions") or {}
        for name in exceptions:
            if name not in names:
                raise self.wrap(unknown_name("row in experiment.exceptions:", str(name), names))
        printed_data = self.node.get("printed_data") or ()
        n_jobs = self.node.get("n_jobs", 1)
        if type(n_jobs) is not int or n_jobs < 1:
            raise self.error(f"experiment.n_jobs must be an integer of at least 1, not {n_jobs!r}.")
        return Experiment(
            name=self.name,
            title=self.node["title"],
            source=self.node["source"],
            task=self._task(),
            notes=str(self.node.get("notes") or "").strip(),
            rows=rows,
            seeds=self._seeds(),
            columns=tuple(self._columns()),
            reference=reference,
            exceptions=MappingProxyType({str(key): str(value).strip() for key, value in exceptions.items()}),
            ranks=bool(self.node.get("ranks", True)),
            cost_input=self._cost_input(),
            printed_data=(printed_data,) if isinstance(printed_data, str) else tuple(map(str, printed_data)),
            n_jobs=n_jobs,
        )

    def wrap(self, error: UserError) -> UserError:
        return self.error(str(error))

    def check_keys(self, what: str, node: Any, known: frozenset[str]) -> None:
        if not isinstance(node, Mapping):
            raise self.error(f"{what} must be a mapping, not {node!r}.")
        for key in node:
            if key not in known:
                raise self.wrap(unknown_name(f"key in {what}:", str(key), known))

    def _task(self) -> str:
        for entry in self.content.get("defaults") or ():
            if isinstance(entry, Mapping) and (task := entry.get("override /task")):
                return str(task)
        raise self.error("its defaults list has no `override /task: NAME`.")

    def _seeds(self) -> tuple[int, ...]:
        seeds = self.node.get("seeds", [0])
        if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
            raise self.error(f"experiment.seeds must be a list of integers of at least 0, not {seeds!r}.")
        if len(set(seeds)) < len(seeds):
            raise self.error(f"experiment.seeds names a seed twice: {seeds}.")
        return tuple(seeds)

    def _cost_input(self) -> tuple[int, int, int] | None:
        size = self.node.get("cost_input")
        if size is None:
            return None
        if not isinstance(size, list) or len(size) != 3 or not all(type(side) is int and side > 0 for side in size):
            raise self.error(f"experiment.cost_input must be [channels, height, width], not {size!r}.")
        return size[0], size[1], size[2]

    def _csv(self) -> list[dict[str, str]] | None:
        file = self.node.get("printed")
        if file is None:
            return None
        path = self.path.parent / str(file)
        if not path.is_file():
            raise self.error(f"experiment.printed names {file}, but there is no such file beside it.")
        with path.open(encoding="utf-8", newline="") as handle:
            return [{str(k): (v or "").strip() for k, v in line.items()} for line in csv.DictReader(handle)]

    def _columns(self) -> Iterator[Column]:
        from indexnet.metrics import list_metrics

        known = {info.name: info for info in list_metrics()}
        headings = list(self.lines[0]) if self.lines else []
        columns = self.node.get("columns")
        if not isinstance(columns, list) or not columns:
            raise self.error("experiment.columns must be a list with at least one column.")
        for node in columns:
            self.check_keys("experiment.columns", node, _COLUMN_KEYS)
            metric, printed = str(node.get("metric", "")), str(node.get("printed", ""))
            info = known.get(metric)
            if info is None and not node.get("pending"):
                raise self.wrap(unknown_name("metric in experiment.columns:", metric, known))
            if printed and printed not in headings:
                raise self.wrap(unknown_name(f"column of {self.node.get('printed')}:", printed, headings))
            if info is None and not {"title", "higher_is_better"} <= set(node):
                raise self.error(f"the pending column {metric!r} needs a title and higher_is_better.")
            title = node.get("title") or (f"{info.title} ({info.unit})" if info and info.unit else info and info.title)
            better = node.get("higher_is_better", info.higher_is_better if info else None)
            digits = node.get("digits", 3)
            if type(digits) is not int or digits < 0:
                raise self.error(f"digits of column {metric!r} must be an integer of at least 0, not {digits!r}.")
            yield Column(metric, printed, str(title), bool(better), digits)

    # --- rows ----------------------------------------------------------------------------------------------------

    def _rows(self) -> Iterator[Row]:
        rows = self.node.get("rows")
        if not isinstance(rows, list):
            raise self.error("experiment.rows must be a list of rows and grids.")
        for number, node in enumerate(rows, 1):
            what = f"entry {number} of experiment.rows"
            self.check_keys(what, node, _ROW_KEYS)
            if not isinstance(node.get("name"), str):
                raise self.error(f"{what} has no name.")
            for point in self._points(what, node.get("grid") or {}):
                yield self._row(what, node, point)

    def _points(self, what: str, grid: Any) -> Iterator[dict[str, Any]]:
        """Yield the points of a grid: the product of its axes; a key ``a,b`` is one axis of pairs."""
        if not isinstance(grid, Mapping):
            raise self.error(f"the grid of {what} must be a mapping from keys to lists.")
        axes = []
        for key, values in grid.items():
            keys = [part.strip() for part in str(key).split(",")]
            if not isinstance(values, list) or not values:
                raise self.error(f"{key!r} in the grid of {what} needs a list of values.")
            if len(keys) == 1:
                axes.append([{keys[0]: value} for value in values])
                continue
            for value in values:
                if not isinstance(value, list) or len(value) != len(keys):
                    raise self.error(f"{key!r} in the grid of {what} needs lists of {len(keys)} values, not {value!r}.")
            axes.append([dict(zip(keys, value, strict=True)) for value in values])
        for parts in itertools.product(*axes):
            yield {key: value for part in parts for key, value in part.items()}

    def _row(self, what: str, node: Mapping[str, Any], point: Mapping[str, Any]) -> Row:
        overrides = node.get("overrides") or []
        if not isinstance(overrides, list):
            raise self.error(f"overrides of {what} must be a list.")
        settings: dict[str, Any] = {}
        for override in overrides:
            match = _OVERRIDE.fullmatch(str(override))
            if match is None:
                raise self.error(f"{override!r} in {what} is no override; give group=option or group.key=value.")
            settings[match[1].lstrip("+~")] = yaml.safe_load(match[2]) if match[2] else ""
        settings.update(point)

        def fill(template: Any) -> str:
            return self._fill(what, str(template), settings)

        name = re.sub(r"[^a-z0-9._-]+", "_", fill(node["name"]).lower())
        if not _NAME.fullmatch(name):
            raise self.error(f"{name!r} ({what}) is no name for a folder; use letters, digits, dot, dash, underscore.")
        return Row(
            name=name,
            label=fill(node.get("label", node["name"])),
            overrides=(*map(str, overrides), *(f"{key}={hydra_value(value)}" for key, value in point.items())),
            printed=MappingProxyType(self._printed(name, node.get("printed"), fill)),
            pending=str(node.get("pending") or "").strip().rstrip("."),
        )

    def _fill(self, what: str, template: str, settings: Mapping[str, Any]) -> str:
        words = {key: _text(value) for key, value in settings.items()}
        family = settings.get("resampling.family")
        if family is not None:
            words["family"] = FAMILIES.get(str(family), str(family))
        words["variant"] = variant(settings.get("resampling.nonlinear", True), settings.get("resampling.context", True))

        def word(match: re.Match[str]) -> str:
            if match[1] not in words:
                raise self.wrap(unknown_name(f"placeholder in {what}:", match[1], words))
            return words[match[1]]

        return _FIELD.sub(word, template)

    def _printed(self, row: str, wanted: Any, fill: Any) -> dict[str, str]:
        """Return the one CSV line whose cells are as wanted."""
        if wanted is None:
            return {}
        if self.lines is None:
            raise self.error(f"row {row!r} has printed cells, but experiment.printed names no CSV file.")
        file = self.node["printed"]
        if not isinstance(wanted, Mapping) or not wanted:
            raise self.error(f"printed of row {row!r} must be a mapping from CSV columns to cells.")
        cells = {str(key): fill(value) for key, value in wanted.items()}
        for key in cells:
            if key not in self.lines[0]:
                raise self.wrap(unknown_name(f"column of {file}:", key, self.lines[0]))
        found = [line for line in self.lines if all(line[key] == value for key, value in cells.items())]
        if len(found) != 1:
            asked = ", ".join(f"{key}={value!r}" for key, value in cells.items())
            count = "no line" if not found else f"{len(found)} lines"
            raise self.error(f"row {row!r} needs exactly one line of {file}, but {count} have {asked}.")
        return found[0]


def variant(nonlinear: bool, context: bool) -> str:
    """Name a kind of index network as the papers' tables do: L, NL, L+C or NL+C."""
    return ("NL" if nonlinear else "L") + ("+C" if context else "")


def _text(value: Any) -> str:
    if isinstance(value, bool):  # as the papers' CSV files write it
        return "1" if value else "0"
    return "" if value is None else str(value)


def hydra_value(value: Any) -> str:
    """Write a plain value as Hydra reads it on the right of an override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_value(item)}" for key, item in value.items()) + "}"
    text = str(value)
    if _PLAIN.fullmatch(text) and not isinstance(yaml.safe_load(text), int | float | bool | type(None)):
        return text
    escaped = re.sub(r"(\\+)$", r"\1\1", text.replace("'", "\\'"))  # a quote, or a backslash before the closing one
    return f"'{escaped}'"
