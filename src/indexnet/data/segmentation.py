"""What data sets of photographs with label maps share: reading label maps, pairs of files, random crops."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations, islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from indexnet.core.annotations import fits
from indexnet.core.conventions import IGNORE
from indexnet.core.errors import UserError
from indexnet.data.base import Sample, UInt8, check_choice, digest, planes
from indexnet.data.files import FileData, FileOptions, Listed, check_files, check_names, check_one_size
from indexnet.data.io.cache import Arrays, Cache, Store
from indexnet.data.io.file_lists import read_numbered_lines
from indexnet.data.io.images import file_sizes, image_size, list_images, read_image, read_values
from indexnet.data.io.names import FileFinder, pair, sample_name
from indexnet.data.transforms import random_crop
from indexnet.data.whole_views import PADDING_LABELS, padded_batch, whole_view

PIPELINES = (None, "csail")

_STRIP = 256  # rows of a label map that are looked up at a time
_MOST_SHOWN = 40  # classes in a sentence
_MOST_SPACES = 32  # in a name of a list; where there are more, none is looked for


def read_labels(path: Path) -> UInt8:
    """Read the numbers of a label map: the gray levels of an 8-bit or 16-bit gray image, the entries of a palette one.

    Returns:
        uint8 (H, W).

    Raises:
        UserError: it cannot be read, has colours instead of numbers, or numbers above 255.
    """
    mode, values = read_values(path, exact=True)
    if mode not in ("L", "P", "1") and not mode.startswith("I"):
        raise UserError(f"{path} is a colour image ({mode}); labels are numbers, in a gray or palette PNG.")
    if values.size and (values.min() < 0 or values.max() > 255):
        raise UserError(f"{path} holds the label {values.max()}; labels are numbers from 0 to 255.")
    return values.astype(np.uint8, copy=False)


Code = int | tuple[int, int, int]
"""What a label map writes for a class: a number, or a colour (r, g, b)."""


@dataclass(frozen=True)
class LabelCode:
    """How label maps write their classes.

    Attributes:
        coloured: whether by colours.
        pairs: int64 (count, 2): a number, or a colour as r * 65536 + g * 256 + b, and its class, or 255; by number.
    """

    coloured: bool
    pairs: npt.NDArray[np.int64]

    @classmethod
    def of(cls, codes: Sequence[tuple[Code, int]]) -> LabelCode:
        """Return the code of numbers, where 255 counts for nothing, or of colours; a later entry goes before."""
        coloured = any(isinstance(code, tuple) for code, _ in codes)
        table = {_packed(*code) if isinstance(code, tuple) else code: kind for code, kind in codes}
        table |= {} if coloured else {IGNORE: IGNORE}
        return cls(coloured, np.array(sorted(table.items()), np.int64))

    def read(self, path: Path, title: str) -> UInt8:
        """Read a label map.

        Args:
            path: the file.
            title: name of the data set, for messages.

        Returns:
            uint8 (H, W): classes, or 255.

        Raises:
            UserError: it cannot be read, or holds a number or colour that stands for no class.
        """
        values = read_image(path) if self.coloured else read_labels(path)
        table = np.zeros(2**24 if self.coloured else 256, np.uint16)  # class + 1; memory that is not touched costs none
        table[self.pairs[:, 0]] = self.pairs[:, 1] + 1
        result, unknown = np.empty(values.shape[:2], np.uint8), set[int]()
        for top in range(0, len(values), _STRIP):
            strip = values[top : top + _STRIP]
            found = _packed(*strip.astype(np.int32).transpose(2, 0, 1)) if self.coloured else strip
            kinds = table[found]
            if not kinds.all():
                unknown.update(np.unique(found[kinds == 0]).tolist())
            result[top : top + _STRIP] = kinds - 1
        if wrong := sorted(unknown):
            shown = ", ".join(map(self._shown, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            what = "colour" if self.coloured else "label"
            raise UserError(f"{path} holds the {what}{'s' * (len(wrong) > 1)} {shown}; data={title} has {self}.")
        return result

    def __str__(self) -> str:
        """The codes, in words."""
        known, classes = self.pairs.T
        if self.coloured:
            return f"{len(known)} colours, and a map must be saved losslessly, as PNG"
        void, numbers = known[classes == IGNORE], known[classes != IGNORE]
        return f"{numbers[0]}..{numbers[-1]}, and {', '.join(map(str, void))} for unlabelled pixels"

    def _shown(self, number: int) -> str:
        return f"({number >> 16}, {number >> 8 & 255}, {number & 255})" if self.coloured else str(number)


def _packed(red: Any, green: Any, blue: Any) -> Any:
    return red * 65536 + green * 256 + blue


class Pair(NamedTuple):
    """A photograph and its label map."""

    image: Path
    label: Path


def listed_pairs(root: Path, lists: str) -> list[Pair]:
    """Read a list of pairs: one a line, the image first and the label map last, relative to ``root``.

    Names may have spaces in them: then it is the files that tell where one ends. Otherwise the first and the last word
    are taken.

    Raises:
        UserError: there is no such list, it is empty, or has a line that is not like that.
    """
    path, finder, pairs = root / lists, FileFinder(), []
    for number, line in read_numbered_lines(path, "a split's images and label maps"):
        if (found := listed_pair(root, finder, line)) is None:
            raise UserError(f"{path}, line {number}: an image and its label map were expected, found {line!r}.")
        pairs.append(found)
    return pairs


def listed_pair(root: Path, finder: FileFinder, line: str) -> Pair | None:
    """Return the files of a line of such a list; None where it is one word."""
    words = line.split("\t" if "\t" in line else None)
    if len(words) < 2:
        return None

    def file(name: str) -> Path | None:
        return finder.find_below(root, name.strip().strip("\"'"))

    gaps = list(islice(re.finditer(r"\s+", line), _MOST_SPACES))
    for first, last in chain(zip(gaps, gaps, strict=True), combinations(gaps, 2)):
        between = line[first.end() : last.start()]  # another column; without an ending it is rather part of a name
        image = file(line[: first.start()]) if first is last or Path(between).suffix else None
        if image and (label := file(line[last.end() :])):
            return Pair(image, label)
    return Pair(*(file(word) or root / word.strip() for word in (words[0], words[-1])))


def matched_pairs(images: Path, labels: Path, ending: str = "") -> list[Pair]:
    """Return the images of one folder and the label maps of another, paired by name.

    What has no partner is paired with the name that it should have.

    Args:
        images: the one folder.
        labels: the other.
        ending: what the names of label maps have behind those of images, such as ``_L``.

    Raises:
        UserError: a folder is missing or empty, or two of its files share a name.
    """
    pairs = []
    for image, label in pair(list_images(images), list_images(labels), ending):
        if image is None:
            assert label is not None
            image = images / f"{label.stem.removesuffix(ending)}.jpg"
        pairs.append(Pair(image, label or labels / f"{image.stem}{ending}.png"))
    return pairs


@dataclass
class LabelledImages(Listed):
    """Photographs with label maps.

    A training sample is a random view, see :func:`~indexnet.data.transforms.random_crop`; or with the pipeline
    ``csail`` the whole photograph, see :func:`~indexnet.data.whole_views.whole_view`, padded in its batch. Other
    samples are whole and at their own size, which may differ from sample to sample.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        title: name of the data set.
        pairs: the files, in order.
        classes: number of classes.
        first: what class 0 is called in the files; the others follow.
        void: numbers in the files that count for nothing, besides 255.
        size: side of a training crop in pixels; of whole photographs the middle one of the short sides.
        scale: (low, high), scales of training crops.
        cache: see :class:`~indexnet.data.io.cache.Store`.
        scenes: what each photograph shows, such as the video that it is a frame of; None: each something else.
        codes: what label maps write, a number or a colour (r, g, b), and the class that it stands for, or 255; in the
            place of ``first`` and ``void``.
        pipeline: None or ``"csail"``.
        padding_label: of whole photographs, what padded pixels are labelled, see
            :data:`~indexnet.data.whole_views.PADDING_LABELS`.

    Raises:
        UserError: a file is missing, or two images have one name.
    """

    split: str
    title: str
    pairs: list[Pair] = field(repr=False)
    classes: int
    first: int
    void: tuple[int, ...]
    size: int
    scale: tuple[float, float]
    cache: Cache = "auto"
    scenes: Sequence[str] | None = field(default=None, repr=False)
    codes: Sequence[tuple[Code, int]] | None = field(default=None, repr=False)
    pipeline: str | None = None
    padding_label: str = "ignore"

    def __post_init__(self) -> None:
        needed = f"; every image of data={self.title} needs its label map and every label map its image."
        check_files((path for pair in self.pairs for path in pair), "more files of this split", needed)
        self.names = [sample_name(pair.image) for pair in self.pairs]
        check_names(self.title, "images", self.names)
        usual: list[tuple[Code, int]] = [(self.first + number, number) for number in range(self.classes)]
        codes = usual + [(number, IGNORE) for number in self.void] if self.codes is None else self.codes
        self._code = LabelCode.of(codes)
        self.store = Store(len(self.pairs), self._load, self._bytes, self.cache)

    def _bytes(self, index: int) -> int:
        return 4 * math.prod(image_size(self.pairs[index].image))

    def _load(self, index: int) -> Arrays:
        """Decode and check a pair: uint8 (H, W, 3) and (H, W)."""
        image_path, label_path = self.pairs[index]
        image, label = read_image(image_path), self._code.read(label_path, self.title)
        check_one_size(label_path, label.shape, image_path, image.shape)
        return image, label

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (3, H, W) in [0, 1], ``label`` (H, W), classes or 255, and ``name``.

        Raises:
            UserError: a file cannot be read, the two differ in size, or a label has no class.
        """
        name = self.name(index)
        image, label = self.store[index]
        if self.split == "train" and self.pipeline is not None:
            image, label = whole_view(image, label, self.size, rng)
        elif self.split == "train":
            image, label = random_crop(image, label, self.size, self.scale, rng)
        return {"image": planes(image), "label": torch.from_numpy(label.astype(np.int64)), "name": name}

    @property
    def one_size(self) -> bool:
        return self.split == "train" and self.pipeline is None

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        if self.pipeline is None:
            return super().collate(samples)
        return padded_batch(samples, PADDING_LABELS[self.padding_label])

    def image_files(self, index: int) -> tuple[Path, ...]:
        self._check_index(index)
        return self.pairs[index]

    def verify(self, index: int) -> None:
        self._check_index(index)
        self.store.load(index)

    def fingerprint(self) -> str:
        view: list[Any] = [self.size, self.scale] if self.split == "train" else []
        view += [self.pipeline, self.padding_label] if view and self.pipeline is not None else []
        files = file_sizes([path for pair in self.pairs for path in pair])
        codes = [] if self.codes is None else [self._code.pairs.tolist()]
        return digest(self.title, self.split, self.classes, self.first, self.void, view, *codes, files)


