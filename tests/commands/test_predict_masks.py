"""`indexnet predict` with masks, boxes and photographs whose files need a second look."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from commands_support import (
    photograph,
    read,
    save_image,
    trimap,
)
from indexnet.networks.checkpoint import load_network
from indexnet.networks.tiled.matting_protocol import infer_alpha, to_uint8
from predict_support import files_of, predict


def test_masks_cutouts_and_composites(matting, folder):
    pytest.importorskip("pymatting")
    for name, size in (("a", (40, 50)), ("b", (33, 64))):
        save_image(folder / "masks" / f"{name}.png", np.where(trimap(*size) == 255, np.uint8(255), np.uint8(0)))
    words = ["--masks", str(folder / "masks"), "--band", "5", "--cutout", "--background", "#3060ff"]
    assert predict(matting, folder, *words, trimaps=False) == 0
    out = folder / "out"
    assert files_of(out) == [
        "a.png", "b.png", "composite/a.png", "composite/b.png", "cutout/a.png", "cutout/b.png",
        "trimap/a.png", "trimap/b.png",
    ]  # fmt: skip
    known = read(out / "trimap" / "b.png")
    assert set(np.unique(known)) == {0, 128, 255}
    assert (known == 128).sum() == 33 * 10  # five columns on both sides of a straight edge
    network, _ = load_network(matting)
    image = read(folder / "images" / "b.png")
    assert np.array_equal(read(out / "b.png"), to_uint8(infer_alpha(network, image, known)))
    cut = read(out / "cutout" / "b.png")
    assert cut.shape == (33, 64, 4)
    assert np.abs(cut[..., 3].astype(int) - read(out / "b.png")).max() <= 1
    assert np.array_equal(cut[known == 255, :3], image[known == 255])
    composite = read(out / "composite" / "b.png")
    assert (composite[known == 0] == (0x30, 0x60, 0xFF)).all()
    assert np.array_equal(composite[known == 255], image[known == 255])
    # a trimap that was made is a good input of the next command
    assert predict(matting, folder, "--trimaps", str(out / "trimap"), "--overwrite", trimaps=False) == 0


def test_what_kept_results_lack_is_said(matting, folder, capsys):
    assert predict(matting, folder) == 0
    save_image(folder / "images" / "c.png", photograph(20, 20))
    save_image(folder / "trimaps" / "c.png", np.zeros((20, 20), np.uint8))
    assert predict(matting, folder, "--background", "white") == 3
    assert "some of these have no composite; --overwrite makes all anew" in capsys.readouterr().err
    assert files_of(folder / "out") == ["a.png", "b.png", "c.png", "composite/c.png"]


def test_masks_of_another_size(matting, folder, capsys):
    small = np.zeros((20, 25), np.uint8)  # half of the size of a
    small[5:15, 5:15] = 255
    save_image(folder / "masks" / "a.png", small)
    save_image(folder / "masks" / "b.png", small)  # of another shape
    assert predict(matting, folder, "--masks", str(folder / "masks"), trimaps=False) == 3
    err = capsys.readouterr().err
    assert "masks/a.png is 25x20 pixels and was brought to the size of its image, 50x40" in err
    assert "b.png is 64x33 pixels but its mask" in err
    assert "make a mask of the image's size" in err
    known = read(folder / "out" / "trimap" / "a.png")
    assert known[20, 20] == 255
    assert known[35, 45] == 0


def test_boxes(matting, folder, capsys):
    rng = np.random.default_rng(0)
    for name, ending in (("a", "jpg"), ("b", "png")):
        image = rng.integers(0, 30, (60, 80, 3), dtype=np.uint8)
        image[20:40, 30:60, 0] += np.uint8(200)
        save_image(folder / "images" / f"{name}.{ending}", image)
    listed = folder / "boxes.csv"
    listed.write_text("name,x0,y0,x1,y1\na.jpg,25,15,65,45\ncat.png,1,2,3,4\ndog.png,25,15,65,45\n")
    assert predict(matting, folder, "--boxes", str(listed), trimaps=False) == 3
    err = capsys.readouterr().err
    assert "has a box for cat.png, which is not in" in err
    assert "has a box for dog.png, which is not in" in err  # though it is that of a.jpg
    assert "has a box for a.jpg" not in err
    assert "b.png has no box; give a line b.png,x0,y0,x1,y1" in err
    known = read(folder / "out" / "trimap" / "a.png")
    assert (known[25:35, 35:55] == 255).all()
    assert (known[:10] == 0).all()
    assert (known[20, 30:60] == 128).all()
    one = ["--images", str(folder / "images" / "b.png"), "--box", "25,15,65,45"]
    assert predict(matting, folder, *one, trimaps=False) == 0
    assert (read(folder / "out" / "trimap" / "b.png")[25:35, 35:55] == 255).all()
    assert predict(matting, folder, *one, "--box", "90,0,99,9", "--overwrite", trimaps=False) == 2
    assert "b.png: the box 90,0,99,9 has no pixel of the image inside" in capsys.readouterr().err


def test_trimaps_that_leave_nothing_or_everything_open(matting, folder, capsys):
    known = np.where(trimap(40, 50) == 255, np.uint8(255), np.uint8(0))
    save_image(folder / "trimaps" / "a.png", known)
    save_image(folder / "trimaps" / "b.bmp", np.full((33, 64), 128, np.uint8))
    assert predict(matting, folder) == 0
    err = capsys.readouterr().err
    assert "a.png: the trimap has no unknown pixels" in err
    assert "b.bmp: every pixel of the trimap is unknown" in err
    assert np.array_equal(read(folder / "out" / "a.png"), known)
    assert len(np.unique(read(folder / "out" / "b.png"))) > 3


def test_a_trimap_that_marks_nothing(matting, folder, capsys):
    save_image(folder / "trimaps" / "a.png", np.zeros((40, 50), np.uint8))
    assert predict(matting, folder) == 0
    assert "a.png: the trimap has neither foreground (255) nor unknown" in capsys.readouterr().err
    save_image(folder / "trimaps" / "a.png", trimap(40, 50) // 128)  # labels 0 and 1
    assert predict(matting, folder, "--overwrite") == 3
    assert "a.png has no value above 1, which looks like labels" in capsys.readouterr().err


def test_formats_that_are_not_read_and_trimaps_of_nothing_are_named(matting, folder, capsys):
    for name in ("IMG_1.HEIC", "c.nef", "a.cr2"):  # a has a JPEG beside it
        (folder / "images" / name).write_bytes(b"x")
    for name in ("IMG_1", "old", "older"):
        save_image(folder / "trimaps" / f"{name}.png", trimap(9, 9))
    assert predict(matting, folder) == 3
    err = capsys.readouterr().err
    assert "IMG_1.HEIC is a HEIC picture; pip install 'indexnet[heic]' to have HEIC read, or save it as" in err
    assert "c.nef is not read, only .png, " in err
    assert "2 of 4" in err
    assert "a.cr2" not in err
    assert "trimaps without an image of that name in" in err
    assert ": 2 (old.png, older.png)" in err
    assert files_of(folder / "out") == ["a.png", "b.png"]
    one = ["--images", str(folder / "images" / "a.jpg"), "--overwrite"]
    assert predict(matting, folder, *one) == 0
    assert "without an image" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("orientation", "size", "noted", "said"),
    [(6, (40, 40), 1, True), (6, (40, 40), 6, False), (6, (40, 50), 1, False), (3, (40, 50), 1, True)],
)
def test_masks_whose_orientation_the_shape_does_not_tell(matting, tmp_path, capsys, orientation, size, noted, said):
    stored = size[::-1] if orientation == 6 else size
    exif = Image.Exif()
    exif[0x0112] = orientation
    save_image(tmp_path / "images" / "a.jpg", photograph(*stored), exif=exif)
    exif[0x0112] = noted
    save_image(tmp_path / "masks" / "a.png", trimap(*size), exif=exif)
    save_image(tmp_path / "images" / "b.jpg", photograph(*size))
    save_image(tmp_path / "masks" / "b.png", trimap(*size))
    for guide in ("mask", "trimap"):
        words = [f"--{guide}s", str(tmp_path / "masks"), "--overwrite"]
        assert predict(matting, tmp_path, *words, trimaps=False) == 0
        err = capsys.readouterr().err
        assert (f"a {guide} must be upright, as the picture is seen" in err) == said
        assert "b.jpg" not in err
