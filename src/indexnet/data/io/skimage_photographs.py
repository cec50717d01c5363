"""The photographs that ship inside scikit-image's package, split once into training and test photographs.

Nothing is downloaded: only files that lie in the installed package are read, straight from disk. Each is decoded once
per process.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from indexnet.core.errors import UserError
from indexnet.data.base import UInt8
from indexnet.data.io.images import read_image

#: Photographs to train on and to test on; no scene is on both sides. The colour ones come first, COLOUR of them.
TRAIN = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg")
TRAIN_GRAY = ("brick.png", "camera.png", "cell.png", "clock_motion.png", "gravel.png", "page.png")
TEST = ("motorcycle_left.png", "rocket.jpg")
TEST_GRAY = ("coins.png", "grass.png", "moon.png", "text.png")


def names(split: str, colour_only: bool = False) -> tuple[str, ...]:
    """File names of a split's photographs (``"train"``, else the test ones)."""
    colour, gray = (TRAIN, TRAIN_GRAY) if split == "train" else (TEST, TEST_GRAY)
    return colour if colour_only else colour + gray


@lru_cache(maxsize=1)
def folder() -> Path:
    """Return the folder of scikit-image's photographs, without importing scikit-image.

    Raises:
        UserError: scikit-image is not installed.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the photographs of scikit-image are not here: pip install scikit-image.")
    return Path(spec.submodule_search_locations[0]) / "data"


@lru_cache(maxsize=64)
def load(name: str, channels: int = 3, longest: int | None = None) -> UInt8:
    """Return one photograph, read-only, decoded once per process.

    Args:
        name: file name, one of :func:`names`.
        channels: 3 gives (H, W, 3) RGB (a gray photograph three times), 1 gives (H, W) luma (ITU-R BT.601).
        longest: shrink, by area averaging, to at most this many pixels on the longer side.

    Raises:
        UserError: this scikit-image ships without it.
    """
    path = folder() / name
    if not path.is_file():
        raise UserError(
            f"scikit-image ships without the photograph {name} here ({path.parent}); reinstall it from the package "
            "index: pip install --force-reinstall scikit-image."
        )
    image = read_image(path)
    if longest is not None:
        image = shrunk(image, longest)
    if channels == 1:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    image.flags.writeable = False
    return image


def shrunk(image: UInt8, longest: int) -> UInt8:
    """Shrink an image, by area averaging, to at most ``longest`` pixels on the longer side."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def sizes(files: tuple[str, ...]) -> list[list[str | int]]:
    """Names and byte sizes of photographs, for fingerprints."""
    return [[name, path.stat().st_size if (path := folder() / name).is_file() else -1] for name in files]
