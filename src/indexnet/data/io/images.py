"""Reading and writing image files as what they mean: photographs, masks, trimaps, alpha mattes, numbers.

Palettes are resolved, 16-bit files are scaled rather than cut, the orientation that a camera noted (EXIF) is applied,
colours of print (CMYK) become sRGB by the file's profile, of several pages the first is taken, and a file that cannot
be read, or can be read in two ways, is refused by name.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from indexnet.core.errors import UserError
from indexnet.core.files import atomic_write
from indexnet.data.base import Float32, UInt8
from indexnet.data.io.decoding import HEIC_IS_READ, Decoded, decode, decoder_errors, page_count
from indexnet.data.io.decoding import image_size as image_size
from indexnet.data.io.gray import FULL_WHITE, WIDE_MODES, drawn_values, gray_values, opacity, palette_mask, wide_values
from indexnet.data.io.trimaps import quantise

HEIC_SUFFIXES = (".heic", ".heif")

#: File name endings that are taken for images.
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
    *(HEIC_SUFFIXES if HEIC_IS_READ else ()),
)

#: Endings of photographs that are not read: of phones, of cameras, and of other programs.
OTHER_SUFFIXES = (
    *(() if HEIC_IS_READ else HEIC_SUFFIXES),
    *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"),
    *(".jp2", ".jxl", ".psd", ".exr", ".hdr", ".tga"),
)

_KNOWN_LOW, _KNOWN_HIGH = 20, 235  # a lenient trimap's values at or beyond these are taken for 0 and 255
_MASK_THRESHOLD = 0.5
_STRIP = 2**22  # pixels that are converted at a time: Pillow hands over three copies of what it is asked for


def file_sizes(files: Sequence[Path]) -> list[list[str | int]]:
    """Names and byte sizes of files, for fingerprints."""
    return [[path.name, path.stat().st_size] for path in files]


def _to_srgb(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """Return what converts pieces of an image to sRGB by the profile inside; None: the profile cannot be used.

    Without a profile, or with that of sRGB itself, the conversion is the plain one.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return _plainly
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if image.mode != "CMYK" and ImageCms.getProfileDescription(source).startswith("sRGB"):
            return _plainly
        mode = "CMYK" if image.mode == "CMYK" else "RGB"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None  # a damaged profile, or one for something else: the picture is still there

    def convert(piece: Image.Image) -> Image.Image:
        found = ImageCms.applyTransform(piece if piece.mode == mode else piece.convert(mode), transform)
        assert found is not None  # it is asked for a new image
        return found

    return convert


def _plainly(piece: Image.Image) -> Image.Image:
    return piece if piece.mode == "RGB" else piece.convert("RGB")  # which would copy


def read_image(path: str | Path, srgb: bool = False, remarks: list[str] | None = None) -> UInt8:
    """Read a photograph.

    Palettes are resolved, gray becomes three equal channels, 16-bit values are scaled to 8 bits, an alpha channel is
    dropped, the EXIF orientation is applied, and CMYK is converted by the profile inside the file where there is one.

    Args:
        path: the file.
        srgb: whether RGB is converted to sRGB too where the file holds a profile of another space, as photographs of
            phones do, so that results that are saved without a profile keep their colours. Data sets take values as
            they are.
        remarks: gets a sentence for each thing in the file that was left out, where a person should know.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UserError: there is no such file, it cannot be read as an image, or it has more than :data:`MAX_PIXELS`.
    """
    decoded = decode(path)
    image = decoded.image
    if remarks is not None:
        remarks += _left_out(path, decoded)
    if image.mode in WIDE_MODES:
        values, white = wide_values(path, image), np.float32((decoded.levels or FULL_WHITE) / 255)
        return _in_strips(image, lambda rows: np.round(values[rows] / white).astype(np.uint8)[..., None])
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point values; save it as an 8-bit or 16-bit image.")
    convert = _to_srgb(image) if srgb or image.mode == "CMYK" else _plainly
    if convert is None:
        convert = _plainly
        if remarks is not None:
            remarks.append(f"{path}: its colour profile cannot be used; its colours were taken for sRGB.")

    def made(rows: slice) -> UInt8:
        whole = rows.stop - rows.start == image.height
        return np.asarray(convert(image if whole else image.crop((0, rows.start, image.width, rows.stop))))

    with decoder_errors(path):
        return _in_strips(image, made)


