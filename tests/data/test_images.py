from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from indexnet.core.errors import UserError
from indexnet.data.io.decoding import camera_orientation, image_size, page_count
from indexnet.data.io.images import (
    image_names,
    list_images,
    list_unread,
    read_alpha,
    read_gray,
    read_image,
    read_matte,
    read_trimap,
    read_values,
    write_png,
)
from indexnet.data.io.trimaps import quantise

TRIMAP = np.array([[0, 128, 255, 128], [255, 0, 128, 0], [0, 0, 255, 255]], np.uint8)


def save(path, array):
    Image.fromarray(array).save(path)
    return path


def test_a_link_to_itself_is_no_image(tmp_path):
    save(tmp_path / "a.png", TRIMAP)
    (tmp_path / "b.png").symlink_to("b.png")
    (tmp_path / "c.png").symlink_to("a.png")
    assert image_names(tmp_path) == ["a.png", "c.png"]


def test_the_size_of_a_png_is_told_without_its_pixels(tmp_path, monkeypatch):
    path = tmp_path / "e.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (7, 5)).save(path, exif=exif)
    content = path.read_bytes()
    at = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[at : at + 4], "big")
    late = content[:at] + content[at + length : -12] + content[at : at + length] + content[-12:]
    path.write_bytes(late)  # the note stands behind the pixels
    assert (camera_orientation(path), image_size(path)) == (6, (7, 5))
    Image.new("L", (7, 5)).save(path)
    decoded = []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: decoded.append(self))
    assert (camera_orientation(path), image_size(path), decoded) == (1, (5, 7), [])


def test_orientation_of_cameras_is_applied(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter clockwise to see it upright
    Image.fromarray(picture).save(tmp_path / "e.png", exif=exif)
    upright = read_image(tmp_path / "e.png")
    assert camera_orientation(tmp_path / "e.png") == 6
    assert camera_orientation(save(tmp_path / "plain.png", picture)) == 1
    assert upright.shape == (6, 4, 3)
    assert image_size(tmp_path / "e.png") == read_gray(tmp_path / "e.png").shape == (6, 4)
    assert (upright[0, 3] == 255).all()
    assert (read_values(tmp_path / "e.png")[1] == upright).all()  # maps turn as photographs do


def test_gray_of_a_photograph_is_its_luma(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    assert np.abs(read_gray(save(tmp_path / "c.png", colour)) - colour @ [0.299, 0.587, 0.114]).max() < 1


def test_sixteen_bits(tmp_path):
    wide = np.array([[0, 32768, 65535, 300]], np.uint16)
    path = save(tmp_path / "w.png", wide)
    assert read_alpha(path)[0] == pytest.approx(wide[0] / 65535, abs=1e-7)
    assert np.array_equal(read_matte(path), quantise(read_alpha(path)))
    assert read_image(path)[0, :, 0].tolist() == [0, 128, 255, 1]
    for unknown in (32768, 128 * 257):
        trimap, touched = read_trimap(save(tmp_path / "t.png", np.array([[0, unknown]], np.uint16)), strict=True)
        assert (trimap.tolist(), touched) == ([[0, 128]], 0)
    with pytest.raises(UserError, match="32800"):
        read_trimap(save(tmp_path / "y.png", np.array([[0, 32800]], np.uint16)), strict=True)


def test_strict_trimap_names_file_values_and_remedy(tmp_path):
    assert (read_trimap(save(tmp_path / "ok.png", TRIMAP), strict=True)[0] == TRIMAP).all()
    path = save(tmp_path / "bad.png", np.where(TRIMAP == 128, np.uint8(127), TRIMAP))
    with pytest.raises(UserError, match=r"bad\.png has 3 pixels with the values 127;.*Set unknown pixels to 128"):
        read_trimap(path, strict=True)


def test_lenient_trimap_snaps_and_counts(tmp_path):
    values = np.array([[0, 1, 20, 21, 127, 128, 129, 234, 235, 254, 255]], np.uint8)
    trimap, touched = read_trimap(save(tmp_path / "l.png", values), strict=False)
    assert trimap.tolist() == [[0, 0, 0, 128, 128, 128, 128, 128, 255, 255, 255]]
    assert touched == 8


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 1, 1], [0, 20, 20]])
def test_labels_are_not_taken_for_a_black_trimap(tmp_path, labels):
    path = save(tmp_path / "l.png", np.array([labels], np.uint8))
    words = rf"l\.png has no value above {max(labels)}, which looks like labels; write 0 .* 128 .* 255"
    with pytest.raises(UserError, match=words):
        read_trimap(path, strict=False)
    for values in ([[0, 0, 0]], [[0, 1, 21]]):  # empty, and gray
        assert read_trimap(save(tmp_path / "g.png", np.array(values, np.uint8)), strict=False)[0].shape == (1, 3)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "broken.png"
    if content is None:  # cut in half
        whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
        content = whole.read_bytes()[:2000]
    path.write_bytes(content)
    for read in (read_image, read_alpha, read_matte, lambda p: read_trimap(p, strict=False)):
        with pytest.raises(UserError, match=r"broken\.png cannot be read as an image"):
            read(path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.png does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UserError, match="is a folder"):
        read_image(tmp_path)


