from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from commands_support import (
    autoencoder_checkpoint,
    matting_checkpoint,
    photograph,
    read,
    save_image,
    trimap,
)
from indexnet.cli import main
from indexnet.networks.checkpoint import load_network
from indexnet.networks.inference import infer_alpha, to_uint8


@pytest.fixture(scope="module")
def matting(tmp_path_factory):
    return matting_checkpoint(tmp_path_factory.mktemp("matting") / "m.ckpt", {"name": "indexnet", "family": "hin"})


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    return autoencoder_checkpoint(tmp_path_factory.mktemp("autoencoder") / "a.ckpt")


@pytest.fixture
def folder(tmp_path):
    """Two good pairs, whose images and trimaps end differently."""
    save_image(tmp_path / "images" / "a.jpg", photograph(40, 50))
    save_image(tmp_path / "images" / "b.png", photograph(33, 64, seed=1))
    save_image(tmp_path / "trimaps" / "a.png", trimap(40, 50))
    save_image(tmp_path / "trimaps" / "b.bmp", trimap(33, 64))
    return tmp_path


def predict(checkpoint, folder, *more, trimaps=True):
    words = ["predict", str(checkpoint), "--images", str(folder / "images"), "--output", str(folder / "out")]
    words += ["--trimaps", str(folder / "trimaps")] if trimaps else []
    return main([*words, "--device", "cpu", *more])


def one_line(capsys):
    err = capsys.readouterr().err.strip()
    assert "\n" not in err
    assert "Traceback" not in err
    return err


def test_matting_writes_the_released_inference(matting, folder, capsys):
    assert predict(matting, folder) == 0
    assert sorted(os.listdir(folder / "out")) == ["a.png", "b.png"]
    network, _ = load_network(matting)
    image, known = read(folder / "images" / "b.png"), trimap(33, 64)
    expected = to_uint8(infer_alpha(network, image, known))
    result = read(folder / "out" / "b.png")
    assert result.dtype == np.uint8
    assert np.array_equal(result, expected)
    assert np.array_equal(result[known != 128], known[known != 128])
    assert len(np.unique(result[known == 128])) > 3  # the network has spoken
    assert "2 of 2 written" in capsys.readouterr().out


def test_one_file_alone(matting, folder):
    words = ["predict", str(matting), "--images", str(folder / "images" / "a.jpg"), "--output", str(folder / "out")]
    assert main([*words, "--trimaps", str(folder / "trimaps" / "a.png")]) == 0
    assert os.listdir(folder / "out") == ["a.png"]


def test_bad_files_do_not_stop_the_others(matting, folder, capsys):
    images, trimaps = folder / "images", folder / "trimaps"
    save_image(images / "lonely.png", photograph(20, 20))
    save_image(images / "small.png", photograph(30, 40))
    save_image(trimaps / "small.png", trimap(15, 20))
    save_image(images / "turned.png", photograph(30, 40))
    save_image(trimaps / "turned.png", trimap(40, 30))
    (images / "broken.png").write_bytes(b"no image at all")
    save_image(trimaps / "broken.png", trimap(20, 20))
    save_image(images / "cut.png", photograph(60, 60))
    (images / "cut.png").write_bytes((images / "cut.png").read_bytes()[:300])
    save_image(trimaps / "cut.png", trimap(60, 60))
    save_image(images / "double.png", photograph(20, 20))
    save_image(trimaps / "double.png", trimap(20, 20))
    save_image(trimaps / "double.bmp", trimap(20, 20))
    save_image(images / "twin.png", photograph(20, 20))
    save_image(images / "twin.jpg", photograph(20, 20))
    save_image(trimaps / "twin.png", trimap(20, 20))
    assert predict(matting, folder) == 3
    assert sorted(os.listdir(folder / "out")) == ["a.png", "b.png"]
    lines = capsys.readouterr().err.splitlines()
    wanted = {
        "lonely.png": "has no trimap; put one named lonely.png into",
        "small.png": "is 40x30 pixels but its trimap",
        "turned.png": "one of them is turned",
        "broken.png": "cannot be read as an image",
        "cut.png": "cannot be read as an image",
        "double.png": "has several trimaps",
        "twin.png": "shares its name",
        "twin.jpg": "shares its name",
    }
    for name, sentence in wanted.items():
        assert sum(name in line and sentence in line for line in lines[:-1]) == 1, (name, lines)
        assert name in lines[-1]
    assert len(lines) == len(wanted) + 1
    assert "8 of 10" in lines[-1]


def test_nothing_done_is_exit_code_2(matting, folder, capsys):
    for path in (folder / "images").iterdir():
        path.write_bytes(b"no image")
    assert predict(matting, folder) == 2
    assert "a.jpg cannot be read" in capsys.readouterr().err


