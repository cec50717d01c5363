"""Where things lie: configuration groups, experiment files, runs; those of this package and a person's own."""

from __future__ import annotations

import os
from pathlib import Path

from indexnet.core.errors import UserError

VARIABLE = "INDEXNET_EXPERIMENTS"
"""The environment variable that names folders of a person's own, separated as in ``PATH``."""
DEFAULT_RUNS = "runs"
"""The folder of all runs, unless ``paths.runs`` names another."""


def data_root() -> Path:
    """Return the folder that holds ``conf/`` and ``experiments/``: the checkout, or the installed package's data."""
    checkout = Path(__file__).resolve().parents[3]
    if (checkout / "conf" / "config.yaml").is_file() and (checkout / "pyproject.toml").is_file():
        return checkout
    return Path(__file__).resolve().parents[1] / "_data"


def conf_dir() -> Path:
    """Return the folder of the config groups."""
    return data_root() / "conf"


def experiments_dir() -> Path:
    """Return the folder of the experiment files."""
    return data_root() / "experiments"


def runs_folder(given: str | None) -> Path:
    """Return the folder of the runs that a command reads.

    Raises:
        UserError: the one given is not there; a mistyped folder must not look like a table without runs.
    """
    if given is not None and not Path(given).is_dir():
        raise UserError(
            f"--runs {given}: there is no such folder; give the folder that the runs were written to (paths.runs, by "
            f"default {DEFAULT_RUNS})."
        )
    return Path(given or DEFAULT_RUNS)


def own_dirs() -> list[Path]:
    """Return the folders of a person's own that :data:`VARIABLE` names.

    Each holds ``experiments/``, and config groups beside it where it likes.

    Raises:
        UserError: one holds no experiment.
    """
    found: dict[Path, None] = {}
    for text in os.environ.get(VARIABLE, "").split(os.pathsep):
        folder = Path(text).expanduser().absolute()
        if not text or folder.resolve() == data_root():
            continue
        if not holds_experiments(folder):
            raise UserError(
                f"{folder} of the variable {VARIABLE} has no experiments; name a folder that has files "
                "experiments/NAME.yaml."
            )
        found[folder] = None
    return list(found)


def holds_experiments(folder: Path) -> bool:
    """Return whether there is an experiment file in a folder's ``experiments/``."""
    return any((folder / "experiments").rglob("*.yaml"))


def config_file(group: str, option: str) -> Path | None:
    """Return the file of a group's option, as Hydra finds it; None where there is none."""
    files = (folder / group / f"{option}.yaml" for folder in (conf_dir(), *own_dirs()))
    return next((file for file in files if file.is_file()), None)
