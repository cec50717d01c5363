"""What an experiment file says: its rows, columns and printed numbers."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from indexnet.core.annotations import Rule
from indexnet.core.errors import UserError
from indexnet.core.metric_facts import FACTS, THROUGHPUT, MetricInfo
from indexnet.core.paths import conf_dir, config_file
from indexnet.core.readers import plain_value, read_mapping
from indexnet.core.registry import load_plugins, registered, unknown_name

FAMILIES = {
    "hin": "HIN",
    "o2o_modelwise": "modelwise O2O",
    "o2o_shared": "shared O2O",
    "o2o_unshared": "unshared O2O",
    "m2o": "M2O",
}
"""Families of index networks as tables call them; ``{family}`` in a template."""

LAST_SEED = 2**32 - 1
"""torch draws first weights from 32 bits of a seed: a larger one would give those of a smaller one."""
SEED_RULE = f"an integer from 0 to {LAST_SEED}"
_PLAIN = re.compile(r"[A-Za-z0-9_.+/-]+")

Text = Annotated[str, Rule("a text", lambda value: value.strip() != "")]
Cell = str | float | bool
Seed = Annotated[int, Rule(SEED_RULE, lambda value: 0 <= value <= LAST_SEED)]
_Size = Annotated[
    Sequence[int],
    Rule("[channels, height, width]", lambda value: len(value) == 3 and all(side > 0 for side in value)),
]

EXPERIMENT_KEYS: dict[str, Any] = {
    "name": Text,
    "title": Text,
    "source": Text,
    "printed": Text | None,
    "printed_data": Text | Sequence[Text] | None,
    "baseline": Cell | None,
    "relative_to": Cell | None,
    "columns": Any,
    "seeds": Annotated[Sequence[Seed], Rule(f"a list of integers from 0 to {LAST_SEED}", lambda value: len(value) > 0)],
    "exceptions": Mapping[str, Any] | None,
    "notes": str | None,
    "ranks": bool,
    "rows": Any,
    "overrides": Any,
    "cost_input": _Size | None,
    "cost_overrides": Any,
    "n_jobs": Annotated[int, Rule("an integer of at least 1", lambda value: value >= 1)],
    "repeat": Any,
}
"""What an experiment file may say of its table, under ``experiment``; :class:`Any` is looked into apart."""

ROW_KEYS: dict[str, Any] = {
    "name": Text,
    "label": Cell,
    "overrides": Sequence[str] | None,
    "grid": Mapping[str, Any] | None,
    "printed": Mapping[str, Any] | None,
    "pending": str | bool | None,
    "cited": Text,
    "same_as": Text,
    "init": Mapping[str, Any],
    "intermediate": bool,
}
INIT_KEYS: dict[str, Any] = {"row": Text, "parts": Mapping[str, Any]}
COLUMN_KEYS: dict[str, Any] = {
    "metric": str,
    "split": str,
    "printed": str,
    "expected": str,
    "title": Cell,
    "higher_is_better": bool,
    "digits": Annotated[int, Rule("an integer from 0 to 12", lambda value: 0 <= value <= 12)],
    "pending": str | bool | None,
}
REPEAT_KEYS: dict[str, Any] = {
    "key": Text,
    "values": Annotated[Sequence[Any], Rule("a list of values", lambda value: len(value) > 0)],
    "name": Text,
    "label": Text,
}

COST_CELLS = ("params", "gflops")
"""CSV columns of printed costs."""


@dataclass(frozen=True)
class Column:
    """One measured column of a table.

    Attributes:
        metric: our metric's name, as in the records: ``psnr``, or ``bsd68/psnr`` on a named test split.
        printed: CSV column of the printed numbers; "" where none are printed. May be a template over what rows repeat
            (``bsd68_psnr_{task.sigma}``): a row's printed cells have its number under the template itself.
        title: heading.
        higher_is_better: direction.
        digits: decimals to show.
        split: the test split that the metric is of; "" where the data set has one alone.
        expected: CSV column of the bound that a run is expected to stay below (above, where more is better); "" where
            there is none. A template as ``printed`` may be.
    """

    metric: str
    printed: str
    title: str
    higher_is_better: bool
    digits: int = 3
    split: str = ""
    expected: str = ""

    @property
    def is_speed(self) -> bool:
        """Whether it says how fast a run trained, which depends on the device: never ranked, never subtracted."""
        return self.metric in THROUGHPUT


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: unique and fit for a folder.
        label: what people read.
        overrides: Hydra overrides that make the row.
        printed: the paper's raw cells by CSV column; empty where the row is not printed.
        pending: why the row cannot be run yet; "" where it can.
        block: which repetition of the table it belongs to, for people ("sigma 25"); "" where rows are not repeated.
        base: its name without what the repetition added; the same as ``name`` where rows are not repeated.
        cited: whose number it is, where the row is only printed and never run; "" elsewhere.
        same_as: the row whose run this one is, as the file says: ``EXPERIMENT:ROW``, or ``ROW`` of the same file.
        starts_from: the row whose last checkpoint this one starts from, likewise.
        parts: of a row that starts from another, which of its parts take the weights of which; empty: all that fit.
        intermediate: whether it is trained only because another row starts from it, and is no row of the printed table.
        run_of: the row that ``same_as`` names, found by :mod:`indexnet.run.experiments.links`, no other row's itself.
        start: the row that ``starts_from`` names, likewise.
    """

    name: str
    label: str
    overrides: tuple[str, ...]
    printed: Mapping[str, str]
    pending: str = ""
    block: str = ""
    base: str = ""
    cited: str = ""
    same_as: str = ""
    starts_from: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    intermediate: bool = False
    run_of: Target | None = None
    start: Target | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", self.base or self.name)

    @property
    def runs_never(self) -> str:
        """Why no run of it is expected, in words: it is pending, or only cited; "" where runs are."""
        return self.pending or (f"it is cited from {self.cited}" if self.cited else "")

    @property
    def data(self) -> str:
        """The data set that the row itself names, which no command replaces; "" where it names none."""
        return next((text.partition("=")[2] for text in self.overrides if key_of(text) == "data"), "")


