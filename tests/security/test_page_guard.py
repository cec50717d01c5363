"""The parts that guard the page, without a page."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec

import pytest

if find_spec("gradio") is None:
    pytest.skip("gradio is not installed", allow_module_level=True)

from indexnet.inference.app.guard import Results, private_folder, sweep


def test_results_lie_where_no_client_says(tmp_path):
    results = Results(tmp_path / "results")
    kept = tmp_path / "victim"
    kept.mkdir()
    for session in (str(kept), "../victim", None, ""):
        first, second = results.create(session), results.create(session)
        assert first != second
        assert {first.parent, second.parent} == {tmp_path / "results"}
        results.remove(session)
        assert not first.exists()
        assert not second.exists()
        results.remove(session)
    assert kept.exists()


def test_files_go_after_an_hour(tmp_path):
    old, new = tmp_path / "a" / "old.png", tmp_path / "a" / "new.png"
    broken_off, empty, outside = tmp_path / "tmpx1", tmp_path / "b" / "c", tmp_path.parent / f"{tmp_path.name}_kept"
    empty.mkdir(parents=True)
    old.parent.mkdir()
    outside.mkdir()
    (outside / "file").write_text("")
    os.symlink(outside, tmp_path / "link")
    past = time.time() - 4000
    for path in (old, new, broken_off, outside / "file"):
        path.write_text("")
        os.utime(path, None if path == new else (past, past))
    for folder in (empty, empty.parent):
        os.utime(folder, (past, past))
    sweep(tmp_path, 3600)
    assert new.exists()
    assert (outside / "file").exists()
    assert not old.exists()
    assert not broken_off.exists()
    assert not empty.exists()
    assert tmp_path.exists()


def test_a_killed_pages_folder_goes_when_the_next_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, other, young = tmp_path / "indexnet_app_a", tmp_path / "other", tmp_path / "indexnet_app_b"
    for folder in (killed, other, young):
        (folder / "files").mkdir(parents=True)
        (folder / "lock").touch()
    os.symlink(other, tmp_path / "indexnet_app_link")
    with private_folder() as first:
        for folder in (killed, other, first.parent):
            os.utime(folder, (1, 1))
        assert first.parent.stat().st_mode & 0o077 == 0
        with private_folder() as second:
            assert second != first
            assert first.exists()
            assert young.exists()
            assert (other / "files").exists()
            assert not killed.exists()
    assert not first.parent.exists()


LEAVE = """
import socket, sys
from indexnet.inference.app import guard
guard.stay_here()
guard.plain_output()
for what in (lambda: socket.create_connection(("192.0.2.1", 80), 1), lambda: socket.getaddrinfo("evil.example", 80),
             lambda: socket.socket().bind(("0.0.0.0", 0)), lambda: socket.socket().bind(("", 0)),
             lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
             lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 53))):
    try:
        what()
    except PermissionError as error:
        assert "no other machine" in str(error)
    else:
        raise AssertionError
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
print("\\x1b[31mred\\u202e", end="", file=sys.stderr)
"""


def test_nothing_leaves_the_machine():
    done = subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "\\x1b[31mred\\u202e")
