"""The files that ``indexnet data prepare`` writes: what each is made from, and how."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import cv2

from indexnet.core.errors import UserError
from indexnet.data.base import UInt8
from indexnet.data.files import check_files
from indexnet.data.io.images import image_size, read_image
from indexnet.data.matting.compositing import Pair, composite, cover, digest_foregrounds, made_of
from indexnet.data.matting.foregrounds import Foreground, check_foregrounds, read_foreground
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

    kind: Literal["composite", "trimap", "copy", "colours", "list"]
    file: str
    source: Path
    make: Callable[[], bytes]

    def weight(self) -> int:
        """Return a number that its size is about proportional to, among outputs of its kind; 0 without its source.

        Lists are nothing beside images.
        """
        if self.kind == "list":
            return 0
        try:
            return self.source.stat().st_size if self.kind == "copy" else _pixels(self.source)
        except (UserError, OSError):  # said when its turn comes
            return 0


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
    return math.prod(image_size(path))


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


def composites_batch(
    pairs: Sequence[Pair], per_foreground: int, folder: Path, copies: Mapping[Path, Path], rule: str | None
) -> Batch:
    """Return what one split's composites are, with all that belongs beside them.

    Args:
        pairs: the composites, in the order of the rule; they go to ``folder/merged/NAME.png``.
        per_foreground: composites of each foreground.
        folder: the split's folder.
        copies: source and destination of files that the layout has beside the composites and that are taken as they
            are: foregrounds, alphas, trimaps. A source that is its destination is left alone.
        rule: by which ``folder/trimaps/NAME.png`` are made, see ``generate_trimap``; None where trimaps are copied or
            the layout has none.

    Raises:
        UserError: a file is missing, or two would be written to one place.
    """
    needed = f"; the composites need {len(pairs)} backgrounds."
    check_files((pair.background for pair in pairs), "more backgrounds", needed)
    check_foregrounds("prepare", list(dict.fromkeys(pair.foreground for pair in pairs)))
    check_files(copies, "more files", "; it belongs to the composites.")
    outputs: list[Output] = []
    for source, destination in copies.items():
        if not (os.path.exists(destination) and destination.samefile(source)):
            file = os.path.relpath(destination, folder)
            outputs.append(Output("copy", file, source, partial(Path.read_bytes, source)))
    copied = {output.file for output in outputs}
    for pair in pairs:
        alpha, file = pair.foreground.alpha, f"trimaps/{pair.name}.png"
        outputs.append(Output("composite", f"merged/{pair.name}.png", alpha, partial(_make_composite, pair)))
        if rule is not None and file not in copied:
            outputs.append(Output("trimap", file, alpha, partial(_make_trimap, rule, pair)))
    file, count = Counter(output.file for output in outputs).most_common(1)[0]
    if count > 1:
        raise UserError(f"{count} files would be written to {folder / file}; rename what they are made from.")
    parts = made_of(pairs, per_foreground) | {"trimaps": rule}
    return Batch(folder, parts, outputs, f"{len(pairs)} composites")


def list_output(file: str, lines: Sequence[str]) -> Output:
    """Return a list that goes along: a line each, of what tabs separate."""
    text = "".join(f"{line}\n" for line in lines)
    return Output("list", file, Path(file), partial(str.encode, text))


def colours_batch(foregrounds: Sequence[Foreground], folder: Path) -> Batch:
    """Return what the estimated colours of foregrounds are."""
    outputs = [Output("colours", f"{it.name}.png", it.alpha, partial(_make_colours, it)) for it in foregrounds]
    return Batch(folder, {"estimated from": digest_foregrounds(foregrounds)}, outputs, f"{len(outputs)} foregrounds")
