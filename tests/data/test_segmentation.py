"""Data sets of photographs with label maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from data_support import (
    CODE,
    WRITERS,
    names,
    write_camvid,
    write_coloured,
    write_pair,
    write_segmentation_folder,
    write_sunrgbd,
)
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.data import IGNORE, create_data
from indexnet.data.io.class_lists import read_classes
from indexnet.data.io.images import write_png
from indexnet.run.config import compose, freeze

CODING = {"camvid": (11, 0, (11,)), "sunrgbd": (37, 1, (0,)), "ade20k": (150, 1, (0,))}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", CODING)
def test_test_samples_are_the_files(name, root):
    count, first, void = CODING[name]
    data = create_data(name, root=str(root / name))
    assert len(data.classes) == len(set(data.classes)) == count
    test = data.test()
    for index, pair in enumerate(test.pairs):
        sample = test.sample(index, rng())
        numbers = np.asarray(Image.open(pair.label)).astype(int)
        expected = np.where(np.isin(numbers, void), IGNORE, numbers - first)
        assert sample["label"].dtype == torch.int64
        assert np.array_equal(sample["label"].numpy(), expected)
        assert sample["label"][sample["label"] != IGNORE].max() == count - 1
        assert np.array_equal((sample["image"] * 255).round().byte().permute(1, 2, 0), Image.open(pair.image))
        assert sample["name"] == pair.image.stem == test.name(index)
        test.verify(index)


@pytest.mark.parametrize("name", CODING)
def test_training_samples_are_crops(name, root):
    data = create_data(name, root=str(root / name), size=16)
    train = data.train()
    for index in range(len(train)):
        sample = train.sample(index, rng(5))
        assert sample["image"].shape == (3, 16, 16)
        assert sample["label"].shape == (16, 16)
    prints = {s.fingerprint() for s in (train, data.test())}
    prints |= {create_data(name, root=str(root / name), **o).train().fingerprint() for o in ({}, {"scale": [1, 1]})}
    assert len(prints) == 4


def test_small_images_are_padded(root):
    sample = create_data("camvid", root=str(root / "camvid"), size=64, scale=[0.5, 0.5]).train().sample(0, rng())
    counted = sample["label"] != IGNORE
    assert 0 < counted.sum() <= 12 * 10
    empty = sample["image"][:, ~counted.any(1)]
    assert torch.allclose(empty[:, 0, 0], torch.tensor([0.485, 0.456, 0.406]), atol=0.002)


def test_camvid_has_three_splits(root):
    data = create_data("camvid", root=str(root / "camvid"))
    assert [len(s) for s in (data.train(), data.validation(), data.test())] == [3, 2, 2]
    assert [s.split for s in (data.train(), data.validation(), data.test())] == ["train", "validation", "test"]
    assert data.validation().sample(1, rng())["image"].shape == (3, 25, 20)
    assert create_data("ade20k", root=str(root / "ade20k")).validation() is None
    assert list(data.tests()) == [""]


def test_what_is_missing_is_named_before_training(tmp_path):
    write_camvid(tmp_path)
    data = create_data("camvid", root=str(tmp_path))
    (tmp_path / "trainannot/train_1.png").unlink()
    with pytest.raises(UserError, match=r"trainannot/train_1\.png is missing; every image of data=camvid needs"):
        data.train()
    (tmp_path / "train/train_2.png").unlink()
    with pytest.raises(UserError, match=r"trainannot/train_1\.png is missing \(and 1 more files of this split\)"):
        data.train()
    (tmp_path / "val.txt").write_text("val/val_0.png\n")
    with pytest.raises(UserError, match=r"val\.txt, line 1: an image and its label map were expected"):
        data.validation()
    (tmp_path / "val.txt").write_text("\n\n")
    with pytest.raises(UserError, match=r"val\.txt is empty"):
        data.validation()
    (tmp_path / "test.txt").write_text("test/test_0.png testannot/test_0.png\n" * 2)
    with pytest.raises(UserError, match="2 images of the name 'test_0' in one split"):
        data.test()


def test_what_is_wrong_with_files_is_named(tmp_path):
    write_camvid(tmp_path)
    test, label = create_data("camvid", root=str(tmp_path)).test(), tmp_path / "testannot/test_0.png"
    write_png(label, np.array([[0, 30, 12] * 4] * 2, np.uint8).repeat(5, 1)[:, :20].repeat(12, 0), overwrite=True)
    words = r"test_0\.png holds the labels 12, 30; data=camvid has 0\.\.10, and 11, 255 for unlabelled pixels\.$"
    for ask in (test.verify, lambda i: test.sample(i, rng())):
        with pytest.raises(UserError, match=words):
            ask(0)
    with pytest.raises(UserError, match=words):
        test.prepare()
    write_png(label, np.zeros((24, 21), np.uint8), overwrite=True)
    with pytest.raises(UserError, match=r"testannot/test_0\.png is 21x24 pixels but .*test_0\.png is 20x24; they must"):
        test.verify(0)
    write_png(label, np.zeros((24, 20, 3), np.uint8), overwrite=True)
    with pytest.raises(UserError, match=r"test_0\.png is a colour image \(RGB\); labels are numbers"):
        test.verify(0)
    label.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"testannot/test_0\.png cannot be read as an image"):
        test.verify(0)
    test.verify(1)


def test_sunrgbd_numbers_its_label_maps_test_first(tmp_path):
    write_sunrgbd(tmp_path)
    data = create_data("sunrgbd", root=str(tmp_path))
    assert [p.label.name for p in data.train().pairs] == ["img-005051.png", "img-005052.png", "img-005053.png"]
    assert [p.label.name for p in data.test().pairs] == ["img-000001.png", "img-000002.png"]
    assert [p.image.name for p in data.train().pairs] == ["img-000001.png", "img-000002.png", "img-000003.png"]
    (tmp_path / "SUNRGBD-train_images/img-000002.png").unlink()
    with pytest.raises(UserError, match=r"SUNRGBD-train_images/img-000002\.jpg is missing"):
        data.train()
    (tmp_path / "sunrgbd_train_test_labels/img-000002.png").unlink()
    with pytest.raises(UserError, match=r"sunrgbd_train_test_labels/img-000002\.png is missing"):
        data.test()
    write_pair(tmp_path / "a/x.png", tmp_path / "b/x.png", range(38))
    (tmp_path / "test.txt").write_text("a/x.png depth/x.png b/x.png\n")  # a layout of one's own
    assert [data.test().name(i) for i in range(len(data.test()))] == ["x"]
    write_png(tmp_path / "SUNRGBD-train_images/other.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError, match=r"other\.png is not named img-NNNNNN"):
        data.train()


def test_ade20k_pairs_by_name(tmp_path):
    WRITERS["ade20k"](tmp_path)
    data = create_data("ade20k", root=str(tmp_path))
    assert [data.test().name(i) for i in range(2)] == ["ADE_val_1", "ADE_val_2"]
    (tmp_path / "images/training/ADE_train_1.png").unlink()
    with pytest.raises(UserError, match=r"images/training/ADE_train_1\.jpg is missing"):
        data.train()
    (tmp_path / "annotations/validation/ADE_val_2.png").unlink()
    with pytest.raises(UserError, match=r"annotations/validation/ADE_val_2\.png is missing"):
        data.test()


def test_the_real_street_scenes(shared):
    data = create_data("camvid", root=str(shared / "data/CamVid"))
    train, validation, test = data.train(), data.validation(), data.test()
    assert [len(s) for s in (train, validation, test)] == [367, 101, 233]
    seen = set()
    for index in range(0, 233, 40):
        sample = test.sample(index, rng())
        assert sample["image"].shape == (3, 360, 480)
        seen |= set(torch.unique(sample["label"]).tolist())
    assert seen <= {*range(11), IGNORE}
    assert {0, 1, 3, 8, IGNORE} <= seen
    sky = sample["image"][:, sample["label"] == 0].mean()
    assert sky > sample["image"].mean() + 0.1  # the labels lie where the image says
    crop = train.sample(0, rng())
    assert crop["image"].shape == (3, 320, 320)


# --- segmentation_folder: a person's own files -----------------------------------------------------------------------


def segmentation(root, **options):
    return create_data("segmentation_folder", root=str(root), size=12, **options)


CLASS_FILES = {
    "label_colors.txt": "".join(f"{r} {g} {b}\t\t{name}\r\n" for name, (r, g, b) in CODE.items()),
    "class_dict.csv": "name,r,g,b\n" + "".join(f"{name},{r},{g},{b}\n" for name, (r, g, b) in CODE.items()),
    "labelmap.txt": "# label:color_rgb:parts:actions\n"
    + "".join(f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in CODE.items()),
    "classes.csv": "\ufeffr;g;b;class\n" + "".join(f"{r};{g};{b};{name}\n" for name, (r, g, b) in CODE.items()),
}


@pytest.mark.parametrize("file", CLASS_FILES)
def test_maps_of_colours_are_their_classes(tmp_path, file):
    (tmp_path / file).write_text(CLASS_FILES[file], encoding="utf-8", newline="")
    assert read_classes(tmp_path / file) == list(CODE.items())
    wanted = {}
    for k in range(12):
        wanted[f"{k}"] = write_coloured(tmp_path / f"images/{k}.JPG", tmp_path / f"labels/{k}_L.png", k)
    data = segmentation(tmp_path, label_ending="_L", void="Void", validation=True)
    assert data.classes == ("Sky", "Lane markings", "Road")
    splits = data.train(), data.validation(), data.test()
    assert sorted(name for split in splits for name in names(split)) == sorted(wanted)
    for split in splits[1:]:
        for index in range(len(split)):
            sample = split.sample(index, rng())
            numbers = wanted[sample["name"]]
            assert np.array_equal(sample["label"].numpy(), np.where(numbers == 0, IGNORE, numbers - 1))
    all_count = segmentation(tmp_path, label_ending="_L")
    assert len(all_count.classes) == 4
    assert all_count.validation() is None
    assert all_count.test().fingerprint() != data.test().fingerprint()
    config = freeze(
        compose(["task=segmentation", "data=segmentation_folder", f"data.root={tmp_path}", "data.void=[Void]"])
    )
    assert config["task"]["classes"] == ["Sky", "Lane markings", "Road"]
    assert config["network"]["classes"] == 3


def test_maps_of_numbers_with_void_classes_and_numbers(tmp_path):
    _, numbers = write_pair(tmp_path / "images/a.png", tmp_path / "labels/a.png", (1, 2, 3, 9, 255))
    write_pair(tmp_path / "images/b.png", tmp_path / "labels/b.png", (1, 2))
    for listed in ("test", "train"):
        (tmp_path / f"{listed}.txt").write_text("a\n" if listed == "test" else "images\\b.png labels\\b.png\n")
    for void in (["dirt", 9], [2, 9]):
        data = segmentation(tmp_path, classes=["sky", "dirt", "road"], void=void, first=1)
        assert data.classes == ("sky", "road")
        label = data.test().sample(0, rng())["label"].numpy()
        assert np.array_equal(label, np.select([numbers == 1, numbers == 3], [0, 1], IGNORE))
    assert names(data.train()) == ["b"]
    assert data.validation() is None
    with pytest.raises(
        UserError, match=r"labels/a\.png holds the labels 2, 3, 9; .* has 0\.\.1, and 255 for unlabelled"
    ):
        segmentation(tmp_path, classes=["sky", "road"]).test().verify(0)
    (tmp_path / "test.txt").write_text("c\n")
    with pytest.raises(UserError, match=r"test\.txt, line 1: .*images holds no image of the name 'c'"):
        data.test()


def listed(root, line, **options):
    (root / "train.txt").write_text(f"{line}\n")
    return [
        tuple(map(str, (p.relative_to(root) for p in pair))) for pair in segmentation(root, **options).train().pairs
    ]


def test_a_listed_image_in_a_folder_has_its_label_map_there(tmp_path):
    write_pair(tmp_path / "images/sub/a.jpg", tmp_path / "labels/sub/a_L.png", (0, 1))
    write_pair(tmp_path / "whole/b.png", tmp_path / "labels/a_L.png", (0, 1))
    options = {"classes": ["sky", "road"], "label_ending": "_L"}
    for line in ("sub/a.jpg", "sub/a", "/data/images/sub/a.jpg", "images/sub/a.jpg"):
        assert listed(tmp_path, line, **options) == [("images/sub/a.jpg", "labels/sub/a_L.png")]
    assert listed(tmp_path, "whole/b.png labels/a_L.png", **options) == [("whole/b.png", "labels/a_L.png")]
    (tmp_path / "labels/sub/a_L.png").unlink()
    with pytest.raises(UserError, match=r"labels/sub/a_L\.png is missing"):
        listed(tmp_path, "sub/a.jpg", **options)
    (tmp_path / "images" / "sub" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="share a name"):
        listed(tmp_path, "sub/a", **options)


def test_one_gap_of_a_line_parts_image_and_label_map(tmp_path):
    write_pair(tmp_path / "x 1.jpg", tmp_path / "x 1_L.png", (0, 1))
    write_pair(tmp_path / "depth.png", tmp_path / "1_L.png", (0, 1))
    classes = {"classes": ["sky", "road"]}
    assert listed(tmp_path, "x 1.jpg x 1_L.png", **classes) == [("x 1.jpg", "x 1_L.png")]
    assert listed(tmp_path, "x 1.jpg depth.png x 1_L.png", **classes) == [("x 1.jpg", "x 1_L.png")]
    (tmp_path / "x 1_L.png").unlink()
    with pytest.raises(UserError):
        listed(tmp_path, "x 1.jpg x 1_L.png", **classes)


@pytest.mark.parametrize("text", ["2 car\n1 road\n0 sky\n", "id;name\n0;sky\n1;road\n2;car\n", "name\nsky\nroad\ncar\n",
                                  "Label\n0: sky\n1: road\n2: car\n"])  # fmt: skip
def test_headings_and_numbers_of_lists_of_classes(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    assert read_classes(tmp_path / "classes.txt") == [("sky", None), ("road", None), ("car", None)]


def test_numbers_of_classes_that_do_not_fit(tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("1 sky\n2 road\n")
    write_pair(tmp_path / "images/a.png", tmp_path / "labels/a.png", (1, 2))
    write_pair(tmp_path / "images/b.png", tmp_path / "labels/b.png", (1, 2))
    with pytest.raises(UserError, match=r"classes\.txt numbers its classes '1, 2'; they must be numbered from 0"):
        segmentation(tmp_path).train()
    assert segmentation(tmp_path, first=1).classes == ("sky", "road")
    assert main(["data", "check", "segmentation_folder", f"root={tmp_path}", "first=1"]) == 0
    assert "classes in the label maps: 1 sky, 2 road." in " ".join(capsys.readouterr().out.split())
    (tmp_path / "classes.txt").write_text("64 0 0 1 sky\n0 0 64 2 wheeler\n")
    assert read_classes(tmp_path / "classes.txt") == [("sky", (64, 0, 0)), ("wheeler", (0, 0, 64))]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_folder_or_list(tmp_path, split):
    other = {"train": "test", "test": "train"}[split]
    write_pair(tmp_path / f"images/{other}/a.png", tmp_path / f"labels/{other}/a.png", (0,))
    with pytest.raises(UserError, match=rf"images/{split} does not exist.*folder of images so, or list .*{split}\.txt"):
        getattr(segmentation(tmp_path, classes=["sky"]), split)()


def test_names_that_no_file_can_have(tmp_path):
    from indexnet.data.io.file_lists import find_images
    from indexnet.data.matting.cutouts import read_background
    from indexnet.inference.image_files import find_items

    name = "x" * 300
    for ask, words in (
        (lambda: segmentation(tmp_path, classes=name).classes, "cannot be read|does not exist|too long"),
        (lambda: segmentation(tmp_path / name, classes=["sky"]).train(), "File name too long"),
        (lambda: find_images([tmp_path / name], "backgrounds"), "does not exist"),
        (lambda: read_background(name), "neither a file nor a colour"),
        (lambda: find_items(tmp_path / name, None, "denoising", False), "File name too long"),
        (lambda: create_data("matting_folder", root=str(tmp_path / name)).train(), "File name too long"),
    ):
        with pytest.raises(UserError, match=words):
            ask()


def test_splits_as_folders_in_both_orders(tmp_path):
    write_segmentation_folder(tmp_path)
    data = segmentation(tmp_path)
    assert [len(split) for split in (data.train(), data.validation(), data.test())] == [3, 2, 2]
    other = tmp_path / "other"
    for split in ("train", "test"):
        for part in ("images", "labels"):
            (other / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / part / split).rename(other / split / part)
    again = segmentation(other, classes=str(tmp_path / "classes.txt"))
    assert (
        again.train().fingerprint()
        == segmentation(other, classes=["sky", "lane markings", "road"]).train().fingerprint()
    )
    assert again.validation() is None
    (other / "train/labels/train1.png").unlink()
    with pytest.raises(UserError, match=r"train/labels/train1\.png is missing"):
        again.train()


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"classes": {"sky": [0, 0]}}, r"data\.classes, sky: a colour is three whole numbers"),
        ({"classes": {"sky": [0, 0, 300]}}, "from 0 to 255; got 0, 0, 300"),
        ({"classes": {"sky": [1, 1, 1], "sea": [1, 1, 1]}}, r"has the colour \(1, 1, 1\) twice"),
        ({"classes": ["sky", "sky"]}, "has the class sky twice"),
        ({"classes": 3}, r"data\.classes must be a file, a list of names, or a mapping"),
        ({"classes": ["a", "b"], "void": "c"}, r"class in data\.void 'c'"),
        ({"classes": ["a", "b"], "void": ["a", "b"]}, "names all classes"),
        ({"classes": ["a", "b"], "void": [0, "b"]}, "names all classes"),
        ({"classes": ["a"] , "void": 300}, r"data\.void must be names of classes, or numbers from 0 to 255"),
        ({"classes": {"a": [1, 1, 1]}, "void": 0}, r"data\.void=0 is a number, but label maps have colours"),
        ({"classes": ["a", "b"], "first": 254}, "gives the class 'b' the number 255"),
        ({"classes": "none.txt"}, r"none\.txt does not exist; it lists classes"),
        ({"classes": "mixed.txt"}, "has colours, but none for the class 'road'"),
        ({"classes": "empty.txt"}, r"empty\.txt is empty"),
        ({"classes": ["a"], "labels": ""}, r"data\.labels must be text"),
        ({"classes": {"a": [1, 1, 1]}}, r"holds the colours \(0, 0, 0\), .*; data=segmentation_folder has 1 colours"),
    ],
)  # fmt: skip
def test_what_a_folder_cannot_be(tmp_path, options, fragment):
    write_coloured(tmp_path / "images/test/a.png", tmp_path / "labels/test/a.png")
    (tmp_path / "mixed.txt").write_text("1 2 3 sky\nroad\n")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=fragment):
        segmentation(tmp_path, **options).test().verify(0)
