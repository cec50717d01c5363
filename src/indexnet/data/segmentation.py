"""What data sets of photographs with label maps share: reading label maps, pairs of files, random crops."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from indexnet.core.conventions import IGNORE
from indexnet.core.errors import UserError
from indexnet.data.base import Data, Dataset, Sample, UInt8, check_size, digest, planes
from indexnet.data.io.cache import Arrays, Cache, Store, check_cache
from indexnet.data.io.images import file_sizes, image_size, list_images, read_image, read_values
from indexnet.data.transforms import random_crop


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
    return values.astype(np.uint8)


class Pair(NamedTuple):
    """A photograph and its label map."""

    image: Path
    label: Path


def listed_pairs(root: Path, lists: str) -> list[Pair]:
    """Read a list of pairs: one a line, the image first and the label map last, relative to ``root``.

    Raises:
        UserError: there is no such list, it is empty, or has a line that is not like that.
    """
    path = root / lists
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise UserError(f"{path} {reason}; it lists the split's images and label maps.") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2:
            raise UserError(f"{path}, line {number}: an image and its label map were expected, found {line.strip()!r}.")
        pairs.append(Pair(_below(root, words[0]), _below(root, words[-1])))
    if not pairs:
        raise UserError(f"{path} is empty; it lists the split's images and label maps.")
    return pairs


def _below(root: Path, listed: str) -> Path:
    """Return where a listed file is: below ``root``, without the leading folders of the machine that made the list."""
    parts = Path(listed.lstrip("/")).parts
    places = [root.joinpath(*parts[start:]) for start in range(len(parts))]
    return next((place for place in places if place.is_file()), places[0])


def matched_pairs(images: Path, labels: Path) -> list[Pair]:
    """Return the images of one folder and the label maps (PNG) of another, paired by name.

    What has no partner is paired with the name that it should have.

    Raises:
        UserError: a folder is missing or empty.
    """
    by_name = {path.stem: path for path in list_images(images)}
    names = sorted({*by_name, *(path.stem for path in list_images(labels))})
    return [Pair(by_name.get(name, images / f"{name}.jpg"), labels / f"{name}.png") for name in names]


@dataclass
class LabelledImages(Dataset):
    """Photographs with label maps.

    A training sample is a random view, see :func:`~indexnet.data.transforms.random_crop`; other samples are whole and
    at their own size, which may differ from sample to sample.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        title: name of the data set.
        pairs: the files, in order.
        classes: number of classes.
        first: what class 0 is called in the files; the others follow.
        void: numbers in the files that count for nothing, besides 255.
        size: side of a training crop in pixels.
        scale: (low, high), scales of training crops.
        cache: see :class:`~indexnet.data.io.cache.Store`.
        scenes: what each photograph shows, such as the video that it is a frame of; None: each something else.

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

    def __post_init__(self) -> None:
        missing = [path for pair in self.pairs for path in pair if not path.is_file()]
        if missing:
            more = f" (and {len(missing) - 1} more files of this split)" if len(missing) > 1 else ""
            raise UserError(
                f"{missing[0]} is missing{more}; every image of data={self.title} needs its label map and every label "
                "map its image."
            )
        name, count = Counter(pair.image.stem for pair in self.pairs).most_common(1)[0]
        if count > 1:
            raise UserError(f"data={self.title} has {count} images of the name {name!r} in one split; rename them.")
        self._classes = np.full(256, -1, np.int16)  # by number in the files; -1: there is no such number
        self._classes[self.first : self.first + self.classes] = np.arange(self.classes)
        self._classes[[IGNORE, *self.void]] = IGNORE
        self.store = Store(len(self.pairs), self._load, self._bytes, self.cache)

    def _bytes(self, index: int) -> int:
        return 4 * math.prod(image_size(self.pairs[index].image))

    def _load(self, index: int) -> Arrays:
        """Decode and check a pair: uint8 (H, W, 3) and (H, W)."""
        image_path, label_path = self.pairs[index]
        image, numbers = read_image(image_path), read_labels(label_path)
        if numbers.shape != image.shape[:2]:
            raise UserError(
                f"{label_path} is {numbers.shape[1]}x{numbers.shape[0]} pixels but {image_path} is "
                f"{image.shape[1]}x{image.shape[0]}; they must be of one size."
            )
        label = self._classes[numbers]
        if label.min() < 0:
            wrong = np.unique(numbers[label < 0]).tolist()
            shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            void = ", ".join(map(str, (*self.void, IGNORE)))
            raise UserError(
                f"{label_path} holds the label{'s' * (len(wrong) > 1)} {shown}; data={self.title} has "
                f"{self.first}..{self.first + self.classes - 1}, and {void} for unlabelled pixels."
            )
        return image, label.astype(np.uint8)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def one_size(self) -> bool:
        return self.split == "train"

    def name(self, index: int) -> str:
        self._check_index(index)
        return self.pairs[index].image.stem

    def group(self, index: int) -> str:
        """Return the photograph's scene, where that is known; its name otherwise."""
        name = self.name(index)
        return name if self.scenes is None else self.scenes[index]

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (3, H, W) in [0, 1], ``label`` (H, W), classes or 255, and ``name``.

        Raises:
            UserError: a file cannot be read, the two differ in size, or a label has no class.
        """
        name = self.name(index)
        image, label = self.store[index]
        if self.split == "train":
            image, label = random_crop(image, label, self.size, self.scale, rng)
        return {"image": planes(image), "label": torch.from_numpy(label.astype(np.int64)), "name": name}

    def verify(self, index: int) -> None:
        self._check_index(index)
        self._load(index)

    def fingerprint(self) -> str:
        view = [self.size, self.scale] if self.split == "train" else []
        files = file_sizes([path for pair in self.pairs for path in pair])
        return digest(self.title, self.split, self.classes, self.first, self.void, view, files)


class SegmentationData(Data):
    """A data set of photographs with label maps.

    Subclasses say which files make a split, and how the files number the classes.

    Args:
        root: folder of the data set.
        task: ``"segmentation"``.
        size: side of a training crop in pixels.
        scale: (low, high): a training image is enlarged by a factor drawn between them.
        cache: whether the files are decoded once and kept: ``"auto"`` (where memory allows), True or False.

    Raises:
        UserError: an option's value is impossible.
    """

    first: ClassVar[int]
    """What class 0 is called in the files."""
    void: ClassVar[tuple[int, ...]] = ()
    """Numbers in the files, besides 255, of pixels that count for nothing."""

    def __init__(
        self,
        root: str,
        task: str = "segmentation",
        size: int = 320,
        scale: Sequence[float] = (0.5, 2.0),
        cache: Cache = "auto",
    ) -> None:
        super().__init__(task)
        self.root, self.size = Path(root), check_size("data.size", size)
        self.scale, self.cache = check_scale(scale), check_cache(cache)

    @abstractmethod
    def pairs(self, split: str) -> list[Pair]:
        """Return the files of a split.

        Raises:
            UserError: a list or a folder is missing.
        """

    def scene(self, image: Path) -> str:
        """Return what photographs of one scene or video have in common, as their names tell; by default nothing."""
        return image.stem

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
        )

    def train(self) -> LabelledImages:
        return self._split("train")

    def test(self) -> LabelledImages:
        return self._split("test")


def check_scale(scale: Any) -> tuple[float, float]:
    """Return a range of scales as (low, high).

    Raises:
        UserError: it is not a pair of positive numbers in order.
    """
    numbers = list(scale) if isinstance(scale, Sequence) and not isinstance(scale, str) else []
    good = all(isinstance(s, int | float) and not isinstance(s, bool) and 0 < s <= 16 for s in numbers)
    if len(numbers) != 2 or not good or numbers[0] > numbers[1]:
        raise UserError(f"data.scale must be two numbers [low, high], above 0 and at most 16; got {scale!r}.")
    return float(numbers[0]), float(numbers[1])
