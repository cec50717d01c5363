"""``nyuv2`` and ``nyuv2_h5``: indoor frames with depth, as folders of images and as one HDF5 file a frame."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from indexnet.core.errors import UserError
from indexnet.data.base import Data, DataInfo, Dataset, Float32, UInt8, check_choice, check_size, digest, register_data
from indexnet.data.depth import CROPS, EVALUATIONS, Depth, DepthFrames
from indexnet.data.io.cache import Cache, check_cache
from indexnet.data.io.file_lists import read_lines
from indexnet.data.io.images import file_sizes, image_size, list_images, read_image, read_values
from indexnet.data.segmentation import LabelledImages, Pair, check_scale

if TYPE_CHECKING:
    import h5py


_IMAGES, _DEPTHS, _LABELS = "nyu_images", "nyu_depths", "nyu_labels40"
_LISTS = {"train": "train.txt", "test": "test.txt"}
_H5_FOLDERS = {"train": "train", "validation": "train", "test": "val"}
_HELD_OUT = ("00001.h5", "00201.h5")
_RGB, _DEPTH = "rgb", "depth"
_SCALE = (0.5, 2.0)

CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter"),
    *("blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling"),
    *("books", "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person"),
    *("night stand", "toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture"),
)
"""NYU's 40 classes but the last, "other prop", which the label maps of this layout do not tell from unlabelled."""


def _depth_table() -> Float32:
    """Metres of each level of an 8-bit depth map: the middle of the level; 0 is unknown."""
    table = (np.arange(256) + 0.5) / 25.5
    table[0] = 0
    return table.astype(np.float32)


_TABLE = _depth_table()


def read_depth(path: Path) -> Depth:
    """Read the numbers of a depth map.

    Returns:
        uint8 or uint16 (H, W), as the file has them.

    Raises:
        UserError: it cannot be read as an image, or is not a gray one of 8 or 16 bits.
    """
    mode, values = read_values(path)
    if mode == "L":
        return values
    if mode.startswith("I") and values.size and values.min() >= 0 and values.max() < 2**16:
        return values.astype(np.uint16)
    raise UserError(f"{path} is no depth map ({mode}); a gray PNG of 8 or 16 bits was expected.")


@dataclass
class NYUFrames(DepthFrames):
    """Frames in folders of images.

    Args:
        split: ``"train"`` or ``"test"``.
        size: see :class:`~indexnet.data.depth.DepthFrames`, as ``crop``, ``evaluation`` and ``cache``.
        pairs: photographs and depth maps, in order.
    """

    pixel_bytes: ClassVar[int] = 4
    pairs: list[Pair] = field(repr=False, default_factory=list)

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        self._check_index(index)
        return self.pairs[index].image.stem

    def where(self, index: int) -> str:
        return str(self.pairs[index].label)

    def read(self, index: int) -> tuple[UInt8, Depth]:
        """Return colours, and depth as the numbers of its file, uint8 or uint16.

        Raises:
            UserError: a file cannot be read, or has colours instead of depth.
        """
        image, depth = self.pairs[index]
        return read_image(image), read_depth(depth)

    def metres(self, depth: Depth) -> Float32:
        """Turn 8-bit levels into metres by (level + 0.5) / 25.5, 16-bit ones as millimetres; 0 is unknown."""
        if depth.dtype == np.uint8:
            return np.asarray(_TABLE[depth])
        return depth.astype(np.float32) / np.float32(1000)

    def frame_size(self, index: int) -> tuple[int, int]:
        return image_size(self.pairs[index].image)

    def fingerprint(self) -> str:
        files = file_sizes([path for pair in self.pairs for path in pair])
        return digest("nyuv2", self._parameters(), files)


