"""The page docs/adding_a_task.md, done: three files in a copy of the checkout, nothing else touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "src/indexnet/tasks/edges.py": "edges.py",
    "conf/task/edges.yaml": "task.yaml",
    "experiments/edges.yaml": "experiment.yaml",
}


def test_the_page_shows_the_files_of_this_test():
    page = (ROOT / "docs" / "adding_a_task.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"```\w+ file=(\S+)\n(.*?)```", page, flags=re.DOTALL))
    assert shown == {
        place: (ROOT / "tests" / "edges" / file).read_text(encoding="utf-8") for place, file in FILES.items()
    }


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    for part in ("src", "conf", "experiments"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for place, file in FILES.items():
        shutil.copy(ROOT / "tests" / "edges" / file, folder / place)
    return folder


def _run(checkout, *words):
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "indexnet", *words], cwd=checkout, env=environment, capture_output=True, text=True
    )


@pytest.mark.long
def test_a_sixth_task_trains_sweeps_and_reports(checkout):
    listed = _run(checkout, "list", "tasks")
    assert "edges" in listed.stdout, listed.stderr
    words = ["-m", "experiments=edges", "seeds=0", "rows=bilinear,hin", "training.steps=40", "data.test_count=16"]
    done = _run(checkout, "train", *words, "logger=none")
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in (checkout / "runs" / "edges").rglob("record.json")]
    assert {record["status"] for record in records} == {"done"}
    assert all(0 < record["metrics"]["mae"] < record["metrics"]["rmse"] < 0.5 for record in records)
    report = _run(checkout, "report", "edges")
    assert report.returncode == 0, report.stdout + report.stderr
    assert "holistic indices" in report.stdout
    checkpoint = next((checkout / "runs" / "edges").rglob("last.ckpt"))
    assert _run(checkout, "evaluate", str(checkpoint), "--limit", "4").returncode == 0