@dataclass(frozen=True)
class SegmentationOptions(FileOptions):
    """Options of a data set of photographs with label maps.

    Attributes:
        scale: (low, high): a training image is enlarged by a factor drawn between them.
        pipeline: None: random crops; ``"csail"``: whole photographs at five scales, as UperNet is trained.
        padding_label: with ``csail``, what padded pixels are labelled: ``"ignore"`` or ``"class0"``.
    """

    task: str = "segmentation"
    scale: Sequence[float] = (0.5, 2.0)
    pipeline: str | None = None
    padding_label: str = "ignore"


class SegmentationData(FileData):
    """A data set of photographs with label maps.

    Subclasses say which files make a split, and how the files number the classes.
    """

    Options: ClassVar[type[SegmentationOptions]] = SegmentationOptions
    options: SegmentationOptions

    first: ClassVar[int]
    """What class 0 is called in the files."""
    void: ClassVar[tuple[int, ...]] = ()
    """Numbers in the files, besides 255, of pixels that count for nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scale = check_scale(self.options.scale)
        check_views(self.options.pipeline, self.options.padding_label, self.scale)

    @abstractmethod
    def pairs(self, split: str) -> list[Pair]:
        """Return the files of a split.

        Raises:
            UserError: a list or a folder is missing.
        """

    def scene(self, image: Path) -> str:
        """Return what photographs of one scene or video have in common, as their names tell; by default nothing."""
        return image.stem

    def codes(self) -> Sequence[tuple[Code, int]] | None:
        """Return what label maps write for each class, where ``first`` and ``void`` do not say it."""
        return None

    def described_classes(self) -> str:
        """Return what label maps write for the classes, in words; the first of them where there are many.

        Raises:
            UserError: see the classes of the data set.
        """
        codes = self.codes() or [(self.first + number, number) for number in range(len(self.classes))]
        found = [f"{code} {self.classes[kind]}" for code, kind in codes if kind != IGNORE]
        return ", ".join(found[:_MOST_SHOWN]) + (", ..." if len(found) > _MOST_SHOWN else "")

    def _split(self, split: str) -> LabelledImages:
        pairs = self.pairs(split)
        return LabelledImages(
            split,
            self.name,
            pairs,
            len(self.classes),
            self.first,
            self.void,
            self.size,
            self.scale,
            self.cache,
            [self.scene(pair.image) for pair in pairs] if split == "train" else None,
            self.codes(),
            self.options.pipeline,
            self.options.padding_label,
        )


def check_views(pipeline: str | None, padding_label: str, scale: tuple[float, float]) -> None:
    """Check the options that say what a training sample of segmentation shows.

    Raises:
        UserError: an unknown value, or one that means nothing to the others.
    """
    check_choice("data.pipeline", pipeline, PIPELINES)
    check_choice("data.padding_label", padding_label, tuple(PADDING_LABELS))
    if pipeline is None and padding_label != "ignore":
        raise UserError("data.padding_label means nothing to random crops; give data.pipeline=csail, or leave it out.")
    if pipeline is not None and scale != SegmentationOptions.scale:
        raise UserError("data.scale means nothing to data.pipeline=csail, whose scales are its own; leave it out.")


def check_scale(scale: Any) -> tuple[float, float]:
    """Return a range of scales as (low, high).

    Raises:
        UserError: it is not a pair of positive numbers in order.
    """
    if not fits(scale, tuple[float, float]) or not 0 < scale[0] <= scale[1] <= 16:
        raise UserError(f"data.scale must be two numbers [low, high], above 0 and at most 16; got {scale!r}.")
    return float(scale[0]), float(scale[1])
