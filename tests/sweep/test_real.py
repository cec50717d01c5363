"""Real sweeps through the console command: tiny budgets, real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from indexnet.cli import main

TINY = ["budget=smoke", "data.train_count=8", "trainer.accelerator=cpu", "trainer.num_workers=0"]
ROOT = Path("runs/quickstart/photos-smoke")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "indexnet", "train", "-m", *arguments]


def _sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(_command(*arguments), env=environment, capture_output=True, text=True, timeout=500)


def _record(path: Path) -> dict:
    return json.loads((path / "record.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["experiments=quickstart", "rows=max_unpol"], "Did you mean 'max_unpool'"),
        (["experiments=quickstart", "training.stepz=3"], "training.steps"),
        (["experiments=quickstart", "rows=hin", "+resampling.familly=3"], "Did you mean 'family'"),
        (["experiments=quickstart", "trainer.devices=2", "hydra/launcher=basic"], "needs hydra/launcher=process"),
        (["task=reconstruction", "seed=0,1", "trainer.devices=1,2", "hydra/launcher=basic"], "hydra/launcher=process"),
        (["experiments=quickstart", "rows=hin", "hydra.launcher.n_jobs=0"], "n_jobs=0 must be at least 1"),
    ],
)
def test_a_mistake_starts_nothing(arguments, sentence, capsys):
    assert main(["train", "-m", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert not Path("runs").exists() or not list(Path("runs").rglob("config.yaml"))


def test_a_table_cannot_be_one_run(capsys):
    assert main(["train", "experiments=quickstart"]) == 2
    assert "-m experiments=quickstart" in capsys.readouterr().err


def test_only_one_sweep_at_a_time(capsys):
    from indexnet.core.locks import exclusive

    with exclusive(ROOT / ".sweep", ""):
        assert main(["train", "-m", "experiments=quickstart", "rows=hin", *TINY]) == 2
    assert f"another sweep is at work in {ROOT}" in capsys.readouterr().err


@pytest.mark.long
def test_two_rows_of_a_table_then_skipped():
    arguments = ["experiments=quickstart", "rows=hin,max_unpool", "seeds=3", *TINY]
    done = _sweep(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 runs done" in done.stdout
    assert "indexnet report quickstart" in done.stdout
    for row in ("hin", "max_unpool"):
        record = _record(ROOT / row / "seed=3")
        assert (record["status"], record["experiment"], record["row"], record["seed"], record["budget"]) == (
            "done", "quickstart", row, 3, "smoke",
        )  # fmt: skip
    assert _record(ROOT / "hin" / "seed=3")["label"] == "HIN NL+C"
    before = [(path, path.stat().st_mtime_ns) for path in sorted(ROOT.rglob("*.json"))]
    again = _sweep(*arguments)
    assert again.returncode == 0
    assert "2 of 2 runs done (2 before)" in again.stdout
    assert before == [(path, path.stat().st_mtime_ns) for path in sorted(ROOT.rglob("*.json"))]


@pytest.mark.long
def test_two_processes_then_one_within_a_sweep():
    done = _sweep("experiments=quickstart", "rows=max_unpool", "seeds=0", "trainer.devices=2,1", *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    for devices in (2, 1):
        record = _record(ROOT / f"max_unpool--trainer.devices-{devices}" / "seed=0")
        assert record["status"] == "done"
        assert record["batch"] == {
            "global": 2,
            "devices": devices,
            "accumulate": 1,
            "per_device": 2 // devices,
            "printed": 32,
        }
        assert record["test_count"] == 2
    assert sorted(path.name for path in Path().iterdir()) == ["runs"]  # no rank sweeps into a folder of its own


@pytest.mark.long
def test_a_row_that_fails_is_listed_and_the_others_are_done():
    done = _sweep("task=reconstruction", "data=mnist,photos", "~data.train_count", "paths.data=nowhere", *TINY)
    assert done.returncode == 2  # mnist has no train_count to leave out
    arguments = [text for text in TINY if not text.startswith("data.")]
    done = _sweep("task=reconstruction", "data=mnist,photos", "paths.data=nowhere", *arguments)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "1 of 2 runs done, 1 failed" in done.stdout
    assert "failed: data=mnist seed=0: UserError: " in done.stdout
    assert "nowhere" in done.stdout
    assert "Traceback" not in done.stderr
    (console,) = [Path(line.strip()) for line in done.stdout.splitlines() if line.endswith("console.log")]
    assert "nowhere" in console.read_text()
    statuses = sorted(_record(path.parent)["status"] for path in Path("runs").rglob("record.json"))
    assert statuses == ["done", "failed"]


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs the parent-death signal")
def test_a_killed_sweep_goes_on_as_if_it_had_not_been():
    arguments = [
        *("experiments=quickstart", "rows=hin,m2o", "seeds=0", "trainer.accelerator=cpu", "trainer.num_workers=0"),
        *("data.train_count=16", "data.test_count=3", "training.batch_size=4", "training.steps=40"),
        "trainer.checkpoint_every=3",
    ]
    root = Path("runs/quickstart/photos-paper")
    whole = _sweep(*arguments, "paths.runs=whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(_command(*arguments), env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (root / "hin/seed=0/checkpoints/last.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pid = _record(root / "hin/seed=0")["pid"]
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    time.sleep(0.5)
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"
    again = _sweep(*arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    for row in ("hin", "m2o"):
        assert (
            _record(root / row / "seed=0")["metrics"]
            == _record(Path("whole/quickstart/photos-paper") / row / "seed=0")["metrics"]
        )
