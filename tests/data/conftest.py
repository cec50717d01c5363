"""Shared by the tests of data sets."""

from __future__ import annotations

import pytest

from data_support import write_composition1k


@pytest.fixture
def shipped(tmp_path):
    """The layout as shipped, and a folder to write to."""
    write_composition1k(tmp_path / "in")
    return tmp_path / "in", tmp_path / "out"
