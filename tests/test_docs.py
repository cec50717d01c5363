"""What README and docs show runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from data_support import write_camvid
from indexnet.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


CODE = [pytest.param(code, id=f"{page.stem}-{i}") for page in PAGES for i, code in enumerate(_blocks(page, "python"))]


@pytest.mark.parametrize("code", CODE)
def test_python_of_the_docs_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs", "exec"), {"__name__": "docs"})


def test_the_docs_show_only_commands_that_exist():
    shown = {line.split()[1] for page in PAGES for block in _blocks(page, "bash") for line in block.splitlines()
             if line.startswith("indexnet ")}  # fmt: skip
    assert shown <= set(COMMANDS)
    assert shown >= {"train", "evaluate", "predict", "compare", "report", "costs", "convert", "list"}


def test_the_operator_table_is_the_registry():
    from indexnet.resampling import list_resampling

    text = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8").replace("\\|", "|")
    for info in list_resampling():
        line = next(line for line in text.splitlines() if line.startswith(f"| `{info.name}` |"))
        for fact in (info.downsampling, info.equation, info.parameters, info.paper):
            assert fact in line, f"docs/operators.md, {info.name}: {fact}"


def test_links_of_the_docs_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(command, capsys):
    arguments = ["--help"] if command is None else [command, "--help"]
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 0
    assert "usage: indexnet" in capsys.readouterr().out


def test_help_imports_neither_torch_nor_hydra():
    code = "import sys; from indexnet.cli import main\n"
    code += "try: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'hydra', 'numpy', 'pytorch_lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


@pytest.mark.long
def test_the_readme_commands_run(tmp_path, monkeypatch, capsys):
    """Every `indexnet` line of the README, in order, in an empty folder; files of a person's own are made here."""
    import cv2
    import numpy as np

    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "trimaps", "masks"):
        Path(folder).mkdir()
    rng = np.random.default_rng(0)
    cv2.imwrite("photos/cat.png", rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    trimap = np.zeros((40, 50), np.uint8)
    trimap[10:30, 10:40], trimap[15:25, 15:35] = 128, 255
    cv2.imwrite("trimaps/cat.png", trimap)
    cv2.imwrite("masks/cat.png", np.where(trimap > 0, np.uint8(255), np.uint8(0)))
    train = ["task=matting", "encoder.width=0.25", "training.steps=1", "training.batch_size=2", "training.size=64"]
    train += ["data.test_count=1", "data.train_count=2"]
    assert main(["train", *train]) == 0
    checkpoint = next(Path("runs/single").glob("matting-*/checkpoints/last.ckpt"))
    write_camvid(Path("camvid"))
    files = {"runs/.../checkpoints/last.ckpt": checkpoint, "A.ckpt": checkpoint, "B.ckpt": checkpoint}
    lines = [line for block in _blocks(ROOT / "README.md", "bash") for line in block.splitlines()]
    for line in lines:
        line = line.replace("FOLDER", "camvid")
        words = [str(files.get(word, word)) for word in shlex.split(line, comments=True)]
        if not words or words[0] != "indexnet" or words[1] in ("convert", "app"):  # they have tests of their own
            continue
        capsys.readouterr()
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
