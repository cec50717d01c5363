"""The launchers of ``hydra/launcher=slurm`` (and ``submitit_slurm``) and ``hydra/launcher=submitit_local``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import OmegaConf

from hydra_plugins.indexnet_plugins.launcher import FrozenLauncher

if TYPE_CHECKING:
    from indexnet.sweep.pool import Outcome


class ClusterLauncher(FrozenLauncher):
    """Submits prepared runs to SLURM and waits for them.

    Args:
        **settings: those of hydra-submitit-launcher.
    """

    cluster: Literal["slurm", "local"] = "slurm"

    def __init__(self, **settings: Any) -> None:
        self.settings = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in settings.items()
        }

    def run(self, configs: Sequence[dict[str, Any]], titles: Sequence[str], **options: Any) -> "list[Outcome]":
        from indexnet.sweep.slurm import run_on_cluster

        return run_on_cluster(self.cluster, self.settings, configs, titles, **options)


class LocalClusterLauncher(ClusterLauncher):
    """Runs prepared runs through submitit on this machine, one after the other: for trying a cluster's set-up."""

    cluster: Literal["slurm", "local"] = "local"
