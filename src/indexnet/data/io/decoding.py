"""Opening and decoding image files with Pillow: the one place where whatever a decoder raises becomes a sentence."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import re
import stat
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from PIL import ExifTags, Image, UnidentifiedImageError

from indexnet.core.errors import UserError
from indexnet.data.io.metadata import without_metadata

_T = TypeVar("_T")

#: The largest image that is read, in pixels: from there on Pillow takes a file for an attack on the memory.
MAX_PIXELS = 2 * 89_478_485

HEIC_IS_READ = importlib.util.find_spec("pillow_heif") is not None
"""Whether the extra ``heic`` is installed."""

HEIC_REMEDY = "pip install 'indexnet[heic]' to have HEIC read, or save it as JPEG or PNG"

# Pillow has more, among them one that starts Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "PPM")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FEW_BITS = re.compile(r"[LI];(2|4|12)")  # in Pillow's names for how a file keeps gray

# Pillow warns from half of MAX_PIXELS on; a person's large photograph is no reason to. Nor is damaged metadata.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        image: upright.
        levels: the white of gray with 2, 4 or 12 bits in the file, which decoding stretches to 255 (2 and 4 bits) or
            leaves (12 bits); None of all else.
        metadata: whether what the file says beside its pixels could be read; if not, it is taken as it is stored.
        exact: whether the format keeps numbers, as JPEG does not.
    """

    image: Image.Image
    levels: int | None
    metadata: bool
    exact: bool


def decode(path: str | Path) -> Decoded:
    """Decode the first picture of a file, upright as a camera noted; damaged metadata is passed over.

    Raises:
        UserError: there is no such file, it cannot be read as an image, or it has more than :data:`MAX_PIXELS`.
    """

    def decoded(image: Image.Image, metadata: bool) -> Decoded:
        tiles = getattr(image, "tile", None)  # how the pixels are to be decoded
        tile = tiles[0] if tiles else None
        if tile and tile.codec_name in ("ppm", "ppm_plain"):  # minutes for a large file, and numbers are stretched
            raise UserError(f"{path} is a PNM file as text, or with a white other than 255 and 65535; save it as PNG.")
        raw = (tile.args if isinstance(tile.args, str) else tile.args[0]) if tile and tile.args else ""
        few = _FEW_BITS.match(str(raw))
        exact = image.format not in ("JPEG", "MPO")
        image.load()
        noted = _noted(image)
        if noted in _TURNS:
            image = image.transpose(_TURNS[noted])
        return Decoded(image, 2 ** int(few[1]) - 1 if few else None, metadata and noted is not None, exact)

    return _ask(path, decoded)


def page_count(path: str | Path) -> int | None:
    """Return how many pages or frames a file has, of which only the first is ever read; None where others are damaged.

    The previews that cameras and phones put behind a photograph (MPO) are not counted.

    Raises:
        UserError: the file cannot be read as an image.
    """

    def count(image: Image.Image, _: bool) -> int | None:
        try:
            return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
        except Exception:  # of Pillow, on its way through the pages
            return None

    return _ask(path, count)


def camera_orientation(path: str | Path) -> int:
    """Return the orientation that a camera noted in a file (EXIF), which reading applies.

    Returns:
        1: upright, or nothing readable was noted; 2, 3, 4: mirrored or upside down; 5 to 8: height and width are
        exchanged.

    Raises:
        UserError: the file cannot be read as an image.
    """
    return _ask(path, lambda image, _: _noted(image) or 1)


def is_deep(path: str | Path) -> bool:
    """Return whether a file has 16 bits a channel, of which Pillow's colours keep 8.

    Raises:
        UserError: the file cannot be read as an image.
    """
    return _ask(path, lambda image, _: any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())))


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) of an image file, upright, from its header alone.

    Raises:
        UserError: it is missing or no image.
    """

    def size(image: Image.Image, _: bool) -> tuple[int, int]:
        turned = image.format != "TIFF" and (_noted(image) or 1) >= 5  # Pillow's size of a TIFF is upright
        return image.size if turned else (image.height, image.width)

    return _ask(path, size)


@contextmanager
def decoder_errors(path: str | Path) -> Iterator[None]:
    """Turn whatever Pillow raises on a file's pixels into a UserError; nothing but calls of Pillow belongs inside.

    Decoders of some formats raise what they stumble over: TypeError, KeyError, struct.error, ZeroDivisionError ...
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _ask(path: str | Path, question: Callable[[Image.Image, bool], _T]) -> _T:
    """Open a file and put a question to Pillow; where it fails, once more to the file without metadata.

    Args:
        path: the file.
        question: takes the opened image, and whether its metadata is there.

    Raises:
        UserError: there is no such file, or it cannot be read as an image.
    """
    _check_file(path)
    with decoder_errors(path):
        try:
            with Image.open(path, formats=_formats()) as image:
                return question(image, True)
        except (UserError, Image.DecompressionBombError):
            raise
        except Exception:
            if (bare := without_metadata(Path(path).read_bytes())) is not None:
                with contextlib.suppress(Exception), Image.open(io.BytesIO(bare), formats=_formats()) as image:
                    return question(image, False)
            raise


@cache
def _formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are read."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return _FORMATS
    return (*_FORMATS, "HEIF")


def _noted(image: Image.Image) -> int | None:
    """Return the orientation that a camera noted, 1 where it noted none, None where that cannot be read."""
    try:
        if (found := image.info.get("exif")) is not None:
            Image.Exif().load(found)  # raises what getexif raises the first time only
        if image.format == "PNG" and getattr(image, "tile", None) and _has_late_metadata(image.fp):  # type: ignore[attr-defined]
            image.load()
        noted = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # PNG's own decodes the pixels
    except Exception:  # of Pillow, about bytes that are no EXIF
        return None
    return noted if isinstance(noted, int) and 1 <= noted <= 8 else 1


def _has_late_metadata(file: IO[bytes]) -> bool:
    """Return whether a PNG may note an orientation behind its pixels, where Pillow finds it only by decoding them."""
    here, found = file.tell(), set()
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        found |= {name} if b"IDAT" in found else {name} & {b"IDAT"}
        file.seek(length + 4, os.SEEK_CUR)
    file.seek(here)
    return not found.isdisjoint((b"eXIf", b"iTXt", b"zTXt", b"tEXt"))


def _check_file(path: str | Path) -> None:
    """Refuse what is no file; opening a pipe would wait for ever.

    Raises:
        UserError: it is none.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder; an image file was expected.")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is a device or a pipe; an image file was expected.")


def _unreadable(path: str | Path, error: Exception) -> UserError:
    if isinstance(error, Image.DecompressionBombError):
        return UserError(
            f"{path} has more than {MAX_PIXELS // 10**6} megapixels, the most that is read; make it smaller."
        )
    if isinstance(error, MemoryError):
        return UserError(f"{path} takes more memory than there is; make it smaller.")
    if isinstance(error, UnidentifiedImageError):
        if not HEIC_IS_READ and _is_heic(path):
            return UserError(f"{path} is a HEIC picture; {HEIC_REMEDY}.")
        reason = "damaged, or of a format that is not read"
    elif isinstance(error, OSError | SyntaxError | ValueError) and str(error):
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    else:
        reason = " ".join(f"damaged: {type(error).__name__} {error}".split())
    return UserError(f"{path} cannot be read as an image ({reason}); replace or remove it.")


def _is_heic(path: str | Path) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        head = file.read(12)
        return head[4:8] == b"ftyp" and head[8:] in _HEIC_BRANDS
    return False
