"""What a training pipeline is, and the registry of names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.core.registry import Registry
from indexnet.data.base import Float32, UInt8, check_choice, check_size, planes
from indexnet.data.io.cache import Arrays


@dataclass(frozen=True)
class Scene:
    """What one sample is made of.

    Attributes:
        foreground: colours (H, W, 3) and alpha (H, W), both uint8.
        background: (h, w, 3), uint8, of any size.
        other: gives another foreground's arrays by number, 0 <= number < ``count``.
        count: how many foregrounds there are.
    """

    foreground: Arrays
    background: UInt8
    other: Callable[[int], Arrays]
    count: int


class Targets(NamedTuple):
    """What a network is trained with, aligned, on the scale of 0..255.

    Attributes:
        image: the composite, (H, W, 3), uint8 or float32.
        alpha: (H, W), uint8 or float32.
        trimap: (H, W), uint8 in {0, 128, 255}.
        fg: (H, W, 3), uint8 or float32.
        bg: (H, W, 3), uint8 or float32.
    """

    image: UInt8 | Float32
    alpha: UInt8 | Float32
    trimap: UInt8
    fg: UInt8 | Float32
    bg: UInt8 | Float32

    def tensors(self) -> dict[str, Tensor]:
        """Return the targets as float32 tensors (C, H, W) in [0, 1], each under its name."""
        return {name: planes(array) for name, array in self._asdict().items()}


CROP_AROUND = ("unknown", "mixed")
"""What lies in the middle of a crop."""


class Pipeline(ABC):
    """Makes samples of ``size`` x ``size`` pixels.

    Args:
        size: side of the samples in pixels.

    Attributes:
        name: in the registry, and of the option ``data.pipeline``.
        chooses_centre: whether it can crop round either kind of pixel.
        crop_around: which, see :func:`create_pipeline`.
        draws_background: whether every sample draws its background, also where the data set has one for each composite.
    """

    name: ClassVar[str]
    draws_background: ClassVar[bool] = False
    chooses_centre: ClassVar[bool] = False
    crop_around: str = CROP_AROUND[0]

    def __init__(self, size: int) -> None:
        self.size = check_size("training.size", size)

    @abstractmethod
    def draw(self, scene: Scene, rng: np.random.Generator) -> Targets:
        """Make one sample; all that is random is drawn from ``rng``."""


PIPELINES: Registry[Pipeline] = Registry(
    "pipeline", "indexnet.data.matting.pipelines", name_of=lambda pipeline: str(pipeline.name)
)
register_pipeline = PIPELINES.register


def list_pipelines() -> list[str]:
    """Return the names of all pipelines, sorted."""
    return list(PIPELINES.classes())


def create_pipeline(name: str, size: int, crop_around: str = CROP_AROUND[0]) -> Pipeline:
    """Build a pipeline.

    Args:
        name: registry name, see :func:`list_pipelines`.
        size: side of its samples in pixels.
        crop_around: of pipelines that can do either, what lies in the middle of a crop: a pixel that is ``unknown`` in
            the trimap, or one that is ``mixed``, of an alpha between 0 and 1.

    Raises:
        UserError: the name or ``crop_around`` is unknown, the pipeline has its own way to crop, or the size is none.
    """
    check_choice("data.pipeline", name, list_pipelines())
    check_choice("data.crop_around", crop_around, CROP_AROUND)
    kind = PIPELINES.get(name)
    if crop_around == CROP_AROUND[0]:
        return kind(size)
    if not kind.chooses_centre:
        able = [each for each in list_pipelines() if PIPELINES.get(each).chooses_centre]
        raise UserError(
            f"data.crop_around={crop_around} is for data.pipeline={' or '.join(able)}; {name} crops in one way, so "
            "leave it out."
        )
    made = kind(size)
    made.crop_around = crop_around
    return made
