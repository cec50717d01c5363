"""What a job on a cluster is given: nodes, tasks and GPUs from the runs, all else from the launcher's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import submitit

from indexnet.core.errors import UserError
from indexnet.run.trainer_options import device_count

Cluster = Literal["slurm", "local"]

_SHARED = ("timeout_min", "cpus_per_task", "mem_gb", "name", "stderr_to_stdout")
"""Settings that submitit has for every kind of cluster; the others are SLURM's."""


def job_parameters(
    cluster: Cluster, settings: Mapping[str, Any], configs: Sequence[Mapping[str, Any]]
) -> dict[str, int]:
    """Return how many nodes, tasks and GPUs a job of the sweep takes: a task, and a GPU, for each device.

    Raises:
        UserError: the jobs differ in this, or the launcher's settings say something else.
    """
    wants = {
        (device_count(c["trainer"]["devices"]), c["trainer"]["num_nodes"], c["trainer"]["accelerator"] == "cpu")
        for c in configs
    }
    if len(wants) > 1:
        raise UserError(
            "the jobs of one sweep on a cluster must agree in trainer.devices, trainer.num_nodes and whether "
            "trainer.accelerator is cpu; launch them as one sweep for each."
        )
    ((devices, nodes, cpu),) = wants
    gpus = "gpus_per_node"
    own_gpus = any(settings.get(key) is not None for key in ("gpus_per_task", "gres"))
    wanted = {"nodes": nodes, "tasks_per_node": devices, **({} if cpu or own_gpus else {gpus: devices})}
    keys = {"nodes": "trainer.num_nodes", "tasks_per_node": "trainer.devices", gpus: "trainer.devices"}
    for key, value in wanted.items():
        given = settings.get(key)
        if given not in (None, value) and (given, key) not in ((1, "nodes"), (1, "tasks_per_node")):
            raise UserError(
                f"hydra.launcher.{key}={given}, but {keys[key]}={value} and every device gets a task of its own; leave "
                f"hydra.launcher.{key} out."
            )
    if cluster == "local":
        if nodes > 1:
            raise UserError(f"trainer.num_nodes={nodes} needs a cluster; hydra/launcher=submitit_local is one machine.")
        wanted["tasks_per_node"] = 1  # the process of a run starts its ranks itself, as everywhere but on SLURM
    return wanted


def create_executor(cluster: Cluster, settings: Mapping[str, Any], parameters: Mapping[str, int], runs: Path) -> Any:
    """Return submitit's executor.

    Args:
        cluster: ``slurm`` or ``local``.
        settings: of hydra-submitit-launcher.
        parameters: nodes, tasks and GPUs of a job.
        runs: the folder of all runs; logs go to ``.submitit`` in it unless the settings name another place.

    Raises:
        UserError: this machine has no SLURM, or a setting is wrong.
    """
    given = {key: value for key, value in settings.items() if value is not None and key not in parameters}
    folder = str(given.pop("submitit_folder", ""))
    if not folder or folder == "./.submitit/%j":  # what hydra-submitit-launcher has beside a sweep's own folder
        folder = str(runs.resolve() / ".submitit" / "%j")
    retries = given.pop("max_num_timeout", None)
    for key in ("nodes", "tasks_per_node", "gpus_per_node"):  # a CPU run's: none
        given.pop(key, None)
    mine = {"slurm_srun_args": ["--kill-on-bad-exit=1"]} if cluster == "slurm" else {}  # no rank waits for a dead one
    try:
        executor = submitit.AutoExecutor(
            folder=folder, cluster=cluster, **({} if retries is None else {f"{cluster}_max_num_timeout": retries})
        )
        executor.update_parameters(
            **{key if key in _SHARED else f"{cluster}_{key}": value for key, value in given.items()},
            **parameters,
            **mine,
        )
    except RuntimeError as error:
        if "srun" not in str(error):
            raise
        raise UserError(
            "this machine has no SLURM (no command srun); launch from a cluster's login node, or leave "
            "hydra/launcher=slurm out."
        ) from error
    except (TypeError, ValueError, AssertionError, NameError) as error:
        raise UserError(f"hydra.launcher: {str(error).splitlines()[0]}") from error
    return executor
