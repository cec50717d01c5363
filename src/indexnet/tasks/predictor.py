"""What a task makes of a person's images: from a photograph to the arrays that image files hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import default_collate

from indexnet.core.errors import UserError
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
        made: whether the trimap was made here, of a mask or boxes, or by a network that needs none.
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
        """Return alpha (H, W) in [0, 255], not rounded, of a photograph with what it needs; only with ``cuts_out``.

        Raises:
            UserError: it cannot be predicted.
        """
        raise NotImplementedError(type(self).__name__)


class BatchPredictor(Predictor):
    """Predicts by :meth:`indexnet.tasks.Task.infer`, batches of one size at a time.

    Args:
        task: a :class:`indexnet.tasks.Task`, on its device, in eval mode.
    """

    def __init__(self, task: Any) -> None:
        self.task = task

    def from_photo(self, photo: Photo) -> Mapping[str, Any]:
        sample: Mapping[str, Any] = self.task.image_sample(photo.image, photo.trimap, photo.name)
        return sample

    def from_sample(self, sample: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        batch = self.task.prepare(default_collate([dict(sample)]))
        return {key: value[0] for key, value in batch.items()} | {"name": name}

    def __call__(self, given: Sequence[Any]) -> list[Files]:
        """Return :meth:`indexnet.tasks.Task.outputs` of every sample.

        Raises:
            UserError: what the network gives for one is not finite.
        """
        batch = default_collate(list(given))
        predictions, finite = self.task.predict_finite(batch)
        for sample, good in zip(given, finite, strict=True):
            if not good:
                raise not_finite(sample["name"])
        alone = [{key: value[i : i + 1] for key, value in batch.items()} for i in range(len(given))]
        return [self.task.outputs(predictions[i : i + 1], one) for i, one in enumerate(alone)]


def not_finite(name: str) -> UserError:
    """Return the complaint about an image for which a network gives no numbers."""
    return UserError(f"{name}: the network's output is not finite; its training diverged: use another one.")