def test_list_images(tmp_path):
    for name in ("b.png", "A.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["A.JPG", "b.png"]
    with pytest.raises(UserError, match="holds no image"):
        list_images(tmp_path / "folder.png")
    for name in ("c.HEIC", "b.cr2", ".x.heic"):  # b has a picture beside it
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in list_unread(tmp_path)] == ["c.HEIC"]
    (tmp_path / "folder.png" / "d.nef").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds no image but d\.nef; files ending in \.png, .* are read"):
        list_images(tmp_path / "folder.png")
    with pytest.raises(UserError, match="does not exist"):
        list_images(tmp_path / "missing")
    with pytest.raises(UserError, match="is not a folder"):
        list_images(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("dtype", "shape"), [(np.uint8, (4, 5)), (np.uint16, (4, 5)), (np.uint8, (4, 5, 3)), (np.uint8, (4, 5, 4))]
)
def test_write_png_and_its_refusals(tmp_path, dtype, shape):
    path = tmp_path / "new" / "a.png"
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    write_png(path, array)
    assert (np.asarray(Image.open(path)) == array).all()
    before = path.read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        write_png(path, array // 2)
    assert path.read_bytes() == before
    write_png(path, array // 2, overwrite=True)
    assert (np.asarray(Image.open(path)) == array // 2).all()
    with pytest.raises(TypeError):
        write_png(tmp_path / "f.png", array.astype(np.float32))


def cmyk_profile():
    """An ICC profile of print colours: a table with the Lab colour of each corner of CMYK, red where there is cyan."""
    corners = np.zeros((2, 2, 2, 2, 3), np.uint8)
    corners[...] = (255, 128, 128)  # white paper
    corners[1, ..., :] = (136, 208, 195)  # cyan ink prints red here, so that nobody takes it for the plain formula
    corners[..., 1, :] = (0, 128, 128)  # black
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += b"".join(struct.pack(">i", 65536 if i % 4 == 0 else 0) for i in range(9))
    table += bytes(range(256)) * 4 + corners.tobytes() + bytes(range(256)) * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"Test\0" + bytes(78)
    body, tags = b"", b""
    start = 128 + 4 + 12 * 3
    for name, content in ((b"A2B0", table), (b"wtpt", white), (b"desc", text)):
        body += bytes(-len(body) % 4)
        tags += name + struct.pack(">2I", start + len(body), len(content))
        body += content
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 3) + tags + body


def test_cmyk_is_converted_by_its_profile(tmp_path):
    ink = np.zeros((4, 4, 4), np.uint8)
    ink[0, :, 0] = 255  # cyan
    ink[1, :, 3] = 255  # black
    picture = Image.fromarray(ink, "CMYK")
    picture.save(tmp_path / "plain.tif")
    assert read_image(tmp_path / "plain.tif")[0, 0].tolist() == [0, 255, 255]
    picture.save(tmp_path / "profile.tif", icc_profile=cmyk_profile())
    found = read_image(tmp_path / "profile.tif")
    assert found[0, 0, 0] > 200
    assert found[0, 0, 1:].max() < 60  # red, as its profile says
    assert found[1, 0].max() < 10
    assert found[2, 0].min() > 245
    picture.save(tmp_path / "damaged.tif", icc_profile=b"no profile")
    assert read_image(tmp_path / "damaged.tif")[0, 0].tolist() == [0, 255, 255]


def test_colours_of_other_spaces_become_srgb_where_asked(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(rgb).save(tmp_path / "s.png", icc_profile=srgb)
    assert (read_image(tmp_path / "s.png", srgb=True) == rgb).all()
    swapped = srgb.replace(b"rXYZ", b"tmpX", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"tmpX", b"bXYZ", 1)
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "BGRs".encode("utf-16-be")).replace(b"sRGB", b"BGRs")
    Image.fromarray(rgb).save(tmp_path / "w.png", icc_profile=swapped)
    assert (read_image(tmp_path / "w.png") == rgb).all()  # data sets take values as they are
    assert np.abs(read_image(tmp_path / "w.png", srgb=True).astype(int) - rgb[..., ::-1]).max() <= 2


def test_colour_of_sixteen_bits_is_scaled(tmp_path):
    wide = np.array([[[0, 32768, 65535], [257, 600, 40000]]], np.uint16)
    for name in ("w.png", "w.tif"):
        assert cv2.imwrite(str(tmp_path / name), wide[..., ::-1])
        assert np.abs(read_image(tmp_path / name) - wide / 257).max() <= 1
    alpha = np.dstack([wide, np.full((1, 2), 65535, np.uint16)])
    cv2.imwrite(str(tmp_path / "a.png"), alpha)
    assert read_image(tmp_path / "a.png").shape == (1, 2, 3)


def test_of_several_pages_the_first_is_read(tmp_path):
    first, second = (Image.fromarray(np.full((4, 5, 3), value, np.uint8)) for value in (10, 200))
    first.save(tmp_path / "p.tif", save_all=True, append_images=[second])
    first.save(tmp_path / "p.webp", save_all=True, append_images=[second], lossless=True)
    first.save(tmp_path / "p.png", save_all=True, append_images=[second])
    for name in ("p.tif", "p.webp", "p.png"):
        assert page_count(tmp_path / name) == 2
        assert (read_image(tmp_path / name) == 10).all()
    first.save(tmp_path / "one.png")
    assert page_count(tmp_path / "one.png") == 1
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    assert page_count(tmp_path / "phone.jpg") == 1  # a preview is no page
    with pytest.raises(UserError, match=r"none\.png does not exist"):
        page_count(tmp_path / "none.png")
