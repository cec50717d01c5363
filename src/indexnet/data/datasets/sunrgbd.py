"""``sunrgbd``: photographs of indoor scenes in 37 classes."""

from __future__ import annotations

import re
from pathlib import Path

from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, register_data
from indexnet.data.io.names import is_file, list_named
from indexnet.data.segmentation import Pair, SegmentationData, listed_pairs

_IMAGES = {"train": "SUNRGBD-train_images", "test": "SUNRGBD-test_images"}
_LABELS = "sunrgbd_train_test_labels"
_TEST_COUNT = 5050  # label maps number the test images first, then the training images


@register_data
class SunRgbd(SegmentationData):
    """Photographs from four depth cameras, the official split: 5285 to train on and 5050 to test on; depth is not read.

    The files lie as three archives of the meta data's repository unpack; label map ``n`` belongs to test image ``n`` up
    to 5050, and to training image ``n - 5050`` beyond. Files that lie otherwise are found through lists,
    ``ROOT/train.txt`` and ``ROOT/test.txt``, where these exist.

    Options as in :class:`~indexnet.data.segmentation.SegmentationData`.
    """

    info = DataInfo(
        name="sunrgbd",
        title="SUN RGB-D, 37 classes",
        tasks=("segmentation",),
        source="Song et al., SUN RGB-D, CVPR 2015; images and label maps: github.com/ankurhanda/sunrgbd-meta-data",
        layout=f"ROOT/{_IMAGES['train']}/img-000001.jpg ... 005285, ROOT/{_IMAGES['test']}/img-000001.jpg ... 005050, "
        f"ROOT/{_LABELS}/img-000001.png ... 010335 (test first); or lists ROOT/train.txt and ROOT/test.txt, an image "
        "and its label map a line, relative to ROOT",
    )
    classes = (
        *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf"),
        *("picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat"),
        *("clothes", "ceiling", "books", "fridge", "television", "paper", "towel", "shower curtain", "box"),
        *("whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag"),
    )
    first, void = 1, (0,)

    def pairs(self, split: str) -> list[Pair]:
        """Return the files that the split's list names, or else those of the split's archive."""
        if is_file(self.root / f"{split}.txt"):
            return listed_pairs(self.root, f"{split}.txt")
        folder = self.root / _IMAGES[split]
        images = {_number(path): path for path in list_named(folder)}
        offset = _TEST_COUNT if split == "train" else 0
        labels = {_number(path) - offset: path for path in list_named(self.root / _LABELS)}
        labels = {number: path for number, path in labels.items() if number > 0 and (offset or number <= _TEST_COUNT)}
        return [
            Pair(
                images.get(number, folder / f"img-{number:06d}.jpg"),
                labels.get(number, self.root / _LABELS / f"img-{number + offset:06d}.png"),
            )
            for number in sorted({*images, *labels})
        ]


def _number(path: Path) -> int:
    """Return the number in a file's name.

    Raises:
        UserError: it has none.
    """
    found = re.fullmatch(r"img-(\d{6})", path.stem)
    if not found:
        raise UserError(f"{path} is not named img-NNNNNN, so that nobody knows its label map; remove or rename it.")
    return int(found[1])
