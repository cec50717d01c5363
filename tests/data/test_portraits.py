"""Portraits: the layouts on disk, pairs, trimaps by an ellipse, random views."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from data_support import (
    matte,
    names,
    write_aisegment,
    write_p3m10k,
    write_portrait,
    write_portrait2k,
    write_portrait_folder,
)
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.base import NoSplitError
from indexnet.data.io.images import write_png
from indexnet.data.io.trimaps import eroded_trimap
from indexnet.data.portraits import fitting_width, random_view

RNG = np.random.default_rng(0)


def test_portrait2k_pairs_images_with_mattes_beside_them(tmp_path):
    write_portrait2k(tmp_path)
    data = create_data("portrait2k", root=str(tmp_path), task="portrait", size=32)
    assert (names(data.train()), names(data.test())) == (["00000", "00001", "00002"], ["00000", "00001"])
    sample = data.test().sample(0, RNG)
    assert {key: tuple(value.shape) for key, value in sample.items() if key != "name"} == {
        "image": (3, 60, 48), "alpha": (1, 60, 48), "trimap": (1, 60, 48),
    }  # fmt: skip
    assert torch.equal(sample["alpha"], torch.from_numpy(matte().astype(np.float32)[None] / 255))
    view = data.train().sample(0, RNG)
    assert view["image"].shape == (3, 32, 32)
    (tmp_path / "testing/00001_matte.png").rename(tmp_path / "testing/00002_matte.png")
    with pytest.raises(UserError, match=r"00001\.png has no partner; put 00001_matte\.png beside it"):
        data.test()


def test_test_trimaps_are_eroded_by_a_stated_ellipse(tmp_path):
    write_portrait2k(tmp_path)
    for width in (1, 7):
        data = create_data("portrait2k", root=str(tmp_path), task="portrait", trimap_width=width)
        found = (data.test().sample(0, RNG)["trimap"][0] * 255).round().numpy().astype(np.uint8)
        assert np.array_equal(found, eroded_trimap(matte(), width, width))
    fitted = create_data("portrait2k", root=str(tmp_path), task="portrait").test()
    said = fitted.prepare()
    width, share = fitting_width([matte(), matte()])
    assert f"an ellipse of {width} pixels leaves {100 * share:.2f} % unknown" in said
    unknown = (fitted.sample(0, RNG)["trimap"] == 128 / 255).float().mean().item()
    assert unknown == pytest.approx(share, abs=1e-6)
    neighbours = [np.mean(eroded_trimap(matte(), w, w) == 128) for w in (width - 1, width + 1)]
    assert all(abs(share - 0.1355) <= abs(other - 0.1355) for other in neighbours)
    assert abs(share - 0.1355) < 0.05


def test_views_are_the_same_of_both_and_mirror_turn_and_scale():
    alpha = matte(80, 80, 20)
    image = np.repeat(alpha[..., None], 3, axis=2)
    seen = [random_view(image, alpha, 40, (0.5, 2.0), 10, np.random.default_rng(k)) for k in range(20)]
    assert all(np.array_equal(view[..., 0], target) for view, target in seen)
    assert len({int(target.sum()) for _, target in seen}) > 15
    whole, target = random_view(image, alpha, 80, (1.0, 1.0), 0, np.random.default_rng(1))
    assert target.tolist() in (alpha.tolist(), alpha[:, ::-1].tolist())
    assert whole.shape == (80, 80, 3)


def test_a_folder_is_divided_by_names_or_by_folders(tmp_path):
    write_portrait_folder(tmp_path / "one")
    data = create_data("portrait_folder", root=str(tmp_path / "one"), task="portrait", validation=True)
    parts = [set(names(split)) for split in (data.train(), data.validation(), data.test())]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 12
    for split in ("train", "test"):
        write_portrait_folder(tmp_path / "two" / split, 2)
    write_png(tmp_path / "two/test/trimaps/p0.png", np.full((60, 48), 255, np.uint8))
    divided = create_data("portrait_folder", root=str(tmp_path / "two"), task="portrait")
    assert names(divided.train()) == ["p0", "p1"]
    assert divided.validation() is None
    with pytest.raises(UserError, match=r"holds no trimap for .*p1\.png"):
        divided.test()
    write_png(tmp_path / "two/test/trimaps/P1.png", np.full((60, 48), 255, np.uint8))
    assert divided.test().sample(1, RNG)["trimap"].min() == 1
    with pytest.raises(UserError, match=r"images does not exist; data=portrait_folder needs ROOT/images"):
        create_data("portrait_folder", root=str(tmp_path / "none"), task="portrait").test()


def test_the_public_layouts(tmp_path):
    write_p3m10k(tmp_path / "p3m")
    p3m = create_data("p3m10k", root=str(tmp_path / "p3m"), task="portrait")
    assert {name: names(split) for name, split in p3m.tests().items()} == {
        "p500p": [f"P3M-500-P_{k}" for k in range(3)], "p500np": [f"P3M-500-NP_{k}" for k in range(3)],
    }  # fmt: skip
    assert p3m.test().sample(0, RNG)["trimap"].unique().tolist() == [np.float32(128 / 255)]
    assert names(p3m.train()) == ["0", "1", "2"]
    write_aisegment(tmp_path / "ai")
    (tmp_path / "ai/matting/Thumbs.db").write_bytes(b"x")  # what is no image is left out
    ai = create_data("aisegment", root=str(tmp_path / "ai"), task="portrait")
    assert len(ai.train()) + len(ai.test()) == 30
    assert torch.equal((ai.test().sample(0, RNG)["alpha"][0] * 255).round(), torch.from_numpy(matte()).float())
    write_portrait(tmp_path / "ppm/image/x.png", tmp_path / "ppm/matte/x.png")
    ppm = create_data("ppm100", root=str(tmp_path / "ppm"), task="portrait")
    assert names(ppm.test()) == ["x"]
    with pytest.raises(NoSplitError, match="for testing only"):
        ppm.train()


def test_scenes_give_portraits_without_layers():
    scenes = create_data("scenes", task="portrait", size=32, train_count=2, test_count=1)
    assert set(scenes.train().sample(0, RNG)) == {"name", "image", "alpha", "trimap"}


def test_data_check_names_what_is_wrong(tmp_path, capsys):
    write_portrait2k(tmp_path)
    arguments = ["data", "check", "portrait2k", f"data.root={tmp_path}"]
    assert main(arguments) == 0
    (tmp_path / "training/00001_matte.png").write_bytes(cv2.imencode(".png", matte(30, 30))[1].tobytes())
    assert main(arguments) != 0
    assert "00001_matte.png is 30x30 pixels" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"angle": 200}, "data.angle must be a number of degrees from 0 to 180"),
        ({"trimap_width": "wide"}, "data.trimap_width must be a whole number of pixels, or auto"),
        ({"trimap_width": 0}, "data.trimap_width must be a whole number of pixels, at least 1"),
        ({"scale": [2, 1]}, "data.scale must be two numbers"),
        ({"task": "depth"}, "has no targets for the task 'depth'"),
    ],
)
def test_impossible_options(options, words, tmp_path):
    with pytest.raises(UserError, match=words):
        create_data("portrait2k", root=str(tmp_path), **{"task": "portrait", **options})
