"""The frozen configurations of a sweep's jobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from indexnet.core.annotations import Positive, check_value
from indexnet.core.errors import UserError
from indexnet.core.registry import load_plugins
from indexnet.run.config import (
    DictConfig,
    HydraContext,
    compose,
    compose_job,
    composing,
    follows_seed,
    freeze,
    load_sweep,
    sweep_options,
    to_plain,
)
from indexnet.run.freezing.settle import settled_before, without_sweep
from indexnet.run.schema import Rerun
from indexnet.sweep.named import NamedSweep, asked_jobs
from indexnet.sweep.order import with_sources


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
    return _frozen(job_overrides, lambda overrides: compose_job(config, context, overrides))


def compose_sweep(overrides: Sequence[str]) -> tuple[list[dict[str, Any]], int, bool, Rerun, NamedSweep | None]:
    """Compose and freeze the runs that ``indexnet train -m`` would make of the same overrides; nothing is written.

    Returns:
        The frozen configurations in the sweep's order, how many runs go on at a time, whether failed ones are tried
        again, which finished ones are done again, and the sweep itself where it has a name.

    Raises:
        UserError: what ``indexnet train -m`` would refuse as well.
    """
    with composing():
        base, asked = load_sweep(overrides)
        own = sweep_options(base)
        load_plugins(own["plugins"])  # before a table is read: its columns may be metrics that they register
        jobs, named = asked_jobs(asked, own)
        configs = _frozen(jobs, compose)
        if named is not None:
            named.check(configs, lambda planned: _frozen(planned, compose))
    launcher = base.hydra.launcher  # that of a cluster has no n_jobs: all runs at a time, on one device each
    n_jobs = launcher.n_jobs if "n_jobs" in launcher else 1
    return configs, jobs_at_a_time(base, n_jobs), own["retry_failed"] is True, own["rerun"], named


def jobs_at_a_time(config: DictConfig, n_jobs: int | None) -> int:
    """Return how many runs of a sweep go on at a time: what its launcher says, else what the experiment's file says."""
    if n_jobs is None:
        n_jobs = config.experiment.get("n_jobs", 1)
        check_value("experiment.n_jobs", n_jobs, Positive)
    return int(n_jobs)


def _frozen(jobs: Sequence[Sequence[str]], compose_one: Callable[[Sequence[str]], DictConfig]) -> list[dict[str, Any]]:
    """Compose and freeze jobs; those that differ in their seeds alone once, and none where all are finished."""
    shared: dict[tuple[str, ...], DictConfig] = {}
    composed: list[tuple[DictConfig, dict[str, Any]]] = []  # of each job, and what is its own
    for overrides in jobs:
        seeds = [text for text in overrides if re.fullmatch(r"seed=\d+", text)]
        key, own = tuple(overrides), dict[str, Any]()
        if len(seeds) == 1:
            key = (*(text for text in overrides if text != seeds[0]), "seed")
            own = {"seed": int(seeds[0].removeprefix("seed="))}
        try:
            cfg = shared[key] if key in shared else compose_one(overrides)
        except UserError as error:
            row = _row(overrides)
            if row is None or all(_refusal(each, compose_one) == str(error) for each in _one_a_row(jobs)):
                raise
            raise UserError(f"row {row!r}: {error}") from error
        if not follows_seed(cfg):
            shared[key] = cfg
        composed.append((cfg, own))
    ended: list[dict[str, Any]] = []
    for cfg, own in composed:
        config = settled_before({**without_sweep(to_plain(cfg)), **own})
        if config is None:
            break
        ended.append(config)
    else:
        return with_sources(ended)
    frozen: dict[int, dict[str, Any]] = {}
    for cfg, _ in composed:
        if id(cfg) not in frozen:
            frozen[id(cfg)] = freeze(cfg)
    return with_sources([{**frozen[id(cfg)], **own} for cfg, own in composed])


def _one_a_row(jobs: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Return the first job of each row."""
    return list({_row(overrides): overrides for overrides in reversed(jobs)}.values())


def _row(overrides: Sequence[str]) -> str | None:
    """Return the row of a table that a job is of; None where it is of none."""
    return next((text.partition("=")[2] for text in overrides if text.startswith("experiment.row=")), None)


def _refusal(overrides: Sequence[str], compose_one: Callable[[Sequence[str]], DictConfig]) -> str | None:
    """Say why a job cannot be composed; None where it can."""
    try:
        compose_one(overrides)
    except UserError as error:
        return str(error)
    return None
