"""Data sets: what a sample is, what a split is, and the registry of names.

A *data set* (:class:`Data`) owns up to three *splits* (:class:`Dataset`). A split gives samples: dictionaries of
``float32`` tensors (labels are ``int64``) without a batch axis, plus the sample's name. The keys depend on the task:

==============  ====================================================================================================
task            keys
==============  ====================================================================================================
matting         ``image`` (3, H, W) in [0, 1], the composite; ``alpha`` (1, H, W) in [0, 1]; ``trimap`` (1, H, W) in
                {0, 128/255, 1}; ``fg`` and ``bg`` (3, H, W) in [0, 1], absent for photographs without known layers;
                ``alpha`` is absent where nobody has published it, and then nothing can be measured
portrait        ``image``, ``alpha`` and ``trimap`` as for matting; the trimap trains and measures only
reconstruction  ``image`` (C, H, W) in [0, 1]
denoising       ``image`` (C, H, W) in [0, 1], clean: noise is the task's business
segmentation    ``image`` (3, H, W) in [0, 1]; ``label`` (H, W) int64 in [0, classes), or 255 where nothing counts
depth           ``image`` (3, H, W) in [0, 1]; ``depth`` (1, H, W) in metres, 0 where none was measured
==============  ====================================================================================================
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import default_collate

from indexnet.core.annotations import fits
from indexnet.core.errors import UserError
from indexnet.core.registry import Registry
from indexnet.data.io.cache import Store

Sample = dict[str, Tensor | str]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


class NoSplitError(UserError):
    """A data set was asked for a split that it does not have, whatever its files."""


@dataclass(frozen=True)
class DataInfo:
    """Facts about one data set.

    Attributes:
        name: registry name.
        title: a person's name for it.
        tasks: tasks it has targets for.
        source: where it comes from and under what terms.
        layout: the files that are expected under ``root``; empty for a data set that needs none.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    source: str
    layout: str = ""


class Dataset(TorchDataset[Sample], ABC):
    """One split of a data set, which any ``torch.utils.data.DataLoader`` takes.

    ``split[index]`` is a sample. In training splits it is augmented anew every time, from torch's random numbers, which
    a ``DataLoader`` seeds in each of its workers; in the others it never changes. Here, by contrast, a sample is asked
    for with the random numbers that it is to be made from: :meth:`sample`.

    Instances are picklable, so that loader workers can hold them.

    Attributes:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        store: what is decoded from files; a split that makes its samples otherwise has none.
    """

    split: str
    store: Store

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """Return one sample; negative indices count from the end.

        Raises:
            IndexError: there is none of that index.
        """
        number = operator.index(index)
        number += len(self) if number < 0 else 0
        self._check_index(number)
        seed = int(torch.randint(2**63 - 1, ())) if self.split == "train" else 0
        return self.sample(number, np.random.default_rng(seed))

    @abstractmethod
    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return one sample.

        Args:
            index: 0 <= index < len(self).
            rng: source of all augmentation in a training split; other splits ignore it, so that their samples never
                change.
        """

    @property
    def one_size(self) -> bool:
        """Whether all samples are of one size, so that several make a batch."""
        return True

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Make a training batch of samples, which are of one size unless a split says what to do else."""
        return default_collate(list(samples))  # type: ignore[no-any-return]

    @abstractmethod
    def name(self, index: int) -> str:
        """Return the name of one sample: unique in the split, fit for a file name."""

    def group(self, index: int) -> str:
        """Return what a sample has in common with others, such as its foreground; its own name where nothing.

        Samples of one group are not independent: error bars are drawn over groups, and of a training split a group is
        held out as a whole or not at all.
        """
        return self.name(index)

    def groups(self) -> Mapping[str, int]:
        """Return how many samples each group has, in the order of their first samples."""
        return Counter(self.group(index) for index in range(len(self)))

    def for_validation(self) -> Dataset:
        """Return a training split as it is validated on: without strong augmentation, and samples without targets."""
        return self

    def subset(self, groups: Collection[str]) -> Dataset:
        """Return the samples of these groups as a split of its own: nothing of another group goes into them."""
        chosen = set(groups)
        return Subset(self, np.array([i for i in range(len(self)) if self.group(i) in chosen], np.int64))

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a SHA-256 over what the samples are made from (parameters, file names, sizes); cheap to compute."""

    def prepare(self, reads: int | None = None) -> str:
        """Do once, before the first sample is asked for, what would otherwise be done again and again (decoding).

        Args:
            reads: how many samples will be asked for, repetitions counted; None: many. Too few are not worth it.

        Returns:
            What was done and how much memory it takes, in one sentence for a person; "" where nothing was.

        Raises:
            UserError: a file is wrong; nothing has been trained by then.
        """
        store = getattr(self, "store", None)
        return store.prepare(reads) if isinstance(store, Store) else ""

    def verify(self, index: int) -> None:
        """Check one sample's files as thoroughly as can be, for ``indexnet data check``.

        Raises:
            UserError: something is wrong with them; the message names the file.
        """
        self.sample(index, np.random.default_rng(0))

    def image_files(self, index: int) -> tuple[Path, ...]:
        """Return the image files of one sample, the photograph first; none where a sample has no files of its own."""
        return ()

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a split of {len(self)}")


class Subset(Dataset):
    """Some samples of a split, which are decoded and kept by that split.

    Args:
        base: the split.
        indices: int64 (count,): which of its samples, in order.
    """

    def __init__(self, base: Dataset, indices: npt.NDArray[np.int64]) -> None:
        self.base, self.indices, self.split = base, indices, base.split
        if hasattr(base, "store"):
            self.store = base.store

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def one_size(self) -> bool:
        return self.base.one_size

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return self.base.collate(samples)

    def for_validation(self) -> Dataset:
        return Subset(self.base.for_validation(), self.indices)

    def _at(self, index: int) -> int:
        self._check_index(index)
        return int(self.indices[index])

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        return self.base.sample(self._at(index), rng)

    def name(self, index: int) -> str:
        return self.base.name(self._at(index))

    def group(self, index: int) -> str:
        return self.base.group(self._at(index))

    def prepare(self, reads: int | None = None) -> str:
        return self.base.prepare(reads)

    def verify(self, index: int) -> None:
        self.base.verify(self._at(index))

    def image_files(self, index: int) -> tuple[Path, ...]:
        return self.base.image_files(self._at(index))

    def fingerprint(self) -> str:
        """SHA-256 over the split's own and the numbers of the samples."""
        return digest("subset", self.base.fingerprint(), self.indices.tolist())


