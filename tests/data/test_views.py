"""Views of training that other systems than the first ones have: whole photographs, and Hu et al.'s of a frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_support import write_nyuv2, write_png
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.holdout import hold_out
from indexnet.data.transforms import lighting_noise
from indexnet.networks.imagenet import normalise
from indexnet.run.loader import StepStream, train_loader


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def folder(tmp_path):
    """A data set of one wide and one tall photograph, whose red tells the column, with two classes."""
    for name, shape in (("wide", (45, 60)), ("tall", (80, 50))):
        columns = np.broadcast_to(np.arange(shape[1], dtype=np.uint8), shape)
        write_png(tmp_path / f"images/{name}.png", np.stack([4 * columns, *[np.full(shape, 90, np.uint8)] * 2], -1))
        write_png(tmp_path / f"labels/{name}.png", (columns >= shape[1] // 2).astype(np.uint8))
    (tmp_path / "classes.txt").write_text("left\nright\n")
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.txt").write_text("images/wide.png labels/wide.png\nimages/tall.png labels/tall.png\n")
    return tmp_path


def whole(folder, **options):
    return create_data(
        "segmentation_folder", root=str(folder), task="segmentation", size=45, pipeline="csail", **options
    )


def test_a_view_is_the_whole_photograph_at_a_random_short_side(folder):
    split = whole(folder).train()
    seen = {tuple(split.sample(index, rng(seed))["image"].shape[1:]) for index in (0, 1) for seed in range(40)}
    wide = {(side, side * 60 // 45) for side in (30, 37, 45, 52, 60)} | {(37, 50), (52, 70)}
    assert {size for size in seen if size[1] > size[0]} <= wide
    tall = {size for size in seen if size[0] > size[1]}
    assert len(tall) == 5
    assert max(tall) == (96, 60)
    for seed in range(8):
        sample = split.sample(0, rng(seed))
        left, right = sample["label"][:, 2], sample["label"][:, -3]
        mirrored = bool(sample["image"][0, 5, 2] > sample["image"][0, 5, -3])
        assert (left[0], right[0]) == ((1, 0) if mirrored else (0, 1))


def test_batches_are_padded_to_multiples_of_32(folder):
    for option, padding in (("ignore", 255), ("class0", 0)):
        split = whole(folder, padding_label=option).train()
        batch = next(iter(train_loader(split, StepStream(2, 2, 1, seed=0), 0)))
        images, labels = batch["image"], batch["label"]
        assert images.shape[0] == 2
        assert all(side % 32 == 0 for side in images.shape[2:])
        for image, label, name in zip(normalise(images), labels, batch["name"], strict=True):
            padded = (image == 0).all(0)
            assert padded.any()
            assert (label[padded] == padding).all()
            assert (label[~padded] < 2).all()
            rows, columns = (~padded).any(1).sum(), (~padded).any(0).sum()
            assert not padded[:rows, :columns].any()  # it lies in the upper left
            assert (columns > rows) == (name == "wide")


def test_what_is_held_out_of_whole_photographs_is_padded_too_and_tested_one_by_one(folder):
    rest, held = hold_out(whole(folder).train(), 0.5)
    assert not held.one_size
    assert rest.collate([rest.sample(0, rng())])["image"].shape[2] % 32 == 0


def test_options_that_mean_nothing_are_refused(folder, tmp_path):
    def refused(name: str = "segmentation_folder", **options: object) -> str:
        with pytest.raises(UserError) as error:
            create_data(name, root=str(folder), **options)
        return str(error.value)

    assert "data.pipeline must be one of None, csail; got 'csial'." in refused(pipeline="csial")
    assert "data.padding_label means nothing to random crops" in refused(padding_label="class0")
    assert "data.scale means nothing to data.pipeline=csail" in refused(pipeline="csail", scale=[1.0, 2.0])
    assert "data.pipeline must be one of None, hu; got 'csail'." in refused("nyuv2", task="depth", pipeline="csail")
    assert "one of None, csail; got 'hu'." in refused("nyuv2", task="segmentation", pipeline="hu")
    assert "data.crop=eigen is no part of data.pipeline=hu" in refused("nyuv2", pipeline="hu", crop="eigen")
    plain = create_data("segmentation_folder", root=str(folder), task="segmentation", size=45)
    assert plain.train().fingerprint() != whole(folder).train().fingerprint()


@pytest.fixture
def frames(tmp_path):
    """Frames of 240x320 whose depth is one of two levels; red tells the column of the first."""
    write_nyuv2(tmp_path, size=(240, 320))
    columns = np.broadcast_to(np.arange(320) * 200 // 320 + 20, (240, 320)).astype(np.uint8)
    for number in (0, 1):
        write_png(tmp_path / f"nyu_images/{number}.png", np.stack([columns, *[np.full_like(columns, 128)] * 2], -1),
                  overwrite=True)  # fmt: skip
        write_png(tmp_path / f"nyu_depths/{number}.png", columns, overwrite=True)
    return tmp_path


def test_hu_sees_the_middle_of_a_frame_pixel_by_pixel(frames):
    split = create_data("nyuv2", root=str(frames), pipeline="hu", size=228).test()
    sample = split.sample(0, rng())
    columns = (np.arange(8, 312) * 200 // 320 + 20).astype(np.float32)
    assert sample["image"].shape == (3, 228, 304)
    assert torch.equal(sample["image"][0] * 255, torch.from_numpy(columns).expand(228, 304))
    torch.testing.assert_close(sample["depth"][0], torch.from_numpy((columns + 0.5) / 25.5).expand(228, 304))
    full = create_data("nyuv2", root=str(frames), pipeline="hu", size=228, evaluation="full").test().sample(0, rng())
    assert full["depth"].shape == (1, 240, 320)
    assert torch.equal(full["depth"][0, 6:234, 8:312], sample["depth"][0])
    small = create_data("nyuv2", root=str(frames), pipeline="hu", size=57).test().sample(0, rng())
    assert small["image"].shape == (3, 57, 76)


def test_hu_turns_and_mirrors_and_never_scales(frames):
    split = create_data("nyuv2", root=str(frames), pipeline="hu", size=228).train()
    angles, mirrored = [], []
    for seed in range(40):
        depth = split.sample(0, rng(seed))["depth"][0].numpy()
        measured = np.where(depth > 0, depth, np.nan)
        rows, columns = np.mgrid[-20:21, -20:21]
        across, down = np.linalg.lstsq(
            np.stack([columns.ravel(), rows.ravel(), np.ones(41 * 41)], 1),
            measured[94:135, 132:173].ravel(),
            rcond=None,
        )[0][:2]
        slope = 200 / 320 / 25.5
        assert np.hypot(across, down) == pytest.approx(slope, rel=0.02)  # neither scaled nor divided
        mirrored.append(across < 0)
        angles.append(np.degrees(np.arctan(down / across)))
    assert 0.3 < np.mean(mirrored) < 0.7
    assert 2 < np.std(angles) < 4
    assert np.abs(angles).max() < 5.6


def test_lighting_noise_is_one_colour_along_the_principal_ones():
    image = np.full((4, 5, 3), 120, np.uint8)
    shifts = np.stack([lighting_noise(image, 0.1, rng(seed))[0, 0] - 120.0 for seed in range(2000)])
    noisy = lighting_noise(image, 0.1, rng(3))
    assert (noisy == noisy[0, 0]).all()
    axes = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    spread = 255 * 0.1 * np.array([0.2175, 0.0188, 0.0045])
    assert np.std(shifts @ axes, axis=0) == pytest.approx(np.sqrt(spread**2 + 1 / 12), rel=0.06)  # rounded to 8 bits
