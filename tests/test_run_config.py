"""Configuration and run folders: composed, checked, frozen, never overwritten."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from indexnet.errors import UserError
from indexnet.run.config import compose, conf_dir, config_hash, freeze
from indexnet.run.folder import RunFolder, exclusive, prepare, run_path


def _frozen(*overrides):
    return freeze(compose(["task=reconstruction", *overrides]))


def _options(group):
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("resampling.familly=hin", "resampling.family"),
        ("resampling=indexnt", "'indexnet'"),
        ("resamplin=indexnet", "'resampling'"),
        ("training.stepz=3", "training.steps"),
        ("+trainig=3", "training"),
        ("+training.stepz=3", "training.steps"),
        ("+resampling.familly=hin", "family"),
        ("+data.chanels=3", "channels"),
        ("+network.width=3", "widths"),
        ("training.batch_size=7 trainer.devices=2", "multiple of 2"),
        ("training.batch_size=zero", "positive integer"),
        ("seed=-1", "seed"),
        ("training.steps=null training.epochs=null", "training.steps"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_nearest_key(override, sentence):
    with pytest.raises(UserError) as error:
        _frozen(*override.split())
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("group", ["resampling", "data", "optimizer", "schedule", "logger", "budget", "debug"])
def test_every_option_of_every_group_freezes(group):
    for option in _options(group):
        config = _frozen(f"{group}={option}")
        assert json.loads(json.dumps(config)) == config
        assert config[group].get("name", option) == option or group in ("logger", "debug")


@pytest.mark.parametrize("task", _options("task"))
@pytest.mark.parametrize("network", _options("network"))
def test_every_task_and_network_freezes(task, network):
    assert freeze(compose([f"task={task}", f"network={network}"]))["network"]["name"] == network


def test_budget_caps_and_never_raises():
    config = _frozen("budget=smoke", "training.batch_size=64", "training.size=32")
    assert config["training"]["batch_size"] == 2
    assert config["training"]["size"] == 32


def test_the_hash_ignores_where_results_go():
    config = _frozen()
    assert config_hash(config) == config_hash(_frozen("paths.runs=elsewhere", "logger=none", "trainer.num_workers=3"))
    assert config_hash(config) != config_hash(_frozen("seed=1"))


def test_folders(tmp_path):
    config = _frozen(f"paths.runs={tmp_path}")
    folder = prepare(config)
    assert folder.path == run_path(config) == prepare(config).path
    assert folder.config() == config
    assert folder.status() == "new"
    assert folder.record() is None
    changed = {**config, "training": {**config["training"], "steps": 7}}
    changed["experiment"] = config["experiment"] = {"name": "t", "row": "r", "label": "R"}
    first = prepare(config)
    assert first.path == tmp_path / "t" / "photos-paper" / "r" / "seed=0"
    with pytest.raises(UserError, match=r"training\.steps is None there and 7 here"):
        prepare(changed)


def test_a_table_needs_a_row(tmp_path):
    config = _frozen(f"paths.runs={tmp_path}")
    config["experiment"] = {"name": "t", "row": None, "label": None}
    with pytest.raises(UserError, match="-m experiments=t"):
        run_path(config)


def test_a_folder_is_held_by_one_process(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.lock():
        assert folder.locked()
        code = "import sys; from pathlib import Path; from indexnet.run.folder import RunFolder as F; "
        code += "print(F(Path(sys.argv[1])).locked())"
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert other.stdout.strip() == "True"
    assert not folder.locked()
    with exclusive(tmp_path / "x", "no"), pytest.raises(UserError, match="no"), exclusive(tmp_path / "x", "no"):
        pass


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match=r"no config\.yaml"):
        RunFolder(tmp_path).config()
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML"):
        RunFolder(tmp_path).config()
