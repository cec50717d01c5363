"""``nyuv2`` and ``nyuv2_h5``: indoor frames with depth, as folders of images and as one HDF5 file a frame."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, Dataset, check_choice, register_data
from indexnet.data.depth import DepthData, DepthOptions, Frame
from indexnet.data.files import check_files
from indexnet.data.io.file_lists import read_lines
from indexnet.data.io.images import list_images
from indexnet.data.io.names import FileFinder, Names, printable, sample_name
from indexnet.data.segmentation import LabelledImages, Pair, check_scale, check_views

_IMAGES, _DEPTHS, _LABELS = "nyu_images", "nyu_depths", "nyu_labels40"
_LISTS = {"train": "train.txt", "test": "test.txt"}
_H5_FOLDERS = {"train": "train", "validation": "train", "test": "val"}
_HELD_OUT = ("00001.h5", "00201.h5")
_LONGEST_RUN = 50  # frames; the longest of the official training list has 34

CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter"),
    *("blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling"),
    *("books", "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person"),
    *("night stand", "toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture"),
)
"""NYU's 40 classes but the last, "other prop", which the label maps of this layout do not tell from unlabelled."""


@register_data
class NYUv2(DepthData):
    """The 1449 labelled frames of NYU Depth V2, with the official split: 795 to train on, 654 to test on.

    For depth, samples are as in :class:`~indexnet.data.depth.DepthFrames`; for segmentation, into 39 classes, as in
    :class:`~indexnet.data.segmentation.LabelledImages`.
    """

    info = DataInfo(
        name="nyuv2",
        title="NYU Depth V2, labelled frames",
        tasks=("depth", "segmentation"),
        source="Silberman et al., Indoor segmentation and support inference from RGBD images, ECCV 2012; for research",
        layout=(
            f"ROOT/{_IMAGES}/0.jpg ...; ROOT/{_DEPTHS}/0.png ..., 8 bits: metres = (level + 0.5) / 25.5, or 16 bits: "
            f"millimetres; ROOT/{_LABELS}/0.png ..., 0..38, 255 unlabelled; ROOT/train.txt, test.txt: a number a line"
        ),
    )

    @dataclass(frozen=True)
    class Options(DepthOptions):
        """Options; ``crop``, ``evaluation``, ``depth_scale`` are for depth, the others for segmentation, or for both.

        Attributes:
            scale: (low, high): a training image is enlarged by a factor drawn between them.
            pipeline: of depth, see :class:`~indexnet.data.depth.DepthOptions`; of segmentation, see
                :class:`~indexnet.data.segmentation.SegmentationOptions`.
            padding_label: of segmentation with ``csail``, the label of padded pixels: ``"ignore"`` or ``"class0"``.
        """

        scale: Sequence[float] = (0.5, 2.0)
        padding_label: str = "ignore"

    options: Options

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scale = check_scale(self.options.scale)
        foreign: dict[str, Any] = {"scale": self.scale, "padding_label": self.options.padding_label}
        if self.task == "segmentation":
            self.classes = CLASSES
            check_views(self.options.pipeline, self.options.padding_label, self.scale)
            foreign = {option: getattr(self.options, option) for option in ("crop", "evaluation", "depth_scale")}
        for option, value in foreign.items():
            if value != getattr(self.Options, option):  # its default
                raise UserError(f"data.{option} has no effect on the task {self.task}; leave it out.")

    def _split(self, split: str) -> Dataset:
        pairs = self._pairs(self.root / _LISTS[split])
        scenes = _runs([pair.image.stem for pair in pairs]) if split == "train" else None
        if self.task == "depth":
            frames = [
                Frame(sample_name(image), (image, depth), None if scenes is None else scenes[k])
                for k, (image, depth) in enumerate(pairs)
            ]
            return self._frames(split, frames)
        return LabelledImages(
            split, self.name, pairs, len(CLASSES), 0, (), self.size, self.scale, self.cache, scenes,
            pipeline=self.options.pipeline, padding_label=self.options.padding_label,
        )  # fmt: skip

    def _pairs(self, listed: Path) -> list[Pair]:
        """Return the files of the frames that a list names, in its order."""
        names = " ".join(read_lines(listed, "the numbers of a split's frames")).split()
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise UserError(f"{listed} lists the frame {name} {count} times; list it once.")
        images, finder = Names(list_images(self.root / _IMAGES)), FileFinder()
        targets = self.root / (_DEPTHS if self.task == "depth" else _LABELS)
        places = [(name, self.root / _IMAGES / f"{name}.jpg", targets / f"{name}.png") for name in names]
        pairs = [
            Pair(images.find(name) or image, finder.find_image(target) or target) for name, image, target in places
        ]
        needed = f", but {listed} lists it; add it or take it off the list."
        check_files((path for pair in pairs for path in pair), "more", needed)
        return pairs


