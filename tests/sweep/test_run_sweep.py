"""A whole sweep, with jobs that only pretend to train: folders, locks, views, and what is said."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from indexnet.core.errors import UserError
from indexnet.core.files import DiskFullError
from indexnet.core.locks import HeldError
from indexnet.run.folder import RunFolder, difference, prepare
from indexnet.sweep.launch import exit_code, note_request, prepare_jobs, read_requests, run_sweep
from indexnet.sweep.pool import Job, View, launch
from launch_support import job_script, lines_of
from run_support import alive


def _config(row: str | None = "r", seed: int = 0, steps: int = 1):
    from indexnet.run.config import compose, freeze

    config = freeze(compose(["task=reconstruction", f"training.steps={steps}", f"seed={seed}"]))
    config["experiment"] = {"name": "t" if row else None, "row": row, "label": row}
    return config


def pretended():
    return functools.partial(launch, command=job_script)


def test_folders_are_prepared_all_or_none(
    tmp_path,
):
    with pytest.raises(UserError, match="same folder"):
        prepare_jobs([_config(), _config()])
    assert not Path("runs").exists()
    (job,) = prepare_jobs([_config("old")])
    assert job == Job(tmp_path / "runs/t/photos-paper/old/seed=0", "old", 0)
    job.console.touch()
    with pytest.raises(UserError, match=r"training\.steps is 1 there and 2 here"):
        prepare_jobs([_config("new"), _config("old", steps=2)])
    assert not Path("runs/t/photos-paper/new").exists()
    single = prepare_jobs([_config(None), _config(None, seed=1)], ["a", "b"])
    assert [job.title for job in single] == ["a", "b"]
    assert single[0].folder.parent == tmp_path / "runs/single"


@pytest.mark.parametrize("content", [
    "{", '{"schema": 99, "status": "done"}',
    *(pytest.param(text, marks=[pytest.mark.long, pytest.mark.nightly]) for text in ('{"status": "dome"}', "[]")),
])  # fmt: skip
def test_a_record_that_cannot_be_read_lets_the_others_run(content, jobs, capsys):
    configs = [_config("ok-1"), _config("ok-2")]
    record = prepare(configs[0]).path / "record.json"
    record.write_text(content)
    for root in (None, "elsewhere"):  # the files of another place would be compared with those of the record
        configs[0]["data"]["root"] = root
        configs[0]["logger"]["csv"] = False  # config.yaml would be written anew
        outcomes = run_sweep(configs, get_launch=pretended)
        assert outcomes[0].status == "failed"
        assert outcomes[1].status in ("done", "before")
        assert str(record) in outcomes[0].reason.replace(f"{Path.cwd()}/", "")
        assert record.read_text() == content
    assert [name for name, *_ in lines_of("started")] == ["seed=0"]
    said = capsys.readouterr().out.replace(f"{Path.cwd()}/", "")
    assert said.count(f"failed: ok-1 seed=0: {record}") == 2


def test_a_job_that_another_process_is_at_work_on(jobs):
    first, second = jobs("ok-1", "ok-2")
    first.console.write_text("the other process\n")
    with RunFolder(first.folder).lock():
        outcomes = launch([first, second], command=job_script, patience=0.1)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert outcomes[0].reason == (
        f"{first.folder} is in use by another process; the same command goes on when that has ended"
    )
    assert first.console.read_text() == "the other process\n"
    assert [name for name, *_ in lines_of("started")] == ["ok-2"]
    with RunFolder(first.folder).lock():
        outcomes = launch([first, *jobs("ok-3")], command=job_script, patience=0.1, fail_fast=True)
    assert [outcome.status for outcome in outcomes] == ["failed", "stopped"]


@pytest.mark.parametrize(("seconds", "good"), [(0.2, True), (3.0, False)])
def test_who_only_looks_makes_no_job_refuse(tmp_path, seconds, good):
    """``indexnet status`` holds a shared lock for a moment."""
    lock = RunFolder(tmp_path).lock
    with lock():
        pass
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_SH)\n"
        "print(flush=True); time.sleep(float(sys.argv[2]))"
    )
    looking = subprocess.Popen(
        [sys.executable, "-S", "-c", code, str(tmp_path / ".lock"), str(seconds)], stdout=subprocess.PIPE
    )
    assert looking.stdout is not None
    looking.stdout.readline()
    begin = time.monotonic()
    try:
        with contextlib.nullcontext() if good else pytest.raises(HeldError), lock():
            pass
        assert time.monotonic() - begin < 2.5
    finally:
        looking.kill()
        looking.wait()


@pytest.mark.parametrize(("number", "words"), [
    (errno.ENOSYS, "has no file locks"), (errno.ENOLCK, "has no file locks"), (errno.ENOTSUP, "mount with flock"),
])  # fmt: skip
def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch, number, words):
    import fcntl

    def no_locks(handle, kind):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = RunFolder(tmp_path)
    for ask in (lambda: folder.lock().__enter__(), folder.locked):
        (tmp_path / ".lock").touch()
        with pytest.raises(UserError, match=words) as error:
            ask()
        assert not isinstance(error.value, HeldError)
        assert "in use" not in str(error.value)
        assert str(tmp_path) in str(error.value)


def test_a_full_disk_is_no_lock(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    plain = os.open

    def full(path, flags, *more, **options):
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "full")
        return plain(path, flags, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        assert not folder.locked()
        with pytest.raises(DiskFullError, match=r"\.lock; free some"), folder.lock():
            pass
    with folder.lock(), pytest.raises(HeldError, match="in use by another process"), folder.lock():
        pass


def test_a_full_disk_is_said_when_a_folder_is_prepared_again(monkeypatch):
    config = _config()
    folder = prepare(config)

    def full(**options):
        raise OSError(errno.ENOSPC, "full")

    config["logger"]["csv"] = False
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", full)
        with folder.lock():
            prepare(config)  # somebody is at work there with the old one
        with pytest.raises(DiskFullError, match=r"config\.yaml; free some, then the same command goes on"):
            prepare(config)
    assert folder.config()["logger"]["csv"] is True
    prepare(config)
    assert folder.config()["logger"]["csv"] is False


def test_the_difference_that_is_named_is_one_that_counts():
    there, here = _config(steps=2), _config(steps=1)
    here["data"]["root"], here["trainer"]["num_workers"], here["logger"]["csv"] = "/other", 7, False
    assert difference(there, here) == "training.steps is 2 there and 1 here"


def test_a_metric_that_cannot_be_measured_hides_no_other(tmp_path):
    from indexnet.sweep.progress import metrics_line

    (tmp_path / "record.json").write_text(json.dumps({"status": "done", "metrics": {"psnr": None, "ssim": 0.91234}}))
    assert metrics_line(tmp_path) == "psnr not measurable, ssim 0.9123"


def test_a_sweep_says_what_came_of_it(jobs, capsys):
    asked = ["-m", "experiments=t", "retry_failed=true"]
    configs = [_config("ok"), _config("crash"), _config("diverge")]
    outcomes = run_sweep(configs, n_jobs=2, arguments=asked, get_launch=pretended)
    assert exit_code(outcomes) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "started ok seed=0" in said
    assert "psnr 1.5" in said
    assert "1 of 3 runs done, 1 failed, 1 diverged" in said
    assert "runs/t/photos-paper" in said
    assert "failed: crash seed=0: Traceback: it broke runs/t/photos-paper/crash/seed=0/console.log" in said
    (request,) = read_requests(Path("runs/t/photos-paper"))
    assert request == {
        "arguments": ["-m", "experiments=t"],
        "directory": str(Path.cwd()),
        "runs": ["ok/seed=0", "crash/seed=0", "diverge/seed=0"],
    }
    note_request(configs[:1], ["-m", "rows=ok"])
    note_request(configs, asked)  # again: it is the newest now
    assert [len(each["runs"]) for each in read_requests(Path("runs/t/photos-paper"))] == [1, 3]


def _other_code(folder: Path) -> None:
    """Let a record be of other code than today's."""
    content = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**content, "code": {"indexnet/resampling/base.py": "0" * 12}}))


