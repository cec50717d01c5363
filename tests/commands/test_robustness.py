from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from commands_support import (
    PHOTOS,
    SCENES,
    autoencoder_checkpoint,
    labelled_checkpoint,
    matting_checkpoint,
    read,
    save_random,
)
from indexnet.cli import main
from indexnet.data import create_data
from indexnet.inference.evaluation import evaluate
from indexnet.inference.loading import load_task
from indexnet.inference.robustness import DegradedImages, RemadeTrimaps
from indexnet.report.figures.line_plots import Line, Panel, draw_png, draw_svg


def test_the_command_measures_every_method_on_every_range(tmp_path, capsys):
    checkpoints = [matting_checkpoint(tmp_path / "a.ckpt"), matting_checkpoint(tmp_path / "b.ckpt", "nearest")]
    words = ["robustness", *map(str, checkpoints), "data.test_count=3", "--ranges", "3-5,9-12", "--device", "cpu"]
    out = tmp_path / "out"
    assert main([*words, "--output", str(out)]) == 0
    captured = capsys.readouterr().out
    assert "3-5 px" in captured
    assert "3 of 3 images" in captured
    result = json.loads((out / "robustness.json").read_text())
    assert result["ranges"] == [[3, 5], [9, 12]]
    assert [method["caption"] for method in result["methods"]] == ["max_unpool", "nearest"]
    task, _ = load_task(checkpoints[1])
    scenes = create_data("scenes", task="matting", size=64, test_count=3).test()
    scores = evaluate(task, {"": RemadeTrimaps(scenes, (9, 12))}, {"": 3})
    for key, value in scores.results.items():
        cell = result["methods"][1]["results"][key][1]
        assert cell["value"] == pytest.approx(value, rel=1e-9)
        assert cell["interval"] is None  # of three images
    with (out / "robustness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert result["conditions"][1] == {"range": "9-12", "degradation": "", "level": ""}
    assert [(row["method"], row["range"]) for row in rows] == [
        ("max_unpool", "3-5"), ("max_unpool", "9-12"), ("nearest", "3-5"), ("nearest", "9-12"),
    ]  # fmt: skip
    assert float(rows[3]["sad"]) == pytest.approx(scores.results["sad"], rel=1e-9)
    with (out / "per_image.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 3
    svg = ElementTree.fromstring((out / "robustness.svg").read_bytes())
    words_drawn = {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"max_unpool", "nearest", "3-5", "9-12", "SAD (thousands), lower is better"} <= words_drawn
    assert any("3 images are too few for 95 % intervals" in (text or "") for text in words_drawn)
    assert "size of the eroding ellipses, pixels" in words_drawn
    assert result["note"] == "3 images are too few for 95 % intervals" in captured
    assert not rows[3]["sad_low"]
    assert read(out / "robustness.png").std() > 1
    assert main([*words, "--output", str(out)]) == 2
    assert "robustness.json exists; give --overwrite" in capsys.readouterr().err


def test_images_are_damaged_for_every_method_alike(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # of two methods, results lie here
    checkpoints = [matting_checkpoint(tmp_path / "a.ckpt"), matting_checkpoint(tmp_path / "b.ckpt", "nearest")]
    words = ["robustness", *map(str, checkpoints), "data.test_count=2", "--device", "cpu"]
    assert main([*words, "--degrade", "noise=0,20", "--degrade", "jpeg=30"]) == 0
    captured = capsys.readouterr().out
    assert "Robustness on scenes: noise" in captured
    assert "JPEG quality" in captured
    (folder,) = Path("robustness").glob("a+b/*")
    assert folder.name == "scenes,degrade=noise=0-20+jpeg=30,test_count=2"
    result = json.loads((folder / "robustness.json").read_text())
    assert result["degradations"] == {"noise": [0, 20], "jpeg": [30]}
    assert [each["degradation"] for each in result["conditions"]] == ["", "noise", "jpeg"]  # clean once
    task, _ = load_task(checkpoints[0])
    plain = create_data("scenes", task="matting", size=64, test_count=2).test()
    for place, split in enumerate((plain, DegradedImages(plain, "noise", 20), DegradedImages(plain, "jpeg", 30))):
        for key, value in evaluate(task, {"": split}, {"": 2}).results.items():
            assert result["methods"][0]["results"][key][place]["value"] == pytest.approx(value, rel=1e-9)
    with (folder / "robustness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(row["degradation"], row["level"]) for row in rows]
    assert found == 2 * [("", ""), ("noise", "20"), ("jpeg", "30")]
    svg = ElementTree.fromstring((folder / "robustness.svg").read_bytes())
    drawn = {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"noise: SAD (thousands), lower is better", "clean", "20", "jpeg: MSE, lower is better"} <= drawn


@pytest.mark.long
def test_coarse_trimaps_and_damage_together(tmp_path, capsys):
    words = ["robustness", str(matting_checkpoint(tmp_path / "a.ckpt")), "data.test_count=1", "--device", "cpu"]
    words += ["--degrade", "blur=0,1", "--ranges", "3-5,9-12", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    assert "Robustness on scenes: blur, trimaps 9-12" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert [(each["range"], each["degradation"]) for each in result["conditions"]] == [
        ("3-5", ""), ("3-5", "blur"), ("9-12", ""), ("9-12", "blur"),
    ]  # fmt: skip


@pytest.mark.long
def test_other_tasks_are_damaged_too(tmp_path):
    names = create_data("scenes", task="segmentation", size=32).classes
    words = ["robustness", str(labelled_checkpoint(tmp_path / "s.ckpt", names)), "data=scenes", "data.size=32"]
    words += ["data.test_count=2", "--degrade", "gamma=2", "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    result = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert len(result["methods"][0]["results"]["miou"]) == 2


def test_six_images_have_intervals(tmp_path, capsys):
    words = ["robustness", str(matting_checkpoint(tmp_path / "a.ckpt")), "data.test_count=6", "--ranges", "3-5"]
    assert main([*words, "--device", "cpu", "--output", str(tmp_path / "out")]) == 0
    assert "95 % bootstrap intervals over 6 images, in robustness.csv and the plot" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "robustness.json").read_text())
    (cell,) = result["methods"][0]["results"]["sad"]
    assert cell["interval"][0] <= cell["value"] <= cell["interval"][1]


def test_the_picture_shows_where_the_lines_run():
    """A line that rises is drawn rising, in its colour, with its interval."""
    points = [(1.0, (0.5, 1.5)), (2.0, (1.5, 2.5)), (3.0, None)]
    panel = Panel("error", ["a", "b", "c"], [Line("one & two", points), Line("flat", [(1.0, None)] * 3)])
    text = draw_svg([panel], "Title <x>", "Footer.")
    svg = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    lines = [e for e in svg.iter(f"{space}polyline") if e.get("stroke-width") == "2.0"]
    (rising, flat) = ([tuple(map(float, p.split(","))) for p in e.get("points").split()] for e in lines)
    assert rising[0][1] > rising[1][1] > rising[2][1]  # y grows downwards
    assert rising[0][1] - rising[1][1] == pytest.approx(rising[1][1] - rising[2][1], abs=0.15)
    assert flat[0][1] == flat[2][1] == pytest.approx(rising[0][1], abs=0.1)
    whiskers = [e for e in svg.iter(f"{space}polyline") if e.get("stroke-width") == "1.2"]
    assert len(whiskers) == 2
    bare = Panel("error", ["a"], [Line("one", [(1.0, None)]), Line("two", [(2.0, None)])])
    marks = [e.get("points") for e in ElementTree.fromstring(draw_svg([bare], "", "")).iter(f"{space}polyline")]
    assert len({points.partition(",")[0] for points in marks if " " not in points}) == 1  # no intervals to keep apart
    assert draw_png([panel], "Title", "Footer.")[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--ranges", "9-3"], "not understood at '9-3'"),
        (["--seed", "-1"], "--seed -1 must be 0 or more"),
        (["--limit", "0"], "--limit 0 must be at least 1"),
        (["--degrade", "nois"], "Did you mean 'noise'?"),
        (["--degrade", "jpeg=0"], "'0' is no level; give an integer from 1 to 100 (JPEG quality)"),
        (["--degrade", "noise=5", "--degrade", "noise=7"], "names noise twice"),
    ],
)
def test_mistakes_are_one_sentence(words, fragment, tmp_path, mistake):
    mistake(main(["robustness", str(matting_checkpoint(tmp_path / "a.ckpt")), *words]), fragment)


def test_other_tasks_are_refused(tmp_path, mistake):
    own = str(autoencoder_checkpoint(tmp_path / "a.ckpt"))
    mistake(main(["robustness", own]), "robustness is for matting")
    mistake(main(["robustness", own, "--degrade", "noise"]), "are what its results are to be")
    denoiser = save_random(tmp_path / "d.ckpt", "denoising", {"name": "dncnn", "depth": 3, "width": 4}, PHOTOS)
    mistake(main(["robustness", str(denoiser), "--degrade", "noise"]), "`indexnet evaluate CKPT task.sigma=VALUE`")
    depth = {"name": "fastdepth", "encoder": {"name": "mobilenetv1_fastdepth", "width": 0.25}}
    found = save_random(tmp_path / "f.ckpt", "depth", depth, SCENES)
    mistake(main(["robustness", str(found)]), "robustness is for matting; ", "--degrade noise,jpeg,blur,gamma")
    words = ["robustness", str(found), "--degrade", "noise", "--ranges", "3-5"]
    mistake(main(words), "--ranges is for matting")
