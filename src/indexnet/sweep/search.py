"""Hyperparameter search: trials that Optuna proposes, each of them a run in a folder of its own.

Parameters are drawn in one process, the launcher's; the processes of a run never see Optuna. A trial is measured on the
validation split. Optuna's storage knows which trials are finished: those that were interrupted run again with the
parameters they had, and a parameter drawn after an interruption is the one that would have been drawn without it.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from indexnet.core.console import tell
from indexnet.core.errors import UserError
from indexnet.core.locks import exclusive
from indexnet.run.experiments.experiment import key_of
from indexnet.run.identity import is_place

_MAX_FIRST_FAILURES = 3
"""Failed trials, with none finished ever, after which a search gives up: what they share must be wrong."""


Range = FloatDistribution | IntDistribution | CategoricalDistribution
"""The values of a searched key; choices are texts, as an override writes them."""


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


Measure = Callable[[Sequence[Sequence[str]]], Sequence[Measured]]
"""Runs configurations, given by the overrides of each, all different, at the same time."""


@dataclass
class Search:
    """What is searched for, where, and how long.

    Attributes:
        task: name of the task.
        space: the searched keys, as in an override (``optimizer.lr``, ``+data.x``), and their ranges.
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
    space: Mapping[str, Range]
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
    say: Callable[[str], None] = tell

    def __post_init__(self) -> None:
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        self.name = self.name or f"{self.task}-{digest[:8]}"
        if "/" in self.name:
            raise UserError(f"hydra.sweeper.study={self.name} also names a file; give one without a slash.")
        self.storage = self.storage.removeprefix("sqlite:///") or str(self.folder / f"{self.name}.db")

    @property
    def url(self) -> str:
        """The storage as Optuna takes it."""
        return self.storage if "://" in self.storage else f"sqlite:///{self.storage}"

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
            "space": {key: describe(values) for key, values in self.space.items()},
            "fixed": sorted(text for text in self.fixed if not _is_place(text)),
            "metric": self.metric,
            "direction": "maximize" if self.maximize else "minimize",
        }

    def point(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> tuple[str, ...]:
        """Return the overrides that set a trial's parameters."""
        return tuple(f"{key}={trial.params[key]}" for key in self.space)


def describe(values: Range) -> str:
    """Return a range in short, ``0.0001 to 0.1, log``; a study is known by this text."""
    if isinstance(values, CategoricalDistribution):
        return " | ".join(map(str, values.choices))
    whole = isinstance(values, IntDistribution)
    parts = [f"{'whole numbers ' if whole else ''}{values.low:.10g} to {values.high:.10g}"]
    if values.step is not None and not (whole and values.step == 1):
        parts.append(f"step {values.step:.10g}")
    return ", ".join([*parts, *(["log"] if values.log else [])])


def _is_place(override: str) -> bool:
    """Whether an override says where and how runs go, not what they are: a study goes on whatever it is."""
    key = key_of(override)
    if key == "plugins":  # in every study's name so far
        return False
    return is_place(key) or key in ("fail_fast", "retry_failed", "rerun")


@dataclass(frozen=True)
class SearchResult:
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


def run_search(search: Search, measure: Measure) -> SearchResult:
    """Draw parameters and measure them until enough trials are finished.

    Raises:
        UserError: the storage cannot be used, holds another search, or another command is at work on it.
    """
    busy = f"another search is at work on study {search.name!r}; wait for it or stop it, or give hydra.sweeper.study."
    with exclusive(search.lock, busy):
        study = open_study(search)
        finished, failed = _run(search, study, measure)
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return SearchResult(finished, failed)
    best = study.best_trial
    return SearchResult(finished, failed, search.point(best), best.value, str(best.user_attrs.get("folder", "")))


def open_study(search: Search) -> optuna.Study:
    """Open the study of a search, or make it.

    Raises:
        UserError: the storage cannot be used, or its study is another search.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    identity = search.identity()
    try:
        if "://" not in search.storage:
            Path(search.storage).parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name=search.name, storage=search.url, direction=identity["direction"], load_if_exists=True
        )
        known, trials = study.user_attrs.get("indexnet"), study.get_trials(deepcopy=False)
    except Exception as error:  # what a driver raises depends on it: no database, a locked or newer one, no such host
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{search.storage} cannot be used to keep the trials ({reason}); give hydra.sweeper.storage=ANOTHER_FILE."
        ) from error
    if known is None and not trials:
        study.set_user_attr("indexnet", identity)
    elif known != identity:
        raise UserError(
            f"study {search.name!r} in {search.storage} is another search ({_difference(known, identity)}); give "
            "hydra.sweeper.study=ANOTHER_NAME."
        )
    return study


def _run(search: Search, study: optuna.Study, measure: Measure) -> tuple[int, int]:
    """Return how many trials are finished, ever, and how many have failed now."""
    finished = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
    interrupted = _interrupted(search, study)
    before = f", {finished} done before" if finished else ""
    before += f", {len(interrupted)} interrupted" if interrupted else ""
    search.say(f"search {search.name}: {search.n_trials} trials{before}; kept in {search.storage}")
    failed, number = 0, finished
    while (room := min(search.n_trials - finished - failed, search.n_jobs)) > 0:
        batch, interrupted = interrupted[:room], interrupted[room:]
        while len(batch) < room:
            batch.append(_draw(search, study))
        points = [search.point(trial) for trial in batch]
        for index, point in enumerate(points, number + 1):
            search.say(f"trial {index} of {search.n_trials}: {' '.join(point)}")
        different = list(dict.fromkeys(points))  # drawn twice, run once
        try:
            measured = dict(zip(different, measure(different), strict=True))
        except UserError as error:  # these values do not work out
            for trial in batch:
                trial.set_user_attr("reason", str(error))
                study.tell(trial, state=TrialState.FAIL)
            raise
        for trial, point in zip(batch, points, strict=True):
            number += 1
            state, said = _conclude(search, study, trial, measured[point])
            search.say(f"trial {number}: {said}")
            finished += state is not TrialState.FAIL
            failed += state is TrialState.FAIL
        if failed and (search.fail_fast or (not finished and failed >= _MAX_FIRST_FAILURES)):
            break
    return finished, failed


def _conclude(search: Search, study: optuna.Study, trial: optuna.Trial, result: Measured) -> tuple[TrialState, str]:
    """Tell the study what came of a trial; return its state, and the same in words."""
    trial.set_user_attr("folder", result.folder)
    if result.status == "done" and result.value is not None and math.isfinite(result.value):
        study.tell(trial, result.value)
        return TrialState.COMPLETE, f"{search.metric} {result.value:.5g} (best {study.best_value:.5g})"
    reason = result.reason or f"{search.metric} is not measurable"
    trial.set_user_attr("reason", reason)
    diverged = result.status == "diverged"
    state = TrialState.PRUNED if diverged else TrialState.FAIL  # the first: a result, and worse than all that did not
    study.tell(trial, state=state)
    return state, f"{'diverged' if diverged else 'failed'}: {reason}"


def _draw(search: Search, study: optuna.Study) -> optuna.Trial:
    """Ask for a trial; what is drawn follows from the seed and the trials before, not from when the command began."""
    count = len(study.get_trials(deepcopy=False))
    drawn = int(np.random.SeedSequence((search.seed, count)).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar is called experimental before Optuna 5
        study.sampler = optuna.samplers.TPESampler(
            seed=drawn, n_startup_trials=search.startup_trials, constant_liar=search.n_jobs > 1
        )
        return study.ask(dict(search.space))


def _interrupted(search: Search, study: optuna.Study) -> list[optuna.Trial]:
    """Return the trials that a command left without a result, first those that began first; their lock is ours now."""
    found = []
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if frozen.params.keys() == search.space.keys():
            # the trial itself: enqueue_trial would make another one, and the number of trials seeds what is drawn next
            found.append(optuna.Trial(study, frozen._trial_id))
        else:  # killed while its parameters were drawn: it has never run
            study.tell(frozen.number, state=TrialState.FAIL)
    return found


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
