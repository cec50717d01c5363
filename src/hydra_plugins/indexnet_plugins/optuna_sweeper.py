"""The sweeper of ``hydra/sweeper=optuna``: searches ranges for the best value of a metric on the validation split."""

import importlib.util
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.indexnet_plugins import sweeper  # the module: Hydra takes every class here for a plugin of its own
from indexnet.core.console import tell
from indexnet.core.errors import UserError
from indexnet.core.registry import unknown_name

if TYPE_CHECKING:
    from indexnet.sweep.search import Measured, Range, Search, SearchResult

_SELECTING = ("experiments", "rows", "seeds", "seed", "split")


@dataclass
class OptunaSettings:
    """``hydra.sweeper`` of ``hydra/sweeper=optuna``.

    Attributes:
        n_trials: finished trials to come to, those of earlier commands of the same search included.
        metric: what to search for; default the task's first one.
        direction: ``maximize`` or ``minimize``; default the metric's.
        study: name of the search; default made from what is searched.
        storage: file or URL that keeps the trials; default ``<paths.runs>/search/<study>.db``.
        seed: of what is drawn, not of the runs.
        startup_trials: trials drawn at random first.
        n_jobs: trials at a time; default ``hydra.launcher.n_jobs``, else 1.
    """

    _target_: str = "hydra_plugins.indexnet_plugins.optuna_sweeper.OptunaSweeper"
    n_trials: int = 20
    metric: str | None = None
    direction: str | None = None
    study: str | None = None
    storage: str | None = None
    seed: int = 0
    startup_trials: int = 10
    n_jobs: int | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSettings, provider="indexnet")


