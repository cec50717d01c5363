"""The frozen configurations of a sweep's jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig


def frozen_jobs(
    config: DictConfig, context: HydraContext, job_overrides: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """Compose and freeze the configuration of every job of a sweep.

    Args:
        config: the sweep's own configuration, as Hydra composed it.
        context: Hydra's.
        job_overrides: of each job.

    Returns:
        One frozen configuration for each job, in order.

    Raises:
        UserError: a configuration does not work out.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from indexnet.run.config import explain, freeze

    configs = []
    for overrides in job_overrides:
        try:
            composed = context.config_loader.load_sweep_config(config, list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(error, overrides) from error
        own = [str(key) for key in composed if key != "hydra"]
        configs.append(freeze(OmegaConf.masked_copy(composed, own)))
    return configs
