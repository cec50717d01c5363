"""``indexnet data check``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_support import (
    MATTING_OPTIONS,
    MATTING_WRITERS,
    WRITERS,
    write_camvid,
    write_composition1k,
    write_h5,
    write_nyuv2,
    write_train400,
)
from indexnet.cli import main
from indexnet.commands.data import read_options
from indexnet.data import list_data
from indexnet.data.io.images import write_png


def table(text):
    """The rows of the printed table, as lists of words."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if "──" in line) + 1
    rows = [line.split() for line in lines[first:]]
    return rows[: rows.index([])]


@pytest.mark.parametrize("name", sorted(WRITERS | MATTING_WRITERS))
def test_sets_that_are_as_they_should_be(name, tmp_path, capsys):
    (WRITERS | MATTING_WRITERS)[name](tmp_path)
    options = MATTING_OPTIONS.get(name, {"size": 12} if name in ("train400", "denoising_folder") else {})
    assert main(["data", "check", name, f"root={tmp_path}", *(f"{key}={value}" for key, value in options.items())]) == 0
    captured = capsys.readouterr()
    assert "all files are as they should be" in captured.out
    assert captured.out.startswith(f"{name}: ")
    assert captured.err == ""


def test_counts_sizes_and_memory(tmp_path, capsys):
    write_train400(tmp_path)
    assert main(["data", "check", "train400", f"root={tmp_path}", "size=12", "scales=[1.0]"]) == 0
    rows = table(capsys.readouterr().out)
    assert [row[:3] for row in rows] == [
        ["denoising", "train", "6"],  # patches
        ["denoising", "test", "bsd68"],  # reconstruction reads the same files
        ["denoising", "test", "set12"],
    ]
    assert rows[0][3:] == ["3", "20x24", "1.4", "kB", "none"]
    assert rows[1][3:] == ["2", "2", "23x24,", "23x25", "1.1", "kB", "none"]


def test_every_task_of_a_set_is_checked(tmp_path, capsys):
    write_nyuv2(tmp_path)
    assert main(["data", "check", "nyuv2", f"data.root={tmp_path}"]) == 0
    rows = table(capsys.readouterr().out)
    assert [row[:3] for row in rows] == [
        ["depth", "train", "3"],
        ["depth", "test", "2"],
        ["segmentation", "train", "3"],
        ["segmentation", "test", "2"],
    ]
    (tmp_path / "nyu_labels40/0.png").write_bytes(b"no image")
    assert main(["data", "check", "nyuv2", f"root={tmp_path}", "task=depth"]) == 0
    assert main(["data", "check", "nyuv2", f"root={tmp_path}"]) == 2
    assert "nyu_labels40/0.png cannot be read as an image" in capsys.readouterr().out


def test_problems_are_listed_and_counted(tmp_path, capsys):
    for k in range(25):
        write_h5(tmp_path / f"val/official/{k:05d}.h5", rgb=None if k < 23 else np.zeros((3, 48, 64), np.uint8))
    write_h5(tmp_path / "train/cafe/00001.h5")
    write_h5(tmp_path / "train/cafe/00002.h5")
    assert main(["data", "check", "nyuv2_h5", f"root={tmp_path}"]) == 2
    out = capsys.readouterr().out
    problems = [line for line in out.splitlines() if "has no 'rgb'; there is: depth" in line]
    assert [line.split(".h5")[0][-5:] for line in problems] == [f"{k:05d}" for k in range(20)]  # in order
    assert "... and 3 more." in out
    assert "23 problems, found in" in out
    assert [row[1:] for row in table(out)] == [
        ["train", "1", "1", "64x48", "21.5", "kB", "none"],
        ["validation", "1", "1", "64x48", "21.5", "kB", "none"],
        ["test", "25", "25", "64x48", "43.0", "kB", "23"],
    ]


def test_missing_files_are_one_problem_each(tmp_path, capsys):
    assert main(["data", "check", "nyuv2", f"root={tmp_path / 'nowhere'}"]) == 2
    out = capsys.readouterr().out
    assert "2 problems" in out  # one a split, whatever the tasks
    assert f"{tmp_path / 'nowhere' / 'train.txt'} does not exist" in out
    assert "expected files: ROOT/nyu_images/0.jpg ..." in out
    write_camvid(tmp_path)
    (tmp_path / "valannot/val_1.png").unlink()
    assert main(["data", "check", "camvid", f"root={tmp_path}"]) == 2
    out = capsys.readouterr().out
    assert "valannot/val_1.png is missing" in out
    assert "1 problem, found" in out
    assert len(table(out)) == 3  # the other splits are checked all the same
    assert "expected files" not in out