class OptunaSweeper(sweeper.IndexnetSweeper):
    """Measures trials through the launcher, some at a time; only this process draws parameters.

    Args:
        **settings: those of :class:`OptunaSettings`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = OptunaSettings(**settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember the sweep's configuration and start the launcher.

        Raises:
            UserError: Optuna is missing, or the launcher runs jobs inside this process.
        """
        if importlib.util.find_spec("optuna") is None:
            raise UserError("hydra/sweeper=optuna needs Optuna: pip install 'indexnet[sweep]'.")
        name = str(config.hydra.runtime.choices["hydra/launcher"])
        if name not in sweeper.OWN_PROCESSES:
            raise UserError(
                f"hydra/launcher={name} runs trials inside the process that draws them; leave hydra/launcher out."
            )
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Search, then say what was found and what trains it.

        Raises:
            UserError: the command line asks for something that cannot be searched.
            SystemExit: some trials failed.
        """
        from indexnet.sweep.launch import PARTLY
        from indexnet.sweep.search import run_search

        if self.config.get("rerun") is True:
            raise UserError(
                "rerun=true does finished runs again, and a search keeps what its trials came to; give "
                "hydra.sweeper.study=NAME for a new one, with rerun=changed where code has changed."
            )
        overrides = OverridesParser.create(config_loader=self.context.config_loader).parse_overrides(arguments)
        space, fixed = read_request(overrides)
        if self.config.get("tests"):  # of the table; a search sees no test data
            fixed = [*(text for text in fixed if not text.startswith("tests=")), "tests=[]"]
        search = self._search(space, fixed)
        found = run_search(search, lambda points: self._measure(search, points))
        _print_result(search, found)
        if found.failed:
            raise SystemExit(PARTLY)
        return None

    def _search(self, space: Mapping[str, "Range"], fixed: Sequence[str]) -> "Search":
        """Settle metric, names and places from the configuration of a trial."""
        from indexnet.metrics import get_metric
        from indexnet.sweep.frozen import frozen_jobs
        from indexnet.sweep.search import Search
        from indexnet.tasks import get_task

        settings = self.settings
        for key, least in (("n_trials", 1), ("startup_trials", 1), ("seed", 0)):
            if getattr(settings, key) < least:
                raise UserError(f"hydra.sweeper.{key}={getattr(settings, key)} must be at least {least}.")
        if settings.direction not in (None, "maximize", "minimize"):
            raise UserError(f"hydra.sweeper.direction={settings.direction} must be maximize or minimize.")
        configs = frozen_jobs(self.config, self.context, [[*fixed, *point] for point in examples(space)])
        config = configs[0]
        _check_validation(config)
        task = get_task(config["task"]["name"])
        metric = task.metric_names[0] if settings.metric is None else settings.metric
        if metric not in task.metric_names:
            raise unknown_name(f"metric of task {task.name!r}", metric, task.metric_names)
        more = get_metric(metric).info.higher_is_better
        n_jobs = settings.n_jobs or self.config.hydra.launcher.get("n_jobs") or 1
        if n_jobs < 1:
            raise UserError(f"{n_jobs} trials at a time must be at least 1.")
        return Search(
            task=task.name,
            space=space,
            fixed=fixed,
            metric=metric,
            maximize=more if settings.direction is None else settings.direction == "maximize",
            n_trials=settings.n_trials,
            folder=Path(config["paths"]["runs"]) / "search",
            name=settings.study or "",
            storage=settings.storage or "",
            seed=settings.seed,
            startup_trials=settings.startup_trials,
            n_jobs=n_jobs,
            fail_fast=bool(self.config.fail_fast),
        )

    def _measure(self, search: "Search", points: Sequence[Sequence[str]]) -> list["Measured"]:
        returns = self.launcher.launch([[*search.fixed, *point] for point in points], initial_job_idx=0)
        return [_measured(result, search.metric) for result in returns]


def read_range(override: Override) -> "Range":
    """Read what a sweep over one key asks for.

    ``a,b`` and ``choice(a,b)`` are choices, ``interval(low,high)`` is any number between, ``int(interval(low,high))``
    any integer, ``range(start,stop,step)`` numbers of that step without ``stop``; ``tag(log,...)`` around an interval
    searches its logarithm. Choices stay texts, as an override writes them.

    Raises:
        UserError: the range cannot be searched.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    said, sweep = override.input_line, override.value()
    if unknown := set(getattr(sweep, "tags", ())) - {"log"}:
        raise UserError(f"{said}: the tag {sorted(unknown)[0]!r} says nothing here; the only one is log.")
    log = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, ChoiceSweep):
        choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
        if log:
            raise UserError(f"{said}: choices have no logarithm; give tag(log,interval(low,high)).")
        if len(choices) < 2:
            raise UserError(f"{said}: at least two different choices can be searched.")
        return CategoricalDistribution(sorted(choices) if sweep.shuffle else choices)  # another order each time
    step: float | None = None
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
        assert low is not None
        assert high is not None
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UserError(f"{said}: an interval goes from a smaller to a larger number.")
        whole = isinstance(low, int) and isinstance(high, int)
    elif isinstance(sweep, RangeSweep):
        values = list(sweep.range())
        if len(values) < 2:
            raise UserError(f"{said}: a range of at least two numbers can be searched.")
        whole = all(isinstance(value, int) for value in values)
        step = abs(float(sweep.step))
        if log and not (whole and step == 1):
            raise UserError(f"{said}: the logarithm of a range with steps cannot be searched; give tag(log,interval).")
        low, high = min(values), max(values)
        if not whole:  # sums of steps, which are off in the last digit
            low, high = float(f"{low:.10g}"), float(f"{high:.10g}")
    else:
        raise UserError(f"{said} cannot be searched; give interval(low,high), range(...) or choices a,b,c.")
    if log and low <= 0:
        raise UserError(f"{said}: the logarithm needs a lower end above 0.")
    if whole:
        return IntDistribution(int(low), int(high), log, int(step or 1))
    return FloatDistribution(low, high, log, step)


