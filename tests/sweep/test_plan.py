"""`indexnet plan`: what is measured, what follows from it, and what is left to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from data_support import write_camvid
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.core.files import write_json
from indexnet.run.folder import prepare
from indexnet.sweep import plan_process
from indexnet.sweep.plan_estimate import Cost, Estimate, Loading, add_up, estimate, line, makespan, next_samples
from indexnet.sweep.plan_process import measure_rows
from indexnet.sweep.plan_sweep import compose_sweep, group_rows

TINY = ["trainer.accelerator=cpu", "trainer.num_workers=0", "budget=smoke"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# --- from a few steps to a run -------------------------------------------------------------------------------------


def test_a_straight_line():
    assert line([(2, 1.0), (4, 1.6)], 16) == pytest.approx(5.2)  # 0.3 a sample: 1.6 + 12 x 0.3
    assert line([(1, 9.0), (2, 1.0), (4, 1.6)], 16) == pytest.approx(5.2)  # the last two count
    assert line([(2, 1.0)], 16) == pytest.approx(8.0)
    assert line([(2, 1.6), (4, 1.5)], 16) == pytest.approx(1.5)  # noise: more samples do not cost less
    assert line([(4, 2.0), (16, 7.0)], 16) == 7.0


def test_the_real_batch_is_measured_where_three_of_its_steps_fit():
    assert next_samples([], 16, 10) == 2
    assert next_samples([], 1, 10) == 1
    assert next_samples([(2, 0.4)], 16, 9.7) == 2  # once more: the first step warmed up
    assert next_samples([(2, 0.4), (2, 0.4)], 16, 9.7) == 16  # 3 x 0.4 x 8 = 9.6
    assert next_samples([(2, 0.4), (2, 0.4)], 16, 9.5) == 4
    assert next_samples([(2, 2), (2, 2), (4, 4)], 16, 4) == 4
    assert next_samples([(2, 2), (2, 2), (4, 4)], 16, 3.9) is None
    assert next_samples([(2, 2), (2, 2), (4, 3), (4, 3)], 16, 12) == 8
    assert next_samples([(2, 2), (2, 2), (4, 3), (4, 3)], 16, 11.9) is None
    assert next_samples([(2, 11)], 16, -1) == 4  # two sizes in any case
    assert next_samples([(2, 11), (4, 20)], 16, -21) is None
    assert next_samples([(2, 11)], 3, -1) == 3


FOUND = {
    "world": 1, "accumulate": 1, "batch": 16, "workers": 0, "cuda": False, "begin": 108.0, "warmup_s": 0.5,
    "train_end": 120.0, "test_begin": 121.0, "test_end": 130.0, "checkpoint_every": 100, "checkpoint_s": 0.2,
    "checkpoint_bytes": 5000, "log_every": 10, "steps_done": 40, "tested": 4, "rest_mb": 400.0,
    "points": [{"samples": 2, "wait_s": 0.1, "compute_s": 0.4, "memory_mb": 500.0},
               {"samples": 16, "wait_s": 0.1, "compute_s": 1.9, "memory_mb": 900.0}],
    "tests": {"0": [[1, 3.0], [1, 2.0], [2, 4.0]]},
}  # fmt: skip
FILES = {"checkpoints": 5000, "csv": 100, "tensorboard": 300, "per_image.csv": 40, "pictures": 7000, "config.yaml": 10}
TIMES = {"spawned": 100.0, "ended": 133.0}


def test_an_estimate_of_measured_steps():
    found = estimate(FOUND, **TIMES, steps=1050, tests=[50], files=FILES)
    assert found.is_whole
    assert found.step_s == pytest.approx(2.0)  # 0.1 + 1.9
    assert found.start_s == pytest.approx(9.5)  # 8 to the first step, 1 to the test, 0.5 of warming up
    assert found.checkpoints_s == pytest.approx(2.2)  # 10 of every 100 steps and one at the end
    assert found.test_s == pytest.approx(103.0)  # (2 + 4) s / 3 images x 50, and 3 s to the end of the process
    assert found.memory_mb == 900.0
    assert found.seconds == pytest.approx(9.5 + 2100 + 2.2 + 103)
    # checkpoint, pictures and configuration; 40 bytes / 4 images x 50; 400 bytes / 4 logged steps x 105
    assert found.disk_bytes == 5000 + 7010 + 500 + 10500
    assert found.seconds_left(0) == found.seconds
    assert found.seconds_left(525) == pytest.approx(9.5 + 1050 + 1.1 + 103)
    assert found.seconds_left(1050) == pytest.approx(9.5 + 103)


def test_an_estimate_from_smaller_batches():
    points = [
        {"samples": 2, "wait_s": 0.1, "compute_s": 0.4, "memory_mb": 500.0},
        {"samples": 4, "wait_s": 0.1, "compute_s": 0.7, "memory_mb": 540.0},
    ]
    found = estimate({**FOUND, "points": points}, **TIMES, steps=100, tests=[50], files=FILES)
    assert not found.is_whole
    assert found.step_s == pytest.approx(0.1 + 2.5)  # 0.15 a sample: 0.7 + 12 x 0.15
    assert found.memory_mb == pytest.approx(780)  # 20 a sample: 540 + 12 x 20
    alone = estimate({**FOUND, "points": points[:1]}, **TIMES, steps=100, tests=[50], files=FILES)
    assert alone.step_s == pytest.approx(0.1 + 3.2)  # 0.2 a sample
    assert alone.memory_mb == pytest.approx(1200)  # 50 a sample above the 400 between two steps
    loaders = estimate({**FOUND, "points": points, "workers": 4}, **TIMES, steps=100, tests=[50], files=FILES)
    assert loaders.step_s == pytest.approx(2.5)  # 0.8 s of loading hide behind it
    broken = {key: FOUND[key] for key in FOUND if key not in ("train_end", "test_begin", "test_end", "checkpoint_s")}
    killed = estimate({**broken, "tests": {}, "points": points}, **TIMES, steps=100, tests=[50], files={})
    assert killed.seconds == pytest.approx(8.5 + 260)


def test_an_estimate_with_data_that_every_run_loads():
    loading = Loading(prepare_s=60.0, prepare_mb=1000.0, sample_s=0.01)
    found = estimate(FOUND, **TIMES, steps=100, tests=[50], files=FILES, loading=loading)
    assert found.start_s == pytest.approx(69.5)
    assert found.step_s == pytest.approx(0.16 + 1.9)  # 16 samples
    assert found.memory_mb == 1900.0
    two = estimate({**FOUND, "world": 2}, **TIMES, steps=100, tests=[50], files=FILES, loading=loading)
    assert two.memory_mb == 3800.0
    assert two.test_s == pytest.approx(53.0)


def test_several_test_sets():
    tests = {"0": [[1, 3.0], [1, 2.0]], "1": [[1, 5.0]]}
    found = estimate({**FOUND, "tests": tests}, **TIMES, steps=100, tests=[10, 20], files=FILES)
    assert found.test_s == pytest.approx(20 + 100 + 3)
    unmeasured = estimate({**FOUND, "tests": {"0": tests["0"]}}, **TIMES, steps=100, tests=[10, 20], files=FILES)
    assert unmeasured.test_s == pytest.approx(20 + 40 + 3)


# --- from runs to a table ------------------------------------------------------------------------------------------


def test_the_longest_run_first():
    times = [3, 5, 3, 4, 3]
    assert makespan(times, 1) == 18
    assert makespan(times, 2) == 10  # 5+3 beside 4+3+3
    assert makespan(times, 3) == 7  # 5, 4+3 and 3+3
    assert makespan(times, 8) == 5
    assert makespan([], 2) == 0


def _estimate(seconds: float, memory: float = 100.0) -> Estimate:
    return Estimate((seconds - 10) / 100, 100, 4.0, 0.0, 6.0, memory, True, 1000, 1500)


def test_totals():
    costs = [Cost(_estimate(110, 300.0), 3, [0, 50]), Cost(_estimate(60), 1, [0]), Cost(_estimate(1000), 2, [])]
    totals = add_up(costs, [1, 2, 4], per_device=2, n_jobs=2, share=2, before=5)
    assert totals.whole_s == pytest.approx(3 * 110 + 60 + 2 * 1000)
    assert totals.left_s == pytest.approx(110 + 60 + 60)
    assert totals.wall_s == {1: pytest.approx(125), 2: pytest.approx(115), 4: pytest.approx(115)}
    assert totals.disk_bytes == 4500
    assert totals.training_bytes == 4000  # two runs, each with the checkpoint before and the one being written
    assert totals.memory_mb == 600.0
    one = add_up(costs, [1], n_jobs=1, share=1)
    assert (one.wall_s, one.memory_mb, one.training_bytes) == ({1: pytest.approx(230)}, 300.0, 2000)


def test_runs_that_take_several_devices():
    totals = add_up([Cost(_estimate(100), 3, [0, 0, 0], devices=2)], [1, 2, 3, 4, 6])
    assert totals.wall_s == {1: None, 2: 300, 3: 300, 4: 200, 6: 100}
    assert add_up([Cost(_estimate(100), 3, [])], [1], before=5).wall_s == {1: 0}


# --- which runs ----------------------------------------------------------------------------------------------------


def _record(config, status, step=None):
    folder = prepare(config)
    write_json(folder.path / "record.json", {"schema": 1, "status": status})
    if step is not None:
        write_json(folder.path / "progress.json", {"step": step + 1, "steps": 3})
        folder.checkpoint().parent.mkdir()
        torch.save({"global_step": step, "state_dict": {"x": torch.zeros(3)}, "loops": {"a": [1]}}, folder.checkpoint())


def test_done_runs_are_not_left():
    words = [*TINY, "rows=hin,max_unpool", "seeds=0,1,2"]
    sweep = compose_sweep("quickstart", words)
    assert not Path("runs").exists()
    assert sweep.n_jobs == 2  # as the file says
    rows = group_rows(sweep)
    assert [(row.name, row.runs, row.left, row.steps, row.tests) for row in rows] == [
        ("max_unpool", 3, [0, 0, 0], 3, (2,)),
        ("hin", 3, [0, 0, 0], 3, (2,)),
    ]
    by_place = {(c["experiment"]["row"], c["seed"]): c for c in sweep.configs}
    _record(by_place["hin", 0], "done")
    _record(by_place["hin", 1], "diverged")
    _record(by_place["hin", 2], "failed")
    _record(by_place["max_unpool", 0], "running", step=2)
    _record(by_place["max_unpool", 1], "running")
    assert [(row.left, row.failed) for row in group_rows(sweep)] == [([2, 0, 0], 0), ([], 1)]
    begun = prepare(by_place["max_unpool", 0])
    begun.checkpoint().rename(begun.previous_checkpoint())
    begun.checkpoint().write_bytes(b"PK" * 100)  # damaged: the run goes on from the one before
    assert group_rows(sweep)[0].left == [2, 0, 0]
    again = compose_sweep("quickstart", [*words, "retry_failed=true", "hydra.launcher.n_jobs=3"])
    assert again.n_jobs == 3
    assert [(row.left, row.failed) for row in group_rows(again)] == [([2, 0, 0], 0), ([0], 0)]
    other = compose_sweep("quickstart", [*words, "optimizer.lr=0.5"])
    with pytest.raises(UserError, match=r"seed=0 holds a run with another configuration"):
        group_rows(other)


def test_the_runs_are_those_of_the_sweep():
    from indexnet.run.config import compose, freeze

    sweep = compose_sweep("tpami/table5_denoising", [*TINY, "rows=dncnn", "seeds=7", "training.batch_size=2,4"])
    row = "experiments=tpami/table5_denoising", "network=dncnn", "resampling=none", "task.sigma=15"
    one = sweep.configs[1]
    assert one["experiment"]["row"] == "dncnn_sigma15--training.batch_size-4"
    own = [f"experiment.{key}='{one['experiment'][key]}'" for key in ("row", "label")]
    assert one == freeze(compose([*row, *TINY, "training.batch_size=4", *own, "seed=7"]))
    names = [(row.name, row.runs) for row in group_rows(sweep)]  # three noise levels cost the same
    assert names == [("dncnn--training.batch_size-2", 3), ("dncnn--training.batch_size-4", 3)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["quickstrt"], "Did you mean 'quickstart'"),
        (["quickstart", "rows=max_unpol"], "Did you mean 'max_unpool'"),
        (["quickstart", "training.stepz=3"], "Did you mean 'training.steps'"),
        (["quickstart", "budget"], "'budget' is no override"),
        (["quickstart", "experiments=quickstart_matting"], "plan one at a time"),
        (["quickstart", "hydra.launcher.n_jobs=0"], "n_jobs=0 must be at least 1"),
        (["quickstart", "--devices", "1,x"], "--devices 1,x: give whole numbers"),
        (["quickstart", "--limit", "0"], "must be more than 0"),
        (["quickstart", "--json", "."], "is a folder"),
        (["tpami/table6_sunrgbd", "rows=segnet", "data=sunrgbd", "encoder.pretrained=false"], "data/sunrgbd"),
    ],
)
def test_a_mistake_measures_nothing(words, sentence, capsys, monkeypatch):
    monkeypatch.setattr(plan_process, "_run", lambda *arguments: pytest.fail("something is measured"))
    assert main(["plan", *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert list(Path().iterdir()) == []


# --- measuring -----------------------------------------------------------------------------------------------------

NOTES = {**FOUND, "device": "a pretended one", "cuda_mb": None}


def test_rows_that_cannot_run_do_not_stop_the_others(monkeypatch, capsys):
    """Pretended measuring processes: weights that are missing, one that is killed, one that ends well."""
    scripts = {
        "b11": "write(error='no weights; give encoder.pretrained=PATH'); sys.exit(1)",
        "b11_carafe": "write()",  # never started: its encoder is that of b11
        "b3": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "b11_1_4": "write()",
    }
    started = []

    def pretend(config, folder, limit):
        folder.mkdir(parents=True)
        row = config["experiment"]["row"]
        started.append(row)
        notes = {} if row == "b11" else NOTES
        code = f"import json, sys\nnotes = json.loads({json.dumps(notes)!r})\n"
        code += f"def write(**more): open({str(folder / 'plan.json')!r}, 'w').write(json.dumps({{**notes, **more}}))\n"
        assert (config["budget"]["max_test"], config["logger"]["wandb"]) == (2, False)
        return [sys.executable, "-c", code + scripts[row]]

    monkeypatch.setattr(plan_process, "_prepare", pretend)
    words = ["rows=" + ",".join(scripts), *TINY, "encoder.pretrained=false", "logger.wandb=true"]
    assert main(["plan", "tpami/table3_matting", *words, "--json", "plan.json"]) == 3
    assert started == ["b3", "b11", "b11_1_4"]
    rows = {row["row"]: row for row in json.loads(Path("plan.json").read_text())["rows"]}
    assert rows["b11"]["error"] == rows["b11_carafe"]["error"] == "no weights; give encoder.pretrained=PATH"
    assert "killed by signal 9" in rows["b3"]["error"]
    assert rows["b11_1_4"]["error"] is None
    assert rows["b11_1_4"]["step_s"] == pytest.approx(2.0)
    said = capsys.readouterr()
    assert "b11, b11_carafe: no weights; give encoder.pretrained=PATH." in said.out
    assert "3 runs were not measured and are left out below." in said.out
    assert "a pretended one; other devices differ" in said.out
    assert said.err.splitlines() == ["measuring b3", "measuring b11", "measuring b11_1_4"]
    assert sorted(path.name for path in Path().iterdir()) == ["plan.json"]


def test_slow_data_are_loaded_once(monkeypatch):
    """Where decoding takes long, it is measured by itself, and rows do without it."""
    from indexnet.sweep.plan_measure import load_data

    write_camvid(Path("camvid"))
    words = ["rows=segnet,hin_l", "data=camvid", "data.root=camvid", *TINY, "encoder.pretrained=false"]
    sweep = compose_sweep("tpami/table6_sunrgbd", words)
    loaded = load_data(sweep.configs[0], reads=10**6)
    assert set(loaded) == {"prepare_s", "prepare_mb", "sample_s"}
    assert loaded["prepare_s"] > 0
    assert loaded["sample_s"] > 0
    caches = []

    def pretend(config, folder, limit):
        folder.mkdir(parents=True)
        caches.append(config["data"]["cache"])
        notes = {"prepare_s": 60.0, "prepare_mb": 1000.0, "sample_s": 0.01} if len(caches) == 1 else NOTES
        return [sys.executable, "-c", f"open({str(folder / 'plan.json')!r}, 'w').write({json.dumps(notes)!r})"]

    monkeypatch.setattr(plan_process, "_prepare", pretend)
    rows = group_rows(sweep)
    measure_rows(sweep, rows, 1.0)
    assert caches == ["auto", False, False]
    for row in rows:
        assert row.estimate is not None
        assert row.estimate.step_s == pytest.approx(2.06)
        assert row.estimate.memory_mb == 1900.0


@pytest.mark.long
def test_a_table_is_planned_and_nothing_is_written(capsys):
    words = ["quickstart", "rows=max_unpool,m2o", "seeds=0,1", "trainer.accelerator=cpu"]
    assert main(["plan", *words, "budget=smoke", "--json", "plan.json", "--devices", "1,2"]) == 0
    said = capsys.readouterr().out
    assert "4 of 4 runs are left." in said
    assert "2 at a time on each" in said
    plan = json.loads(Path("plan.json").read_text())
    for row in plan["rows"]:
        assert (row["steps"], row["runs"], row["left"], row["is_whole"], row["error"]) == (3, 2, 2, True, None)
        assert 0 < row["step_s"] < 20
        assert row["seconds"] > row["start_s"] > 1  # importing torch alone takes longer
        assert row["disk_bytes"] > row["checkpoint_bytes"] > 100_000  # Adam keeps two numbers for each weight
        assert 200 < row["memory_mb"] < 3000
    first, second = (row["checkpoint_bytes"] for row in plan["rows"])
    assert second > first  # max unpooling has no weights
    assert plan["wall_s"]["2"] < plan["wall_s"]["1"] < plan["left_s"]
    # a limit that no real step fits into
    assert main(["plan", "quickstart", *words[2:], "rows=m2o", "--json", "plan.json", "--limit", "0.001"]) == 0
    assert "smaller batches, by a straight line" in capsys.readouterr().out
    (row,) = json.loads(Path("plan.json").read_text())["rows"]
    assert (row["steps"], row["is_whole"]) == (200, False)
    assert sorted(path.name for path in Path().iterdir()) == ["plan.json"]
