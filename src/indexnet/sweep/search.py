"""Hyperparameter search: trials that Optuna proposes, each of them a run in a folder of its own.

Parameters are drawn in one process, the launcher's; the processes of a run never see Optuna. A trial is measured on the
validation split. The storage file knows which trials are finished: those that were interrupted run again with the
parameters they had, and a parameter drawn after an interruption is the one that would have been drawn without it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from indexnet.core.errors import UserError

if TYPE_CHECKING:
    import optuna
    from hydra.core.override_parser.types import Override


Kind = Literal["float", "int", "choice"]
Value = float | int | str

_PLACES = (
    *("paths", "logger", "data.root", "data.cache", "trainer.num_workers", "trainer.progress_bar"),
    *("fail_fast", "retry_failed"),
)
"""Overrides that say where and how runs go, not what they are: a study goes on whatever they are."""

_HOPELESS = 3
"""Failed trials, with none finished ever, after which a search gives up: what they share must be wrong."""


@dataclass(frozen=True)
class Dimension:
    """One searched key.

    Attributes:
        key: as in an override, ``optimizer.lr`` or ``+data.x``.
        kind: numbers from a range, or one of several texts.
        low: smallest value.
        high: largest value, included.
        step: distance of neighbouring values from ``low`` on; None for any number between.
        log: whether the logarithm is searched evenly.
        choices: values as an override writes them; for ``choice`` alone.
    """

    key: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the range in short, ``0.0001 to 0.1, log``."""
        if self.kind == "choice":
            return " | ".join(self.choices)
        whole = "whole numbers " if self.kind == "int" else ""
        parts = [f"{whole}{self.low:.10g} to {self.high:.10g}"]
        if self.step is not None and (self.kind == "float" or self.step != 1):
            parts.append(f"step {self.step:.10g}")
        return ", ".join([*parts, *(["log"] if self.log else [])])

    def example(self) -> Value:
        """Return a value of the range."""
        return self.choices[0] if self.kind == "choice" else int(self.low) if self.kind == "int" else self.low

    def override(self, value: Value) -> str:
        """Return the override that sets a value."""
        return f"{self.key}={value}"

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """Return Optuna's word for it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


def read_dimension(override: Override) -> Dimension:
    """Read what a sweep over one key asks for.

    ``a,b`` and ``choice(a,b)`` are choices, ``interval(low,high)`` is any number between, ``int(interval(low,high))``
    any integer, ``range(start,stop,step)`` numbers of that step without ``stop``; ``tag(log,...)`` around an interval
    searches its logarithm.

    Raises:
        UserError: the range cannot be searched.
    """
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep

    said, key, sweep = override.input_line, override.get_key_element(), override.value()
    if unknown := set(getattr(sweep, "tags", ())) - {"log"}:
        raise UserError(f"{said}: the tag {sorted(unknown)[0]!r} says nothing here; the only one is log.")
    log = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
        assert low is not None
        assert high is not None
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UserError(f"{said}: an interval goes from a smaller to a larger number.")
        whole = isinstance(low, int) and isinstance(high, int)
        dimension = Dimension(key, "int" if whole else "float", low, high, 1 if whole else None, log)
    elif isinstance(sweep, RangeSweep):
        values = list(sweep.range())
        step = sweep.step
        if len(values) < 2:
            raise UserError(f"{said}: a range of at least two numbers can be searched.")
        whole = all(isinstance(value, int) for value in values)
        dimension = Dimension(key, "int" if whole else "float", min(values), max(values), abs(float(step)), log)
        if log and not (whole and abs(step) == 1):
            raise UserError(f"{said}: the logarithm of a range with steps cannot be searched; give tag(log,interval).")
    elif isinstance(sweep, ChoiceSweep):
        choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
        if sweep.shuffle:  # another order each time, which means nothing here
            choices = tuple(sorted(choices))
        if log:
            raise UserError(f"{said}: choices have no logarithm; give tag(log,interval(low,high)).")
        if len(choices) < 2:
            raise UserError(f"{said}: at least two different choices can be searched.")
        return Dimension(key, "choice", choices=choices)
    else:
        raise UserError(f"{said} cannot be searched; give interval(low,high), range(...) or choices a,b,c.")
    if log and dimension.low <= 0:
        raise UserError(f"{said}: the logarithm needs a lower end above 0.")
    return dimension


@dataclass(frozen=True)
class Measured:
    """What came of a trial's run.

    Attributes:
        status: ``done``, ``diverged`` or ``failed``.
        value: of the metric that is searched for; None unless done.
        folder: of the run.
        reason: why there is no value.
    """

    status: Literal["done", "diverged", "failed"]
    value: float | None = None
    folder: str = ""
    reason: str = ""


@dataclass
class Search:
    """What is searched for, where, and how long.

    Attributes:
        task: name of the task.
        space: the searched keys.
        fixed: overrides that all trials share.
        metric: name of the metric.
        maximize: whether more of it is better.
        n_trials: finished trials to come to, those of earlier commands included.
        folder: where studies are kept.
        name: of the study; default made from what is searched: another search, another name.
        storage: file or URL of the storage; default ``<folder>/<name>.db``.
        seed: of what is drawn.
        startup_trials: trials drawn at random before the model of good parameters takes over.
        n_jobs: trials at a time.
        fail_fast: stop at the first failed trial.
        say: prints a line.
    """

    task: str
    space: Sequence[Dimension]
    fixed: Sequence[str]
    metric: str
    maximize: bool
    n_trials: int
    folder: Path
    name: str = ""
    storage: str = ""
    seed: int = 0
    startup_trials: int = 10
    n_jobs: int = 1
    fail_fast: bool = False
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        self.name = self.name or f"{self.task}-{digest[:8]}"
        if "/" in self.name:
            raise UserError(f"hydra.sweeper.study={self.name} also names a file; give one without a slash.")
        self.storage = self.storage.removeprefix("sqlite:///") or str(self.folder / f"{self.name}.db")

    @property
    def lock(self) -> Path:
        """The file that a command holds while it is at work: beside a storage file, wherever it is used from."""
        if "://" in self.storage:
            return self.folder / f".{self.name}.lock"
        storage = Path(self.storage).resolve()
        return storage.with_name(f"{storage.name}.{self.name}.lock")  # studies of one file do not disturb each other

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for a study to go on, as plain data."""
        return {
            "space": {each.key: each.describe() for each in self.space},
            "fixed": sorted(text for text in self.fixed if not _is_place(text)),
            "metric": self.metric,
            "direction": "maximize" if self.maximize else "minimize",
        }


