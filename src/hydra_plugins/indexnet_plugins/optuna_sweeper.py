"""The sweeper of ``hydra/sweeper=optuna``: searches ranges for the best value of a metric on the validation split."""

import importlib.util
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from indexnet.sweep.search import Dimension, Found, Measured, Search

_SELECTING = ("experiments", "rows", "seeds", "seed", "split")


@dataclass
class _OptunaConf:
    _target_: str = "hydra_plugins.indexnet_plugins.optuna_sweeper.OptunaSweeper"
    n_trials: int = 20
    metric: str | None = None
    direction: str | None = None
    study: str | None = None
    storage: str | None = None
    seed: int = 0
    startup_trials: int = 10
    n_jobs: int | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=_OptunaConf, provider="indexnet")


class OptunaSweeper(Sweeper):
    """Measures trials through the launcher, some at a time; only this process draws parameters.

    Args:
        n_trials: finished trials to come to, those of earlier commands of the same search included.
        metric: what to search for; default the task's first one.
        direction: ``maximize`` or ``minimize``; default the metric's.
        study: name of the search; default made from what is searched.
        storage: file or URL that keeps the trials; default ``<paths.runs>/search/<study>.db``.
        seed: of what is drawn, not of the runs.
        startup_trials: trials drawn at random first.
        n_jobs: trials at a time; default ``hydra.launcher.n_jobs``, else 1.
    """

    def __init__(
        self,
        n_trials: int = 20,
        metric: str | None = None,
        direction: str | None = None,
        study: str | None = None,
        storage: str | None = None,
        seed: int = 0,
        startup_trials: int = 10,
        n_jobs: int | None = None,
    ) -> None:
        self.n_trials, self.metric, self.direction = n_trials, metric, direction
        self.study, self.storage, self.seed, self.startup_trials = study, storage, seed, startup_trials
        self.n_jobs = n_jobs
        self.config: DictConfig | None = None
        self.context: HydraContext | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember the sweep's configuration and start the launcher.

        Raises:
            UserError: Optuna is missing, or the launcher runs jobs inside this process.
        """
        from hydra_plugins.indexnet_plugins.sweeper import OWN_PROCESSES, start_launcher
        from indexnet.core.errors import UserError

        if importlib.util.find_spec("optuna") is None:
            raise UserError("hydra/sweeper=optuna needs Optuna: pip install 'indexnet[sweep]'.")
        name = str(config.hydra.runtime.choices["hydra/launcher"])
        if name not in OWN_PROCESSES:
            raise UserError(
                f"hydra/launcher={name} runs trials inside the process that draws them; leave hydra/launcher out."
            )
        self.config, self.context = config, hydra_context
        self.launcher = start_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Search, then say what was found and what trains it.

        Raises:
            UserError: the command line asks for something that cannot be searched.
            SystemExit: some trials failed.
        """
        from indexnet.sweep.launch import PARTLY
        from indexnet.sweep.search import run_search

        assert self.context is not None
        overrides = OverridesParser.create(config_loader=self.context.config_loader).parse_overrides(arguments)
        space, fixed = read_request(overrides)
        search = self._search(space, fixed)
        found = run_search(search, lambda points: self._measure(search, points))
        _tell(search, found)
        if found.failed:
            raise SystemExit(PARTLY)
        return None

    def _search(self, space: Sequence["Dimension"], fixed: Sequence[str]) -> "Search":
        """Settle metric, names and places from the configuration of a trial."""
        from indexnet.core.errors import UserError
        from indexnet.core.registry import unknown_name
        from indexnet.metrics import get_metric
        from indexnet.sweep.frozen import frozen_jobs
        from indexnet.sweep.search import Search
        from indexnet.tasks import get_task

        assert self.config is not None
        assert self.context is not None
        for key in ("n_trials", "startup_trials"):
            if getattr(self, key) < 1:
                raise UserError(f"hydra.sweeper.{key}={getattr(self, key)} must be at least 1.")
        if self.seed < 0:
            raise UserError(f"hydra.sweeper.seed={self.seed} must be at least 0.")
        if self.direction not in (None, "maximize", "minimize"):
            raise UserError(f"hydra.sweeper.direction={self.direction} must be maximize or minimize.")
        configs = frozen_jobs(self.config, self.context, [[*fixed, *point] for point in examples(space)])
        config = configs[0]
        _check_validation(config)
        task = get_task(config["task"]["name"])
        metric = task.metric_names[0] if self.metric is None else self.metric
        if metric not in task.metric_names:
            raise unknown_name(f"metric of task {task.name!r}", metric, task.metric_names)
        more = get_metric(metric).info.higher_is_better
        n_jobs = self.n_jobs or self.config.hydra.launcher.get("n_jobs") or 1
        if n_jobs < 1:
            raise UserError(f"{n_jobs} trials at a time must be at least 1.")
        return Search(
            task=task.name,
            space=space,
            fixed=fixed,
            metric=metric,
            maximize=more if self.direction is None else self.direction == "maximize",
            n_trials=self.n_trials,
            folder=Path(config["paths"]["runs"]) / "search",
            name=self.study or "",
            storage=self.storage or "",
            seed=self.seed,
            startup_trials=self.startup_trials,
            n_jobs=n_jobs,
            fail_fast=bool(self.config.fail_fast),
        )

    def _measure(self, search: "Search", points: Sequence[Sequence[str]]) -> list["Measured"]:
        assert self.launcher is not None
        returns = self.launcher.launch([[*search.fixed, *point] for point in points], initial_job_idx=0)
        return [_measured(result, search.metric) for result in returns]


