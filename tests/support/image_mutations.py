"""Damaged image files: valid ones of each format with some bytes changed, and reading them in every role.

As a program: ``python image_mutations.py FORMAT COUNT FOLDER`` reads COUNT of them, and is killed where one takes
ten seconds.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from indexnet.core.errors import UserError
from indexnet.data.io.decoding import camera_orientation, image_size, page_count
from indexnet.data.io.images import read_alpha, read_gray, read_image, read_mask, read_trimap, read_values

#: Pillow's names of formats, with a mode and options of each picture that is damaged.
KINDS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "PNG": [("RGB", {}), ("P", {}), ("LA", {}), ("I;16", {}), ("RGB", {"exif": True, "icc_profile": b"x" * 200})],
    "JPEG": [("RGB", {}), ("L", {"progressive": True}), ("CMYK", {}), ("RGB", {"exif": True, "icc_profile": b"x"})],
    "MPO": [("RGB", {"save_all": True})],
    "TIFF": [
        ("RGB", {}),
        ("L", {"compression": "tiff_lzw"}),
        ("I;16", {"compression": "tiff_adobe_deflate"}),
        ("RGB", {"compression": "jpeg"}),
        ("RGBA", {"save_all": True}),
        ("1", {"compression": "group4"}),
        ("RGB", {"exif": True}),
    ],
    "WEBP": [("RGB", {}), ("RGBA", {"lossless": True}), ("RGB", {"save_all": True}), ("RGB", {"exif": True})],
    "BMP": [("RGB", {}), ("P", {}), ("1", {})],
    "GIF": [("P", {}), ("L", {}), ("P", {"save_all": True})],
    "AVIF": [("RGB", {}), ("RGBA", {}), ("RGB", {"exif": True}), ("RGB", {"save_all": True})],
    "PPM": [("RGB", {}), ("L", {}), ("1", {}), ("I;16", {})],
}

READERS: tuple[Callable[[Path], object], ...] = (
    lambda path: read_image(path, srgb=True, remarks=[]),
    read_gray,
    read_mask,
    lambda path: read_trimap(path, strict=False),
    read_alpha,
    read_values,
    image_size,
    camera_orientation,
    page_count,
)


def originals(kind: str) -> list[bytes]:
    """Valid files of a format."""
    y, x = np.mgrid[:24, :32]
    picture = np.dstack([x * 8, y * 10, (x + y) * 4]).astype(np.uint8)
    found = []
    for mode, options in KINDS[kind]:
        wide = mode == "I;16"
        image = Image.fromarray((picture[..., 0] * np.uint16(257)) if wide else picture)
        image = image if wide else image.convert(mode)
        if options.get("save_all"):
            options = options | {"append_images": [image.transpose(Image.Transpose.ROTATE_180)]}
        if options.get("exif"):
            exif = Image.Exif()
            exif[0x0112], exif[0x010E] = 6, "a picture"
            options = options | {"exif": exif}
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a file: some bytes, half of the time near its start; a piece cut out, doubled or moved; or its end."""
    changed = bytearray(data)
    reach = min(len(data), 200) if rng.random() < 0.5 else len(data)
    for _ in range(int(rng.integers(1, 5))):
        at, length = int(rng.integers(reach)), int(rng.integers(1, 9))
        match int(rng.integers(6)):
            case 0 | 1:
                changed[at : at + 1] = rng.bytes(1)
            case 2:
                changed[at : at + length] = rng.choice([b"\0", b"\xff", b"\x7f"]) * length
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + 4 * length]
            case 5 if rng.random() < 0.2:
                del changed[max(8, at) :]
            case _:
                changed[at : at + 1] = bytes([changed[at] ^ (1 << int(rng.integers(8)))]) if at < len(changed) else b""
        reach = max(1, min(reach, len(changed)))
    return bytes(changed)


def read_mutations(kind: str, count: int, folder: Path, watched: bool = False) -> Counter[str]:
    """Read damaged files of a format in all roles.

    Args:
        kind: of :data:`KINDS`.
        count: how many.
        folder: for the files.
        watched: whether a file that takes ten seconds kills the process.

    Returns:
        How many were ``read`` as photographs, or ``refused`` by a sentence that names the file.

    Raises:
        Exception: a reader raised something else than a UserError that names the file, which is left in ``folder``.
    """
    rng, files, found = np.random.default_rng(0), originals(kind), Counter[str]()
    for number in range(count):
        path = folder / f"{number}.png"
        path.write_bytes(mutated(files[number % len(files)], rng))
        if watched:
            signal.alarm(10)
        for place, read in enumerate(READERS):
            outcome = "read"
            try:
                read(path)
            except UserError as error:
                if str(path) not in str(error):
                    raise
                outcome = "refused"
            if place == 0:
                found[outcome] += 1
        path.unlink()
    signal.alarm(0)
    return found


if __name__ == "__main__":
    outcomes = read_mutations(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), watched=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps(dict(outcomes) | {"peak bytes": peak}) + "\n")
