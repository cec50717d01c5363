"""Where things lie: configuration groups, experiment files, runs."""

from __future__ import annotations

from pathlib import Path


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


DEFAULT_RUNS = "runs"
"""The folder of all runs, unless ``paths.runs`` names another."""
