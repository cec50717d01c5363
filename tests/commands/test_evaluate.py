from __future__ import annotations

import csv
import importlib.util
import json

import numpy as np
import pytest
import torch

from commands_support import (
    SCENES,
    autoencoder_checkpoint,
    matting_checkpoint,
    photograph,
    save_alphamatting,
    save_image,
    save_random,
    trimap,
)
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.data import create_data, list_data
from indexnet.inference.loading import load_task, parse_memory
from indexnet.inference.methods import default_folder, file_options, parse_overrides
from indexnet.networks.tiled.matting_protocol import infer_alpha, to_uint8
from indexnet.tasks.matting import MattingTask


@pytest.fixture(scope="module")
def matting(tmp_path_factory):
    return matting_checkpoint(tmp_path_factory.mktemp("matting") / "m.ckpt")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_reconstruction_from_the_checkpoint_alone(tmp_path, capsys):
    checkpoint = autoencoder_checkpoint(tmp_path / "run" / "last.ckpt")
    assert main(["evaluate", str(checkpoint), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "run" / "evaluations" / "last" / "photos"
    result, rows = json.loads((folder / "evaluation.json").read_text()), rows_of(folder / "per_image.csv")
    assert "PSNR" in out
    assert str(folder) in out

    dataset = create_data("photos", task="reconstruction", size=32, channels=1, train_count=8, test_count=5).test()
    task, _ = load_task(checkpoint)
    psnr = []
    for index in range(5):
        sample = dataset.sample(index, np.random.default_rng(0))
        with torch.no_grad():
            output = task.network(sample["image"][None]).clamp(0, 1)
        mse = (output[0].double() - sample["image"].double()).square().mean().item()
        psnr.append(-10 * np.log10(mse))
        assert float(rows[index]["psnr"]) == pytest.approx(psnr[-1], abs=1e-4)
        assert rows[index]["name"] == dataset.name(index)
    assert result["metrics"]["psnr"] == pytest.approx(np.mean(psnr), abs=1e-4)
    assert set(result["metrics"]) == {"psnr", "ssim", "mae", "rmse"}
    assert result["test_count"] == result["data"]["count"] == 5
    assert result["data"]["fingerprint"] == dataset.fingerprint()
    assert result["failed"] == []


def test_an_evaluation_is_not_overwritten_unasked(tmp_path, capsys):
    checkpoint = autoencoder_checkpoint(tmp_path / "a.ckpt")
    words = ["evaluate", str(checkpoint), "--output", str(tmp_path / "out"), "--limit", "2"]
    assert main(words) == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["test_count"] == 2
    before = (tmp_path / "out" / "per_image.csv").read_bytes()
    capsys.readouterr()
    assert main([*words, "data.test_count=1"]) == 2
    assert "evaluation.json exists; give --overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "per_image.csv").read_bytes() == before
    assert main([*words, "--overwrite", "data.test_count=1"]) == 0  # overrides may stand after options
    assert len(rows_of(tmp_path / "out" / "per_image.csv")) == 1


def test_matting_scores_are_those_of_the_written_png(matting, tmp_path):
    """SAD and MSE as the paper measures them: on the truncated 8-bit alpha, over the unknown region."""
    root = save_alphamatting(tmp_path / "data")
    words = ["evaluate", str(matting), "data=alphamatting", f"data.root={root}", "data.trimap=Trimap2"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out" / "per_image.csv")
    task, _ = load_task(matting)
    for number, row in enumerate(rows):
        known = trimap(40 + number, 50)
        prediction = to_uint8(infer_alpha(task.network, photograph(40 + number, 50, number), known)).astype(float) / 255
        alpha = np.linspace(0, 255, 50).round() / 255
        difference = (prediction - alpha)[known == 128]
        assert float(row["sad"]) == pytest.approx(np.abs(difference).sum() / 1000, rel=1e-5)
        assert float(row["mse"]) == pytest.approx((difference**2).mean(), rel=1e-5)
    assert [row["name"] for row in rows] == ["GT01", "GT02", "GT03"]


def test_a_wrong_trimap_is_an_error_and_the_others_are_evaluated(matting, tmp_path, capsys):
    root = save_alphamatting(tmp_path / "data")
    bad = trimap(41, 50)
    bad[bad == 128] = 127
    save_image(root / "trimap_training_lowres" / "Trimap1" / "GT02.png", bad)
    words = ["evaluate", str(matting), "data=alphamatting", f"data.root={root}"]
    assert main(words) == 3
    captured = capsys.readouterr()
    assert "GT02.png" in captured.err
    assert "127" in captured.err
    assert "128" in captured.err
    assert "2 of 3 images" in captured.out
    result = json.loads((matting.parent / "evaluations" / "m" / "alphamatting" / "evaluation.json").read_text())
    assert result["test_count"] == 2
    assert [entry["name"] for entry in result["failed"]] == ["GT02"]


def test_other_bad_files_of_a_data_set(matting, tmp_path, capsys):
    root = save_alphamatting(tmp_path / "data")
    save_image(root / "trimap_training_lowres" / "Trimap1" / "GT01.png", trimap(20, 20))
    (root / "input_training_lowres" / "GT02.png").write_bytes(b"no image")
    words = ["evaluate", str(matting), "data=alphamatting", f"data.root={root}", "--output", str(tmp_path / "out")]
    assert main(words) == 3
    err = capsys.readouterr().err
    assert "20x20" in err
    assert "GT02.png cannot be read" in err
    for path in (root / "input_training_lowres").iterdir():
        path.write_bytes(b"no image")
    assert main([*words, "--overwrite"]) == 2
    assert "none of the 3 images of alphamatting could be evaluated" in capsys.readouterr().err
    for path in (root / "input_training_lowres").iterdir():
        path.unlink()
    assert main([*words, "--overwrite"]) == 2
    assert "holds no image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["data.test_cuont=1"], "Did you mean 'test_count'?"),
        (["data=photso"], "Did you mean 'photos'?"),
        (["training.size=3"], "'training.size=3' is not understood"),
        (["data.task=matting"], "data.task follows from the checkpoint"),
        (["data=alphamatting", "data.root=x"], "no targets for the task 'reconstruction'"),
        (["data.channels=3"], "have 3 channels but the network takes 1; give data.channels=1"),
        (["--limit", "0"], "--limit 0 must be at least 1"),
        (["data=mnist", "data.root=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(tmp_path, mistake, words, fragment):
    checkpoint = autoencoder_checkpoint(tmp_path / "a.ckpt")
    mistake(main(["evaluate", str(checkpoint), *words]), fragment)
    assert not (tmp_path / "evaluations").exists()


def test_a_converted_checkpoint_needs_a_data_set(tmp_path, capsys):
    checkpoint = matting_checkpoint(tmp_path / "m.ckpt", data=None)
    assert main(["evaluate", str(checkpoint)]) == 2
    err = capsys.readouterr().err
    assert "names no data set; give data=NAME, one of " in err
    assert "alphamatting, " in err
    assert "camvid" not in err  # serves another task
    words = ["evaluate", str(checkpoint), "data=scenes", "data.test_count=1", "data.size=64"]
    assert main(words) == 0  # the rest comes from conf/data/scenes.yaml


@pytest.mark.parametrize("name", [info.name for info in list_data()])
def test_the_file_of_a_data_set_refers_to_the_folder_of_data_only(name):
    options = file_options(name, "somewhere")
    assert "${" not in str(options)
    assert (options.get("root") or "somewhere").startswith("somewhere")


def test_overrides_are_read_as_plain_values(tmp_path):
    name, options = parse_overrides(["data=scenes", "data.seed=3", "data.backgrounds=null", "data.root=a=b", "data.x="])
    assert name == "scenes"
    assert options == {"seed": 3, "backgrounds": None, "root": "a=b", "x": ""}
    folder = default_folder([tmp_path / "a.ckpt"], "scenes", {"seed": 3, "root": "/x", "backgrounds": "my/folder"})
    assert folder == tmp_path / "evaluations" / "a" / "scenes,backgrounds=my_folder,seed=3"


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "data"),
    [
        ("reconstruction", "photos"),
        ("matting", "scenes"),
        ("denoising", "photos"),
        pytest.param("segmentation", "scenes", marks=pytest.mark.nightly),
        pytest.param("depth", "scenes", marks=pytest.mark.nightly),
    ],
)
def test_a_run_and_its_checkpoint_give_the_same_numbers(task, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [f"task={task}", "budget=smoke", "data.test_count=2", "training.size=64", "logger=none"]
    words += ["encoder.width=0.35"] if task == "matting" else []
    assert main(["train", *words]) == 0
    (record,) = (tmp_path / "runs").rglob("record.json")
    checkpoint = record.parent / "checkpoints" / "last.ckpt"
    assert main(["evaluate", str(checkpoint), "--device", "cpu"]) == 0
    folder = checkpoint.parent / "evaluations" / "last" / data
    measured = json.loads((folder / "evaluation.json").read_text())["metrics"]
    assert measured == pytest.approx(json.loads(record.read_text())["metrics"], rel=1e-6)
    for ours, theirs in zip(rows_of(folder / "per_image.csv"), rows_of(record.parent / "per_image.csv"), strict=True):
        assert ours["name"] == theirs["name"]
        assert all(float(ours[key]) == pytest.approx(float(theirs[key]), rel=1e-6) for key in measured)


def test_images_without_anything_to_measure_are_named(tmp_path, monkeypatch, capsys):
    from indexnet.data.scenes.dataset import SceneSamples

    plain = SceneSamples.sample

    def unmeasured(self, index, rng):
        sample = plain(self, index, rng)
        return {**sample, "depth": sample["depth"] * 0} if index == 1 else sample

    monkeypatch.setattr(SceneSamples, "sample", unmeasured)
    network = {"name": "fastdepth", "encoder": {"name": "mobilenetv1_fastdepth", "width": 0.25}}
    checkpoint = save_random(tmp_path / "d.ckpt", "depth", network, SCENES, 64)
    assert main(["evaluate", str(checkpoint), "--output", str(tmp_path / "out"), "--device", "cpu"]) == 3
    assert "scene-test-000001: nothing in it can be measured" in capsys.readouterr().err
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert result["test_count"] == 1
    assert result["metrics"]["depth_rmse"] > 0


def test_several_checkpoints_and_a_classical_method_in_one_table(matting, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pymatting")
    monkeypatch.chdir(tmp_path)
    root = save_alphamatting(tmp_path / "data")
    bad = trimap(41, 50)
    bad[bad == 255] = 128  # closed-form matting needs foreground, a network does not
    save_image(root / "trimap_training_lowres" / "Trimap1" / "GT02.png", bad)
    other = matting_checkpoint(tmp_path / "near.ckpt", "nearest")
    words = ["evaluate", str(matting), str(other), "closed_form", "data=alphamatting", f"data.root={root}"]
    assert main([*words, "--gallery", "2", "--device", "cpu"]) == 3
    captured = capsys.readouterr()
    assert "GT02: the trimap has no foreground, which closed-form matting needs" in captured.err
    assert "2 of 3 images" in captured.out
    assert "closed_form" in captured.out
    folder = tmp_path / "evaluations" / "m+near+closed_form" / "alphamatting"
    result, rows = json.loads((folder / "evaluation.json").read_text()), rows_of(folder / "per_image.csv")
    assert [m["caption"] for m in result["methods"]] == ["max_unpool", "nearest", "closed_form"]
    assert [m["test_count"] for m in result["methods"]] == [3, 3, 2]
    assert result["test_count"] == result["groups"] == 2
    assert result["methods"][2]["checkpoint"] is None
    assert len(rows) == 8
    table = rows_of(folder / "table.csv")
    for line, method in zip(table, result["methods"], strict=True):
        mine = [float(r["sad"]) for r in rows if r["method"] == line["method"] and r["name"] != "GT02"]
        assert float(line["sad"]) == pytest.approx(np.mean(mine)) == method["metrics"]["sad"]
    assert float(table[2]["sad_difference"]) == pytest.approx(float(table[2]["sad"]) - float(table[0]["sad"]))
    assert "Levin" in (folder / "table.md").read_text()
    worst = sorted((r for r in rows if r["method"] == "max_unpool"), key=lambda r: -float(r["sad"]))[:2]
    page = (folder / "worst.html").read_text()
    assert page.index(f"1. {worst[0]['name']}<") < page.index(f"2. {worst[1]['name']}<")
    assert sorted(path.name for path in (folder / "worst").iterdir()) == ["01.png", "02.png"]
    assert main([*words, "--gallery", "1", "--device", "cpu", "--overwrite"]) == 3
    assert [path.name for path in (folder / "worst").iterdir()] == ["01.png"]
    assert "<h1>Worst images: max_unpool; nearest; closed_form on alphamatting, test</h1>" in page
    assert "<p>By SAD (thousands) of <q>max_unpool</q>" in page
    assert result["note"] == "2 images are too few for 95 % intervals"
    # one classical method alone is an evaluation as of a checkpoint
    assert main(["evaluate", "closed_form", "data=alphamatting", f"data.root={root}", "data.trimap=Trimap2"]) == 0
    single = json.loads((tmp_path / "evaluations/closed_form/alphamatting,trimap=Trimap2/evaluation.json").read_text())
    assert single["network"] == {"name": "closed_form"}
    assert single["metrics"]["sad"] > 0


def test_data_without_alpha_is_refused_with_the_command_that_serves(matting, tmp_path, monkeypatch, mistake):
    from indexnet.data.scenes.dataset import SceneSamples

    plain = SceneSamples.sample

    def unpublished(self, index, rng):
        return {key: value for key, value in plain(self, index, rng).items() if key != "alpha"}

    monkeypatch.setattr(SceneSamples, "sample", unpublished)
    code = main(["evaluate", str(matting), "--output", str(tmp_path / "out")])
    mistake(code, "no ground-truth alpha", "`indexnet predict CKPT data=NAME")
    assert not (tmp_path / "out").exists()


def test_how_matting_is_measured_can_be_chosen_but_not_what_was_trained(matting, tmp_path, capsys, mistake):
    words = ["evaluate", str(matting), "data.test_count=2", "--device", "cpu", "--gallery", "0"]
    found = {}
    for region in ("unknown", "image"):
        out = tmp_path / region
        assert main([*words, f"task.region={region}", "--output", str(out)]) == 0
        result = json.loads((out / "evaluation.json").read_text())
        assert result["data"]["options"]["size"] == 64  # the run's training.size
        found[region] = result["metrics"]["sad"]
        assert result["task"]["region"] == region
        assert not (out / "worst.html").exists()
    assert found["unknown"] * 1000 / 64**2 == pytest.approx(found["image"], rel=1e-3)  # known pixels are right
    both = ["evaluate", "closed_form", str(matting), "task.region=image", "data=scenes", "data.test_count=2"]
    if importlib.util.find_spec("pymatting"):
        assert main([*both, "--gallery", "0", "--output", str(tmp_path / "both")]) == 0
        result = json.loads((tmp_path / "both" / "evaluation.json").read_text())
        assert [method["task"]["region"] for method in result["methods"]] == ["image", "image"]
        assert result["methods"][1]["metrics"]["sad"] == pytest.approx(found["image"])
    capsys.readouterr()
    for word, fragment in (
        ("task.region=portrait", "task.region='portrait' must be unknown or image"),
        ("task.sigma=25", "which is for matting; of that task.semantics=VALUE and task.region=VALUE can be given."),
        ("task.semantics=5", "task.semantics=5 must be matlab, released_python or mmediting"),
        ("task.name=depth", "follows from the checkpoint"),
    ):
        mistake(main([*words, word, "--overwrite"]), fragment)


def test_methods_that_cannot_be_compared(matting, tmp_path, mistake):
    other = autoencoder_checkpoint(tmp_path / "a.ckpt")
    mistake(main(["evaluate", str(matting), str(other)]), "give methods of one task")
    mistake(main(["evaluate", str(other), "--memory", "4GB"]), "--memory is for matting")
    mistake(main(["evaluate", "data=scenes"]), "give a checkpoint, or closed_form or knn")
    mistake(main(["evaluate", str(matting), "--gallery", "-1"]), "--gallery -1 must be 0 or more")


def test_memory_is_read_and_reaches_the_prediction(matting, tmp_path, monkeypatch):
    assert [parse_memory(text) for text in ("auto", "none", "4GB", "512 MB", "1.5GiB")] == [
        "auto", None, 4 * 10**9, 512 * 10**6, 3 * 2**29,
    ]  # fmt: skip
    for text in ("4", "GB", "-1GB", "0MB", "lots"):
        with pytest.raises(UserError, match="--memory"):
            parse_memory(text)
    seen = []
    plain = MattingTask.predict_alpha

    def watched(self, *given):
        seen.append(self.memory)
        return plain(self, *given)

    monkeypatch.setattr(MattingTask, "predict_alpha", watched)
    words = ["evaluate", str(matting), "data.test_count=1", "--gallery", "0"]
    assert main([*words, "--memory", "3GB", "--output", str(tmp_path / "a")]) == 0
    assert main([*words, "--output", str(tmp_path / "b")]) == 0
    assert seen == [3 * 10**9, "auto"]


def test_an_image_too_large_for_the_memory_is_named_and_the_others_are_evaluated(
    matting, tmp_path, monkeypatch, capsys
):
    calls = []
    plain = MattingTask.predict_alpha

    def full(self, *given):
        calls.append(1)
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return plain(self, *given)

    monkeypatch.setattr(MattingTask, "predict_alpha", full)
    assert main(["evaluate", str(matting), "--output", str(tmp_path / "out"), "--gallery", "0"]) == 3
    assert "scene-test-000000 is too large for the memory" in capsys.readouterr().err


def test_an_evaluation_says_how_many_images_ran_in_tiles(tmp_path, capsys, monkeypatch):
    from indexnet.networks.tiled import matting_protocol

    # as if every image were large: there is less than any network may need, and less than this one would
    monkeypatch.setattr(matting_protocol, "forward_bytes", lambda network, pixels: 1000 * pixels)
    monkeypatch.setattr(matting_protocol, "room", lambda device, memory: 300 * 64 * 64)
    path = matting_checkpoint(tmp_path / "m.ckpt")
    words = ["evaluate", str(path), "--limit", "1", "--gallery", "0", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    assert "1 images ran in tiles, --memory auto" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["tiled"] == 1
