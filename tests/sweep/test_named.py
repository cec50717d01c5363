"""Sweeps with a name: ``sweep=NAME`` makes a table, which grows and is known to every other command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.core.files import write_json
from indexnet.run.config import parse_overrides
from indexnet.run.experiments.tables import list_experiments, load_experiment
from indexnet.run.record import Record
from indexnet.sweep import launch
from indexnet.sweep.named import asked_jobs
from indexnet.sweep.plan import compose_table
from indexnet.sweep.pool import Outcome
from launch_support import killed_when
from resume_support import interrupted_at_replace
from run_support import RECONSTRUCTION, command
from wandb_offline import offline_runs, read_offline

FILE = Path("runs/mysweep/experiment.yaml")
TASK = ["task=reconstruction", "budget=smoke", "data.train_count=8"]
SWEEP = [*TASK, "resampling.family=hin,m2o", "seed=0,1", "sweep=mysweep"]
ROWS = [*TASK, "resampling.family=hin,m2o", "sweep=mysweep"]  # where fewer runs show it: each takes a moment
ROW = [*TASK, "resampling.family=hin", "sweep=mysweep"]


@pytest.fixture
def sweep(monkeypatch):
    """Launch a sweep whose jobs are done at once; gives the frozen configurations."""
    captured: list[dict] = []

    def run_sweep(configs, titles, *, keep=lambda: "", **options):
        captured[:] = configs
        jobs = launch.prepare_jobs(configs, titles, before_new=lambda: print(keep()))
        launch.note_request(configs, options["arguments"])
        for job, config in zip(jobs, configs, strict=True):
            metrics = {"psnr": 20.0 + config["seed"], "ssim": 0.5, "mae": 0.1, "rmse": 0.2}
            name, row, label = config["experiment"].values()
            Record(status="done", metrics=metrics, experiment=name, row=row, label=label).write(job.folder)
        return [Outcome(job, "done") for job in jobs]

    monkeypatch.setattr(launch, "run_sweep", run_sweep)

    def run(*arguments: str, code: int = 0) -> list[dict]:
        captured.clear()
        assert main(["train", "-m", *arguments]) == code
        return list(captured)

    return run


def _everything() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(Path("runs").rglob("*")) if path.is_file()}


def test_a_sweep_with_a_name_is_a_table(sweep, capsys):
    configs = sweep(*SWEEP)
    assert [(c["seed"], c["resampling"]["family"], c["experiment"]) for c in configs] == [
        (seed, family, {"name": "mysweep", "row": family, "label": f"family {family}"})
        for seed in (0, 1)
        for family in ("hin", "m2o")
    ]
    assert "the rows hin, m2o and the seeds 0, 1" in capsys.readouterr().out
    folders = sorted(str(path.parent) for path in Path("runs").rglob("config.yaml"))
    assert folders == [f"runs/mysweep/photos-smoke/{row}/seed={seed}" for row in ("hin", "m2o") for seed in (0, 1)]
    found = load_experiment("mysweep", "runs")
    assert [(row.name, row.label, row.overrides) for row in found.rows] == [
        ("hin", "family hin", ("resampling.family=hin",)),
        ("m2o", "family m2o", ("resampling.family=m2o",)),
    ]
    assert (found.seeds, found.task, found.overrides) == ((0, 1), "reconstruction", tuple(TASK[1:]))
    columns = [(column.metric, column.higher_is_better) for column in found.columns]
    assert columns == [("psnr", True), ("ssim", True), ("mae", False), ("rmse", False)]
    assert "mysweep" in list_experiments("runs")
    assert "mysweep" not in list_experiments()


def test_what_other_commands_say_of_it(sweep, capsys):
    sweep(*SWEEP)
    sweep("task=reconstruction", "budget=smoke", "seed=0,1")  # of no table
    capsys.readouterr()
    for words, expected in (
        (["status"], ["mysweep photos-smoke: 4 of 4 runs done", "2 runs of no table: runs/single"]),
        (["status", "mysweep"], ["hin   20.000   21.000", "4 of 4 runs done", "indexnet report mysweep"]),
        (["report", "mysweep"], ["Reconstruction, by resampling.family", "family hin", "4 of 4", "Report: reports/"]),
        (["costs", "mysweep"], ["family hin", "family m2o"]),
        (["list", "experiments", "--names"], ["mysweep\n"]),
        (["dashboard", "mysweep"], ["Workspace: reports/mysweep/dashboard"]),
        (["list", "experiments"], ["a sweep in runs"]),
    ):
        assert main(words) == 0, words
        said = capsys.readouterr().out
        assert [text for text in expected if text not in said] == [], said
    assert json.loads(Path("reports/mysweep/dashboard/workspace.json").read_text())
    assert "psnr_mean" in Path("reports/mysweep/photos-smoke/table.csv").read_text()
    assert main(["status", "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["experiments"]
    assert (line["experiment"], line["setting"], line["counts"]) == ("mysweep", "photos-smoke", {"done": 4})
    assert main(["report"]) == 2
    assert "under runs there are runs of mysweep." in capsys.readouterr().err
    planned = compose_table("mysweep", ["seeds=0,1,2"])
    assert ([row.name for row in planned.experiment.rows], len(planned.configs)) == (["hin", "m2o"], 6)
    before = _everything()
    planned = compose_table(TASK[0], [*TASK[1:], "resampling=carafe,nearest", "sweep=other"])
    assert [row.label for row in planned.experiment.rows] == ["carafe", "nearest"]
    assert _everything() == before
    with pytest.raises(UserError, match="give sweep=NAME"):
        compose_table("task=reconstruction", ["seed=0,1"])


def test_the_same_again_changes_nothing(sweep):
    configs = sweep(*SWEEP)
    before = _everything()
    assert sweep("sweep=mysweep") == configs  # all that it is
    assert sweep(*ROW, "seed=0,1") == configs[::2]
    assert sweep("sweep=mysweep", "rows=glob(h*)", "seeds=1") == [configs[2]]
    same = ["rows=hin", "optimizer.lr=0.01"]  # as it is anyway
    moved = sweep("sweep=mysweep", *same, "trainer.num_workers=0", "paths.data=elsewhere")  # nobody's business
    assert [c["experiment"] for c in moved] == [c["experiment"] for c in configs[::2]]
    after = _everything()
    for path in (*before, *after):
        assert path.name == "sweep.json" or before[path] == after[path]


def test_more_values_and_seeds_extend_it(sweep, capsys):
    configs = sweep(*SWEEP)
    text = FILE.read_text()
    found = sweep(*TASK, "resampling.family=hin,o2o_shared", "seed=0,2", "sweep=mysweep")
    assert found[0] == configs[0]
    assert "gets the row o2o_shared and the seed 2" in capsys.readouterr().out
    # what all rows share need not be said again
    added = sweep("resampling.family=o2o_unshared", "seed=0", "sweep=mysweep")
    assert added[0]["experiment"]["row"] == "o2o_unshared"
    assert added[0]["data"]["train_count"] == 8
    said = capsys.readouterr().out
    assert f"As {FILE} says of all rows: budget=smoke data.train_count=8" in said
    sweep(*TASK, "resampling.family=hin", "optimizer.lr=0.1,0.5", "sweep=mysweep")
    table = load_experiment("mysweep", "runs")
    assert [row.name for row in table.rows] == ["hin", "m2o", "o2o_shared", "o2o_unshared", "hin_lr-0.1", "hin_lr-0.5"]
    assert table.rows[-1].label == "family hin (lr 0.5)"
    assert table.seeds == (0, 1, 2)
    assert table.title == "Reconstruction, by resampling.family and optimizer.lr"
    assert FILE.read_text().startswith(text[: text.index("  title")])
    before = FILE.read_text()
    other = sweep("sweep=mysweep", "budget=small", "rows=hin", "seeds=0")  # as a table: another folder
    assert other[0]["budget"]["name"] == "small"
    assert FILE.read_text() == before
    assert {path.name for path in FILE.parent.iterdir() if path.is_dir()} == {"photos-smoke", "photos-small"}


def test_what_was_fixed_may_be_swept_over_and_finds_its_row(sweep):
    configs = sweep(*TASK, "optimizer.lr=0.1", "resampling.family=hin,m2o", "sweep=mysweep")
    again = sweep(*TASK, "optimizer.lr=0.1,0.2", "resampling.family=hin", "sweep=mysweep")
    assert [config["experiment"]["row"] for config in again] == ["hin", "lr-0.2_hin"]
    assert again[0] == configs[0]
    found = sweep("sweep=mysweep")
    assert sorted(map(str, found)) == sorted(map(str, [*again, configs[1]]))


REFUSED = [
    ([*ROWS, "optimizer.lr=0.5"], "(optimizer.lr is 0.01 there and 0.5 here); sweep over that key"),
    (["sweep=mysweep", "resampling.family=o2o_shared", "optimizer.lr=0.5"], "optimizer.lr is 0.01 there"),
    (["sweep=mysweep", "data.train_count=9"], "data.train_count is 8 there and 9 here"),
    (["sweep=mysweep", "resampling=carafe"], "resampling=carafe would replace what its row 'hin' is made of"),
    (["sweep=mysweep", "task=matting"], "is of task=reconstruction, and task=matting is given"),
    (["sweep=mysweep", "rows=him"], "Did you mean 'hin'"),
    (["sweep=mysweep", "rows=hin", "resampling.family=hin"], "rows=... selects rows"),
    (["experiments=mysweep"], "mysweep is a sweep; sweep=mysweep goes on with it"),
]


def test_other_settings_under_the_same_name_are_refused(sweep, mistake, capsys):
    sweep(*ROWS)
    before = _everything()
    for arguments, sentence in REFUSED:
        capsys.readouterr()
        mistake(main(["train", "-m", *arguments]), sentence)
        assert _everything() == before, arguments


def test_a_file_on_a_disk_that_is_not_there_is_not_replaced(sweep, mistake):
    sweep(*ROW)
    FILE.symlink_to(FILE.rename("away.yaml").absolute().with_name("disk.yaml"))
    mistake(main(["train", "-m", *ROW]), f"{FILE} is a link that leads nowhere. Restore it")
    Path("away.yaml").rename("disk.yaml")
    sweep(*ROW)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-m", "sweep=a/b/c"], "sweep=a/b/c: a sweep's name is of letters"),
        (["-m", "sweep="], "sweep=: a sweep's name is of letters"),
        (["-m", "sweep=a\0b"], ""),
        (["-m", "sweep=a,b"], "a sweep has one name"),
        (["-m", "sweep=a", "sweep=b"], "a sweep has one name"),
        (["-m", "sweep=quickstart"], "quickstart.yaml is a table of that name; launch it with experiments=quickstart"),
        (["-m", "sweep=a", "experiments=quickstart"], "experiments=quickstart has a name already; leave out sweep=a"),
        (["-m", "sweep=a", "experiment.row=b"], "names its rows itself"),
        (["-m", "sweep=a", "task=matting,depth"], "one task, whose metrics are its columns"),
        (["-m", "sweep=a", "paths.runs=b,c"], "one paths.runs"),
        (["-m", "sweep=a", "fail_fast=true,false"], "one fail_fast"),
        (["-m", "sweep=a", "rows=b"], "rows=... selects rows"),
        (["-m", "sweep=a", "resampling.family=hin,hin"], "resampling.family: hin is given twice"),
        (["-m", "sweep=a", "resampling.family=hin,m2o", "resampling.family=hin"], "is given twice; give all in one"),
        (["-m", "sweep=a", "resampling.family=hin,m20"], "m20"),
        (["-m", "sweep=a", "optimizer.lr=interval(0,1)"], "no list of values"),
        (["-m", "sweep=a", "hydra/launcher=basic"], "leave out hydra/launcher=basic"),
        (["-m", "sweep=a", "hydra/sweeper=optuna", "optimizer.lr=0.1,0.2"], "hydra.sweeper.study=NAME"),
        (["-m", "sweep=taken"], "runs/taken holds runs of a table whose file is not known here"),
        (["-m", "sweep=file"], "runs/file is a file"),
        (["-m", "sweep=broken"], "runs/broken/experiment.yaml is not valid YAML"),
        (["-m", "sweep=broken"], "makes it anew"),
        (["-m", "sweep=cut"], "has no mapping `experiment`, which says what the table is. Restore it, or move it away"),
        (["-m", "sweep=body"], "optimizer has no effect in the file of a sweep"),
        (["-m", "sweep=named"], "experiment.name is 'other'; its place says 'named'"),
        (["sweep=a"], "sweep=NAME names a sweep; give -m too"),
    ],
)
def test_mistakes(arguments, sentence, tmp_path, mistake, capsys):
    for name in ("taken/photos-smoke", "broken", "cut", "body", "named"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    request = {"arguments": ["-m", "experiments=taken"], "directory": "", "runs": []}
    write_json("runs/taken/photos-smoke/sweep.json", {"requests": [request]})
    Path("runs/file").touch()
    content = {"defaults": [{"override /task": "reconstruction"}], "experiment": {"name": "other"}}
    Path("runs/broken/experiment.yaml").write_text("a: [")
    Path("runs/cut/experiment.yaml").write_text("plugins: []\n")
    content["experiment"] |= {"title": "a", "source": "a", "columns": [{"metric": "psnr"}], "rows": [{"name": "a"}]}
    Path("runs/named/experiment.yaml").write_text(yaml.safe_dump(content))
    Path("runs/body/experiment.yaml").write_text(yaml.safe_dump({**content, "optimizer": {"lr": 1}}))
    before = _everything()
    more = [] if any(text.startswith("task=") for text in arguments) else ["task=reconstruction"]
    mistake(main(["train", *arguments, *more]), sentence)
    assert _everything() == before
    if sentence.endswith("its place says 'named'"):  # a folder that was copied stops no list
        assert main(["list", "experiments"]) == 0
        assert main(["status"]) == 0
        assert "its place says 'named'" in capsys.readouterr().out.replace("\n", " ")


def test_an_experiment_file_is_the_same_thing_written_down(sweep, mistake, capsys):
    arguments = [*TASK[:2], "data=photos", "optimizer.lr=0.1", "~data.train_count", "schedule=constant"]
    configs = sweep(*arguments, "resampling=max_unpool,carafe", "seed=0,3", "sweep=first")
    capsys.readouterr()
    assert main(["sweep", "save", "first", "own/experiments/tables/mine.yaml"]) == 0
    assert "indexnet train -m experiments=tables/mine --config-dir own" in capsys.readouterr().out
    found = sweep("experiments=tables/mine", "--config-dir", "own")
    changed = [{**config, "experiment": {**config["experiment"], "name": "tables/mine"}} for config in configs]
    assert found == changed
    # the command line goes before what the file says of all rows
    (other,) = sweep(
        "experiments=tables/mine", "rows=carafe", "seeds=0", "budget=small", "optimizer.lr=0.2", "--config-dir", "own"
    )
    assert (other["budget"]["name"], other["optimizer"]["lr"]) == ("small", 0.2)
    assert other["changes"] == [["optimizer.lr", "0.2", "0.1"]]
    # under the name of the sweep it is the sweep
    assert main(["sweep", "save", "first", "own/experiments/first.yaml"]) == 0
    assert sweep("experiments=first", "--config-dir", "own") == configs
    before = _everything() | {path: path.read_bytes() for path in Path("own").rglob("*.yaml")}
    capsys.readouterr()
    for words, sentence in (
        (["first", "own/experiments/tables/mine.yaml"], "is there already"),
        (["first", "own/experiments/first.json"], "is a .yaml in a folder `experiments`"),
        (["first", "mine.yaml"], "is a .yaml in a folder `experiments`"),
        (["first", "own/experiments/quickstart.yaml"], "there is an experiment quickstart already"),
        (["fist", "own/experiments/a.yaml"], "Did you mean 'first'"),
        (["quickstart", "own/experiments/a.yaml"], "is an experiment file already"),
        (["first", "own/experiments/a.yaml", "--runs", "nowhere"], "there is no such folder"),
        (["first", "own/experiments/first.yaml/experiments/a.yaml"], "cannot be written"),
    ):
        mistake(main(["sweep", "save", *words]), sentence)
    assert _everything() | {path: path.read_bytes() for path in Path("own").rglob("*.yaml")} == before


def test_measured_on_the_validation_split(sweep):
    own = ["task=matting", "data=scenes", "data.validation_count=4", "budget=smoke", "split=validation"]
    configs = sweep(*own, "encoder.pretrained=false", "optimizer.lr=0.1,0.2", "sweep=chosen")
    assert {config["split"] for config in configs} == {"validation"}
    assert main(["sweep", "save", "chosen", "own/experiments/saved.yaml"]) == 0
    assert len(sweep("experiments=saved", "--config-dir", "own")) == 2


def test_a_sweep_without_a_name_stays_where_it_was(sweep, capsys):
    configs = sweep(*TASK, "seed=0,1")
    assert {path.parent.parent for path in Path("runs").rglob("config.yaml")} == {Path("runs/single")}
    assert all(config["experiment"] == {"name": None, "row": None, "label": None} for config in configs)
    assert "With sweep=NAME such runs are a table of that name" in capsys.readouterr().out
    assert [config["experiment"]["row"] for config in sweep(*TASK, "seed=0,1", "sweep=first/Run")] == ["run", "run"]
    assert "With sweep=NAME" not in capsys.readouterr().out


def _ask(*arguments: str):
    options = {"task": "reconstruction", "plugins": [], "seed": 0, "paths.runs": "runs"}
    return asked_jobs(parse_overrides(list(arguments)), options)[1]


CONFIGS = [{"task": {"name": "reconstruction"}}]


def test_two_commands_at_the_same_time():
    first = _ask("budget=smoke", "resampling.family=hin,m2o", "sweep=mysweep")
    second = _ask("budget=small", "resampling.family=m2o,o2o_shared", "seed=1", "sweep=mysweep")
    other = _ask("budget=small", "optimizer.lr=0.1", "resampling.family=hin", "sweep=mysweep")
    same_name = _ask("network.family=hin,m2o", "sweep=mysweep")
    first.keep(CONFIGS)
    second.keep(CONFIGS)
    before = FILE.read_bytes()
    table = load_experiment("mysweep", "runs")
    assert ([row.name for row in table.rows], table.seeds) == (["hin", "m2o", "o2o_shared"], (0, 1))
    for each in (other, same_name):
        with pytest.raises(UserError, match="another command has just changed"):
            each.keep(CONFIGS)
    assert FILE.read_bytes() == before


@pytest.mark.parametrize("call", range(4))
def test_a_kill_while_a_sweep_is_written_down(call, sweep):
    with interrupted_at_replace(call):
        sweep(*ROWS, code=130)
    assert len(sweep(*ROWS)) == 2
    table = load_experiment("mysweep", "runs")
    assert ([row.name for row in table.rows], table.seeds) == (["hin", "m2o"], (0,))
    assert len(list(Path("runs").rglob("record.json"))) == 2


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs the parent-death signal")
def test_a_real_sweep_killed_and_logged(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    words = ["train", "-m", *RECONSTRUCTION, "resampling.family=hin,m2o", "sweep=mysweep", "trainer.checkpoint_every=2",
             "training.steps=40", "training.validate_every=10", "tags=[mine]", "logger=wandb",
             "logger.mode=offline"]  # fmt: skip
    whole = subprocess.run(command(*words, "paths.runs=whole"), capture_output=True, text=True, timeout=300)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    root = Path("runs/mysweep/photos-paper")
    killed_when(command(*words), (root / "hin/seed=0/checkpoints/last.ckpt").exists)
    again = subprocess.run(command(*words), capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "goes on from step" in again.stdout
    for row in ("hin", "m2o"):
        records = [json.loads((base / row / "seed=0/record.json").read_text())
                   for base in (root, Path("whole/mysweep/photos-paper"))]  # fmt: skip
        assert records[0]["metrics"] == records[1]["metrics"]
        logged = read_offline(offline_runs((root / row / "seed=0").resolve())[-1])
        started = logged.run
        assert (started["display_name"], started["run_group"], started["job_type"]) == (f"{row}-seed0", "mysweep", row)
        assert "mine" in started["tags"]
        curve = {line["trainer/global_step"]: line["val/psnr"] for line in logged.history if "val/psnr" in line}
        assert len(curve) == 4
        assert logged.summary["val/psnr"] == {"max": max(curve.values()), "last": curve[max(curve)]}
        assert max(curve.values()) == pytest.approx(records[0]["best"]["value"])
    assert not list((tmp_path / "temporary").rglob("*wandb*"))
    assert FILE.read_text() == Path("whole/mysweep/experiment.yaml").read_text()
    assert main(["report", "mysweep"]) == 0
