"""Photographs for denoising: those of the DnCNN protocol, and a person's own."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data_support import CODE, random_image, write_coloured, write_denoising_folder, write_train400
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.io.images import read_gray, write_png


@pytest.fixture
def root(root):
    return root / "train400"


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


@pytest.mark.long
def test_the_real_photographs(shared):
    data = create_data("train400", root=str(shared / "data/denoise_dncnn"))
    train = data.train()
    assert len(train) == 238400
    assert train.sample(200000, np.random.default_rng(0))["image"].shape == (1, 40, 40)
    assert {name: len(split) for name, split in data.tests().items()} == {"bsd68": 68, "set12": 12}
    sizes = {tuple(data.test().sample(i, np.random.default_rng(0))["image"].shape) for i in range(68)}
    assert sizes == {(1, 321, 481), (1, 481, 321)}
    assert train.prepare() == "400 photographs at 4 scales decoded once, 38.1 MB in memory"


# --- denoising_folder: a person's own files -------------------------------------------------------------------------


def denoising(root, **options):
    return create_data("denoising_folder", **{"root": str(root), "size": 12, "stride": 4} | options)


def test_each_test_set_has_its_name_and_colours_stay(tmp_path):
    write_denoising_folder(tmp_path)
    write_png(tmp_path / "test/.hidden/x.png", random_image(0))
    data = denoising(tmp_path, channels=3)
    assert list(data.tests()) == ["Set14", "Set5"]
    assert [len(split) for split in data.tests().values()] == [2, 2]
    assert len(data.validation()) == 2
    sample = data.tests()["Set5"].sample(1, np.random.default_rng(0))
    expected = np.asarray(Image.open(tmp_path / "test/Set5/b.png"))
    assert np.array_equal((sample["image"] * 255).round().byte().permute(1, 2, 0), expected)
    assert list(denoising(tmp_path, tests=["test/Set5", "validation"]).tests()) == ["Set5", "validation"]
    assert list(denoising(tmp_path, tests="test/Set5").tests()) == ["Set5"]
    assert list(denoising(tmp_path / "test/Set5/../..", tests="train", train="test/Set5").tests()) == ["train"]
    assert data.train().sample(0, np.random.default_rng(0))["image"].shape == (3, 12, 12)
    prints = {denoising(tmp_path, channels=c).train().fingerprint() for c in (1, 3)}
    assert len(prints) == 2
    write_png(tmp_path / "test/loose.png", random_image(1))
    with pytest.raises(UserError, match=r"test holds both images \(loose\.png\) and folders of images \(Set14\)"):
        data.tests()
    (tmp_path / "test/loose.png").rename(tmp_path / "loose.png")
    write_png(tmp_path / "test/Deep/x2/a.png", random_image(1))
    with pytest.raises(UserError, match=r"test/Deep holds images in folders of its own only, .*\[test/Deep/x2\]"):
        data.tests()
    (tmp_path / "test/Deep").rename(tmp_path / "Deep")
    (tmp_path / "loose.png").rename(tmp_path / "test/loose.png")
    for folder in ("Set5", "Set14", ".hidden"):
        (tmp_path / "test" / folder).rename(tmp_path / folder)
    assert list(data.tests()) == [""]
    assert data.test().name(0) == "loose"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_stay(tmp_path, channels, ending):
    g = np.random.default_rng(0)
    gray, colour = g.integers(0, 65536, (24, 20), dtype=np.uint16), g.integers(0, 65536, (24, 20, 3), dtype=np.uint16)
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / f"{folder}/gray{ending}"), gray)
        cv2.imwrite(str(tmp_path / f"{folder}/tinted{ending}"), colour[..., ::-1])
    data = denoising(tmp_path, channels=channels, scales=[1.0, 0.5], size=10, cache=True)
    test, train = data.test(), data.train()
    found = [test.sample(index, np.random.default_rng(0))["image"].double().numpy() * 65535 for index in range(2)]
    luma = np.round(colour.astype(np.float64) @ [0.299, 0.587, 0.114])
    wanted = [gray[None], luma[None]] if channels == 1 else [np.stack([gray] * 3), colour.transpose(2, 0, 1)]
    assert np.abs(found[0] - wanted[0]).max() < 0.01
    assert np.abs(found[1] - wanted[1]).max() < (1.01 if channels == 1 else 0.01)
    assert train.store.load(0)[0].dtype == train.store.load(0)[1].dtype == np.uint16
    small = np.asarray(Image.fromarray(gray.astype(np.float32)).resize((10, 12), Image.Resampling.BICUBIC))
    assert np.abs(train.store.load(0)[1].reshape(12, 10, -1)[..., 0] - small.clip(0, 65535)).max() <= 0.5
    train.prepare()
    assert train.store.estimate() == train.store.nbytes
    ways = {tuple(train.sample(0, np.random.default_rng(k))["image"].flatten()[:3].tolist()) for k in range(40)}
    assert len(ways) == 8


def test_sixteen_bits_that_are_eight_are_refused(tmp_path):
    write_png(tmp_path / "test/dark.png", np.full((12, 12), 200, np.uint16))
    with pytest.raises(UserError, match=r"dark\.png is a 16-bit file with no value above 255"):
        denoising(tmp_path).test().sample(0, np.random.default_rng(0))
    content = (tmp_path / "test/dark.png").read_bytes()
    (tmp_path / "test/dark.png").write_bytes(content[:60])
    with pytest.raises(UserError, match=r"dark\.png cannot be read"):
        denoising(tmp_path).test().sample(0, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"channels": 2}, r"data\.channels must be one of 1, 3"),
        ({"tests": []}, r"data\.tests must be folders"),
        ({"tests": ["a/Set5", "b/Set5"]}, "of different names"),
        ({"tests": 5}, r"data\.tests"),
        ({"train": ""}, r"data\.train must be a folder"),
    ],
)
def test_options_that_cannot_be(options, fragment):
    with pytest.raises(UserError, match=fragment):
        denoising("/nowhere", **options)


@pytest.mark.long
def test_both_train_and_each_test_set_is_reported_by_name(tmp_path):
    write_denoising_folder(tmp_path / "d", size=(64, 64))
    for k in range(6):
        write_coloured(tmp_path / f"s/images/{k}.png", tmp_path / f"s/labels/{k}.png", k, (64, 64))
    (tmp_path / "s/classes.txt").write_text("".join(f"{r} {g} {b} {name}\n" for name, (r, g, b) in CODE.items()))
    common = ["training.steps=2", "training.batch_size=2", "training.size=32", "schedule=constant", "logger=none"]
    common += [f"paths.runs={tmp_path / 'runs'}", "trainer.accelerator=cpu", "trainer.devices=1"]
    words = ["task=denoising", "network=dncnn", "network.depth=3", "data=denoising_folder", "data.channels=3"]
    assert main(["train", *words, *common, f"data.root={tmp_path / 'd'}"]) == 0
    words = ["task=segmentation", "encoder.name=vgg11_bn", "data=segmentation_folder", "data.void=[Void]"]
    assert main(["train", *words, *common, f"data.root={tmp_path / 's'}"]) == 0
    found = [set(json.loads(path.read_text())["metrics"]) for path in tmp_path.glob("runs/**/record.json")]
    assert {"Set5/psnr", "Set5/ssim", "Set14/psnr", "Set14/ssim"} in found
    assert {"miou", "pixel_accuracy"} in found
