"""How an experiment file is read: rows, grids, repetitions, columns and the printed cells, every mistake named."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from indexnet.core.annotations import fits, in_words
from indexnet.core.errors import UserError, shown
from indexnet.core.metric_facts import THROUGHPUT
from indexnet.core.readers import DamagedFileError, plain_value, read_csv
from indexnet.core.registry import VARIABLE, unknown_name
from indexnet.run.experiments.experiment import (
    COLUMN_KEYS,
    COST_CELLS,
    EXPERIMENT_KEYS,
    FAMILIES,
    INIT_KEYS,
    REPEAT_KEYS,
    ROW_KEYS,
    Column,
    Experiment,
    Row,
    hydra_value,
    known_metrics,
    variant,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_OVERRIDE = re.compile(r"([~+]{0,2}[\w/@.-]+)=(.*)", re.DOTALL)
_LEFT_OUT = re.compile(r"~[\w/@.-]+")
_FIELD = re.compile(r"\{([\w.]+)\}")
_EXCEPTION_KEYS: dict[str, Any] = {"cells": Any, "why": Any}
_PART = re.compile(r"\w+(\.\w+)*")
_MOST_ROWS = 10_000
_SWEEP_KEYS = frozenset(("defaults", "plugins", "experiment"))


@dataclass(frozen=True)
class _Repeat:
    """One repetition of all rows: the settings that it adds, and what names and labels end with."""

    settings: Mapping[str, Any]
    name: str
    label: str


class Reader:
    """Reads one file; every complaint names it.

    Args:
        path: of the file.
        content: what is in it.
        name: of the experiment, as its place says.
        is_sweep: whether it lies beside the runs of a sweep, where Hydra does not read it.
    """

    def __init__(self, path: Path, content: Mapping[str, Any], name: str, *, is_sweep: bool = False) -> None:
        self.path, self.content, self.name, self.is_sweep = path, content, name, is_sweep
        self.node: Mapping[str, Any] = content["experiment"]
        self.lines = self._csv()
        self.repeats: list[_Repeat] = []
        self.columns: tuple[Column, ...] = ()

    def error(self, text: object) -> UserError:
        """Return a complaint about the file, or somebody else's with its name."""
        return UserError(f"{self.path}: {text}")

    def read(self) -> Experiment:
        """Return what the file describes.

        Raises:
            UserError: something in it is wrong.
        """
        if self.is_sweep and (more := [key for key in self.content if key not in _SWEEP_KEYS]):
            raise self.error(f"{more[0]} has no effect in the file of a sweep; put it into experiment.overrides.")
        self.check("experiment", self.node, EXPERIMENT_KEYS, ("name", "title", "source"))
        self.repeats = self._repeats()
        if self.node["name"] != self.name:
            raise self.error(f"experiment.name is {self.node['name']!r}; its place says {self.name!r}.")
        self.columns = tuple(self._columns())
        rows = tuple(self._rows())
        if not rows:
            raise self.error("experiment.rows is empty.")
        for name, count in Counter(row.name for row in rows).items():
            if count > 1:
                raise self.error(f"two rows are called {name!r}; every row needs a name of its own.")
        bases = [row.base for row in rows if not row.intermediate]  # the table shows no others
        reference = self.node.get("baseline")
        if reference is not None and reference not in bases:
            raise self.error(unknown_name("row in experiment.baseline:", str(reference), bases))
        relative_to = self.node.get("relative_to")
        if relative_to is not None and relative_to not in bases:
            raise self.error(unknown_name("row in experiment.relative_to:", str(relative_to), bases))
        exceptions, cells = self._exceptions(bases)
        printed_data = self.node.get("printed_data") or ()
        return Experiment(
            name=self.name,
            title=self.node["title"],
            source=self.node["source"],
            task=self._task(),
            notes=str(self.node.get("notes") or "").strip(),
            rows=rows,
            seeds=self._seeds(),
            columns=self.columns,
            reference=reference,
            exceptions=MappingProxyType(exceptions),
            ranks=self.node.get("ranks", True),
            cost_input=None if (size := self.node.get("cost_input")) is None else (size[0], size[1], size[2]),
            printed_data=(printed_data,) if isinstance(printed_data, str) else tuple(printed_data),
            n_jobs=self.node.get("n_jobs", 1),
            exception_cells=MappingProxyType(cells),
            cost_overrides=self._overrides("cost_overrides"),
            overrides=self._overrides("overrides"),
            plugins=tuple(map(str, self.content.get("plugins") or ())),
            is_sweep=self.is_sweep,
            relative_to=relative_to,
            data=self._chosen("data"),
        )

    def check(self, what: str, node: Any, known: Mapping[str, Any], needed: Sequence[str] = ()) -> None:
        """Refuse a node that is no mapping, has an unknown key or lacks one, or has a value of another type."""
        if not isinstance(node, Mapping):
            raise self.error(f"{what} must be a mapping, not {shown(node)}.")
        for key in node:
            if key not in known:
                raise self.error(unknown_name(f"key in {what}:", str(key), known))
        for key, kind in known.items():
            if key in needed or key in node:
                value = node.get(key)
                if not fits(value, kind):
                    raise self.error(f"{what}.{key} must be {in_words(kind)}, not {shown(value)}.")

    def _task(self) -> str:
        if task := self._chosen("task"):
            return task
        raise self.error("its defaults list has no `override /task: NAME`.")

    def _chosen(self, group: str) -> str:
        """Return what the defaults list chooses of a group; "" where it leaves that open."""
        defaults = self.content.get("defaults")
        for entry in defaults if isinstance(defaults, list) else ():
            if isinstance(entry, Mapping) and isinstance(name := entry.get(f"override /{group}"), str):
                return name
        return ""

    def _seeds(self) -> tuple[int, ...]:
        seeds = self.node.get("seeds", [0])
        if len(set(seeds)) < len(seeds):
            raise self.error(f"experiment.seeds names a seed twice: {seeds}.")
        return tuple(seeds)

    def _exceptions(self, bases: Sequence[str]) -> tuple[dict[str, str], dict[str, frozenset[str]]]:
        """Return why rows disagree, and, where a row says it, which of its cells do."""
        node = self.node.get("exceptions") or {}
        reasons: dict[str, str] = {}
        about: dict[str, frozenset[str]] = {}
        for name, value in node.items():
            if name not in bases:
                raise self.error(unknown_name("row in experiment.exceptions:", str(name), bases))
            if isinstance(value, Mapping):
                what = f"experiment.exceptions.{name}"
                self.check(what, value, _EXCEPTION_KEYS)
                cells = value.get("cells")
                if not isinstance(cells, list) or not cells or not all(cell in COST_CELLS for cell in cells):
                    raise self.error(f"{what}.cells must be a list of {' and '.join(COST_CELLS)}, not {cells!r}.")
                about[str(name)] = frozenset(cells)
                value = value.get("why")
            if not isinstance(value, str) or not value.strip():
                raise self.error(f"experiment.exceptions.{name} must say why, in words.")
            reasons[str(name)] = value.strip().rstrip(".")
        return reasons, about

    def _repeats(self) -> list[_Repeat]:
        """Return what every row is made with, in the order of the blocks; one empty entry where rows stand alone."""
        node = self.node.get("repeat")
        if node is None:
            return [_Repeat({}, "", "")]
        self.check("experiment.repeat", node, REPEAT_KEYS, tuple(REPEAT_KEYS))
        repeats = []
        for value in node["values"]:
            settings = {node["key"]: value}
            name, label = (self._fill("experiment.repeat", node[key], settings) for key in ("name", "label"))
            repeats.append(_Repeat(settings, name, label))
        if len({repeat.label for repeat in repeats}) < len(repeats):
            raise self.error("experiment.repeat gives two blocks the same label; every value needs one of its own.")
        return repeats

    def _overrides(self, key: str) -> tuple[str, ...]:
        node = self.node.get(key) or []
        forms = (_OVERRIDE, _LEFT_OUT)
        if not isinstance(node, list) or not all(any(form.fullmatch(str(text)) for form in forms) for text in node):
            raise self.error(f"experiment.{key} must be a list of overrides, group=option, not {shown(node)}.")
        return tuple(map(str, node))

    def _csv(self) -> list[dict[str, str]] | None:
        file = self.node.get("printed")
        if file is None:
            return None
        try:
            lines = read_csv(self.path.parent / str(file))
        except FileNotFoundError:
            raise self.error(f"experiment.printed names {file}, but there is no such file beside it.") from None
        except DamagedFileError as error:
            raise self.error(error) from error
        if not lines:
            raise self.error(f"{file}, which experiment.printed names, has no lines.")
        return [{key: cell.strip() for key, cell in line.items()} for line in lines]

    def _columns(self) -> Iterator[Column]:
        known = {**known_metrics(), **THROUGHPUT}
        headings = list(self.lines[0]) if self.lines else []
        columns = self.node.get("columns")
        if not isinstance(columns, list) or not columns:
            raise self.error("experiment.columns must be a list with at least one column.")
        for number, node in enumerate(columns):
            self.check("experiment.columns", node, COLUMN_KEYS)
            metric, printed, split, expected = (node.get(key, "") for key in ("metric", "printed", "split", "expected"))
            if metric in THROUGHPUT and (number == 0 or split):
                why = "it has no test split" if split else "so the first column, which does, is a metric"
                raise self.error(f"{metric} in experiment.columns says how fast a run trains and ranks nothing; {why}.")
            info = known.get(metric)
            if info is None and not node.get("pending"):
                raise self.error(unknown_name("metric in experiment.columns:", metric, known, VARIABLE))
            for repeat in self.repeats:
                for template in (printed, expected):
                    heading = self._fill("experiment.columns", template, repeat.settings)
                    if heading and heading not in headings:
                        raise self.error(unknown_name(f"column of {self.node.get('printed')}:", heading, headings))
            if info is None and not {"title", "higher_is_better"} <= set(node):
                raise self.error(f"the pending column {metric!r} needs a title and higher_is_better.")
            title = node.get("title")
            if title is None and info is not None:
                title = f"{split} {info.heading}".strip()
            better = node.get("higher_is_better", info.higher_is_better if info else None)
            name, digits = f"{split}/{metric}" if split else metric, node.get("digits", 3)
            yield Column(name, printed, str(title), bool(better), digits, split, expected)

    # --- rows ----------------------------------------------------------------------------------------------------

    def _rows(self) -> Iterator[Row]:
        rows = self.node.get("rows")
        if not isinstance(rows, list):
            raise self.error("experiment.rows must be a list of rows and grids.")
        count = 0
        for repeat in self.repeats:
            for number, node in enumerate(rows, 1):
                what = f"entry {number} of experiment.rows"
                self.check(what, node, ROW_KEYS, ("name",))
                for point in self._points(what, node.get("grid") or {}):
                    if (count := count + 1) > _MOST_ROWS:
                        raise self.error(f"experiment.rows makes more than {_MOST_ROWS} rows.")
                    yield self._row(what, node, point, repeat)

    def _points(self, what: str, grid: Any) -> Iterator[dict[str, Any]]:
        """Yield the points of a grid: the product of its axes; a key ``a,b`` is one axis of pairs."""
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

    def _row(self, what: str, node: Mapping[str, Any], point: Mapping[str, Any], repeat: _Repeat) -> Row:
        if node.get("cited"):
            for key in ("overrides", "grid", "pending", "same_as", "init", "intermediate"):
                if node.get(key):
                    raise self.error(f"{what} is cited from {node['cited']} and never run, so it can have no {key}.")
            if not node.get("printed"):
                raise self.error(f"{what} is cited, so it needs published cells (printed).")
        overrides = node.get("overrides") or []
        settings: dict[str, Any] = {}
        for override in overrides:
            match = _OVERRIDE.fullmatch(override)
            if match is None:
                raise self.error(f"{override!r} in {what} is no override; give group=option or group.key=value.")
            settings[match[1].lstrip("+~")] = plain_value(match[2]) if match[2] else ""
        settings.update(point)
        links = self._links(what, node, {**settings, **repeat.settings})
        for key in repeat.settings:
            if key in settings:
                raise self.error(f"{what} sets {key}, which experiment.repeat sets for every row.")

        def fill(template: Any) -> str:
            return self._fill(what, str(template), settings)

        base = self._row_name(what, fill(node["name"]))
        label = fill(node.get("label", node["name"]))
        made = {} if links.get("same_as") else {**point, **repeat.settings}
        return Row(
            name=self._row_name(what, f"{base}_{repeat.name}") if repeat.name else base,
            label=f"{label}, {repeat.label}" if repeat.label else label,
            overrides=(*overrides, *(f"{key}={hydra_value(value)}" for key, value in made.items())),
            printed=MappingProxyType(self._printed(base, node.get("printed"), fill, repeat)),
            pending=str(node.get("pending") or "").strip().rstrip("."),
            block=repeat.label,
            base=base,
            cited=str(node.get("cited") or "").strip().rstrip("."),
            **links,
        )

    def _links(self, what: str, node: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a row says of other rows: which one it is, or starts from, and whether it is no printed row."""
        found: dict[str, Any] = {"intermediate": bool(node.get("intermediate"))}
        if "same_as" in node:
            for key in ("overrides", "grid", "init"):
                if node.get(key):
                    raise self.error(
                        f"{what} is the same run as {node['same_as']}, so it can have no {key} of its own."
                    )
            found["same_as"] = self._fill(what, node["same_as"], settings)
        if "init" in node:
            init = node["init"]
            self.check(f"init of {what}", init, INIT_KEYS, ("row",))
            parts = init.get("parts", {})
            if not all(_PART.fullmatch(str(part)) for pair in parts.items() for part in pair):
                raise self.error(f"init.parts of {what} must map names of own parts to names of theirs, not {parts!r}.")
            found |= {"starts_from": self._fill(what, init["row"], settings), "parts": MappingProxyType(dict(parts))}
        return found

    def _row_name(self, what: str, text: str) -> str:
        name = re.sub(r"[^a-z0-9._-]+", "_", text.lower())
        if not _NAME.fullmatch(name):
            raise self.error(f"{name!r} ({what}) is no name for a folder; use letters, digits, dot, dash, underscore.")
        return name

    def _fill(self, what: str, template: str, settings: Mapping[str, Any]) -> str:
        words = {key: _text(value) for key, value in settings.items()}
        family = settings.get("resampling.family")
        if family is not None:
            words["family"] = FAMILIES.get(str(family), str(family))
        words["variant"] = variant(settings.get("resampling.nonlinear", True), settings.get("resampling.context", True))

        def word(match: re.Match[str]) -> str:
            if match[1] not in words:
                raise self.error(unknown_name(f"placeholder in {what}:", match[1], words))
            return words[match[1]]

        return _FIELD.sub(word, template)

    def _printed(self, row: str, wanted: Any, fill: Callable[[Any], str], repeat: _Repeat) -> dict[str, str]:
        """Return the one CSV line whose cells are as wanted, with the cells of template columns under the templates."""
        if wanted is None:
            return {}
        if self.lines is None:
            raise self.error(f"row {row!r} has printed cells, but experiment.printed names no CSV file.")
        file = self.node["printed"]
        if not wanted:
            raise self.error(f"printed of row {row!r} must be a mapping from CSV columns to cells.")
        cells = {str(key): fill(value) for key, value in wanted.items()}
        for key in cells:
            if key not in self.lines[0]:
                raise self.error(unknown_name(f"column of {file}:", key, self.lines[0]))
        found = [line for line in self.lines if all(line[key] == value for key, value in cells.items())]
        if len(found) != 1:
            asked = ", ".join(f"{key}={value!r}" for key, value in cells.items())
            count = "no line" if not found else f"{len(found)} lines"
            raise self.error(f"row {row!r} needs exactly one line of {file}, but {count} have {asked}.")
        templates = {each for column in self.columns for each in (column.printed, column.expected)}
        headings = {each: self._fill("experiment.columns", each, repeat.settings) for each in templates}
        return found[0] | {template: found[0][name] for template, name in headings.items() if name != template}


def _text(value: Any) -> str:
    if isinstance(value, bool):  # as the papers' CSV files write it
        return "1" if value else "0"
    return "" if value is None else str(value)
