"""The page docs/tutorial.md, done: its files and commands in an empty folder, with fewer steps and images."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
STEPS = re.findall(r"```(\w+)(?: file=(\S+))?\n(.*?)```", PAGE, flags=re.DOTALL)
SHORTER = ["training.steps=2", "training.batch_size=4", "data.test_count=4", "trainer.accelerator=cpu", "logger=none"]
OF_MACHINES = r"\d+ min \d+ s|[\d.]+ ?s\b|AMD EPYC"


@pytest.fixture
def shell(tmp_path):
    """Run a command in one folder as a person in one shell does; `export` lasts."""
    programs, study = tmp_path / "bin", tmp_path / "study"
    programs.mkdir()
    study.mkdir()
    for name, words in {"indexnet": "-m indexnet ", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words}"$@"\n')
        (programs / name).chmod(0o755)
    own = {key: value for key, value in os.environ.items() if not key.startswith(("INDEXNET_", "PYTEST_"))}
    own |= {"PATH": f"{programs}{os.pathsep}{own['PATH']}", "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80"}

    def run(line):
        words = shlex.split(line)
        if words[0] == "export":
            given = dict(word.split("=", 1) for word in words[1:])
            given["PYTHONPATH"] += os.pathsep + str(ROOT / "src")
            own.update(given)
            return 0, ""
        words += SHORTER if words[:2] == ["indexnet", "train"] and "training.step=20" not in words else []
        done = subprocess.run(words, cwd=study, env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout

    return study, run


def _shape(line):
    """Return the words of a line: no numbers, times, signs of ranks, or names of machines."""
    return re.findall(r"[A-Za-z_'][\w'./=-]*|[(){}<>]", re.sub(rf"{OF_MACHINES}|[★≈]", "", line))


def _commands(text):
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, *printed = part.splitlines()
        yield line, [each for each in printed if each != "..."]


def test_the_page_has_files_and_commands():
    assert [place for _, place, _ in STEPS if place] == [
        "index_map.py", "gate.py", "resampling/gate.yaml", "test_gate.py", "experiments/gates.yaml"
    ]  # fmt: skip
    lines = [line for kind, _, text in STEPS if kind == "console" for line, _ in _commands(text)]
    assert len(lines) > 10
    assert {line.split()[1] for line in lines if line.startswith("indexnet")} == {"train", "report", "bench", "costs"}


@pytest.mark.long
def test_the_tutorial_prints_what_it_says(shell):
    study, run = shell
    for kind, place, text in STEPS:
        if place:
            (study / place).parent.mkdir(exist_ok=True)
            (study / place).write_text(text, encoding="utf-8")
        for line, expected in _commands(text) if kind == "console" else ():
            code, said = run(line)
            assert code == (2 if "training.step=20" in line else 0), f"{line}\n{said}"
            if line == "python index_map.py":  # trains nothing: every digit is known
                assert said.splitlines() == expected
                continue
            printed = [_shape(each) for each in said.splitlines()]
            for each in expected:
                if each.startswith(("data ", "budget ", "training for ")) or " runs of " in each:
                    continue  # the settings that were made smaller
                if " report " in line:  # its lines break where its numbers want
                    letters = [re.sub(r"[\d.]+[KMG]\b|[^A-Za-z]", "", text) for text in (each, said)]
                    assert letters[0] in letters[1], f"{line} does not print {each!r} but\n{said}"
                    continue
                assert _shape(each), f"nothing of {each!r} would be compared"
                assert _shape(each) in printed, f"{line} does not print {each!r} but\n{said}"
    assert (study / "index_map.png").stat().st_size > 1000
    page = (study / "reports" / "gates" / "photos-paper" / "report.html").read_text(encoding="utf-8")
    assert "resampling.kernel=5" in page
