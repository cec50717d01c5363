"""`indexnet plan`: what is measured, what follows from it, and what is left to do."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from data_support import write_idx
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.core.files import write_json
from indexnet.run.folder import prepare
from indexnet.run.record import Record
from indexnet.run.schema import read_config
from indexnet.sweep.plan import compose_table, group_rows
from indexnet.sweep.plan_estimate import Estimate, PlannedRow, Probe, add_up, estimate, line, makespan
from indexnet.sweep.plan_probe import measure_rows
from indexnet.sweep.plan_table import remarks
from launch_support import lines_of
from resume_support import forks
from run_support import alive, wait_until

TINY = ["trainer.accelerator=cpu", "trainer.num_workers=0", "budget=smoke"]


# --- from a few steps to a run -------------------------------------------------------------------------------------


def test_a_straight_line():
    assert line([(2, 1.0), (4, 1.6)], 16) == pytest.approx(5.2)  # 0.3 a sample: 1.6 + 12 x 0.3
    assert line([(1, 9.0), (2, 1.0), (4, 1.6)], 16) == pytest.approx(5.2)  # the last two count
    assert line([(2, 1.0)], 16) == pytest.approx(8.0)
    assert line([(2, 1.6), (4, 1.5)], 16) == pytest.approx(1.5)  # noise: more samples do not cost less
    assert line([(4, 2.0), (16, 7.0)], 16) == 7.0


def _probe(batch=16, rate=8.0, training=900.0, peak=950.0, steps=40):
    record = Record(
        train_samples_per_s=rate, test_samples_per_s=0.5, test_count=4, train_peak_memory_mb=training,
        peak_memory_mb=peak,
    )  # fmt: skip
    files = {
        "checkpoints": 5000, "csv": 100, "tensorboard": 300, "per_image.csv": 40, "pictures": 7000, "config.yaml": 10
    }  # fmt: skip
    return Probe(batch, steps, 100.2, 0.2, record, files)


RUN = {"batch": 16, "steps": 1050, "images": 50, "every": 100, "copies": 1}


def test_an_estimate_of_measured_steps():
    found = estimate([_probe()], **RUN)
    assert found.is_whole
    assert found.step_s == pytest.approx(2.0)  # 16 samples at 8 a second
    assert found.start_s == pytest.approx(12.0)  # 100.2 less 40 steps of 2 s, 4 images of 2 s and a checkpoint
    assert found.checkpoints_s == pytest.approx(2.2)  # 10 of every 100 steps and one at the end
    assert found.test_s == pytest.approx(100.0)
    assert found.memory_mb == 950.0
    assert found.seconds == pytest.approx(12 + 2100 + 2.2 + 100)
    # checkpoint, pictures and configuration; 40 bytes / 4 images x 50; 400 bytes / 4 logged steps x 105
    assert found.disk_bytes == 5000 + 7010 + 500 + 10500
    assert found.seconds_left(0) == found.seconds
    assert found.seconds_left(525) == pytest.approx(12 + 1050 + 1.1 + 100)
    assert found.seconds_left(1050) == pytest.approx(12 + 100)
    assert estimate([_probe()], **{**RUN, "every": "auto"}).checkpoints_s == pytest.approx(35 * 0.2)  # one a minute
    assert estimate([_probe()], **{**RUN, "copies": 2}).memory_mb == 1900.0
    validated = estimate([_probe()], **RUN, validations=4, validated=RUN["images"])
    assert validated.test_s == pytest.approx(5 * found.test_s)
    assert validated.checkpoints_s > found.checkpoints_s
    assert validated.disk_bytes - found.disk_bytes == found.checkpoint_bytes


def test_an_estimate_from_smaller_batches():
    probes = [_probe(2, 4.0, 500.0, 800.0), _probe(4, 5.0, 540.0, 800.0)]
    found = estimate(probes, **RUN)
    assert not found.is_whole
    assert found.step_s == pytest.approx(2.6)  # 0.5 and 0.8 s: 0.15 a sample
    assert found.memory_mb == pytest.approx(800)  # of the test images; training takes 540 + 12 x 20
    assert estimate(probes, **{**RUN, "batch": 32}).memory_mb == pytest.approx(1100)


# --- from runs to a table ------------------------------------------------------------------------------------------


def test_the_longest_run_first():
    times = [3, 5, 3, 4, 3]
    assert makespan(times, 1) == 18
    assert makespan(times, 2) == 10  # 5+3 beside 4+3+3
    assert makespan(times, 3) == 7  # 5, 4+3 and 3+3
    assert makespan(times, 8) == 5
    assert makespan([], 2) == 0


@functools.cache
def _of(devices):
    from indexnet.run.config import compose, freeze

    return read_config(freeze(compose([*TINY, "task=reconstruction", f"trainer.devices={devices}"])))


def _row(seconds: float, runs: int, left: list[int], memory: float = 100.0, devices: int = 1) -> PlannedRow:
    found = Estimate((seconds - 10) / 100, 100, 4.0, 0.0, 6.0, memory, True, 1000, 1500)
    return PlannedRow("a", _of(devices), 100, (6,), runs, left, estimate=found)


def test_totals():
    rows = [_row(110, 3, [0, 50], 300.0), _row(60, 1, [0]), _row(1000, 2, [])]
    totals = add_up(rows, [1, 2, 4], n_jobs=2, before=5)
    assert totals.whole_s == pytest.approx(3 * 110 + 60 + 2 * 1000)
    assert totals.left_s == pytest.approx(110 + 60 + 60)
    assert totals.wall_s == {1: pytest.approx(125), 2: pytest.approx(115), 4: pytest.approx(115)}
    assert totals.disk_bytes == 4500
    assert totals.training_bytes == 4000  # two runs, each with the checkpoint before and the one being written
    assert totals.memory_mb == 600.0
    one = add_up(rows, [1])
    assert (one.wall_s, one.memory_mb, one.training_bytes) == ({1: pytest.approx(230)}, 300.0, 2000)
    rows.append(PlannedRow("b", rows[0].config, 100, (6,), 1, [0]))  # not measured
    assert add_up(rows, [1]) == one
    assert add_up(rows, [1], n_jobs=4, gpus=2).memory_mb == 600.0  # two of four runs meet on a GPU


def test_runs_that_take_several_devices():
    totals = add_up([_row(100, 3, [0, 0, 0], devices=2)], [1, 2, 3, 4, 6], gpus=8)
    assert totals.wall_s == {1: None, 2: 300, 3: 300, 4: 200, 6: 100}
    assert add_up([_row(100, 3, [])], [1], gpus=8, before=5).wall_s == {1: 0}


def test_runs_that_start_from_each_other_are_never_side_by_side():
    rows = []
    for name, source, seconds in (("a", None, 110), ("b", "t:a", 60), ("c", "t:b", 30), ("alone", None, 20)):
        found = _row(seconds, 2, [0, 0])
        experiment = dataclasses.replace(found.config.experiment, name="t", row=name)
        init = dataclasses.replace(found.config.init, row=source)
        found.config = dataclasses.replace(found.config, experiment=experiment, init=init)
        rows.append(found)
    totals = add_up(rows, [1, 2, 8])
    assert totals.wall_s == {1: pytest.approx(440), 2: pytest.approx(220), 8: pytest.approx(200)}
    rows[0].left = []  # done: the others need not wait
    assert add_up(rows, [8]).wall_s == {8: pytest.approx(90)}


# --- which runs ----------------------------------------------------------------------------------------------------


def _record(config, status, step=None):
    folder = prepare(config)
    write_json(folder.path / "record.json", {"schema": 1, "status": status})
    if step is not None:
        write_json(folder.path / "progress.json", {"step": step + 1, "steps": 3})
        folder.checkpoint().parent.mkdir()
        content = {"global_step": step, "state_dict": {"x": torch.zeros(3)}, "indexnet": {"config": {}}}
        torch.save(content, folder.checkpoint())


def test_done_runs_are_not_left():
    words = [*TINY, "rows=hin,max_unpool", "seeds=0,1,2"]
    sweep = compose_table("quickstart", words)
    assert not Path("runs").exists()
    assert sweep.n_jobs == 2  # as the file says
    rows = group_rows(sweep)
    assert [(row.name, row.runs, row.left, row.steps, row.tests) for row in rows] == [
        ("max_unpool", 3, [0, 0, 0], 3, (2,)),
        ("hin", 3, [0, 0, 0], 3, (2,)),
    ]
    by_place = {(c.experiment.row, c.seed): c.content for c in sweep.configs}
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
    again = compose_table("quickstart", [*words, "retry_failed=true", "hydra.launcher.n_jobs=3"])
    assert again.n_jobs == 3
    assert [(row.left, row.failed) for row in group_rows(again)] == [([2, 0, 0], 0), ([0], 0)]
    one = [*TINY, "rows=hin", "seeds=0,1,2"]
    anew = compose_table("quickstart", [*one, "rerun=true"])
    assert [(row.left, row.failed) for row in group_rows(anew)] == [([0, 0], 1)]
    assert [(row.left, row.failed) for row in group_rows(compose_table("quickstart", [*one, "rerun=changed"]))] == [
        ([], 1)
    ]
    other = compose_table("quickstart", [*one, "optimizer.lr=0.5"])
    with pytest.raises(UserError, match=r"seed=0 holds a run with another configuration"):
        group_rows(other)
    damaged = prepare(by_place["hin", 0]).path / "record.json"
    damaged.write_text("[")
    rows = group_rows(sweep)
    assert [(row.left, row.failed, len(row.damaged)) for row in rows] == [([2, 0, 0], 0, 0), ([], 1, 1)]
    assert f"left out: {damaged} " in "".join(text for text, _ in remarks(sweep, rows, add_up(rows, [1]), 10.0))


def test_the_runs_are_those_of_the_sweep():
    from indexnet.run.config import compose, freeze

    sweep = compose_table(
        "tpami/table5_denoising", [*TINY, "rows=dncnn_sigma15,dncnn_sigma25", "seeds=7", "training.batch_size=2,4"]
    )
    row = "experiments=tpami/table5_denoising", "network=dncnn", "resampling=none", "task.sigma=15"
    one = sweep.configs[1]
    assert one.experiment.row == "dncnn_sigma15--training.batch_size-4"
    own = [f"experiment.{key}='{getattr(one.experiment, key)}'" for key in ("row", "label")]
    assert one.content == freeze(compose([*row, *TINY, "training.batch_size=4", *own, "seed=7"]))
    names = [(row.name, row.runs) for row in group_rows(sweep)]  # noise levels cost the same
    assert names == [("dncnn--training.batch_size-2", 2), ("dncnn--training.batch_size-4", 2)]


def test_repetitions_on_two_data_sets_are_planned_apart(tmp_path):
    for name, count in (("mnist", 8), ("fashion_mnist", 6)):
        write_idx(tmp_path / name / "train-images-idx3-ubyte", count, 0, compress=False)
        write_idx(tmp_path / name / "t10k-images-idx3-ubyte", count // 2, 1, compress=False)
    words = [
        "rows=conv_nearest",
        "schedule=constant",
        "training.epochs=3",
        "training.batch_size=2",
        f"paths.data={tmp_path}",
    ]
    rows = group_rows(compose_table("thesis/table4_1", ["trainer.accelerator=cpu", "trainer.num_workers=0", *words]))
    assert [(row.name, row.runs, row.steps, row.tests) for row in rows] == [
        ("conv_nearest_mnist", 1, 12, (4,)), ("conv_nearest_fashion_mnist", 1, 9, (3,))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["quickstrt"], "Did you mean 'quickstart'"),
        (["quickstart", "rows=max_unpol"], "Did you mean 'max_unpool'"),
        (["quickstart", "training.stepz=3"], "Did you mean 'training.steps'"),
        (["quickstart", "budget"], "'budget' is no override"),
        (["null"], "unknown experiment 'null'"),
        (["quickstart,quickstart_matting"], "unknown experiment 'quickstart,quickstart_matting'"),
        (["quickstart", "plugins=???"], "plugins"),
        (["quickstart", "plugins=${nosuch}"], "plugins cannot be resolved"),
        (["quickstart", "fail_fast=${nosuch}"], "fail_fast cannot be resolved"),
        (["quickstart", "experiments=quickstart_matting"], "plan one at a time"),
        (["quickstart", "hydra.launcher.n_jobs=0"], "n_jobs=0 must be at least 1"),
        (["quickstart", "--devices", "1,x"], "--devices 1,x: give whole numbers"),
        (["quickstart", "--limit", "0"], "must be more than 0"),
        (["quickstart", "--json", "."], "is a folder"),
        (["tpami/table6_sunrgbd", "rows=segnet", "data=sunrgbd", "encoder.pretrained=false"], "data/sunrgbd"),
    ],
)
def test_a_mistake_measures_nothing(words, sentence, mistake):
    mistake(main(["plan", *words]), sentence)
    assert list(Path().iterdir()) == []


# --- measuring -----------------------------------------------------------------------------------------------------

# What a pretended job does, by the name of its row.
SCRIPT = """
import json, os, signal, sys, time, yaml
from pathlib import Path
folder = Path(sys.argv[1]); config = yaml.safe_load((folder / "config.yaml").read_text())
row, batch = config["experiment"]["row"], config["training"]["batch_size"]
with open("started", "a") as file: file.write(f"{row} {batch} {folder.parent} {os.getpid()}\\n")
def record(**more): (folder / "record.json").write_text(json.dumps({"schema": 1, **more}))
assert config["logger"]["wandb"] is False
if row == "b11":
    record(status="failed", error="UserError: no weights; give encoder.pretrained=PATH"); sys.exit(2)