def _earlier(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("earlier/*"))


def test_a_sweep_does_again_what_was_done_with_other_code(jobs, capsys):
    configs = [_config("ok-1"), _config("ok-2"), _config("diverge")]
    folders = [prepare(config).path for config in configs]
    run_sweep(configs, get_launch=pretended)
    for folder in (folders[0], folders[2]):
        _other_code(folder)
    capsys.readouterr()
    outcomes = run_sweep(configs, get_launch=pretended)
    assert [outcome.status for outcome in outcomes] == ["before", "before", "diverged"]
    said = capsys.readouterr().out
    changed = "indexnet/resampling/base.py has changed since"
    assert f"(1 of 3): psnr 1.5; but {changed}\n" in said
    assert "(2 of 3): psnr 1.5\n" in said
    assert f"(before; {changed}: rerun=changed runs it again)" in said
    assert "The code of a run that was done before has changed since: rerun=changed does it again\n" in said
    asked = ["-m", "experiments=t", "rerun=changed"]
    outcomes = run_sweep(configs, rerun="changed", arguments=asked, get_launch=pretended)
    assert [outcome.status for outcome in outcomes] == ["done", "before", "diverged"]
    assert "rerun=changed does again 2 finished runs, whose results are kept" in capsys.readouterr().out
    assert [_earlier(folder) for folder in folders] == [["1"], [], ["1"]]
    assert "0000" in (folders[0] / "earlier/1/record.json").read_text()
    assert read_requests(Path("runs/t/photos-paper"))[-1]["arguments"] == ["-m", "experiments=t"]  # it goes on without


