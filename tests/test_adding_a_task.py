"""The page docs/adding_a_task.md, done: three files in a copy of the checkout, nothing else touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from commands_support import photograph, read, save_image

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


def _python(checkout, *words):
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    return subprocess.run([sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True)


def _run(checkout, *words):
    return _python(checkout, "-m", "indexnet", *words)


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
    checkpoints = sorted(str(path) for path in (checkout / "runs" / "edges").rglob("last.ckpt"))
    assert _run(checkout, "evaluate", checkpoints[0], "--limit", "4").returncode == 0
    _use(checkout, checkpoints)


SESSION = """
import sys
from importlib.util import find_spec
from pathlib import Path
from indexnet.inference.app.session import Session
from indexnet.inference.loading import load_task

session = Session(*load_task(sys.argv[1]))
picture, path = session.run("images/a.png", Path("shown"))
print(session.cuts_out, picture.shape, path)
if sys.argv[2] == "page":
    from indexnet.inference.app.page import build

    print(build(session, Path("shown"), "last.ckpt", 2**20).title)
"""


def _use(checkout, checkpoints):
    """What a person does with the checkpoints."""
    save_image(checkout / "images" / "a.png", photograph(40, 52))
    checkpoint, images = checkpoints[1], ["--images", "images"]
    done = _run(checkout, "predict", checkpoint, *images, "--output", "predicted")
    assert done.returncode == 0, done.stderr
    written = read(checkout / "predicted" / "a.png")
    assert written.shape == (40, 52)
    assert written.std() > 1
    done = _run(checkout, "predict", checkpoint, *images, "--output", "other", "--cutout")
    assert "the task edges takes no --cutout, which is for matting" in done.stderr
    done = _run(checkout, "compare", *checkpoints, *images, "--output", "compared")
    assert done.returncode == 0, done.stderr
    assert (checkout / "compared" / "index_maps" / "a.png").is_file()  # of holistic indices
    done = _run(checkout, "export", checkpoint, "--format", "torch_export", "--output", "edges.pt2")
    assert done.returncode == 0, done.stderr
    assert "output edges: float32 (batch, 1, height, width), magnitude of the gradient, at least 0" in done.stdout
    with_page = find_spec("gradio") is not None
    done = _python(checkout, "-c", SESSION, checkpoint, "page" if with_page else "")
    assert done.returncode == 0, done.stderr
    assert "False (40, 52, 3) shown/a_edges.png" in done.stdout
    assert ("indexnet: edges" in done.stdout) == with_page
    assert (read(checkout / "shown" / "a_edges.png") == written).all()
