"""Experiments by name: found, listed, read. Files of this package and of a person, and sweeps with a name."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.core.paths import DEFAULT_RUNS, VARIABLE, experiments_dir, own_dirs
from indexnet.core.readers import DamagedFileError, read_mapping
from indexnet.core.registry import load_plugins, unknown_name
from indexnet.run.experiments.experiment import Experiment
from indexnet.run.experiments.links import link
from indexnet.run.experiments.table_file import Reader
from indexnet.run.run_sets import run_folders

SWEEP_FILE = "experiment.yaml"
"""What says, in the folder of a sweep with a name, what its table is: ``<runs>/<name>/experiment.yaml``."""


def list_experiments(runs: str | Path | None = None) -> list[str]:
    """Return the names of all experiments, sorted; those at the top first.

    Args:
        runs: the folder of the runs, whose sweeps count as well; None: files alone.
    """
    return sorted({**experiment_files(), **sweep_files(runs)}, key=lambda name: (name.count("/"), name))


def experiment_files() -> dict[str, Path]:
    """Return every experiment file by name: those of this package, and of a person's own folders.

    Raises:
        UserError: a name is there twice, or a folder of a person's own has no experiments.
    """
    found: dict[str, Path] = {}
    for folder in (experiments_dir(), *(own / "experiments" for own in own_dirs())):
        for path in folder.rglob("*.yaml"):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise UserError(f"experiment {name!r} exists twice, {found[name]} and {path}; rename one of them.")
            found[name] = path
    return found


def sweep_files(runs: str | Path | None) -> dict[str, Path]:
    """Return the file of every sweep with a name that is kept below a folder of runs."""
    if runs is None:
        return {}
    found = (path for level in ("*", "*/*") for path in glob.iglob(f"{level}/{SWEEP_FILE}", root_dir=runs))
    return {os.path.dirname(path): Path(runs, path) for path in sorted(found)}


def unknown_experiment(name: str, runs: str | Path = DEFAULT_RUNS) -> UserError:
    """Return the complaint about ``experiments=NAME`` where there is no such file."""
    if name in sweep_files(runs):
        return UserError(
            f"experiments={name}: {name} is a sweep; sweep={name} goes on with it, and `indexnet sweep save {name} "
            f"experiments/{name}.yaml` makes an experiment file of it."
        )
    if (path := experiment_files().get(name)) is not None:
        return UserError(f"{path} is no file, or a link that leads nowhere; an experiment is a YAML file.")
    return unknown_name("experiment", name, list_experiments(), VARIABLE)


def experiments_with_runs(runs: str | Path) -> list[str]:
    """Return the names of the experiments and sweeps that have runs below a folder, sorted."""
    sweeps = sweep_files(runs)
    return [name for name in list_experiments(runs) if name in sweeps or run_folders(Path(runs) / name)]


def load_experiment(name: str, runs: str | Path | None = None) -> Experiment:
    """Read and check an experiment.

    Args:
        name: as in :func:`list_experiments`.
        runs: the folder of the runs, where a sweep of that name is looked for if there is no such file.

    Raises:
        UserError: there is no such experiment, or its file is wrong; the message names the file and the place.
    """
    return link(_as_written(name, runs), lambda other: _as_written(other, runs))


def _as_written(name: str, runs: str | Path | None) -> Experiment:
    path, content = read_file(name, runs)
    return Reader(path, content, name, is_sweep=name not in experiment_files()).read()


def read_file(name: str, runs: str | Path | None = None) -> tuple[Path, Mapping[str, Any]]:
    """Return where the file of an experiment lies and its content, of which only the form is checked; load its plugins.

    Raises:
        UserError: there is no such experiment, or the file is not YAML with a node ``experiment``.
    """
    own = experiment_files()
    files = {**sweep_files(runs), **own}
    if name not in files:
        error = unknown_name("experiment", name, files, VARIABLE)
        raise error if runs is None else UserError(f"{error} Sweeps are looked for in {runs}.")
    path = files[name]
    try:
        content = read_mapping(path)
        if not isinstance(content.get("experiment"), Mapping):
            raise DamagedFileError(f"{path} has no mapping `experiment`, which says what the table is.")
    except FileNotFoundError:
        raise UserError(f"{path} has just gone; restore it, or give the command without it.") from None
    except DamagedFileError as error:
        remedy = " Restore it, or move it away: the same command with all its seeds makes it anew."
        raise DamagedFileError(f"{error}{'' if name in own else remedy}") from error
    if "plugins" in content:  # its columns may be metrics that they register
        load_plugins(content["plugins"], f"{path}")
    return path, content
