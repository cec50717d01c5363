"""``aim500``: photographs to test on, or composites that use each background once."""

from __future__ import annotations

import numpy as np
import pytest

from data_support import (
    levels,
    make,
)
from indexnet.core.errors import UserError
from indexnet.data.base import NoSplitError
from indexnet.data.io.images import read_alpha, read_image

RNG = np.random.default_rng(0)


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