@register_data
class NYUv2(Data):
    """The 1449 labelled frames of NYU Depth V2, with the official split: 795 to train on, 654 to test on.

    For depth, samples are as in :class:`~indexnet.data.depth.DepthFrames`; for segmentation, into 39 classes, as in
    :class:`~indexnet.data.segmentation.LabelledImages`.

    Args:
        root: folder with ``nyu_images``, ``nyu_depths`` or ``nyu_labels40``, ``train.txt`` and ``test.txt``.
        task: ``"depth"`` or ``"segmentation"``.
        size: side of the samples for depth, of training crops for segmentation, in pixels.
        crop: depth, tests: ``"none"``, or ``"eigen"``: only Eigen's crop counts.
        evaluation: depth, tests: ``"network"``, what training shows of a frame; or ``"full"``, all of it.
        scale: segmentation, (low, high): a training image is enlarged by a factor drawn between them.
        cache: whether the files are decoded once and kept: ``"auto"`` (where memory allows), True or False.

    Raises:
        UserError: an option's value is impossible.
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

    def __init__(
        self,
        root: str,
        task: str = "depth",
        size: int = 224,
        crop: str = "none",
        evaluation: str = "network",
        scale: Sequence[float] = _SCALE,
        cache: Cache = "auto",
    ) -> None:
        super().__init__(task)
        self.root, self.size = Path(root), check_size("data.size", size)
        check_choice("data.crop", crop, CROPS)
        check_choice("data.evaluation", evaluation, EVALUATIONS)
        self.crop, self.evaluation = crop, evaluation
        self.scale, self.cache = check_scale(scale), check_cache(cache)
        given = {"crop": crop != "none", "evaluation": evaluation != "network"}
        if task == "segmentation":
            self.classes = CLASSES
        else:
            given = {"scale": self.scale != _SCALE}
        for option in (option for option, changed in given.items() if changed):
            raise UserError(f"data.{option} has no effect on the task {task}; leave it out.")

    def train(self) -> Dataset:
        return self._split("train")

    def test(self) -> Dataset:
        return self._split("test")

    def _split(self, split: str) -> Dataset:
        pairs = self._pairs(self.root / _LISTS[split])
        if self.task == "depth":
            return NYUFrames(split, self.size, self.crop, self.evaluation, self.cache, pairs)
        return LabelledImages(split, self.name, pairs, len(CLASSES), 0, (), self.size, self.scale, self.cache)

    def _pairs(self, listed: Path) -> list[Pair]:
        """Return the files of the frames that a list names, in its order."""
        names = " ".join(read_lines(listed, "the numbers of a split's frames")).split()
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise UserError(f"{listed} lists the frame {name} {count} times; list it once.")
        images = {path.stem: path for path in list_images(self.root / _IMAGES)}
        targets = self.root / (_DEPTHS if self.task == "depth" else _LABELS)
        pairs = [Pair(images.get(name, self.root / _IMAGES / f"{name}.jpg"), targets / f"{name}.png") for name in names]
        missing = [path for pair in pairs for path in pair if not path.is_file()]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UserError(f"{missing[0]} is missing{more}, but {listed} lists it; add it or take it off the list.")
        return pairs


@dataclass
class H5Frames(DepthFrames):
    """Frames in HDF5 files, one each.

    No file stays open from one sample to the next, so that processes of any kind can share a split.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        size: see :class:`~indexnet.data.depth.DepthFrames`, as ``crop``, ``evaluation`` and ``cache``.
        folder: ``train`` or ``val`` of the data set.
        held_out: whether training leaves out two frames of each scene, for validation.
    """

    pixel_bytes: ClassVar[int] = 7
    folder: Path = field(default_factory=Path)
    held_out: bool = True
    files: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.files = self._find()
        super().__post_init__()

    def _find(self) -> list[str]:
        """Return the paths of the split's files, relative to its folder."""
        if not self.folder.is_dir():
            raise UserError(f"{self.folder} does not exist; data.root=DIR names the folder that holds train and val.")
        found = sorted(
            os.path.relpath(os.path.join(folder, name), self.folder)
            for folder, _, names in os.walk(self.folder)
            for name in names
            if name.endswith(".h5") and not name.startswith(".")
        )
        if self.split == "validation":
            found = [file for file in found if os.path.basename(file) in _HELD_OUT]
        elif self.split == "train" and self.held_out:
            found = [file for file in found if os.path.basename(file) not in _HELD_OUT]
        if not found:
            raise UserError(f"{self.folder} holds no .h5 file for the split {self.split}; a frame is SCENE/NUMBER.h5.")
        return found

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Return ``<scene>-<number>``."""
        self._check_index(index)
        return self.files[index].removesuffix(".h5").replace(os.sep, "-")

    def where(self, index: int) -> str:
        return str(self.folder / self.files[index])

    def read(self, index: int) -> tuple[UInt8, Depth]:
        """Return colours, and depth in metres, float32."""
        return read_h5(self.folder / self.files[index])

    def metres(self, depth: Depth) -> Float32:
        return np.asarray(depth, np.float32)

    def frame_size(self, index: int) -> tuple[int, int]:
        return 480, 640

    def fingerprint(self) -> str:
        files = [[name, os.path.getsize(os.path.join(self.folder, name))] for name in self.files]
        return digest("nyuv2_h5", self._parameters(), files)


def read_h5(path: Path) -> tuple[UInt8, Float32]:
    """Read a frame from an HDF5 file.

    Returns:
        Its ``rgb`` as uint8 (H, W, 3) and its ``depth`` as float32 (H, W), metres.

    Raises:
        UserError: it is damaged, or ``rgb`` (3, H, W) uint8 or ``depth`` (H, W) of floating point is not in it.
    """
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:  # read-only folders on network disks cannot be locked
            for key in (_RGB, _DEPTH):
                if not isinstance(file.get(key), h5py.Dataset):
                    there = ", ".join(sorted(file)) or "nothing"
                    raise UserError(f"{path} has no {key!r}; there is: {there}. A frame has {_RGB!r} and {_DEPTH!r}.")
            rgb, depth = file[_RGB], file[_DEPTH]
            if rgb.ndim != 3 or rgb.shape[0] != 3 or rgb.dtype != np.uint8:
                raise UserError(f"{path}: {_RGB!r} is {_kind(rgb)}; (3, height, width) uint8 was expected.")
            if depth.ndim != 2 or depth.dtype.kind != "f":
                raise UserError(f"{path}: {_DEPTH!r} is {_kind(depth)}; (height, width) float32, metres, was expected.")
            return np.ascontiguousarray(rgb[()].transpose(1, 2, 0)), depth[()].astype(np.float32)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as HDF5 ({reason}); fetch it again.") from error


def _kind(dataset: h5py.Dataset) -> str:
    return f"{tuple(dataset.shape)} {dataset.dtype}"


@register_data
class NYUv2H5(Data):
    """About 48000 frames of NYU Depth V2 with in-filled depth, as prepared for sparse-to-dense and FastDepth.

    Samples are as in :class:`~indexnet.data.depth.DepthFrames`.

    Args:
        root: folder with ``train`` and ``val``.
        task: ``"depth"``.
        size: side of the samples in pixels.
        crop: tests: ``"none"``, or ``"eigen"``: only Eigen's crop counts.
        evaluation: tests: ``"network"``, what training shows of a frame; or ``"full"``, all of it.
        held_out: whether the frames 00001 and 00201 of each training scene are left out of training, as in FastDepth,
            and make the validation split.
        cache: whether the files are decoded once and kept: ``"auto"`` (where memory allows), True or False.

    Raises:
        UserError: an option's value is impossible.
    """

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

    def __init__(
        self,
        root: str,
        task: str = "depth",
        size: int = 224,
        crop: str = "none",
        evaluation: str = "network",
        held_out: bool = True,
        cache: Cache = "auto",
    ) -> None:
        super().__init__(task)
        check_choice("data.crop", crop, CROPS)
        check_choice("data.evaluation", evaluation, EVALUATIONS)
        check_choice("data.held_out", held_out, (True, False))
        self.root, self.size = Path(root), check_size("data.size", size)
        self.crop, self.evaluation, self.held_out, self.cache = crop, evaluation, held_out, check_cache(cache)

    def train(self) -> H5Frames:
        return self._split("train")

    def validation(self) -> H5Frames | None:
        return self._split("validation") if self.held_out else None

    def test(self) -> H5Frames:
        return self._split("test")

    def _split(self, split: str) -> H5Frames:
        folder = self.root / _H5_FOLDERS[split]
        return H5Frames(split, self.size, self.crop, self.evaluation, self.cache, folder, self.held_out)
