"""Experiment files by name: found, listed, read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from indexnet.core.errors import UserError
from indexnet.core.paths import experiments_dir, own_dirs
from indexnet.core.registry import load_plugins, unknown_name
from indexnet.run.experiment import Experiment


def list_experiments() -> list[str]:
    """Return the names of all experiment files, sorted; those at the top first."""
    return sorted(experiment_files(), key=lambda name: (name.count("/"), name))


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


def load_experiment(name: str) -> Experiment:
    """Read and check an experiment file.

    Args:
        name: as in :func:`list_experiments`.

    Raises:
        UserError: there is no such experiment, or its file is wrong; the message names the file and the place.
    """
    path, content = read_file(name)
    from indexnet.run.table_file import Reader

    return Reader(path, content, name).read()


def read_file(name: str) -> tuple[Path, Mapping[str, Any]]:
    """Return where the file of an experiment lies and its content, of which only the form is checked; load its plugins.

    Raises:
        UserError: there is no such experiment, or the file is not YAML with a node ``experiment``.
    """
    files = experiment_files()
    if name not in files:
        raise unknown_name("experiment", name, files)
    path = files[name]
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("experiment"), Mapping):
        raise UserError(f"{path} has no mapping `experiment`, which says what the table is.")
    if "plugins" in content:  # its columns may be metrics that they register
        load_plugins(content["plugins"], f"{path}")
    return path, content
