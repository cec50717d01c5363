"""Data sets of frames with depth: geometry, files, what is wrong with files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data_support import names, write_frame, write_h5, write_nyuv2, write_nyuv2_h5
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.datasets.nyuv2 import CLASSES
from indexnet.data.depth import SEEN, check_metres, eigen_crop, halved, to_metres
from indexnet.data.io.images import write_png
from indexnet.run.loader import Keyed


def rng(seed=0):
    return np.random.default_rng(seed)


def coordinates(height, width):
    """A frame whose red tells the column, green the row, in steps that bilinear interpolation keeps; and its depth."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([columns * 200 / width + 20, rows * 200 / height + 20, np.full((height, width), 128)], -1)
    return image.round().astype(np.uint8), (columns * 200 / width + 20).round().astype(np.uint8)


def test_classes_belong_to_segmentation():
    assert len(set(CLASSES)) == 39
    assert create_data("nyuv2", root="/nowhere", task="segmentation").classes == CLASSES
    assert create_data("nyuv2", root="/nowhere").classes == ()


def test_metres_of_the_files(tmp_path):
    for number in (0, 17, 18, 254, 255):
        (metres,) = to_metres(np.array([number], np.uint8))
        assert metres == pytest.approx((number + 0.5) / 25.5 if number else 0)
    write_nyuv2(tmp_path)
    write_png(tmp_path / "nyu_depths/0.png", np.full((24, 32), 2345, np.uint16), overwrite=True)  # millimetres
    depth = create_data("nyuv2", root=str(tmp_path)).test().sample(0, rng())["depth"]
    assert depth.unique().tolist() == pytest.approx([2.345])


@pytest.mark.parametrize("size", [224, 50])
def test_test_samples_show_the_middle(tmp_path, size):
    """Against the protocol in its own words: of 250x333 the middle 228x304, scaled to a square."""
    write_nyuv2(tmp_path, size=(240, 320))
    image, depth = coordinates(240, 320)
    depth = rng().integers(18, 255, depth.shape, dtype=np.uint8)
    write_png(tmp_path / "nyu_images/0.png", image, overwrite=True)
    write_png(tmp_path / "nyu_depths/0.png", depth, overwrite=True)
    sample = create_data("nyuv2", root=str(tmp_path), size=size).test().sample(0, rng())
    at = (np.arange(size) + 0.5) / size
    rows, columns = (at * 228 + 11) * 240 / 250, (at * 304 + (1000 / 3 - 304) / 2) * 0.96
    expected = (depth[np.ix_(rows.astype(int), columns.astype(int))] + 0.5) / 25.5
    assert sample["depth"].shape == (1, size, size)
    clear = np.logical_and.outer(*(np.abs(places - places.round()) > 1e-3 for places in (rows, columns)))
    assert clear.mean() > 0.97  # the others lie between two pixels
    assert np.abs(sample["depth"][0].numpy() - expected)[clear].max() < 1e-5
    across, down = np.meshgrid((columns - 0.5) * 200 / 320 + 20, (rows - 0.5) * 200 / 240 + 20)
    assert sample["image"].shape == (3, size, size)
    assert np.abs(sample["image"][0].numpy() * 255 - across).max() < 1.1
    assert np.abs(sample["image"][1].numpy() * 255 - down).max() < 1.1


def fastdepth_places(size, zoom, angle, mirrored, height=240, width=320):
    """Where in the frame each pixel of a training sample comes from, step by step backwards through FastDepth."""
    at = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(at * 304, at * 228)  # before the last scaling
    if mirrored:
        x = 304 - x
    x, y = (x - 152) / zoom, (y - 114) / zoom  # from the middle, before crop and enlargement
    radians = np.deg2rad(angle)
    x, y = np.cos(radians) * x + np.sin(radians) * y, np.cos(radians) * y - np.sin(radians) * x
    return x * height / 250 + width / 2, y * height / 250 + height / 2


@pytest.mark.parametrize("seed", range(6))
def test_training_samples_follow_fastdepth(tmp_path, monkeypatch, seed):
    monkeypatch.setattr("indexnet.data.depth.colour_jitter", lambda image, *_: image)
    write_nyuv2(tmp_path, size=(240, 320))
    image, depth = coordinates(240, 320)
    write_png(tmp_path / "nyu_images/1.png", image, overwrite=True)
    write_png(tmp_path / "nyu_depths/1.png", depth, overwrite=True)
    drawn = rng(seed)
    zoom, angle, mirrored = drawn.uniform(1, 1.5), drawn.uniform(-5, 5), drawn.random() < 0.5
    sample = create_data("nyuv2", root=str(tmp_path)).train().sample(0, rng(seed))
    x, y = fastdepth_places(224, zoom, angle, mirrored)
    inside = (x > 1) & (x < 319) & (y > 1) & (y < 239)
    assert inside.mean() > 0.99
    red, green = sample["image"][0].numpy() * 255, sample["image"][1].numpy() * 255
    assert np.abs(red - ((x - 0.5) * 200 / 320 + 20))[inside].max() < 1.3
    assert np.abs(green - ((y - 0.5) * 200 / 240 + 20))[inside].max() < 1.3
    metres = sample["depth"][0].numpy()
    levels = metres * zoom * 25.5 - 0.5
    assert np.abs(levels - ((x - 0.5) * 200 / 320 + 20))[inside].max() < 1.3  # depth lies where colours lie
    outside = (x < -1) | (x > 321) | (y < -1) | (y > 241)
    assert (metres[outside] == 0).all()


