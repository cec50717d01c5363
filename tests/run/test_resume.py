"""A run that is killed, cut short or damaged goes on, and ends as if nothing had been."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch

from indexnet.cli import main
from indexnet.core import files
from indexnet.core.errors import UserError
from indexnet.core.files import PART, DiskFullError, write_json
from indexnet.run import callbacks
from indexnet.run.folder import RunFolder
from indexnet.run.identity import config_hash
from indexnet.run.job import run_job
from indexnet.run.resume import find_checkpoint, read_checkpoint
from indexnet.tasks.base import Task
from resume_support import die, ended_as, forks, interrupted_at_step, result_of, start
from run_support import losses, prepare_run, same

# --- damaged checkpoints ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(undisturbed, tmp_path_factory):
    """The files of a run that was killed after step 5, with checkpoints of steps 2 and 4."""
    words, _ = undisturbed
    folder = prepare_run(tmp_path_factory.mktemp("cut"), *words)
    with interrupted_at_step(5):
        run_job(folder.path)
    steps = [read_checkpoint(path)["global_step"] for path in (folder.checkpoint(), folder.previous_checkpoint())]
    assert steps == [4, 2]
    return folder


@pytest.fixture
def cut(interrupted, tmp_path):
    return RunFolder(Path(shutil.copytree(interrupted.path, tmp_path / "run")))


def _truncated(share):
    return lambda content: content[: int(len(content) * share)]


def _overwritten(content):
    return random.Random(0).randbytes(len(content))


def _one_weight_changed(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 64]) + content[middle + 1 :]


DAMAGES = [_truncated(0), _truncated(0.001), _truncated(0.5), lambda content: content[:-1], _overwritten,
           _one_weight_changed, lambda content: b"PK\x05\x06" + bytes(18)]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(damage, cut, undisturbed, capsys):
    damaged = damage(cut.checkpoint().read_bytes())
    cut.checkpoint().write_bytes(damaged)
    assert run_job(cut.path) == 0
    said = capsys.readouterr()
    assert said.err.count("last.ckpt is damaged, kept as *.broken; going on from previous.ckpt, step 2") == 1
    assert "going on from step 2 of 6" in said.out
    assert (cut.path / "checkpoints" / "last.ckpt.broken").read_bytes() == damaged
    ended_as(undisturbed[1], cut)


def test_without_a_whole_checkpoint_a_run_starts_again(cut, undisturbed, capsys):
    for path in (cut.checkpoint(), cut.previous_checkpoint()):
        path.write_bytes(path.read_bytes()[:5000])
    assert run_job(cut.path) == 0
    said = capsys.readouterr()
    assert "last.ckpt and previous.ckpt are damaged, kept as *.broken; starting from the beginning." in said.err
    assert "training for 6 steps" in said.out
    kept = sorted(path.name for path in (cut.path / "checkpoints").iterdir())
    assert kept == ["last.ckpt", "last.ckpt.broken", "previous.ckpt.broken"]
    ended_as(undisturbed[1], cut)


def test_no_flipped_bit_changes_what_a_checkpoint_says(cut):
    good = read_checkpoint(cut.checkpoint())
    content, places = cut.checkpoint().read_bytes(), random.Random(1)
    noticed = 0
    for _ in range(150):
        place, bit = places.randrange(len(content)), places.randrange(8)
        cut.checkpoint().write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        found = read_checkpoint(cut.checkpoint())
        noticed += found is None
        if found is not None:  # a bit that nothing depends on
            assert same(found["state_dict"], good["state_dict"])
            assert found["global_step"] == good["global_step"]
            assert found["indexnet"] == good["indexnet"]
    assert noticed > 100


def test_every_process_finds_the_same_checkpoint_at_any_moment(cut):
    digest = config_hash(cut.config())
    cut.checkpoint().write_bytes(b"cut off")

    def others():
        path, step, *_ = find_checkpoint(cut, digest, settle=False)
        return torch.load(path, weights_only=True)["global_step"], step

    assert others() == (2, 2)  # before the first process has looked
    assert cut.checkpoint().read_bytes() == b"cut off"  # only that one tidies
    plain, seen = os.replace, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda *names: (plain(*names), seen.append(others())))
        assert find_checkpoint(cut, digest, settle=True)[1] == 2
    assert seen == [(2, 2), (2, 2)]  # the damaged file is put aside; a copy takes its place
    assert others() == (2, 2)


def test_a_checkpoint_of_another_run_is_refused(cut):
    config = cut.config()
    config["optimizer"]["lr"] *= 2
    (cut.path / "record.json").unlink()
    files.atomic_write(cut.path / "config.yaml", files.json.dumps(config))
    before = cut.checkpoint().read_bytes()
    with pytest.raises(UserError, match=r"last\.ckpt belongs to a run with another configuration \(optimizer\.lr is"):
        run_job(cut.path)
    assert cut.checkpoint().read_bytes() == before


def test_a_checkpoint_that_may_not_be_read_is_no_damage(cut, monkeypatch):
    def forbidden(path, *more):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(zipfile, "ZipFile", forbidden)
    with pytest.raises(UserError, match=r"last\.ckpt cannot be read \(Permission denied\)"):
        find_checkpoint(cut, config_hash(cut.config()), settle=True)
    assert cut.checkpoint().is_file()


# --- full disks ------------------------------------------------------------------------------------------------------


def _full_for(monkeypatch, name, times=1):
    """Let there be no room for a file from its ``times``-th writing on."""
    plain, left = tempfile.mkstemp, times

    def mkstemp(*, prefix, **more):
        nonlocal left
        if prefix == f".{name}.":
            left -= 1
            if left <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        return plain(prefix=prefix, **more)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)


@pytest.mark.parametrize(("name", "times"), [
    ("record.json", 1), ("last.ckpt", 1), ("per_image.csv", 1), ("metrics.csv", 1),
    *(pytest.param(*each, marks=[pytest.mark.long, pytest.mark.nightly])
      for each in (("record.json", 2), ("last.ckpt", 3), ("pictures.json", 1))),
])  # fmt: skip
def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(name, times, undisturbed, tmp_path, capsys):
    words, whole = undisturbed
    folder = prepare_run(tmp_path, *words)
    with pytest.MonkeyPatch.context() as patch:
        _full_for(patch, name, times)
        assert main(["job", str(folder.path)]) == 2
    said = capsys.readouterr().err
    assert f"{name}; free some, then the same command goes on." in said
    assert "no space left on the device while writing" in said
    assert "Traceback" not in said
    assert folder.status() == ("new" if (name, times) == ("record.json", 1) else "running")
    if (name, times) == ("last.ckpt", 3):
        assert read_checkpoint(folder.checkpoint())["global_step"] == 4
    assert not list(folder.path.rglob(f".*{PART}"))
    assert main(["job", str(folder.path)]) == 0
    ended_as(whole, folder)


def test_a_configuration_that_cannot_be_written(undisturbed, tmp_path, monkeypatch):
    _full_for(monkeypatch, "config.yaml")
    with pytest.raises(DiskFullError, match=r"config\.yaml; free some"):
        prepare_run(tmp_path, *undisturbed[0])


def test_a_disk_that_is_full_for_all_large_files(undisturbed, tmp_path, capsys):
    words, whole = undisturbed
    folder = prepare_run(tmp_path, *words)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        assert main(["job", str(folder.path)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "last.ckpt; free some" in capsys.readouterr().err
    assert folder.status() == "running"
    assert not list((folder.path / "checkpoints").iterdir())
    assert run_job(folder.path) == 0
    ended_as(whole, folder)


def test_progress_that_cannot_be_written_stops_nothing(undisturbed, tmp_path, monkeypatch):
    words, whole = undisturbed
    folder = prepare_run(tmp_path, *words)
    _full_for(monkeypatch, "progress.json")
    assert run_job(folder.path) == 0
    ended_as(whole, folder)


# --- the learning curve ----------------------------------------------------------------------------------------------


def _spoil(cut, kind):
    file = cut.path / "csv" / "metrics.csv"
    content = file.read_bytes()
    if kind == "gone":
        file.unlink()
    elif kind == "folder gone":
        shutil.rmtree(file.parent)
    else:
        damaged = {"no text": b"\xff\xfe\x00", "cut": content[: len(content) // 2], "other": b"a,b\n1,2,3\n"}
        file.write_bytes(damaged[kind])


@pytest.mark.parametrize("kind", ["gone", "folder gone", "no text", "cut", "other"])
def test_the_curve_comes_from_the_checkpoint_whatever_became_of_the_file(kind, cut, undisturbed):
    _spoil(cut, kind)
    assert run_job(cut.path) == 0
    ended_as(undisturbed[1], cut)
    assert (cut.path / "csv/metrics.csv").read_bytes() == (undisturbed[1].path / "csv/metrics.csv").read_bytes()
    assert cut.record().curve_from is None


def test_a_curve_that_is_damaged_while_the_run_is_at_work_ends_whole(undisturbed, tmp_path, monkeypatch):
    folder = prepare_run(tmp_path, *undisturbed[0])
    plain = callbacks.Progress.on_train_batch_end

    def spoil(self, trainer, *arguments):
        plain(self, trainer, *arguments)
        if (file := folder.path / "csv" / "metrics.csv").is_file():
            file.write_bytes(b"\xff\x00")

    monkeypatch.setattr(callbacks.Progress, "on_train_batch_end", spoil)
    assert run_job(folder.path) == 0
    ended_as(undisturbed[1], folder)


def test_a_curve_that_nobody_holds_any_more_is_said_to_have_a_gap(cut, capsys):
    for path in (cut.checkpoint(), cut.previous_checkpoint()):  # as an earlier version wrote them
        content = torch.load(path, weights_only=True)
        del content["curve"]
        torch.save(content, path)
    whole = shutil.copytree(cut.path, cut.path.parent / "whole")
    _spoil(cut, "no text")
    assert run_job(cut.path) == 0
    said = capsys.readouterr().err
    assert "metrics.csv is not UTF-8 text" in said
    assert "the learning curve is not known before step 4" in said
    assert (cut.path / "csv" / "metrics.csv.broken").read_bytes() == b"\xff\xfe\x00"
    assert cut.record().curve_from == 4
    assert [step for step, _ in losses(cut)] == ["4", "5"]
    assert run_job(whole) == 0  # the file alone
    assert RunFolder(whole).record().curve_from is None
    assert [step for step, _ in losses(RunFolder(whole))] == list("012345")


# --- what all tries have taken ---------------------------------------------------------------------------------------


@forks
def test_the_time_of_killed_and_failed_tries_counts(undisturbed, tmp_path):
    folder = prepare_run(tmp_path, *undisturbed[0])

    def slow():
        plain = Task.test_step

        def step(self, *arguments):
            if self.trainer.callbacks and (folder.path / "progress.json").exists():
                write_json(folder.path / "progress.json", {"step": 6, "steps": 6, "loss": 1, "elapsed_s": 300})
            plain(self, *arguments)
            die()

        Task.test_step = step

    assert result_of(start(folder, slow)) == -signal.SIGKILL
    started = folder.record().started
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Progress, "on_test_batch_end", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_job(folder.path)
    failed = folder.record()
    assert failed.status == "failed"
    assert failed.wall_time_s > 300
    assert run_job(folder.path) == 0
    record = folder.record()
    assert record.wall_time_s > failed.wall_time_s
    assert record.started == started
    ended_as(undisturbed[1], folder)


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_of_a_newer_version_is_left_alone(undisturbed, tmp_path, capsys):
    words, whole = undisturbed
    folder = prepare_run(tmp_path, *words)
    write_json(folder.path / "record.json", {**whole.record().to_json(), "schema": 2})
    before = (folder.path / "record.json").read_bytes()
    assert main(["job", str(folder.path)]) == 2
    said = capsys.readouterr().err
    assert f"{folder.path / 'record.json'} has schema 2, and this version of indexnet knows 1: update indexnet." in said
    assert (folder.path / "record.json").read_bytes() == before
    assert not (folder.path / "checkpoints").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"schema": "one"}'])
def test_a_record_that_is_none_is_named(content, tmp_path):
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(UserError, match=r"record\.json (is|has|holds) .* (it|folder) away to run again\."):
        RunFolder(tmp_path).record()
