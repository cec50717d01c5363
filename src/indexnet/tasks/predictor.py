"""What a task makes of a person's images: from a photograph to the arrays that image files hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexnet.data.base import Float32, UInt8

Files = Mapping[str, NDArray[np.uint8] | NDArray[np.uint16]]
"""Arrays (H, W), (H, W, 3) or (H, W, 4) by the folder that their file goes to; ``""`` is the result itself."""


@dataclass
class Photo:
    """An image that was read.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        trimap: uint8 (H, W) in {0, 128, 255}, None where none is wanted.
        name: what messages call it.
        made: whether the trimap was made here, of a mask or boxes.
        snapped: pixels of the trimap's file that had other values.
        remarks: what a person should know, in sentences.
    """

    image: UInt8
    trimap: UInt8 | None = None
    name: str = ""
    made: bool = False
    snapped: int = 0
    remarks: list[str] = field(default_factory=list)


class Predictor(ABC):
    """Predicts for ``indexnet predict`` and ``indexnet app``, see :meth:`indexnet.tasks.Task.create_predictor`.

    What :meth:`from_photo` and :meth:`from_sample` return is opaque to the commands.

    Attributes:
        batched: whether several images of one :meth:`shape` can be done at a time.
        cuts_out: whether :meth:`alpha` exists, so that results are cut-outs too.
        folders: folders beside the result itself that options asked for.
    """

    batched: bool = True
    cuts_out: bool = False
    folders: Sequence[str] = ()

    @abstractmethod
    def from_photo(self, photo: Photo) -> Any:
        """Turn a photograph into what is predicted from.

        Raises:
            UserError: it cannot be used, such as one that is too small.
        """

    @abstractmethod
    def from_sample(self, sample: Mapping[str, Any], name: str) -> Any:
        """Turn a test sample of a data set, which messages call ``name``, into what is predicted from."""

    def shape(self, given: Any) -> tuple[int, ...]:
        """Return what images that go through the network together have in common."""
        return tuple(given["image"].shape)

    @abstractmethod
    def __call__(self, given: Sequence[Any]) -> list[Files]:
        """Return what to write for each of several images of one shape.

        Raises:
            UserError: one cannot be predicted.
        """

    def alpha(self, photo: Photo) -> Float32:
        """Return alpha (H, W) in [0, 255], not rounded, of a photograph with its trimap; only with ``cuts_out``.

        Raises:
            UserError: it cannot be predicted.
        """
        raise NotImplementedError(type(self).__name__)
