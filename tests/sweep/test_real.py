"""Real sweeps through the console command: tiny budgets, real processes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from indexnet.cli import main
from indexnet.core.locks import exclusive
from run_support import command

TINY = ["budget=smoke", "data.train_count=8", "trainer.accelerator=cpu", "trainer.num_workers=0"]
ROOT = Path("runs/quickstart/photos-smoke")


def _sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command("train", "-m", *arguments), capture_output=True, text=True, timeout=500)


def _record(path: Path) -> dict:
    return json.loads((path / "record.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["experiments=quickstart", "training.stepz=3"], "training.steps"),
        (["experiments=quickstart", "rows=hin", "+resampling.familly=3"], "Did you mean 'family'"),
        (["experiments=quickstart", "trainer.devices=2", "hydra/launcher=basic"], "needs hydra/launcher=process"),
        (["task=reconstruction", "seed=0,1", "trainer.devices=1,2", "hydra/launcher=basic"], "hydra/launcher=process"),
        (["experiments=quickstart", "rows=hin", "hydra.launcher.n_jobs=0"], "n_jobs=0 must be at least 1"),
    ],
)
def test_a_mistake_starts_nothing(arguments, sentence, mistake):
    mistake(main(["train", "-m", *arguments]), sentence)
    assert not Path("runs").exists() or not list(Path("runs").rglob("config.yaml"))


def test_a_table_cannot_be_one_run(mistake):
    mistake(main(["train", "experiments=quickstart"]), "-m experiments=quickstart")


def test_only_one_sweep_at_a_time(mistake):
    with exclusive(ROOT / ".sweep", ""):
        code = main(["train", "-m", "experiments=quickstart", "rows=hin", *TINY])
    mistake(code, f"another sweep is at work in {ROOT}")
    assert [path.name for path in ROOT.iterdir()] == [".sweep"]


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
        assert (record["batch"]["devices"], record["batch"]["per_device"]) == (devices, 2 // devices)
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
