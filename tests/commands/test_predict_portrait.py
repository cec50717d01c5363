"""Portraits without a trimap: one command, the page, an exported file; a trimap given to them, and one that lacks."""

from __future__ import annotations

import numpy as np
import pytest

from commands_support import photograph, read, save_image, save_random, trimap
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.data.matting.cutouts import Blur, on_background
from indexnet.inference.app.session import Session, read_alone
from indexnet.inference.loading import load_for_photographs, load_task
from indexnet.networks import create_network
from indexnet.networks.checkpoint import checkpoint_meta, save_checkpoint
from predict_support import files_of, predict

NARROW = {"name": "pspm", "encoder": {"name": "mobilenetv2_released", "width": 0.25}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_random(tmp_path_factory.mktemp("portrait") / "p.ckpt", "portrait", NARROW, None)


@pytest.fixture
def folder(tmp_path):
    save_image(tmp_path / "images/me.png", photograph(37, 50))
    save_image(tmp_path / "images/tiny.png", photograph(5, 6))
    save_image(tmp_path / "trimaps/me.png", trimap(37, 50))
    return tmp_path


def test_one_command_cuts_a_portrait_out_without_a_trimap(checkpoint, folder):
    assert predict(checkpoint, folder, "--background", "white", "--cutout", trimaps=False) == 0
    assert files_of(folder / "out") == [
        f"{place}{name}.png" for place in ("composite/", "cutout/", "") for name in ("me", "tiny")
    ] + ["trimap/me.png", "trimap/tiny.png"]
    task, *_ = load_for_photographs(checkpoint, "cpu", "auto")
    image = task.image_sample(photograph(37, 50))["image"][None]
    prediction = task.predict({"image": image})
    assert np.array_equal(read(folder / "out/me.png"), np.rint(prediction[0, 0].numpy() * 255).astype(np.uint8))
    assert set(np.unique(read(folder / "out/trimap/me.png"))) <= {0, 128, 255}
    assert predict(checkpoint, folder, "--background", "blur:3", "--overwrite", trimaps=False) == 0
    levels = task.create_predictor({}).alpha(read_alone(folder / "images/me.png"))
    wanted = on_background(photograph(37, 50), levels / np.float32(255), Blur(3))
    assert np.array_equal(read(folder / "out/composite/me.png"), wanted)


def test_a_trimap_is_refused_and_one_that_is_needed_is_asked_for(checkpoint, folder, mistake, tmp_path):
    mistake(predict(checkpoint, folder), "the task portrait takes no trimaps; leave --trimaps out")
    mistake(predict(checkpoint, folder, "--masks", str(folder / "trimaps"), trimaps=False), "takes no --masks")
    given = {**NARROW, "sharing": "cascade", "prior": "trimap"}
    path = tmp_path / "given.ckpt"
    entry = {"name": "portrait", "loss": {"alpha_image": 1.0}}
    network = create_network(given["name"], **{key: value for key, value in given.items() if key != "name"})
    save_checkpoint(path, checkpoint_meta(entry, given, {}), network.state_dict())
    mistake(predict(path, folder, trimaps=False), "the task portrait needs a trimap for each image")
    (folder / "images/tiny.png").unlink()
    assert predict(path, folder) == 0
    known = trimap(37, 50)
    assert np.array_equal(read(folder / "out/me.png")[known != 128], known[known != 128])


def test_the_page_needs_no_trimap(checkpoint, folder):
    session = Session(*load_task(checkpoint))
    assert session.cuts_out
    assert not session.guided
    cut = session.cut(read_alone(folder / "images/me.png"), folder / "page", "me")
    assert set(cut.files) == {"alpha", "alpha16", "cutout", "trimap"}
    assert read(cut.files["cutout"]).shape == (37, 50, 4)
    assert read(session.compose(cut, "#ffffff", None)).shape == (37, 50, 3)
    with pytest.raises(UserError, match="no photograph yet"):
        read_alone(None)


def test_an_exported_file_has_the_image_alone_in(checkpoint, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = tmp_path / "p.onnx"
    assert main(["export", str(checkpoint), "--format", "onnx", "--output", str(path)]) == 0
    session = onnxruntime.InferenceSession(str(path))
    assert [entry.name for entry in session.get_inputs()] == ["image"]
    image = np.random.default_rng(0).random((1, 3, 32, 64), np.float32)
    alpha, scores = session.run(None, {"image": image})
    assert alpha.shape == (1, 1, 32, 64)
    assert scores.shape == (1, 3, 32, 64)
    assert 0 <= alpha.min() <= alpha.max() <= 1
