"""Machines and places as people have them: odd names, moved folders, closed pipes, little of everything."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import platform
import re
import resource
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from data_support import write_train400
from indexnet.cli import main
from indexnet.run.config import compose, freeze
from indexnet.run.folder import prepare
from indexnet.run.job import run_job
from resume_support import ended_as, forks, interrupted_at_replace, result_of, start
from run_support import RECONSTRUCTION, command, prepare_run

ODD = "a b'c\"d=e,f$g#h[x]é\nz {q} %s *?~;&|`"
WORDS = ["task=denoising", "data=train400", "network=dncnn", "network.depth=3", "network.width=4", "task.sigma=25",
         "training.batch_size=4", "training.size=12", "training.steps=6", "trainer.accelerator=cpu",
         "trainer.checkpoint_every=2", "trainer.num_workers=0"]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing befalls."""
    place = tmp_path_factory.mktemp("whole")
    write_train400(place / "data", train=6)
    folder = prepare_run(place, *WORDS, f"data.root={place / 'data'}")
    assert run_job(folder.path) == 0
    return folder


def test_a_run_goes_on_where_its_folders_have_gone(whole, tmp_path, monkeypatch):
    """Odd names, then other names, behind a link; files from the future, a clock that jumps back, another core."""
    odd, moved, link = tmp_path / ODD, tmp_path / f"moved {ODD}", tmp_path / "link"
    write_train400(odd / "data", train=6)
    monkeypatch.chdir(odd)
    words = [*WORDS, "paths.runs=runs"]
    folder = prepare(freeze(compose([*words, "data.root=data"])))
    with interrupted_at_replace(8):
        run_job(folder.path)
    assert folder.status() == "running"
    assert folder.checkpoint().exists()
    odd.rename(moved)
    (moved / "data").rename(moved / "other, data")
    (moved / "data").mkdir()
    link.symlink_to(moved)
    monkeypatch.chdir(link)
    for path in link.rglob("*"):
        os.utime(path, (2**32, 2**32))
    monkeypatch.setattr(time, "time", lambda: 86400.0)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        folder = prepare(freeze(compose([*words, 'data.root="other, data"'])))
        assert run_job(folder.path) == 0
    finally:
        os.sched_setaffinity(0, cores)
    ended_as(whole, folder)
    assert len(list((link / "runs/single").iterdir())) == 1
    assert main(["status"]) == 0
    assert main(["job", str(folder.path)]) == 0


def _photographs(folder, count=2):
    folder.mkdir(parents=True)
    for k in range(count):
        Image.fromarray(np.full((20, 24), 60 * k, np.uint8)).save(folder / f"{k} {ODD}.png")
    return folder


def test_a_checkpoint_is_used_in_places_of_any_name(whole, tmp_path, capsys):
    place = tmp_path / ODD
    images = _photographs(place / "in")
    checkpoint = place / "x=1, y.ckpt"
    checkpoint.write_bytes(whole.checkpoint().read_bytes())
    link = place / "link.ckpt"
    link.symlink_to(checkpoint)
    assert main(["predict", str(link), "--images", str(images), "--output", str(place / "out")]) == 0
    assert len([path for path in (place / "out").rglob("*.png") if ODD in path.name]) == 2
    assert main(["evaluate", str(link), "data=train400", f"data.root={whole.config()['data']['root']}"]) == 0
    assert "evaluations/link/train400" in capsys.readouterr().out


@forks
def test_commands_come_to_their_end_when_nobody_reads_what_they_say(whole, tmp_path):
    images = _photographs(tmp_path / "in")
    run = prepare_run(tmp_path / "runs", *RECONSTRUCTION, "resampling=nearest")
    commands = [
        ["job", str(run.path)],
        ["predict", str(whole.checkpoint()), "--images", str(images), "--output", str(tmp_path / "out")],
        ["list", "data"],
        ["status", "--runs", str(tmp_path / "runs")],
    ]

    def unread():
        codes = []
        for words in commands:
            read, write = os.pipe()
            for descriptor in (1, 2):
                os.dup2(write, descriptor)
            os.close(read)
            os.close(write)
            for name, descriptor in (("stdout", 1), ("stderr", 2)):
                stream = io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), write_through=True)
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)
            codes.append(main(words))
        os._exit(sum(codes))

    assert result_of(start(run, unread)) == 0
    assert run.status() == "done"
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


def _few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


_FAULTS = """
import resource
import numpy as np
from indexnet.core.machine import keep_freed_memory
kept = keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(2**23)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="only glibc can be told to keep memory")
@pytest.mark.parametrize("chosen", [{}, {"INDEXNET_KEEP_MEMORY": "0"}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_memory_that_was_freed_is_taken_again_without_faults_unless_a_person_chose(chosen):
    names = [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))]
    environment = {name: value for name, value in os.environ.items() if name not in names} | chosen
    done = subprocess.run([sys.executable, "-c", _FAULTS], env=environment, capture_output=True, text=True, check=True)
    kept, faults = map(int, done.stdout.split())
    assert kept == (not chosen)
    assert faults < 50 if kept else faults > 100


def test_no_more_descriptors_is_said_with_its_remedy():
    from indexnet.core.machine import limit_reached

    assert "`ulimit -n`" in limit_reached(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    assert limit_reached(OSError(errno.EACCES, "no")) == ""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
def test_too_few_descriptors_for_loader_processes_are_told(tmp_path):
    given = [*RECONSTRUCTION, "resampling=nearest", "trainer.num_workers=8", "data.train_count=400"]
    folder = prepare_run(tmp_path, *given)
    limited = ["sh", "-c", 'ulimit -n 32; exec "$@"', "sh", *command("job", folder.path)]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=300)
    sentence = "no more files can be open at a time (`ulimit -n` is 32)"
    assert done.returncode == 2, done.stderr
    assert f"indexnet: {sentence}" in done.stderr
    record = folder.record()
    assert record.status == "failed"
    assert record.error.startswith(f"UserError: {sentence}")


def _small_shared_memory():
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, private = 0x20000, 0x4000 | 0x40000
    if (
        libc.unshare(new_mounts)
        or libc.mount(b"none", b"/", None, private, None)
        or libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"size=1m")
    ):
        os._exit(77)


@forks
@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
@pytest.mark.parametrize(("limit", "words", "error"), [
    (_few_descriptors, [], None),
    (_small_shared_memory, ["training.batch_size=300"], "/dev/shm has no room for what loader processes read (it has"),
])  # fmt: skip
def test_little_is_enough_or_told(limit, words, error, tmp_path):
    given = [*RECONSTRUCTION, "resampling=nearest", "trainer.num_workers=2", "data.train_count=400", *words]
    folder = prepare_run(tmp_path, *given)
    code = result_of(start(folder, limit))
    if code == 77:
        pytest.skip("no other /dev/shm without rights")
    record = folder.record()
    if error is None:
        assert (code, record.status) == (0, "done")
    else:
        assert record.status == "failed"
        assert record.error.startswith(f"UserError: {error}")


@pytest.mark.parametrize(("what", "texts"), [
    ("operators", ["holistic_max_index", "halves", "learned", "widths"]),
    ("experiments", ["thesis/table3_2_reconstruction", "title", "segmentation", "rows"]),
])  # fmt: skip
def test_a_narrow_terminal_loses_nothing(what, texts, monkeypatch, capsys):
    for name, value in (("COLUMNS", "40"), ("FORCE_COLOR", "1"), ("TERM", "xterm"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    assert main(["list", what]) == 0
    said = "".join(re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).split())
    for text in texts:
        assert text[:8].replace(" ", "") in said
