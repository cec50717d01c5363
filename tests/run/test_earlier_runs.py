"""Run folders that an earlier version of the program made: everything that reads or goes on with one still does.

``fixtures/runs_schema_1.zip`` holds a finished run and one that was killed at step 2 of 6, made by revision 93c2905.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from indexnet.cli import main
from indexnet.networks.checkpoint import load_network
from indexnet.run.folder import RunFolder
from indexnet.run.job import run_job
from indexnet.run.run_sets import find_run_sets, read_curve, read_per_image, read_pictures
from indexnet.run.schema import read_config
from run_support import losses, weights

SETTING = Path("runs/quickstart/photos-smoke")


@pytest.fixture
def earlier(fresh):
    """The folders of the finished run and of the other one, below the working directory."""
    return RunFolder(SETTING / "hin" / "seed=0"), RunFolder(SETTING / "max_unpool" / "seed=0")


def test_a_record_is_read_whole_and_written_as_it_was(earlier, tmp_path):
    for folder, status in zip(earlier, ("done", "running"), strict=True):
        record = folder.record()
        assert record.status == folder.status() == status
        content = json.loads((folder.path / "record.json").read_text())
        assert record.to_json() == content
        assert list(record.to_json()) == list(content)
        record.write(tmp_path)
        assert (tmp_path / "record.json").read_bytes() == (folder.path / "record.json").read_bytes()


def test_where_it_stands(earlier, capsys):
    assert main(["status", "quickstart", "--json"]) == 0
    (setting,) = json.loads(capsys.readouterr().out)["settings"]
    assert {run["row"]: (run["status"], run["step"], run["steps"]) for run in setting["runs"]} == {
        "hin": ("done", None, None),
        "max_unpool": ("interrupted", 2, 6),
    }
    assert [command["directory"] for command in setting["commands"]] == ["/elsewhere"]


def test_what_a_report_says(earlier, capsys):
    assert main(["report", "quickstart", "--output", "report"]) == 0
    with Path("report/table.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert (rows["hin"]["status"], rows["max_unpool"]["status"]) == ("partial", "running")
    assert float(rows["hin"]["psnr_mean"]) == 10.194702845008894
    costs = ("parameters", "resampling_parameters", "paper_gflops", "true_gmacs", "peak_memory_mb")
    assert [float(rows["hin"][key]) for key in costs] == [4129, 2704, 0.00063323974609375, 0.000679936, 468.2]
    (runs,) = find_run_sets("runs", "quickstart")
    finished = runs.runs[0]
    assert list(read_per_image(finished)) == ["psnr", "ssim", "mae", "rmse"]
    assert [step for step, _ in read_curve(finished)] == [0, 1, 2, 3, 4, 5]
    assert [picture.kind for picture in read_pictures(finished)] == ["input", "output", "error"]


def test_a_configuration_from_before_a_key_was_there(earlier):
    config = earlier[1].config()
    assert read_config({**config, "protocol": None}).protocol == {}
    del config["logger"]["mode"]
    assert read_config(config).logger.mode == "auto"


def test_the_network_of_a_checkpoint(earlier, capsys):
    finished, _ = earlier
    network, meta = load_network(finished.checkpoint())
    assert meta["config"]["experiment"]["row"] == "hin"
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    words = ["data=photos", "data.test_count=2", "--device", "cpu", "--output", "evaluated"]
    assert main(["evaluate", str(finished.checkpoint()), *words]) == 0
    found = json.loads(Path("evaluated/evaluation.json").read_text())["metrics"]
    assert found == pytest.approx(finished.record().metrics, rel=1e-4)


def test_a_finished_run_is_not_run_again(earlier, capsys):
    before = (earlier[0].path / "record.json").read_bytes()
    assert run_job(earlier[0].path) == 0
    assert "done before: " in capsys.readouterr().out
    assert (earlier[0].path / "record.json").read_bytes() == before


def test_an_interrupted_run_goes_on_to_the_same_end(earlier, tmp_path, capsys):
    _, folder = earlier
    whole = RunFolder(tmp_path / "whole")
    whole.path.mkdir()
    (whole.path / "config.yaml").write_bytes((folder.path / "config.yaml").read_bytes())
    assert run_job(whole.path) == 0
    capsys.readouterr()
    assert run_job(folder.path) == 0
    assert "going on from step 2 of 6" in capsys.readouterr().out
    # another machine may add up in another order than the one that made the files
    assert weights(folder).keys() == weights(whole).keys()
    assert all(torch.allclose(value, weights(whole)[key], atol=1e-4) for key, value in weights(folder).items())
    assert folder.record().metrics == pytest.approx(whole.record().metrics, rel=1e-3)
    assert [step for step, _ in losses(folder)] == [step for step, _ in losses(whole)]
    assert folder.record().started == "2026-11-26T00:46:12+00:00"
