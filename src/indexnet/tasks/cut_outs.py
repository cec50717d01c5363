"""From alpha to files: what every task that cuts objects out of photographs writes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.data.base import Float32, UInt8
from indexnet.data.io.skimage_photographs import shrunk
from indexnet.data.matting.cutouts import cut_out, foreground_colours, on_background, read_background
from indexnet.data.matting.enlarge import enlarge_alpha
from indexnet.data.matting.estimate import check_installed
from indexnet.networks.tiled.matting_protocol import to_uint8
from indexnet.tasks.predictor import Files, Photo, Predictor

PREDICT_OPTIONS = ("depth", "cutout", "background")
"""Options of ``indexnet predict`` that :class:`CutOutPredictor` follows."""

GUIDE_OPTIONS = ("masks", "boxes", "box", "band", "longest")
"""Those of tasks that are given a trimap: what makes one, and the size at which alpha is found."""

_SHORTEST = 32  # that a photograph may be shrunk to


def quantise_alpha(alpha: Float32, depth: Literal[8, 16]) -> UInt8 | NDArray[np.uint16]:
    """Bring alpha in [0, 255] to what a PNG holds.

    Args:
        alpha: (H, W), as :meth:`CutOutPredictor.alpha` returns it.
        depth: 8: cut to whole levels, as the paper measures it; 16: rounded, 65535 is opaque.

    Returns:
        uint8 or uint16 (H, W).
    """
    return to_uint8(alpha) if depth == 8 else np.rint(np.clip(alpha, 0, 255) * np.float32(257)).astype(np.uint16)


def to_levels(planes: Tensor) -> UInt8:
    """Return a sample's image (C, H, W) in [0, 1] as uint8 (H, W, C)."""
    return np.ascontiguousarray((planes * 255).round().byte().permute(1, 2, 0).numpy())


class CutOutPredictor(Predictor):
    """Predicts alpha image by image, each at its own size, and cuts out what it finds.

    Args:
        options: ``depth``: bits of alpha, 8 or 16; ``cutout``: whether to write cut-outs; ``background``: a file, a
            colour or ``blur`` to put them before; ``longest``: of a photograph with a trimap and a longer side alpha is
            found on a copy of so many pixels, and enlarged by the photograph's edges. None or missing: 8, no, none, as
            it is.

    Raises:
        UserError: the background cannot be read, ``longest`` is below 32, or pymatting is not installed where colours
            are needed.
    """

    batched = False
    cuts_out = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.depth: Literal[8, 16] = options.get("depth") or 8
        self.longest: int | None = options.get("longest")
        if self.longest is not None and self.longest < _SHORTEST:
            raise UserError(f"--longest {self.longest} must be at least {_SHORTEST} pixels.")
        background = options.get("background")
        self.background = None if background is None else read_background(background)
        wanted = {"cutout": bool(options.get("cutout")), "composite": self.background is not None}
        self.folders: Sequence[str] = [folder for folder, asked in wanted.items() if asked]
        if self.folders:
            check_installed()

    def from_photo(self, photo: Photo) -> Photo:
        """Return the photograph itself: float32 copies of a large one would take gigabytes."""
        return photo

    def __call__(self, given: Sequence[Photo]) -> list[Files]:
        """Return alpha, the trimap where it was made, and what was asked for, of every photograph."""
        return [self._files(photo) for photo in given]

    def _files(self, photo: Photo) -> Files:
        alpha = self.alpha(photo)
        files: dict[str, Any] = {"": quantise_alpha(alpha, self.depth)}
        if photo.made:
            files["trimap"] = photo.trimap
        if self.folders:
            alpha /= 255
            colours = foreground_colours(photo.image, alpha)
            if "cutout" in self.folders:
                files["cutout"] = cut_out(photo.image, alpha, colours)
            if self.background is not None:
                files["composite"] = on_background(photo.image, alpha, self.background, colours)
        return files

    def alpha(self, photo: Photo) -> Float32:
        """Return alpha (H, W) in [0, 255], not rounded; a trimap that was made on the way is the photograph's then.

        Raises:
            UserError: it cannot be predicted.
        """
        trimap = photo.trimap
        if self.longest is None or trimap is None or max(trimap.shape) <= self.longest:
            return self.solve(photo)
        small = shrunk(photo.image, self.longest)
        known = cv2.resize(trimap, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_NEAREST)
        found = self.solve(Photo(small, np.asarray(known, np.uint8), photo.name))
        return enlarge_alpha(found, small, photo.image, trimap)

    @abstractmethod
    def solve(self, photo: Photo) -> Float32:
        """Return :meth:`alpha` of a photograph as it is.

        Raises:
            UserError: it cannot be predicted.
        """