@dataclass(frozen=True)
class Found:
    """What a search has come to.

    Attributes:
        finished: trials with a result, diverged ones included, of this and earlier commands.
        failed: trials of this command without a result.
        overrides: the best parameters; empty where no trial is done.
        value: the metric with them.
        folder: their run.
    """

    finished: int
    failed: int
    overrides: tuple[str, ...] = ()
    value: float | None = None
    folder: str = ""


def run_search(search: Search, measure: Callable[[Sequence[Sequence[str]]], Sequence[Measured]]) -> Found:
    """Draw parameters and measure them until enough trials are finished.

    Args:
        search: what to do.
        measure: runs configurations, given by the overrides of each, all different, at the same time.

    Raises:
        UserError: the storage cannot be used, holds another search, or another command is at work on it.
    """
    from indexnet.core.locks import exclusive

    busy = f"another search is at work on study {search.name!r}; wait for it or stop it, or give hydra.sweeper.study."
    with exclusive(search.lock, busy):
        return _run(search, open_study(search), measure)


def open_study(search: Search) -> optuna.Study:
    """Open the study of a search, or make it.

    Raises:
        UserError: the storage cannot be used, or its study is another search.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = optuna.study.StudyDirection
    direction = directions.MAXIMIZE if search.maximize else directions.MINIMIZE
    url = search.storage
    try:
        if "://" not in url:
            Path(url).parent.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{url}"
        study = optuna.create_study(study_name=search.name, storage=url, direction=direction, load_if_exists=True)
        known, trials = study.user_attrs.get("indexnet"), study.get_trials(deepcopy=False)
    except Exception as error:  # what a driver raises depends on it: no database, a locked or newer one, no such host
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{search.storage} cannot be used to keep the trials ({reason}); give hydra.sweeper.storage=ANOTHER_FILE."
        ) from error
    identity = search.identity()
    if known is None and not trials:
        study.set_user_attr("indexnet", identity)
    elif known != identity:
        raise UserError(
            f"study {search.name!r} in {search.storage} is another search ({_difference(known, identity)}); give "
            "hydra.sweeper.study=ANOTHER_NAME."
        )
    return study


def _run(
    search: Search, study: optuna.Study, measure: Callable[[Sequence[Sequence[str]]], Sequence[Measured]]
) -> Found:
    from optuna.trial import TrialState

    finished = _count(study)
    interrupted = _interrupted(search, study)
    before = f", {finished} done before" if finished else ""
    before += f", {len(interrupted)} interrupted" if interrupted else ""
    search.say(f"search {search.name}: {search.n_trials} trials{before}; kept in {search.storage}")
    failed, number = 0, finished
    while (room := search.n_trials - finished - failed) > 0:
        batch = interrupted[: min(room, search.n_jobs)]
        interrupted = interrupted[len(batch) :]
        while len(batch) < min(room, search.n_jobs):
            batch.append(_draw(search, study))
        texts = [tuple(each.override(trial.params[each.key]) for each in search.space) for trial in batch]
        for index, text in enumerate(texts):
            search.say(f"trial {number + index + 1} of {search.n_trials}: {' '.join(text)}")
        different = list(dict.fromkeys(texts))  # drawn twice, run once
        try:
            measured = dict(zip(different, measure(different), strict=True))
        except UserError as error:  # these values do not work out
            for trial in batch:
                trial.set_user_attr("reason", str(error))
                study.tell(trial, state=TrialState.FAIL)
            raise
        for index, (trial, text) in enumerate(zip(batch, texts, strict=True)):
            result = measured[text]
            trial.set_user_attr("folder", result.folder)
            if result.status == "done" and result.value is not None and math.isfinite(result.value):
                study.tell(trial, result.value)
                finished += 1
                best = study.best_trial
                search.say(f"trial {number + index + 1}: {search.metric} {result.value:.5g} (best {best.value:.5g})")
                continue
            reason = result.reason or f"{search.metric} is not measurable"
            trial.set_user_attr("reason", reason)
            word = "diverged" if result.status == "diverged" else "failed"
            search.say(f"trial {number + index + 1}: {word}: {reason}")
            if result.status == "diverged":  # a result, and worse than all that did not
                study.tell(trial, state=TrialState.PRUNED)
                finished += 1
            else:
                study.tell(trial, state=TrialState.FAIL)
                failed += 1
        number += len(batch)
        if failed and (search.fail_fast or (not finished and failed >= _HOPELESS)):
            break
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        return Found(finished, failed)
    best_trial: optuna.trial.FrozenTrial = study.best_trial
    overrides = tuple(each.override(best_trial.params[each.key]) for each in search.space)
    return Found(finished, failed, overrides, best_trial.value, str(best_trial.user_attrs.get("folder", "")))


def _draw(search: Search, study: optuna.Study) -> optuna.Trial:
    """Ask for a trial; what is drawn follows from the seed and the trials before, not from when the command began."""
    import warnings

    import numpy as np
    from optuna.samplers import TPESampler

    count = len(study.get_trials(deepcopy=False))
    drawn = int(np.random.SeedSequence((search.seed, count)).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar is called experimental before Optuna 5
        study.sampler = TPESampler(seed=drawn, n_startup_trials=search.startup_trials, constant_liar=search.n_jobs > 1)
        return study.ask({each.key: each.distribution() for each in search.space})


def _interrupted(search: Search, study: optuna.Study) -> list[optuna.Trial]:
    """Return the trials that a command left without a result, first those that began first; their lock is ours now."""
    import optuna
    from optuna.trial import TrialState

    found = []
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        trial = optuna.Trial(study, frozen._trial_id)
        if set(frozen.params) == {each.key for each in search.space}:
            found.append(trial)
        else:  # killed while its parameters were drawn: it has never run
            study.tell(trial, state=TrialState.FAIL)
    return found


def _count(study: optuna.Study) -> int:
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def _is_place(text: str) -> bool:
    key = text.lstrip("+~").partition("=")[0]
    return any(key == place or key.startswith(f"{place}.") for place in _PLACES)


def _difference(there: Mapping[str, Any] | None, here: Mapping[str, Any]) -> str:
    """Name the first thing in which two searches differ."""
    if there is None:
        return "made by something else"
    for key in here:
        if there.get(key) != here[key]:
            return f"its {key} is {_short(there.get(key))} there and {_short(here[key])} here"
    return "it has more than this one"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {text}" for key, text in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else json.dumps(value)


def without(overrides: Iterable[str], space: Sequence[Dimension]) -> list[str]:
    """Return the overrides but those of keys that are searched, or of keys within a searched group."""
    searched = [each.key.lstrip("+~") for each in space]
    kept = []
    for text in overrides:
        key = text.partition("=")[0].lstrip("+~")
        if not any(key == name or key.startswith(f"{name}.") for name in searched):
            kept.append(text)
    return kept
