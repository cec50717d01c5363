"""A run that is killed, cut short or damaged goes on, and ends as if nothing had been."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
import zipfile
from pathlib import Path

import pytest
import torch

from data_support import write_camvid
from indexnet.cli import main
from indexnet.core import files
from indexnet.core.errors import UserError
from indexnet.core.files import PART, DiskFullError, write_json
from indexnet.run import callbacks, fit, loggers, ranks
from indexnet.run.folder import RunFolder
from indexnet.run.job import DIVERGED, run_job
from indexnet.run.ranks import FULL, INTERRUPTED, Cause, Ranks, Waits, write_error
from indexnet.run.resume import find_checkpoint, read_checkpoint
from indexnet.tasks.base import Task
from run_support import DENOISING, MATTING, RECONSTRUCTION, job_process, losses, prepare_run, same, wait_until, weights

forks = pytest.mark.skipif(
    not hasattr(os, "fork") or torch.cuda.is_available(), reason="forks, which CUDA does not bear"
)


def _ended_as(whole, folder):
    """Check that two runs have come to the same."""
    assert same(weights(whole), weights(folder))
    assert whole.record().metrics == folder.record().metrics
    assert (whole.path / "per_image.csv").read_bytes() == (folder.path / "per_image.csv").read_bytes()
    assert losses(folder) == losses(whole)
    assert all(folder.record().number(key) > 0 for key in ("train_samples_per_s", "peak_memory_mb", "wall_time_s"))
    assert sorted(path.name for path in (folder.path / "checkpoints").glob("*.ckpt")) == ["last.ckpt"]
    assert not list(folder.path.rglob(f".*{PART}"))


def _start(folder, before=lambda: None):
    """Run a folder in a process forked from this one, which spares it the imports; return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        before()
        code = run_job(folder.path)
    finally:
        os._exit(code)


