"""Long use of one process: what `benchmarks/long_use.py` measures, in small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "long_use.py"


@pytest.mark.long
def test_memory_and_open_files_do_not_grow():
    words = [sys.executable, SCRIPT, "--predictions", "60", "--steps", "200", "--check"]
    done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 predictions: resident" in done.stdout
    assert "200 steps: resident" in done.stdout
