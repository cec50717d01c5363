"""Foreground colours from a photograph and its matte, by pymatting."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from indexnet.core.errors import UserError
from indexnet.data.base import Float32, UInt8

_COLOURS = "the estimate of foreground colours"
_lock = threading.Lock()


def check_installed(purpose: str = _COLOURS) -> None:
    """Refuse before any work is done what cannot be done without pymatting.

    Args:
        purpose: what needs it, for the message.

    Raises:
        UserError: pymatting is not installed.
    """
    if importlib.util.find_spec("pymatting") is None:
        raise UserError(f"{purpose} needs pymatting; install it with: pip install 'indexnet[matting]'.")


@contextmanager
def pymatting_alone(purpose: str = _COLOURS) -> Iterator[ModuleType]:
    """Give pymatting to one thread at a time, and so that processes forked later can use it too.

    Left alone, numba, which compiles pymatting, computes with GNU OpenMP, which ends a forked process whose parent has
    used it before. Its own work queue survives forks, but not two threads at once. The choice is made when pymatting is
    imported: import it nowhere else.

    Args:
        purpose: what needs it, for the message.

    Raises:
        UserError: pymatting is not installed.
    """
    check_installed(purpose)
    with _lock:
        import numba

        numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]
        import pymatting  # compiles for about a minute when it is imported for the first time

        yield pymatting


def estimate_foreground(image: UInt8, alpha: Float32) -> UInt8:
    """Estimate the colours of what a matte cuts out, by multi-level optimisation (Germer et al., ICPR 2020).

    Colours exist at every pixel, also where alpha is 0, so that nothing of the old background bleeds into a composite.

    Args:
        image: (H, W, 3), uint8, RGB.
        alpha: (H, W), float32 in [0, 1].

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UserError: pymatting is not installed.
    """
    with pymatting_alone() as pymatting:
        estimated = pymatting.estimate_foreground_ml(image.astype(np.float64) / 255, alpha.astype(np.float64))
    return np.asarray(np.rint(np.clip(estimated, 0, 1) * 255), np.uint8)
