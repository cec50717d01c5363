"""Shared by the tests of commands."""

from __future__ import annotations

import pytest

from commands_support import (
    matting_checkpoint,
    photograph,
    save_image,
    trimap,
)


@pytest.fixture(scope="module")
def matting(tmp_path_factory):
    return matting_checkpoint(tmp_path_factory.mktemp("matting") / "m.ckpt", {"name": "indexnet", "family": "hin"})


@pytest.fixture
def folder(tmp_path):
    """Two good pairs, whose images and trimaps end differently."""
    save_image(tmp_path / "images" / "a.jpg", photograph(40, 50))
    save_image(tmp_path / "images" / "b.png", photograph(33, 64, seed=1))
    save_image(tmp_path / "trimaps" / "a.png", trimap(40, 50))
    save_image(tmp_path / "trimaps" / "b.bmp", trimap(33, 64))
    return tmp_path