def test_sets_without_files_and_without_training(tmp_path, capsys):
    assert main(["data", "check", "scenes"]) == 0
    assert capsys.readouterr().out == "scenes makes its samples itself: nothing to check.\n"
    for folder in ("input", "gt", "trimap"):
        sub = "/Trimap1" if folder == "trimap" else ""
        shape = (20, 24, 3) if folder == "input" else (20, 24)
        write_png(tmp_path / f"{folder}_training_lowres{sub}/GT01.png", np.full(shape, 128, np.uint8))
    assert main(["data", "check", "alphamatting", f"root={tmp_path}"]) == 0
    assert table(capsys.readouterr().out) == [["matting", "test", "1", "1", "24x20", "none"]]


def test_a_folder_of_backgrounds(tmp_path, capsys):
    write_png(tmp_path / "a.png", np.zeros((9, 9, 3), np.uint8))
    assert main(["data", "check", "scenes", f"backgrounds={tmp_path}"]) == 2
    assert "holds one image" in capsys.readouterr().out
    write_png(tmp_path / "b.png", np.zeros((9, 9, 3), np.uint8))
    assert main(["data", "check", "scenes", f"backgrounds={tmp_path}"]) == 0
    (tmp_path / "b.png").write_bytes(b"no image")
    assert main(["data", "check", "scenes", f"backgrounds={tmp_path}"]) == 2
    assert "b.png cannot be read as an image" in capsys.readouterr().out


def turn(path, to=None):
    """Save a picture with the note that it is upside down."""
    note = Image.Exif()
    note[0x112] = 3
    Image.open(path).save(to or path, exif=note)


@pytest.mark.parametrize(
    ("name", "image", "other"),
    [
        ("camvid", "test/test_0.png", "testannot/test_0.png"),
        ("nyuv2", "nyu_images/0.png", "nyu_depths/0.png"),
        ("alphamatting", "input_training_lowres/GT01.png", "gt_training_lowres/GT01.png"),
        ("matting_folder", "fg/thing 0.png", "alpha/thing 0.png"),
    ],
)
def test_a_photograph_that_is_turned_alone_is_told(name, image, other, tmp_path, capsys):
    (WRITERS | MATTING_WRITERS)[name](tmp_path)
    words = [f"root={tmp_path}", *(f"{key}={value}" for key, value in MATTING_OPTIONS.get(name, {}).items())]
    turn(tmp_path / image)
    assert main(["data", "check", name, *words]) == 0
    out = capsys.readouterr().out
    assert "no file is wrong, but there is" in out
    assert (
        f"1 image is turned or mirrored as a camera noted (EXIF), and what belongs to it is not, such as {tmp_path}"
        in out
    )
    assert f"{tmp_path / image} and " in out
    assert "as they should be" not in out


COMPOSITION1K = ["per_foreground=2", "test_per_foreground=3"]


def test_composites_are_checked_by_their_parts_each_read_once(tmp_path, capsys, monkeypatch):
    write_composition1k(tmp_path)
    opened, plain = [], Image.open

    def watched(path, *args, **options):
        opened.append(Path(path))
        return plain(path, *args, **options)

    monkeypatch.setattr(Image, "open", watched)
    assert main(["data", "check", "composition1k", f"root={tmp_path}", *COMPOSITION1K]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("matting")]
    text = [" ".join(row) for row in rows]
    assert text[0].startswith("matting train 6 3 36x40")
    assert text[1].startswith("matting train, backgrounds 6 6 20x30, 70x60")
    assert text[2].startswith("matting test 6 2 36x40")
    assert text[3].startswith("matting test, backgrounds 6 6 20x30, 70x60")
    assert text[4].startswith("matting test, trimaps 6 6 36x40")
    photographs = [path for path in opened if path.suffix == ".jpg"]
    assert len(photographs) == len(set(photographs)) == 12