def read_request(overrides: Sequence[Override]) -> tuple[dict[str, "Range"], list[str]]:
    """Sort a command line into what is searched and what every trial gets.

    With ``experiments=NAME rows=ONE`` a trial has the protocol of that row; its run is one of its own all the same,
    for a table's row is measured on the test split.

    Raises:
        UserError: nothing is searched, or what is asked for cannot be.
    """
    from indexnet.run.experiments.experiment import key_of
    from indexnet.run.experiments.tables import load_experiment
    from indexnet.sweep.expand import expand_request
    from indexnet.sweep.expand import read_request as read_asked

    selecting = [each for each in overrides if each.key_or_group in _SELECTING]
    given = {each.key_or_group: each for each in selecting}
    if any(each.key_or_group == "sweep" and each.value() is not None for each in overrides):
        raise UserError(
            "sweep=NAME makes a table of given values, and a search draws its own; give hydra.sweeper.study=NAME."
        )
    if (split := given.pop("split", None)) is not None and split.value() != "validation":
        raise UserError(
            f"{split.input_line}: a search is measured on the validation split, so that the test split stays unseen; "
            "leave split out."
        )
    others = [each for each in overrides if each not in selecting]
    space: dict[str, Range] = {}
    for each in others:
        if each.is_sweep_override():
            values = read_range(each)
            if (key := each.get_key_element()) in space:
                raise UserError(f"{key} is searched twice.")
            space[key] = values
    if not space:
        raise UserError(
            "nothing to search; give ranges, for example 'optimizer.lr=tag(log,interval(1e-4,1e-1))' or "
            "resampling.family=hin,m2o."
        )
    plain = [each for each in others if not each.is_sweep_override()]
    asked = read_asked([*(each for each in selecting if each.key_or_group != "split"), *plain])
    jobs = list(expand_request(asked))
    experiment = given.get("experiments")
    if starting := next((text for job in jobs for text in job if key_of(text) == "init.row"), None):
        raise UserError(
            f"{starting}: such a row starts from another one, and a search trains one run a trial; leave rows= out and "
            "give init.checkpoint=FILE."
        )
    if experiment is not None and experiment.value() is not None and "seed" not in given and "seeds" not in given:
        first = load_experiment(asked.experiments[0]).seeds[0]
        jobs = [job for job in jobs if job[-1] == f"seed={first}"]
    if len(jobs) != 1:
        raise UserError("a search has one row and one seed; give rows=NAME and seed=NUMBER.")
    (job,) = jobs
    searched = [key.lstrip("+~") for key in space]
    fixed = [
        text for text in job if not any(f"{key_of(text)}.".startswith(f"{each}.") for each in ("experiment", *searched))
    ]
    if fixed != job and experiment is not None:
        fixed += ["experiment.name=null", "experiment.row=null", "experiment.label=null"]
    return space, [*fixed, "split=validation"]


def examples(space: Mapping[str, "Range"]) -> list[list[str]]:
    """Return points that have every choice once: where these can be composed, no trial fails for a mistyped name."""
    from optuna.distributions import CategoricalDistribution

    tried = {k: v.choices if isinstance(v, CategoricalDistribution) else (v.low,) for k, v in space.items()}
    first = {key: values[0] for key, values in tried.items()}
    points = [first, *({**first, key: other} for key, values in tried.items() for other in values[1:])]
    return [[f"{key}={value}" for key, value in point.items()] for point in points]


def _check_validation(config: dict[str, Any]) -> None:
    """Refuse a data set without validation split before anything is trained.

    Raises:
        UserError: it has none, or its files are missing.
    """
    from indexnet.run.loader import build_data, measured_splits

    data = build_data(config["data"], config["task"]["name"], config["training"]["size"])
    measured_splits(data, config["split"])


def _measured(result: Any, metric: str) -> "Measured":
    """Read what came of a trial from its run's record."""
    from indexnet.run.folder import RunFolder
    from indexnet.sweep.search import Measured

    folder = str(result.working_dir)
    try:
        record = RunFolder(Path(folder)).record()
    except UserError as error:
        return Measured("failed", folder=folder, reason=str(error))
    if record is not None and record.status == "done":
        return Measured("done", record.metrics.get(metric), folder)
    reason = str((record and record.error) or result._return_value or "its run has no result")
    diverged = record is not None and record.status == "diverged"
    return Measured("diverged" if diverged else "failed", folder=folder, reason=reason)


def _print_result(search: "Search", found: "SearchResult") -> None:
    """Print what was found, where it lies, and the command that trains it for the test split."""
    failed = f", {found.failed} failed" if found.failed else ""
    if found.value is None:
        tell(f"{found.finished} of {search.n_trials} trials finished{failed}; none has a value.")
    else:
        test = [text for text in search.fixed if not text.startswith("split=") and text != "tests=[]"]
        test = [text for text in test if text not in ("experiment.row=null", "experiment.label=null")]
        tell(f"{found.finished} of {search.n_trials} trials finished{failed}. Best {search.metric} on the validation "
              f"split: {found.value:.5g}")  # fmt: skip
        tell(f"  {' '.join(found.overrides)}")
        tell(f"Its run: {found.folder}")
        tell(f"On the test split: indexnet train {shlex.join([*test, *found.overrides])}")
    tell(f"All trials: {search.storage} (optuna-dashboard {search.url}, where that is installed)")