def test_a_sweep_that_does_everything_again_goes_on_after_a_kill(jobs, capsys):
    configs = [_config("ok-1"), _config("ok-2")]
    folders = [prepare(config).path for config in configs]
    run_sweep(configs, get_launch=pretended)

    def killed(prepared, **options):
        launch(prepared[:1], command=job_script)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(configs, rerun=True, get_launch=lambda: killed)
    assert [RunFolder(folder).status() for folder in folders] == ["done", "new"]  # all set aside before any began
    capsys.readouterr()
    outcomes = run_sweep(configs, rerun=True, get_launch=pretended)
    assert [outcome.status for outcome in outcomes] == ["before", "done"]
    assert "rerun=true goes on where it was interrupted: done again already 1 of 2\n" in capsys.readouterr().out
    assert [_earlier(folder) for folder in folders] == [["1"], ["1"]]
    outcomes = run_sweep(configs, rerun=True, get_launch=pretended)  # that one had come to its end
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    assert [_earlier(folder) for folder in folders] == [["1", "2"], ["1", "2"]]


def test_what_is_another_run_is_not_set_aside(jobs):
    first = _config("ok-1")
    run_sweep([first], get_launch=pretended)
    with pytest.raises(UserError, match="holds a run with another configuration"):
        run_sweep([_config("ok-0"), _config("ok-1", steps=2)], rerun=True, get_launch=pretended)
    assert _earlier(prepare(first).path) == []


def test_what_came_to_nothing_gives_way_to_other_options(jobs):
    first = _config("mistake")
    assert [outcome.status for outcome in run_sweep([first], get_launch=pretended)] == ["failed"]
    other = _config("mistake", steps=2)
    (job,) = prepare_jobs([other])
    folder = RunFolder(job.folder)
    assert (folder.status(), folder.config()["training"]["steps"], _earlier(folder.path)) == ("new", 2, ["1"])
    assert RunFolder(folder.path / "earlier/1").config()["training"]["steps"] == 1
    assert prepare(first).config()["training"]["steps"] == 1  # not begun
    run_sweep([first], get_launch=pretended)
    folder.checkpoint().parent.mkdir()
    folder.checkpoint().touch()
    with pytest.raises(UserError, match="holds a run with another configuration"):
        prepare(other)