def _result(pid):
    """Wait for a process; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- killed at any moment --------------------------------------------------------------------------------------------


def _die_at(module, name, when, applies=lambda *arguments: True, after=False):
    """Return a function that makes the ``when``-th call of ``module.name`` the last thing that a process does."""

    def arm():
        plain, count = getattr(module, name), 0

        def deadly(*arguments, **options):
            nonlocal count
            count += bool(applies(*arguments))
            if applies(*arguments) and count == when:
                if after:
                    plain(*arguments, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*arguments, **options)

        setattr(module, name, deadly)

    return arm


def _to_checkpoint(source, target=""):
    return Path(target).suffix == ".ckpt"


MOMENTS = {
    "the first checkpoint is written, not renamed": _die_at(os, "replace", 1, _to_checkpoint),
    "the third is written, nothing renamed": _die_at(os, "replace", 4, _to_checkpoint),
    "the second has become the previous one, the third is not the last one yet": _die_at(
        os, "replace", 4, _to_checkpoint, after=True
    ),
    "the second is the last one": _die_at(os, "replace", 3, _to_checkpoint, after=True),
    "the third step after the first checkpoint": _die_at(Task, "training_step", 5),
    "a part of the second is on the disk": _die_at(
        os, "fsync", 2, lambda handle: ".ckpt." in os.readlink(f"/proc/self/fd/{handle}")
    ),
    "the test images": _die_at(Task, "test_step", 1, after=True),
    "per_image.csv is written, not renamed": _die_at(
        os, "replace", 1, lambda source, target: Path(target).name == "per_image.csv"
    ),
    "all is done but the record": _die_at(os, "replace", 2, lambda source, target: Path(target).name == "record.json"),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    words = [*RECONSTRUCTION, "resampling=indexnet", "resampling.family=hin", "trainer.checkpoint_every=2"]
    whole = prepare_run(tmp_path_factory.mktemp("whole"), *words)
    assert run_job(whole.path) == 0
    return words, whole


@forks
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_when(moment, undisturbed, tmp_path):
    words, whole = undisturbed
    folder = prepare_run(tmp_path, *words)
    assert _result(_start(folder, MOMENTS[moment])) == -signal.SIGKILL
    assert folder.status() == "running"
    assert not folder.locked()
    if (folder.path / "checkpoints").is_dir():
        found = [read_checkpoint(path) for path in (folder.checkpoint(), folder.previous_checkpoint())]
        assert any(found) == (moment not in list(MOMENTS)[:1])
    assert run_job(folder.path) == 0
    _ended_as(whole, folder)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_checkpoint_appears_after_the_row_of_its_step(accumulate, tmp_path, monkeypatch):
    words = [*RECONSTRUCTION, "resampling=nearest", "trainer.checkpoint_every=2", f"trainer.accumulate={accumulate}"]
    folder, plain, seen = prepare_run(tmp_path, *words), callbacks.write_checkpoint, []

    def write(path, *more):
        plain(path, *more)
        seen.append((read_checkpoint(path)["global_step"], len(losses(folder))))

    monkeypatch.setattr(callbacks, "write_checkpoint", write)
    assert run_job(folder.path) == 0
    assert seen == [(2, 2), (4, 4), (6, 6)]


@forks
@pytest.mark.long
@pytest.mark.parametrize(("words", "seed"), [
    # dropout and augmentation, a rate that drops twice, two batches a step
    ([*MATTING, "training.steps=12", "training.epochs=3", "schedule.milestones=[1,2]", "trainer.accumulate=2",
      "data.test_count=4"], 0),
    # noise that follows from the step, loader processes
    ([*DENOISING, "training.steps=40", "trainer.num_workers=2"], 1),
])  # fmt: skip
def test_killed_at_random_moments(words, seed, tmp_path):
    words = [*words, "trainer.checkpoint_every=3"]
    whole, folder = prepare_run(tmp_path / "whole", *words), prepare_run(tmp_path / "cut", *words)
    begun = time.monotonic()
    assert _result(_start(whole)) == 0
    took = time.monotonic() - begun
    moments, kills = random.Random(seed), 0
    for _ in range(6):
        pid = _start(folder)
        time.sleep(moments.uniform(0.2, 0.8) * took)
        os.kill(pid, signal.SIGKILL)
        kills += _result(pid) == -signal.SIGKILL
        if folder.status() == "done":
            break
    assert kills
    assert run_job(folder.path) == 0
    _ended_as(whole, folder)


@forks
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_loader_process_is_no_failure(tmp_path):
    words = [*RECONSTRUCTION, "resampling=nearest", "training.steps=40", "trainer.num_workers=2"]
    whole, folder = prepare_run(tmp_path / "whole", *words), prepare_run(tmp_path / "cut", *words)
    assert run_job(whole.path) == 0

    def kill_a_worker():
        plain = Task.training_step

        def step(self, batch, index):
            if index == 3:
                children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
                os.kill(int(children[0]), signal.SIGKILL)
                time.sleep(0.5)
            return plain(self, batch, index)

        Task.training_step = step

    assert _result(_start(folder, kill_a_worker)) == INTERRUPTED
    assert folder.status() == "running"
    assert run_job(folder.path) == 0
    _ended_as(whole, folder)


@forks
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_run_leaves_neither_lock_nor_loader_process(tmp_path):
    folder = prepare_run(tmp_path, *RECONSTRUCTION, "resampling=nearest", "training.steps=5000",
                         "trainer.num_workers=2")  # fmt: skip
    pid = _start(folder)
    deadline = time.monotonic() + 60
    while not (folder.path / "progress.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(workers) == 2
    os.kill(pid, signal.SIGKILL)
    assert _result(pid) == -signal.SIGKILL
    assert not folder.locked()  # at once
    deadline = time.monotonic() + 3
    while any(_alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- damaged checkpoints ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(undisturbed, tmp_path_factory):
    """The files of a run that was killed after step 5, with checkpoints of steps 2 and 4."""
    words, _ = undisturbed
    folder = prepare_run(tmp_path_factory.mktemp("cut"), *words)

    class Stop(callbacks.Progress):
        def on_train_batch_end(self, trainer, *arguments):
            super().on_train_batch_end(trainer, *arguments)
            if trainer.global_step == 5:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(callbacks, "Progress", Stop)
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
    _ended_as(undisturbed[1], cut)


def test_without_a_whole_checkpoint_a_run_starts_again(cut, undisturbed, capsys):
    for path in (cut.checkpoint(), cut.previous_checkpoint()):
        path.write_bytes(path.read_bytes()[:5000])
    assert run_job(cut.path) == 0
    said = capsys.readouterr()
    assert "last.ckpt and previous.ckpt are damaged, kept as *.broken; starting from the beginning." in said.err
    assert "training for 6 steps" in said.out
    kept = sorted(path.name for path in (cut.path / "checkpoints").iterdir())
    assert kept == ["last.ckpt", "last.ckpt.broken", "previous.ckpt.broken"]
    _ended_as(undisturbed[1], cut)


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
    config = cut.config()
    cut.checkpoint().write_bytes(b"cut off")

    def others():
        path, step = find_checkpoint(cut, config, settle=False)
        return torch.load(path, weights_only=True)["global_step"], step

    assert others() == (2, 2)  # before the first process has looked
    assert cut.checkpoint().read_bytes() == b"cut off"  # only that one tidies
    plain, seen = os.replace, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda *names: (plain(*names), seen.append(others())))
        assert find_checkpoint(cut, config, settle=True)[1] == 2
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
        find_checkpoint(cut, cut.config(), settle=True)
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
    ("record.json", 1), ("record.json", 2), ("last.ckpt", 1), ("last.ckpt", 3), ("per_image.csv", 1),
    ("pictures.json", 1),
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
    _ended_as(whole, folder)


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
    _ended_as(whole, folder)


def test_progress_that_cannot_be_written_stops_nothing(undisturbed, tmp_path, monkeypatch):
    words, whole = undisturbed
    folder = prepare_run(tmp_path, *words)
    _full_for(monkeypatch, "progress.json")
    assert run_job(folder.path) == 0
    _ended_as(whole, folder)


def test_a_configuration_that_cannot_be_written(tmp_path, monkeypatch):
    _full_for(monkeypatch, "config.yaml")
    with pytest.raises(DiskFullError, match=r"config\.yaml; free some"):
        prepare_run(tmp_path, *RECONSTRUCTION)


def test_a_full_disk_met_by_a_logger(undisturbed, tmp_path, monkeypatch):
    from pytorch_lightning.loggers import CSVLogger

    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = prepare_run(tmp_path, *undisturbed[0])
    monkeypatch.setattr(CSVLogger, "save", full)
    with pytest.raises(DiskFullError, match="free some, then the same command goes on"):
        run_job(folder.path)
    assert folder.status() == "running"


# --- what all tries have taken ---------------------------------------------------------------------------------------


class _Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return _Clock()


class _Trainer:
    """As much of a trainer as the measurement of a run looks at."""

    is_global_zero, accumulate_grad_batches = True, 1
    strategy = types.SimpleNamespace(root_device=torch.device("cpu"), reduce_boolean_decision=lambda value, all: value)

    def __init__(self, start):
        self.global_step = start


def _try(progress, clock, start, begun, ends):
    """Train from a step on: when training began, and when each step ended."""
    trainer, clock.now = _Trainer(start), begun
    progress.on_train_start(trainer, None)
    for clock.now in ends:
        trainer.global_step += 1
        progress.on_train_batch_end(trainer, None, torch.tensor(1.0), None, 0)
    return progress


def test_throughput_is_that_of_all_tries(tmp_path, clock, monkeypatch):
    def progress(since=0.0):
        return callbacks.Progress(tmp_path / "progress.json", 10, 4, since, clock)

    monkeypatch.setattr(callbacks, "peak_memory_mb", lambda device: 700.0)
    first = _try(progress(), clock, 0, 10, [15, 16, 17, 19])
    assert first.samples_per_s == 8 / 3  # steps 3 and 4: 8 samples in 3 s
    kept = first.state_dict()
    monkeypatch.setattr(callbacks, "peak_memory_mb", lambda device: 500.0)
    second = progress(since=80)
    second.load_state_dict(kept)
    _try(second, clock, 4, 100, [103, 104, 105])
    assert second.samples_per_s == 12 / 4  # and step 7: 4 samples in 1 s
    assert second.peak_memory_mb(torch.device("cpu")) == 700
    assert files.read_json(tmp_path / "progress.json")["elapsed_s"] == 25
    assert second.state_dict()["steps"] == 7
    clock.now = 130
    second.on_test_batch_end(_Trainer(7), None, None, None, 0)
    assert files.read_json(tmp_path / "progress.json") == {
        "step": 7, "steps": 10, "loss": 1.0, "eta_s": 5.0, "elapsed_s": 50.0,
    }  # fmt: skip
    third = progress(since=150)
    third.load_state_dict(second.state_dict())
    assert third.samples_per_s == 12 / 4  # only the test was left to do
    clock.now = 155
    third.on_test_batch_end(_Trainer(7), None, None, None, 0)
    assert files.read_json(tmp_path / "progress.json")["elapsed_s"] == 5.0
    assert files.read_json(tmp_path / "progress.json")["step"] == 7


def test_throughput_of_short_tries_is_that_of_all_steps(tmp_path, clock):
    known = {}
    for _ in range(3):  # two steps each, which usually count as warming up
        progress = callbacks.Progress(tmp_path / "progress.json", 10, 4, clock=clock)
        progress.load_state_dict(known)
        known = _try(progress, clock, 0, 0, [3, 5]).state_dict()
    assert progress.samples_per_s == 24 / 15
    assert callbacks.Progress(tmp_path / "progress.json", 10, 4).samples_per_s is None


@forks
def test_the_time_of_killed_and_failed_tries_counts(undisturbed, tmp_path):
    folder = prepare_run(tmp_path, *undisturbed[0])

    def slow():
        plain = Task.test_step

        def step(self, *arguments):
            if self.trainer.callbacks and (folder.path / "progress.json").exists():
                write_json(folder.path / "progress.json", {"step": 6, "steps": 6, "loss": 1, "elapsed_s": 300})
            plain(self, *arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        Task.test_step = step

    assert _result(_start(folder, slow)) == -signal.SIGKILL
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
    _ended_as(undisturbed[1], folder)


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
    with pytest.raises(UserError, match=r"record\.json is .*; delete it to run again\."):
        RunFolder(tmp_path).record()


# --- several processes -----------------------------------------------------------------------------------------------


def _processes(tmp_path, *programs, stuck=lambda cause: None, before=lambda ranks: None, **waits):
    """Return the processes of a run, as if started, each a small program."""
    watched = Ranks(tmp_path, stuck, waits=Waits(**{"notice": 60.0, "end": 3600.0, **waits}))
    before(watched)
    command = [sys.executable, "-S", "-c"]
    started = {rank: subprocess.Popen([*command, program]) for rank, program in enumerate(programs, 1)}
    watched.watch(started, len(programs) + 1)
    return watched


KILL = "import os, signal; os.kill(os.getpid(), signal.SIG{})"
WAIT = "import time; time.sleep(60)"
CLOSED = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:2")


@pytest.mark.parametrize(("programs", "kind", "text"), [
    ([KILL.format("KILL")], "killed", "process 1 of 2 was killed by SIGKILL"),
    ([KILL.format("TERM"), "raise SystemExit(4)"], "killed", "process 1 of 3 was killed by SIGTERM"),
    ([KILL.format("SEGV")], "failed", "process 1 of 2 crashed with SIGSEGV"),
    (["raise SystemExit(4)", "raise SystemExit(7)"], "failed", "process 2 of 3 ended with exit code 7"),
    ([WAIT], "killed", "the connection to another process was lost"),
])  # fmt: skip
def test_a_closed_connection_is_explained(programs, kind, text, tmp_path):
    watched = _processes(tmp_path, *programs, arrival=1.0)
    assert watched.cause(CLOSED) == Cause(text, kind)
    watched.close(1)


def test_the_error_of_another_process_is_told(tmp_path):
    watched = _processes(tmp_path, "raise SystemExit(1)")
    write_error(tmp_path, 1, ZeroDivisionError("by zero"))
    assert watched.cause(CLOSED) == Cause("ZeroDivisionError: by zero", "failed")
    write_error(tmp_path, 1, UserError("file x is broken."))
    assert watched.cause(CLOSED) == Cause("file x is broken.", "mistake")
    watched.close(1)
    assert not list(tmp_path.iterdir())


def test_an_error_of_its_own_is_not_explained_away(tmp_path):
    watched = _processes(tmp_path, "raise SystemExit(1)")
    watched.processes[1].wait()
    write_error(tmp_path, 1, ValueError("the same there"))
    assert watched.cause(ValueError("the same here")) is None
    assert watched.cause(UserError("Connection closed by peer")) is None
    watched.close(1)


def test_a_process_that_waits_for_a_lost_one_is_told(tmp_path):
    said = []
    watched = _processes(tmp_path, KILL.format("KILL"), WAIT, stuck=said.append, notice=0.1)
    assert wait_until(lambda: said)
    watched.close(1)
    assert said == [Cause("process 1 of 3 was killed by SIGKILL", "killed")]
    assert [process.returncode for process in watched.processes.values()] == [-signal.SIGKILL] * 2


def test_a_process_that_is_lost_after_its_work_takes_nothing_with_it(tmp_path):
    said = []
    waits = {"poll": 0.01, "notice": 0.01, "end": 0.1}
    watched = _processes(tmp_path, KILL.format("ABRT"), stuck=said.append, before=Ranks.finish, **waits)
    watched.processes[1].wait()
    time.sleep(0.2)
    assert watched.cause(ValueError("of its own")) is None
    assert watched.cause(CLOSED) is None  # that of a logger, say
    watched.close(0)
    time.sleep(0.3)  # it would have ended this process by now
    assert not said


class _Seen(Ranks):
    """Keeps what the watcher would call."""

    stuck_calls: list = []  # noqa: RUF012

    def __init__(self, folder, stuck, **options):
        super().__init__(folder, stuck, **options)
        self.stuck_calls.append(stuck)


@pytest.fixture
def work(monkeypatch):
    """Replace the work of a run by nothing, or by what the test puts into the list."""
    todo = []

    def execute(folder, config, record, *rest):
        record.metrics, record.test_count = {"psnr": 1.0}, 1
        for each in todo:
            each()

    monkeypatch.setattr(fit, "execute", execute)
    return todo


def test_a_process_that_is_lost_while_the_loggers_finish_changes_nothing(work, tmp_path, monkeypatch):
    exits = []
    monkeypatch.setattr(_Seen, "stuck_calls", [])
    monkeypatch.setattr(ranks, "Ranks", _Seen)
    monkeypatch.setattr(os, "_exit", exits.append)
    monkeypatch.setattr(
        loggers, "finish_loggers", lambda *rest: _Seen.stuck_calls[0](Cause("process 1 crashed", "failed"))
    )
    folder = prepare_run(tmp_path, *RECONSTRUCTION)
    assert run_job(folder.path) == 0
    assert not exits
    assert folder.status() == "done"
    assert folder.record().error is None


def test_a_full_disk_met_by_another_process(work, tmp_path, monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    def closed():
        raise CLOSED

    folder = prepare_run(tmp_path, *RECONSTRUCTION)
    work.append(full)
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "1")
        assert run_job(folder.path) == FULL
    told = sorted(folder.path.glob(".process*"))
    assert [path.name for path in told] == [".process1.error"]
    told = told[0].read_bytes()
    for left in (told, None):  # a disk may be too full for that, too
        watched = _processes(folder.path, f"raise SystemExit({FULL})")
        if left:
            (folder.path / ".process1.error").write_bytes(left)
        cause = watched.cause(CLOSED)
        assert cause.kind == "full"
        assert "no space left on the device while writing" in cause.text
        assert "the same command goes on." in cause.text
        watched.close(1)
        work[:] = [closed]
        with monkeypatch.context() as patch:
            patch.setattr(Ranks, "cause", lambda self, error, cause=cause: cause)
            assert main(["job", str(folder.path)]) == 2
        said = capsys.readouterr().err
        assert cause.text in said
        assert "Traceback" not in said
        assert folder.status() == "running"
        assert folder.record().error is None


_DISTURBED = """
import atexit, errno, functools, os, sys, time
from indexnet.run import fit, loggers, ranks
from indexnet.tasks.base import Task

