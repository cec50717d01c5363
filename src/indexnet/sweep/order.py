"""Runs that start from other runs of the same sweep: where those lie, whether they fit, and which wait for which."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.run.folder import RunFolder, run_path
from indexnet.run.schema import read_config
from indexnet.sweep.expand import BROUGHT


def with_sources(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tell each frozen configuration of a row that starts from another one where that one's last checkpoint will be.

    What differs in the other one from its printed protocol is noted among the ``changes`` of the row, too.

    Args:
        configs: of all jobs of a sweep; a row that another one starts from is among them, before it.

    Raises:
        UserError: it is not, or there are several.
    """
    rows: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    made = [dict(config) for config in configs]
    for config in made:
        name = f"{config['experiment']['name']}:{config['experiment']['row']}"
        rows.setdefault((name, config["seed"]), []).append(config)
    for config in made:
        if (row := (config.get("init") or {}).get("row")) is not None:
            sources = rows.get((row, config["seed"]), [])
            alike = [
                each for each in sources if all(each[key]["name"] == config[key]["name"] for key in ("data", "budget"))
            ]
            (source,) = _one(alike or sources, row)
            config["init"] = {**config["init"], "checkpoint": str(RunFolder(run_path(source)).checkpoint().resolve())}
            known = config.get("changes", ())
            theirs = (
                [key if " of " in key else f"{key} of {row}", *values] for key, *values in source.get("changes", ())
            )
            if more := [each for each in theirs if each not in known]:
                config["changes"] = [*known, *more]
    return made


def _one(sources: Sequence[Mapping[str, Any]], row: str) -> Sequence[Mapping[str, Any]]:
    if len(sources) != 1:
        what = "is not a run of this command" if not sources else "is more than one run of this command"
        raise UserError(
            f"a run starts from {row}, which {what}; give one value of data= and budget=, and no init.row=."
        )
    return sources


def source_folder(config: Mapping[str, Any]) -> Path | None:
    """Return the folder of the run that a frozen configuration starts from; None where that is no row."""
    init = config.get("init") or {}
    return Path(init["checkpoint"]).parent.parent if init.get("row") and init.get("checkpoint") else None


def check_sources(configs: Sequence[Mapping[str, Any]], left: Collection[Path]) -> None:
    """Check that runs fit the runs that they start from, before any of them is trained.

    Args:
        configs: frozen, of all jobs.
        left: folders of those that are to be run.

    Raises:
        UserError: a part does not.
    """
    from indexnet.networks.encoders.weights import weight_kinds
    from indexnet.run.freezing.checks import network_without_memory
    from indexnet.run.initial import match

    folders = {run_path(config).resolve(): config for config in configs}
    for config in configs:
        source = source_folder(config)
        if source is None or run_path(config) not in left or source not in folders:
            continue
        if os.path.isfile(RunFolder(run_path(config)).checkpoint()):
            continue  # it needs no more what it began with
        networks = (network_without_memory(each) for each in (config, folders[source]))
        own, theirs = (weight_kinds(each.state_dict()) for each in networks)
        init = read_config(config).init
        try:
            match(own, theirs, init.parts or {}, str(init.row))
        except UserError as error:
            raise UserError(f"row {config['experiment']['row']} of {config['experiment']['name']}: {error}") from error


def brought_along(configs: Sequence[Mapping[str, Any]], job_overrides: Sequence[Sequence[str]]) -> frozenset[Path]:
    """Return the folders of runs that are there only because others start from them: ``rerun=`` does not mean them."""
    return frozenset(
        run_path(config) for config, overrides in zip(configs, job_overrides, strict=True) if BROUGHT in overrides
    )