class Data(ABC):
    """One data set for one task.

    Subclasses set ``info``; their keyword arguments are the data set's options.

    Args:
        task: the task whose targets the samples carry.

    Raises:
        UserError: the data set has no targets for this task.
    """

    info: ClassVar[DataInfo]
    channels: int = 3
    """Channels of ``image``."""
    classes: tuple[str, ...] = ()
    """Names of the classes that labels count, in the order of their numbers; empty without labels."""
    validation_remedy: ClassVar[str] = "choose another data set"
    """What a person does to get a validation split, for messages."""

    def __init__(self, task: str) -> None:
        # A task that no data set knows is a person's own; whether samples have what it reads is seen from a sample.
        if task not in self.info.tasks and any(task in info.tasks for info in list_data()):
            raise UserError(
                f"data set {self.info.name!r} has no targets for the task {task!r}; it serves: "
                f"{', '.join(self.info.tasks)}."
            )
        self.task = task

    @property
    def name(self) -> str:
        """The registry name."""
        return self.info.name

    @abstractmethod
    def train(self) -> Dataset:
        """Return the training split.

        Raises:
            NoSplitError: the data set has none.
            UserError: its files are missing.
        """

    def validation(self) -> Dataset | None:
        """Return the validation split, or None where none is configured."""
        return None

    @abstractmethod
    def test(self) -> Dataset:
        """Return the test split; the first one of a data set that has several.

        Raises:
            UserError: files are missing.
        """

    def tests(self) -> dict[str, Dataset]:
        """Return every test split by name; a data set with one alone calls it ``""``.

        A named split's metrics are recorded as ``name/metric``.

        Raises:
            UserError: files are missing.
        """
        return {"": self.test()}


DATA: Registry[Data] = Registry("data set", "indexnet.data.datasets", "indexnet.data.scenes")
register_data = DATA.register
get_data = DATA.get


def create_data(name: str, **options: Any) -> Data:
    """Build a data set.

    Args:
        name: registry name, see :func:`list_data`.
        **options: the data set's own options.

    Raises:
        UserError: unknown name or option, or an option's value that the data set cannot serve.
    """
    root = options.get("root")
    try:
        if isinstance(root, str):
            os.stat(os.path.join(root, "."))
    except (FileNotFoundError, NotADirectoryError):  # which the data set tells with what it needs
        pass
    except ValueError:  # a NUL
        raise UserError(f"data.root={root!r} is no name of a folder; give the folder of the files.") from None
    except OSError as error:
        raise UserError(f"data.root={root} cannot be read ({error.strerror}); give a folder that can.") from error
    return DATA.create(name, **options)


def list_data() -> list[DataInfo]:
    """Facts of every registered data set, by name."""
    return [data.info for data in DATA.classes().values()]


def digest(*parts: Any) -> str:
    """Return the SHA-256, in hexadecimal, of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def planes(image: UInt8 | npt.NDArray[np.uint16] | Float32) -> Tensor:
    """Turn an image, (H, W) or (H, W, C), into a float32 tensor (1 or C, H, W) in [0, 1].

    Args:
        image: on the scale of 0..255, but uint16 on that of 0..65535.
    """
    stacked = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    white = np.float32(65535 if image.dtype == np.uint16 else 255)
    return torch.from_numpy(np.divide(stacked, white, dtype=np.float32, order="C"))


def check_size(what: str, size: Any, smallest: int = 8) -> int:
    """Return ``size`` as an int of at least ``smallest`` pixels.

    Raises:
        UserError: it is not one.
    """
    return _whole(size, smallest, f"{what} must be a whole number of pixels, at least {smallest}")


def check_count(what: str, count: Any) -> int:
    """Return ``count`` as a positive int.

    Raises:
        UserError: it is not one.
    """
    return _whole(count, 1, f"{what} must be a positive whole number")


def check_seed(what: str, seed: Any) -> int:
    """Return ``seed`` as an int, at least 0.

    Raises:
        UserError: it is not one.
    """
    return _whole(seed, 0, f"{what} must be a whole number, at least 0")


def _whole(value: Any, smallest: int, expected: str) -> int:
    if (not fits(value, int) and not isinstance(value, np.integer)) or value < smallest:
        raise UserError(f"{expected}; got {value!r}.")
    return int(value)


def check_choice(what: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuse a value that is none of ``choices``.

    Raises:
        UserError: it is none of them.
    """
    if value not in choices:
        raise UserError(f"{what} must be one of {', '.join(map(str, choices))}; got {value!r}.")
