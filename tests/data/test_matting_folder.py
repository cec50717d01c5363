"""``matting_folder``: how files are divided, and what is said where some are missing."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image

from data_support import (
    levels,
    make,
    names,
    write_backgrounds,
    write_foreground,
    write_matting_folder,
)
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.datasets import matting_folder
from indexnet.data.io.file_lists import find_images, hold_out
from indexnet.data.io.images import write_png
from indexnet.run.loader import measured_splits

RNG = np.random.default_rng(0)


def parts(data):
    splits = {"train": data.train(), "test": data.test(), "validation": data.validation()}
    return {
        name: ({item.name for item in split.foregrounds}, {path.name for path in data.backgrounds(name)})
        for name, split in splits.items()
        if split is not None
    }


def test_a_folder_of_ones_own_is_divided_by_names(tmp_path):
    write_matting_folder(tmp_path, foregrounds=20, backgrounds=30)
    plain = parts(make("matting_folder", tmp_path, write=False, validation=False))
    found = parts(make("matting_folder", tmp_path, write=False))
    for k, file in ((0, "thing {}"), (1, "p{}.jpg")):
        tenths = {
            file.format(i): int(hashlib.sha256(file.format(i).encode()).hexdigest(), 16) % 10
            for i in range(20 + 10 * k)
        }
        for tenth, name in enumerate(("test", "validation")):
            assert found[name][k] == {item for item, number in tenths.items() if number == tenth} or (
                tenth not in tenths.values() and len(found[name][k]) == 1
            )
    for k in (0, 1):
        sets = [found[name][k] for name in found]
        assert len(set.union(*sets)) == sum(map(len, sets))
        assert plain["test"][k] == found["test"][k]
        assert plain["train"][k] == found["train"][k] | found["validation"][k]
    data = make("matting_folder", tmp_path, write=False, test_per_foreground=9)
    test, (things, photographs) = data.test(), found["test"]
    assert len(photographs) < 9
    assert len(test) == len(things) * len(photographs)  # no foreground is over one background twice
    assert len({levels(test.sample(i, RNG)["image"]).tobytes() for i in range(len(test))}) == len(test)


@pytest.mark.parametrize("parts", [1, 2])
def test_what_is_added_moves_nothing_out_of_training(parts):
    items = [f"photograph {k}.jpg" for k in range(400)]
    trained: set[str] = set()
    for count in range(5, 400, 7):
        kept, *held = hold_out(items[:count], "folder", parts)
        assert all(held)
        away = [item for part in held for item in part]
        assert sorted([*kept, *away]) == sorted(items[:count])
        assert kept == [item for item in items[:count] if item in set(kept)]
        assert not trained & set(away)
        trained |= set(kept) if count > 60 else set()  # no part is left to the lowest hash any more
        assert parts > 1 or hold_out(items[:count], "folder", 2)[1] == held[0]
    assert 20 < len(held[0]) < 60
    for few in range(2, 12):
        assert all(hold_out(items[:few], "folder", 1))
    with pytest.raises(UserError, match=rf"folder holds {parts} of the {parts + 1} at least that are needed"):
        hold_out(items[:parts], "folder", parts)
    with pytest.raises(UserError, match=rf"folder holds 1 of the {parts + 1}"):
        hold_out(["a"] * 5, "folder", parts)  # one file that is listed again and again


def backgrounds_of(data):
    return {split: {path.name for path in data.backgrounds(split)} for split in ("train", "validation", "test")}


def test_backgrounds_from_elsewhere_are_divided_among_folders_of_splits(tmp_path):
    for k, split in enumerate(("train", "validation", "test")):
        write_foreground(tmp_path / split / f"fg/{split}.png", tmp_path / split / f"alpha/{split}.png", k)
    write_backgrounds(tmp_path / "photos", [f"p{k}.jpg" for k in range(30)])

    def found():
        data = make("matting_folder", tmp_path, write=False, validation=False, backgrounds=str(tmp_path / "photos"))
        assert data.validation() is not None
        return backgrounds_of(data)

    shared = found()
    assert all(shared.values())
    assert len(set.union(*shared.values())) == sum(map(len, shared.values())) == 30
    write_backgrounds(tmp_path / "test/bg", ["t0.jpg", "t1.jpg"])
    write_backgrounds(tmp_path / "validation/bg", ["v0.jpg"])
    own = found()
    assert (own["test"], own["validation"]) == ({"t0.jpg", "t1.jpg"}, {"v0.jpg"})
    assert len(own["train"]) == 30  # nothing has to be held out


def test_backgrounds_are_looked_for_once(tmp_path, monkeypatch):
    write_matting_folder(tmp_path)
    scans = []
    monkeypatch.setattr(matting_folder, "find_images", lambda *given: scans.append(given) or find_images(*given))
    data = make("matting_folder", tmp_path, write=False)
    for split in (data.test, data.validation, data.train, data.test):
        split()
    assert len(scans) == 3


def test_a_folder_of_ones_own_with_a_folder_for_each_split(tmp_path):
    for k, split in enumerate(("train", "test")):
        write_foreground(tmp_path / split / f"fg/{split}.png", tmp_path / split / f"alpha/{split}.png", k)
        Image.open(tmp_path / split / f"fg/{split}.png").save(tmp_path / split / f"fg/{split}.jpg")
        (tmp_path / split / f"fg/{split}.png").unlink()  # JPEG colours with a PNG matte
        write_backgrounds(tmp_path / split / "bg", [f"{split}{i}.jpg" for i in range(4)], seed=10 * k)
    data = make("matting_folder", tmp_path, write=False, test_per_foreground=4)
    assert parts(data) == {
        "train": ({"train"}, {f"train{i}.jpg" for i in range(4)}),
        "test": ({"test"}, {f"test{i}.jpg" for i in range(4)}),
    }
    assert names(data.test()) == [f"test_{k}" for k in range(4)]
    assert data.validation() is None
    with pytest.raises(UserError, match=r"give data\.validation=true, or a folder validation beside those named train"):
        measured_splits(data, "validation")
    mine = np.full((40, 36), 128, np.uint8)
    write_png(tmp_path / "test/trimap/test.png", mine)
    assert all(np.array_equal(levels(data.test().sample(i, RNG)["trimap"]), mine) for i in range(4))
    backgrounds = make("matting_folder", tmp_path, write=False, test_backgrounds=str(tmp_path / "train/bg"))
    assert parts(backgrounds)["test"][1] <= {f"train{i}.jpg" for i in range(4)}
    shutil.rmtree(tmp_path / "test")
    with pytest.raises(UserError, match=r"test does not exist, but a folder of another split does; put fg, alpha and"):
        data.test()


def test_trimaps_of_ones_own_are_png_files(tmp_path):
    """Others were never read, and a folder's samples stay what they are."""
    data = make("matting_folder", tmp_path)
    plain = data.test().fingerprint()
    for item in data.foregrounds("test"):
        for ending in (".tif", ".png"):
            write_png(tmp_path / f"trimap/{item.name}{ending}", np.full((4, 4), 128, np.uint8))
            again = make("matting_folder", tmp_path, write=False).test()
            assert (again.fingerprint() == plain) == (ending == ".tif")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "alpha/thing 2.png").unlink(), r"fg/thing 2\.png has no partner; put one named thing 2"),
        (lambda root: (root / "fg/thing 2.png").unlink(), r"alpha/thing 2\.png has no partner"),
        (lambda root: shutil.rmtree(root / "bg"), r"bg does not exist; name a folder of images.* in data\.backgrounds"),
        (lambda root: [path.unlink() for path in (root / "bg").iterdir()], r"bg holds no image"),
        (lambda root: shutil.copy(root / "fg/thing 1.png", root / "fg/thing 1.bmp"), r"share a name; keep one"),
    ],
)
def test_a_folder_of_ones_own_with_something_missing(spoil, message, tmp_path):
    data = make("matting_folder", tmp_path)
    spoil(tmp_path)
    for split in (data.train, data.test):
        with pytest.raises(UserError, match=message):
            split()


