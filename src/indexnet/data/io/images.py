"""Reading and writing image files as what they mean: photographs, trimaps, alpha mattes.

Palettes are resolved, 16-bit files are scaled rather than cut, the orientation that a camera noted (EXIF) is applied,
colours of print (CMYK) become sRGB by the file's profile, of several pages the first is taken, and a file that cannot
be read, or can be read in two ways, is refused by name.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, ImageOps

from indexnet.core.errors import UserError
from indexnet.core.files import atomic_write
from indexnet.data.base import Float32, UInt8

#: File name endings that are taken for images.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

#: Endings of photographs that are not read: of phones, of cameras, and of other programs.
OTHER_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"),
    *(".jfif", ".gif", ".jp2", ".jxl", ".psd"),
)

_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's names for 16-bit gray
_FULL = 65535
_KNOWN_LOW, _KNOWN_HIGH = 20, 235  # a lenient trimap's values at or beyond these are taken for 0 and 255
_GRAY_TOLERANCE = 8  # colour channels of a gray JPEG differ by a few levels
_MASK_THRESHOLD = 0.5

#: The largest image that is read, in pixels: from there on Pillow takes a file for an attack on the memory.
MAX_PIXELS = 2 * 89_478_485


#: What Pillow raises for a file that it cannot read.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)

# Pillow warns from half of MAX_PIXELS on; a person's large photograph is no reason to.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def unreadable(path: str | Path, error: Exception) -> UserError:
    """Build the error for a file that Pillow could not read."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} does not exist.")
    if isinstance(error, Image.DecompressionBombError):
        return UserError(
            f"{path} has more than {MAX_PIXELS // 10**6} megapixels, the most that is read; make it smaller."
        )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} cannot be read as an image ({reason}); replace or remove it.")


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file without decoding it; what goes wrong with it becomes a UserError that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def _decoded(path: str | Path) -> Image.Image:
    """Decode an image, upright.

    Raises:
        UserError: there is no such file, or it cannot be read as an image.
    """
    if not Path(path).exists():
        raise UserError(f"{path} does not exist.")
    if Path(path).is_dir():
        raise UserError(f"{path} is a folder; an image file was expected.")
    with opened(path) as image:
        image.load()
        return ImageOps.exif_transpose(image)


