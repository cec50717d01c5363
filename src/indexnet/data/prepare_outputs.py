"""The files that ``indexnet data prepare`` writes: what each is made from, and how."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2

from indexnet.core.errors import UserError
from indexnet.data import create_data, get_data, list_data
from indexnet.data.base import NoSplitError, UInt8
from indexnet.data.io.images import read_image
from indexnet.data.matting import Foreground, check_foregrounds, read_foreground
from indexnet.data.matting.compositing import Pair, Recipe, composite, cover, digest_foregrounds, made_of, paired
from indexnet.data.matting.test_composites import ComposedData
from indexnet.data.segmentation import image_size


class Output(Protocol):
    """A file that is to be written."""

    @property
    def file(self) -> str:
        """Its path in the prepared folder."""

    def make(self) -> bytes:
        """Return its content.

        Raises:
            UserError: what it is made from cannot be read.
        """

    def weight(self) -> int:
        """Return a number that its size is about proportional to, among outputs of its class."""


@lru_cache(maxsize=2)
def _decoded(foreground: Foreground) -> tuple[UInt8, UInt8]:
    """Decode an object; its composites are made one after the other."""
    return read_foreground(foreground)


def _png(array: UInt8) -> bytes:
    """Encode a PNG; OpenCV's takes a fifth of Pillow's time here, and as much room."""
    ok, encoded = cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)
    assert ok
    return encoded.tobytes()


@cache
def _pixels(path: Path) -> int:
    height, width = image_size(path)
    return height * width


@dataclass(frozen=True)
class Composite:
    """A foreground over its background."""

    file: str
    pair: Pair

    def make(self) -> bytes:
        """Compose and encode."""
        colour, alpha = _decoded(self.pair.foreground)
        behind = cover(read_image(self.pair.background), alpha.shape, shrink=False)
        return _png(composite(colour, behind, alpha))

    def weight(self) -> int:
        """Return the number of pixels."""
        return _pixels(self.pair.foreground.alpha)


@dataclass(frozen=True)
class Trimap:
    """The trimap that belongs to a composite."""

    file: str
    pair: Pair
    number: int
    recipe_trimap: Any  # Recipe.trimap

    def make(self) -> bytes:
        """Make and encode it."""
        return _png(self.recipe_trimap(self.number, _decoded(self.pair.foreground)[1]))

    def weight(self) -> int:
        """Return the number of pixels."""
        return _pixels(self.pair.foreground.alpha)


@dataclass(frozen=True)
class Copy:
    """A file as it is."""

    file: str
    source: Path

    def make(self) -> bytes:
        """Read it."""
        return self.source.read_bytes()

    def weight(self) -> int:
        """Return its bytes."""
        return self.source.stat().st_size


@dataclass(frozen=True)
class Colours:
    """The estimated colours of an object."""

    file: str
    photograph: Foreground

    def make(self) -> bytes:
        """Estimate and encode."""
        return _png(read_foreground(replace(self.photograph, estimate=True))[0])

    def weight(self) -> int:
        """Return the number of pixels."""
        return _pixels(self.photograph.alpha)


@dataclass(frozen=True)
class Batch:
    """What one command is about.

    Attributes:
        folder: where to.
        made_of: plain data; a folder holds files of one such value.
        outputs: all files, those that share a foreground side by side.
        own: what the files are, in the plural, for messages.
    """

    folder: Path
    made_of: dict[str, Any]
    outputs: Sequence[Output]
    own: str


def find_batch(name: str, what: str, options: dict[str, Any], output: Path | None) -> Batch:
    """Ask the data set what to write.

    Raises:
        UserError: it does not know such a thing, or cannot for the files that are there.
    """
    if not _is_able(name, what):
        able = [info.name for info in list_data() if _is_able(info.name, what)]
        own = "estimated foregrounds" if what == "foregrounds" else "composites"
        raise UserError(f"data set {name!r} has no {own} to prepare; these have: {', '.join(able)}.")
    data: Any = create_data(name, **options)
    if what != "foregrounds":
        return _composites(data.recipe(what, output))
    if output is None:
        raise UserError("say where estimated foregrounds go: output=DIR.")
    return _foregrounds(name, data, output)


def _is_able(name: str, what: str) -> bool:
    """Return whether a data set has such a thing, whatever its files."""
    cls = get_data(name)
    return issubclass(cls, ComposedData) and (what == "foregrounds" or cls.paired)


def _composites(recipe: Recipe) -> Batch:
    pairs = paired(recipe.foregrounds, recipe.backgrounds, recipe.per_foreground)
    missing = [pair.background for pair in pairs if not pair.background.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more backgrounds)" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]} is missing{more}; the composites need {len(pairs)} backgrounds.")
    check_foregrounds("prepare", recipe.foregrounds)
    outputs: list[Output] = []
    for source, destination in recipe.copies:
        if not source.is_file():
            raise UserError(f"{source} is missing; it belongs to the composites.")
        if not (destination.exists() and destination.samefile(source)):
            outputs.append(Copy(os.path.relpath(destination, recipe.folder), source))
    copied = {output.file for output in outputs}
    for number, pair in enumerate(pairs):
        outputs.append(Composite(f"merged/{pair.name}.png", pair))
        if recipe.trimap is not None and f"trimaps/{pair.name}.png" not in copied:
            outputs.append(Trimap(f"trimaps/{pair.name}.png", pair, number, recipe.trimap))
    file, count = Counter(output.file for output in outputs).most_common(1)[0]
    if count > 1:
        raise UserError(f"{count} files would be written to {recipe.folder / file}; rename what they are made from.")
    parts = made_of(pairs, recipe.per_foreground) | {"trimaps": recipe.trimap.rule if recipe.trimap else None}
    return Batch(recipe.folder, parts, outputs, f"{len(pairs)} composites")


def _foregrounds(name: str, data: Any, output: Path) -> Batch:
    found: dict[str, Foreground] = {}
    refusal = NoSplitError(f"data set {name!r} has no foregrounds to estimate.")
    for split in ("train", "test"):
        try:
            objects = data.objects(split)
        except NoSplitError as error:
            refusal = error
            continue
        for item in objects:
            if found.setdefault(item.name, item) != item:
                raise UserError(f"{found[item.name].colour} and {item.colour} share a name; rename one of them.")
    if not found:
        raise refusal
    objects = list(found.values())
    check_foregrounds(name, objects)
    outputs = [Colours(f"{item.name}.png", item) for item in objects]
    return Batch(output, {"estimated from": digest_foregrounds(objects)}, outputs, f"{len(objects)} foregrounds")
