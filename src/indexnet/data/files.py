"""What data sets of files share: their options, splits whose samples are listed, what is wrong with their files."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

from indexnet.core.errors import UserError
from indexnet.data.base import Data, Dataset, check_size
from indexnet.data.io.cache import Cache, check_cache
from indexnet.data.io.names import is_file, printable


class Listed(Dataset):
    """A split whose samples are listed; those of other splits than training are of their own sizes.

    Attributes:
        names: of the samples, in order.
        scenes: their groups; None: each sample is one.
    """

    names: Sequence[str]
    scenes: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def one_size(self) -> bool:
        return self.split == "train"

    def name(self, index: int) -> str:
        self._check_index(index)
        return self.names[index]

    def group(self, index: int) -> str:
        name = self.name(index)
        return name if self.scenes is None else printable(self.scenes[index])


@dataclass(frozen=True)
class FileOptions:
    """Options of a data set of files; each data set adds its own, and may have other defaults.

    Attributes:
        root: folder of the data set.
        task: whose targets the samples carry.
        size: side of a training sample in pixels.
        cache: whether the files are decoded once and kept: ``"auto"`` (where memory allows), True or False.
    """

    root: str
    task: str = ""
    size: int = 320
    cache: Cache = "auto"


class FileData(Data):
    """A data set of files, whose splits differ in little but their files.

    Subclasses say which options they add, and how a split is made.

    Args:
        **options: fields of ``Options``.

    Raises:
        UserError: an option's value is impossible.
    """

    Options: ClassVar[type[FileOptions]] = FileOptions
    options: FileOptions
    smallest: ClassVar[int] = 8
    """The smallest ``size``."""
    in_folder: ClassVar[bool] = False
    """Whether ``cache`` may be a folder."""

    def __init_subclass__(cls) -> None:
        cls.__signature__ = signature(cls.Options)  # type: ignore[attr-defined]  # what options are checked against

    def __init__(self, **options: Any) -> None:
        given = self.options = self.Options(**options)
        super().__init__(given.task)
        self.root, self.size = Path(given.root), check_size("data.size", given.size, self.smallest)
        self.cache = check_cache(given.cache, self.in_folder)

    @abstractmethod
    def _split(self, split: str) -> Dataset:
        """Return ``"train"``, ``"validation"`` or ``"test"``."""

    def train(self) -> Dataset:
        return self._split("train")

    def test(self) -> Dataset:
        return self._split("test")


def check_names(title: str, what: str, names: Iterable[str]) -> None:
    """Refuse images or foregrounds of a split of which two have one name.

    Raises:
        UserError: two have.
    """
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UserError(f"data={title} has {count} {what} of the name {name!r} in one split; rename them.")


def check_files(files: Iterable[Path], more: str, needed: str) -> None:
    """Refuse files of which some are missing; ``more`` is what the message calls all but one, ``needed`` its end.

    Raises:
        UserError: one is missing.
    """
    missing = [path for path in files if not is_file(path)]
    if missing:
        others = f" (and {len(missing) - 1} {more})" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]} is missing{others}{needed}")


def check_one_size(path: Path, shape: tuple[int, ...], image: Path, image_shape: tuple[int, ...]) -> None:
    """Refuse a matte, a trimap or labels that do not fit their image.

    Raises:
        UserError: the two differ in height or width.
    """
    if shape[:2] != image_shape[:2]:
        raise UserError(
            f"{path} is {shape[1]}x{shape[0]} pixels but {image} is {image_shape[1]}x{image_shape[0]}; they must be of "
            "one size."
        )
