"""Data sets of photographs with label maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from data_support import WRITERS, write_camvid, write_pair, write_sunrgbd
from indexnet.core.errors import UserError
from indexnet.data import IGNORE, create_data
from indexnet.data.io.images import write_png
from indexnet.data.segmentation import read_labels

CODING = {"camvid": (11, 0, (11,)), "sunrgbd": (37, 1, (0,)), "ade20k": (150, 1, (0,))}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    found = {}
    for name in CODING:
        found[name] = tmp_path_factory.mktemp(name)
        WRITERS[name](found[name])
    return found


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", CODING)
def test_test_samples_are_the_files(name, roots):
    count, first, void = CODING[name]
    data = create_data(name, root=str(roots[name]))
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
def test_training_samples_are_crops(name, roots):
    data = create_data(name, root=str(roots[name]), size=16)
    train = data.train()
    for index in range(len(train)):
        sample = train.sample(index, rng(5))
        assert sample["image"].shape == (3, 16, 16)
        assert sample["label"].shape == (16, 16)
    prints = {s.fingerprint() for s in (train, data.test())}
    prints |= {create_data(name, root=str(roots[name]), **o).train().fingerprint() for o in ({}, {"scale": [1, 1]})}
    assert len(prints) == 4


def test_small_images_are_padded(roots):
    sample = create_data("camvid", root=str(roots["camvid"]), size=64, scale=[0.5, 0.5]).train().sample(0, rng())
    counted = sample["label"] != IGNORE
    assert 0 < counted.sum() <= 12 * 10
    empty = sample["image"][:, ~counted.any(1)]
    assert torch.allclose(empty[:, 0, 0], torch.tensor([0.485, 0.456, 0.406]), atol=0.002)


def test_camvid_has_three_splits(roots):
    data = create_data("camvid", root=str(roots["camvid"]))
    assert [len(s) for s in (data.train(), data.validation(), data.test())] == [3, 2, 2]
    assert [s.split for s in (data.train(), data.validation(), data.test())] == ["train", "validation", "test"]
    assert data.validation().sample(1, rng())["image"].shape == (3, 25, 20)
    assert create_data("ade20k", root=str(roots["ade20k"])).validation() is None
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


def test_label_files_of_all_kinds(tmp_path):
    numbers = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)
    path = tmp_path / "labels.png"
    palette = Image.fromarray(numbers, mode="P")
    palette.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200, 50, 50, 50])
    palette.save(path)
    assert np.array_equal(read_labels(path), numbers)
    Image.fromarray(numbers.astype(np.uint16)).save(path)
    assert np.array_equal(read_labels(path), numbers)
    for bits, top in ((2, 4), (4, 16)):  # a gray PNG of few levels, as optimisers write them
        levels = np.arange(8, dtype=np.uint8).reshape(2, 4) % top
        path.write_bytes(gray_png(levels, bits))
        assert np.array_equal(read_labels(path), levels)
    Image.fromarray(numbers > 1).save(path)
    assert np.array_equal(read_labels(path), numbers > 1)
    Image.fromarray(np.full((2, 2), 300, np.uint16)).save(path)
    with pytest.raises(UserError, match="holds the label 300"):
        read_labels(path)
    with pytest.raises(UserError, match="does not exist"):
        read_labels(tmp_path / "nothing.png")


def gray_png(levels, bits):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b""
    for row in levels:
        packed = int("".join(f"{v:0{bits}b}" for v in row), 2)
        rows += b"\0" + packed.to_bytes(len(row) * bits // 8, "big")
    head = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


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


def test_lists_with_the_folders_of_another_machine_are_read(tmp_path):
    write_camvid(tmp_path)
    lists = tmp_path / "train.txt"
    lines = [" ".join(f"/SegNet/CamVid/{word}" for word in line.split()) for line in lists.read_text().splitlines()]
    lists.write_text("\n".join(lines))
    assert len(create_data("camvid", task="segmentation", root=str(tmp_path), size=16).train()) == 3
