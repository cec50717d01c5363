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
from indexnet.networks.tiled.matting_protocol import infer_alpha, to_uint8
from indexnet.tasks.matting import MattingTask
from indexnet.tasks.reconstruction import ReconstructionTask


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
    plain = MattingTask.predict_alpha

    def scarce(self, image, *more):
        if image.shape[0] == 40:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return plain(self, image, *more)

    monkeypatch.setattr(MattingTask, "predict_alpha", scarce)
    assert predict(matting, folder) == 3
    assert "a.jpg is too large for the memory" in capsys.readouterr().err
    assert os.listdir(folder / "out") == ["b.png"]


def test_a_bug_keeps_its_traceback(matting, folder, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(MattingTask, "predict_alpha", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        predict(matting, folder)


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_sixteen_bits_are_rounded_and_the_budget_is_passed_on(matting, folder, monkeypatch):
    plain, budgets = MattingTask.predict_alpha, []

    def watched(self, *given):
        budgets.append(self.memory)
        return plain(self, *given)

    monkeypatch.setattr(MattingTask, "predict_alpha", watched)
    assert predict(matting, folder, "--depth", "16", "--memory", "2GB") == 0
    assert budgets == [2_000_000_000] * 2
    network, _ = load_network(matting)
    expected = infer_alpha(network, read(folder / "images" / "b.png"), trimap(33, 64))
    result = read(folder / "out" / "b.png")
    assert result.dtype == np.uint16
    assert np.array_equal(result, np.rint(expected * np.float32(257)).astype(np.uint16))
    assert len(np.unique(result)) > 300


def test_masks_cutouts_and_composites(matting, folder):
    pytest.importorskip("pymatting")
    for name, size in (("a", (40, 50)), ("b", (33, 64))):
        save_image(folder / "masks" / f"{name}.png", np.where(trimap(*size) == 255, np.uint8(255), np.uint8(0)))
    words = ["--masks", str(folder / "masks"), "--band", "5", "--cutout", "--background", "#3060ff"]
    assert predict(matting, folder, *words, trimaps=False) == 0
    out = folder / "out"
    assert files_of(out) == [
        "a.png", "b.png", "composite/a.png", "composite/b.png", "cutout/a.png", "cutout/b.png",
        "trimap/a.png", "trimap/b.png",
    ]  # fmt: skip
    known = read(out / "trimap" / "b.png")
    assert set(np.unique(known)) == {0, 128, 255}
    assert (known == 128).sum() == 33 * 10  # five columns on both sides of a straight edge
    network, _ = load_network(matting)
    image = read(folder / "images" / "b.png")
    assert np.array_equal(read(out / "b.png"), to_uint8(infer_alpha(network, image, known)))
    cut = read(out / "cutout" / "b.png")
    assert cut.shape == (33, 64, 4)
    assert np.abs(cut[..., 3].astype(int) - read(out / "b.png")).max() <= 1
    assert np.array_equal(cut[known == 255, :3], image[known == 255])
    composite = read(out / "composite" / "b.png")
    assert (composite[known == 0] == (0x30, 0x60, 0xFF)).all()
    assert np.array_equal(composite[known == 255], image[known == 255])
    # a trimap that was made is a good input of the next command
    assert predict(matting, folder, "--trimaps", str(out / "trimap"), "--overwrite", trimaps=False) == 0


def test_what_kept_results_lack_is_said(matting, folder, capsys):
    assert predict(matting, folder) == 0
    save_image(folder / "images" / "c.png", photograph(20, 20))
    save_image(folder / "trimaps" / "c.png", np.zeros((20, 20), np.uint8))
    assert predict(matting, folder, "--background", "white") == 3
    assert "some of these have no composite; --overwrite makes all anew" in capsys.readouterr().err
    assert files_of(folder / "out") == ["a.png", "b.png", "c.png", "composite/c.png"]


def test_masks_of_another_size(matting, folder, capsys):
    small = np.zeros((20, 25), np.uint8)  # half of the size of a
    small[5:15, 5:15] = 255
    save_image(folder / "masks" / "a.png", small)
    save_image(folder / "masks" / "b.png", small)  # of another shape
    assert predict(matting, folder, "--masks", str(folder / "masks"), trimaps=False) == 3
    err = capsys.readouterr().err
    assert "masks/a.png is 25x20 pixels and was brought to the size of its image, 50x40" in err
    assert "b.png is 64x33 pixels but its mask" in err
    assert "make a mask of the image's size" in err
    known = read(folder / "out" / "trimap" / "a.png")
    assert known[20, 20] == 255
    assert known[35, 45] == 0


def test_boxes(matting, folder, capsys):
    rng = np.random.default_rng(0)
    for name, ending in (("a", "jpg"), ("b", "png")):
        image = rng.integers(0, 30, (60, 80, 3), dtype=np.uint8)
        image[20:40, 30:60, 0] += np.uint8(200)
        save_image(folder / "images" / f"{name}.{ending}", image)
    listed = folder / "boxes.csv"
    listed.write_text("name,x0,y0,x1,y1\na.jpg,25,15,65,45\ncat.png,1,2,3,4\n")
    assert predict(matting, folder, "--boxes", str(listed), trimaps=False) == 3
    err = capsys.readouterr().err
    assert "has a box for cat.png, which is not in" in err
    assert "b.png has no box; give a line b.png,x0,y0,x1,y1" in err
    known = read(folder / "out" / "trimap" / "a.png")
    assert (known[25:35, 35:55] == 255).all()
    assert (known[:10] == 0).all()
    assert (known[20, 30:60] == 128).all()
    one = ["--images", str(folder / "images" / "b.png"), "--box", "25,15,65,45"]
    assert predict(matting, folder, *one, trimaps=False) == 0
    assert (read(folder / "out" / "trimap" / "b.png")[25:35, 35:55] == 255).all()
    assert predict(matting, folder, *one, "--box", "90,0,99,9", "--overwrite", trimaps=False) == 2
    assert "b.png: the box 90,0,99,9 has no pixel of the image inside" in capsys.readouterr().err


def test_trimaps_that_leave_nothing_or_everything_open(matting, folder, capsys):
    known = np.where(trimap(40, 50) == 255, np.uint8(255), np.uint8(0))
    save_image(folder / "trimaps" / "a.png", known)
    save_image(folder / "trimaps" / "b.bmp", np.full((33, 64), 128, np.uint8))
    assert predict(matting, folder) == 0
    err = capsys.readouterr().err
    assert "a.png: the trimap has no unknown pixels" in err
    assert "b.bmp: every pixel of the trimap is unknown" in err
    assert np.array_equal(read(folder / "out" / "a.png"), known)
    assert len(np.unique(read(folder / "out" / "b.png"))) > 3


def test_a_trimap_that_marks_nothing(matting, folder, capsys):
    save_image(folder / "trimaps" / "a.png", np.zeros((40, 50), np.uint8))
    assert predict(matting, folder) == 0
    assert "a.png: the trimap has neither foreground (255) nor unknown" in capsys.readouterr().err
    save_image(folder / "trimaps" / "a.png", trimap(40, 50) // 128)  # labels 0 and 1
    assert predict(matting, folder, "--overwrite") == 3
    assert "a.png has no value above 1, which looks like labels" in capsys.readouterr().err


def test_formats_that_are_not_read_and_trimaps_of_nothing_are_named(matting, folder, capsys):
    for name in ("IMG_1.HEIC", "a.cr2"):  # a has a JPEG beside it
        (folder / "images" / name).write_bytes(b"x")
    for name in ("IMG_1", "old", "older"):
        save_image(folder / "trimaps" / f"{name}.png", trimap(9, 9))
    assert predict(matting, folder) == 3
    err = capsys.readouterr().err
    assert "IMG_1.HEIC is not read, only .png, " in err
    assert "1 of 3" in err
    assert "a.cr2" not in err
    assert "trimaps without an image of that name in" in err
    assert ": 2 (old.png, older.png)" in err
    assert files_of(folder / "out") == ["a.png", "b.png"]
    one = ["--images", str(folder / "images" / "a.jpg"), "--overwrite"]
    assert predict(matting, folder, *one) == 0
    assert "without an image" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("orientation", "size", "noted", "said"),
    [(6, (40, 40), 1, True), (6, (40, 40), 6, False), (6, (40, 50), 1, False), (3, (40, 50), 1, True)],
)
def test_masks_whose_orientation_the_shape_does_not_tell(matting, tmp_path, capsys, orientation, size, noted, said):
    stored = size[::-1] if orientation == 6 else size
    exif = Image.Exif()
    exif[0x0112] = orientation
    save_image(tmp_path / "images" / "a.jpg", photograph(*stored), exif=exif)
    exif[0x0112] = noted
    save_image(tmp_path / "masks" / "a.png", trimap(*size), exif=exif)
    save_image(tmp_path / "images" / "b.jpg", photograph(*size))
    save_image(tmp_path / "masks" / "b.png", trimap(*size))
    for guide in ("mask", "trimap"):
        words = [f"--{guide}s", str(tmp_path / "masks"), "--overwrite"]
        assert predict(matting, tmp_path, *words, trimaps=False) == 0
        err = capsys.readouterr().err
        assert (f"a {guide} must be upright, as the picture is seen" in err) == said
        assert "b.jpg" not in err


def test_photographs_of_cameras(matting, folder):
    """A turned photograph, several pages and odd names; the result is as large as what a person sees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(folder / "images" / "a.jpg", photograph(50, 40), exif=exif)
    save_image(folder / "trimaps" / "a.png", trimap(40, 50))
    for name in ("grün und blau", "dots.in.name"):
        save_image(folder / "images" / f"{name}.png", photograph(33, 64))
        save_image(folder / "trimaps" / f"{name}.png", trimap(33, 64))
    assert predict(matting, folder) == 0
    assert read(folder / "out" / "a.png").shape == (40, 50)
    assert files_of(folder / "out") == ["a.png", "b.png", "dots.in.name.png", "grün und blau.png"]


def test_batches_give_what_single_images_give(autoencoder, tmp_path, capsys, monkeypatch):
    for number, size in enumerate([(20, 24), (20, 24), (20, 24), (30, 24), (20, 24)]):
        save_image(tmp_path / "images" / f"{number}.png", photograph(*size, seed=number))
    (tmp_path / "images" / "2b.png").write_bytes(b"broken")
    assert predict(autoencoder, tmp_path, trimaps=False) == 3
    plain, sizes = ReconstructionTask.infer, []

    def watched(self, batch):
        sizes.append(len(batch["image"]))
        if len(sizes) == 1:
            raise MemoryError
        return plain(self, batch)

    monkeypatch.setattr(ReconstructionTask, "infer", watched)
    again = tmp_path / "again"
    assert predict(autoencoder, tmp_path, "--batch", "4", "--output", str(again), trimaps=False) == 3
    assert sizes == [3, 1, 2, 1, 1]  # too much, alone, and the rest as far as it has one size and can be read
    for number in range(5):
        assert np.array_equal(read(again / f"{number}.png"), read(tmp_path / "out" / f"{number}.png"))
    assert capsys.readouterr().err.count("2b.png cannot be read") == 2


def test_a_data_set(matting, tmp_path, capsys):
    words = ["data=scenes", "data.test_count=2", "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["predict", str(matting), *words]) == 0
    from indexnet.data import create_data
    from indexnet.inference.predictor import load_task, predict_sample

    dataset = create_data("scenes", task="matting", size=64, train_count=4, test_count=2).test()
    assert files_of(tmp_path / "out") == sorted(f"{dataset.name(index)}.png" for index in range(2))
    task, _ = load_task(matting)
    sample = dataset.sample(1, np.random.default_rng(0))
    expected = (predict_sample(task, sample)[0] * 255).round().numpy()
    assert np.array_equal(read(tmp_path / "out" / f"{dataset.name(1)}.png"), expected)
    assert main(["predict", str(matting), *words]) == 2
    assert "all 2 results exist" in one_line(capsys)


def test_a_trimap_of_a_data_set_that_marks_nothing(matting, tmp_path, monkeypatch, capsys):
    from indexnet.data.scenes.dataset import SceneSamples

    plain = SceneSamples.sample

    def unmarked(self, index, rng):
        sample = plain(self, index, rng)
        return {**sample, "trimap": sample["trimap"] * 0}

    monkeypatch.setattr(SceneSamples, "sample", unmarked)
    words = ["data=scenes", "data.test_count=1", "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["predict", str(matting), *words]) == 0
    assert "scene-test-000000: the trimap has neither foreground (255) nor unknown" in capsys.readouterr().err


def test_a_data_set_of_several_tests_gets_a_folder_each(matting, tmp_path):
    """As alphamatting.com wants its submissions; there is no true alpha."""
    from data_support import write_alphamatting_test

    write_alphamatting_test(tmp_path / "data")
    words = ["data=alphamatting_test", f"data.root={tmp_path / 'data'}", "--output", str(tmp_path / "out")]
    assert main(["predict", str(matting), *words, "--device", "cpu"]) == 0
    names = [f"Trimap{number}/{name}.png" for number in (1, 2, 3) for name in ("doll", "troll")]
    assert files_of(tmp_path / "out") == names
    assert read(tmp_path / "out" / names[0]).shape == (24, 20)


def test_a_data_set_in_the_wrong_place(matting, tmp_path, capsys):
    for name, folder in (("alphamatting", "input_training_lowres"), ("alphamatting_test", "input_lowres")):
        words = [f"data={name}", f"data.root={tmp_path}", "--output", str(tmp_path / "out")]
        assert main(["predict", str(matting), *words]) == 2
        line = one_line(capsys)
        assert f"data.root={tmp_path} is to be the ROOT of ROOT/{folder}/" in line
        assert f"`indexnet data check {name} root=DIR`" in line


def test_one_photograph_of_a_data_set_by_its_name(matting, tmp_path):
    from data_support import write_alphamatting

    write_alphamatting(tmp_path / "data", ("GT01", "GT02"))
    words = ["data=alphamatting", f"data.root={tmp_path / 'data'}", "--output", str(tmp_path / "out")]
    assert main(["predict", str(matting), *words, "data.names=GT02", "--device", "cpu"]) == 0
    assert files_of(tmp_path / "out") == ["GT02.png"]


def test_options_that_contradict_each_other(matting, autoencoder, folder, capsys):
    def said(code, *fragments):
        assert code == 2
        line = one_line(capsys)
        for fragment in fragments:
            assert fragment in line

    masks = ["--masks", str(folder / "trimaps")]
    said(predict(matting, folder, *masks), "--trimaps and --masks exclude each other")
    said(predict(matting, folder, "--band", "9"), "--band is for trimaps that are made")
    said(predict(matting, folder, *masks, "--band", "0", trimaps=False), "--band 0 must be auto or a whole number")
    said(predict(matting, folder, "--box", "1,2,3,4", trimaps=False), "--box is for one image")
    said(predict(matting, folder, "--background", "nothing"), "'nothing' is neither a file nor a colour")
    said(predict(matting, folder, "--batch", "2"), "matting goes image by image")
    said(predict(matting, folder, "--memory", "much"), "--memory much must be")
    said(predict(autoencoder, folder, "--cutout", trimaps=False), "takes no --cutout, which is for matting")
    said(predict(autoencoder, folder, "--batch", "0", trimaps=False), "--batch 0 must be at least 1")
    said(predict(matting, folder, "data=scenes"), "data=NAME", "not both")
    said(predict(matting, folder, "other.ckpt"), "'other.ckpt' is not understood; predict takes one checkpoint")
    said(main(["predict", str(matting), "--output", str(folder / "out")]), "give --images DIR, or data=NAME")
    inside = ["--masks", str(folder / "out" / "trimap")]
    save_image(folder / "out" / "trimap" / "a.png", trimap(40, 50))
    said(predict(matting, folder, *inside, "--overwrite", trimaps=False), "is the folder of the inputs")
    assert read(folder / "out" / "trimap" / "a.png").shape == (40, 50)


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
    said(predict(matting, folder, "--images", str(tmp_path / "nowhere")), "--images", "nowhere does not exist")
    (tmp_path / "empty").mkdir()
    said(predict(matting, folder, "--images", str(tmp_path / "empty")), "empty holds no image")
    said(predict(matting, folder, "--trimaps", str(tmp_path / "empty")), "--trimaps", "empty holds no image")
    for option in ("trimaps", "masks"):
        given = [f"--{option}", str(tmp_path / "trr")]
        said(predict(matting, folder, *given, trimaps=False), f"--{option} {tmp_path / 'trr'} does not exist")
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
