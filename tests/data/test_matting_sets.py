"""The matting data sets: layouts, lists, which composites there are, and what is said about files that are wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_support import (
    MATTING_OPTIONS,
    MATTING_WRITERS,
    assert_same_samples,
    levels,
    make,
    names,
    random_image,
    soft_alpha,
    write_backgrounds,
    write_foreground,
)
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.data.base import NoSplitError
from indexnet.data.io.images import read_image, write_png
from indexnet.data.matting.photographs import MattingFiles
from indexnet.data.matting.test_composites import FixedComposites

RNG = np.random.default_rng(0)


COMPOSED = ("aim500", "composition1k", "distinctions646")


def test_composition1k_can_train_on_all_foregrounds(tmp_path):
    data = make("composition1k", tmp_path, train_on="all", pipeline="a2u")
    train = data.train()
    assert names(train) == [f"{name}_{k}" for name in "cabyx" for k in (0, 1)]  # six photographs do: each is drawn
    assert_same_samples(data.test(), make("composition1k", tmp_path, write=False).test())
    with pytest.raises(UserError, match=r"5 foregrounds with 2 composites each need 10 backgrounds"):
        make("composition1k", tmp_path, write=False, train_on="all").train()
    with pytest.raises(UserError, match=r"data\.train_on must be one of train, all; got 'both'"):
        make("composition1k", tmp_path, write=False, train_on="both")


def test_crops_around_mixed_pixels_are_other_training_data(tmp_path):
    plain, mixed = (make("composition1k", tmp_path, **each) for each in ({}, {"write": False, "crop_around": "mixed"}))
    assert plain.train().fingerprint() != mixed.train().fingerprint()
    assert mixed.train().made_by.crop_around == "mixed"
    with pytest.raises(UserError, match=r"data\.crop_around=mixed is for data\.pipeline=dim; mmediting crops"):
        make("composition1k", tmp_path, write=False, crop_around="mixed", pipeline="mmediting")


def test_composition1k_follows_its_lists(tmp_path):
    data = make("composition1k", tmp_path)
    train, test = data.train(), data.test()
    assert names(train) == ["c_0", "c_1", "a_0", "a_1", "b_0", "b_1"]
    assert [path.name[-5] for path in train.backgrounds] == list("531420")
    assert names(test) == ["y_0", "y_1", "y_2", "x_0", "x_1", "x_2"]
    assert [test.group(i) for i in range(6)] == ["y"] * 3 + ["x"] * 3
    assert isinstance(test, FixedComposites)
    part = tmp_path / "Combined_Dataset/Test_set/Adobe-licensed images"
    backgrounds = (tmp_path / "VOCdevkit/VOC2012/JPEGImages/2008_00000").as_posix()
    for index, (name, number) in enumerate([("y", 9), ("y", 3), ("y", 5), ("x", 1), ("x", 8), ("x", 2)]):
        sample = test.sample(index, RNG)
        fg, alpha = read_image(part / f"fg/{name}.png"), soft_alpha(10 + (name == "x"))
        bg = read_image(f"{backgrounds}{number}.jpg")
        if min(bg.shape[:2]) < 40:  # 20x30 below 36x40: enlarged to 36x54 and cut at the top left corner
            bg = cv2.resize(bg, (36, 54), interpolation=cv2.INTER_CUBIC)
        bg = bg[:40, :36]
        image = levels(sample["image"]).astype(float)
        exact = alpha[..., None] / 255 * fg + (1 - alpha[..., None] / 255) * bg
        assert np.abs(image - np.floor(exact)).max() <= 1  # single precision may cross a whole number
        assert (image != np.floor(exact)).mean() < 0.01
        assert np.array_equal(levels(sample["alpha"]), alpha)
        assert np.array_equal(sample["trimap"][0, index % 3], np.full(36, np.float32(128 / 255)))  # its own trimap


def test_composites_on_disk_are_the_same_and_need_no_backgrounds(tmp_path):
    data = make("composition1k", tmp_path)
    made = data.test()
    folder = tmp_path / "Combined_Dataset/Test_set/merged"
    for i in range(len(made)):
        write_png(folder / f"{made.name(i)}.png", levels(made.sample(i, RNG)["image"]))
    read = data.test()
    assert isinstance(read, MattingFiles)
    assert_same_samples(read, made)
    assert read.fingerprint() != made.fingerprint()
    shutil.rmtree(tmp_path / "VOCdevkit")
    assert len(data.test()) == 6
    (folder / "x_1.png").unlink()  # one is missing: none is taken
    with pytest.raises(UserError, match="PASCAL VOC"):
        data.test()


def test_decoded_foregrounds_may_lie_in_a_folder(tmp_path):
    plain = make("composition1k", tmp_path).test()
    kept = make("composition1k", tmp_path, write=False, cache=str(tmp_path / "decoded")).test()
    assert "2 foregrounds decoded once" in kept.prepare()
    assert len(list((tmp_path / "decoded").iterdir())) == 2
    assert_same_samples(kept, plain)
    assert kept.fingerprint() == plain.fingerprint()


def flatten(source, root):
    """Bring the shipped layout into that of the released code, with its lists in another order."""
    shipped = source / "Combined_Dataset"
    for folder, parts in (
        ("Training_set", ("Adobe-licensed images", "Other")),
        ("Test_set", ("Adobe-licensed images",)),
    ):
        for part in parts:
            shutil.copytree(shipped / folder / part, root / folder, dirs_exist_ok=True)
    shutil.copytree(source / "train2014", root / "train2014")
    training = shipped / "Training_set"
    foregrounds = (training / "training_fg_names.txt").read_text().split()
    photographs = (training / "training_bg_names.txt").read_text().split()
    lines = []
    for k, name in enumerate(foregrounds):
        for i in (1, 0):
            merged = f"Training_set/merged/{Path(name).stem}_{i}.png"
            parts = [f"Training_set/{part}/{name}" for part in ("alpha", "fg")]
            lines.append("\t".join([merged, *parts, f"train2014/{photographs[2 * k + i]}"]))
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_text("\n".join(lines) + "\n")
    lines = [
        f"Test_set/merged/{name}_{i}.png\tTest_set/alpha/{name}.png\tTest_set/trimaps/{name}_{i}.png"
        for name in "yx"
        for i in range(3)
    ]
    (root / "lists/test.txt").write_text("\n".join(lines))


def test_the_flattened_layout_holds_the_same(tmp_path):
    shipped = make("composition1k", tmp_path / "shipped")
    flatten(tmp_path / "shipped", tmp_path / "flat")
    flat = make("composition1k", tmp_path / "flat", write=False)
    assert names(flat.train()) == names(shipped.train())
    assert [path.name for path in flat.train().backgrounds] == [path.name for path in shipped.train().backgrounds]
    made = shipped.test()
    for i in range(len(made)):
        write_png(tmp_path / f"flat/Test_set/merged/{made.name(i)}.png", levels(made.sample(i, RNG)["image"]))
    assert names(flat.test()) == names(made)
    assert_same_samples(flat.test(), made)
    shutil.rmtree(tmp_path / "flat/Test_set/fg")  # composites, mattes and trimaps are enough
    assert_same_samples(flat.test(), made)
    shutil.rmtree(tmp_path / "flat/lists")  # then everything is taken by name
    assert names(flat.train())[:2] == ["a_0", "a_1"]
    assert [path.name[-5] for path in flat.train().backgrounds] == list("012345")
    assert_same_samples(flat.test(), made)
    other = make("composition1k", tmp_path / "flat", write=False, lists=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"nowhere/train\.txt does not exist; it lists composites"):
        other.train()


def replaced(path, old, new):
    path.write_text(path.read_text().replace(old, new))


TRAINING = "Combined_Dataset/Training_set"


TESTING = "Combined_Dataset/Test_set"


MISTAKES = {
    "a listed background is missing": (
        lambda root: (root / "train2014/COCO_train2014_000000000004.jpg").unlink(),
        "train",
        r"COCO_train2014_000000000004\.jpg, listed in .*training_bg_names\.txt, is missing from .*train2014",
    ),
    "a listed foreground is missing": (
        lambda root: (root / TRAINING / "Other/alpha/a.png").unlink(),
        "train",
        r"the alpha of a\.png, listed in .*training_fg_names\.txt, is missing below",
    ),
    "colours are missing": (
        lambda root: (root / TRAINING / "Other/fg/a.png").unlink(),
        "train",
        r"Other/fg/a\.png is missing; every foreground of data=composition1k needs colours and alpha",
    ),
    "the list is empty": (
        lambda root: (root / TRAINING / "training_fg_names.txt").write_text("\n\n"),
        "train",
        r"training_fg_names\.txt is empty; it lists foregrounds, one a line",
    ),
    "the list is no text": (
        lambda root: (root / TESTING / "test_bg_names.txt").write_bytes(b"\xff\xfe\x81"),
        "test",
        r"test_bg_names\.txt is not UTF-8 text .*\. It lists backgrounds, one a line",
    ),
    "too few backgrounds to train on": (
        lambda root: replaced(root / TRAINING / "training_bg_names.txt", "COCO_train2014_000000000000.jpg\n", ""),
        "train",
        r"need 6 backgrounds, but there are 5; .*data\.per_foreground",
    ),
    "too few backgrounds to test on": (
        lambda root: replaced(root / TESTING / "test_bg_names.txt", "2008_000002.jpg\n", ""),
        "test",
        r"need 6 backgrounds, but there are 5; .*data\.test_per_foreground",
    ),
    "no photographs to train on": (
        lambda root: shutil.rmtree(root / "train2014"),
        "train",
        r"the backgrounds of data=composition1k \(train split\) are missing: .*train2014.* give data\.backgrounds=DIR",
    ),
    "no data set": (
        lambda root: shutil.rmtree(root / "Combined_Dataset"),
        "train",
        r"Training_set does not exist; data=composition1k has its train split there",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_missing_files_are_named(mistake, tmp_path):
    spoil, split, message = MISTAKES[mistake]
    MATTING_WRITERS["composition1k"](tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        getattr(make("composition1k", tmp_path, write=False), split)()


SPOILT = {
    "colours in alpha": ("alpha/y.png", random_image(5, (40, 36)), "colour image"),
    "sizes that differ": ("alpha/y.png", soft_alpha(0, (40, 35)), "35x40 pixels but .*y.png is 36x40"),
    "a trimap of another size": ("trimaps/y_0.png", soft_alpha(0, (40, 35)) // 255 * 255, "35x40 pixels"),
    "a trimap of other values": ("trimaps/y_0.png", np.full((40, 36), 127, np.uint8), "127"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_files_that_are_wrong_are_found(kind, tmp_path):
    data = make("composition1k", tmp_path)
    file, content, message = SPOILT[kind]
    write_png(tmp_path / TESTING / "Adobe-licensed images" / file, content, overwrite=True)
    split = data.test()
    for look in (split.verify, lambda index: split.sample(index, RNG)):
        with pytest.raises(UserError, match=message):
            look(0)


def test_a_test_never_skips_a_damaged_background(tmp_path):
    data = make("composition1k", tmp_path, damaged="skip")
    path = tmp_path / "VOCdevkit/VOC2012/JPEGImages/2008_000009.jpg"
    path.write_bytes(path.read_bytes()[:200])
    for look in (data.test().verify, lambda index: data.test().sample(index, RNG)):
        with pytest.raises(UserError, match=r"2008_000009\.jpg cannot be read"):
            look(0)
    data.test().verify(1)


def test_a_list_of_files_or_several_folders_of_backgrounds(tmp_path):
    MATTING_WRITERS["distinctions646"](tmp_path)
    photographs = tmp_path / "train2014"
    chosen = [f"COCO_train2014_{k:012d}.jpg" for k in (4, 2, 0, 1, 3, 5)]
    (photographs / "chosen.txt").write_text("\n".join(chosen))
    data = make("distinctions646", tmp_path, write=False, backgrounds=str(photographs / "chosen.txt"))
    assert [path.name for path in data.train().backgrounds] == chosen
    write_backgrounds(tmp_path / "more", ["a.jpg"])
    data = make("distinctions646", tmp_path, write=False, backgrounds=[str(tmp_path / "more"), str(photographs)])
    assert [path.name for path in data.train().backgrounds][:2] == ["a.jpg", "COCO_train2014_000000000000.jpg"]
    with pytest.raises(UserError, match=r"data\.backgrounds must be a folder, a file that lists images, or a list"):
        make("distinctions646", tmp_path, write=False, backgrounds=3)
    for option, split in (("backgrounds", "train"), ("test_backgrounds", "test")):
        data = make("distinctions646", tmp_path, write=False, **{option: str(tmp_path / "none.txt")})
        message = rf"none\.txt does not exist; name a folder of images, or a file that lists them, in data\.{option}"
        with pytest.raises(UserError, match=message):
            getattr(data, split)()


@pytest.mark.parametrize("name", COMPOSED)
def test_what_is_prepared_is_what_is_read(name, tmp_path):
    data = make(name, tmp_path / "source")
    made, words = data.test(), [f"{key}={value}" for key, value in MATTING_OPTIONS[name].items()]
    command = ["data", "prepare", name, f"root={tmp_path / 'source'}", *words, "--jobs", "1"]
    assert main([*command, f"output={tmp_path / 'output'}"]) == 0
    read = make(name, tmp_path / "output", write=False).test()
    assert isinstance(read, MattingFiles)
    assert_same_samples(read, made)
    in_place = data.batch("train")
    lists = ["list"] * (name == "aim500")  # of the port's training composites
    assert [each.kind for each in in_place.outputs] == ["composite"] * 6 + lists
    assert in_place.folder.is_relative_to(tmp_path / "source")


def test_foregrounds_may_be_estimated_or_come_from_a_folder(tmp_path):
    MATTING_WRITERS["aim500"](tmp_path)
    assert not any(item.estimate for item in make("aim500", tmp_path, write=False).chosen_foregrounds("train"))
    estimated = make("aim500", tmp_path, write=False, foreground="estimated")
    assert all(item.estimate for item in estimated.chosen_foregrounds("train"))
    assert not any(item.estimate for item in estimated.foregrounds("train"))
    with pytest.raises(UserError, match=r"data\.foreground must be one of photograph, estimated"):
        make("aim500", tmp_path, write=False, foreground="colours")
    prepared = make("aim500", tmp_path, write=False, foreground="estimated", foregrounds=str(tmp_path / "colours"))
    for item in prepared.foregrounds("test"):
        write_png(tmp_path / f"colours/{item.name}.png", random_image(77, (40, 36)))
    chosen = prepared.chosen_foregrounds("test")
    assert all(item.colour.parent == tmp_path / "colours" for item in chosen)
    assert not any(item.estimate for item in chosen)
    with pytest.raises(UserError, match=r"is missing; .*indexnet data prepare aim500 foregrounds output="):
        prepared.train()


def test_simd_scales_its_test_foregrounds(tmp_path):
    data = make("simd", tmp_path)
    assert {item.name for item in data.train().foregrounds} == {"fur_a", "net_c"}
    test = data.test()
    assert names(test) == ["fur_b_2008_000002", "net_a_2008_000000", "net_a_2008_000001"]
    assert [test.group(i) for i in range(3)] == ["fur_b", "net_a", "net_a"]
    for i, sample in enumerate(test.sample(i, RNG) for i in range(3)):
        assert sample["image"].shape == (3, 800, 900)  # 400x450, the shorter side at least 800
        test.verify(i)
        pattern, _, file = test.name(i).partition("_")
        for part, key in (("merged", "image"), ("alpha", "alpha"), ("trimap", "trimap")):
            write_png(tmp_path / f"written/{pattern}/{part}/{file}.png", levels(sample[key]))
    written = make("simd", tmp_path, write=False, test_root=str(tmp_path / "written")).test()
    assert isinstance(written, MattingFiles)
    assert_same_samples(written, test)
    with pytest.raises(NoSplitError):
        data.batch("test")
    replaced(tmp_path / "SIMD_composition_test_filelist.txt", "fur:b.png", "fur:b.jpg")  # a list of other endings
    listed = make("simd", tmp_path, write=False)
    assert {item.name for item in listed.train().foregrounds} == {"fur_a", "net_c"}
    replaced(tmp_path / "SIMD_composition_test_filelist.txt", "fur:b.jpg", "fur:b.png")
    (tmp_path / "bad.txt").write_text("wool:a.png:b.jpg\n")
    with pytest.raises(UserError, match=r"bad\.txt, line 1: CLASS:FOREGROUND:BACKGROUND .* found 'wool:a\.png:b\.jpg'"):
        make("simd", tmp_path, write=False, test_list=str(tmp_path / "bad.txt")).test()
    large = make("simd", tmp_path, write=False)
    write_foreground(tmp_path / "fur/fg/b2.png", tmp_path / "fur/alpha/b2.png", 3, (1200, 2400))
    replaced(tmp_path / "SIMD_composition_test_filelist.txt", "fur:b.png", "fur:b2.png")
    assert large.test().sample(0, RNG)["image"].shape == (3, 960, 1920)


def test_distinctions_in_folders_of_other_names(tmp_path):
    MATTING_WRITERS["distinctions646"](tmp_path)
    for split in ("Train", "Test"):
        (tmp_path / f"sets/{split}").mkdir(parents=True)
        (tmp_path / split / "FG").rename(tmp_path / f"sets/{split}/image")
        (tmp_path / split / "GT").rename(tmp_path / f"sets/{split}/alpha")
    with pytest.raises(UserError, match="Train/FG does not exist"):
        make("distinctions646", tmp_path, write=False).train()
    options = {"colours": "sets/{split}/image", "mattes": "sets/{split}/alpha"}
    data = make("distinctions646", tmp_path, write=False, **options)
    assert names(data.train())[:2] == ["Train0_0", "Train0_1"]
    assert names(data.test())[0] == "Test0_0"
    with pytest.raises(UserError, match=r"data\.mattes must be a folder below ROOT with '\{split\}' in it"):
        make("distinctions646", tmp_path, write=False, mattes="GT")


@pytest.mark.parametrize("name", sorted(MATTING_WRITERS))
def test_fingerprints_tell_splits_apart_and_files_that_changed(name, tmp_path):
    def prints():
        data = make(name, tmp_path, write=False)
        found = [split.fingerprint() for split in data.tests().values()]
        return found + ([] if name.startswith("alphamatting") else [data.train().fingerprint()])

    MATTING_WRITERS[name](tmp_path)
    first = prints()
    assert len(set(first)) == len(first)
    assert prints() == first
    for path in tmp_path.rglob("*.png"):  # mattes and trimaps grow by a few bytes
        with path.open("ab") as file:
            file.write(b"more")
    assert not set(first) & set(prints())
