"""The frozen configurations of a sweep: composed once, looked up afterwards, never stale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from indexnet.cli import main
from indexnet.metrics import list_metrics
from indexnet.run import tables
from indexnet.sweep import frozen, launch
from indexnet.sweep.pool import Job, Outcome

ROWS = ["experiments=quickstart", "rows=hin,max_unpool", "seeds=0", "budget=smoke"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sweep(monkeypatch):
    """Launch a sweep whose jobs do nothing; gives the frozen configurations and how many were composed for them."""
    captured: list[dict] = []
    composed: list[list[str]] = []
    freeze, code = frozen._freeze, frozen._code()

    def run_sweep(configs, titles, **options):
        captured[:] = configs
        return [Outcome(Job(Path(str(index)), "", 0), "done") for index, _ in enumerate(configs)]

    def count(config, context, overrides):
        composed.append(list(overrides))
        return freeze(config, context, overrides)

    monkeypatch.setattr(launch, "run_sweep", run_sweep)
    monkeypatch.setattr(frozen, "_freeze", count)
    monkeypatch.setattr(frozen, "_code", lambda: code)  # somebody may be at work on it

    def run(*arguments: str) -> tuple[list[dict], int]:
        composed.clear()
        captured.clear()
        assert main(["train", "-m", *arguments]) == 0
        return list(captured), len(composed)

    return run


def test_what_was_composed_before_is_looked_up(sweep):
    first, composed = sweep(*ROWS)
    assert composed == 2
    assert [config["resampling"]["name"] for config in first] == ["max_unpool", "indexnet"]
    again, composed = sweep(*ROWS)
    assert composed == 0
    assert json.dumps(again) == json.dumps(first)  # the order of keys as well: config.yaml is written from it
    assert len(list(Path("runs/.plans").glob("*.json"))) == 2
    _, composed = sweep(*ROWS[:1], "rows=hin,max_unpool,m2o", *ROWS[2:])
    assert composed == 1  # a row more
    _, composed = sweep(*ROWS, "hydra.launcher.n_jobs=2")
    assert composed == 0  # how a sweep runs is no part of what it runs
    changed, composed = sweep(*ROWS, "training.batch_size=1")
    assert composed == 2
    assert {config["training"]["batch_size"] for config in changed} == {1}


def test_plans_lie_beside_their_runs(sweep):
    sweep(*ROWS, "paths.runs='else where'")
    assert list(Path("else where/.plans").glob("*.json"))
    sweep(*ROWS, "paths.runs=a,b")
    for name in ("a", "b"):
        assert len(list(Path(name, ".plans").glob("*.json"))) == 2
    assert not Path("runs").exists()


def test_a_mistake_keeps_nothing(sweep):
    assert main(["train", "-m", "task=reconstruction", "training.batch_size=2,0"]) == 2
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"config": {}}', '{"config": {}, "digest": "x", "depends": {}}', "\x00"]
)
def test_a_broken_plan_is_ignored(sweep, content):
    first, _ = sweep(*ROWS)
    for file in Path("runs/.plans").glob("*.json"):
        file.write_text(content)
    again, composed = sweep(*ROWS)
    assert (again, composed) == (first, 2)
    assert sweep(*ROWS) == (first, 0)  # and mended


def test_a_plan_that_somebody_edited_is_ignored(sweep):
    first, _ = sweep(*ROWS)
    for file in Path("runs/.plans").glob("*.json"):
        file.write_text(file.read_text().replace('"batch_size": 2', '"batch_size": 1'))
    assert sweep(*ROWS) == (first, 2)


def test_a_plan_that_cannot_be_written_stops_nothing(sweep):
    Path("runs").mkdir()
    Path("runs/.plans").write_text("a file in the way")
    first, composed = sweep(*ROWS)
    assert composed == 2
    assert sweep(*ROWS) == (first, 2)


def test_another_configuration_file_is_another_plan(sweep):
    folder = Path("own/optimizer")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("name: adam\nlr: 0.5\nencoder_lr_multiplier: auto\n")
    arguments = [*ROWS, "optimizer=mine", "--config-dir", "own"]
    first, composed = sweep(*arguments)
    assert (composed, first[0]["optimizer"]["lr"]) == (2, 0.003)  # what the experiment says goes first
    (folder / "mine.yaml").write_text("name: sgd\nlr: 0.5\nmomentum: 0.5\nencoder_lr_multiplier: auto\n")
    second, composed = sweep(*arguments)
    assert (composed, second[0]["optimizer"]["name"]) == (2, "sgd")
    assert sweep(*arguments)[1] == 0


def test_files_behind_a_link_to_a_folder_count(sweep):
    Path("elsewhere").mkdir()
    Path("own").mkdir()
    Path("own/optimizer").symlink_to("../elsewhere")
    Path("elsewhere/again").symlink_to(".")  # a loop
    arguments = ["task=reconstruction", "schedule=constant", "optimizer=mine", "seed=0,1", "--config-dir", "own"]
    for rate in (0.5, 0.25):
        Path("elsewhere/mine.yaml").write_text(f"name: adam\nlr: 1.0\nweight_decay: {rate}\n")
        configs, composed = sweep(*arguments)
        assert (composed, {config["optimizer"]["weight_decay"] for config in configs}) == (2, {rate})
    assert sweep(*arguments)[1] == 0


def test_what_is_computed_from_outside_the_files_is_never_looked_up(sweep, monkeypatch):
    for place in ("here", "there"):
        monkeypatch.setenv("PLACE", place)
        configs, composed = sweep(*ROWS, "paths.data=${oc.env:PLACE}")
        assert (composed, {config["paths"]["data"] for config in configs}) == (2, {place})
    own = Path("own/optimizer")
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("name: adam\nlr: 1.0\nweight_decay: ${oc.decode:${oc.env:DECAY}}\n")
    for rate in (0.5, 0.25):
        monkeypatch.setenv("DECAY", str(rate))
        arguments = ["task=reconstruction", "schedule=constant", "optimizer=mine", "seed=0,1", "--config-dir", "own"]
        configs, composed = sweep(*arguments)
        assert (composed, {config["optimizer"]["weight_decay"] for config in configs}) == (2, {rate})
    assert sweep(*ROWS, "hydra.searchpath=[file://own]")[1] == 2
    assert sweep(*ROWS, "hydra.searchpath=[file://own]")[1] == 2


def test_other_code_is_another_plan(sweep, monkeypatch):
    sweep(*ROWS)
    code = frozen._code()
    assert any(path.endswith("indexnet/run/config.py") for path, _, _ in code)
    assert any(path.endswith("indexnet_plugins/sweeper.py") for path, _, _ in code)
    changed = [
        [path, size, when + 1] if path.endswith("config.py") else [path, size, when] for path, size, when in code
    ]
    monkeypatch.setattr(frozen, "_code", lambda: changed)
    assert sweep(*ROWS)[1] == 2
    assert sweep(*ROWS)[1] == 0


def test_other_files_of_a_data_set_are_another_plan(sweep, tmp_path):
    root = tmp_path / "mnist"
    root.mkdir()
    (root / "images").write_bytes(b"1")
    arguments = ["task=reconstruction", "data=mnist", f"data.root={root}", "seed=0,1"]
    assert sweep(*arguments)[1] == 2
    assert sweep(*arguments)[1] == 0
    (root / "more").mkdir()
    assert sweep(*arguments)[1] == 2
    (root / "more" / "file").touch()
    assert sweep(*arguments)[1] == 2
    assert sweep(*arguments)[1] == 0
    (root / "images").write_bytes(b"12")  # the folder does not change by this
    assert sweep(*arguments)[1] == 2


def test_plans_that_nobody_needed_for_long_are_removed(sweep):
    sweep(*ROWS)
    old = sorted(Path("runs/.plans").glob("*.json"))
    os.utime(old[0], (1, 1))
    sweep(*ROWS, "training.size=32")
    assert not old[0].exists()
    assert old[1].exists()


def test_metric_facts_are_those_of_the_registry(monkeypatch):
    tables.known_metrics.cache_clear()
    known = tables.known_metrics()
    infos = {info.name: info for info in list_metrics() if type(info).__module__ == "indexnet.metrics.base"}
    assert {name: tuple(vars(facts).values()) for name, facts in known.items()} == {
        name: tuple(vars(info).values()) for name, info in infos.items()
    }

    def computed(module):
        raise ValueError("a name that is computed")

    monkeypatch.setattr(tables, "_registered", computed)
    tables.known_metrics.cache_clear()
    assert dict(tables.known_metrics()) == dict(known)
    tables.known_metrics.cache_clear()


@pytest.mark.long
def test_a_sweep_that_is_done_needs_no_torch():
    arguments = [*ROWS, "data.train_count=8", "trainer.accelerator=cpu", "trainer.num_workers=0"]
    code = (
        "import sys; from indexnet.cli import main\n"
        "code = main(['train', '-m', *sys.argv[1:]])\n"
        "print('torch' if 'torch' in sys.modules else 'nothing heavy', flush=True); sys.exit(code)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=300
        )

    first = run()
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.splitlines()[-1] == "torch"
    again = run()
    assert "2 of 2 runs done (2 before)" in again.stdout
    assert again.stdout.splitlines()[-1] == "nothing heavy"
