"""Matting without a network: closed-form and KNN matting, as pymatting solves them, in the place of a trained task."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from indexnet.core.conventions import UNKNOWN
from indexnet.core.errors import UserError
from indexnet.core.files import format_bytes
from indexnet.core.machine import available_memory
from indexnet.core.registry import unknown_name
from indexnet.data.matting.estimate import pymatting_alone
from indexnet.networks import Network
from indexnet.resampling.base import NONE, create_resampling
from indexnet.tasks.matting import MattingTask


@dataclass(frozen=True)
class ClassicalMethod:
    """Facts about one method.

    Attributes:
        title: a person's name for it.
        paper: where it was published.
        per_pixel: memory that pymatting takes at its peak, in bytes per pixel of the image; measured on photographs of
            0.1 to 1.2 megapixels of which 40 to 99 % are unknown.
        per_unknown: what it takes beyond that per unknown pixel.
    """

    title: str
    paper: str
    per_pixel: int
    per_unknown: int


CLASSICAL = {
    "closed_form": ClassicalMethod(
        "closed-form matting", "Levin et al., A Closed-Form Solution to Natural Image Matting (TPAMI 2008)", 300, 2500
    ),
    "knn": ClassicalMethod("KNN matting", "Chen et al., KNN Matting (TPAMI 2013)", 3600, 0),
}
"""The methods by the names that commands take in the place of a checkpoint."""

# Where alpha is 1 the solvers stop a little below it, and cutting to 8 bits would then take a whole level off.
_SOLVER = 1e-4  # levels of 255


class _NoNetwork(Network):
    """Stands where a task has its network: takes RGB and trimap, has no weights and no stages."""

    encoder = None

    def __init__(self) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.size_multiple = 4, 1, 1
        self.resampling = create_resampling(NONE, ())

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError("a classical method has no network")


class ClassicalMatting(MattingTask):
    """Closed-form or KNN matting: measured, shown and used as a matting network is, on the CPU.

    Args:
        method: a key of :data:`CLASSICAL`.
        **options: those of :class:`indexnet.tasks.matting.MattingTask`.

    Raises:
        UserError: an unknown method, or pymatting is not installed.
    """

    scales = False  # what is small enough to be solved is solved as it is

    def __init__(self, method: str, **options: Any) -> None:
        if method not in CLASSICAL:
            raise unknown_name("classical method", method, CLASSICAL)
        with pymatting_alone(method):
            pass  # imported here: better now than while somebody waits for a result
        super().__init__(_NoNetwork(), **options)
        self.method = method
        self.eval()

    def predict_alpha(self, image: NDArray[np.uint8], trimap: NDArray[np.uint8], name: str = "") -> NDArray[np.float32]:
        """Solve one image; a trimap without unknown pixels is the result as it is. See the base class.

        Raises:
            UserError: a trimap lacks foreground or background, the image is too large for the memory, or the linear
                system cannot be solved.
        """
        unknown = trimap == UNKNOWN
        if not unknown.any():
            return trimap.astype(np.float32)
        self._check(name, trimap)
        solved = self._solve(name, image / 255, trimap)
        return np.where(unknown, np.clip(solved * 255 + _SOLVER, 0, 255), trimap).astype(np.float32)

    def _check(self, name: str, trimap: NDArray[np.uint8]) -> None:
        title = CLASSICAL[self.method].title
        for value, word in ((255, "foreground"), (0, "background")):
            if not (trimap == value).any():
                raise UserError(
                    f"{name}: the trimap has no {word}, which {title} needs; mark some, or use a network instead."
                )
        if self.memory is None:
            return
        free = available_memory() if self.memory == "auto" else self.memory
        method, unknown = CLASSICAL[self.method], int((trimap == UNKNOWN).sum())
        wanted = trimap.size * method.per_pixel + unknown * method.per_unknown
        if wanted > free:
            raise UserError(
                f"{name}: {title} of {trimap.size / 1e6:.1f} megapixels would take about {format_bytes(wanted)} of "
                f"memory where {format_bytes(free)} are given; make the image smaller, or use a network instead."
            )

    def _solve(self, name: str, image: NDArray[np.float64], trimap: NDArray[np.uint8]) -> NDArray[np.float64]:
        values = np.where(trimap == UNKNOWN, 0.5, trimap / 255)
        # it prints remarks on how fast it could have been, and warns of trimaps that it finds odd
        with (
            pymatting_alone(self.method) as pymatting,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            solve = {"closed_form": pymatting.estimate_alpha_cf, "knn": pymatting.estimate_alpha_knn}[self.method]
            try:
                alpha: NDArray[np.float64] = solve(image, values)
            except ValueError as error:
                title = CLASSICAL[self.method].title
                raise UserError(f"{name}: {title} found no solution ({str(error).rstrip('.')}).") from error
        return alpha
