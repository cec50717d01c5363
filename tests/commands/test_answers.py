"""How every command answers: what is wrong without torch, anything in any encoding."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from commands_support import autoencoder_checkpoint, photograph, save_image
from indexnet.cli import main
from indexnet.core.paths import CLASSICAL_METHODS
from indexnet.resampling import create_resampling, list_resampling
from indexnet.tasks.classical import CLASSICAL
from report_fabricated import record, write_run
from rights_support import without_rights

WRONG = """
predict nowhere.ckpt --images . --output out
predict closed_form --images nowhere --output out
predict closed_form --images . --trimaps nowhere --output out
evaluate nowhere.ckpt
robustness nowhere.ckpt
compare closed_form nowhere.ckpt --images . --output out
export nowhere.ckpt
bench latency nowhere.ckpt
convert nowhere.pth out.ckpt
app nowhere.ckpt
list nothing
job nowhere
plan nothing
profile --steps 0
profile lr=0.1
report nothing
status nothing --runs nowhere
train ckpt_path=nowhere.ckpt
train encoder.pretrained=nowhere.pth
train resampling=hin
train lr=0.1
train training.steps=-1
train seed=4294967296
train -m experiments=nothing
train -m experiments=quickstart rows=nothing
train -m 'resampling=[bilinear,nearest]'
predict LONG --images . --output out
predict closed_form --images LONG --output out
predict closed_form --images . --masks LONG --output out
evaluate LONG
evaluate LONG=1
robustness LONG
compare closed_form LONG --images . --output out
compare closed_form knn --images LONG --output out
export LONG
export closed_form --output LONG
bench latency LONG
convert LONG out.ckpt
app LONG
job LONG
list experiments --runs LONG
plan quickstart --json LONG
report quickstart --runs LONG
status --runs LONG
costs quickstart --runs LONG
train ckpt_path=LONG
train encoder.pretrained=LONG
train --config-dir LONG
train --config-dir= seed=1
train --config-name= seed=1
train --config-path LONG
train --config-name LONG
train data.LONG=1
train ~LONG
"""
LONGEST = 255
"""Bytes that a file's name may have."""


def test_what_is_wrong_is_said_without_torch(tmp_path):
    code = (
        "import shlex, sys; from indexnet.cli import main\n"
        f"for line in {WRONG.replace('LONG', 'n' * (LONGEST + 1)).strip().splitlines()!r}:\n"
        "    try: code = main(shlex.split(line))\n"
        "    except SystemExit as end: code = end.code\n"
        "    print(line, '->', code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if not line.endswith("-> 2 False")] == []
    assert done.stderr.count("indexnet: ") == len(WRONG.strip().splitlines()) - 1  # argparse says "indexnet list:"
    assert "nowhere" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("predict locked/x.ckpt --images . --output out", "locked/x.ckpt cannot be read (Permission denied)"),
        ("predict closed_form --images locked/x --output out", "--images locked/x does not exist"),
        ("convert locked/x.pth out.ckpt", "locked/x.pth cannot be read (Permission denied)"),
        ("evaluate closed_form data=simd data.root=locked", "data.root=locked cannot be read (Permission denied)"),
        ("plan quickstart --json locked/x.json", "locked/x.json cannot be written (Permission denied)"),
        ("report quickstart --runs locked/runs", "--runs locked/runs: there is no such folder"),
        ("train ckpt_path=locked/x.ckpt paths.runs=locked", "ckpt_path=locked/x.ckpt cannot be read (Permission den"),
        ("train --config-dir locked/conf", "conf: there is no such folder"),
    ],
)
def test_a_place_that_may_not_be_looked_at_is_told_in_a_sentence(command, sentence, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locked").mkdir(mode=0)
    mistake(without_rights(main, command.split()), sentence)


def test_a_locked_folder_of_runs_is_told_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shut").mkdir(mode=0)
    assert without_rights(main, ["report", "--runs", "shut"]) == 2
    first, last = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("indexnet: shut cannot be read (Permission denied)")
    assert "under shut there are runs of nothing" in last


def test_any_command_speaks_in_any_encoding(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = autoencoder_checkpoint(tmp_path / "pool.ckpt")
    name = b"\xb2\xe2.png".decode(errors="surrogateescape")  # bytes of a Windows archive
    for each in ("größer.png", name):
        save_image(tmp_path / "in" / each, photograph(16, 16))
    for row in ("hin", "m2o"):
        write_run(tmp_path / "runs", row, 0, record({"psnr": 20.0, "ssim": 0.5}, label=row), name="quickstart")
    commands = [
        ["report", "quickstart"],
        ["status"],
        ["status", "quickstart"],
        ["evaluate", network, "--limit", "2"],
        ["costs", "quickstart"],
        ["bench", "latency", network, "--sizes", "32", "--repeats", "1"],
        ["list", "operators"],
        ["predict", network, "--images", "in", "--output", "out"],
    ]
    for encoding in ("ascii", "cp1252", "utf-8"):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in "12")
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        for words in commands if encoding == "ascii" else commands[:1] + commands[-1:]:
            again = ["--overwrite"] if encoding != "ascii" else []
            assert main([*map(str, words), *again]) in (0, 3 if words[0] == "costs" else 0), words
        assert main(["predict", str(network), "--images", str(tmp_path / name), "--output", "in"]) == 2
        out.flush(), err.flush()
        said = out.buffer.getvalue().decode(encoding)
        assert ("↑" if encoding == "utf-8" else "^") in said


def test_methods_without_a_checkpoint_are_known_without_torch():
    assert tuple(CLASSICAL) == CLASSICAL_METHODS


@pytest.mark.parametrize("info", list_resampling(), ids=lambda info: info.name)
def test_an_operator_that_is_listed_as_learned_has_weights(info):
    if info.name != "none":
        assert info.learned == any(True for _ in create_resampling(info.name, [8], [8]).parameters())
