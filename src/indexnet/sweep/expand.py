"""What a command line of a sweep asks for: a table's rows and seeds, or the plain product of comma lists."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from indexnet.core.errors import UserError
from indexnet.run.experiments.experiment import LAST_SEED, SEED_RULE, Experiment, Target, hydra_value, key_of
from indexnet.run.experiments.tables import load_experiment
from indexnet.sweep.naming import check_sweep_name

if TYPE_CHECKING:
    from indexnet.run.config import Glob, Override


Value = TypeVar("Value", str, int)

_OWN = ("experiments", "sweep", "rows", "seeds", "seed")
BROUGHT = "rerun=false"
"""What the overrides of a job say that is there only because another row starts from it."""
IN_FOLDER = ("data", "data.name", "budget", "budget.name", "paths.runs")
"""Keys that lead to another folder anyway: a sweep over them needs no other name for the row."""
_OF_TASK = ("data", "tests", "task", "network", "resampling")
"""Groups that belong to the task of the table that a command line names."""


@dataclass(frozen=True)
class Setting:
    """One override of the command line with one value: its key, its whole text, and whether it is swept over."""

    key: str
    text: str
    swept: bool = False


@dataclass
class Request:
    """What a command line asks for."""

    experiments: list[str] = field(default_factory=list)
    sweep: str | None = None
    rows: list[str] | Glob | None = None
    seeds: list[int] | None = None
    axes: list[list[Setting]] = field(default_factory=list)


def expand(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Yield the overrides of each job that a parsed command line without ``sweep=`` asks for.

    Raises:
        UserError: an unknown experiment, row or seed, or a setting that rows make themselves.
    """
    yield from expand_request(read_request(overrides))


def expand_request(request: Request) -> Iterator[list[str]]:
    """Yield the overrides of each job: of the rows of tables, or of a plain product.

    Raises:
        UserError: an unknown experiment, row or seed, or a setting that rows make themselves.
    """
    if not request.experiments:
        if request.rows is not None:
            raise UserError("rows=... selects rows of a table; give experiments=NAME too.")
        seeds = [[Setting("seed", f"seed={seed}", True) for seed in request.seeds]] if request.seeds is not None else []
        for point in itertools.product(*request.axes, *seeds):
            yield [setting.text for setting in point]
        return
    tables = [load_experiment(name) for name in request.experiments]
    yield from _once(job for table in tables for job in table_jobs(table, request))


def table_jobs(experiment: Experiment, request: Request) -> Iterator[list[str]]:
    """Yield the overrides of each job of a table: of its rows, its seeds, and what else the command line asks for.

    Raises:
        UserError: an unknown row, or a setting that rows make themselves.
    """
    names = request.rows
    if names is not None and not isinstance(names, list):
        names = names.filter([row.name for row in experiment.rows if not row.runs_never])
        if not names:
            known = ", ".join(row.name for row in experiment.rows)
            raise UserError(f"rows= selects nothing of {experiment.name}; its rows are {known}.")
    rows = experiment.select(names)
    seeds = experiment.seeds if request.seeds is None else request.seeds
    # of a sweep, all that is given is compared with what was given first
    for row in () if experiment.is_sweep else rows:
        made = [*map(key_of, row.overrides), *(["init.checkpoint", "init.parts"] if row.starts_from else [])]
        for setting in itertools.chain(*request.axes):
            if setting.key == "data" and "data" not in made:  # their options are left out with another data set
                continue
            if any(key == setting.key or key.startswith(f"{setting.key}.") for key in made):
                raise UserError(
                    f"{setting.text} would replace what row {row.name!r} of {experiment.name} is made of "
                    f"({', '.join(row.overrides or made)}); leave it out, or choose other rows with rows=NAME,NAME."
                )
    # seeds outermost: a sweep that is stopped half way leaves whole tables
    points = list(itertools.product(*request.axes))
    combined = itertools.product(seeds, rows, points)
    yield from _once(job for seed, row, point in combined for job in _jobs(Target(experiment, row), seed, point))


def _jobs(target: Target, seed: int, point: Sequence[Setting], brought: bool = False) -> Iterator[list[str]]:
    """Yield the overrides of a row's job, behind those of the rows that it starts from.

    Args:
        target: the row and its table; of a row that is another's run, that one takes its place.
        seed: of the run.
        point: what else the command line says.
        brought: whether it is asked for only because another row starts from it: then ``rerun=`` does not mean it.
    """
    table, row = (target.row.run_of or target).experiment, (target.row.run_of or target).row
    start: list[str] = []
    if row.start is not None:
        for_source = _of_source(table, row.start.experiment, point)
        yield from _jobs(row.start, seed, for_source, brought=True)
        # where that lies is known once all jobs are frozen
        start.append(f"init.row={hydra_value(_with(row.start.name, _swept(for_source)))}")
        start += [f"init.parts={hydra_value(row.parts)}"] if row.parts else []
    texts, more = [setting.text for setting in point], _swept(point)
    composed = table.composed_of(row, texts)
    if brought:
        texts = [*(text for text in texts if key_of(text) != "rerun"), BROUGHT]
    label = f"{row.label} ({', '.join(more)})" if more else row.label
    yield [
        *composed,
        *texts,
        *start,
        f"experiment.row={hydra_value(_with(row.name, more))}",
        f"experiment.label={hydra_value(label)}",
        f"seed={seed}",
    ]


