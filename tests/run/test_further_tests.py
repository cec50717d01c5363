"""``tests=[...]``: further data sets that a run is tested on."""

from __future__ import annotations

import csv
import json

import pytest

from indexnet.inference.evaluation import evaluate
from indexnet.inference.loading import load_task
from indexnet.run.config import compose, freeze
from indexnet.run.further_tests import further_splits, missing_folder
from indexnet.run.identity import config_hash
from indexnet.run.job import run_job
from indexnet.run.schema import read_config
from indexnet.sweep.launch import check_roots
from run_support import RECONSTRUCTION, job_process, prepare_run, refused, weights

TWO = [*RECONSTRUCTION, "training.steps=2", "resampling=nearest"]


def _record(folder):
    return json.loads((folder.path / "record.json").read_text())


def _rows(folder):
    with (folder.path / "per_image.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def words(root):
    folder = f"{{name: denoising_folder, root: '{root / 'denoising_folder'}'}}"
    return [*TWO, f"tests=[{{name: mnist, root: '{root}'}},{folder},photos]"]


def test_a_run_is_tested_on_each(words, tmp_path, capsys):
    folder = prepare_run(tmp_path, *words)
    assert run_job(folder.path) == 0
    assert "(mnist, denoising_folder, photos too)" in capsys.readouterr().out
    record, rows = _record(folder), _rows(folder)
    splits = further_splits(read_config(folder.config()))
    counts = {name: len(each) for name, each in splits.items()}
    assert record["data"]["tests"] == {
        name: {"count": len(each), "fingerprint": each.fingerprint()} for name, each in splits.items()
    }
    assert list(counts) == ["mnist", "denoising_folder/Set14", "denoising_folder/Set5", "photos"]
    assert record["data"]["test"]["count"] == 5
    assert record["test_count"] == len(rows) == 5 + sum(counts.values())
    task, _ = load_task(folder.checkpoint())
    for name, each in splits.items():
        own = [row for row in rows if row["name"].startswith(f"{name}/")]
        assert len(own) == counts[name]
        assert all(row[f"{name}/psnr"] and not row["psnr"] for row in own)
        scores = evaluate(task, {name: each}, {name: len(each)}).over({row["name"] for row in own})
        assert record["metrics"][f"{name}/psnr"] == pytest.approx(scores[f"{name}/psnr"], rel=1e-6)
    alone = prepare_run(tmp_path / "alone", *TWO)
    assert run_job(alone.path) == 0
    assert {key: record["metrics"][key] for key in ("psnr", "ssim")} == {
        key: _record(alone)["metrics"][key] for key in ("psnr", "ssim")
    }
    assert all((weights(alone)[key] == value).all() for key, value in weights(folder).items())


def test_what_a_run_is():
    plain = freeze(compose(TWO))
    assert "tests" not in plain
    here, there = (freeze(compose([*TWO, f"tests=[{{name: mnist, root: {place}}}]"])) for place in ("a", "b"))
    assert here["tests"][0]["root"] == "a"
    assert config_hash(here) == config_hash(there) != config_hash(plain)
    assert missing_folder(here, lambda place: False) == ("tests", "mnist", "a")
    assert missing_folder(plain, lambda place: False) is None
    with refused("tests: 'a' is no folder on this machine", "tests=[{name: mnist, root: DIR}], or leave mnist out"):
        check_roots([here], False)


@pytest.mark.parametrize(
    ("given", "sentences"),
    [
        ("tests=[fashion_mnst]", ["tests: ", "fashion_mnst", "fashion_mnist"]),
        ("tests=[mnist,{name: mnist, root: x}]", ["tests: mnist is there twice"]),
        ("tests=[{name: photos, tset_count: 3}]", ["tests, photos: ", "Did you mean 'test_count'?"]),
        ("tests=[{root: x}]", ["must be the name of a data set, or a mapping with its name"]),
        ("tests=mnist", ["tests="]),
    ],
)
def test_a_mistake_is_one_sentence(given, sentences):
    with refused(*sentences):
        freeze(compose([*TWO, given]))


def test_files_that_are_missing_are_said_before_training(tmp_path):
    folder = prepare_run(tmp_path, *TWO, "tests=[{name: mnist, root: nowhere}]")
    with refused("tests, mnist: ", "nowhere", "; or leave mnist out of tests=[...]."):
        run_job(folder.path)
    assert not folder.checkpoint().exists()


def test_validation_sees_no_test_data():
    with refused("tests=[photos] are test data, and split=validation measures on none"):
        freeze(compose(["task=depth", "data=scenes", "data.validation_count=2", "split=validation", "tests=[photos]"]))


@pytest.mark.long
def test_two_processes_and_a_kill_give_the_same(words, tmp_path):
    whole = prepare_run(tmp_path / "one", *words)
    assert run_job(whole.path) == 0
    two = prepare_run(tmp_path / "two", *words, "trainer.devices=2")
    done = job_process(two)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _record(two)["test_count"] == _record(whole)["test_count"]
    assert [row["name"] for row in _rows(two)] == [row["name"] for row in _rows(whole)]
    record = _record(whole)
    (whole.path / "per_image.csv").unlink()  # as if killed while it was tested
    (whole.path / "record.json").write_text(json.dumps({**record, "status": "running", "metrics": {}}))
    assert run_job(whole.path) == 0
    assert _record(whole)["metrics"] == record["metrics"]
