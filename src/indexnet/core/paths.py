"""Where things lie: configuration groups, experiment files, runs; those of this package and a person's own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from indexnet.core.errors import UserError

VARIABLE = "INDEXNET_EXPERIMENTS"
"""The environment variable that names folders of a person's own, separated as in ``PATH``."""
DEFAULT_RUNS = "runs"
"""The folder of all runs, unless ``paths.runs`` names another."""

CLASSICAL_METHODS = ("closed_form", "knn")
"""What commands take in the place of a checkpoint: methods of matting without a network."""


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
    if given is not None and not os.path.isdir(given):
        raise UserError(
            f"--runs {given}: there is no such folder; give the folder that the runs were written to (paths.runs, by "
            f"default {DEFAULT_RUNS})."
        )
    return Path(given or DEFAULT_RUNS)


def check_checkpoint(path: str | Path, key: str = "") -> None:
    """Check that a checkpoint is a file that can be opened; needs no torch, which takes seconds to import.

    Args:
        path: of the checkpoint.
        key: what named it, ``ckpt_path=``, for the message.

    Raises:
        UserError: it is a folder, is not there, or must not be read.
    """
    if os.path.isdir(path):
        inside = Path(path, "checkpoints", "last.ckpt")
        hint = f"; its last checkpoint is {inside}" if os.path.isfile(inside) else ""
        raise UserError(f"{key}{path} is a folder, but a checkpoint file is needed{hint}.")
    try:
        if not Path(path).is_file():
            raise UserError(f"there is no checkpoint {key}{path}; give the path of a checkpoint file.")
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise UserError(f"{key}{path} cannot be read ({error.strerror}); check its name and permissions.") from error


def check_methods(paths: Iterable[str | Path]) -> None:
    """Do :func:`check_checkpoint` for each of several, but for names of :data:`CLASSICAL_METHODS`.

    Raises:
        UserError: as there.
    """
    for path in paths:
        if str(path) not in CLASSICAL_METHODS:
            check_checkpoint(path)


def check_inputs(**given: Path | None) -> None:
    """Check that files and folders are there that options name, ``images=Path("photos")``; None is not given.

    Raises:
        UserError: one is not.
    """
    for option, path in given.items():
        if path is not None and not os.path.exists(path):
            raise UserError(f"--{option} {path} does not exist; name a file, or a folder of them.")


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
    return os.path.isdir(folder / "experiments") and any((folder / "experiments").rglob("*.yaml"))


def config_file(group: str, option: str) -> Path | None:
    """Return the file of a group's option, as Hydra finds it; None where there is none."""
    files = (folder / group / f"{option}.yaml" for folder in (conf_dir(), *own_dirs()))
    return next((file for file in files if os.path.isfile(file)), None)