def test_the_live_table_shows_the_running_jobs(jobs):
    import io

    from rich.console import Console

    from indexnet.sweep.progress import LiveView, PlainView, create_view

    class Watch(View):
        def __init__(self, *views):
            self.views = views

        def started(self, running):
            for view in self.views:
                view.started(running)

        def ended(self, outcome):
            for view in self.views:
                view.ended(outcome)

        def tick(self, running):
            ready = Path("long.ready").exists()
            for view in self.views:
                view.tick(running)
            if ready:
                os.kill(os.getpid(), signal.SIGTERM)

    screen, file = io.StringIO(), io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100, height=30)
    assert isinstance(create_view(1, 1, terminal), LiveView)
    assert isinstance(create_view(3, 1, Console(file=file)), PlainView)
    plain = PlainView(3, Console(file=file, width=100), every=0)
    live = LiveView(3, 2, terminal, every=0)
    before = signal.getsignal(signal.SIGTERM)
    with live:
        launch(jobs("ok"), command=job_script, view=live)
        with pytest.raises(KeyboardInterrupt):  # SIGTERM in this process; everything is put back
            launch(jobs("long", "crash"), command=job_script, view=Watch(live, plain), grace=5)
        assert signal.getsignal(signal.SIGTERM) is before
        shown = live.table()
    text = screen.getvalue()
    for part in ("3 / 9", "0.25", "1 min 01 s", "ok", "psnr 1.5", "of 3 runs"):
        assert part in text, part
    assert shown.row_count == 3
    assert "started  long seed=0" in file.getvalue()
    assert "running  long seed=0: 3 / 9, loss 0.25, 1 min 01 s left" in file.getvalue()


def test_ctrl_c_in_a_terminal_leaves_it_in_order(jobs):
    """The live table in a pseudo-terminal: what it shows, and that it gives the cursor back."""
    jobs("ok", "long", "ok-2")
    code = (
        "import sys; from pathlib import Path; from indexnet.sweep.pool import Job, launch\n"
        "from indexnet.sweep.progress import create_view\n"
        "jobs = [Job(Path.cwd() / name, name, 7) for name in ('ok', 'long', 'ok-2')]\n"
        "command = lambda folder: [sys.executable, '-S', 'job.py', str(folder)]\n"
        "try:\n"
        "    with create_view(3, 1) as view: launch(jobs, command=command, view=view, grace=5)\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "90", "LINES": "30"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, preexec_fn=lambda: os.login_tty(theirs))
    os.close(theirs)
    shown = b""
    try:
        while b"1 min 01 s" not in shown:
            shown += os.read(ours, 4096)  # ends with an OSError when the process has gone
        os.write(ours, b"\x03")
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                shown += part
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    text = shown.decode()
    for part in ("row", "seed", "step", "loss", "left", "3 / 9", "0.25", "7", "psnr 1.5", "1 more", "1 of 3 runs"):
        assert part in text, part
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor was hidden, and is there again
    assert "Traceback" not in text
    ((_, pid, _),) = [line for line in lines_of("started") if line[0] == "long"]
    assert not alive(int(pid))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["experiments=quickstart", "experiment.row=hin", "budget=smoke", "training.steps=20"],
            "2 runs of quickstart, 2 at a time: data photos; budget smoke, 3 steps of 2 (20 cut by budget.max_steps)",
        ),
        (
            ["experiments=tpami/table6_sunrgbd", "experiment.row=segnet", "encoder.pretrained=false"],
            "2 runs of tpami/table6_sunrgbd, 2 at a time: data scenes (published on sunrgbd); budget paper, 300 epochs",
        ),
        (
            ["task=reconstruction", "training.steps=20"],
            "2 runs, 2 at a time: data photos; budget paper, 20 steps",
        ),
    ],
)
def test_a_sweep_begins_with_what_it_is_about_to_do(overrides, said, capsys):
    from indexnet.run.config import compose, freeze
    from indexnet.sweep.progress import announce

    config = freeze(compose(overrides))
    announce([config, config], 2)
    line = capsys.readouterr().out
    assert line.startswith(said), line
    assert line.count("\n") == 1
