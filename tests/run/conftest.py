"""Shared by the tests of runs."""

from __future__ import annotations

import os
import sys

import pytest

from indexnet.run.job import run_job
from run_support import RECONSTRUCTION, prepare_run
from wandb_server import WandbServer


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    words = [*RECONSTRUCTION, "resampling=indexnet", "resampling.family=hin", "trainer.checkpoint_every=2"]
    whole = prepare_run(tmp_path_factory.mktemp("whole"), *words)
    assert run_job(whole.path) == 0
    return words, whole


@pytest.fixture
def server(monkeypatch, tmp_path):
    with WandbServer() as server:
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def nobody(tmp_path, monkeypatch):
    """Nobody is logged in, and wandb forgets what it knew of the test before."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    for name, value in (("HOME", home), ("NETRC", home / "none"), ("XDG_CONFIG_HOME", home), ("MPLCONFIGDIR", home)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    yield
    if sys.modules.get("wandb"):
        sys.modules["wandb"].teardown()
