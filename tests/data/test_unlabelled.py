"""Photographs without alpha: their samples, how many, and which are refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from data_support import write_matting_folder
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.holdout import hold_out
from indexnet.data.io.images import write_png
from indexnet.networks import create_network
from indexnet.tasks.matting import MattingTask


@pytest.fixture
def place(tmp_path):
    """A folder to train on, and one of two photographs with trimaps of another kind."""
    write_matting_folder(tmp_path / "mine", 3, 12)
    write_matting_folder(tmp_path / "other", 2, 12)
    photos = tmp_path / "photos"
    (photos / "trimap").mkdir(parents=True)
    (photos / "fg").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a", (40, 52)), ("b", (18, 30))):  # one is smaller than a sample
        write(photos / "fg" / f"{name}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        trimap = np.zeros(size, np.uint8)
        trimap[5:12], trimap[12:] = 128, 255
        write(photos / "trimap" / f"{name}.png", trimap)
    return tmp_path


def write(path, array):
    write_png(path, array)


def data(place, size=24, **options):
    given = {"unlabelled": str(place / "photos"), "unlabelled_share": 0.3, **options}
    return create_data("matting_folder", root=str(place / "mine"), size=size, per_foreground=10, **given)


@pytest.mark.parametrize("augment", ["none", "af+afb+ac"])
def test_a_share_of_the_samples_are_photographs(augment, place):
    split = data(place, augment=augment).train()
    samples = [split.sample(k % len(split), np.random.default_rng(k)) for k in range(200)]
    photos = [each for each in samples if not each["labelled"]]
    assert abs(len(photos) / 200 - 0.3) < 4 * np.sqrt(0.21 / 200)
    assert {each["name"] for each in photos} == {"unlabelled/a", "unlabelled/b"}
    for each in photos:
        assert each["pseudo"]
        assert not each["composed"]
        assert torch.equal(each["alpha"], each["trimap"])
        assert torch.equal(each["augmented"], each["image"])
        assert each["image"].shape == (3, 24, 24)
        assert set((each["trimap"] * 255).unique().round().int().tolist()) <= {0, 128, 255}
    assert default_collate(samples[:20])["labelled"].dtype == torch.bool  # all have the same keys
    again = split.sample(0, np.random.default_rng(7))
    assert all(torch.equal(again[key], value) for key, value in split.sample(0, np.random.default_rng(7)).items()
               if key != "name")  # fmt: skip
    plain = data(place, unlabelled=None).train()
    assert plain.fingerprint() != split.fingerprint()
    assert "labelled" not in plain.sample(0, np.random.default_rng(0))


def test_nobody_validates_on_them(place):
    training, validation = hold_out(data(place, augment="af").train(), 0.3)
    rng = np.random.default_rng(0)
    assert all("labelled" in training.sample(k % len(training), rng) for k in range(5))
    keys = {key for k in range(len(validation)) for key in validation.sample(k, rng)}
    assert not keys & {"labelled", "pseudo", "composed"}


def test_they_add_zero_before_there_are_labels_and_something_after(place):
    split = data(place, 32).train()
    samples = (split.sample(0, np.random.default_rng(k)) for k in range(50))
    batch = default_collate([each for each in samples if not each["labelled"]][:2])
    torch.manual_seed(0)
    network = create_network(
        "matting_unet", encoder={"name": "mobilenetv2_released", "width": 0.25}, context="none", resampling="bilinear"
    )
    terms = dict.fromkeys(("alpha", "composition", "laplacian", "gradient", "gradient_penalty"), 1.0)
    before = MattingTask(network, pseudo_from=1, loss=terms).losses(batch)
    assert {key: value.item() for key, value in before.items()} == dict.fromkeys(("loss", *terms), 0.0)
    after = MattingTask(network, pseudo_from=0, loss=terms).losses(batch)
    assert after["alpha"].item() > 0
    assert after["composition"].item() == 0


def test_a_folder_without_photographs_is_refused(place):
    shutil.rmtree(place / "photos" / "fg")
    with pytest.raises(UserError, match=r"photos/fg does not exist; name a folder of images"):
        data(place).train()
    (place / "photos" / "fg").mkdir()
    with pytest.raises(UserError, match=r"photos/fg holds no image"):
        data(place).train()


def test_a_photograph_without_a_trimap_and_a_trimap_of_another_size_are_refused(place):
    write(place / "photos" / "fg" / "c.png", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(UserError, match=r"trimap/c\.png is missing; data\.unlabelled needs a trimap for .*c\.png"):
        data(place).train()
    write(place / "photos" / "trimap" / "c.png", np.zeros((20, 21), np.uint8))
    split = data(place, unlabelled_share=0.9).train()
    with pytest.raises(UserError, match="must be of"):
        [split.sample(0, np.random.default_rng(k)) for k in range(20)]


def test_photographs_of_the_test_split_are_refused_by_their_content(place):
    split = data(place).test()
    for number, path in enumerate((split.foregrounds[0].colour, split.backgrounds[0])):
        taken = place / "photos" / "fg" / f"renamed{number}{path.suffix}"
        shutil.copy(path, taken)
        write(place / "photos" / "trimap" / f"renamed{number}.png", np.zeros((9, 9), np.uint8))
        with pytest.raises(UserError) as caught:
            data(place).train()
        assert f"{taken} is the test image {path}" in str(caught.value)
        taken.unlink()
    data(place).train()


@pytest.mark.parametrize("share", [0, 1, -0.1, "half"])
def test_impossible_shares(share, place):
    with pytest.raises(UserError, match=r"^data\.unlabelled_share=.* must be a share between 0 and 1"):
        data(place, unlabelled_share=share).train()


def test_they_are_none_of_a_further_test_set_either(place):
    from indexnet.run.config import compose, freeze
    from indexnet.run.further_tests import further_splits
    from indexnet.run.schema import read_config

    portraits = place / "ppm"
    for folder, source in (("image", "fg"), ("matte", "trimap")):
        shutil.copytree(place / "photos" / source, portraits / folder)
    words = ["task=matting", "data=matting_folder", f"data.root={place}/mine", f"data.unlabelled={place}/photos"]
    config = read_config(freeze(compose([*words, f"tests=[{{name: ppm100, root: {portraits}}}]"])))
    with pytest.raises(UserError, match=r"^tests, ppm100: .*fg/a\.png is the test image .*; or leave ppm100 out"):
        further_splits(config)
    for name, size in (("a", (40, 52)), ("b", (18, 30))):
        (portraits / "image" / f"{name}.png").unlink()
        write(portraits / "image" / f"{name}.png", np.zeros((*size, 3), np.uint8))
    assert len(further_splits(config)["ppm100"]) == 2


def test_a_run_too_short_for_pseudo_labels_is_told(place):
    task = MattingTask({"name": "matting_unet", "encoder": {"name": "mobilenetv2_released"}}, pseudo_from=4)
    sample = data(place, unlabelled=None, augment="af+afb+ac").train().sample(0, np.random.default_rng(0))
    assert "they begin at step 4 (task.pseudo_from), and this run takes 4" in task.training_remark(sample, 4)
    assert task.training_remark(sample, 5) == ""
    plain = data(place, unlabelled=None, augment="af").train().sample(0, np.random.default_rng(0))
    assert task.training_remark(plain, 4) == ""