def test_colours_are_changed_in_training_only(root):
    data = create_data("nyuv2", root=str(root / "nyuv2"), size=32)
    means = [data.train().sample(0, rng(i))["image"].mean().item() for i in range(8)]
    assert np.ptp(means) > 0.1
    assert torch.equal(data.test().sample(0, rng(1))["image"], data.test().sample(0, rng(2))["image"])


def test_the_whole_frame_and_eigens_crop(tmp_path):
    """The crop is where the literature has it, 45..471 and 41..601 of 480x640, whatever the frame's size."""
    write_nyuv2(tmp_path, size=(480, 640))
    full = create_data("nyuv2", root=str(tmp_path), evaluation="full", crop="eigen").test().sample(0, rng())
    assert full["image"].shape == (3, 246, 246)  # 224 / 0.912
    valid = np.nonzero(full["depth"][0].numpy() > 0)
    for found, (low, high), length in zip(valid, ((45, 471), (41, 601)), (480, 640), strict=True):
        pixel = length / 246
        assert found.min() * pixel == pytest.approx(low, abs=pixel)
        assert (found.max() + 1) * pixel == pytest.approx(high, abs=pixel)
    network = create_data("nyuv2", root=str(tmp_path), crop="eigen").test().sample(0, rng())["depth"]
    plain = create_data("nyuv2", root=str(tmp_path)).test().sample(0, rng())["depth"]
    assert (plain > 0).all()
    assert torch.equal(network > 0, torch.from_numpy(eigen_crop(224, SEEN))[None])
    assert torch.equal(network[network > 0], plain[network > 0])
    train = create_data("nyuv2", root=str(tmp_path), crop="eigen").train().sample(0, rng())["depth"]
    assert (train > 0).float().mean() > 0.99


def test_frames_are_halved_once():
    image, depth = rng().integers(0, 256, (480, 640, 3), dtype=np.uint8), rng().random((480, 640), np.float32)
    smaller, less = halved(image, depth)
    blocks = image.reshape(240, 2, 320, 2, 3).mean((1, 3))
    assert np.abs(smaller - blocks).max() <= 0.5
    assert np.array_equal(less, depth[1::2, 1::2])
    for height, width in ((240, 320), (24, 20), (359, 300)):
        assert halved(image[:height, :width], depth[:height, :width])[0].shape == (height, width, 3)
    assert halved(image[:427, :561], depth[:427, :561])[1].shape == (213, 280)  # odd sizes


def test_estimates_of_memory_are_right(tmp_path):
    for root, size in ((tmp_path / "a", (24, 32)), (tmp_path / "b", (480, 640))):
        write_nyuv2(root, size=size)
        split = create_data("nyuv2", root=str(root), cache=True).train()
        split.prepare()
        assert split.store.estimate() == split.store.nbytes
    write_nyuv2_h5(tmp_path / "c", (480, 640))
    split = create_data("nyuv2_h5", root=str(tmp_path / "c"), cache=True).train()
    split.prepare()
    assert split.store.estimate() == split.store.nbytes


def test_segmentation(root, tmp_path):
    data = create_data("nyuv2", root=str(root / "nyuv2"), task="segmentation", size=20)
    sample = data.test().sample(1, rng())
    _, labels, _ = write_frame(tmp_path, 2)
    assert np.array_equal(sample["label"].numpy(), labels)
    assert sample["name"] == "2"
    assert data.train().sample(0, rng())["label"].shape == (20, 20)


def test_lists_and_files_must_agree(tmp_path):
    write_nyuv2(tmp_path)
    data = create_data("nyuv2", root=str(tmp_path))
    (tmp_path / "nyu_depths/3.png").unlink()
    with pytest.raises(UserError, match=r"nyu_depths/3\.png is missing, but .*train\.txt lists it"):
        data.train()
    (tmp_path / "nyu_images/4.png").unlink()
    with pytest.raises(UserError, match=r"nyu_depths/3\.png is missing \(and 1 more\)"):
        data.train()
    create_data("nyuv2", root=str(tmp_path), task="segmentation").test()  # needs no depth
    (tmp_path / "test.txt").write_text("0\n0\n")
    with pytest.raises(UserError, match=r"test\.txt lists the frame 0 2 times"):
        data.test()
    (tmp_path / "test.txt").write_text("\n")
    with pytest.raises(UserError, match=r"test\.txt is empty"):
        data.test()


