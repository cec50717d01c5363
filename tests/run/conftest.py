"""Shared by the tests of runs."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from indexnet.run.job import run_job
from run_support import RECONSTRUCTION, prepare_run

EARLIER = Path(__file__).parent / "fixtures" / "runs_schema_1.zip"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    words = [*RECONSTRUCTION, "resampling=indexnet", "resampling.family=hin", "trainer.checkpoint_every=2"]
    whole = prepare_run(tmp_path_factory.mktemp("whole"), *words)
    assert run_job(whole.path) == 0
    return words, whole


@pytest.fixture
def fresh():
    """Put the runs that an earlier version made below the working directory; a call puts them there anew."""

    def unpack():
        shutil.rmtree("runs", ignore_errors=True)
        zipfile.ZipFile(EARLIER).extractall("runs")

    unpack()
    return unpack
