"""`indexnet cutout`: a picture and a box, and every mistake in them."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from commands_support import autoencoder_checkpoint, matting_checkpoint, photograph, read, save_image
from indexnet.cli import main
from predict_support import files_of


@pytest.fixture
def picture(tmp_path):
    """A bright disc, 24 pixels wide, in the middle of a dark picture of 60 by 48."""
    y, x = np.mgrid[:48, :60]
    inside = (y - 24) ** 2 + (x - 30) ** 2 < 144
    image = np.where(inside[..., None], (230, 200, 60), (20, 40, 90)) + photograph(48, 60) // 16
    save_image(tmp_path / "disc.png", image.astype(np.uint8))
    return tmp_path / "disc.png"


def cutout(*words):
    return main(["cutout", *map(str, words)])


def test_a_disc_is_cut_out(picture, tmp_path, capsys):
    pytest.importorskip("pymatting")
    out = tmp_path / "out"
    assert cutout(picture, "--box", "12,6,48,42", "--output", out) == 0
    assert files_of(out) == ["disc-alpha.png", "disc-cutout.png", "disc-steps.png", "disc-trimap.png"]
    cut, known = read(out / "disc-cutout.png"), read(out / "disc-trimap.png")
    assert cut.shape == (48, 60, 4)
    assert set(np.unique(known)) == {0, 128, 255}
    assert cut[24, 30, 3] == 255
    assert cut[2, 2, 3] == 0
    assert abs((cut[..., 3] > 127).sum() - 144 * np.pi) < 40
    steps = read(out / "disc-steps.png")
    assert steps.shape[1] > 4 * 400
    said = capsys.readouterr().out
    assert "60x48 pixels" in said
    assert "disc-cutout.png" in said
    assert main(shlex.split(said.splitlines()[-1])[1:]) == 0  # what it advises runs
    assert np.array_equal(read(out / "mended" / "cutout" / "disc.png"), cut)


def test_a_network_cuts_out(picture, tmp_path):
    pytest.importorskip("pymatting")
    network = matting_checkpoint(tmp_path / "m.ckpt")
    assert cutout(picture, "--box", "12,6,48,42", "--method", network, "--output", tmp_path / "out") == 0
    known, alpha = read(tmp_path / "out" / "disc-trimap.png"), read(tmp_path / "out" / "disc-alpha.png")
    assert np.array_equal(alpha[known != 128], known[known != 128])


def test_a_large_photograph_is_solved_on_a_copy(picture, tmp_path, capsys):
    pytest.importorskip("pymatting")
    words = (picture, "--box", "12,6,48,42", "--overwrite", "--output", tmp_path / "out")
    assert cutout(*words) == 0
    whole, known = read(tmp_path / "out" / "disc-alpha.png"), read(tmp_path / "out" / "disc-trimap.png")
    capsys.readouterr()
    assert cutout(*words, "--longest", "40") == 0
    printed = capsys.readouterr()
    assert "on a copy of 40 pixels" in printed.err
    assert main(shlex.split(printed.out.splitlines()[-1])[1:]) == 0
    mended = read(tmp_path / "out" / "mended" / "disc.png")
    assert np.array_equal(mended, read(tmp_path / "out" / "disc-alpha.png"))
    enlarged = read(tmp_path / "out" / "disc-alpha.png")
    assert not np.array_equal(enlarged, whole)
    assert np.abs(enlarged.astype(int) - whole)[known == 128].mean() < 30
    assert np.array_equal(enlarged[known != 128], known[known != 128])
    assert read(tmp_path / "out" / "disc-cutout.png").shape == (48, 60, 4)


def test_an_edge_of_the_photograph_stays_sharp_when_alpha_is_enlarged():
    from indexnet.data.matting.enlarge import enlarge_alpha

    inside = np.zeros((40, 60), bool)
    inside[:, 33:] = True  # no edge of a quarter of the size
    image = np.where(inside[..., None], (220, 180, 40), (30, 60, 120)).astype(np.uint8)
    small = image.reshape(10, 4, 15, 4, 3).mean((1, 3)).round().astype(np.uint8)
    alpha = inside.reshape(10, 4, 15, 4).mean((1, 3)).astype(np.float32) * 255
    trimap = np.full((40, 60), 128, np.uint8)
    trimap[:, :10], trimap[:, 50:] = 0, 255
    found = enlarge_alpha(alpha, small, image, trimap)
    assert np.abs(found - np.where(inside, 255, 0)).max() < 16  # of 255; alpha repeated is wrong by 64
    assert (found[:, :10] == 0).all()
    assert (found[:, 50:] == 255).all()


def test_a_box_without_anything_in_it(picture, tmp_path, capsys):
    pytest.importorskip("pymatting")
    assert cutout(picture, "--box", "2,2,5,5", "--output", tmp_path / "out") == 0  # too few pixels to find anything
    printed = capsys.readouterr()
    assert "disc.png: nothing was found in the box 2,2,5,5, so that the ellipse within it is taken" in printed.err
    assert "60x48 pixels, 0.0% foreground" in printed.out


def test_a_box_needs_a_photograph(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cutout("--box", "5,5,20,20") == 2
    assert "--box 5,5,20,20 needs a photograph: indexnet cutout PHOTO" in capsys.readouterr().err
    assert files_of(tmp_path) == []


def test_results_are_replaced_only_when_asked(picture, tmp_path, capsys):
    pytest.importorskip("pymatting")
    words = (picture, "--box", "12,6,48,42", "--output", tmp_path / "out")
    save_image(tmp_path / "out" / "disc-trimap.png", np.zeros((2, 2), np.uint8))
    assert cutout(*words) == 2
    assert "disc-trimap.png exists; give --overwrite" in capsys.readouterr().err
    assert files_of(tmp_path / "out") == ["disc-trimap.png"]
    assert cutout(*words, "--overwrite") == 0
    assert read(tmp_path / "out" / "disc-trimap.png").shape == (48, 60)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give --box x0,y0,x1,y1 around what is to be cut out"),
        (["--box", "10,10,40"], "is not four numbers"),
        (["--box", "100,100,200,200"], "has no pixel of the image inside, which is 60x48 pixels"),
        (["--box", "20,20,20,30"], "has no pixel of the image inside"),
        (["--box", "0,0,60,48"], "the boxes cover the whole image"),
        (["--box", "12,6,48,42", "--longest", "31"], "must be at least 32 pixels"),
        (["--box", "12,6,48,42", "--method", "alchemy"], "there is no checkpoint alchemy"),
        (["--box", "12,6,48,42", "--output", "."], "is the folder of the inputs"),
    ],
)
def test_a_mistake_is_one_sentence(picture, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(picture.parent)
    assert cutout("disc.png", *words) == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert files_of(picture.parent) == ["disc.png"]


def test_what_is_no_picture(tmp_path, capsys):
    (tmp_path / "words.png").write_text("no picture")
    words = ("--box", "1,1,5,5", "--output", tmp_path / "out")
    for photo, sentence in (
        (tmp_path / "words.png", "words.png"),
        (tmp_path, "is a folder; give one picture"),
        (tmp_path / "none.png", "there is no picture"),
    ):
        assert cutout(photo, *words) == 2
        assert sentence in capsys.readouterr().err


def test_a_network_for_something_else(picture, tmp_path, capsys):
    other = autoencoder_checkpoint(tmp_path / "a.ckpt")
    assert cutout(picture, "--box", "12,6,48,42", "--method", other, "--output", tmp_path / "out") == 2
    assert "the task reconstruction takes no boxes; give closed_form" in capsys.readouterr().err


def test_without_pymatting(picture, tmp_path, monkeypatch, capsys):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "pymatting" else found(name))
    assert cutout(picture, "--box", "12,6,48,42", "--output", tmp_path / "out") == 2
    assert "pip install 'indexnet[matting]'" in capsys.readouterr().err


def test_a_cutout_before_a_board():
    from indexnet.inference.cutout_sheet import on_board

    cut = np.zeros((40, 40, 4), np.uint8)
    cut[..., 0] = 200
    cut[:, 20:, 3] = 255
    shown = on_board(cut)
    assert (shown[:, 20:] == (200, 0, 0)).all()
    assert set(np.unique(shown[:, :20])) == {205, 255}
