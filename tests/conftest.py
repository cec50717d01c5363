"""Shared by all tests."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"


def pytest_collection_modifyitems(items):
    """Let the longest test start first: with several workers it would run alone at the end."""
    items.sort(key=lambda item: item.name != "test_the_readme_commands_run")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start, too
    # Whatever was imported is not looked through for garbage again, which is a third of the time of composing.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _interrupts_come_through():
    """Lightning has interrupts ignored from the moment at which it meets one, also in the tests that follow."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference values and real data sets beside the project; tests that want it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with reference values and data sets is not here")
    return SHARED


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A folder with a tiny one of every data set that has files, in which no test writes."""
    from data_support import write_all

    folder = tmp_path_factory.mktemp("data")
    write_all(folder)
    return folder


@pytest.fixture
def mistake(capsys):
    """Check that a command told a person's mistake in one sentence: its exit code, and what the sentence says."""

    def check(code, *fragments):
        sentence = capsys.readouterr().err.strip()
        assert code == 2, sentence
        assert sentence.startswith("indexnet: ")
        assert "\n" not in sentence
        for fragment in fragments:
            assert fragment in sentence

    return check
