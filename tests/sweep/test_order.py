"""Runs that start from other runs: their order in a sweep, and what other commands say of rows of other tables."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from indexnet.report.build import build
from indexnet.run.experiments.tables import load_experiment
from indexnet.run.folder import RunFolder, prepare, run_path
from indexnet.run.run_sets import find_run_sets
from indexnet.sweep.launch import note_request, prepare_jobs, run_sweep
from indexnet.sweep.plan import compose_table, group_rows
from indexnet.sweep.pool import launch
from indexnet.sweep.status import find_settings
from launch_support import job_script, lines_of
from linked_support import TINY, write_tables
from run_support import refused


@pytest.fixture
def tables(tmp_path, monkeypatch):
    write_tables(tmp_path, monkeypatch)


def _contents(*words):
    return [config.content for config in compose_table("second", [*TINY, *words]).configs]


def _after(jobs, **sources):
    folders = {job.title: job.folder for job in jobs}
    return [
        dataclasses.replace(job, after=folders[sources[job.title]], source=f"t:{sources[job.title]}")
        if job.title in sources
        else job
        for job in jobs
    ]


def test_a_job_waits_for_the_job_that_it_starts_from(jobs):
    made = _after(jobs("slow-1", "ok-2", "ok-3", "ok-4"), **{"ok-2": "slow-1", "ok-3": "ok-2"})
    outcomes = launch(made, n_jobs=2, command=job_script)
    assert [outcome.status for outcome in outcomes] == ["done"] * 4
    assert [name for name, *_ in lines_of("started")] == ["slow-1", "ok-4", "ok-2", "ok-3"]
    begun = {name: float(time) for name, _, time in lines_of("started")}
    ended = {name: float(time) for name, time in lines_of("ended")}
    assert begun["ok-2"] >= ended["slow-1"]
    assert begun["ok-3"] >= ended["ok-2"]


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_what_starts_from_a_failed_job_fails_and_says_which(n_jobs, jobs):
    made = _after(jobs("mistake", "ok-1", "ok-2", "ok-3"), **{"ok-1": "mistake", "ok-2": "ok-1"})
    outcomes = launch(made, n_jobs=n_jobs, command=job_script)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "failed", "done"]
    assert outcomes[1].reason == "it starts from t:mistake, which has failed: UserError: no data in nowhere"
    assert outcomes[2].reason == "it starts from t:ok-1, which has failed"  # the cause is said once
    assert {name for name, *_ in lines_of("started")} == {"mistake", "ok-3"}
    again = launch(made, command=job_script)  # left as it is; nothing waits for ever
    assert again[1].reason.startswith("it starts from t:mistake, which has failed: failed before")


def test_frozen_runs_know_where_their_source_will_be(tables, tmp_path):
    configs = _contents("seeds=0,1")
    by_row = {(config["experiment"]["row"], config["seed"]): config for config in configs}
    assert [config["experiment"]["row"] for config in configs[:5]] == ["a", "b", "y", "early", "late"]
    for seed in (0, 1):
        source = RunFolder(run_path(by_row["b", seed])).checkpoint()
        assert by_row["y", seed]["init"] == {
            "parts": {"bottom": "bottom"}, "row": "first:b", "checkpoint": str(source.resolve()),
        }  # fmt: skip
    changed = {row: [key for key, *_ in by_row[row, 0]["changes"]] for row in ("b", "y", "late")}
    assert changed["b"] == ["network.widths", "data.train_count"]
    assert changed["y"] == [*changed["b"], "network.widths of first:b", "data.train_count of first:b"]
    assert changed["late"][2:] == ["network.widths of second:early", "data.train_count of second:early"]
    assert str(run_path(by_row["a", 0])) == "runs/first/photos-smoke/a/seed=0"
    jobs = prepare_jobs(configs)
    titles = {job.folder: job.title for job in jobs}
    assert [titles.get(job.after) for job in jobs[:5]] == [None, None, "b", None, "early"]


def test_a_source_is_not_done_again_because_its_row_is(tables):
    configs = _contents("rows=late")
    assert [config["experiment"]["row"] for config in configs] == ["early", "late"]
    for config in configs:
        _done(config)
    source, late = (RunFolder(run_path(config)) for config in configs)
    prepare_jobs(configs, rerun=True, kept=[source.path])
    assert [folder.status() for folder in (source, late)] == ["done", "new"]
    _done(configs[1])
    late.end_rerun()
    prepare_jobs(configs, rerun=True)
    assert [folder.status() for folder in (source, late)] == ["new", "new"]


def test_what_does_not_fit_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    rows = [
        {
            "name": "y",
            "overrides": ["network.widths=[6,8]"],
            "init": {"row": "first:a", "parts": {"contracting": "contracting"}},
        }
    ]
    write_tables(tmp_path, monkeypatch, second=rows)
    words = [word for word in TINY if not word.startswith("network.widths")]
    configs = [config.content for config in compose_table("second", words).configs]
    with refused("row y of second: init: of the part 'contracting' no weight fits what first:a holds"):
        run_sweep(configs)
    assert not (tmp_path / "runs").exists()


def _done(config, status="done", value=7.5):
    folder = prepare(config).path
    record = {"schema": 1, "status": status, "metrics": {"psnr": value}, "label": config["experiment"]["label"]}
    (folder / "record.json").write_text(json.dumps(record))


def test_status_of_a_row_whose_source_failed(tables):
    for config in _contents("seeds=0"):
        if config["experiment"]["row"] != "late":
            _done(config, "failed" if config["experiment"]["row"] == "early" else "done")
        else:
            prepare(config)
    (setting,) = find_settings(Path("runs"), load_experiment("second"))
    late = setting.runs[-1]
    assert (late.row, late.status, late.reason) == ("late", "failed", "it starts from second:early, which has failed")
    assert [command.rpartition(" ")[2] for command, _ in setting.commands] == ["retry_failed=true"]


def test_status_says_again_what_another_tables_command_said(tables):
    configs = [config.content for config in compose_table("first", [*TINY, "rows=a"]).configs]
    _done(*configs)
    words = ["-m", "experiments=first", "rows=a", "budget=smoke", "encoder.pretrained=false"]
    note_request(configs, words)
    (setting,) = find_settings(Path("runs"), load_experiment("second"))
    assert [command for command, _ in setting.commands] == [
        "indexnet train experiments=second -m budget=smoke encoder.pretrained=false"
    ]


def test_other_commands_read_a_row_from_where_its_run_is(tables):
    plan = compose_table("second", [*TINY, "seeds=0"])
    configs = [config.content for config in plan.configs]
    rows = {config["experiment"]["row"]: config for config in configs}
    _done(rows["a"], value=3.5)
    second = load_experiment("second")
    (setting,) = find_settings(Path("runs"), second)
    assert [(run.row, run.seed, run.status, run.metric) for run in setting.runs] == [
        ("x", 0, "done", 3.5), *((name, 0, "new", None) for name in ("y", "z", "early", "late")),
    ]  # fmt: skip
    assert [command for command, _ in setting.commands] == [
        "indexnet train -m experiments=second data=photos budget=smoke"
    ]
    for name in ("b", "y", "early"):
        _done(rows[name])
    (found,) = find_run_sets("runs", "second", second.borrowed)
    assert {(run.row, run.path.parent.name) for run in found.runs} == {
        ("x", "a"), ("y", "y"), ("z", "y"), ("early", "early"),
    }  # fmt: skip
    table = build(second, found)
    (block,) = table.blocks
    assert [(row.name, row.measured["psnr"].mean) for row in block.rows] == [
        ("x", 3.5), ("y", 7.5), ("z", 7.5), ("late", None),
    ]  # fmt: skip
    assert {row.name: (row.runs, row.left) for row in group_rows(plan)} == {
        "x": (1, []), "b": (1, []), "y": (1, []), "early": (1, []), "late": (1, [0]),
    }  # fmt: skip
