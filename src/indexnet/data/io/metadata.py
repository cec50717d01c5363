"""Image files without their metadata, for those whose pixels are whole and whose EXIF, profile or text is not."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_KEPT = (0xE0, 0xEE)  # APP0 (JFIF) and APP14 (Adobe): they say which colours the numbers mean
_WEBP_DROPPED = (b"ICCP", b"EXIF", b"XMP ")
_WEBP_FLAGS = 0x20 | 0x08 | 0x04  # in VP8X: that there are those chunks
_TIFF_KEPT = {262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 332, 338, 339, 347}  # pixels, orientation
_TIFF_KEPT.update(range(254, 260), range(320, 326), range(512, 522), range(529, 533))
_AVIF_EXIF = re.compile(rb"(infe\x02.{3}.{4})Exif", re.DOTALL)  # a file's list of items: one of the type Exif


def without_metadata(data: bytes) -> bytes | None:
    """Return an image file as it would be without metadata: PNG, JPEG, WebP, AVIF or TIFF.

    Returns:
        The file's content; None where the format is another, nothing is to be dropped, or the structure is damaged.
    """
    try:
        found = next((strip(data) for known, strip in _FORMATS if known(data)), None)
    except (struct.error, IndexError):  # the file ends too early
        return None
    return None if found == data else found


def _png(data: bytes) -> bytes:
    """Drop all chunks that a decoder may leave out (their names begin in lower case) but transparency."""
    return _PNG + b"".join(chunk for name, chunk in _png_chunks(data) if name[:1].isupper() or name == b"tRNS")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(_PNG)
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        yield name, data[place : place + 12 + length]
        place += 12 + length


def _jpeg(data: bytes) -> bytes:
    """Drop comments and all application segments but those that say which colours the numbers mean."""
    kept, place = [data[:2]], 2
    while data[place] == 0xFF and data[place + 1] != 0xDA:  # up to the start of the pixels
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or marker in _JPEG_KEPT:
            kept.append(data[place : place + 2 + length])
        place += 2 + length
    return b"".join(kept) + data[place:]


def _webp(data: bytes) -> bytes:
    kept, place = [], 12
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        chunk = data[place : place + 8 + length + length % 2]
        if name == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_FLAGS]) + chunk[9:]
        if name not in _WEBP_DROPPED:
            kept.append(chunk)
        place += 8 + length + length % 2
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _avif(data: bytes) -> bytes:
    """Call items of EXIF something else, which decoders pass over; what turns the picture stands in other boxes."""
    return _AVIF_EXIF.sub(rb"\1none", data)


def _tiff(data: bytes) -> bytes:
    """Keep the entries of the first page's directory that its pixels need, and no further page."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in _TIFF_KEPT]
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:start] + directory + data[start + len(directory) :]


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], bytes]], ...] = (
    (lambda data: data.startswith(_PNG), _png),
    (lambda data: data.startswith(b"\xff\xd8"), _jpeg),
    (lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", _webp),
    (lambda data: data[4:8] == b"ftyp", _avif),
    (lambda data: data.startswith((b"II*\0", b"MM\0*")), _tiff),
)