if row == "b3":
    os.kill(os.getpid(), signal.SIGKILL)
if row == "carafe":
    record(status="diverged", error="the training loss became nan at step 1 of 3"); sys.exit(5)
if row == "hin":
    sys.exit(7)
if (row == "m2o" and batch > 4) or row == "max_unpool":
    print("training for 200 steps", flush=True); time.sleep(60); Path("waited").touch()
if row == "o2o_shared" and batch > 4:
    record(status="failed", error="OutOfMemoryError: CUDA out of memory. Tried to"); sys.exit(1)
from indexnet.run.resume import write_checkpoint
write_checkpoint(folder / "checkpoints" / "last.ckpt", memoryview(b"of step 10"), 10)
record(status="done", train_samples_per_s=4.0 * batch ** 0.5, test_samples_per_s=2.0, test_count=2,
       train_peak_memory_mb=400 + 50.0 * batch, peak_memory_mb=500.0, device="a pretended one")
"""


def pretended(folder):
    return [sys.executable, "-c", SCRIPT, str(folder)]


def test_rows_that_cannot_run_do_not_stop_the_others():
    """Pretended jobs: weights that are missing, one that is killed, one that ends well."""
    Path("runs").mkdir()
    words = ["rows=b3,b11,b11_carafe,b11_1_4", *TINY, "encoder.pretrained=false", "logger.wandb=true"]
    sweep, said = compose_table("tpami/table3_matting", words), list[str]()
    rows = group_rows(sweep)
    assert measure_rows(sweep, rows, 10.0, said.append, pretended) == 0
    by_name = {row.name: row for row in rows}
    assert by_name["b11"].error == by_name["b11_carafe"].error == "no weights; give encoder.pretrained=PATH"
    assert "b11_carafe" not in [row for row, *_ in lines_of("started")]  # its encoder is that of b11
    assert "killed by signal 9" in by_name["b3"].error
    assert by_name["b11_1_4"].error == ""
    assert by_name["b11_1_4"].device == "a pretended one"
    assert by_name["b11_1_4"].estimate.step_s == pytest.approx(2**0.5 / 4)
    assert said == ["measuring b3", "measuring b11", "measuring b11_1_4"]
    totals = add_up(rows, [1], n_jobs=sweep.n_jobs)
    sentences = [text for text, _ in remarks(sweep, rows, totals, 10.0)]
    assert "b11, b11_carafe: no weights; give encoder.pretrained=PATH." in sentences
    assert "3 runs were not measured and are left out below." in sentences
    assert {Path(place).parent for _, _, place, _ in lines_of("started")} == {Path.cwd()}
    assert sorted(path.name for path in Path().iterdir()) == ["runs", "started"]


def test_a_batch_that_is_too_large_is_measured_from_smaller_ones():
    sweep = compose_table("quickstart", ["rows=hin,carafe,m2o,o2o_shared", "seeds=0", *TINY[:2]])
    rows = {row.name: row for row in group_rows(sweep)}
    measure_rows(sweep, list(rows.values()), 0.5, command=pretended)
    assert not Path("waited").exists()
    assert rows["hin"].error == "its measuring process ended with exit code 7"
    assert rows["carafe"].error == "the loss is not finite after a few steps"
    assert rows["carafe"].estimate is rows["hin"].estimate is None
    batches = [int(batch) for row, batch, *_ in lines_of("started") if row == "m2o"]
    assert batches == [32, 2, 4]
    assert rows["m2o"].error == ""
    assert rows["o2o_shared"].error == "OutOfMemoryError: CUDA out of memory. Tried to"
    for name in ("m2o", "o2o_shared"):
        found = rows[name].estimate
        assert not found.is_whole
        slope = (0.5 - 0.5 / 2**0.5) / 2  # 0.354 s and 0.5 s
        assert found.step_s == pytest.approx(0.5 + 28 * slope)
        assert found.memory_mb == pytest.approx(400 + 50 * 32)


@forks
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_plan_that_is_stopped_leaves_nothing(number):
    """SIGTERM cleans up; after SIGKILL the processes are gone, and the next plan removes the folder."""
    sweep = compose_table("quickstart", ["rows=max_unpool", "seeds=0", *TINY[:2], "training.batch_size=4"])
    plan = os.fork()  # spares it the imports
    if not plan:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            measure_rows(sweep, group_rows(sweep), 10.0, command=pretended)
        finally:
            os._exit(99)
    assert wait_until(lambda: lines_of("started"), seconds=60)
    ((_, _, place, pid),) = lines_of("started")
    assert Path(place).parent == Path.cwd()  # runs/ does not exist yet, and does not come to exist
    os.kill(plan, number)
    os.waitpid(plan, 0)
    assert wait_until(lambda: not alive(int(pid)))
    assert Path(place).exists() == (number == signal.SIGKILL)
    sweep = compose_table("quickstart", ["rows=hin", "seeds=0", *TINY])
    measure_rows(sweep, group_rows(sweep), 10.0, command=pretended)
    assert sorted(path.name for path in Path().iterdir()) == ["started"]


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
    # a run that nobody could wait for: training stops by the clock
    endless = [*words[2:], "training.steps=1000000"]
    assert main(["plan", "quickstart", *endless, "rows=max_unpool", "--json", "plan.json", "--limit", "6"]) == 0
    (row,) = json.loads(Path("plan.json").read_text())["rows"]
    assert (row["steps"], row["is_whole"]) == (1_000_000, True)
    assert 0 < row["start_s"] < 100
    # a limit that no real step fits into
    assert main(["plan", "quickstart", *words[2:], "rows=m2o", "--json", "plan.json", "--limit", "0.001"]) == 0
    assert "smaller batches, by a straight line" in capsys.readouterr().out
    (row,) = json.loads(Path("plan.json").read_text())["rows"]
    assert (row["steps"], row["is_whole"]) == (200, False)
    assert sorted(path.name for path in Path().iterdir()) == ["plan.json"]
