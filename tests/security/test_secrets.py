"""What the environment holds never reaches what is written down."""

from __future__ import annotations

import os

import pytest

from indexnet.cli import main
from indexnet.run.config import compose, freeze
from indexnet.run.job import run_job
from run_support import RECONSTRUCTION, prepare_run

SECRET = "s3cret-0123456789abcdef0123456789abcdef01"


@pytest.mark.parametrize(("words", "key"), [
    (["tags=[a, '${oc.env:HF_TOKEN}']"], "tags"),
    (["optimizer.lr=${oc.env:HF_TOKEN}"], "optimizer.lr"),
    (["optimizer.lr=${ oc.env: HF_TOKEN,0.1}"], "optimizer.lr"),
    (["seed=${oc.decode:${oc.env:HF_TOKEN}}"], "seed"),
    (["+experiment.label=x-${oc.env:HF_TOKEN}"], "experiment.label"),
    (["paths.data=/data/${oc.env:HF_TOKEN}"], "paths.data"),
    (["paths.runs=${oc.env:${oc.env:HF_TOKEN}}"], "paths.runs"),
    (["paths.data=${oc.env:wandb_apikey}"], "paths.data"),
    (["-m", "optimizer.lr=0.1,${oc.env:HF_TOKEN}"], "optimizer.lr"),
    (["-m", "seed=${oc.env:HF_TOKEN}"], "seed"),
])  # fmt: skip
def test_a_value_of_the_environment_is_refused_by_key(words, key, tmp_path, monkeypatch, capsys):
    for name in ("HF_TOKEN", "wandb_apikey"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "task=reconstruction", *words]) == 2
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert key in said.err
    assert "oc.env" in said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def test_places_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("MONKEY_DISK", "/somewhere")
    places = [
        "paths.data=${oc.env:MONKEY_DISK}/data",
        "paths.runs=${oc.env:MONKEY_DISK}",
        "data.backgrounds=${oc.env:MONKEY_DISK}",
    ]
    config = freeze(compose(["task=matting", "budget=smoke", *places]))
    assert config["paths"] == {"data": "/somewhere/data", "runs": "/somewhere"}
    assert config["data"]["backgrounds"] == "/somewhere"


@pytest.mark.long
def test_keys_of_the_environment_stay_there(tmp_path, monkeypatch, capfd):
    names = ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SLURM_JWT", "A_PASSWORD")
    for name in names:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.chdir(tmp_path)
    folder = prepare_run(tmp_path / "runs", *RECONSTRUCTION, "resampling=bilinear", "logger=wandb")
    assert run_job(folder.path) == 0
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    assert any(path.suffix == ".ckpt" for path in written)
    for path in written:
        assert SECRET.encode() not in path.read_bytes(), path
    assert all(os.environ[name] == SECRET for name in names)