def _of_source(table: Experiment, source: Experiment, point: Sequence[Setting]) -> list[Setting]:
    """Return what of a command line holds for the row that a row starts from: of the same task, all of it.

    One of another task keeps its data and what it is made of, which are not those of this table. Where this table is
    trained on the data that it is printed for, so is the other.
    """
    if source.task == table.task:
        return list(point)
    kept = [setting for setting in point if setting.key.partition(".")[0] not in _OF_TASK]
    data = next((setting.text.partition("=")[2] for setting in point if setting.key == "data"), table.data)
    if data in table.printed_data:
        kept += [Setting("data", f"data={name}") for name in source.printed_data[:1]]
    return kept


def _swept(point: Sequence[Setting]) -> list[str]:
    return [setting.text for setting in point if setting.swept and setting.key not in IN_FOLDER]


def _with(name: str, more: Sequence[str]) -> str:
    return "--".join([name, *(re.sub(r"[^A-Za-z0-9._-]+", "-", text) for text in more)])


def _once(jobs: Iterable[list[str]]) -> list[list[str]]:
    """Return jobs without repetitions: two tables may ask for one run, and a source may be asked for by itself too."""
    found: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        key = tuple(text for text in job if key_of(text) != "rerun")
        if key not in found or BROUGHT in found[key]:
            found[key] = job
    return list(found.values())


def read_request(overrides: Sequence[Override]) -> Request:
    """Sort a command line into what selects rows and seeds and what every job gets.

    Raises:
        UserError: something is given twice or selects nothing, or cannot be swept over.
    """
    from indexnet.run.config import Glob

    request = Request()
    given: list[str] = []
    for override in overrides:
        key = override.key_or_group
        if key not in _OWN:
            request.axes.append(_settings(override))
            continue
        if key in given:
            remedy = "a sweep has one name" if key == "sweep" else f"give all in one, {key}=A,B"
            raise UserError(f"{key}= is given twice; {remedy}.")
        given.append(key)
        pattern: Any = override.value()
        if key == "rows" and isinstance(pattern, Glob):
            request.rows = pattern
            continue
        if key == "sweep":
            if override.is_sweep_override():
                raise UserError(f"{override.input_line}: a sweep has one name.")
            if pattern is not None:
                request.sweep = check_sweep_name(pattern, str(override.input_line))
            continue
        values = _values(override)
        if values is None:
            continue
        if not values:
            raise UserError(f"{override.input_line}: {key}= selects nothing; name at least one, or leave it out.")
        if key == "experiments":
            request.experiments = _different(key, values)
        elif key == "rows":
            request.rows = _different(key, values)
        elif request.seeds is not None:
            raise UserError("seeds= and seed= are both given; one of them is enough.")
        else:
            request.seeds = _different(key, [_seed(key, value) for value in values])
    return request


def _different(key: str, values: list[Value]) -> list[Value]:
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"{key}: {value} is given twice.")
    return values


def _seed(key: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,10}", value) or int(value) > LAST_SEED:
        raise UserError(f"{key}={value[:80]}: a seed is {SEED_RULE}.")
    return int(value)


def _values(override: Override) -> list[str] | None:
    """Return the values of an override as texts; a comma list and a list in brackets are the same, null is None."""
    if override.is_sweep_override():
        _check_discrete(override)
        return [text.strip("'\"") for text in override.sweep_string_iterator()]
    value = override.value()
    if value is None:
        return None
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _settings(override: Override) -> list[Setting]:
    key = override.key_or_group
    if not override.is_sweep_override():
        assert override.input_line is not None
        return [Setting(key, override.input_line)]
    _check_discrete(override)
    settings = [
        Setting(key, f"{override.get_key_element()}={value}", True) for value in override.sweep_string_iterator()
    ]
    if not settings:
        raise UserError(f"{override.input_line} matches nothing to sweep over.")
    return settings


def _check_discrete(override: Override) -> None:
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} has no list of values to sweep over; give a comma list, choice(...) or range(...), "
            "or search it with hydra/sweeper=optuna."
        )
