"""Where a sweep stands: ``indexnet status`` on fabricated run folders."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from indexnet.cli import main
from indexnet.core.locks import exclusive
from indexnet.run.experiments.tables import load_experiment
from indexnet.run.folder import RunFolder
from indexnet.run.resume import resumed_step, write_checkpoint
from indexnet.sweep.status import read_state
from resume_support import interrupted_at_replace

ROOT = Path("runs/quickstart/photos-small")


def _run(name: str, status: str | None, root: Path = ROOT, **more: object) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("{}")
    if status is not None:
        (folder / "record.json").write_text(json.dumps({"schema": 1, "status": status, "metrics": {}, **more}))
    return folder


def _progress(folder: Path, step: int, steps: int = 200) -> None:
    content = {"step": step, "steps": steps, "loss": 0.5, "eta_s": 125.0, "elapsed_s": 60.0}
    (folder / "progress.json").write_text(json.dumps(content))


def _request(runs: list[str], *arguments: str, root: Path = ROOT, directory: str | None = None) -> None:
    file = root / "sweep.json"
    there = json.loads(file.read_text())["requests"] if file.exists() else []
    new = {"arguments": ["-m", *arguments], "directory": directory or str(Path.cwd()), "runs": runs}
    file.write_text(json.dumps({"requests": [*there, new]}))


def _status(capsys, *arguments: str) -> str:
    assert main(["status", "quickstart", *arguments]) == 0
    return capsys.readouterr().out


def _json(capsys, *arguments: str) -> dict:
    return json.loads(_status(capsys, "--json", *arguments))


def test_without_runs_it_says_how_to_start(capsys):
    out = _status(capsys)
    assert "No runs under runs/quickstart" in out
    assert "indexnet train -m experiments=quickstart\n" in out
    assert _json(capsys)["settings"] == []
    assert not Path("runs").exists()
    Path("else where").mkdir()
    assert "'paths.runs=else where'" in _status(capsys, "--runs", "else where")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of step 30 with weights and the state of an optimizer."""
    import torch

    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(2)).sum().backward()
    optimizer.step()
    file = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    content = {"epoch": 0, "global_step": 30, "state_dict": network.state_dict(), "indexnet": {"config": {"a": [1]}}}
    torch.save({**content, "optimizer_states": [optimizer.state_dict()]}, file)
    return file


def test_every_state_is_told_apart(capsys, checkpoint):
    _run("hin/seed=0", "done", metrics={"psnr": 26.5, "ssim": 0.9})
    _progress(_run("hin/seed=1", "running"), 50)
    killed = _run("m2o/seed=0", "running")
    _progress(killed, 37)
    (killed / "checkpoints").mkdir()
    shutil.copy(checkpoint, killed / "checkpoints" / "last.ckpt")
    _run("m2o/seed=1", "failed", error="UserError: no data\nin nowhere")
    _run("carafe/seed=0", "diverged", error="the training loss became nan at step 3 of 200")
    _run("carafe/seed=1", None)
    newer = _run("max_unpool/seed=0", "done")
    (newer / "record.json").write_text(json.dumps({"schema": 99, "status": "done", "metrics": {}}))
    (_run("max_unpool/seed=1", "done") / "record.json").write_text("{")
    runs = [f"{row}/seed={seed}" for seed in (0, 1) for row in ("hin", "m2o", "carafe", "max_unpool", "o2o_shared")]
    _request(runs, "experiments=quickstart", "rows=hin,m2o", "budget=small")
    with exclusive(ROOT / "hin/seed=1/.lock", ""), exclusive(ROOT / ".sweep", ""):
        out = _status(capsys)
        found = _json(capsys)["settings"][0]
    states = {(run["row"], run["seed"]): run for run in found["runs"]}
    assert {key: run["status"] for key, run in states.items()} == {
        ("hin", 0): "done", ("hin", 1): "running", ("m2o", 0): "interrupted", ("m2o", 1): "failed",
        ("carafe", 0): "diverged", ("carafe", 1): "new", ("max_unpool", 0): "unreadable",
        ("max_unpool", 1): "unreadable", ("o2o_shared", 0): "new", ("o2o_shared", 1): "new",
    }  # fmt: skip
    assert found["at_work"] is True
    assert found["counts"] == {
        "done": 1, "running": 1, "interrupted": 1, "failed": 1, "diverged": 1, "unreadable": 2, "new": 3,
    }  # fmt: skip
    assert states["hin", 0]["metric"] == 26.5
    assert (states["hin", 1]["step"], states["hin", 1]["steps"], states["hin", 1]["eta_s"]) == (50, 200, 125.0)
    assert (states["m2o", 0]["step"], states["m2o", 0]["eta_s"]) == (30, None)
    for part in (
        *("26.50", "50 / 200, 2 min 05 s left", "interrupted at 30 / 200", "1 of 10 runs done"),
        *("failed: m2o/seed=1: UserError: no data in nowhere", "diverged: carafe/seed=0: the training loss became nan"),
        *("not readable: max_unpool/seed=0", "99", "A launcher is at work", "Rows that nobody has asked for (2)"),
        "indexnet train -m experiments=quickstart rows=hin,m2o budget=small retry_failed=true",
    ):
        assert part in out, part
    assert "Traceback" not in out