def test_what_can_be_wrong_with_composites(tmp_path, capsys):
    write_composition1k(tmp_path)
    training, test = tmp_path / "Combined_Dataset/Training_set", tmp_path / "Combined_Dataset/Test_set"
    alphas = training / "Adobe-licensed images/alpha"
    write_png(alphas / "b.png", np.arange(40 * 36 * 3, dtype=np.uint8).reshape(40, 36, 3), overwrite=True)
    write_png(alphas / "c.png", np.zeros((40, 35), np.uint8), overwrite=True)
    (test / "Adobe-licensed images/fg/x.png").write_bytes(b"no image")
    trimaps = test / "Adobe-licensed images/trimaps"
    write_png(trimaps / "x_1.png", np.full((40, 36), 127, np.uint8), overwrite=True)
    write_png(trimaps / "y_2.png", np.full((36, 40), 128, np.uint8), overwrite=True)
    (tmp_path / "train2014/COCO_train2014_000000000003.jpg").write_bytes(b"no image")
    short = tmp_path / "train2014/COCO_train2014_000000000004.jpg"
    short.write_bytes(short.read_bytes()[:-200])  # its header is whole
    assert main(["data", "check", "composition1k", f"root={tmp_path}", *COMPOSITION1K]) == 2
    out = capsys.readouterr().out
    for fragment in (
        "alpha/b.png is a colour image",
        "alpha/c.png is 35x40 pixels",
        "fg/x.png cannot be read as an image",
        "trimaps/x_1.png has 1440 pixels with the values 127",
        "trimaps/y_2.png is 40x36 pixels",
        "COCO_train2014_000000000003.jpg cannot be read as an image",
    ):
        assert fragment in out
    assert "000000000004.jpg" not in out
    assert "6 problems, found in" in out
    assert main(["data", "check", "composition1k", f"root={tmp_path}", *COMPOSITION1K, "--full"]) == 2
    out = capsys.readouterr().out
    assert "COCO_train2014_000000000004.jpg cannot be read as an image" in out
    assert "7 problems, found in" in out


def test_foregrounds_are_not_estimated_to_be_checked(tmp_path, monkeypatch):
    MATTING_WRITERS["matting_folder"](tmp_path)

    def refuse(*args):
        raise AssertionError("estimated")

    monkeypatch.setattr("indexnet.data.matting.estimate.estimate_foreground", refuse)
    words = [f"{key}={value}" for key, value in MATTING_OPTIONS["matting_folder"].items()]
    assert main(["data", "check", "matting_folder", f"root={tmp_path}", "foreground=estimated", *words]) == 0


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["nyu_v2"], "unknown data set 'nyu_v2'. Did you mean 'nyuv2'?"),
        (["nyuv2", "rot=x"], "has no option 'rot'. Did you mean 'root'?"),
        (["nyuv2", "x"], "'x' is not understood"),
        (["nyuv2", "task=matting"], "no targets for the task 'matting'"),
        (["nyuv2", "crop=egien"], "data.crop must be one of none, eigen"),
        (["nyuv2", "crop=2024-02-31"], "data.crop must be one of none, eigen"),
        (["nyuv2", f"crop={'[' * 20_000}"], "data.crop must be one of none, eigen"),
        (["nyuv2", f"root={'n' * 300}"], "cannot be read (File name too long)"),
        (["nyuv2", "name=camvid"], "'name=camvid' is not understood"),
    ],
)
def test_mistakes_are_one_sentence(words, fragment, capsys):
    assert main(["data", "check", *words]) == 2
    captured = capsys.readouterr()
    assert fragment in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_options_start_from_the_sets_own_file():
    options = read_options("nyuv2", ["data.cache=false", "root=~/x"])
    assert options["crop"] == "none"
    assert options["cache"] is False
    assert options["root"].endswith("/x")
    assert not options["root"].startswith("~")
    assert read_options("nyuv2", [])["root"] == "data/nyu_depth_v2_half"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "folder", "counts"),
    [
        ("nyuv2", "nyu_depth_v2_half", ["795", "654", "795", "654"]),
        ("camvid", "CamVid", ["367", "101", "233"]),
        ("train400", "denoise_dncnn", ["238400", "bsd68", "set12"]),
    ],
)
def test_the_real_sets(name, folder, counts, shared, capsys):
    assert main(["data", "check", name, f"root={shared / 'data' / folder}"]) == 0
    assert [row[2] for row in table(capsys.readouterr().out)] == counts


def test_the_page_on_data_names_every_set_and_where_it_lies():
    page = (Path(__file__).resolve().parents[2] / "docs/data.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    for info in list_data():
        line = next(line for line in lines if f"`{info.name}`" in line.split("|")[1])
        if info.layout:
            assert f"`{Path(read_options(info.name, [])['root']).name}`" in line
        assert all(task in line.split("|")[2] or "all" in line.split("|")[2] for task in info.tasks)
