"""The frozen configurations of a sweep's jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from indexnet.run.config import DictConfig, HydraContext, compose_job, freeze_jobs


def frozen_jobs(
    config: DictConfig, context: HydraContext, job_overrides: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """Compose and freeze the configuration of every job of a sweep, once for all seeds of a row; nothing is written.

    Args:
        config: the sweep's own configuration, as Hydra composed it.
        context: Hydra's.
        job_overrides: of each job.

    Returns:
        One frozen configuration for each job, in order.

    Raises:
        UserError: a configuration does not work out.
    """
    return freeze_jobs(job_overrides, lambda overrides: compose_job(config, context, overrides))