def page_count(path: str | Path) -> int:
    """Return how many pages or frames a file has; only the first is ever read.

    The previews that cameras and phones put behind a photograph (MPO) are not counted.

    Raises:
        UserError: the file cannot be read as an image.
    """
    with opened(path) as image:
        return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def camera_orientation(path: str | Path) -> int:
    """Return the orientation that a camera noted in a file (EXIF), which reading applies.

    Returns:
        1: upright, or nothing was noted; 2, 3, 4: mirrored or upside down; 5 to 8: height and width are exchanged.

    Raises:
        UserError: the file cannot be read as an image.
    """
    with opened(path) as image:
        noted = image.getexif().get(ExifTags.Base.Orientation, 1)
    return noted if isinstance(noted, int) and 1 <= noted <= 8 else 1


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image file, upright, from its header alone.

    Raises:
        UserError: it is missing or no image.
    """
    with opened(path) as image:
        turned = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        width, height = image.size
    return (width, height) if turned else (height, width)


def file_sizes(files: Sequence[Path]) -> list[list[str | int]]:
    """Names and byte sizes of files, for fingerprints."""
    return [[path.name, path.stat().st_size] for path in files]


def _wide(path: str | Path, image: Image.Image) -> npt.NDArray[np.uint16]:
    """Return the values of a 16-bit gray image, refusing one that only holds 8-bit values."""
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > _FULL):
        raise UserError(f"{path} holds values outside 0..65535; save it as an 8-bit or 16-bit gray PNG.")
    if values.size and 0 < values.max() <= 255:
        raise UserError(
            f"{path} is a 16-bit file with no value above 255, so white could be 255 or 65535; save it as an 8-bit PNG."
        )
    return values.astype(np.uint16)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image's colours to sRGB by the profile inside; without a usable one, plainly."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "RGBA", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode == "RGB" and ImageCms.getProfileDescription(source).startswith("sRGB"):
                return image
            plain = image.convert("RGB") if image.mode == "RGBA" else image
            converted = ImageCms.profileToProfile(plain, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile, or one for something else: the picture is still there
    return image.convert("RGB")


def read_image(path: str | Path, srgb: bool = False) -> UInt8:
    """Read a photograph.

    Palettes are resolved, gray becomes three equal channels, 16-bit values are scaled to 8 bits, an alpha channel is
    dropped, the EXIF orientation is applied, and CMYK is converted by the profile inside the file where there is one.

    Args:
        path: the file.
        srgb: whether RGB is converted to sRGB too where the file holds a profile of another space, as photographs of
            phones do, so that results that are saved without a profile keep their colours. Data sets take values as
            they are.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UserError: there is no such file, it cannot be read as an image, or it has more than :data:`MAX_PIXELS`.
    """
    image = _decoded(path)
    if image.mode in _WIDE_MODES:
        gray = np.round(_wide(path, image) / np.float32(_FULL / 255)).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point values; save it as an 8-bit or 16-bit image.")
    colours = _to_srgb(image) if srgb or image.mode == "CMYK" else image.convert("RGB")
    return np.array(colours, np.uint8)


def read_gray(path: Path) -> UInt8:
    """Read a photograph as luma (ITU-R BT.601); a gray one as it is.

    Returns:
        uint8 (H, W).

    Raises:
        UserError: it cannot be read as an image.
    """
    image = read_image(path)
    if np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2]):
        return np.ascontiguousarray(image[..., 0])
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def read_values(path: Path) -> tuple[str, npt.NDArray[Any]]:
    """Read an image's values as its file has them: neither turned nor scaled, palettes not resolved.

    Returns:
        Pillow's mode, and the values (H, W[, C]).

    Raises:
        UserError: it cannot be read as an image.
    """
    with opened(path) as image:
        image.load()
        return image.mode, np.asarray(image)


def _gray(path: str | Path, image: Image.Image) -> tuple[UInt8 | npt.NDArray[np.uint16], int]:
    """Return the values of a gray image and its white: 255 or 65535."""
    if image.mode in _WIDE_MODES:
        return _wide(path, image), _FULL
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point values; save it as an 8-bit or 16-bit gray PNG.")
    if image.mode in ("L", "LA", "1"):
        return np.array(image.convert("L"), np.uint8), 255
    rgb = np.array(image.convert("RGB"), np.uint8)
    if rgb.size and int((rgb.max(axis=2) - rgb.min(axis=2)).max()) > _GRAY_TOLERANCE:
        raise UserError(f"{path} is a colour image; a gray one (or three equal channels) was expected.")
    return np.ascontiguousarray(rgb[..., 1]), 255


def read_mask(path: str | Path) -> npt.NDArray[np.bool_]:
    """Read a coarse mask: what is at least half white, or in a cut-out with an alpha channel at least half opaque.

    Values 0 and 1 alone, as label maps have, are taken for black and white.

    Returns:
        bool (H, W), True on what is marked.

    Raises:
        UserError: the file cannot be read, or is a colour image without transparency.
    """
    image = _decoded(path)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        opacity = np.array(image.convert("RGBA").getchannel("A"), np.uint8)
        if opacity.min() < 255:
            return opacity >= _MASK_THRESHOLD * 255
    if image.mode in _WIDE_MODES and np.asarray(image).max(initial=0) <= 1:
        return np.asarray(image) > 0
    values, white = _gray(path, image)
    highest = int(values.max(initial=0))
    return values > 0 if highest == 1 else values >= _MASK_THRESHOLD * white


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
        UserError: the file cannot be read, is a colour image, holds other values (``strict``), or none above 20 but
            0, so that it rather holds labels than gray (otherwise).
    """
    found, white = _gray(path, _decoded(path))
    if white == _FULL:
        exact = np.isin(found, (0, 32768, 128 * 257, _FULL))
        values = (found >> 8).astype(np.uint8)
    else:
        values = found.astype(np.uint8, copy=False)
        exact = (values == 0) | (values == 128) | (values == 255)
    touched = int(values.size - np.count_nonzero(exact))
    if touched and strict:
        others = np.unique(found[~exact])
        shown = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
        raise UserError(
            f"trimap {path} has {touched} pixels with the values {shown}; only 0 (background), 128 (unknown) and 255 "
            "(foreground) are allowed. Set unknown pixels to 128 and save it losslessly, as PNG."
        )
    if 0 < values.max(initial=0) <= _KNOWN_LOW:
        raise UserError(
            f"trimap {path} has no value above {found.max()}, which looks like "
            "labels; write 0 for background, 128 for unknown and 255 for foreground."
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
    values, white = _gray(path, _decoded(path))
    return (values / white).astype(np.float32)


def write_png(path: str | Path, array: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], overwrite: bool = False) -> None:
    """Write a PNG, atomically.

    Args:
        path: where to; the folder is created where it does not exist.
        array: uint8 (H, W), (H, W, 3) RGB or (H, W, 4) RGBA with straight alpha, or uint16 (H, W).
        overwrite: whether an existing file may be replaced.

    Raises:
        UserError: the file exists and ``overwrite`` is false.
        TypeError: the array is of another type or shape.
    """
    path = Path(path)
    gray, colour = array.ndim == 2, array.ndim == 3 and array.shape[2] in (3, 4)
    if not (array.dtype == np.uint8 and (gray or colour)) and not (array.dtype == np.uint16 and gray):
        raise TypeError(f"a PNG takes uint8 (H, W[, 3 or 4]) or uint16 (H, W), not {array.dtype} {array.shape}")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; give --overwrite to replace it, or another output folder.")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG")
    atomic_write(path, buffer.getvalue())


