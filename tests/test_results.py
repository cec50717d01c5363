"""What docs/results says was measured: from the records beside it, by the commands that stand beside it."""

from __future__ import annotations

import csv
import gzip
import math
import re
import shlex
import shutil
from pathlib import Path
from statistics import fmean

import pytest
import yaml
from results import FOLDER, MANIFEST, RUNS, collect, evaluations, results
from results_page import PAGE, TEMPLATE, figures, render

from indexnet.core.errors import UserError
from indexnet.run.identity import config_hash
from indexnet.run.record import Record
from indexnet.run.run_sets import read_config
from indexnet.sweep.frozen import compose_sweep

RESULTS = [result for result in results() if result.table.done]
NAMED = pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.name)


def test_the_page_is_made_of_the_records():
    assert render() == PAGE.read_text(encoding="utf-8"), "python benchmarks/results.py page"
    assert {name: (FOLDER / name).read_text(encoding="utf-8") for name in figures()} == figures()


def test_no_measured_number_is_typed_into_the_page():
    prose = re.sub(
        r"\{\{.*?\}\}|\{%.*?%\}|`[^`\n]*`|```.*?```|\]\([^)]*\)", "", TEMPLATE.read_text("utf-8"), flags=re.S
    )
    prose = re.sub(r"Tables? \d+(\.\d+)?(( and |, )\d+(\.\d+)?)*", "", prose)
    assert re.findall(r"\d+\.\d+|\d+ ?(?:%(?! interval)|dB|m\b)", prose) == []


@NAMED
def test_every_run_that_is_recorded_belongs_to_its_table(result):
    lines = list(csv.DictReader((result.folder / "table.csv").open(encoding="utf-8", newline="")))
    column = result.table.main.metric
    for line in lines:
        records = [
            Record.read(path) for path in sorted((RUNS / result.experiment / result.set).glob(f"{line['row']}/*"))
        ]
        assert int(line["seeds_finished"]) == len(records)
        if records:
            assert math.isclose(float(line[f"{column}_mean"]), fmean(r.metrics[column] for r in records), rel_tol=1e-9)
    page = gzip.decompress((result.folder / "report.html.gz").read_bytes()).decode("utf-8")
    assert result.table.experiment.title in page


@NAMED
def test_nothing_of_the_machine_is_left_in_what_is_kept(result):
    for file in [*(RUNS / result.experiment / result.set).rglob("*.*"), *(FOLDER / "evaluations").rglob("*.*")]:
        assert re.findall(r"(?:^|[\s\"'])/\w+/\S*", file.read_text(encoding="utf-8")) == [], file


@pytest.mark.long
@pytest.mark.parametrize("result", results(), ids=lambda result: result.name)
def test_the_command_makes_the_runs_that_are_recorded(result):
    configs = result.configs()
    assert len(configs) == result.runs
    expected = {(c["experiment"]["row"], c["seed"]): config_hash(c) for c in configs}
    assert {c["experiment"]["name"] for c in configs} == {result.experiment}
    for _, run in result.table.done_runs:
        assert run.record.config_hash == expected[run.row, run.seed] == config_hash(read_config(run)), run.path


@pytest.mark.parametrize("each", evaluations(), ids=lambda each: each.name)
def test_the_command_of_an_evaluation_is_the_one_that_is_recorded(each):
    words = shlex.split(each.command)
    assert words[:2] == ["indexnet", "evaluate"]
    assert words[words.index("--output") + 1] == f"docs/results/evaluations/{each.name}"
    if each.found:
        methods = [word for word in words[2 : words.index("--gallery")] if "=" not in word]
        assert [method["caption"] for method in each.found["methods"]] == [Path(word).stem for word in methods]
        assert f"data={each.found['data']['name']}" in words


@pytest.mark.long
def test_the_published_budgets_change_no_protocol():
    for each in yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["published"]:
        for config in compose_sweep(shlex.split(each["command"])[3:])[0]:
            assert config["changes"] == [], each["name"]


def test_collecting_keeps_what_is_there(tmp_path, monkeypatch):
    result = RESULTS[0]
    kept, runs, folder = (tmp_path / name for name in ("kept", "runs", "results"))
    shutil.copytree(RUNS, runs)
    monkeypatch.setattr("results.FOLDER", folder)
    monkeypatch.setattr("results.RUNS", kept)
    folder.mkdir()
    collect([result.name], runs)
    records = sorted(path.relative_to(kept) for path in kept.rglob("record.json"))
    assert records == sorted(
        path.relative_to(runs) for path in (runs / result.experiment / result.set).rglob("record.json")
    )
    assert sorted(path.name for path in (folder / result.name).iterdir()) == [
        "report.html.gz",
        "report.md",
        "table.csv",
    ]
    shutil.rmtree((runs / records[0]).parent)  # a folder that has fewer runs
    with pytest.raises(
        UserError,
        match=f"1 of the runs .* such as {records[0].parent.relative_to(result.experiment + '/' + result.set)}",
    ):
        collect([result.name], runs)
    assert all((kept / path).exists() for path in records)
    assert [path.name for path in folder.iterdir()] == [result.name]


def test_a_table_that_nobody_knows_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no table of"):
        collect(["nothing"], tmp_path)
