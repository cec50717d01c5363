"""Writing files: whole or not at all, also where there is no room."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from indexnet.core.files import DiskFullError, atomic_write, disk_full_as_sentence, write_json
from indexnet.core.readers import read_json


@pytest.fixture
def small_files():
    """No file of this process can grow beyond 64 KiB: what a full disk does, where it can be had without one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_old_content_can_be_kept(tmp_path):
    file, kept = tmp_path / "new" / "file", tmp_path / "new" / "kept"
    atomic_write(file, "one", keep=kept)
    assert not kept.exists()
    atomic_write(file, memoryview(b"two"), keep=kept)
    atomic_write(file, "three", keep=kept)
    assert (file.read_text(), kept.read_text()) == ("three", "two")
    assert sorted(path.name for path in file.parent.iterdir()) == ["file", "kept"]


def test_a_file_that_does_not_fit_leaves_everything_as_it_was(tmp_path, small_files):
    file = tmp_path / "value.json"
    write_json(file, {"a": 1})
    with pytest.raises(DiskFullError, match=r"while writing .*value\.json; free some, then the same command goes on\."):
        write_json(file, {"a": "x" * 100_000})
    assert read_json(file) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


@pytest.mark.parametrize(("call", "number", "words"), [
    ("fsync", errno.ENOSPC, "no space left on the device while writing"),
    ("replace", errno.EDQUOT, "the disk quota is used up while writing"),
    ("fdopen", errno.ENOSPC, "no space left on the device while writing"),
])  # fmt: skip
def test_a_full_disk_at_any_moment(tmp_path, monkeypatch, call, number, words):
    file = tmp_path / "file"
    atomic_write(file, "old")

    def full(*arguments):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(DiskFullError, match=words):
            atomic_write(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_other_complaints_of_the_system_are_left_alone(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileExistsError):
        atomic_write(tmp_path / "file" / "below", "text")
    with pytest.raises(PermissionError), disk_full_as_sentence(tmp_path):
        raise PermissionError(errno.EACCES, "no")
