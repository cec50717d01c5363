"""The launchers of ``hydra/launcher=slurm`` (and ``submitit_slurm``) and ``hydra/launcher=submitit_local``."""

import sys
from collections.abc import Sequence
from typing import Any, Literal

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class ClusterLauncher(Launcher):
    """Submits prepared runs to SLURM; the task function of the application is not called.

    Args:
        **settings: those of hydra-submitit-launcher.
    """

    cluster: Literal["slurm", "local"] = "slurm"

    def __init__(self, **settings: Any) -> None:
        self.settings = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in settings.items()
        }
        self.config: DictConfig | None = None
        self.context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose, freeze and prepare every job, then submit those that have no result and wait for them.

        Raises:
            UserError: a configuration, a folder or the cluster does not work out; nothing has been submitted.
        """
        from hydra_plugins.indexnet_plugins.launcher import job_returns, job_titles, say_what_next
        from indexnet.sweep.frozen import frozen_jobs
        from indexnet.sweep.slurm import run_on_cluster

        assert self.config is not None
        assert self.context is not None
        configs = frozen_jobs(self.config, self.context, job_overrides)
        outcomes = run_on_cluster(
            self.cluster,
            self.settings,
            configs,
            job_titles(configs, job_overrides),
            fail_fast=bool(self.config.fail_fast),
            retry_failed=bool(self.config.retry_failed),
            arguments=sys.argv[1:],
        )
        say_what_next(configs)
        return job_returns(outcomes, job_overrides)


class LocalClusterLauncher(ClusterLauncher):
    """Runs prepared runs through submitit on this machine, one after the other: for trying a cluster's set-up."""

    cluster: Literal["slurm", "local"] = "local"
