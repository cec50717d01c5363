"""The frozen configurations of a sweep: one composition for all seeds of a row, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexnet.cli import main
from indexnet.core.files import write_json
from indexnet.core.metric_facts import FACTS
from indexnet.metrics import list_metrics
from indexnet.run.folder import prepare
from indexnet.sweep import frozen as jobs_frozen
from indexnet.sweep import launch
from indexnet.sweep.pool import Job, Outcome

ROWS = ["experiments=quickstart", "rows=hin,max_unpool", "seeds=0,1,5", "budget=smoke"]
ROW = ["experiments=quickstart", "rows=hin", "seeds=0,1", "budget=smoke"]  # where one shows it


@pytest.fixture
def sweep(monkeypatch):
    """Launch a sweep whose jobs do nothing; gives the frozen configurations and how many were composed for them."""
    captured: list[dict] = []
    frozen: list[dict] = []
    freeze = jobs_frozen.freeze

    def run_sweep(jobs, titles, **options):
        captured[:] = jobs
        return [Outcome(Job(Path(str(index)), "", 0), "done") for index, _ in enumerate(jobs)]

    def count(composed):
        frozen.append(freeze(composed))
        return frozen[-1]

    monkeypatch.setattr(launch, "run_sweep", run_sweep)
    monkeypatch.setattr(jobs_frozen, "freeze", count)

    def run(*arguments: str) -> tuple[list[dict], int]:
        frozen.clear()
        captured.clear()
        assert main(["train", "-m", *arguments]) == 0
        return list(captured), len(frozen)

    return run


def test_the_seeds_of_a_row_are_composed_once(sweep):
    found, composed = sweep(*ROWS)
    assert composed == 2
    assert [(config["resampling"]["name"], config["seed"]) for config in found] == [
        (name, seed) for seed in (0, 1, 5) for name in ("max_unpool", "indexnet")
    ]
    for config in found[2:]:
        first = found[0] if config["resampling"]["name"] == "max_unpool" else found[1]
        assert {**config, "seed": 0} == first
        assert list(config) == list(first)  # config.yaml is written in this order
    assert not list(Path().iterdir())
    changed, composed = sweep(*ROW, "training.batch_size=1")
    assert composed == 1
    assert {config["training"]["batch_size"] for config in changed} == {1}


def test_a_table_that_is_done_is_known_by_its_folders(sweep):
    found, _ = sweep(*ROW)
    folders = [prepare(config).path for config in found]
    for folder in folders:
        write_json(folder / "record.json", {"schema": 1, "status": "done"})
    assert sweep(*ROW) == (found, 0)
    assert sweep(*ROW, "trainer.num_workers=1")[1] == 0  # where and how is no part of what a run is
    assert sweep(*ROW, "training.batch_size=1")[1] == 1
    assert sweep(*ROW, "training.batch_size=7")[1] == 0  # the budget caps it
    write_json(folders[-1] / "record.json", {"schema": 1, "status": "failed"})
    assert sweep(*ROW)[1] == 1


def test_a_value_that_follows_the_seed_is_composed_for_each(sweep):
    found, composed = sweep("task=matting", "data.seed=${seed}", "seed=3,4")
    assert ([config["data"]["seed"] for config in found], composed) == ([3, 4], 2)


def test_what_is_computed_from_outside_the_files_is_looked_at_again(sweep, monkeypatch):
    for place in ("here", "there"):
        monkeypatch.setenv("PLACE", place)
        found, _ = sweep(*ROW, "paths.data=${oc.env:PLACE}")
        assert {config["paths"]["data"] for config in found} == {place}


def test_a_mistake_leaves_nothing(sweep):
    assert main(["train", "-m", "task=reconstruction", "training.batch_size=2,0"]) == 2
    assert not list(Path().iterdir())


def test_files_of_a_persons_own(sweep):
    folder = Path("own/optimizer")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("name: adam\nlr: 0.5\nencoder_lr_multiplier: auto\n")
    found, composed = sweep(*ROW, "optimizer=mine", "--config-dir", "own")
    assert (composed, found[0]["optimizer"]["lr"]) == (1, 0.003)  # what the experiment says goes first


def test_a_row_notes_what_it_changes(sweep):
    found, _ = sweep(*ROW, "optimizer.lr=0.5", "trainer.num_workers=1")
    assert {str(config["changes"]) for config in found} == {"[['optimizer.lr', '0.5', '0.003']]"}
    assert found[0]["protocol"] == {"training.batch_size": 32, "optimizer.lr": 0.003}
    assert sweep(*ROW)[0][0]["changes"] == []


def test_an_option_of_what_rows_and_lists_choose_is_looked_up_in_each_job(sweep, capsys):
    table = ("experiments=quickstart", "seeds=0", "budget=smoke")
    (config,), _ = sweep(*table, "rows=carafe", "resampling.k_up=3")
    assert (config["resampling"]["k_up"], config["changes"]) == (3, [["resampling.k_up", "3", "5"]])
    found, _ = sweep("task=reconstruction", "resampling=carafe,fade", "resampling.k_up=3", "budget=smoke")
    assert [each["resampling"]["k_up"] for each in found] == [3, 3]
    for row, word, said in (
        ("max_unpool", "resampling.k_up=3", "resampling 'max_unpool' has no option 'k_up'. Its options: none."),
        ("carafe", "resampling.k_upp=3", "resampling 'carafe' has no option 'k_upp'. Did you mean 'k_up'?"),
        ("carafe", "training.stepps=3", "unknown config key 'training.stepps'. Did you mean 'training.steps'?"),
    ):
        assert main(["train", "-m", *table, f"rows={row}", word]) == 2
        assert capsys.readouterr().err.startswith(f"indexnet: {said}")


def test_what_one_row_alone_refuses_names_the_row(sweep, capsys):
    table = (
        "experiments=tpami/table5_denoising",
        "seeds=0",
        "budget=smoke",
        "rows=[dncnn_sigma25,dncnn_segnet_sigma25]",
    )
    assert main(["train", "-m", *table, "network.base_channels=8"]) == 2
    assert capsys.readouterr().err.startswith(
        "indexnet: row 'dncnn_sigma25': unknown config key 'network.base_channels'."
    )
    assert main(["train", "-m", *table, "training.stepps=8"]) == 2
    assert capsys.readouterr().err.startswith("indexnet: unknown config key 'training.stepps'.")
    lists = ("task=denoising", "network=dncnn_segnet,dncnn", "network.base_channels=8", "budget=smoke")  # no rows
    assert main(["train", "-m", *lists]) == 2
    assert capsys.readouterr().err.startswith("indexnet: unknown config key 'network.base_channels'.")


def test_metric_facts_are_those_of_the_registry():
    package = {info.name: info for info in list_metrics() if info.name in FACTS}
    assert package == FACTS