@dataclass(frozen=True)
class Target:
    """A row of some table, which a row of the same or another table is, or starts from."""

    experiment: Experiment
    row: Row

    @property
    def name(self) -> str:
        """``EXPERIMENT:ROW``."""
        return f"{self.experiment.name}:{self.row.name}"


@dataclass(frozen=True)
class Experiment:
    """A table: what it says, what its rows are, what they are compared with.

    Attributes:
        name: path of the file below ``experiments/``, without suffix.
        title: heading.
        source: where the printed numbers stand.
        task: the task that all rows train.
        notes: what a reader must know, plain text.
        rows: in printed order, pending ones included; where rows are repeated, all of one block before the next.
        seeds: of every row.
        columns: the first one ranks the table.
        reference: row, by base name, that printed differences (``+4.99K``) refer to, or None.
        relative_to: row, by base name, over which the relative improvement of all others is given, or None.
        data: name of the data set that the file itself chooses; "" where it leaves that to the task.
        exceptions: rows, by base name, whose costs are known to disagree with the printed ones, and why.
        ranks: False where the protocol is too small to rank anything; every output must say so.
        cost_input: (C, H, W) for which the table prints costs; None: the task's own.
        printed_data: names of our data sets that are the printed one; elsewhere numbers are not subtracted.
        n_jobs: runs at a time where the command line does not say.
        exception_cells: which of :data:`COST_CELLS` an exception is about; a row that is not in it: all of them.
        cost_overrides: Hydra overrides that are added when costs are counted, as they are printed for one data set.
        overrides: Hydra overrides of all rows; the command line's and a row's own go before them.
        plugins: modules that the file names.
        is_sweep: whether it is a sweep that was named on the command line, kept beside its runs.
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
    exception_cells: Mapping[str, frozenset[str]] = field(default_factory=dict)
    cost_overrides: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    is_sweep: bool = False
    relative_to: str | None = None
    data: str = ""

    @property
    def chosen_by(self) -> str:
        """What chooses it in ``indexnet train -m``: ``experiments=NAME`` or ``sweep=NAME``."""
        return f"{'sweep' if self.is_sweep else 'experiments'}={self.name}"

    def composed_of(self, row: Row | None, given: Iterable[str] = ()) -> list[str]:
        """Return the Hydra overrides that a row is composed of.

        Args:
            row: None: only what all rows have. One that is another table's run is composed as there.
            given: overrides of the command line, or their keys: what they set is not taken from those of all rows. An
                option of data (``data.pipeline=dim``) that the data set in use has not, but others have, is left out.
        """
        given = list(given)
        if row is not None and row.run_of is not None:
            return row.run_of.experiment.composed_of(row.run_of.row, given)
        data = next((each.partition("=")[2] for each in given if each.startswith("data=")), self.data)

        def fitting(overrides: Iterable[str]) -> list[str]:
            return [each for each in overrides if not (self.data and _is_of_others(key_of(each), data, self.data))]

        own = fitting(row.overrides) if row is not None else []
        set_elsewhere = {*map(key_of, given), *map(key_of, own)}
        start = [f"experiments={self.name}"]
        if self.is_sweep:  # no file of Hydra's search path
            plugins = (
                [f"plugins={hydra_value(self.plugins)}"] if self.plugins and "plugins" not in set_elsewhere else []
            )
            start = [f"task={self.task}", *plugins, f"experiment.name={hydra_value(self.name)}"]
        return [*start, *(text for text in fitting(self.overrides) if key_of(text) not in set_elsewhere), *own]

    @property
    def borrowed(self) -> dict[str, tuple[str, str]]:
        """Of the rows that are runs of other rows, by name: the experiment and the name of the row there."""
        return {row.name: (row.run_of.experiment.name, row.run_of.row.name) for row in self.rows if row.run_of}

    @property
    def base_rows(self) -> tuple[Row, ...]:
        """The rows of the first block, by base name and label: every printed row once, whatever is repeated."""
        first = self.rows[0].block if self.rows else ""
        return tuple(
            dataclasses.replace(row, name=row.base, label=row.label.removesuffix(f", {row.block}"))
            for row in self.rows
            if row.block == first and not row.intermediate
        )

    @property
    def names_data(self) -> bool:
        """Whether rows name their data sets: then there are runs on several of them, and the table is of all."""
        return any(row.data for row in self.rows)

    def rows_on(self, data: str) -> tuple[Row, ...]:
        """Return the rows whose runs lie together on a data set: all, or those of it where rows name theirs."""
        named = self.names_data
        return tuple(row for row in self.rows if not named or (row.data or self.data or data) == data)

    def select(self, names: Sequence[str] | None) -> tuple[Row, ...]:
        """Return the rows of these names in the table's order, or all that can be run.

        Args:
            names: names of rows, or base names: every repetition of a row.

        Raises:
            UserError: a name is unknown or given twice, or its row is pending or cited.
        """
        if names is None:
            return tuple(row for row in self.rows if not row.runs_never)
        known = {row.base: row for row in self.rows} | {row.name: row for row in self.rows}
        for name in names:
            if name not in known:
                raise unknown_name(f"row of experiment {self.name}:", name, known)
            if known[name].pending:
                raise UserError(f"row {name!r} of experiment {self.name} cannot run yet: {known[name].pending}.")
            if known[name].cited:
                raise UserError(
                    f"row {name!r} of experiment {self.name} is never run, its numbers are cited from "
                    f"{known[name].cited}; leave it out of rows."
                )
            if list(names).count(name) > 1:
                raise UserError(f"rows: {name!r} is given twice.")
        return tuple(row for row in self.rows if row.name in names or row.base in names)


def key_of(override: str) -> str:
    """Return the key that a Hydra override sets, adds or takes away."""
    return override.partition("=")[0].lstrip("+~")


def _is_of_others(key: str, data: str, own: str) -> bool:
    """Return whether a key is ``data.OPTION`` of other data sets, the file's own or this package's, and not of this."""
    group, _, option = key.partition(".")
    if group != "data" or not option or option in _options(config_file("data", data)):
        return False
    others = (config_file("data", own), *(conf_dir() / "data").glob("*.yaml"))
    return any(option in _options(file) for file in others)


@functools.lru_cache(maxsize=256)
def _options(file: Path | None) -> frozenset[str]:
    return frozenset() if file is None else frozenset(read_mapping(file))


def variant(nonlinear: bool, context: bool) -> str:
    """Name a kind of index network as the papers' tables do: L, NL, L+C or NL+C."""
    return ("NL" if nonlinear else "L") + ("+C" if context else "")


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
    if _PLAIN.fullmatch(text) and not isinstance(plain_value(text), int | float | bool | type(None)):
        return text
    escaped = re.sub(r"(\\+)$", r"\1\1", text.replace("'", "\\'"))  # a quote, or a backslash before the closing one
    return f"'{escaped}'"


def known_metrics() -> Mapping[str, MetricInfo]:
    """Return the facts of every metric of this package and of plugins, by name; only the latter need torch."""
    return {**FACTS, **({each.info.name: each.info for each in registered("metric")} if load_plugins() else {})}