def test_rows_of_another_data_set_are_not_missed(capsys):
    root = Path("runs/thesis/table4_1/mnist-small")
    _run("conv_nearest_mnist/seed=0", "done", metrics={"psnr": 24.0}, root=root)
    assert main(["status", "thesis/table4_1"]) == 0
    out = capsys.readouterr().out
    assert "mnist-small: 1 of 9 runs done, 8 not started" in out
    rows = ",".join(row.name for row in load_experiment("thesis/table4_1").rows if row.block == "mnist")
    words = f"indexnet train -m experiments=thesis/table4_1 rows={rows} budget=small"  # data= is refused
    assert f"goes on with it: {words}\n" in out
    _request(["conv_nearest_mnist/seed=0"], "experiments=thesis/table4_1", "rows=conv_nearest_mnist", root=root)
    assert main(["status", "thesis/table4_1"]) == 0
    out += capsys.readouterr().out
    assert "Rows that nobody has asked for (8): conv_bilinear_mnist" in out
    assert "fashion_mnist" not in out


def test_rows_without_a_data_set_are_on_that_of_a_table_whose_other_rows_name_theirs(capsys):
    for setting, row in (("scenes-small", "scenes"), ("matting_folder-small", "composites")):
        _run(f"{row}/seed=0", "done", metrics={}, root=Path("runs/weights") / setting)
    assert main(["status", "weights"]) == 0
    out = capsys.readouterr().out
    for setting in ("scenes-small", "matting_folder-small"):
        assert f"{setting}: 1 of 1 runs done" in out


def test_looking_changes_and_holds_nothing(capsys):
    folder = _run("hin/seed=0", "running")
    before = sorted(Path("runs").rglob("*"))
    assert "interrupted" in _status(capsys)
    assert sorted(Path("runs").rglob("*")) == before
    (folder / ".lock").touch(mode=0o444)
    assert read_state(folder, "psnr").status == "interrupted"


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "absent"])
def test_a_damaged_checkpoint_counts_for_nothing(damage, checkpoint, capsys):
    folder = RunFolder(_run("hin/seed=0", "running"))
    _progress(folder.path, 37)
    folder.checkpoint().parent.mkdir()
    whole = checkpoint.read_bytes()
    content = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"PK no archive at all", "absent": None}[damage]
    if content is not None:
        folder.checkpoint().write_bytes(content)
    assert resumed_step(folder) == 0
    assert "interrupted at 0 / 200" in _status(capsys)
    folder.previous_checkpoint().write_bytes(whole)
    assert "interrupted at 30 / 200" in _status(capsys)


def test_a_checkpoint_is_looked_at_without_running_what_is_in_it(tmp_path):
    class Trap:
        def __reduce__(self):
            return exec, ("raise SystemExit(1)",)

    folder = RunFolder(tmp_path)
    folder.checkpoint().parent.mkdir()
    with zipfile.ZipFile(folder.checkpoint(), "w") as archive:
        archive.writestr("last/data.pkl", pickle.dumps({"trap": Trap(), "global_step": 8}, protocol=2))
        archive.writestr("last/version", "3")
    assert resumed_step(folder) == 0  # a run would not take it, either


def test_a_file_system_without_locks(capsys, monkeypatch):
    import fcntl

    folder = _run("hin/seed=0", "running")
    for name in (folder / ".lock", ROOT / ".sweep"):
        name.touch()

    def no_locks(handle, kind):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    out = _status(capsys)
    assert "not readable: hin/seed=0: the file system of" in out
    assert "has no file locks" in out
    assert "A launcher is at work" not in out


def test_the_command_that_goes_on(capsys):
    _run("hin/seed=0", "done", metrics={"psnr": 1.0})
    _request(["hin/seed=0"], "experiments=quickstart", "rows=hin")
    assert _json(capsys)["settings"][0]["commands"] == []
    assert "The table: indexnet report quickstart --data photos-small" in _status(capsys)
    Path("runs").rename("my runs")
    assert "report quickstart --data photos-small --runs 'my runs'" in _status(capsys, "--runs", "my runs")
    Path("my runs").rename("runs")
    _request(["m2o/seed=0"], "experiments=quickstart", "rows=m2o")
    _request(["m2o/seed=0", "carafe/seed=0"], "experiments=quickstart", "+x=a b", directory="/elsewhere")
    commands = _json(capsys)["settings"][0]["commands"]
    assert commands == [{"command": "indexnet train -m experiments=quickstart '+x=a b'", "directory": "/elsewhere"}]
    assert "(in /elsewhere)" in _status(capsys)
    _run("carafe/seed=0", "diverged")  # nothing goes on with it
    _run("m2o/seed=0", "failed", error="x")
    (command,) = _json(capsys)["settings"][0]["commands"]
    assert command["command"].endswith("retry_failed=true")


