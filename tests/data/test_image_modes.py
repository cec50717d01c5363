"""Every mode and bit depth that a file can have, in every role: what is read of it, or that it is refused by name."""

from __future__ import annotations

import importlib
import io
import json
import os
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

import image_mutations
from image_mutations import KINDS, read_mutations
from indexnet.core.errors import UserError
from indexnet.data.depth import read_depth
from indexnet.data.io.decoding import HEIC_IS_READ, MAX_PIXELS, image_size, page_count
from indexnet.data.io.images import SUFFIXES, read_alpha, read_gray, read_image, read_mask, read_trimap
from indexnet.data.segmentation import read_labels

VALUES = np.array([[0, 128, 255], [255, 0, 128]], np.uint8)
NUMBERS = np.array([[0, 1, 2], [2, 0, 1]], np.uint8)
WIDE = np.where(VALUES == 128, 32768, VALUES.astype(np.uint16) * 257).astype(np.uint16)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 756 + [224, 224, 192]  # PASCAL's colours; 255 is the line around objects


MAGIC = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(bits: int, kind: int, rows: list[bytes], chunks: bytes = b"") -> bytes:
    """A PNG three pixels wide: Pillow writes none of 2 or 4 bits, and none with 16 bits and alpha."""
    header = chunk(b"IHDR", struct.pack(">2I5B", 3, len(rows), bits, kind, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return MAGIC + header + chunks + pixels + chunk(b"IEND", b"")


def tiff(bits: int, rows: list[bytes]) -> bytes:
    """A gray TIFF three pixels wide."""
    data = b"".join(rows)
    entries = [(256, 3), (257, len(rows)), (258, bits), (259, 1), (262, 1), (273, 8), (278, len(rows))]
    entries.append((279, len(data)))
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries)) + body + bytes(4)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def coded(array: np.ndarray, ending: str = ".png") -> bytes:
    return cv2.imencode(ending, array)[1].tobytes()


def palette(numbers: np.ndarray, colours: list[int], **options: object) -> bytes:
    image = Image.fromarray(numbers, "P")
    image.putpalette(colours)
    return saved(image, **options)


def layers(*channels: np.ndarray | int) -> Image.Image:
    return Image.fromarray(np.dstack([np.broadcast_to(np.uint8(channel), VALUES.shape) for channel in channels]))


GRAYS = [value for level in range(256) for value in (level, level, level)]
CUTOUT = layers(200, 7, 90, VALUES)
TWELVE = [bytes([0x00, 0x08, 0x00, 0xFF, 0xF0]), bytes([0xFF, 0xF0, 0x00, 0x80, 0x00])]  # 0 2048 4095, 4095 0 2048

