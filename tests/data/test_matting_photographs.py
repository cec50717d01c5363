"""Photographs with mattes: ``alphamatting``, ``alphamatting_test``, and ``aim500`` with its composites."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from data_support import levels, make, names, write_alphamatting, write_alphamatting_test
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.base import NoSplitError
from indexnet.data.io.images import read_alpha, read_image, write_png

RNG = np.random.default_rng(0)


def test_alphamatting_takes_photographs_by_name(tmp_path):
    write_alphamatting(tmp_path, ("GT01", "GT02", "GT03"))
    chosen = create_data("alphamatting", root=str(tmp_path), names=["GT03", "GT01"]).test()
    assert names(chosen) == ["GT01", "GT03"]
    every = create_data("alphamatting", root=str(tmp_path)).test()
    assert names(every) == ["GT01", "GT02", "GT03"]
    assert chosen.fingerprint() != every.fingerprint()
    with pytest.raises(UserError, match=r"unknown photograph in data\.names 'GT3'\. Did you mean 'GT03'"):
        create_data("alphamatting", root=str(tmp_path), names=["GT3"]).test()
    assert names(create_data("alphamatting", root=str(tmp_path), names="GT02").test()) == ["GT02"]
    for wrong in ("", [], ["GT01", "GT01"], [1]):
        with pytest.raises(UserError, match=r"data\.names must be a list of different names"):
            create_data("alphamatting", root=str(tmp_path), names=wrong)


def test_the_two_trimap_sets_are_told_apart(tmp_path):
    write_alphamatting(tmp_path)
    shutil.rmtree(tmp_path / "trimap_training_lowres/Trimap2")
    shutil.copytree(tmp_path / "trimap_training_lowres/Trimap1", tmp_path / "trimap_training_lowres/Trimap2")
    one, two = (create_data("alphamatting", root=str(tmp_path), trimap=f"Trimap{k}").test() for k in (1, 2))
    assert one.fingerprint() != two.fingerprint()


def test_the_benchmark_has_three_splits_and_no_alpha(tmp_path):
    write_alphamatting_test(tmp_path)
    for number in (2, 3):  # three sets of the same bytes are still three
        shutil.rmtree(tmp_path / f"trimap_lowres/Trimap{number}")
        shutil.copytree(tmp_path / "trimap_lowres/Trimap1", tmp_path / f"trimap_lowres/Trimap{number}")
    data = create_data("alphamatting_test", root=str(tmp_path))
    tests = data.tests()
    assert list(tests) == ["Trimap1", "Trimap2", "Trimap3"]
    assert len({split.fingerprint() for split in tests.values()}) == 3
    for split in tests.values():
        assert names(split) == ["doll", "troll"]
        assert split.sample(0, RNG).keys() == {"image", "trimap", "name"}
    with pytest.raises(NoSplitError, match="has no mattes to train with"):
        data.train()
    (tmp_path / "trimap_lowres/Trimap3/doll.png").unlink()
    with pytest.raises(UserError, match=r"Trimap3/doll\.png is missing"):
        data.tests()


def test_alphamatting_refuses_training_and_names_files(tmp_path):
    write_alphamatting(tmp_path)
    data = create_data("alphamatting", root=str(tmp_path))
    with pytest.raises(UserError, match="for testing only"):
        data.train()
    assert len(data.test()) == 2
    with pytest.raises(UserError, match="Trimap1, Trimap2"):
        create_data("alphamatting", root=str(tmp_path), trimap="Trimap3")
    write_png(tmp_path / "gt_training_lowres/GT01.png", np.zeros((24, 21), np.uint8), overwrite=True)
    with pytest.raises(UserError, match=r"gt_training_lowres/GT01\.png is 21x24 pixels but .*GT01\.png is 20x24"):
        data.test().sample(0, RNG)
    (tmp_path / "trimap_training_lowres/Trimap1/GT02.png").unlink()
    with pytest.raises(UserError, match=r"Trimap1/GT02\.png is missing"):
        data.test()
    with pytest.raises(UserError, match="does not exist"):
        create_data("alphamatting", root=str(tmp_path / "nowhere")).test()


def test_alphamatting_trimaps_are_strict(tmp_path):
    write_alphamatting(tmp_path)
    bad = np.full((24, 20), 127, np.uint8)
    write_png(tmp_path / "trimap_training_lowres/Trimap1/GT01.png", bad, overwrite=True)
    with pytest.raises(UserError, match=r"Trimap1/GT01\.png.*127"):
        create_data("alphamatting", root=str(tmp_path)).test().sample(0, RNG)


@pytest.mark.parametrize("trimap", ["Trimap1", "Trimap2"])
def test_the_real_photographs(shared, trimap):
    test = create_data("alphamatting", root=str(shared / "data/alphamatting"), trimap=trimap).test()
    assert len(test) >= 21
    sample = test.sample(0, RNG)
    assert sample["name"] == "GT01"
    assert max(sample["image"].shape[1:]) == 800
    known = sample["trimap"] != 128 / 255
    assert (sample["alpha"] - sample["trimap"])[known].abs().max() < 0.03


def test_aim500_is_for_testing_unless_composed(tmp_path):
    data = make("aim500", tmp_path, composites=False)
    test = data.test()
    assert len(test) == 5
    sample = test.sample(2, RNG)
    assert np.array_equal(levels(sample["image"]), read_image(tmp_path / "original/o_00000002.jpg"))
    assert np.array_equal(sample["alpha"][0], read_alpha(tmp_path / "mask/o_00000002.png"))
    for ask in (data.train, lambda: data.batch("test"), lambda: data.foregrounds("train")):
        with pytest.raises(NoSplitError, match=r"data\.composites=true"):
            ask()


def test_aim500_composites_use_every_background_once(tmp_path):
    data = make("aim500", tmp_path)
    train, test = data.train(), data.test()
    assert len(train) == 3 * 2
    assert len(test) == 2 * 3
    assert not {item.name for item in train.foregrounds} & {item.name for item in test.foregrounds}
    used = [*train.backgrounds, *test.backgrounds]
    assert len(set(used)) == len(used) == 12
    assert used != sorted(used)
    again = make("aim500", tmp_path, write=False).train()
    assert again.fingerprint() == train.fingerprint()
    assert make("aim500", tmp_path, write=False, seed=1).train().fingerprint() != train.fingerprint()
    for number in range(len(test)):  # the photograph's own trimap
        expected = read_image(tmp_path / f"trimap/{test.group(number)}.png")[..., 0]
        assert np.array_equal(levels(test.sample(number, RNG)["trimap"]), expected)
    (tmp_path / "held.txt").write_text("o_00000003\no_00000001.jpg\n")
    listed = make("aim500", tmp_path, write=False, test_names=str(tmp_path / "held.txt"))
    assert {item.name for item in listed.test().foregrounds} == {"o_00000001", "o_00000003"}
    (tmp_path / "held.txt").write_text("o_00000009\n")
    with pytest.raises(UserError, match=r"unknown photograph in .*held\.txt 'o_00000009'"):
        listed.test()
    with pytest.raises(UserError, match=r"needs 18 backgrounds.* \(12 to train on, 6 to test on\), but there are 14"):
        make("aim500", tmp_path, write=False, per_foreground=4).train()
    with pytest.raises(UserError, match=r"leaves none to train on: set data\.test_count"):
        make("aim500", tmp_path, write=False, test_count=5).train()
