"""Finding what a package registers: a new file in its folder is enough."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import every module and package in a package's folder, but those whose names start with an underscore.

    Args:
        package: its name, ``__name__``.
        path: its folders, ``__path__``.
    """
    for module in sorted(pkgutil.iter_modules(path), key=lambda module: module.name):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")
