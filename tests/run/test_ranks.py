"""Several processes of one run: what one is told of the others, and what is recorded."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from indexnet.cli import main
from indexnet.core.beats import Beats
from indexnet.core.errors import UserError
from indexnet.run import fit, processes
from indexnet.run.job import DIVERGED, run_job
from indexnet.run.loggers import create
from indexnet.run.processes import FULL, INTERRUPTED, Cause, Ranks, Waits, write_error
from resume_support import ended_as
from run_support import RECONSTRUCTION, children, command, job_process, prepare_run, same, wait_until, weights


def _processes(tmp_path, *programs, stuck=lambda cause: None, before=lambda ranks: None, options=None, **waits):
    """Return the processes of a run, as if started, each a small program."""
    waits = Waits(**{"notice": 60.0, "end": 3600.0, **waits})
    watched = Ranks(tmp_path, stuck, waits=waits, **options or {})
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
    assert watched.cause(CLOSED) == Cause("ZeroDivisionError: by zero", "failed", trace="ZeroDivisionError: by zero")
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


@pytest.mark.parametrize(("own", "other", "told"), [
    (KeyError("mine"), ValueError("its own"), "ValueError: its own\n"),
    (ValueError("of both"), ValueError("of both"), ""),
    (UserError("x is broken."), UserError("x is broken."), ""),
    (KeyError("mine"), UserError("y is broken."), "y is broken.\n"),
    (None, ValueError("after Ctrl-C"), ""),
])  # fmt: skip
def test_what_another_process_met_besides_is_told(own, other, told, tmp_path, capsys):
    watched = _processes(tmp_path)
    write_error(tmp_path, 1, other)
    if own is not None:
        assert watched.cause(own) is None
    watched.close(1)
    said = capsys.readouterr().err
    assert said.endswith(told)
    assert bool(said) == bool(told)
    assert not list(tmp_path.iterdir())


class _Scripted(Beats):
    """Beats that are seen, or not, at each look."""

    def __init__(self, folder, count, seen):
        super().__init__(folder)
        self.count, self.seen, self.looks = count, seen, 0

    def look(self):
        self.looks += 1
        return self.looks <= len(self.seen) and self.seen[self.looks - 1]


@pytest.mark.parametrize(("count", "seen", "looks"), [
    (1, [True, *[False] * 16, True, *[False] * 16, True], 35 + 17),
    (0, [], 48 + 1),  # a start may take long
])  # fmt: skip
def test_processes_that_hang_are_ended_and_those_that_go_on_are_not(count, seen, looks, tmp_path):
    said, poll = [], 2.0**-9
    beats = _Scripted(tmp_path, count, seen)
    options = {"hang": 16 * poll, "beats": beats}
    watched = _processes(tmp_path, WAIT, stuck=said.append, options=options, poll=poll, start=32 * poll, farewell=0.02)
    assert wait_until(lambda: said)
    watched.close(1)
    assert beats.looks == looks
    assert [cause.kind for cause in said] == ["killed"]
    assert "for 0.03125 s (trainer.timeout), so one of them hangs" in said[0].text
    log = tmp_path / "hang.log"
    assert str(log) in said[0].text
    assert "process 0 of 2:" in log.read_text()
    assert "wait_until(lambda: said)" in log.read_text()
    assert watched.processes[1].returncode == -signal.SIGKILL


_ADOPTED = """
import os, pathlib, sys, time
from indexnet.run.processes import Ranks, Waits
ranks = Ranks(pathlib.Path(sys.argv[1]), lambda cause: os._exit(4), False, Waits(poll=0.01, end=0.01, start=0.0), 0.05)
ranks.watch({}, 2)
time.sleep(600)
"""


@pytest.mark.parametrize("parent", ["the leader", "a stranger"])
def test_only_the_process_that_started_the_run_is_ended_for_hanging(parent, tmp_path):
    leader = "$$" if parent == "the leader" else "1"
    script = f'INDEXNET_LEADER={leader} "$0" -c "$1" "$2"; echo "code $?"'
    command = ["sh", "-c", script, sys.executable, _ADOPTED, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "process 0 hangs" in result.stderr
    assert result.stdout == ("" if parent == "the leader" else "code 4\n")
    assert result.returncode == (-signal.SIGKILL if parent == "the leader" else 0)


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
    monkeypatch.setattr(processes, "Ranks", _Seen)
    monkeypatch.setattr(os, "_exit", exits.append)
    monkeypatch.setattr(
        create, "finish_loggers", lambda *rest: _Seen.stuck_calls[0](Cause("process 1 crashed", "failed"))
    )
    folder = prepare_run(tmp_path, *RECONSTRUCTION)
    assert run_job(folder.path) == 0
    assert not exits
    assert folder.status() == "done"
    assert folder.record().error is None


def test_where_processes_hung_is_forgotten_once_the_run_is_done(work, tmp_path):
    def stop():
        raise KeyboardInterrupt

    folder = prepare_run(tmp_path, *RECONSTRUCTION)
    log = folder.path / "hang.log"
    log.write_text("process 0 of 2:\n")
    work.append(stop)
    with pytest.raises(KeyboardInterrupt):
        run_job(folder.path)
    assert log.exists()
    work.clear()
    assert run_job(folder.path) == 0
    assert not log.exists()


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
import atexit, errno, functools, os, signal, subprocess, sys, time
from indexnet.core.errors import UserError
from indexnet.run import fit, processes
from indexnet.run.loggers import create
from indexnet.tasks.base import Task
from indexnet.tasks.reconstruction import ReconstructionTask

mode, second = os.environ["MODE"], os.environ.get("RANK") == "1"
processes.Ranks = functools.partial(processes.Ranks, waits=processes.Waits(notice=0.1))

def full(self, *arguments):
    raise OSError(errno.ENOSPC, "No space left on device")

def mistake(self, *arguments):
    raise UserError("its second image cannot be read.")

if mode == "abort":
    if second:
        atexit.register(os.abort)  # while the interpreter goes down, all is done
    fit.write_gallery = create.finish_loggers = lambda *arguments, **options: time.sleep(1.5)
elif mode == "full" and second:
    Task.test_step = full
elif mode == "raise" and second:
    Task.test_step = lambda self, *arguments: {}["by chance"]
elif mode == "mistake" and second:
    Task.test_step = mistake
elif mode == "hang" and second:
    step = Task.training_step
    def training_step(self, batch, index):
        if index == 1:  # stopped and let go on, in time
            subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {os.getpid()}"])
            os.kill(os.getpid(), signal.SIGSTOP)
        if index == 3:
            time.sleep(600)
        return step(self, batch, index)
    Task.training_step = training_step
elif mode == "uneven":  # the first process has its share done while the second has most of its own before it
    ReconstructionTask.test_batch_size = 1
    if second:
        slow = Task.test_step
        def test_step(self, *arguments):
            time.sleep(1.2)
            return slow(self, *arguments)
        Task.test_step = test_step
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
    ("hang", INTERRUPTED, "running"),
    pytest.param("uneven", 0, "done", marks=pytest.mark.nightly),
    pytest.param("raise", 1, "failed", marks=pytest.mark.nightly),
    pytest.param("mistake", 2, "failed", marks=pytest.mark.nightly),
    pytest.param("full", 2, "running", marks=pytest.mark.nightly),
    pytest.param("nan", DIVERGED, "diverged", marks=pytest.mark.nightly),
])  # fmt: skip
def test_what_another_process_meets_is_told_from_what_it_means(mode, code, status, tmp_path):
    words = ["resampling=bilinear", "trainer.devices=2", "trainer.checkpoint_every=2"]
    words += {"hang": ["trainer.timeout=12"], "uneven": ["trainer.timeout=10", "data.test_count=24"]}.get(mode, [])
    folder = prepare_run(tmp_path, *RECONSTRUCTION, *words)
    (tmp_path / "disturbed.py").write_text(_DISTURBED)
    words = [sys.executable, str(tmp_path / "disturbed.py"), "job", str(folder.path)]
    result = subprocess.run(words, env={**os.environ, "MODE": mode}, capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    assert result.stderr.count("Traceback") == (mode == "raise"), result.stderr
    assert folder.status() == status
    assert not list(folder.path.glob(".process*"))
    if mode in ("raise", "mistake"):
        error = {"raise": "KeyError: 'by chance'", "mistake": "UserError: its second image cannot be read."}[mode]
        assert folder.record().error == error
        assert error.partition(": ")[2] in result.stderr.splitlines()[-1]
    if mode == "hang":
        last = result.stderr.splitlines()[-1]
        assert "no process has come to the end of a batch for 12 s (trainer.timeout), so one of them hangs" in last
        assert last.endswith("the same command goes on.")
        log = (folder.path / "hang.log").read_text()
        assert "process 0 of 2:" in log
        assert "time.sleep(600)" in log.partition("process 1 of 2:")[2] or "in training_step" in log
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
    first = subprocess.Popen(command("job", folder.path), stderr=subprocess.PIPE, text=True)
    assert wait_until(folder.previous_checkpoint().exists, 200)
    _, second = children(first.pid)
    os.kill(second, signal.SIGKILL)
    said = first.communicate()[1]
    assert first.returncode == INTERRUPTED
    assert "process 2 of 3 was killed by SIGKILL; the same command goes on." in said
    assert "Traceback" not in said
    assert folder.status() == "running"
    assert folder.record().error is None
    assert job_process(folder).returncode == 0
    assert folder.record().test_count == 5
    ended_as(whole, folder)


@pytest.mark.long
def test_two_processes_measure_what_nobody_trained(tmp_path):
    words = [*RECONSTRUCTION, "resampling=nearest", "training.steps=0", "logger=none"]
    one, two = prepare_run(tmp_path, *words), prepare_run(tmp_path, *words, "trainer.devices=2", "trainer.strategy=ddp")
    assert run_job(one.path) == 0
    done = job_process(two)
    assert done.returncode == 0, done.stderr
    assert same(weights(one), weights(two))
    assert (one.path / "per_image.csv").read_bytes() == (two.path / "per_image.csv").read_bytes()
    assert two.record().metrics == pytest.approx(one.record().metrics)
    assert two.record().test_count == 5