def test_what_is_wrong_with_a_frame(tmp_path):
    write_nyuv2(tmp_path)
    split = create_data("nyuv2", root=str(tmp_path)).test()
    path = tmp_path / "nyu_depths/0.png"
    for array, fragment in (
        (np.zeros((24, 32), np.uint8), "no pixel has a depth"),
        (np.full((24, 30), 80, np.uint8), "the image is 32x24 pixels but its depth is 30x24"),
        (np.full((24, 32, 3), 80, np.uint8), "is no depth map"),
    ):
        write_png(path, array, overwrite=True)
        with pytest.raises(UserError, match=rf"nyu_depths/0\.png.*{fragment}"):
            split.verify(0)
    path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"0\.png cannot be read as an image"):
        split.prepare()
    split.verify(1)


@pytest.mark.parametrize(
    ("depth", "fragment"),
    [
        (np.full((2, 2), np.nan), "no pixel has a depth"),
        (np.array([[1, -1.0]]), "negative at 1 pixels"),
        (np.array([[900.0, np.inf]]), "up to 900, which cannot be metres"),
    ],
)
def test_depth_that_cannot_be(depth, fragment):
    with pytest.raises(UserError, match=f"x.h5.*{fragment}"):
        check_metres("x.h5", depth.astype(np.float32))


def test_h5_splits(root):
    h5 = root / "nyuv2_h5"
    data = create_data("nyuv2_h5", root=str(h5))
    assert {split.split: names(split) for split in (data.train(), data.validation(), data.test())} == {
        "train": ["cafe_1-00006", "den_2-00011", "den_2-00016"],
        "validation": ["cafe_1-00001", "den_2-00001"],
        "test": ["official-00001", "official-00002"],
    }
    everything = create_data("nyuv2_h5", root=str(h5), held_out=False)
    assert len(everything.train()) == 5
    assert everything.validation() is None
    prints = {s.fingerprint() for s in (data.train(), data.validation(), data.test(), everything.train())}
    prints |= {
        create_data("nyuv2_h5", root=str(h5), **o).test().fingerprint() for o in ({"crop": "eigen"}, {"size": 9})
    }
    assert len(prints) == 6


def test_h5_samples_are_the_files(tmp_path):
    depth = np.full((48, 64), 2.5, np.float32)
    depth[:, :32], depth[:10], depth[10:20] = np.nan, 0, -1
    arrays = write_h5(tmp_path / "val/official/00001.h5", depth=depth)
    split = create_data("nyuv2_h5", root=str(tmp_path), size=64, evaluation="full").test()
    sample = split.sample(0, rng())
    assert sample["depth"].unique().tolist() == [0, 2.5]
    expected = cv2.resize(arrays["rgb"].transpose(1, 2, 0), (70, 70), interpolation=cv2.INTER_LINEAR)
    assert np.abs(sample["image"].numpy().transpose(1, 2, 0) * 255 - expected).max() < 6  # of random pixels
    with pytest.raises(UserError, match="negative at"):
        split.verify(0)


@pytest.mark.parametrize(
    ("changed", "fragment"),
    [
        ({"depth": None}, "has no 'depth'; there is: rgb"),
        ({"rgb": None, "image": np.zeros(3)}, "has no 'rgb'; there is: depth, image"),
        ({"rgb": np.zeros((48, 64, 3), np.uint8)}, r"'rgb' is \(48, 64, 3\) uint8; \(3, height, width\) uint8 was"),
        ({"depth": np.ones((1, 48, 64), np.float32)}, r"'depth' is \(1, 48, 64\) float32; \(height, width\)"),
        ({"depth": np.ones((48, 64), np.uint16)}, "'depth' is .* uint16"),
        ({"depth": np.ones((48, 60), np.float32)}, "the image is 64x48 pixels but its depth is 60x48"),
        ({"depth": np.zeros((48, 64), np.float32)}, "no pixel has a depth"),
        ({"depth": np.full((48, 64), 2500, np.float32)}, "cannot be metres"),
    ],
)
def test_what_is_wrong_with_an_h5_file(tmp_path, changed, fragment):
    write_h5(tmp_path / "val/official/00001.h5", **changed)
    with pytest.raises(UserError, match=rf"official/00001\.h5.*{fragment}"):
        create_data("nyuv2_h5", root=str(tmp_path)).test().verify(0)