FILES = {
    "gray 8": saved(Image.fromarray(VALUES)),
    "gray 16": coded(WIDE),
    "gray 16 little": saved(Image.fromarray(WIDE), "TIFF"),
    "gray 12": tiff(12, TWELVE),
    "gray 4 numbers": png(4, 0, [bytes([0x01, 0x20]), bytes([0x20, 0x10])]),
    "gray 2 numbers": png(2, 0, [bytes([0b00011000]), bytes([0b10000100])]),
    "gray 4 tiff": tiff(4, [bytes([0x01, 0x20]), bytes([0x20, 0x10])]),
    "gray 8 numbers": saved(Image.fromarray(NUMBERS)),
    "gray 16 numbers": coded(NUMBERS.astype(np.uint16)),
    "gray 8 around the middle": saved(Image.fromarray(VALUES // 2 + 63)),
    "gray 8 of 0 and 1": saved(Image.fromarray(NUMBERS // 2)),
    "gray 16 of 0 and 1": coded((NUMBERS // 2).astype(np.uint16)),
    "bilevel": saved(Image.fromarray(VALUES).convert("1", dither=0)),
    "gray and alpha": saved(layers(VALUES, 255)),
    "rgb gray": saved(layers(VALUES, VALUES, VALUES)),
    "rgb 16 gray": coded(np.dstack([WIDE] * 3)),
    "rgb colours": saved(layers(VALUES, 0, 0)),
    "rgba opaque": saved(layers(VALUES, VALUES, VALUES, 255)),
    "white silhouette": saved(layers(255, 255, 255, VALUES)),
    "premultiplied silhouette": saved(layers(VALUES, VALUES, VALUES, VALUES)),
    "black silhouette": saved(layers(0, 0, 0, VALUES)),
    "silhouette 16": png(16, 4, [row.astype(">u2").tobytes() for row in np.stack([WIDE | 65535, WIDE], 2)]),
    "cut-out": saved(CUTOUT),
    "cut-out webp": saved(CUTOUT, "WEBP", lossless=True, exact=True),
    "gray and holes": saved(layers(VALUES, VALUES, VALUES, np.where(VALUES == 0, 0, 255))),
    "gray and a clear value": saved(Image.fromarray(VALUES), transparency=0),
    "gray 16 and a clear value": png(16, 0, [row.astype(">u2").tobytes() for row in WIDE], chunk(b"tRNS", b"\0\0")),
    "clear": saved(layers(VALUES, VALUES, VALUES, 0)),
    "palette of grays": palette(VALUES, GRAYS),
    "palette of labels": palette(NUMBERS, VOC),
    "palette with void": palette(np.where(NUMBERS == 2, np.uint8(255), NUMBERS), VOC),
    "palette cut-out": palette(NUMBERS, [9, 200, 9, 200, 9, 9, 9, 9, 200], transparency=0),
    "palette picture": palette(NUMBERS, [9, 200, 9, 200, 9, 9, 9, 9, 200]),
    "gif": saved(Image.fromarray(VALUES), "GIF"),
    "bmp": saved(Image.fromarray(VALUES), "BMP"),
    "pgm": saved(Image.fromarray(VALUES), "PPM"),
    "pgm 16": saved(Image.fromarray(WIDE), "PPM"),
    "pgm white 2": b"P5 3 2 2\n" + NUMBERS.tobytes(),
    "pgm text": b"P2 3 2 255\n0 128 255 255 0 128\n",
    "jpeg gray": saved(Image.fromarray(np.full((8, 8), 255, np.uint8)), "JPEG"),
    "avif": saved(layers(VALUES, VALUES, VALUES), "AVIF", quality=100, subsampling="4:4:4"),
    "cmyk": saved(Image.fromarray(np.dstack([np.zeros((2, 3, 3), np.uint8), 255 - VALUES]), "CMYK"), "TIFF"),
    "lab": saved(Image.new("LAB", (3, 2)), "TIFF"),
    "float": saved(Image.fromarray(VALUES.astype(np.float32)), "TIFF"),
    "integers 32": saved(Image.fromarray(WIDE.astype(np.int32)), "TIFF"),
}  # fmt: skip

DRAWN = VALUES.tolist()
MASK = (VALUES >= 128).tolist()
LABELS = NUMBERS.tolist()
INK = (NUMBERS > 0).tolist()
STEPS = (NUMBERS * 85).tolist()
BLACK_AND_WHITE = (VALUES // 128 * 255).tolist()
COLOUR, FLOATS, TWO = "is a colour image", "floating-point", "both gray levels and"
CLEAR, SMALL = "transparent", "no value above 255.*8-bit PNG"
NO_DEPTH = "no depth map"
PNM = "PNM file as text, or with a white"

#: photograph (its green channel), mask, trimap, matte (times 255, rounded), label map, depth map; text: a refusal.
TABLE = {
    "gray 8": (DRAWN, MASK, DRAWN, DRAWN, DRAWN, DRAWN),
    "gray 16": (DRAWN, MASK, DRAWN, DRAWN, "label 65535", WIDE.tolist()),
    "gray 16 little": (DRAWN, MASK, DRAWN, DRAWN, "label 65535", WIDE.tolist()),
    "gray 12": (DRAWN, MASK, DRAWN, DRAWN, "label 4095", [[0, 2048, 4095], [4095, 0, 2048]]),
    "gray 4 numbers": ((NUMBERS * 17).tolist(), None, None, None, LABELS, LABELS),
    "gray 2 numbers": (STEPS, None, None, None, LABELS, LABELS),
    "gray 4 tiff": ((NUMBERS * 17).tolist(), None, None, None, LABELS, LABELS),
    "gray 8 numbers": (LABELS, None, "with the values 1, 2", None, LABELS, LABELS),
    "gray 16 numbers": (SMALL, SMALL, SMALL, SMALL, LABELS, LABELS),
    "gray 8 around the middle": (None, (VALUES == 255).tolist(), "the values 63, 127, 190", None, None, None),
    "gray 8 of 0 and 1": (None, (NUMBERS == 2).tolist(), "with the values 1", "only the values 0 and 1", None, None),
    "gray 16 of 0 and 1": (SMALL, (NUMBERS == 2).tolist(), SMALL, SMALL, (NUMBERS // 2).tolist(), None),
    "bilevel": (BLACK_AND_WHITE, MASK, BLACK_AND_WHITE, None, (VALUES // 128).tolist(), NO_DEPTH),
    "gray and alpha": (DRAWN, MASK, DRAWN, DRAWN, COLOUR, NO_DEPTH),
    "rgb gray": (DRAWN, MASK, DRAWN, DRAWN, COLOUR, NO_DEPTH),
    "rgb 16 gray": (DRAWN, MASK, DRAWN, DRAWN, COLOUR, NO_DEPTH),
    "rgb colours": (None, COLOUR, COLOUR, COLOUR, COLOUR, NO_DEPTH),
    "rgba opaque": (DRAWN, MASK, DRAWN, DRAWN, COLOUR, NO_DEPTH),
    "white silhouette": ([[255] * 3] * 2, MASK, CLEAR, DRAWN, COLOUR, NO_DEPTH),
    "premultiplied silhouette": (DRAWN, MASK, CLEAR, DRAWN, COLOUR, NO_DEPTH),
    "black silhouette": ([[0] * 3] * 2, MASK, CLEAR, DRAWN, COLOUR, NO_DEPTH),
    "silhouette 16": ([[255] * 3] * 2, MASK, CLEAR, DRAWN, COLOUR, NO_DEPTH),
    "cut-out": ([[7] * 3] * 2, MASK, CLEAR, DRAWN, COLOUR, NO_DEPTH),
    "cut-out webp": ([[7] * 3] * 2, MASK, CLEAR, DRAWN, COLOUR, NO_DEPTH),
    "gray and holes": (DRAWN, INK, CLEAR, TWO, COLOUR, NO_DEPTH),
    "gray and a clear value": (DRAWN, INK, CLEAR, TWO, DRAWN, DRAWN),
    "gray 16 and a clear value": (DRAWN, INK, CLEAR, TWO, "label 65535", WIDE.tolist()),
    "clear": (DRAWN, CLEAR, CLEAR, CLEAR, COLOUR, NO_DEPTH),
    "palette of grays": (DRAWN, MASK, DRAWN, DRAWN, DRAWN, NO_DEPTH),
    "palette of labels": (None, INK, COLOUR, COLOUR, LABELS, NO_DEPTH),
    "palette with void": (None, (NUMBERS == 1).tolist(), COLOUR, COLOUR, None, NO_DEPTH),
    "palette cut-out": (None, INK, CLEAR, (NUMBERS.clip(0, 1) * 255).tolist(), LABELS, NO_DEPTH),
    "palette picture": ([[200, 9, 9], [9, 200, 9]], COLOUR, COLOUR, COLOUR, LABELS, NO_DEPTH),
    "gif": (DRAWN, MASK, DRAWN, DRAWN, None, None),
    "bmp": (DRAWN, MASK, DRAWN, DRAWN, DRAWN, DRAWN),
    "pgm": (DRAWN, MASK, DRAWN, DRAWN, DRAWN, DRAWN),
    "pgm 16": (DRAWN, MASK, DRAWN, DRAWN, "label 65535", WIDE.tolist()),
    "pgm white 2": (PNM, PNM, PNM, PNM, PNM, PNM),
    "pgm text": (PNM, PNM, PNM, PNM, PNM, PNM),
    "jpeg gray": ([[255] * 8] * 8, None, None, None, "is a JPEG", "is a JPEG"),
    "avif": (DRAWN, MASK, DRAWN, DRAWN, COLOUR, NO_DEPTH),
    "cmyk": (DRAWN, MASK, DRAWN, DRAWN, COLOUR, NO_DEPTH),
    "lab": (None, None, None, None, COLOUR, NO_DEPTH),
    "float": (FLOATS, FLOATS, FLOATS, FLOATS, COLOUR, NO_DEPTH),
    "integers 32": (DRAWN, MASK, DRAWN, DRAWN, "label 65535", WIDE.tolist()),
}
READERS = {
    "photograph": lambda path: read_image(path)[..., 1],
    "mask": read_mask,
    "trimap": lambda path: read_trimap(path, strict=True)[0],
    "matte": lambda path: np.rint(read_alpha(path) * 255),
    "label map": read_labels,
    "depth": read_depth,
}


@pytest.mark.parametrize("kind", FILES)
def test_each_kind_of_file_in_each_role(tmp_path, kind):
    path = tmp_path / "some file"
    path.write_bytes(FILES[kind])
    for (role, read), wanted in zip(READERS.items(), TABLE[kind], strict=True):
        if wanted is None:
            continue
        if isinstance(wanted, str):
            with pytest.raises(UserError, match=rf"some file .*{wanted}"):
                read(path)
        else:
            assert np.array_equal(read(path), wanted), (role, read(path))
    if isinstance(TABLE[kind][0], list):
        assert read_gray(path).shape == np.shape(TABLE[kind][0])
        assert read_image(path).flags.writeable


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def without_ending(data: bytes, name: bytes, more: int) -> bytes:
    """A RIFF file whose last chunk says that it is longer than the file."""
    at = data.index(name) + 4
    return data[:at] + struct.pack("<I", struct.unpack_from("<I", data, at)[0] + more) + data[at + 4 :]


def in_png(*chunks: bytes) -> bytes:
    data = saved(Image.fromarray(PIXELS))
    return data[:33] + b"".join(chunks) + data[33:]


def in_jpeg(marker: int, content: bytes) -> bytes:
    data = saved(Image.fromarray(PIXELS), "JPEG")
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


def places_of_entries(data: bytes, start: int) -> range:
    """Where the entries of the directory of a TIFF lie."""
    return range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12)


def in_tiff(tag: int, kind: int, value: int) -> bytes:
    """A TIFF with one entry more in its directory, which stands at the end."""
    data = saved(Image.fromarray(PIXELS), "TIFF", tiffinfo={tag: 1} if tag == 274 else {65000: "x"})
    start = struct.unpack_from("<I", data, 4)[0]
    entries = [data[at : at + 12] for at in places_of_entries(data, start)]
    kept = [entry for entry in entries if struct.unpack_from("<H", entry)[0] not in (tag, 65000)]
    kept.append(struct.pack("<HHII", tag, kind, 1, value))
    body = struct.pack("<H", len(kept)) + b"".join(sorted(kept, key=lambda entry: struct.unpack_from("<H", entry)[0]))
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + body + bytes(4)


def avif() -> bytes:
    """A picture whose EXIF does not begin as EXIF does."""
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    data = saved(Image.fromarray(PIXELS), "AVIF", exif=exif)
    assert (b"MM\0*" in data) != (b"II*\0" in data)
    return data.replace(b"MM\0*", b"????").replace(b"II*\0", b"????")


WHOLE = {
    "webp, exif": (saved(Image.fromarray(PIXELS), "WEBP", lossless=True, exif=b"Exif\0\0nonsense"), True),
    "webp, xmp": (saved(Image.fromarray(PIXELS), "WEBP", lossless=True, xmp=b"\xff tiff:Orientation=7"), False),
    "webp, exif cut off": (
        without_ending(saved(Image.fromarray(PIXELS), "WEBP", lossless=True, exif=b"Exif\0\0II*\0"), b"EXIF", 40),
        True,
    ),
    "png, exif": (saved(Image.fromarray(PIXELS), exif=b"nonsense"), True),
    "png, exif as text": (in_png(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n8\nzz")), True),
    "png, checksum of a text": (in_png(chunk(b"tEXt", b"a\0b")[:-1] + b"!"), True),
    "png, text that grows": (in_png(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3 * 2**20)))), True),
    "png, profile": (in_png(chunk(b"iCCP", b"a\0\x07nonsense")), True),
    "png, profile that grows": (in_png(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(3 * 2**20)))), True),
    "jpeg, exif": (in_jpeg(0xE1, b"Exif\0\0nonsense"), True),
    "jpeg, exif and xmp": (in_jpeg(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe"), False),
    "jpeg, profile": (in_jpeg(0xE2, b"ICC_PROFILE\0"), True),
    "jpeg, previews": (in_jpeg(0xE2, b"MPF\0nonsense"), False),
    "jpeg, photoshop": (in_jpeg(0xED, b"Photoshop 3.0\x008BIM\0"), None),
    "tiff, exif beyond the end": (in_tiff(34665, 4, 10**9), None),
    "tiff, exif of another type": (in_tiff(34665, 2, 7), None),
    "tiff, profile as a number": (in_tiff(34675, 3, 7), None),
    "tiff, xmp as a number": (in_tiff(700, 4, 7), None),
    "tiff, orientation as text": (in_tiff(274, 2, 0x36), None),
    "avif, exif": (avif(), True),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_damaged_metadata_is_no_reason_to_refuse_whole_pixels(tmp_path, kind):
    """Where an orientation may have been lost, that is said."""
    data, said = WHOLE[kind]
    path, clean = tmp_path / "some file", tmp_path / "clean"
    path.write_bytes(data)
    clean.write_bytes(
        saved(Image.fromarray(PIXELS), {"jpeg": "JPEG", "avif": "AVIF"}.get(kind.partition(",")[0], "PNG"))
    )
    remarks: list[str] = []
    assert np.array_equal(read_image(path, srgb=True, remarks=remarks), read_image(clean))
    assert image_size(path) == PIXELS.shape[:2]
    if said is not None:
        assert any("some file: what it says of its orientation" in remark for remark in remarks) == said


def test_a_profile_that_cannot_be_used_is_said(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "p.png", icc_profile=b"nonsense")
    remarks: list[str] = []
    assert np.array_equal(read_image(tmp_path / "p.png", srgb=True, remarks=remarks), PIXELS)
    assert remarks == [f"{tmp_path / 'p.png'}: its colour profile cannot be used; its colours were taken for sRGB."]


def test_transparent_pixels_of_photographs_are_said(tmp_path):
    (tmp_path / "a.png").write_bytes(FILES["cut-out"])
    (tmp_path / "b.png").write_bytes(FILES["rgba opaque"])
    remarks: list[str] = []
    read_image(tmp_path / "a.png", remarks=remarks)
    read_image(tmp_path / "b.png", remarks=remarks)
    assert [remark.partition("; ")[0] for remark in remarks] == [f"{tmp_path / 'a.png'} has transparent pixels"]


@pytest.mark.parametrize("ending", [suffix for suffix in SUFFIXES if suffix not in (".heic", ".heif")])
def test_files_of_each_ending_are_read(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    Image.new("RGB", (8, 6), (255, 255, 255)).convert("1" if ending == ".pbm" else "RGB").save(path)
    assert read_image(path).tolist() == [[[255] * 3] * 8] * 6


def test_heic_is_read_with_the_extra_and_its_absence_is_said(tmp_path):
    path = tmp_path / "IMG_1.HEIC"
    if HEIC_IS_READ:
        importlib.import_module("pillow_heif").register_heif_opener()
        Image.fromarray(PIXELS.repeat(8, 0).repeat(8, 1)).save(path, format="HEIF", quality=100)
        assert read_image(path).shape == (48, 64, 3)
        assert ".heic" in SUFFIXES
    else:
        path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
        with pytest.raises(UserError, match=r"IMG_1\.HEIC is a HEIC picture; pip install 'indexnet\[heic\]' to"):
            read_image(path)


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png is a device or a pipe; an image file was expected"):
        read_image(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="cannot be read as an image"):
        read_image(tmp_path / ("a" * 300))


def test_a_damaged_second_page_leaves_the_first(tmp_path):
    first = Image.fromarray(PIXELS)
    data = bytearray(saved(first, "TIFF", save_all=True, append_images=[first]))
    start = struct.unpack_from("<I", data, 4)[0]
    second = struct.unpack_from("<I", data, places_of_entries(data, start).stop)[0]
    for entry in places_of_entries(data, second):
        if struct.unpack_from("<H", data, entry)[0] in (256, 257):  # no width, no height
            struct.pack_into("<H", data, entry, 65000)
    (tmp_path / "b.tif").write_bytes(data)
    remarks: list[str] = []
    assert page_count(tmp_path / "b.tif") is None
    assert np.array_equal(read_image(tmp_path / "b.tif", remarks=remarks), PIXELS)
    assert remarks == [f"{tmp_path / 'b.tif'} has more pages or frames, which are damaged; the first was taken."]
    start_of_first = bytes(data).replace(struct.pack("<HH", 256, 4), struct.pack("<HH", 65000, 4))
    (tmp_path / "none.tif").write_bytes(start_of_first)
    with pytest.raises(UserError, match=r"none\.tif cannot be read as an image"):
        read_image(tmp_path / "none.tif")


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_read_or_refused_by_name(tmp_path, kind):
    assert read_mutations(kind, 24, tmp_path).total() == 24


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_mutated_files_are_read_or_refused_by_name(tmp_path, kind):
    """Each within ten seconds, or the process is killed, and without more memory than the largest image takes."""
    command = [sys.executable, image_mutations.__file__, kind, "1000", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=520, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print(kind, done.stdout)
    assert json.loads(done.stdout)["peak bytes"] < 2**29 + MAX_PIXELS * 7  # four in Pillow, three here


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_files_are_refused_by_their_header(tmp_path):
    for name, side in (("huge.png", 20000), ("large.png", 10000)):  # which end there
        header = chunk(b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0))
        (tmp_path / name).write_bytes(MAGIC + header + struct.pack(">I", 1000) + b"IDAT")
    with pytest.raises(UserError, match=r"huge\.png has more than 178 megapixels"):
        read_image(tmp_path / "huge.png")
    assert page_count(tmp_path / "large.png") == 1  # no reason for a refusal
    assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