def test_results_are_kept_without_overwrite(matting, folder, capsys):
    save_image(folder / "out" / "a.png", np.full((3, 3), 7, np.uint8))
    assert predict(matting, folder) == 3
    assert read(folder / "out" / "a.png").shape == (3, 3)
    assert read(folder / "out" / "b.png").shape == (33, 64)
    assert "results that existed and were kept: 1 (a.png)" in capsys.readouterr().err
    assert predict(matting, folder) == 2
    assert "all 2 results exist" in one_line(capsys)
    assert predict(matting, folder, "--overwrite") == 0
    assert read(folder / "out" / "a.png").shape == (40, 50)


def test_trimap_values_are_snapped_and_counted(matting, folder, capsys):
    known = trimap(40, 50)
    odd = known.copy()
    odd[known == 128] = 127
    odd[:, 0], odd[:, -1] = 3, 250
    save_image(folder / "trimaps" / "a.png", odd)
    assert predict(matting, folder) == 0
    captured = capsys.readouterr()
    count = int((odd != known).sum())
    assert f"a.png: {count} pixels" in captured.err
    assert f"trimaps with other values than 0, 128 and 255: 1; pixels snapped: {count}" in captured.out
    network, _ = load_network(matting)
    expected = to_uint8(infer_alpha(network, read(folder / "images" / "a.jpg"), known))
    assert np.array_equal(read(folder / "out" / "a.png"), expected)


