"""Reading and writing image files as what they mean: photographs, trimaps, alpha mattes.

Palettes are resolved, 16-bit files are scaled rather than cut, the orientation that a camera noted (EXIF) is applied,
and a file that cannot be read, or can be read in two ways, is refused by name.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from indexnet.data.base import Float32, UInt8
from indexnet.errors import UserError
from indexnet.files import atomic_write

#: File name endings that are taken for images.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's names for 16-bit gray
_FULL = 65535
_KNOWN_LOW, _KNOWN_HIGH = 20, 235  # a lenient trimap's values at or beyond these are taken for 0 and 255
_GRAY_TOLERANCE = 8  # colour channels of a gray JPEG differ by a few levels


#: What Pillow raises for a file that it cannot read.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def unreadable(path: str | Path, error: Exception) -> UserError:
    """Build the error for a file that Pillow could not read."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} does not exist.")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} cannot be read as an image ({reason}); replace or remove it.")


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open and decode an image, upright; every way in which that fails becomes a UserError naming the file."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist.")
    if path.is_dir():
        raise UserError(f"{path} is a folder; an image file was expected.")
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    yield upright


def _wide(path: str | Path, image: Image.Image) -> npt.NDArray[np.int64]:
    """Return the values of a 16-bit gray image, refusing one that only holds 8-bit values."""
    values = np.asarray(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > _FULL):
        raise UserError(f"{path} holds values outside 0..65535; save it as an 8-bit or 16-bit gray PNG.")
    if values.size and 0 < values.max() <= 255:
        raise UserError(
            f"{path} is a 16-bit file with no value above 255, so white could be 255 or 65535; save it as an 8-bit PNG."
        )
    return values


def read_image(path: str | Path) -> UInt8:
    """Read a photograph.

    Palettes are resolved, gray becomes three equal channels, 16-bit values are scaled to 8 bits, an alpha channel is
    dropped and the EXIF orientation is applied.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UserError: there is no such file, or it cannot be read as an image.
    """
    with _opened(path) as image:
        if image.mode in _WIDE_MODES:
            gray = np.round(_wide(path, image) / (_FULL / 255)).astype(np.uint8)
            return np.repeat(gray[..., None], 3, axis=2)
        if image.mode == "F":
            raise UserError(f"{path} holds floating-point values; save it as an 8-bit or 16-bit image.")
        return np.array(image.convert("RGB"), np.uint8)


def _read_gray(path: str | Path) -> tuple[npt.NDArray[np.int64], int]:
    """Return the values of a gray image and its white: 255 or 65535."""
    with _opened(path) as image:
        if image.mode in _WIDE_MODES:
            return _wide(path, image), _FULL
        if image.mode == "F":
            raise UserError(f"{path} holds floating-point values; save it as an 8-bit or 16-bit gray PNG.")
        if image.mode in ("L", "LA", "1"):
            return np.array(image.convert("L"), np.int64), 255
        rgb = np.array(image.convert("RGB"), np.int64)
    if rgb.size and int((rgb.max(axis=2) - rgb.min(axis=2)).max()) > _GRAY_TOLERANCE:
        raise UserError(f"{path} is a colour image; a gray one (or three equal channels) was expected.")
    return rgb[..., 1], 255


def read_trimap(path: str | Path, strict: bool) -> tuple[UInt8, int]:
    """Read a trimap.

    Args:
        path: an 8-bit gray, RGB (equal channels), bilevel or palette image with the values 0, 128, 255; or a 16-bit
            gray one with the values 0, 32768 (or 128 * 257) and 65535.
        strict: whether other values are an error. Otherwise values <= 20 become 0, values >= 235 become 255, and all
            between become 128, on the 8-bit scale.

    Returns:
        The trimap, uint8 (H, W) in {0: background, 128: unknown, 255: foreground}, and how many pixels had another
        value.

    Raises:
        UserError: the file cannot be read, is a colour image, or (``strict``) holds other values.
    """
    values, white = _read_gray(path)
    if white == _FULL:
        exact = np.isin(values, (0, 32768, 128 * 257, _FULL))
        found, values = values, values >> 8
    else:
        found = values
        exact = np.isin(values, (0, 128, 255))
    touched = int(values.size - np.count_nonzero(exact))
    if touched and strict:
        others = np.unique(found[~exact])
        shown = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
        raise UserError(
            f"trimap {path} has {touched} pixels with the values {shown}; only 0 (background), 128 (unknown) and 255 "
            "(foreground) are allowed. Set unknown pixels to 128 and save it losslessly, as PNG."
        )
    trimap = np.full(values.shape, 128, np.uint8)
    trimap[values <= _KNOWN_LOW] = 0
    trimap[values >= _KNOWN_HIGH] = 255
    return trimap, touched


def read_alpha(path: str | Path) -> Float32:
    """Read an alpha matte: an 8-bit (divided by 255) or 16-bit (by 65535) gray image, or one of three equal channels.

    Returns:
        float32 (H, W) in [0, 1].

    Raises:
        UserError: the file cannot be read or is a colour image.
    """
    values, white = _read_gray(path)
    return (values / white).astype(np.float32)


def write_png(path: str | Path, array: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], overwrite: bool = False) -> None:
    """Write a PNG, atomically.

    Args:
        path: where to; the folder is created where it does not exist.
        array: uint8 (H, W) or (H, W, 3) RGB, or uint16 (H, W).
        overwrite: whether an existing file may be replaced.

    Raises:
        UserError: the file exists and ``overwrite`` is false.
        TypeError: the array is of another type or shape.
    """
    path = Path(path)
    gray, colour = array.ndim == 2, array.ndim == 3 and array.shape[2] == 3
    if not (array.dtype == np.uint8 and (gray or colour)) and not (array.dtype == np.uint16 and gray):
        raise TypeError(f"a PNG takes uint8 (H, W[, 3]) or uint16 (H, W), not {array.dtype} {array.shape}")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; give --overwrite to replace it, or another output folder.")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG")
    atomic_write(path, buffer.getvalue())


def list_images(folder: str | Path) -> list[Path]:
    """Return the image files of a folder, by name; hidden files and sub-folders are left out.

    Raises:
        UserError: the folder is missing, is no folder, or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}; name a folder of images.")
    files = sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )
    if not files:
        raise UserError(f"{folder} holds no image; files ending in {', '.join(SUFFIXES)} are read.")
    return files