def test_code_that_has_changed_since_is_named(capsys):
    code = {"indexnet/resampling/base.py": "0" * 12, "not_here_any_more.py": "0" * 12}
    _run("hin/seed=0", "done", metrics={"psnr": 1.0}, code=code)
    _run("hin/seed=1", "done", metrics={"psnr": 1.0}, code=code)
    _run("m2o/seed=0", "diverged", error="x", code_before={"mine.py": ["1" * 12]}, code={"mine.py": "0" * 12})
    _run("m2o/seed=1", "done", metrics={"psnr": 1.0})  # of an earlier version
    _run("carafe/seed=0", "failed", error="x", code=code)  # no result
    _request(
        [f"{row}/seed={seed}" for row in ("hin", "m2o") for seed in (0, 1)], "experiments=quickstart", "rows=hin,m2o"
    )
    found = _json(capsys)["settings"][0]
    assert {f"{run['row']}/seed={run['seed']}": run["changed"] for run in found["runs"] if run["changed"]} == {
        "hin/seed=0": ["indexnet/resampling/base.py"], "hin/seed=1": ["indexnet/resampling/base.py"],
        "m2o/seed=0": ["mine.py"],
    }  # fmt: skip
    again = "indexnet train -m experiments=quickstart rows=hin,m2o rerun=changed"
    assert found["reruns"] == [{"command": again, "directory": str(Path.cwd())}]
    out = _status(capsys)
    assert "code has changed since: hin/seed=0, hin/seed=1: indexnet/resampling/base.py\n" in out
    assert "code has changed since: m2o/seed=0: mine.py\n" in out
    assert f"This does again what ended with other code: {again}\n" in out


def test_folders_without_notes_are_measured_by_the_table(capsys):
    _run("hin/seed=0", "done", metrics={"psnr": 1.0})
    _run("hin--optimizer.lr-0.1/seed=7", "done", metrics={"psnr": 1.0})
    (ROOT / "sweep.json").write_text("[]")
    found = _json(capsys)["settings"][0]
    assert found["counts"] == {"done": 2, "new": 13}  # 7 rows x 2 seeds, and what only the folder knows
    assert [command["command"] for command in found["commands"]] == [
        "indexnet train -m experiments=quickstart data=photos budget=small"
    ]


def test_the_newest_setting_comes_first_and_all_are_counted(capsys):
    old = _run("hin/seed=0", "done", metrics={"psnr": 11.0})
    for name in ("record.json", "config.yaml"):
        os.utime(old / name, (1, 1))
    _run("hin/seed=0", "done", Path("runs/quickstart/photos-paper"), metrics={"psnr": 22.0})
    out = _status(capsys)
    assert "22.00" in out
    assert "11.00" not in out
    assert "photos-small: 1 of 14 runs done" in out
    assert "11.00" in _status(capsys, "--data", "photos-small")
    assert [each["name"] for each in _json(capsys, "--data", "photos-small")["settings"]] == [
        "photos-small",
        "photos-paper",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["quickstar"], "Did you mean 'quickstart'"),
        (["quickstart", "--data", "photos-smal"], "Did you mean 'photos-small'"),
        (["quickstart", "--runs", "nowhere"], "--runs nowhere: there is no such folder"),
    ],
)
def test_mistakes(arguments, sentence, mistake):
    _run("hin/seed=0", "done")
    mistake(main(["status", *arguments]), sentence)


def test_a_step_beside_a_checkpoint_is_that_of_this_checkpoint(tmp_path, checkpoint):
    folder, whole = RunFolder(tmp_path), memoryview(checkpoint.read_bytes())
    last, previous = folder.checkpoint(), folder.previous_checkpoint()
    write_checkpoint(last, memoryview(b"of step 20"), 20, previous)
    write_checkpoint(last, whole, 25, previous)
    assert resumed_step(folder) == 25  # as noted: this one says 30
    last.write_bytes(whole[:-1])  # cut off: the step is that of another one
    assert resumed_step(folder) == 0
    previous.write_bytes(whole)
    assert resumed_step(folder) == 30


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_kill_between_a_checkpoint_and_its_step_makes_no_wrong_step(call, tmp_path, checkpoint):
    folder, whole = RunFolder(tmp_path), memoryview(checkpoint.read_bytes())
    last, previous = folder.checkpoint(), folder.previous_checkpoint()
    write_checkpoint(last, whole, 25, previous)
    with interrupted_at_replace(call):
        write_checkpoint(last, whole, 35, previous)
    assert resumed_step(folder) == (35 if call == 3 else 30)  # what is in the file itself, unless it is noted


def test_it_needs_no_torch(checkpoint):
    _run("hin/seed=0", "done", metrics={"psnr": 1.0})
    folder = RunFolder(_run("hin/seed=1", "running"))
    write_checkpoint(folder.checkpoint(), memoryview(checkpoint.read_bytes()), 30)
    code = (
        "import sys; from indexnet.cli import main\n"
        "assert main(['status', 'quickstart']) == 0\n"
        "sys.exit([name for name in ('torch', 'hydra', 'pytorch_lightning') if name in sys.modules] or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
