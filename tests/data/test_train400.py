"""The gray photographs of the DnCNN protocol."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from data_support import write_train400
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.io.images import image_size, read_gray, write_png


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train400")
    write_train400(folder)
    return folder


def build(root, **options):
    return create_data("train400", **{"root": str(root), "size": 8, "stride": 3, "scales": [0.5, 1.0], **options})


def test_an_epoch_is_every_patch_once(root):
    train = build(root).train()
    # 24x20 and 12x10, patches of 8 every 3 pixels: 6 x 5 and 2 x 1
    assert len(train) == 3 * (6 * 5 + 2 * 1)
    names = [train.name(i) for i in range(len(train))]
    assert len(set(names)) == len(names)
    assert names[:3] == ["test_001_x0.5_0_0", "test_001_x0.5_3_0", "test_001_x1_0_0"]
    for index in (2, 17, len(train) - 1):
        stem, scale, top, left = names[index].rsplit("_", 3)
        assert scale == "x1"
        image = read_gray(root / f"Train400/{stem}.png")
        patch = image[int(top) : int(top) + 8, int(left) : int(left) + 8]
        ways = {w.tobytes() for k in range(4) for w in (np.rot90(patch, k), np.rot90(patch, k)[:, ::-1])}
        seen = set()
        for seed in range(80):
            sample = train.sample(index, np.random.default_rng(seed))
            assert sample["name"] == names[index]
            assert sample["image"].shape == (1, 8, 8)
            seen.add((sample["image"][0] * 255).round().to(torch.uint8).numpy().tobytes())
        assert seen == ways
        assert len(ways) == 8


def test_scaled_photographs_are_antialiased(root):
    train = build(root).train()
    image = Image.open(root / "Train400/test_001.png")
    small = np.asarray(image.resize((10, 12), Image.Resampling.BICUBIC))
    assert np.array_equal(train.store[0][0], small)
    assert np.array_equal(train.store[0][1], np.asarray(image))
    assert build(root, cache=True).train().prepare() == "3 photographs at 2 scales decoded once, 1.8 kB in memory"


def test_two_test_sets_whole(root):
    data = build(root)
    tests = data.tests()
    assert list(tests) == ["bsd68", "set12"]
    assert [len(split) for split in tests.values()] == [2, 2]
    assert data.test().fingerprint() == tests["bsd68"].fingerprint() != tests["set12"].fingerprint()
    sample = tests["bsd68"].sample(1, np.random.default_rng(0))
    assert sample["name"] == "test002"
    assert sample["image"].shape == (1, 25, 23)
    assert tests["set12"].name(0) == "01"
    assert "2 photographs decoded once" in tests["set12"].prepare()
    assert build(root, task="reconstruction").task == "reconstruction"


def test_fingerprints(root):
    prints = [build(root, **o).train().fingerprint() for o in ({}, {"size": 9}, {"stride": 4}, {"scales": [1.0]})]
    assert len(set(prints)) == 4


def test_photographs_smaller_than_a_patch_are_refused(root):
    with pytest.raises(UserError, match=r"test_001\.png is 10x12 pixels at scale 0\.5, smaller than a patch .*=11\)"):
        build(root, size=11).train()


def test_files_that_are_wrong(tmp_path):
    write_train400(tmp_path)
    (tmp_path / "Set12/01.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"Set12/01\.png cannot be read as an image"):
        build(tmp_path).tests()["set12"].verify(0)
    good = (tmp_path / "Train400/test_002.png").read_bytes()
    (tmp_path / "Train400/test_002.png").write_bytes(good[:-60])  # the header is whole
    train = build(tmp_path, cache=True).train()
    with pytest.raises(UserError, match=r"test_002\.png cannot be read as an image"):
        train.prepare()
    problems = 0
    for index in range(len(train)):
        try:
            train.verify(index)
        except UserError:
            problems += 1
    assert problems == 1  # once a file, not once a patch
    (tmp_path / "Train400/test_002.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"test_002\.png cannot be read as an image"):
        build(tmp_path).train()


def test_sizes_and_gray_of_all_kinds_of_files(tmp_path):
    g = np.random.default_rng(0)
    colour = g.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    write_png(tmp_path / "colour.png", colour)
    assert image_size(tmp_path / "colour.png") == (6, 9)
    luma = read_gray(tmp_path / "colour.png")
    assert luma.shape == (6, 9)
    assert np.abs(luma - colour @ [0.299, 0.587, 0.114]).max() < 1
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colour).save(tmp_path / "turned.jpg", exif=exif)
    assert image_size(tmp_path / "turned.jpg") == read_gray(tmp_path / "turned.jpg").shape == (9, 6)
    with pytest.raises(UserError, match="does not exist"):
        image_size(tmp_path / "nothing.png")


def test_the_real_photographs(shared):
    data = create_data("train400", root=str(shared / "data/denoise_dncnn"))
    train = data.train()
    assert len(train) == 238400
    assert train.sample(200000, np.random.default_rng(0))["image"].shape == (1, 40, 40)
    assert {name: len(split) for name, split in data.tests().items()} == {"bsd68": 68, "set12": 12}
    sizes = {tuple(data.test().sample(i, np.random.default_rng(0))["image"].shape) for i in range(68)}
    assert sizes == {(1, 321, 481), (1, 481, 321)}
    assert train.prepare() == "400 photographs at 4 scales decoded once, 38.1 MB in memory"
