"""Names of files, as people have them: which belong together, and those that are no UTF-8."""

from __future__ import annotations

import csv
import os
import unicodedata

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_support import random_image, soft_alpha, write_camvid, write_nyuv2, write_train400
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.io.file_lists import find_images
from indexnet.data.io.images import write_png
from indexnet.data.io.names import FileFinder, Names, pair, printable
from indexnet.data.matting.foregrounds import pair_foregrounds
from indexnet.data.segmentation import matched_pairs

CASES = {"as it is": str, "upper": str.upper, "lower": str.lower}
LETTERS = st.characters(codec="utf-8", exclude_characters="/\0", categories=["L", "N", "Zs", "P", "Mn", "Cc"])
STEMS = st.text(LETTERS, min_size=1, max_size=8).map(lambda text: f"x{text}y")  # no ending of its own
ENDINGS = st.sampled_from([".png", ".JPG", ".tiff", ".PnG"])
EXAMPLES = [60, pytest.param(5000, marks=[pytest.mark.long, pytest.mark.nightly])]
WAYS = st.tuples(st.sampled_from(["NFC", "NFD"]), st.sampled_from([*CASES]), ENDINGS)


def alike(name):
    """What is the same for names that differ in form and case alone, as the Unicode standard defines it (D145)."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def written(folder, stem, way):
    form, case, ending = way
    return folder / f"{unicodedata.normalize(form, CASES[case](stem))}{ending}"


@pytest.mark.parametrize("examples", EXAMPLES)
def test_names_find_their_partners_however_they_are_written(tmp_path, examples):
    """Each file finds its partner, one without any stays alone, and nothing is lost."""

    @settings(max_examples=examples, deadline=None)
    @given(
        stems=st.lists(STEMS, min_size=1, max_size=5, unique_by=alike),
        ways=st.lists(st.tuples(WAYS, WAYS), min_size=5, max_size=5),
        lone=st.none() | st.integers(0, 4),
        order=st.booleans(),
    )
    def check(stems, ways, lone, order):
        ways = ways[: len(stems)]
        for stem, both in zip(stems, ways, strict=True):
            assume(all(alike(CASES[case](stem)) == alike(stem) for _, case, _ in both))
        first = [written(tmp_path / "a", stem, way) for stem, (way, _) in zip(stems, ways, strict=True)]
        second = [written(tmp_path / "b", stem, way) for stem, (_, way) in zip(stems, ways, strict=True)]
        wanted = set(zip(first, second, strict=True))
        if lone is not None and lone < len(stems):
            wanted -= {(first[lone], second[lone])}
            wanted |= {(first[lone], None)}
            del second[lone]
        found = pair(first, sorted(second, reverse=order))
        assert set(found) == wanted
        assert len(found) == len(wanted)
        assert found == pair(first[::-1], second)
        names = Names(second)
        for image, label in wanted:
            assert names.find(image.stem) == label

    check()


def test_the_strictest_match_goes_first(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    composed, apart = "\u00e9", "e\u0301"
    assert pair([a / "X.png", a / "x.png"], [b / "x.jpg", b / "X.jpg"]) == [
        (a / "X.png", b / "X.jpg"),
        (a / "x.png", b / "x.jpg"),
    ]
    files = [a / f"{composed}.png", a / f"{apart}.png"]
    assert set(pair(files, [b / f"{composed}.png"])) == {(files[0], b / f"{composed}.png"), (files[1], None)}
    with pytest.raises(UserError, match=r"x\.JPG and x\.png share a name; keep one"):
        pair([a / "x.png", a / "x.JPG"], [])
    with pytest.raises(UserError, match=r"AB\.png and Ab\.png share a name; keep one"):
        pair([a / "Ab.png", a / "AB.png"], [b / "ab.png"])


def two_folders(root, images=("a.png",), labels=("a.png",)):
    for folder, names in (("images", images), ("labels", labels)):
        for name in names:
            Image.fromarray(np.zeros((12, 10), np.uint8)).save(root / folder / name, format="PNG")
    return root / "images", root / "labels"


@pytest.fixture
def folders(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_folders_with_hidden_files_links_and_odd_names(folders):
    odd = ["a b.PNG", 'it\'s "x".png', "line\nbreak.png", "caf\u00e9.png", "UP.png"]
    labels = ["a b.png", 'it\'s "x".png', "line\nbreak.png", "cafe\u0301.png", "up.PNG"]
    images, maps = two_folders(folders, odd, labels)
    for folder in (images, maps):
        (folder / "._a b.png").write_bytes(b"\0\5\x16\7")
        (folder / ".hidden.png").write_bytes(b"")
    (folders / "elsewhere.png").write_bytes((images / "UP.png").read_bytes())
    for folder in (images, maps):
        (folder / "linked.png").symlink_to(folders / "elsewhere.png")
    pairs = matched_pairs(images, maps)
    assert {(each.image.name, each.label.name) for each in pairs} == {
        *zip(odd, labels, strict=True),
        ("linked.png", "linked.png"),
    }
    assert [each.image for each in pairs] == [item.colour for item in pair_foregrounds(images, maps)]
    data = create_data("segmentation_folder", root=str(folders), classes=["x"], void=[255])
    assert sorted(p.image.name for s in ("train", "test") for p in data.pairs(s)) == sorted([*odd, "linked.png"])
    (images / "UP.jpg").write_bytes(b"")
    for ask in (lambda: matched_pairs(images, maps), lambda: pair_foregrounds(images, maps)):
        with pytest.raises(UserError, match=r"UP\.jpg and UP\.png share a name; keep one of them"):
            ask()


def test_one_name_twice_in_a_folder_of_samples_is_refused(tmp_path):
    write_train400(tmp_path)
    Image.open(tmp_path / "Set12/01.png").save(tmp_path / "Set12/01.JPG")
    data = create_data("train400", root=str(tmp_path), size=12)
    with pytest.raises(UserError, match=r"Set12/01\.JPG and 01\.png share a name"):
        data.tests()


def test_files_of_a_list_in_any_form(tmp_path):
    write_nyuv2(tmp_path)
    (tmp_path / "nyu_depths/3.png").rename(tmp_path / "nyu_depths/3.PNG")
    (tmp_path / "train.txt").write_bytes("1\r\n3\r\n\r\n4\r\n".encode("utf-8-sig"))
    assert [create_data("nyuv2", root=str(tmp_path)).train().name(i) for i in range(3)] == ["1", "3", "4"]
    for name in ("caf\u00e9.png", "a b.png"):
        write_png(tmp_path / "photos" / name, random_image(1))
    (tmp_path / "list.txt").write_bytes("photos\\cafe\u0301.PNG\nC:\\data\\photos\\a b.png\n".encode("utf-8-sig"))
    found = find_images([tmp_path / "list.txt"], "data.backgrounds")
    assert found == [tmp_path / "photos/caf\u00e9.png", tmp_path / "photos/a b.png"]
    assert FileFinder().find(tmp_path / ("x" * 5000)) is None
    assert FileFinder().find_below(tmp_path, "\0") is None


def listed_camvid(root, line, stem, encoding="utf-8"):
    write_camvid(root)
    for split in ("train", "val", "test"):
        for folder in (split, f"{split}annot"):
            (root / folder / f"{split}_0.png").rename(root / folder / f"{stem}.png")
        (root / f"{split}.txt").write_bytes(f"{line.format(s=split)}\r\n".encode(encoding))
    return ["data", "check", "camvid", f"root={root}"]


@pytest.mark.parametrize(
    ("line", "stem", "encoding"),
    [
        ("{s}/x.png {s}annot/x.png", "x", "utf-8-sig"),
        ("{s}\\x.png {s}annot\\x.png", "x", "utf-8"),
        ("C:\\Camera 1\\CamVid\\{s}\\x.png\tC:\\Camera 1\\CamVid\\{s}annot\\x.png", "x", "utf-8"),
        ("{s}/x  1 (2).png {s}annot/x  1 (2).png", "x  1 (2)", "utf-8"),
        ('"{s}/x 1.png" "{s}annot/x 1.png"', "x 1", "utf-8"),
        ("{s}/x 1.png depth/x 1.png {s}annot/x 1.png", "x 1", "utf-8"),
        ("/SegNet/CamVid/{s}/\u00e9.png /SegNet/CamVid/{s}annot/e\u0301.PNG", "\u00e9", "utf-8-sig"),
    ],
)
def test_lists_of_pairs_as_editors_write_them(tmp_path, capsys, line, stem, encoding):
    assert main(listed_camvid(tmp_path, line, stem, encoding)) == 0
    assert "all files are as they should be" in capsys.readouterr().out


def test_lists_that_are_none(tmp_path, capsys):
    command = listed_camvid(tmp_path, "{s}/x.png {s}annot/x.png", "x")
    for content in (b"\xff\xfe", b"\0" * 300, b"a " * 5000, b"x" * 100_000 + b" y"):
        (tmp_path / "val.txt").write_bytes(content)
        assert main(command) == 2
        assert str(tmp_path) in capsys.readouterr().out


GBK = os.fsdecode(b"\xb2\xe2\xca\xd4")


def test_printable_names():
    assert printable(GBK) == r"\xb2\xe2\xca\xd4"
    assert printable("caf\u00e9 \n") == "caf\u00e9 \n"


def test_names_that_are_no_utf8_are_trained_tested_and_checked(tmp_path, capfd):
    write_train400(tmp_path / "t", size=(64, 72))
    for folder, name in (("Train400", "test_001"), ("Set12", "01")):
        (tmp_path / f"t/{folder}/{name}.png").rename(tmp_path / f"t/{folder}/{GBK}.png")
    assert main(["data", "check", "train400", f"root={tmp_path / 't'}", "scales=[1]"]) == 0
    words = ["task=denoising", "data=train400", f"data.root={tmp_path / 't'}", "data.scales=[1]", "training.steps=2"]
    words += ["training.batch_size=2", "schedule=constant", "network=dncnn", "network.depth=3", "logger=none"]
    assert main(["train", *words, f"paths.runs={tmp_path / 'runs'}"]) == 0
    (rows,) = tmp_path.glob("runs/**/per_image.csv")
    with rows.open(encoding="utf-8") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert r"set12/\xb2\xe2\xca\xd4" in names
    assert len(names) == 4
    (tmp_path / f"t/Set12/{GBK}.png").write_bytes(b"no image")
    assert main(["data", "check", "train400", f"root={tmp_path / 't'}", "scales=[1]"]) == 2
    assert r"Set12/\xb2\xe2\xca\xd4.png cannot be read" in capfd.readouterr().out


def test_every_kind_of_data_takes_names_that_are_no_utf8(folders):
    two_folders(folders, [f"{GBK}.png", "b.png", "c.png"], [f"{GBK}.png", "b.png", "c.png"])
    data = create_data("segmentation_folder", root=str(folders), classes=["x", "y"], size=8)
    splits = [data.train(), data.test()]
    (folders / "m/bg").mkdir(parents=True)
    for k, name in enumerate((f"{GBK}.png", "b.png", "c.png")):
        for folder, array in (("fg", random_image(k, (40, 36))), ("alpha", soft_alpha(k)), ("bg", random_image(k))):
            write_png(folders / "m" / folder / name, array)
    matting = create_data("matting_folder", root=str(folders / "m"), size=16, test_per_foreground=1)
    splits += [matting.train(), matting.test()]
    for split in splits:
        split.fingerprint()
        for index in range(len(split)):
            sample = split.sample(index, np.random.default_rng(0))
            (sample["name"] + split.group(index)).encode()  # UTF-8
    assert any(r"\xb2" in split.name(i) for split in splits[2:] for i in range(len(split)))