def _runs(names: Sequence[str]) -> list[str]:
    """Return for each frame the first number of the run of numbers that it belongs to; its name if it is no number.

    Frames of one scene follow each other, and the official split divides no scene: what lies between two numbers that
    the list leaves out is one scene or several. A longer run than the official ones is cut, for lists without a gap.
    """
    numbers = sorted(int(name) for name in names if name.isdecimal())
    first: dict[int, int] = {}
    for number in numbers:
        start = first.get(number - 1, number)
        first[number] = start if number - start < _LONGEST_RUN else number
    return [f"from {first[int(name)]}" if name.isdecimal() else name for name in names]


@register_data
class NYUv2H5(DepthData):
    """About 48000 frames of NYU Depth V2 with in-filled depth, as prepared for sparse-to-dense and FastDepth."""

    info = DataInfo(
        name="nyuv2_h5",
        title="NYU Depth V2, one HDF5 file a frame",
        tasks=("depth",),
        source="Silberman et al., ECCV 2012; as prepared by Ma and Karaman, Sparse-to-dense, ICRA 2018; for research",
        layout=(
            "ROOT/train/SCENE/00001.h5 ... and ROOT/val/official/00001.h5 ..., each with 'rgb' (3, H, W) uint8 and "
            "'depth' (H, W) float32 in metres"
        ),
    )

    @dataclass(frozen=True)
    class Options(DepthOptions):
        """Options.

        Attributes:
            held_out: whether the frames 00001 and 00201 of each training scene are left out of training, as in
                FastDepth, and make the validation split.
        """

        held_out: bool = True

    options: Options

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.held_out = self.options.held_out
        check_choice("data.held_out", self.held_out, (True, False))

    def validation(self) -> Dataset | None:
        return self._split("validation") if self.held_out else None

    def _split(self, split: str) -> Dataset:
        folder = self.root / _H5_FOLDERS[split]
        if not os.path.isdir(folder):
            raise UserError(f"{folder} does not exist; data.root=DIR names the folder that holds train and val.")
        found = [path for path in folder.rglob("*.h5") if not path.name.startswith(".")]
        if split != "test" and (split == "validation" or self.held_out):
            found = [path for path in found if (path.name in _HELD_OUT) == (split == "validation")]
        if not found:
            raise UserError(f"{folder} holds no .h5 file for the split {split}; a frame is SCENE/NUMBER.h5.")
        by_name = sorted((printable(str(path.relative_to(folder))), path) for path in found)
        frames = [
            Frame(name.removesuffix(".h5").replace(os.sep, "-"), (path,), _scene(name) if split == "train" else None)
            for name, path in by_name
        ]
        return self._frames(split, frames, folder)


def _scene(file: str) -> str:
    """Return where a training frame was taken: its folder, without the letter of a recording in several parts."""
    folder = os.path.dirname(file)
    return re.sub(r"(_\d{4})[a-z](_out)?$", r"\1\2", folder) or file
