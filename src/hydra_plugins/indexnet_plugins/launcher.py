"""The launcher of ``-m``: all configurations composed and frozen first, then every job in a process of its own."""

import os
import shlex
import sys
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from indexnet.core.console import tell, warn
from indexnet.core.paths import DEFAULT_RUNS, VARIABLE

if TYPE_CHECKING:
    from indexnet.sweep.named import NamedSweep
    from indexnet.sweep.pool import Outcome


@dataclass
class _LauncherConf:
    _target_: str = "hydra_plugins.indexnet_plugins.launcher.ProcessLauncher"
    n_jobs: int | None = None


ConfigStore.instance().store(group="hydra/launcher", name="process", node=_LauncherConf, provider="indexnet")


class FrozenLauncher(Launcher):
    """Freezes all runs of a sweep before any begins; the task function of the application is not called."""

    config: DictConfig
    context: HydraContext
    named: "NamedSweep | None" = None
    tables: Sequence[str] = ()  # those that the command line asks for; a row of one may be the run of another

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose, freeze and prepare every job, then run those that have no result.

        Raises:
            UserError: a configuration, a folder or the cluster does not work out; nothing has been started.
        """
        from indexnet.run.config import sweep_options
        from indexnet.sweep.frozen import frozen_jobs
        from indexnet.sweep.order import brought_along

        own, named = sweep_options(self.config), self.named
        configs = frozen_jobs(self.config, self.context, job_overrides)
        warn_borrowed(self.tables, configs)
        if named is not None:
            named.check(configs, lambda planned: frozen_jobs(self.config, self.context, planned))
        outcomes = self.run(
            configs,
            job_titles(configs, job_overrides),
            fail_fast=own["fail_fast"],
            retry_failed=own["retry_failed"],
            rerun=own["rerun"],
            kept=brought_along(configs, job_overrides),
            arguments=sys.argv[1:],
            **({} if named is None else {"keep": lambda: named.keep(configs)}),
        )
        say_what_next(configs, self.tables)
        return job_returns(outcomes, job_overrides)

    @abstractmethod
    def run(self, configs: Sequence[dict[str, Any]], titles: Sequence[str], **options: Any) -> "list[Outcome]":
        """Run frozen configurations; the options are those of :func:`indexnet.sweep.launch.run_sweep`."""


class ProcessLauncher(FrozenLauncher):
    """Runs jobs through :mod:`indexnet.sweep.launch`.

    Args:
        n_jobs: processes at a time; default what the experiment file says, else 1.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        self.n_jobs = n_jobs

    def run(self, configs: Sequence[dict[str, Any]], titles: Sequence[str], **options: Any) -> "list[Outcome]":
        from indexnet.sweep.frozen import jobs_at_a_time
        from indexnet.sweep.launch import check_roots, run_sweep

        check_roots(configs, options["retry_failed"], options["rerun"])
        return run_sweep(configs, titles, n_jobs=jobs_at_a_time(self.config, self.n_jobs), **options)


def job_returns(outcomes: Sequence["Outcome"], job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """Say in Hydra's words what came of each job; its working directory is its run folder."""
    returns = []
    for outcome, overrides in zip(outcomes, job_overrides, strict=True):
        result = JobReturn(overrides=list(overrides), working_dir=str(outcome.job.folder), task_name="indexnet")
        good = outcome.status in ("done", "before")
        result.status = JobStatus.COMPLETED if good else JobStatus.FAILED
        result.return_value = None if good else RuntimeError(f"{outcome.job.folder}: {outcome.reason}")
        returns.append(result)
    return returns


def warn_borrowed(tables: Sequence[str], configs: Sequence[dict[str, Any]]) -> None:
    """Say of rows that are runs of other tables in what these differ, before anything is trained."""
    from indexnet.run.experiments.tables import load_experiment

    for experiment in map(load_experiment, tables):
        if experiment.borrowed:
            from indexnet.run.borrowed import borrowed_remarks

            for text in borrowed_remarks(experiment, configs):
                warn(text)


def say_what_next(configs: Sequence[dict[str, dict[str, object]]], asked: Sequence[str] = ()) -> None:
    """Name the command that makes the table, and say where a protocol is too small to rank anything."""
    from indexnet.run.experiments.tables import load_experiment

    tables = {
        str(c["experiment"]["name"]): str(c["paths"]["runs"]) for c in configs if c["experiment"]["name"] is not None
    }
    runs = next(iter(tables.values()), DEFAULT_RUNS)
    tables = dict.fromkeys(asked, runs) or tables
    folders = os.environ.get(VARIABLE) if any(word.startswith(("--config-dir", "-cd")) for word in sys.argv) else None
    own = f"{VARIABLE}={shlex.quote(folders)} " if folders else ""
    for name, runs in tables.items():
        where = "" if runs == DEFAULT_RUNS else f" --runs {shlex.quote(runs)}"
        tell(f"The table: {own}indexnet report {name}{where}")
        experiment = load_experiment(name, runs)
        if not experiment.ranks:
            tell(f"This budget ranks nothing. {experiment.title}: {experiment.notes}")


def job_titles(configs: Sequence[dict[str, dict[str, object]]], job_overrides: Sequence[Sequence[str]]) -> list[str]:
    """Name each job by its row, or by the overrides that not all jobs share."""
    shared = set.intersection(*(set(overrides) for overrides in job_overrides)) if job_overrides else set()
    titles = []
    for config, overrides in zip(configs, job_overrides, strict=True):
        own = [text for text in overrides if text not in shared and not text.startswith("seed=")]
        titles.append(str(config["experiment"]["row"] or " ".join(own) or config["task"]["name"]))
    return titles
