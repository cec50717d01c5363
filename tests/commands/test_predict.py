from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from commands_support import (
    autoencoder_checkpoint,
    photograph,
    read,
    save_image,
    trimap,
)
from indexnet.cli import main
from indexnet.inference.loading import load_for_photographs
from indexnet.networks.checkpoint import load_network
from indexnet.networks.tiled.matting_protocol import infer_alpha, to_uint8
from indexnet.tasks.matting import MattingTask
from indexnet.tasks.reconstruction import ReconstructionTask
from predict_support import files_of, predict


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    return autoencoder_checkpoint(tmp_path_factory.mktemp("autoencoder") / "a.ckpt")


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


def test_results_are_kept_without_overwrite(matting, folder, capsys, mistake):
    save_image(folder / "out" / "a.png", np.full((3, 3), 7, np.uint8))
    assert predict(matting, folder) == 3
    assert read(folder / "out" / "a.png").shape == (3, 3)
    assert read(folder / "out" / "b.png").shape == (33, 64)
    assert "results that existed and were kept: 1 (a.png)" in capsys.readouterr().err
    mistake(predict(matting, folder), "all 2 results exist")
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


def test_sixteen_bits_are_rounded_and_the_budget_is_passed_on(matting, folder, monkeypatch):
    plain, budgets = MattingTask.predict_alpha, []

    def watched(self, *given):
        budgets.append(self.memory)
        return plain(self, *given)

    monkeypatch.setattr(MattingTask, "predict_alpha", watched)
    assert predict(matting, folder, "--depth", "16", "--memory", "2GB") == 0
    assert budgets == [2_000_000_000] * 2
    task, *_ = load_for_photographs(matting, "cpu", "auto")
    expected = infer_alpha(task.network, read(folder / "images" / "b.png"), trimap(33, 64))
    result = read(folder / "out" / "b.png")
    assert result.dtype == np.uint16
    assert np.array_equal(result, np.rint(expected * np.float32(257)).astype(np.uint16))
    assert len(np.unique(result)) > 300


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


def test_a_data_set(matting, tmp_path, mistake):
    words = ["data=scenes", "data.test_count=2", "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["predict", str(matting), *words]) == 0
    from indexnet.data import create_data
    from indexnet.inference.loading import load_task, predict_sample

    dataset = create_data("scenes", task="matting", size=64, train_count=4, test_count=2).test()
    assert files_of(tmp_path / "out") == sorted(f"{dataset.name(index)}.png" for index in range(2))
    task, _ = load_task(matting)
    sample = dataset.sample(1, np.random.default_rng(0))
    expected = (predict_sample(task, sample)[0] * 255).round().numpy()
    assert np.array_equal(read(tmp_path / "out" / f"{dataset.name(1)}.png"), expected)
    mistake(main(["predict", str(matting), *words]), "all 2 results exist")


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


def test_a_data_set_in_the_wrong_place(matting, tmp_path, mistake):
    for name, folder in (("alphamatting", "input_training_lowres"), ("alphamatting_test", "input_lowres")):
        words = [f"data={name}", f"data.root={tmp_path}", "--output", str(tmp_path / "out")]
        said = f"data.root={tmp_path} is to be the ROOT of ROOT/{folder}/", f"`indexnet data check {name} root=DIR`"
        mistake(main(["predict", str(matting), *words]), *said)


def test_one_photograph_of_a_data_set_by_its_name(matting, tmp_path):
    from data_support import write_alphamatting

    write_alphamatting(tmp_path / "data", ("GT01", "GT02"))
    words = ["data=alphamatting", f"data.root={tmp_path / 'data'}", "--output", str(tmp_path / "out")]
    assert main(["predict", str(matting), *words, "data.names=GT02", "--device", "cpu"]) == 0
    assert files_of(tmp_path / "out") == ["GT02.png"]


def test_options_that_contradict_each_other(matting, autoencoder, folder, mistake):
    masks = ["--masks", str(folder / "trimaps")]
    mistake(predict(matting, folder, *masks), "--trimaps and --masks exclude each other")
    mistake(predict(matting, folder, "--band", "9"), "--band is for trimaps that are made")
    mistake(predict(matting, folder, *masks, "--band", "0", trimaps=False), "--band 0 must be auto or a whole number")
    mistake(predict(matting, folder, "--box", "1,2,3,4", trimaps=False), "--box is for one image")
    mistake(predict(matting, folder, "--background", "nothing"), "'nothing' is neither a file nor a colour")
    mistake(predict(matting, folder, "--batch", "2"), "matting goes image by image")
    mistake(predict(matting, folder, "--memory", "much"), "--memory much must be")
    mistake(predict(matting, folder, "--longest", "31"), "--longest 31 must be at least 32 pixels")
    mistake(predict(autoencoder, folder, "--cutout", trimaps=False), "takes no --cutout, which is for matting")
    mistake(predict(autoencoder, folder, "--batch", "0", trimaps=False), "--batch 0 must be at least 1")
    mistake(predict(matting, folder, "data=scenes"), "data=NAME", "not both")
    mistake(predict(matting, folder, "other.ckpt"), "'other.ckpt' is not understood; predict takes one checkpoint")
    mistake(main(["predict", str(matting), "--output", str(folder / "out")]), "give --images DIR, or data=NAME")
    inside = ["--masks", str(folder / "out" / "trimap")]
    save_image(folder / "out" / "trimap" / "a.png", trimap(40, 50))
    mistake(predict(matting, folder, *inside, "--overwrite", trimaps=False), "is the folder of the inputs")
    assert read(folder / "out" / "trimap" / "a.png").shape == (40, 50)


def test_mistakes_are_one_sentence_and_exit_code_2(matting, autoencoder, folder, tmp_path, mistake):
    mistake(predict(matting, folder, trimaps=False), "needs a trimap for each image; give --trimaps")
    mistake(predict(autoencoder, folder), "takes no trimaps; leave --trimaps out")
    mistake(predict(tmp_path / "none.ckpt", folder), "there is no checkpoint", "none.ckpt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.ckpt")
    mistake(predict(tmp_path / "other.ckpt", folder), "other.ckpt is a checkpoint of something else")
    mistake(predict(matting, folder, "--device", "gpu7"), "--device gpu7 is unknown")
    mistake(predict(matting, folder, "--images", str(tmp_path / "nowhere")), "--images", "nowhere does not exist")
    (tmp_path / "empty").mkdir()
    mistake(predict(matting, folder, "--images", str(tmp_path / "empty")), "empty holds no image")
    mistake(predict(matting, folder, "--trimaps", str(tmp_path / "empty")), "--trimaps", "empty holds no image")
    for option in ("trimaps", "masks"):
        given = [f"--{option}", str(tmp_path / "trr")]
        mistake(predict(matting, folder, *given, trimaps=False), f"--{option} {tmp_path / 'trr'} does not exist")
    mistake(
        predict(matting, folder, "--trimaps", str(folder / "trimaps" / "a.png")), "is one file but --images is a folder"
    )
    mistake(predict(matting, folder, "--output", str(folder / "images")), "is the folder of the inputs")
    file = folder / "images" / "a.jpg"
    mistake(predict(matting, folder, "--output", str(file)), f"{file} cannot be written (it is a file")
    if not torch.cuda.is_available():
        mistake(predict(matting, folder, "--device", "cuda"), "this machine shows 0 CUDA devices")
    assert not (folder / "out").exists()
