"""The files that ``indexnet data prepare`` writes: what each is made from, and how."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import cv2

from indexnet.core.errors import UserError
from indexnet.data import create_data, get_data, list_data
from indexnet.data.base import NoSplitError, UInt8
from indexnet.data.io.images import image_size, read_image
from indexnet.data.matting import Foreground, check_foregrounds, read_foreground
from indexnet.data.matting.composite_data import CompositeData
from indexnet.data.matting.compositing import Pair, Recipe, composite, cover, digest_foregrounds, made_of
from indexnet.data.matting.photographs import generate_trimap


@dataclass(frozen=True)
class Output:
    """A file that is to be written; picklable.

    Attributes:
        kind: what it is.
        file: its path in the prepared folder.
        source: a file that its size goes with: of a copy the original, otherwise an image of as many pixels.
        make: returns its content; raises UserError or OSError where what it is made from cannot be read.
    """

    kind: Literal["composite", "trimap", "copy", "colours"]
    file: str
    source: Path
    make: Callable[[], bytes]

    def weight(self) -> int:
        """Return a number that its size is about proportional to, among outputs of its kind."""
        return self.source.stat().st_size if self.kind == "copy" else _pixels(self.source)


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


@lru_cache(maxsize=2)
def _decoded(foreground: Foreground) -> tuple[UInt8, UInt8]:
    """Decode a foreground; its composites are made one after the other."""
    return read_foreground(foreground)


@cache
def _pixels(path: Path) -> int:
    height, width = image_size(path)
    return height * width


def _png(array: UInt8) -> bytes:
    """Encode a PNG; OpenCV's takes a fifth of Pillow's time here, and as much room."""
    ok, encoded = cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)
    assert ok
    return encoded.tobytes()


def _make_composite(pair: Pair) -> bytes:
    colour, alpha = _decoded(pair.foreground)
    return _png(composite(colour, cover(read_image(pair.background), alpha.shape, shrink=False), alpha))


def _make_trimap(rule: str, pair: Pair) -> bytes:
    return _png(generate_trimap(rule, pair.name, _decoded(pair.foreground)[1]))


def _make_colours(photograph: Foreground) -> bytes:
    return _png(read_foreground(replace(photograph, estimate=True))[0])


def find_batch(name: str, what: str, options: dict[str, Any], output: Path | None) -> Batch:
    """Ask the data set what to write.

    Args:
        name: of the data set.
        what: ``"test"``, ``"train"``, or ``"foregrounds"`` with estimated colours.
        options: of the data set.
        output: folder to write to; None: where the data set finds it later.

    Raises:
        UserError: it does not know such a thing, or cannot for the files that are there.
    """
    if not _is_able(name, what):
        able = [info.name for info in list_data() if _is_able(info.name, what)]
        own = "estimated foregrounds" if what == "foregrounds" else "composites"
        raise UserError(f"data set {name!r} has no {own} to prepare; these have: {', '.join(able)}.")
    data = create_data(name, **options)
    assert isinstance(data, CompositeData)
    if what != "foregrounds":
        return composites_batch(data.recipe(what, output))
    if output is None:
        raise UserError("say where estimated foregrounds go: output=DIR.")
    return _foregrounds_batch(data, output)


def _is_able(name: str, what: str) -> bool:
    """Return whether a data set has such a thing, whatever its files."""
    cls = get_data(name)
    return issubclass(cls, CompositeData) and (what == "foregrounds" or cls.paired)


def composites_batch(recipe: Recipe) -> Batch:
    """Return what one split's composites are, with all that belongs beside them.

    Raises:
        UserError: a file is missing, or two would be written to one place.
    """
    missing = [pair.background for pair in recipe.pairs if not pair.background.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more backgrounds)" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]} is missing{more}; the composites need {len(recipe.pairs)} backgrounds.")
    check_foregrounds("prepare", list(dict.fromkeys(pair.foreground for pair in recipe.pairs)))
    outputs: list[Output] = []
    for source, destination in recipe.copies:
        if not source.is_file():
            raise UserError(f"{source} is missing; it belongs to the composites.")
        if not (destination.exists() and destination.samefile(source)):
            file = os.path.relpath(destination, recipe.folder)
            outputs.append(Output("copy", file, source, partial(Path.read_bytes, source)))
    copied = {output.file for output in outputs}
    for pair in recipe.pairs:
        alpha, file = pair.foreground.alpha, f"trimaps/{pair.name}.png"
        outputs.append(Output("composite", f"merged/{pair.name}.png", alpha, partial(_make_composite, pair)))
        if recipe.trimaps is not None and file not in copied:
            outputs.append(Output("trimap", file, alpha, partial(_make_trimap, recipe.trimaps, pair)))
    file, count = Counter(output.file for output in outputs).most_common(1)[0]
    if count > 1:
        raise UserError(f"{count} files would be written to {recipe.folder / file}; rename what they are made from.")
    parts = made_of(recipe.pairs, recipe.per_foreground) | {"trimaps": recipe.trimaps}
    return Batch(recipe.folder, parts, outputs, f"{len(recipe.pairs)} composites")


def _foregrounds_batch(data: CompositeData, output: Path) -> Batch:
    found: dict[str, Foreground] = {}
    refusal = NoSplitError(f"data set {data.name!r} has no foregrounds to estimate.")
    for split in ("train", "test"):
        try:
            foregrounds = data.foregrounds(split)
        except NoSplitError as error:
            refusal = error
            continue
        for item in foregrounds:
            if found.setdefault(item.name, item) != item:
                raise UserError(f"{found[item.name].colour} and {item.colour} share a name; rename one of them.")
    if not found:
        raise refusal
    foregrounds = list(found.values())
    check_foregrounds(data.name, foregrounds)
    outputs = [Output("colours", f"{it.name}.png", it.alpha, partial(_make_colours, it)) for it in foregrounds]
    return Batch(output, {"estimated from": digest_foregrounds(foregrounds)}, outputs, f"{len(outputs)} foregrounds")