def read_request(overrides: Sequence[Override]) -> tuple[list["Dimension"], list[str]]:
    """Sort a command line into what is searched and what every trial gets.

    With ``experiments=NAME rows=ONE`` a trial has the protocol of that row; its run is one of its own all the same,
    for a table's row is measured on the test split.

    Raises:
        UserError: nothing is searched, or what is asked for cannot be.
    """
    from indexnet.core.errors import UserError
    from indexnet.run.tables import load_experiment
    from indexnet.sweep.expand import expand
    from indexnet.sweep.search import read_dimension, without

    selecting = [each for each in overrides if each.key_or_group in _SELECTING]
    given = {each.key_or_group: each for each in selecting}
    if (split := given.pop("split", None)) is not None and split.value() != "validation":
        raise UserError(
            f"{split.input_line}: a search is measured on the validation split, so that the test split stays unseen; "
            "leave split out."
        )
    space = [read_dimension(each) for each in overrides if each not in selecting and each.is_sweep_override()]
    if not space:
        raise UserError(
            "nothing to search; give ranges, for example 'optimizer.lr=tag(log,interval(1e-4,1e-1))' or "
            "resampling.family=hin,m2o."
        )
    for index, each in enumerate(space):
        if each.key in [other.key for other in space[:index]]:
            raise UserError(f"{each.key} is searched twice.")
    plain = [each for each in overrides if each not in selecting and not each.is_sweep_override()]
    jobs = list(expand([*(each for each in selecting if each.key_or_group != "split"), *plain]))
    experiment = given.get("experiments")
    if experiment is not None and experiment.value() is not None and "seed" not in given and "seeds" not in given:
        first = load_experiment(jobs[0][0].partition("=")[2]).seeds[0]
        jobs = [job for job in jobs if job[-1] == f"seed={first}"]
    if len(jobs) != 1:
        raise UserError("a search has one row and one seed; give rows=NAME and seed=NUMBER.")
    fixed = without((text for text in jobs[0] if not text.startswith("experiment.")), space)
    if fixed != jobs[0] and experiment is not None:
        fixed += ["experiment.name=null", "experiment.row=null", "experiment.label=null"]
    return space, [*fixed, "split=validation"]


def examples(space: Sequence["Dimension"]) -> list[list[str]]:
    """Return points that have every choice once: where these can be composed, no trial fails for a mistyped name."""
    first = [each.override(each.example()) for each in space]
    points = [first]
    for index, each in enumerate(space):
        others = [each.override(choice) for choice in each.choices[1:]]
        points += [[*first[:index], other, *first[index + 1 :]] for other in others]
    return points


def _check_validation(config: dict[str, Any]) -> None:
    """Refuse a data set without validation split before anything is trained.

    Raises:
        UserError: it has none, or its files are missing.
    """
    from indexnet.data import create_data
    from indexnet.run.schema import data_options
    from indexnet.run.splits import measured_splits

    options = data_options(config)
    measured_splits(create_data(options.pop("name"), **options), config)


def _measured(result: Any, metric: str) -> "Measured":
    """Read what came of a trial from its run's record."""
    from indexnet.core.errors import UserError
    from indexnet.run.folder import RunFolder
    from indexnet.sweep.search import Measured

    folder = str(result.working_dir)
    try:
        record = RunFolder(Path(folder)).record()
    except UserError as error:
        return Measured("failed", folder=folder, reason=str(error))
    if record is not None and record.status == "done":
        return Measured("done", record.metrics.get(metric), folder)
    status, error = ("new", None) if record is None else (record.status, record.error)
    reason = str(error or result._return_value or "its run has no result")
    return Measured("diverged" if status == "diverged" else "failed", folder=folder, reason=reason)


def _tell(search: "Search", found: "Found") -> None:
    """Print what was found, where it lies, and the command that trains it for the test split."""
    failed = f", {found.failed} failed" if found.failed else ""
    if found.value is None:
        print(f"{found.finished} of {search.n_trials} trials finished{failed}; none has a value.")
    else:
        test = [text for text in search.fixed if not text.startswith("split=")]
        test = [text for text in test if text not in ("experiment.row=null", "experiment.label=null")]
        print(f"{found.finished} of {search.n_trials} trials finished{failed}. Best {search.metric} on the validation "
              f"split: {found.value:.5g}")  # fmt: skip
        print(f"  {' '.join(found.overrides)}")
        print(f"Its run: {found.folder}")
        print(f"On the test split: indexnet train {shlex.join([*test, *found.overrides])}")
    url = search.storage if "://" in search.storage else f"sqlite:///{search.storage}"
    print(f"All trials: {search.storage} (optuna-dashboard {url}, where that is installed)")
