"""The sweeper of ``-m``: hands what a command line asks for to the launcher."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hydra_plugins.indexnet_plugins import launcher  # the module: Hydra takes every class here for a plugin of its own
from indexnet.core.console import tell
from indexnet.core.errors import UserError
from indexnet.core.registry import load_plugins

OWN_PROCESSES = ("process", "slurm", "submitit_slurm", "submitit_local")
"""Launchers that run every job in processes of its own, so that a run on several devices is sound."""


@dataclass
class _SweeperConf:
    _target_: str = "hydra_plugins.indexnet_plugins.sweeper.IndexnetSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="indexnet", node=_SweeperConf, provider="indexnet")


class IndexnetSweeper(Sweeper):
    """Expands a command line into jobs and hands all of them to the launcher at once.

    Without ``experiments`` the jobs are the product of all choices (``a,b``), ranges and ``choice(...)``. With
    ``experiments=NAME`` they are its rows times its seeds times that product; ``rows=a,b`` and ``seeds=0,1`` select.
    With ``sweep=NAME`` what is swept over makes the rows of a table, see :mod:`indexnet.sweep.named`.
    """

    config: DictConfig
    context: HydraContext
    launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.context = config, hydra_context
        self.launcher = start_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run everything that the command line asks for.

        Raises:
            UserError: the command line asks for something that is not there, or that this launcher cannot run.
            SystemExit: some jobs have no result.
        """
        from indexnet.run.config import check_overrides, parse_overrides, sweep_options
        from indexnet.sweep.expand import read_request
        from indexnet.sweep.launch import PARTLY
        from indexnet.sweep.named import asked_jobs

        check_overrides(arguments)
        asked = parse_overrides(arguments, self.context.config_loader)
        jobs, named = asked_jobs(asked, sweep_options(self.config))
        name = str(self.config.hydra.runtime.choices["hydra/launcher"])
        if name not in OWN_PROCESSES:
            self._refuse_devices(name, jobs)
        if isinstance(self.launcher, launcher.FrozenLauncher):
            self.launcher.named = named
            self.launcher.tables = read_request(asked).experiments
        elif named is not None:
            raise UserError(
                f"sweep={named.name} needs a launcher that gives every run a process; leave out hydra/launcher={name}."
            )
        results = self.launcher.launch(jobs, initial_job_idx=0)
        if named is None and len(jobs) > 1 and not any(each.key_or_group == "experiments" for each in asked):
            tell("With sweep=NAME such runs are a table of that name: indexnet status NAME, indexnet report NAME")
        if any(result.status is JobStatus.FAILED for result in results):
            raise SystemExit(PARTLY)
        return [results]

    def _refuse_devices(self, launcher: str, jobs: Sequence[list[str]]) -> None:
        """Refuse DDP under a launcher that runs jobs inside this process, or by repeating this command."""
        from indexnet.run.config import compose_job

        for overrides in jobs:
            trainer = compose_job(self.config, self.context, overrides).trainer
            if trainer.devices != 1 or trainer.num_nodes != 1:
                raise UserError(
                    f"trainer.devices={trainer.devices} in a sweep needs hydra/launcher=process: under "
                    f"hydra/launcher={launcher} every further rank would repeat the whole sweep, and some jobs would "
                    "train on a part of the data without saying so. Leave hydra/launcher out."
                )


def start_launcher(context: HydraContext, task_function: TaskFunction, config: DictConfig) -> Launcher:
    """Start the launcher that a sweep's configuration names.

    The launchers of hydra-submitit-launcher compose a job on the cluster's node, and pass on what they were told of
    tasks, nodes and GPUs; ours, with the same settings, submit frozen runs with a task for each of their devices.
    """
    from indexnet.run.config import sweep_options

    load_plugins(sweep_options(config)["plugins"])
    ours = "hydra_plugins.indexnet_plugins.cluster_launcher"
    for theirs, name in (("SlurmLauncher", "ClusterLauncher"), ("LocalLauncher", "LocalClusterLauncher")):
        if config.hydra.launcher._target_ == f"hydra_plugins.hydra_submitit_launcher.submitit_launcher.{theirs}":
            with open_dict(config):
                config.hydra.launcher._target_ = f"{ours}.{name}"
    return Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task_function, config=config)
