"""What a training pipeline is, and the registry of names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from indexnet.core.registry import Registry
from indexnet.data.base import Float32, UInt8, check_choice, check_size, planes
from indexnet.data.io.cache import Arrays


@dataclass(frozen=True)
class Scene:
    """What one sample is made of.

    Attributes:
        foreground: colours (H, W, 3) and alpha (H, W), both uint8, then what :meth:`Pipeline.maps` gave for them.
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


class Pipeline(ABC):
    """Makes samples of ``size`` x ``size`` pixels.

    Args:
        size: side of the samples in pixels.

    Attributes:
        name: in the registry, and of the option ``data.pipeline``.
        map_names: what :meth:`maps` gives; a name stands for the very values, which are kept in files.
    """

    name: ClassVar[str]
    map_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, size: int) -> None:
        self.size = check_size("training.size", size)

    def maps(self, alpha: UInt8) -> Arrays:
        """Return what is worth computing once for each foreground, from its alpha; each uint8 (H, W)."""
        return ()

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


def create_pipeline(name: str, size: int) -> Pipeline:
    """Build a pipeline.

    Args:
        name: registry name, see :func:`list_pipelines`.
        size: side of its samples in pixels.

    Raises:
        UserError: the name is unknown, or the size is none.
    """
    check_choice("data.pipeline", name, list_pipelines())
    return PIPELINES.get(name)(size)
