"""`indexnet list`."""

from __future__ import annotations

import pytest

from indexnet.cli import main
from indexnet.commands.list import LISTINGS

KNOWN = {
    "operators": {"indexnet", "max_unpool", "holistic_max_index", "nearest", "bilinear", "deconv", "pixel_shuffle",
                  "carafe"},
    "networks": {"matting_unet", "deep_matting", "autoencoder"},
    "data": {"scenes", "photos", "mnist", "fashion_mnist", "alphamatting"},
    "tasks": {"matting", "reconstruction"},
    "metrics": {"sad", "mse", "psnr", "ssim", "mae", "rmse"},
    "encoders": {"mobilenetv2_released", "resnet50"},
    "optimizers": {"adam", "adamw", "sgd", "lamb", "lion", "rmsprop", "nadamw"},
    "schedules": {"constant", "multistep", "cosine", "onecycle", "poly", "plateau"},
    "experiments": {"quickstart", "tpami/table3_matting"},
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(LISTINGS))
def test_every_listing_has_its_facts(what, capsys):
    headings, rows = LISTINGS[what]()
    assert all(len(row) == len(headings) and row[0] and row[1] for row in rows)
    assert {row[0] for row in rows} >= KNOWN[what]
    assert main(["list", what]) == 0
    said = capsys.readouterr().out
    assert all(row[0] in said for row in rows)
    assert main(["list", what, "--names"]) == 0
    assert capsys.readouterr().out.split() == [row[0] for row in rows]


def test_a_damaged_experiment_of_ones_own_hides_no_other(tmp_path, monkeypatch, capsys):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "damaged.yaml").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("INDEXNET_EXPERIMENTS", str(tmp_path))
    assert main(["list", "experiments"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in (*KNOWN["experiments"], "damaged", "UTF-8"))


def test_everything_at_once(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for names in KNOWN.values() for name in names)
