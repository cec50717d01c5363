"""``indexnet dashboard``: built for every experiment, compared with what a run logs, published to a local server."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from indexnet.cli import main
from indexnet.core.escape import markdown_cell
from indexnet.core.metric_facts import FACTS
from indexnet.report.build import build
from indexnet.report.dashboard import write
from indexnet.run.experiments.tables import list_experiments, load_experiment
from indexnet.run.run_sets import choose, find_run_sets
from report_fabricated import record, write_run
from wandb_offline import offline_runs, read_offline
from wandb_server import WandbServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb_workspaces")  # its own, about pydantic
NAME = "thesis/table3_2_reconstruction"


@pytest.fixture(autouse=True)
def _nobody(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    for name in ("HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "none"))
    monkeypatch.chdir(tmp_path)
    yield
    if sys.modules.get("wandb"):
        sys.modules["wandb"].teardown()


def _workspace(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "workspace.json").read_text())


def _panels(folder: Path) -> list[dict[str, Any]]:
    """The panels of the workspace and of the report."""
    sections = _workspace(folder)["spec"]["section"]["panelBankConfig"]["sections"]
    panels = [panel for section in sections for panel in section["panels"]]
    for block in json.loads((folder / "report.json").read_text())["spec"]["blocks"]:
        if block["type"] == "panel-grid":
            panels += block["metadata"]["panelBankSectionConfig"]["panels"]
    return panels


def _keys(panel: dict[str, Any]) -> list[str]:
    """What a panel draws: plain names, and ``summary:`` or ``config:`` before those that say where they stand."""
    config = panel["config"]
    kind = panel["viewType"]
    if kind in ("Bar Chart", "Run History Line Plot"):
        return [*config["metrics"], *([config["xAxis"]] if "xAxis" in config else [])]
    if kind == "Scatter Plot":
        return [config["xAxis"], config["yAxis"]]
    if kind == "Parallel Coordinates Plot":
        return [column["accessor"] for column in config["columns"]]
    if kind == "Media Browser":
        return config["mediaKeys"]
    assert kind == "Markdown Panel"
    return []


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_has_a_dashboard(name, tmp_path):
    experiment = load_experiment(name)
    write(build(experiment, None), tmp_path, "", "indexnet")
    content = _workspace(tmp_path)
    (runs,) = content["spec"]["section"]["runSets"]
    assert runs["filters"]["filters"][0]["value"] == name
    assert runs["grouping"] == [{"section": "run", "name": "jobType"}]
    panels = _panels(tmp_path)
    kinds = [panel["viewType"] for panel in panels]
    measured = [column for column in experiment.columns if column.metric in FACTS]
    costs = ["Scatter Plot"] if measured else []  # not where all is ranks that another site gives
    for kind in ("Run History Line Plot", "Parallel Coordinates Plot", "Media Browser", *costs):
        assert kinds.count(kind) >= 2  # in the workspace and in the report
    bars = {tuple(_keys(panel)) for panel in panels if panel["viewType"] == "Bar Chart"}
    for first in measured[:1]:
        assert (f"test/{first.metric}", f"printed/{first.metric}") in bars or not any(
            row.printed.get(first.printed) for row in experiment.rows
        )
    (about,) = [panel["config"]["value"] for panel in panels if panel["viewType"] == "Markdown Panel"]
    assert experiment.title in about
    for row in experiment.rows:
        for column in experiment.columns:
            if cell := row.printed.get(column.printed):
                label = markdown_cell(f"{row.label} (cited)" if row.cited else row.label)
                (line,) = [line for line in about.splitlines() if line.startswith(f"| {label} |")]
                assert f" {cell} " in line
    grids = [
        b for b in json.loads((tmp_path / "report.json").read_text())["spec"]["blocks"] if b["type"] == "panel-grid"
    ]
    blocks = list(dict.fromkeys(row.block for row in experiment.rows))
    assert len(grids) == len(blocks)
    for label, grid in zip(blocks, grids, strict=True):
        filters = {f["key"]["name"]: f["value"] for f in grid["metadata"]["runSets"][0]["filters"]["filters"]}
        rows = [row.name for row in experiment.rows if row.block == label]
        assert filters == {"group": name} | ({"jobType": rows} if label else {})


def test_choices_of_index_networks_come_first(tmp_path):
    write(build(load_experiment("tpami/table5_denoising"), None), tmp_path, "", "indexnet")
    (choices, *_) = [panel for panel in _panels(tmp_path) if panel["viewType"] == "Parallel Coordinates Plot"]
    assert _keys(choices)[:5] == [
        "config:resampling.value.family",
        "config:resampling.value.nonlinear",
        "config:resampling.value.context",
        "config:task.value.sigma",
        "summary:test/bsd68/psnr",
    ]


@pytest.mark.long
def test_panels_show_what_a_run_logs(tmp_path, capsys):
    from indexnet.run.config import compose, freeze
    from indexnet.run.folder import prepare
    from indexnet.run.job import run_job

    words = [f"experiments={NAME}", "experiment.row=ip_iu_hin", "resampling=indexnet", "resampling.family=hin",
             "data=photos", "budget=smoke", "network.widths=[4,8]", "training.steps=2", "training.batch_size=2",
             "data.train_count=8", "data.test_count=3", "trainer.accelerator=cpu", "trainer.num_workers=0",
             "logger=wandb", "logger.mode=offline", f"paths.runs={tmp_path / 'runs'}"]  # fmt: skip
    folder = prepare(freeze(compose(words)))
    assert run_job(folder.path) == 0
    (path,) = offline_runs(folder.path)
    run = read_offline(path)
    logged = {key for row in run.history for key in row} | set(run.summary)

    def there(key: str) -> bool:
        place, _, name = key.partition(":")
        if not name:
            return key in logged
        if place == "summary":
            top, _, inner = name.partition(".")
            return name in run.summary or inner in run.summary.get(top, {})
        group, value, inner = name.split(".", 2) if name.count(".") > 1 else (*name.split("."), "")
        assert (place, value) == ("config", "value")
        return inner in run.config[group] if inner else group in run.config

    assert main(["dashboard", NAME, "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "made")]) == 0
    assert "--publish saves both there" in capsys.readouterr().out
    keys = {key for panel in _panels(tmp_path / "made") for key in _keys(panel)}
    assert {"test/psnr", "printed/psnr", "train/loss", "pictures/output", "pictures/index/stage0"} <= keys
    assert {"config:resampling.value.family", "summary:record.paper_gflops"} <= keys
    assert [key for key in keys if not there(key)] == []
    (runs,) = _workspace(tmp_path / "made")["spec"]["section"]["runSets"]
    wanted = {"group": run.run["run_group"], "tags": ["photos-smoke"]}
    assert {each["key"]["name"]: each["value"] for each in runs["filters"]["filters"]} == wanted
    assert "photos-smoke" in run.run["tags"]
    columns = [column for column in runs["runFeed"]["columnOrder"] if not column.startswith("run:")]
    assert [column for column in columns if not there(column)] == []


def test_published_twice_is_one_workspace_and_one_report(tmp_path, monkeypatch, capsys):
    with WandbServer() as server:
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        assert main(["dashboard", "quickstart", "--publish", "--project", "tables"]) == 0
        said = capsys.readouterr().out
        assert f"Published workspace: {server.url}/me/tables?nw=" in said
        assert f"Published report: {server.url}/me/tables/reports/" in said
        assert main(["dashboard", "quickstart", "--publish", "--project", "tables"]) == 0
        saved = [(view["type"], view.get("id"), view["projectName"]) for view in server.views]
        assert saved == [
            ("project-view", None, "tables"), ("runs", None, "tables"),
            ("project-view", "view1", "tables"), ("runs", "view2", "tables"),
        ]  # fmt: skip
        assert main(["dashboard", "quickstart", "--publish", "--project", "others"]) == 0
        assert [view.get("id") for view in server.views[4:]] == [None, None]
        spec = json.loads(server.views[1]["spec"])
        (grid,) = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
        assert grid["metadata"]["runSets"][0]["project"]["name"] == "tables"


@pytest.mark.parametrize(
    ("logged_in", "sentence"),
    [
        (
            False,
            "--publish needs a W&B key, and `wandb login` asks for one; the files are in reports/quickstart/dashboard",
        ),
        (True, "W&B did not take the dashboard of you/indexnet ("),
    ],
)
def test_not_published_is_one_sentence_and_keeps_the_files(logged_in, sentence, tmp_path, monkeypatch, capsys):
    with WandbServer(accepts=False) as server:
        if logged_in:
            for name, value in server.environment(tmp_path / "home").items():
                monkeypatch.setenv(name, value)
        assert main(["dashboard", "quickstart", "--publish"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert _workspace(Path("reports/quickstart/dashboard"))["project"] == "indexnet"
    assert not Path("reports/quickstart/dashboard/published.json").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["quickstrat"], "Did you mean 'quickstart'"),
        (["quickstart", "--runs", "nowhere"], "--runs nowhere: there is no such folder"),
        (["quickstart", "--data", "photos-small"], "no such data and budget"),
        (["quickstart", "--output", "file"], "--output file is a file; give a folder"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, capsys):
    Path("file").write_text("mine")
    assert main(["dashboard", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert Path("file").read_text() == "mine"


def test_the_library_missing_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    monkeypatch.delitem(sys.modules, "indexnet.report.dashboard")
    assert main(["dashboard", "quickstart"]) == 2
    assert "needs the package wandb-workspaces: pip install 'indexnet[report]'" in capsys.readouterr().err


def test_runs_of_one_setting_are_chosen(tmp_path):
    for setting in ("photos-small", "photos-paper"):
        folder = tmp_path / "runs" / "quickstart" / setting / "hin" / "seed=0"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps({"schema": 1, "status": "done", "metrics": {"psnr": 20.0}}))
    runs = choose(find_run_sets(tmp_path / "runs", "quickstart"), "photos-small", "")
    write(build(load_experiment("quickstart"), runs), tmp_path / "made", "", "indexnet")
    (filters,) = [each["filters"]["filters"] for each in _workspace(tmp_path / "made")["spec"]["section"]["runSets"]]
    assert filters[1]["value"] == ["photos-small"]
    assert "photos at budget small" in (tmp_path / "made" / "report.json").read_text()


def test_a_table_of_two_data_sets_shows_the_rows_of_the_one_at_hand(tmp_path):
    write_run(tmp_path / "runs", "a2u_mnist", 0, record({"psnr": 20.0}), name="thesis/table4_1", setting="mnist-small")
    (runs,) = find_run_sets(tmp_path / "runs", "thesis/table4_1")
    write(build(load_experiment("thesis/table4_1"), runs), tmp_path / "made", "", "indexnet")
    blocks = json.loads((tmp_path / "made" / "report.json").read_text())["spec"]["blocks"]
    (grid,) = [each for each in blocks if each["type"] == "panel-grid"]
    assert grid["metadata"]["runSets"][0]["name"] == "mnist"
