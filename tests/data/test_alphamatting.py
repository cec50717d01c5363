"""``alphamatting`` and ``alphamatting_test``."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from data_support import (
    names,
    write_alphamatting,
    write_alphamatting_test,
)
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.base import NoSplitError

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