def image_names(folder: str | Path) -> list[str]:
    """Return the names of a folder's image files, sorted; hidden files and sub-folders are left out.

    Raises:
        UserError: the folder is missing, is no folder, or holds no image.
    """
    try:
        names = _ending(folder, SUFFIXES)
    except OSError as error:
        what = {FileNotFoundError: "does not exist", NotADirectoryError: "is not a folder"}
        why = what.get(type(error), f"cannot be read ({error.strerror})")
        raise UserError(f"{folder} {why}; name a folder of images.") from error
    if not names:
        others = _ending(folder, OTHER_SUFFIXES)
        shown = f" but {', '.join(others[:5])}{', ...' if len(others) > 5 else ''}" if others else ""
        raise UserError(f"{folder} holds no image{shown}; files ending in {', '.join(SUFFIXES)} are read.")
    return names


def list_images(folder: str | Path) -> list[Path]:
    """Return the paths of :func:`image_names`.

    Raises:
        UserError: the folder is missing, is no folder, or holds no image.
    """
    return [Path(folder) / name for name in image_names(folder)]


def list_unread(folder: str | Path) -> list[Path]:
    """Return the photographs of a folder that :func:`list_images` leaves out for their ending, by name.

    Those with an image of the same name beside them, as cameras put one beside a raw file, are not missed.
    """
    read = {Path(name).stem for name in _ending(folder, SUFFIXES)}
    return [Path(folder) / name for name in _ending(folder, OTHER_SUFFIXES) if Path(name).stem not in read]


def _ending(folder: str | Path, suffixes: tuple[str, ...]) -> list[str]:
    with os.scandir(folder) as entries:  # tells files from folders without asking about each
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()]
    return sorted(name for name in names if name.lower().endswith(suffixes))
