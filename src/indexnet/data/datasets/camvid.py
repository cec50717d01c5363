"""``camvid``: street scenes in 11 classes, as prepared for SegNet."""

from __future__ import annotations

import re
from pathlib import Path

from indexnet.data.base import DataInfo, Dataset, register_data
from indexnet.data.segmentation import Pair, SegmentationData, listed_pairs

_FRAME = re.compile(r"(\d{4}[A-Z][A-Z0-9]|Seq\d{2}VD)_f?\d+")  # 0001TP_006690, 0006R0_f00930, Seq05VD_f00000
_LISTS = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}


@register_data
class CamVid(SegmentationData):
    """Video frames of 480x360 from a driving car: 367 to train on, 101 to validate and 233 to test on.

    Options as in :class:`~indexnet.data.segmentation.SegmentationData`.
    """

    info = DataInfo(
        name="camvid",
        title="CamVid, 11 classes",
        tasks=("segmentation",),
        source="Brostow et al., Semantic object classes in video, PRL 2009; as in SegNet's tutorial; for research",
        layout="ROOT/train.txt, val.txt, test.txt: an image and its label map a line, relative to ROOT",
    )
    classes = (
        *("sky", "building", "pole", "road", "pavement", "tree"),
        *("sign symbol", "fence", "car", "pedestrian", "bicyclist"),
    )
    first, void = 0, (11,)

    def pairs(self, split: str) -> list[Pair]:
        return listed_pairs(self.root, _LISTS[split])

    def scene(self, image: Path) -> str:
        """Return the video that a frame is of: ``0001TP`` of ``0001TP_006690``; else its name."""
        found = _FRAME.fullmatch(image.stem)
        return found[1] if found else image.stem

    def validation(self) -> Dataset:
        return self._split("validation")
