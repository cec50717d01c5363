"""Writing files: whole or not at all, also where there is no room."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from indexnet.core.files import (
    DiskFullError,
    UnwritableError,
    atomic_write,
    check_writable,
    disk_full_as_sentence,
    remove_parts,
    write_json,
)
from indexnet.core.readers import read_json
from rights_support import without_rights


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


def test_an_unwritable_place_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for path, words in (
        (tmp_path / "file" / "below", "cannot be written (File exists); give another place, or make this one writable"),
        (tmp_path / "file" / "deep" / "below", "cannot be written (Not a directory); "),
        (tmp_path / "folder", "cannot be written (Is a directory); "),
        (tmp_path / ("n" * 256), "cannot be written (File name too long); "),
        (Path("/proc/nowhere/file"), "cannot be written (No such file or directory); "),
    ):
        with pytest.raises(UnwritableError) as caught:
            atomic_write(path, "text")
        assert f"{path} {words}" in str(caught.value)

    def readonly(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", readonly)
        with pytest.raises(UnwritableError, match=r"cannot be written \(Read-only file system\)"):
            write_json(tmp_path / "value.json", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_place_is_looked_at_before_the_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "not" / "yet")
    with pytest.raises(UnwritableError, match=r"below cannot be written \(Not a directory\)"):
        check_writable(tmp_path / "file" / "below")
    tmp_path.chmod(0o555)
    with pytest.raises(UnwritableError, match=rf"yet cannot be written \({tmp_path} is not writable\)"):
        without_rights(check_writable, tmp_path / "not" / "yet")
    tmp_path.chmod(0)
    with pytest.raises(UnwritableError, match=r"yet cannot be written \(Permission denied\)"):
        without_rights(check_writable, tmp_path / "not" / "yet")
    tmp_path.chmod(0o755)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_where_a_system_complains_of_reading_it_is_left_alone(tmp_path):
    with pytest.raises(PermissionError), disk_full_as_sentence(tmp_path):
        raise PermissionError(errno.EACCES, "no")


WRITER = """
import os, sys
from indexnet.core.files import atomic_write

def wait(handle):
    print("writing", flush=True)
    sys.stdin.readline()

os.fsync = wait
atomic_write(sys.argv[1], "new")
"""


def test_unfinished_files_of_killed_processes_are_removed_and_no_others(tmp_path):
    """One process is killed while it writes, another goes on: the first one's unfinished file goes."""
    names = ["dead.png", f"{'n' * 245}.png", "alive.png"]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in names
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"writing\n"
    for writer in writers[:2]:
        writer.kill()
        writer.wait()
    for own in (".notes.part", "film.mkv.part", ".x.y.part", "a.png"):
        (tmp_path / own).write_text("a person's")
    before = set(os.listdir(tmp_path))
    assert len(before) == 7
    remove_parts(tmp_path, ["other.png"])
    assert set(os.listdir(tmp_path)) == before
    remove_parts(tmp_path)
    assert {name[:6] for name in before - set(os.listdir(tmp_path))} == {".dead.", ".nnnnn"}
    writers[2].communicate(b"\n")
    assert (tmp_path / "alive.png").read_text() == "new"
    assert set(os.listdir(tmp_path)) == {".notes.part", "film.mkv.part", ".x.y.part", "a.png", "alive.png"}
    remove_parts(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["n" * 251 + ".png", "é" * 125 + ".json", os.fsdecode(b"\xb2\xe2")])
def test_any_name_that_the_file_system_takes(tmp_path, name):
    atomic_write(tmp_path / name, "there")
    assert [path.name for path in tmp_path.iterdir()] == [name]
