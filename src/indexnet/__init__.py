"""Coupled downsampling and upsampling operators for dense prediction.

Everything up to :mod:`indexnet.networks` is plain PyTorch; Lightning enters in :mod:`indexnet.tasks`, Hydra in
:mod:`indexnet.run.config` and in the plugins beside this package, ``hydra_plugins``. Importing this package imports
neither torch nor anything heavy: ``indexnet.DataModule``, ``indexnet.load`` and the other names that it offers itself
are imported when they are asked for. ``docs/architecture.md`` has the rooms, and what each may know.
"""

import importlib as _importlib
import os as _os
from typing import Any as _Any

_os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no network look-up at import

__version__ = "0.2.0"

_OFFERED = {
    "DataModule": "run.datamodule",
    "create_network": "networks",
    "create_resampling": "resampling",
    "create_task": "tasks",
    "load": "inference.loading",
}
"""Where the names are that this package offers."""


def __getattr__(name: str) -> _Any:
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(f"{__name__}.{_OFFERED[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_OFFERED})