def _in_strips(image: Image.Image, make: Callable[[slice], npt.NDArray[np.uint8]]) -> UInt8:
    """Return an array (H, W, 3) for an image, made of some rows at a time."""
    width, height = image.size
    found = np.empty((height, width, 3), np.uint8)
    step = max(1, _STRIP // max(1, width))
    for top in range(0, height, step):
        rows = slice(top, min(height, top + step))
        found[rows] = make(rows)
    return found


def _left_out(path: str | Path, decoded: Decoded) -> list[str]:
    """Say what of a photograph's file is not in its pixels."""
    pages, found = page_count(path), []
    if pages is None:
        found.append(f"{path} has more pages or frames, which are damaged; the first was taken.")
    elif pages > 1:
        found.append(f"{path} has {pages} pages or frames; the first was taken.")
    if not decoded.metadata:
        found.append(
            f"{path}: what it says of its orientation or colours cannot be read (EXIF or the like); it was taken as it "
            "is stored."
        )
    if opacity(path, decoded.image) is not None:
        found.append(f"{path} has transparent pixels; their colours were taken as the file has them.")
    return found


def read_gray(path: Path) -> UInt8:
    """Read a photograph as luma (ITU-R BT.601); a gray one as it is.

    Returns:
        uint8 (H, W).

    Raises:
        UserError: it cannot be read as an image.
    """
    image = read_image(path)
    if is_gray(image):
        return np.ascontiguousarray(image[..., 0])
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def is_gray(image: npt.NDArray[Any]) -> bool:
    """Return whether the three channels of an image (H, W, 3) are equal."""
    return bool((image == image[..., :1]).all())


def read_values(path: Path, exact: bool = False) -> tuple[str, npt.NDArray[Any]]:
    """Read an image's values as its file has them, upright: not scaled, palettes not resolved.

    Args:
        path: the file.
        exact: whether a format that changes numbers (JPEG) is refused.

    Returns:
        Pillow's mode, and the values (H, W[, C]).

    Raises:
        UserError: it cannot be read as an image, or is a JPEG (``exact``).
    """
    decoded = decode(path)
    if exact and not decoded.exact:
        raise UserError(f"{path} is a JPEG, which does not keep numbers exactly; save it as PNG from the original.")
    values = np.asarray(decoded.image)
    if decoded.image.mode == "L" and decoded.levels:
        values = values // (255 // decoded.levels)
    return decoded.image.mode, values


def read_mask(path: str | Path) -> npt.NDArray[np.bool_]:
    """Read a coarse mask: what is at least half white, or in a cut-out or silhouette at least half opaque.

    Values 0 and 1 alone, as label maps have, are taken for black and white. Of a palette image in colours, as label
    maps are too, all but entry 0 is marked, if that is black; 255 is not, beside other labels.

    Returns:
        bool (H, W), True on what is marked.

    Raises:
        UserError: the file cannot be read, is a colour image without transparency, or is transparent everywhere.
    """
    decoded = decode(path)
    image = decoded.image
    if image.mode in WIDE_MODES and np.asarray(image).max(initial=0) <= 1:
        return np.asarray(image) > 0
    if image.mode == "P" and "transparency" not in image.info and (found := palette_mask(image)) is not None:
        return found
    values, white = drawn_values(path, decoded, "mask")
    highest = int(values.max(initial=0))
    return values > 0 if highest == 1 else values >= _MASK_THRESHOLD * white


def read_trimap(path: str | Path, strict: bool) -> tuple[UInt8, int]:
    """Read a trimap.

    Args:
        path: an 8-bit gray, RGB (equal channels), bilevel or palette image with the values 0, 128, 255; or a 16-bit
            gray one with the values 0, 32768 (or 128 * 257) and 65535. An alpha channel must be opaque everywhere.
        strict: whether other values are an error. Otherwise values <= 20 become 0, values >= 235 become 255, and all
            between become 128, on the 8-bit scale.

    Returns:
        The trimap, uint8 (H, W) in {0: background, 128: unknown, 255: foreground}, and how many pixels had another
        value.

    Raises:
        UserError: the file cannot be read, is a colour image, has transparent pixels, holds other values (``strict``),
            or none above 20 but 0, so that it rather holds labels than gray (otherwise).
    """
    decoded = decode(path)
    alpha = opacity(path, decoded.image)
    if alpha is not None:
        raise UserError(
            f"trimap {path} has {int(np.count_nonzero(alpha < 255))} transparent pixels, of which nothing says whether "
            "they are background; paint them 0 (background), 128 (unknown) or 255 (foreground) and save it as a gray "
            "PNG without alpha channel."
        )
    found, white = gray_values(path, decoded)
    if white == 255:
        values = found.astype(np.uint8, copy=False)
        exact = (values == 0) | (values == 128) | (values == 255)
    else:
        exact = np.isin(found, (0, (white + 1) // 2, 128 * 257 * white // FULL_WHITE, white))
        values = (found.astype(np.uint32) * 256 // (white + 1)).astype(np.uint8)
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
    """Read an alpha matte: a gray image of 8 bits (divided by 255) or 16 (by 65535), or one of three equal channels.

    A file with transparent pixels gives its alpha channel, where that draws the matte: a silhouette of one colour, or a
    cut-out in colours.

    Returns:
        float32 (H, W) in [0, 1].

    Raises:
        UserError: the file cannot be read, is a colour image without transparency, is transparent everywhere, has both
            gray levels and transparency, or only the values 0 and 1 of 255, as a mask of labels has.
    """
    values, white = _matte(path)
    return (values / white).astype(np.float32)


def read_matte(path: str | Path) -> UInt8:
    """Read an alpha matte as :func:`read_alpha` does, rounded to 8 bits.

    Returns:
        uint8 (H, W).

    Raises:
        UserError: see there.
    """
    values, white = _matte(path)
    return values.astype(np.uint8, copy=False) if white == 255 else quantise((values / white).astype(np.float32))


def _matte(path: str | Path) -> tuple[UInt8 | npt.NDArray[np.uint16], int]:
    """Return the values of an alpha matte, of 8 bits where white is 255, and its white."""
    values, white = drawn_values(path, decode(path), "matte")
    if values.max(initial=0) == 1:
        raise UserError(
            f"{path} has only the values 0 and 1, as labels have; a matte is white ({white}) on its object."
        )
    return values, white


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
    if os.path.exists(path) and not overwrite:
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


def any_images(folder: str | Path) -> list[str]:
    """Return what :func:`image_names` does, or nothing where there is no image or no folder."""
    return _ending(folder, SUFFIXES) if os.path.isdir(folder) else []


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
        found = (entry for entry in entries if not entry.name.startswith("."))
        # of a link, which may lead to itself, is_file would raise
        names = [each.name for each in found if (os.path.isfile(each) if each.is_symlink() else each.is_file())]
    return sorted(name for name in names if name.lower().endswith(suffixes))
