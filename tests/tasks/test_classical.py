from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from commands_support import photograph
from indexnet.core.errors import UserError
from indexnet.data.base import planes
from indexnet.inference.loading import is_classical, load_task, predict_sample
from indexnet.tasks.classical import CLASSICAL, ClassicalMatting

pytest.importorskip("pymatting")


def composite(size=48):
    """A soft disc over a photograph, with a band of unknown pixels around its edge."""
    y, x = np.mgrid[:size, :size] - size / 2
    radius = np.hypot(y, x)
    alpha = np.clip((size / 3 - radius) / 4 + 0.5, 0, 1)
    background = photograph(size, size, 1) // 3
    image = np.rint(alpha[..., None] * np.array([230, 210, 180]) + (1 - alpha[..., None]) * background).astype(np.uint8)
    known = np.where(alpha >= 1, 255, 0).astype(np.uint8)
    known[np.abs(radius - size / 3) < 5] = 128
    return image, alpha, known


def sample(image, known):
    return {"image": planes(image), "trimap": planes(known), "name": "disc"}


@pytest.mark.parametrize("method", CLASSICAL)
def test_a_disc_is_found_and_known_pixels_stay(method, capsys):
    image, alpha, known = composite()
    task, meta = load_task(method)
    assert is_classical(meta)
    assert meta["source"] == CLASSICAL[method].paper
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = predict_sample(task, sample(image, known))
    assert capsys.readouterr().out == ""
    assert result.shape == (1, 48, 48)
    levels = result[0].double().numpy() * 255
    assert np.array_equal(levels[known != 128], known[known != 128])
    assert np.abs(levels - np.rint(levels)).max() < 1e-4  # 8 bit
    assert np.abs(levels / 255 - alpha)[known == 128].mean() < 0.06
    half = np.abs(0.5 - alpha)[known == 128].mean()
    assert np.abs(levels / 255 - alpha)[known == 128].mean() < half / 3


@pytest.mark.parametrize("method", CLASSICAL)
def test_it_is_what_pymatting_says_cut_to_8_bit(method):
    import pymatting

    image, _, known = composite(32)
    solve = {"closed_form": pymatting.estimate_alpha_cf, "knn": pymatting.estimate_alpha_knn}[method]
    expected = solve(image / 255, np.where(known == 128, 0.5, known / 255)) * 255
    found = predict_sample(load_task(method)[0], sample(image, known))[0].double().numpy() * 255
    assert np.array_equal(np.floor(expected + 1e-4)[known == 128], np.rint(found)[known == 128])


def test_trimaps_without_something():
    image, _, known = composite()
    task = ClassicalMatting("closed_form")
    certain = np.where(known == 128, 255, known).astype(np.uint8)
    assert torch.equal(predict_sample(task, sample(image, certain)), planes(certain))
    for value, word in ((0, "background"), (255, "foreground")):
        without = np.where(known == value, 128, known).astype(np.uint8)
        with pytest.raises(UserError, match=f"disc: the trimap has no {word}, which closed-form matting needs"):
            predict_sample(task, sample(image, without))
    with pytest.raises(UserError, match="no foreground"):
        predict_sample(task, sample(image, np.full_like(known, 128)))


def test_an_image_beyond_the_memory_is_refused_before_anything_is_computed(monkeypatch):
    image, _, known = composite()
    task = ClassicalMatting("knn")
    task.memory = 1_000_000
    with pytest.raises(UserError, match=r"KNN matting of 0\.0 megapixels would take about .* make the image smaller"):
        predict_sample(task, sample(image, known))
    task.memory = "auto"
    monkeypatch.setattr("indexnet.tasks.classical.available_memory", lambda: 10_000)
    with pytest.raises(UserError, match="would take about"):
        predict_sample(task, sample(image, known))
    task.memory = None
    assert predict_sample(task, sample(image, known)).shape == (1, 48, 48)


def test_options_of_matting_and_mistakes():
    with pytest.raises(UserError, match="Did you mean 'closed_form'"):
        ClassicalMatting("closedform")
    assert load_task("knn")[1]["task"]["name"] == "matting"


def test_forks_and_threads_bear_what_it_computes_with():
    import threading

    import numba

    from indexnet.data.matting import estimate

    numba.config.THREADING_LAYER = "default"
    task = ClassicalMatting("closed_form")
    assert numba.config.THREADING_LAYER == "workqueue"
    image, _, known = composite(32)
    solving = threading.Thread(target=predict_sample, args=(task, sample(image, known)))
    with estimate.pymatting_alone():
        solving.start()
        solving.join(0.5)
        assert solving.is_alive()  # waits for whoever else uses pymatting
    solving.join(60)
    assert not solving.is_alive()


def test_without_pymatting_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pymatting", None)
    with pytest.raises(UserError, match=r"pip install 'indexnet\[matting\]'"):
        ClassicalMatting("knn")