mode, second = os.environ["MODE"], os.environ.get("RANK") == "1"
ranks.Ranks = functools.partial(ranks.Ranks, waits=ranks.Waits(notice=0.1))

def full(self, *arguments):
    raise OSError(errno.ENOSPC, "No space left on device")

if mode == "abort":
    if second:
        atexit.register(os.abort)  # while the interpreter goes down, all is done
    fit.write_gallery = loggers.finish_loggers = lambda *arguments, **options: time.sleep(1.5)
elif mode == "full" and second:
    Task.test_step = full
elif mode == "nan" and second:
    infer = Task.test_step
    def test_step(self, *arguments):
        infer(self, *arguments)
        self.predictions_finite = False
    Task.test_step = test_step

from indexnet.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.long
@pytest.mark.parametrize(("mode", "code", "status"), [
    ("abort", 0, "done"),
    pytest.param("full", 2, "running", marks=pytest.mark.nightly),
    pytest.param("nan", DIVERGED, "diverged", marks=pytest.mark.nightly),
])  # fmt: skip
def test_what_another_process_meets_is_told_from_what_it_means(mode, code, status, tmp_path):
    folder = prepare_run(tmp_path, *RECONSTRUCTION, "resampling=bilinear", "trainer.devices=2")
    (tmp_path / "disturbed.py").write_text(_DISTURBED)
    command = [sys.executable, str(tmp_path / "disturbed.py"), "job", str(folder.path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MODE": mode}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert folder.status() == status
    assert not list(folder.path.glob(".process*"))
    if mode == "full":
        assert "no space left on the device while writing" in result.stderr.splitlines()[-1]
        assert job_process(folder).returncode == 0


@pytest.mark.nightly
@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_run_that_loses_a_process_goes_on(tmp_path):
    words = [*RECONSTRUCTION, "resampling=bilinear", "training.batch_size=6", "training.steps=30",
             "trainer.devices=3", "trainer.checkpoint_every=2"]  # fmt: skip
    whole, folder = prepare_run(tmp_path / "whole", *words), prepare_run(tmp_path / "cut", *words)
    assert job_process(whole).returncode == 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "indexnet", "job", str(folder.path)]
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not folder.previous_checkpoint().exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    children = [int(word) for word in Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()]
    assert len(children) == 2
    os.kill(children[1], signal.SIGKILL)
    said = first.communicate()[1]
    assert first.returncode == INTERRUPTED
    assert "process 2 of 3 was killed by SIGKILL; the same command goes on." in said
    assert "Traceback" not in said
    assert folder.status() == "running"
    assert folder.record().error is None
    assert job_process(folder).returncode == 0
    assert folder.record().test_count == 5
    _ended_as(whole, folder)


@pytest.mark.nightly
@pytest.mark.long
def test_a_mistake_that_only_another_process_meets_is_the_one_that_is_recorded(tmp_path):
    root = tmp_path / "data"
    write_camvid(root, counts=(("train", 3), ("val", 1), ("test", 3)))
    words = ["task=segmentation", "data=camvid", f"data.root={root}", "data.cache=false", "encoder.name=vgg11_bn",
             "training.size=32", "training.batch_size=2", "training.steps=1",
             "resampling=max_unpool", "trainer.accelerator=cpu", "trainer.devices=2"]  # fmt: skip
    folder = prepare_run(tmp_path / "runs", *words)
    image = sorted((root / "test").glob("*.png"))[1]  # the second process has the second image
    image.write_bytes(image.read_bytes()[:-40])
    result = job_process(folder)
    assert result.returncode == 2
    assert f"{image.name} cannot be read as an image" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    record = folder.record()
    assert record.status == "failed"
    assert record.error.startswith("UserError: ")
    assert f"{image.name} cannot be read as an image" in record.error
    assert not list(folder.path.glob(".process*"))