def test_damaged_h5_files_and_empty_folders(tmp_path):
    file = tmp_path / "val/official/00001.h5"
    write_h5(file)
    split = create_data("nyuv2_h5", root=str(tmp_path)).test()
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"00001\.h5 cannot be read as HDF5 \(.*truncated"):
        split.verify(0)
    file.unlink()
    with pytest.raises(UserError, match=r"00001\.h5 does not exist"):
        split.sample(0, rng())
    with pytest.raises(UserError, match=r"val holds no \.h5 file for the split test"):
        create_data("nyuv2_h5", root=str(tmp_path)).test()


@pytest.mark.parametrize(
    ("method", "cache"), [("fork", False), ("fork", True), pytest.param("spawn", True, marks=pytest.mark.long)]
)
def test_workers_read_h5_files_that_this_process_has_read(root, method, cache):
    split = create_data("nyuv2_h5", root=str(root / "nyuv2_h5"), size=32, cache=cache).train()
    split.prepare()
    expected = [Keyed(split, 0)[0, i] for i in range(len(split))] * 2  # opens all files here first
    keys = [[(0, i)] for i in range(len(split))] * 2
    loader = DataLoader(Keyed(split, 0), batch_sampler=keys, num_workers=2, multiprocessing_context=method)
    for batch, sample in zip(loader, expected, strict=True):
        assert batch["name"] == [sample["name"]]
        assert torch.equal(batch["image"][0], sample["image"])
        assert torch.equal(batch["depth"][0], sample["depth"])


def test_the_real_frames(shared):
    root = str(shared / "data/nyu_depth_v2_half")
    data = create_data("nyuv2", root=root)
    train, test = data.train(), data.test()
    assert (len(train), len(test)) == (795, 654)
    assert not set(names(train)) & set(names(test))
    for index in (0, 100, 653):
        test.verify(index)
        depth = test.sample(index, rng())["depth"]
        assert depth.min() > 0.6
        assert depth.max() <= 10
    sample = create_data("nyuv2", root=root, task="segmentation").test().sample(0, rng())
    assert sample["label"].shape == (240, 320)
    assert 0.5 < (sample["label"] < 39).float().mean() < 1


UNITS = {"millimetres": 1000, "centimetres": 100, "KITTI": 256, "TUM": 5000}


@pytest.mark.parametrize("unit", UNITS)
def test_depth_of_any_unit(tmp_path, capsys, unit):
    write_nyuv2(tmp_path)
    ramp = np.tile(np.linspace(0.7, 3.5, 24, dtype=np.float32)[:, None], (1, 32))
    scale = UNITS[unit]
    for number in range(5):
        write_png(tmp_path / f"nyu_depths/{number}.png", np.round(ramp * scale).astype(np.uint16), overwrite=True)
    options = {"root": str(tmp_path), "size": 24, "evaluation": "full"}
    test = create_data("nyuv2", depth_scale=scale, **options).test()
    test.verify(0)
    depth = test.sample(0, rng())["depth"]
    assert depth.min() == pytest.approx(0.7, abs=0.08)
    assert depth.max() == pytest.approx(3.5, abs=0.08)
    assert main(["data", "check", "nyuv2", "task=depth", f"root={tmp_path}", f"depth_scale={scale}"]) == 0
    assert f"depth from 0.70 to 3.50 m, median 2.04 m; {scale} units of the files a metre" in said(capsys)
    assert main(["data", "check", "nyuv2", "task=depth", f"root={tmp_path}"]) == 0
    words = f"depth, test: depth from {0.7 * scale / 1000:.2f} to {3.5 * scale / 1000:.2f} m"
    assert words in said(capsys)
    prints = {create_data("nyuv2", depth_scale=s, **options).test().fingerprint() for s in (None, scale, scale + 1)}
    assert len(prints) == 3


def said(capsys):
    return capsys.readouterr().out.replace("\n", " ")


def test_the_unit_of_h5_files_and_of_other_things(tmp_path):
    write_h5(tmp_path / "val/official/00001.h5", depth=np.full((48, 64), 2500, np.float32))
    data = {s: create_data("nyuv2_h5", root=str(tmp_path), depth_scale=s).test() for s in (None, 1000, 1)}
    assert data[1000].sample(0, rng())["depth"].unique().tolist() == [2.5]
    data[1000].verify(0)
    for scale in (None, 1):
        with pytest.raises(UserError, match=r"up to 2500, which cannot be metres.*; give data\.depth_scale"):
            data[scale].verify(0)
    for wrong in (0, -1, "mm", True, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"data\.depth_scale must be the number of units in a metre"):
            create_data("nyuv2", root="/nowhere", depth_scale=wrong)
    with pytest.raises(UserError, match=r"data\.depth_scale has no effect on the task segmentation"):
        create_data("nyuv2", root="/nowhere", task="segmentation", depth_scale=100)
