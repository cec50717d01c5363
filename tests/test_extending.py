"""The page docs/extending.md, done: its files in an empty folder, its commands one after another."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = re.findall(r"```\w+ file=(\S+)\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    for place, text in FILES:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") + "\n\n" if path.exists() else ""
        path.write_text(before + text, encoding="utf-8")
    return tmp_path


def run(folder, *words, **variables):
    """Run a command as a person in ``folder`` would; paths in PYTHONPATH are relative to it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("INDEXNET_")}
    path = os.pathsep.join([str(ROOT / "src"), *([variables.pop("PYTHONPATH")] if "PYTHONPATH" in variables else [])])
    return subprocess.run(
        [sys.executable, "-m", "indexnet", *words],
        cwd=folder, env={**clean, **variables, "PYTHONPATH": path},
        capture_output=True, text=True,
    )  # fmt: skip


# commands one after another, each with its own environment, in one process: the imports take longer than they do
IN_TURN = """
import json, os, sys
from indexnet.cli import main
plain, path, codes = dict(os.environ), list(sys.path), []
for words, variables in json.loads(sys.argv[1]):
    os.environ.clear()
    os.environ.update({key: value for key, value in plain.items() if not key.startswith("INDEXNET_")}, **variables)
    sys.path[:] = [*map(os.path.abspath, filter(None, [variables.get("PYTHONPATH")])), *path]
    codes.append(main(words))
print(json.dumps(codes))
"""


def test_every_file_of_the_page_is_short():
    assert {Path(place).parent.name for place, _ in FILES} >= {"resampling", "network", "data", "task", "experiments"}
    assert all(text.count("\n") < 30 for _, text in FILES)


@pytest.mark.long
def test_the_commands_of_the_page_know_what_is_in_the_folder(folder):
    (block,) = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
    export, *commands = (shlex.split(line) for line in block.splitlines())
    variables = dict(word.split("=", 1) for word in export[1:])
    said = {}
    for _, name, *words in commands:
        extra = ["logger=none", "trainer.accelerator=cpu"] if name == "train" else []
        done = run(folder, name, *words, *extra, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        said[name] = done.stdout
    listed = dict(line.split(": ", 1) for line in said["list"].splitlines() if ": " in line)
    for what, name in {"operators": "min_unpool", "networks": "shallow", "data": "waves", "metrics": "worst_pixel",
                       "tasks": "strict", "experiments": "unpooling"}.items():  # fmt: skip
        assert name in listed[what].split(", ")
    records = [json.loads(path.read_text()) for path in (folder / "runs").rglob("record.json")]
    assert len(records) == 3
    assert all(record["status"] == "done" and record["metrics"]["worst_pixel"] > 0 for record in records)
    assert "3 of 3 runs done" in said["status"]
    assert all("min unpooling x 2" in said[name] for name in ("costs", "report"))
    assert "worst pixel" in said["evaluate"]

    # the checkpoint remembers its plugins, but runs no code that nobody has asked for
    checkpoint = "runs/unpooling/waves-smoke/loud/seed=0/checkpoints/last.ckpt"
    lost = run(folder, "evaluate", checkpoint, "--overwrite", PYTHONPATH="mine")
    assert lost.returncode == 2
    assert lost.stderr.startswith(f"indexnet: {checkpoint} was trained with plugins, and no file gets to run code by ")
    (plugins,) = re.findall(r"INDEXNET_PLUGINS=(\S+)\.", lost.stderr)
    asked = run(folder, "evaluate", checkpoint, "--overwrite", PYTHONPATH="mine", INDEXNET_PLUGINS=plugins)
    assert asked.returncode == 0, asked.stderr


@pytest.mark.long
def test_a_folder_given_to_train_alone(folder):
    words = ["experiments=unpooling", "rows=loud", "budget=smoke", "logger=none", "trainer.accelerator=cpu"]
    done = run(folder, "train", "-m", *words, "--config-dir", "mine", PYTHONPATH="mine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "runs" / "unpooling" / "waves-smoke" / "loud" / "seed=0" / "record.json").is_file()


@pytest.mark.long
def test_the_single_run_of_the_page(folder):
    (line,) = re.findall(r"```text\nindexnet train (.*)\n", PAGE)
    words = ["logger=none", "trainer.accelerator=cpu", *shlex.split(line)]
    done = run(folder, "train", *words, PYTHONPATH="mine")
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = (folder / "runs" / "single").rglob("record.json")
    assert json.loads(record.read_text())["resampling"] == {"name": "min_unpool", "gain": 1.0}


def test_mistakes_are_one_sentence_and_exit_code_2(folder):
    (folder / "none" / "experiments").mkdir(parents=True)
    (folder / "twice" / "experiments").mkdir(parents=True)
    text = (folder / "mine" / "experiments" / "unpooling.yaml").read_text()
    (folder / "twice" / "experiments" / "quickstart.yaml").write_text(text)
    train = ("train", "-m", "experiments=quickstart")
    alone = ("train", "task=reconstruction", "resampling=min_unpool", "plugins=[my_operator]")
    cases = (
        (train, {"INDEXNET_EXPERIMENTS": "none"}, "none of the variable INDEXNET_EXPERIMENTS has no experiments; "),
        (train, {"INDEXNET_EXPERIMENTS": "twice"}, "experiment 'quickstart' exists twice, "),
        ((*train, "--config-dir", "none"), {"INDEXNET_EXPERIMENTS": "nowhere"}, "has no experiments; "),
        (("status", "unpooling"), {}, "found through INDEXNET_EXPERIMENTS (not set)."),
        (("status", "unpooling"), {"INDEXNET_EXPERIMENTS": "mine"}, "'my_operator' of "),
        ((*alone, "resampling.gian=2", "--config-dir", "mine"), {"PYTHONPATH": "mine"}, "you mean 'resampling.gain'?"),
    )
    calls = [(words, variables) for words, variables, _ in cases]
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(calls)], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [2] * len(cases)
    for said, (*_, expected) in zip(done.stderr.splitlines(), cases, strict=True):
        assert said.startswith("indexnet: ")
        assert expected in said
    assert not (folder / "runs").exists()
