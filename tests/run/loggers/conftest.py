"""Shared by the tests of loggers."""

from __future__ import annotations

import os
import sys

import pytest

from wandb_server import WandbServer


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
    yield
    if sys.modules.get("wandb"):
        sys.modules["wandb"].teardown()