def test_a_folder_of_ones_own_needs_two_of_each(tmp_path):
    write_matting_folder(tmp_path, foregrounds=1)
    with pytest.raises(UserError, match=r"fg holds 1 of the 2 at least"):
        make("matting_folder", tmp_path, write=False, validation=False).test()
    write_matting_folder(tmp_path / "two", foregrounds=2)
    make("matting_folder", tmp_path / "two", write=False, validation=False).test()
    with pytest.raises(UserError, match=r"fg holds 2 of the 3 at least that are needed, 2 of them held out"):
        make("matting_folder", tmp_path / "two", write=False).test()


def test_the_real_photographs_as_a_folder_of_ones_own(shared, tmp_path):
    source = shared / "data/alphamatting"
    (tmp_path / "fg").symlink_to((source / "input_training_lowres").resolve())
    (tmp_path / "alpha").symlink_to((source / "gt_training_lowres").resolve())
    (tmp_path / "bg").symlink_to((shared / "data/nyu_depth_v2_half/nyu_images").resolve())
    data = create_data("matting_folder", root=str(tmp_path), size=64, test_per_foreground=2)
    train, test = data.train(), data.test()
    assert len(train.foregrounds) + len(test.foregrounds) == 21
    sample = test.sample(0, RNG)
    assert max(sample["image"].shape) == 800
    assert (sample["trimap"] == 128 / 255).any()
    crop = train.sample(0, np.random.default_rng(3))
    composed = crop["alpha"] * crop["fg"] + (1 - crop["alpha"]) * crop["bg"]
    assert (composed - crop["image"]).abs().mean() < 0.02
