"""Shared by the tests of sweeps."""

from __future__ import annotations

import pytest

from indexnet.sweep.pool import Job
from launch_support import SCRIPT


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def jobs(tmp_path):
    (tmp_path / "job.py").write_text(SCRIPT)

    def make(*names: str, **values) -> list[Job]:
        for name in names:
            (tmp_path / name).mkdir(exist_ok=True)
        return [Job(tmp_path / name, name, 0, **values) for name in names]

    return make
