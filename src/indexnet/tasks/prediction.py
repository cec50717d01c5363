"""What a task makes of a person's images: from a photograph to the arrays that image files hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from indexnet.data.base import Float32, UInt8

if TYPE_CHECKING:
    from indexnet.tasks.base import Task

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


class Predictor:
    """Predicts for ``indexnet predict`` and the page of ``indexnet app``: batches of one size through the network.

    A task whose images go another way has a subclass, see :meth:`indexnet.tasks.Task.create_predictor`. What
    :meth:`from_photo` and :meth:`from_sample` return is opaque to the commands.

    Args:
        task: on its device, in eval mode.

    Attributes:
        batched: whether several images of one size can be done at a time.
        cuts_out: whether :meth:`alpha` exists, so that results are cut-outs too.
        folders: folders beside the result itself that options asked for.
    """

    batched: bool = True
    cuts_out: bool = False
    folders: Sequence[str] = ()

    def __init__(self, task: Task) -> None:
        self.task = task

    def from_photo(self, photo: Photo) -> Any:
        """Turn a photograph into what is predicted from.

        Raises:
            UserError: the image is too small for the network's halvings.
        """
        return self.task.image_sample(photo.image, photo.trimap, photo.name)

    def from_sample(self, sample: Mapping[str, Any], name: str) -> Any:
        """Turn a test sample of a data set, which messages call ``name``, into what is predicted from."""
        batch = self.task.prepare(default_collate([dict(sample)]))
        return {key: value[0] for key, value in batch.items()}

    def shape(self, given: Any) -> tuple[int, ...]:
        """Return what images that go through the network together have in common."""
        return tuple(given["image"].shape)

    def __call__(self, given: Sequence[Any]) -> list[Files]:
        """Return what to write for each image of one :meth:`shape`."""
        batch: dict[str, Any] = default_collate(list(given))
        predictions: Tensor = self.task.predict(batch)
        alone = [{key: value[i : i + 1] for key, value in batch.items()} for i in range(len(given))]
        return [self.task.outputs(predictions[i : i + 1], one) for i, one in enumerate(alone)]

    def alpha(self, photo: Photo) -> Float32:
        """Return alpha (H, W) in [0, 255], not rounded, of a photograph with its trimap; only with ``cuts_out``.

        Raises:
            UserError: it cannot be predicted.
        """
        raise NotImplementedError(type(self).__name__)