@pytest.mark.parametrize("kind", ["palette", "bits16", "rgb", "rgba"])
def test_other_png_types_mean_the_same(matting, folder, kind):
    """Palette and 16-bit files give the result of the plain 8-bit ones, to the bit."""
    rgb = np.repeat(photograph(40, 50)[..., :1] // 64 * 64, 3, axis=2)  # gray with four levels: exact in a palette
    known = trimap(40, 50)
    for name in ("a.jpg", "b.png"):
        (folder / "images" / name).unlink()
    save_image(folder / "images" / "plain.png", rgb)
    save_image(folder / "trimaps" / "plain.png", known)
    picture = Image.fromarray(rgb)
    mask = Image.fromarray(known)
    if kind == "palette":  # indices must differ from values
        picture, mask = picture.quantize(8), mask.convert("RGB").quantize(4)
        assert mask.mode == "P"
        assert set(np.unique(mask)) <= {0, 1, 2, 3}
    elif kind == "bits16":
        picture = Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
        mask = Image.fromarray(known.astype(np.uint16) * 257)
    elif kind == "rgb":
        mask = mask.convert("RGB")
    else:
        picture, mask = picture.convert("RGBA"), mask.convert("RGBA")
    picture.save(folder / "images" / "other.png")
    mask.save(folder / "trimaps" / "other.png")
    assert predict(matting, folder) == 0
    assert np.array_equal(read(folder / "out" / "other.png"), read(folder / "out" / "plain.png"))


def test_an_ambiguous_16_bit_file_is_refused_and_the_others_done(matting, folder, capsys):
    Image.fromarray(trimap(40, 50).astype(np.uint16)).save(folder / "trimaps" / "a.png")
    assert predict(matting, folder) == 3
    assert "16-bit file with no value above 255" in capsys.readouterr().err
    assert os.listdir(folder / "out") == ["b.png"]


def test_too_little_memory_fails_one_image(matting, folder, capsys, monkeypatch):
    import indexnet.run.infer as infer

    plain = infer.predict_sample

    def scarce(task, sample):
        if sample["name"] == "a":
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return plain(task, sample)

    monkeypatch.setattr(infer, "predict_sample", scarce)
    assert predict(matting, folder) == 3
    assert "a.jpg is too large for the memory" in capsys.readouterr().err
    assert os.listdir(folder / "out") == ["b.png"]


def test_a_bug_keeps_its_traceback(matting, folder, monkeypatch):
    import indexnet.run.infer as infer

    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(infer, "predict_sample", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        predict(matting, folder)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_reconstruction_of_any_size(tmp_path, channels, mode, capsys):
    checkpoint = autoencoder_checkpoint(tmp_path / "a.ckpt", channels=channels)
    image = photograph(37, 51)
    save_image(tmp_path / "images" / "x.png", image)
    save_image(tmp_path / "images" / "tiny.png", image[:2, :2])
    assert predict(checkpoint, tmp_path, trimaps=False) == 3
    assert "tiny: the image is 2x2 pixels but this network halves 2 times" in capsys.readouterr().err
    with Image.open(tmp_path / "out" / "x.png") as picture:
        assert picture.mode == mode
        result = np.array(picture)
    network, _ = load_network(checkpoint)
    given = (image if channels == 3 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).reshape(37, 51, channels)
    x = torch.from_numpy(given.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = network(x)[0].clamp(0, 1).mul(255).permute(1, 2, 0).numpy().reshape(result.shape)
    assert np.abs(result - expected).max() <= 0.501  # rounded, not cut


def test_mistakes_are_one_sentence_and_exit_code_2(matting, autoencoder, folder, tmp_path, capsys):
    def said(code, *fragments):
        assert code == 2
        line = one_line(capsys)
        assert line.startswith("indexnet: ")
        for fragment in fragments:
            assert fragment in line

    said(predict(matting, folder, trimaps=False), "needs a trimap for each image; give --trimaps")
    said(predict(autoencoder, folder), "takes no trimaps; leave --trimaps out")
    said(predict(tmp_path / "none.ckpt", folder), "there is no checkpoint", "none.ckpt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.ckpt")
    said(predict(tmp_path / "other.ckpt", folder), "other.ckpt is a checkpoint of something else")
    said(predict(matting, folder, "--device", "gpu7"), "--device gpu7 is unknown")
    said(predict(matting, folder, "--images", str(tmp_path / "nowhere")), "nowhere does not exist")
    (tmp_path / "empty").mkdir()
    said(predict(matting, folder, "--images", str(tmp_path / "empty")), "empty holds no image")
    said(predict(matting, folder, "--trimaps", str(tmp_path / "empty")), "empty holds no image")
    said(
        predict(matting, folder, "--trimaps", str(folder / "trimaps" / "a.png")), "is one file but --images is a folder"
    )
    said(predict(matting, folder, "--output", str(folder / "images")), "is the folder of the inputs")
    said(predict(matting, folder, "--output", str(folder / "images" / "a.jpg")), "cannot be created")
    if not torch.cuda.is_available():
        said(predict(matting, folder, "--device", "cuda"), "this machine shows 0 CUDA devices")
    assert not (folder / "out").exists()


def labelled_checkpoint(path, classes=("sky", "road", "car")):
    """A small segmentation network with random weights."""
    from indexnet.networks import create_network
    from indexnet.networks.checkpoint import checkpoint_meta, save_checkpoint

    torch.manual_seed(0)
    spec = {"name": "segnet", "classes": len(classes), "encoder": {"name": "vgg11_bn"}, "resampling": "nearest"}
    network = create_network(spec["name"], **{key: value for key, value in spec.items() if key != "name"})
    entry = {"name": "segmentation", "classes": list(classes)}
    save_checkpoint(path, checkpoint_meta(entry, spec, {}), network.state_dict())
    return path


def test_segmentation_writes_classes_their_names_and_a_picture(tmp_path, capsys):
    checkpoint = labelled_checkpoint(tmp_path / "s.ckpt")
    for name in ("a", "a_overlay"):  # no name of one image's files meets another's
        save_image(tmp_path / "images" / f"{name}.png", photograph(35, 50))
    words = ["predict", str(checkpoint), "--images", str(tmp_path / "images"), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    out = tmp_path / "out"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "a.png", "a_overlay.png", "classes.txt", "overlay/a.png", "overlay/a_overlay.png",
    ]  # fmt: skip
    assert (out / "classes.txt").read_text() == "0 sky\n1 road\n2 car\n"
    assert read(out / "a.png").shape == (35, 50)
    assert read(out / "a.png").max() < 3
    assert read(out / "overlay" / "a.png").shape == (35, 50, 3)
    (out / "a.png").unlink()  # a command that was stopped between the two
    assert main(words) == 3
    assert (out / "a.png").is_file()
    assert "a_overlay.png" in capsys.readouterr().err  # kept
    (out / "a.png").unlink()
    (out / "classes.txt").write_text("mine")
    assert main(words) == 2
    assert "classes.txt exists and says something else" in capsys.readouterr().err
    assert (out / "classes.txt").read_text() == "mine"


def test_checkpoints_of_different_classes_are_not_compared(tmp_path, capsys):
    checkpoints = [
        labelled_checkpoint(tmp_path / "s.ckpt"),
        labelled_checkpoint(tmp_path / "t.ckpt", ("sky", "road", "bus")),
    ]
    save_image(tmp_path / "images" / "a.png", photograph(35, 50))
    words = ["--images", str(tmp_path / "images"), "--output", str(tmp_path / "out")]
    assert main(["compare", *map(str, checkpoints), *words]) == 2
    assert "were trained for different classes" in capsys.readouterr().err
