"""What sweeps and their rows are called."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexnet.core.errors import UserError
from indexnet.sweep.naming import check_sweep_name, name_only_row, name_rows


def _rows(*names, **axes):
    keys = [key.replace("__", ".") for key in axes]
    points = [dict(zip(keys, values, strict=True)) for values in itertools.product(*axes.values())]
    return name_rows(points, *names)


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"resampling__family": ["hin", "m2o"]}, [("hin", "family hin"), ("m2o", "family m2o")]),
        ({"resampling": ["max_unpool", "carafe"]}, [("max_unpool", "max_unpool"), ("carafe", "carafe")]),
        ({"optimizer__lr": ["0.01", "1e-05"]}, [("lr-0.01", "lr 0.01"), ("lr-1e-05", "lr 1e-05")]),
        (
            {"encoder": ["none", "vgg16_bn"]},
            [("encoder-none", "encoder none"), ("encoder-vgg16_bn", "encoder vgg16_bn")],
        ),
        ({"a__gain": ["-1", "1"]}, [("gain-minus1", "gain -1"), ("gain-1", "gain 1")]),
        ({"network__widths": ["[16,32]", "[8]"]}, [("widths-16-32", "widths [16,32]"), ("widths-8", "widths [8]")]),
        (
            {"resampling": ["carafe"], "optimizer__lr": ["0.1"], "resampling__nonlinear": ["true", "false"]},
            [
                ("carafe_lr-0.1_nonlinear-true", "carafe (lr 0.1, nonlinear true)"),
                ("carafe_lr-0.1_nonlinear-false", "carafe (lr 0.1, nonlinear false)"),
            ],
        ),
        (
            {"a__x": ["max"], "b__x": ["max"]},
            [("a.x-max_b.x-max", "a.x max (b.x max)")],
        ),  # the ends of the keys are one
        ({"a__down": ["max"], "b__up": ["max"]}, [("down-max_up-max", "down max (up max)")]),
        ({"a__pair": ["{x:1}"]}, [("pair-x-1", "pair (x:1)")]),
    ],
)
def test_names_and_labels(axes, expected):
    assert _rows(**axes) == expected


def test_what_other_rows_are_called_is_left_to_them():
    assert _rows(["hin"], ["family hin"], a__family=["hin"]) == [("family-hin", "a.family hin")]
    assert _rows(["hin", "family-hin"], [], a__family=["hin"])[0][0] == "a.family-hin"
    name, label = _rows(["hin", "family-hin", "a.family-hin"], ["family hin", "a.family hin"], a__family=["hin"])[0]
    assert re.fullmatch(r"hin-[0-9a-f]{6}", name)
    assert re.fullmatch(r"family hin [0-9a-f]{6}", label)
    assert name_only_row("mine/First--run") == ("first-run", "mine/First--run")


_KEYS = st.lists(
    st.from_regex(r"[a-z]{1,3}(\.[a-z0-9_]{1,4}){0,2}", fullmatch=True), min_size=1, max_size=3, unique=True
)


@given(
    keys=_KEYS,
    values=st.lists(st.lists(st.text(min_size=1, max_size=120), min_size=3, max_size=3), min_size=1, max_size=6,
                    unique_by=tuple),
    taken=st.lists(st.text(max_size=5)),
)  # fmt: skip
def test_every_row_has_a_name_of_its_own_that_fits_a_folder_and_a_file(keys, values, taken):
    points = [dict(zip(keys, texts, strict=False)) for texts in values]
    points = [point for index, point in enumerate(points) if point not in points[:index]]
    rows = name_rows(points, taken, taken)
    assert rows == name_rows(points, taken, taken)  # of the settings alone
    names, labels = zip(*rows, strict=True)
    for texts in (names, labels):
        assert len(set(texts)) == len(texts) == len(points)
        assert not set(texts) & set(taken)
    for name in names:
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,199}", name)
        assert "--" not in name
    for label in labels:
        assert label.strip() == label != ""
        assert not re.search(r"[{}\n]", label)


@pytest.mark.parametrize("name", ["mysweep", "mine/first", "A.b_c-1", "2026-11-26", "a" * 100])
def test_good_names(name):
    assert check_sweep_name(name, f"sweep={name}") == name


@pytest.mark.parametrize(
    "value",
    ["", "a b", "a/b/c", "/a", "a/", "../a", "a/..", ".a", "-a", "a\0b", "a\n", "ä", "${seed}", "a:b", "a" * 101,
     True, ["a"], {"a": 1}],
)  # fmt: skip
def test_wrong_names(value):
    with pytest.raises(UserError, match="a sweep's name is of letters"):
        check_sweep_name(value, f"sweep={value}")


@pytest.mark.parametrize("name", ["single", "search", "single/a"])
def test_names_of_other_folders(name):
    with pytest.raises(UserError, match="holds runs of no table"):
        check_sweep_name(name, f"sweep={name}")
