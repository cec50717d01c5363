"""Rows that are the runs of other rows, or start from them."""

from __future__ import annotations

import pytest

from indexnet.cli import main
from indexnet.report.build import build
from indexnet.report.table import Protocol
from indexnet.run.borrowed import borrowed_remarks
from indexnet.run.config import parse_overrides
from indexnet.run.experiments.tables import load_experiment
from indexnet.sweep import launch
from indexnet.sweep.expand import expand
from linked_support import FIRST, SECOND, write_tables
from run_support import refused


def _jobs(*words):
    return list(expand(parse_overrides(words)))


def _row(name, **values):
    return {"name": name, **values}


@pytest.fixture
def tables(tmp_path, monkeypatch):
    write_tables(tmp_path, monkeypatch)


def test_a_row_knows_the_row_that_it_is_or_starts_from(tables):
    second = load_experiment("second")
    x, y, z, early, late = second.rows
    assert (x.run_of.name, x.label, x.overrides) == ("first:a", "X", ("resampling=max_unpool",))
    assert (y.start.name, y.parts) == ("first:b", {"bottom": "bottom"})
    assert z.run_of.name == "second:y"
    assert z.run_of.row.start.name == "first:b"
    assert (early.intermediate, late.start.name, late.start.row.intermediate) == (True, "second:early", True)
    assert second.borrowed == {"x": ("first", "a"), "z": ("second", "y")}
    assert [row.name for row in second.base_rows] == ["x", "y", "z", "late"]  # those that are printed
    assert second.composed_of(x)[0] == "experiments=first"


def test_the_other_tables_run_is_launched_as_that_table_would(tables):
    words = ("data=mnist", "budget=smoke", "seeds=0,1")
    assert _jobs("experiments=second", "rows=x", *words) == _jobs("experiments=first", "rows=a", *words)
    with_axis = ("optimizer.lr=0.1,0.2",)
    assert _jobs("experiments=second", "rows=x", *with_axis) == _jobs("experiments=first", "rows=a", *with_axis)


def test_nothing_is_asked_for_twice(tables):
    rows = [text for job in _jobs("experiments=first,second") for text in job if text.startswith("experiment.row=")]
    assert rows == [f"experiment.row={name}" for name in ("a", "b", "y", "early", "late")]
    again = _jobs("experiments=second,first", "rerun=true")
    assert not any("rerun=false" in job for job in again if "experiments=first" in job)  # asked for by itself


def test_a_row_brings_the_row_along_that_it_starts_from(tables):
    source, own = _jobs("experiments=second", "rows=y", "rerun=true", "optimizer.lr=1,2")[:2]
    assert source == [
        "experiments=first", "resampling=nearest", "optimizer.lr=1", "rerun=false",
        "experiment.row=b--optimizer.lr-1", "experiment.label='B (optimizer.lr=1)'", "seed=0",
    ]  # fmt: skip
    assert "rerun=true" in own
    assert {"init.row='first:b--optimizer.lr-1'", "init.parts={bottom:bottom}"} <= set(own)
    with refused("init.parts={bottom: bottom} would replace what row 'y' of second is made of"):
        _jobs("experiments=second", "rows=y", "init.parts={bottom: bottom}")


def test_blocks_name_rows_of_their_own_block(tmp_path, monkeypatch):
    rows = [_row("a", overrides=["resampling=nearest"]), _row("b", same_as="a")]
    file = tmp_path / "experiments" / "second.yaml"
    repeat = "  repeat: {key: task.sigma, values: [15, 25], name: 's{task.sigma}', label: 'sigma {task.sigma}'}\n"
    write_tables(tmp_path, monkeypatch, second=rows, task="denoising", second_task="denoising")
    file.write_text(file.read_text() + repeat)
    assert load_experiment("second").borrowed == {"b_s15": ("second", "a_s15"), "b_s25": ("second", "a_s25")}


def test_other_settings_of_the_other_table_are_said(tmp_path, tables, monkeypatch, capsys):
    assert borrowed_remarks(load_experiment("second")) == []
    file = tmp_path / "experiments" / "second.yaml"
    settings = "optimizer: {lr: 0.5}\nnetwork: {widths: [4, 8]}\ntraining: {batch_size: 7}\n"
    file.write_text(file.read_text() + settings)
    experiment = load_experiment("second")
    said = (
        "x of second (same_as): trained by the settings of first, network.widths [32, 64, 128] instead of [4, 8], "
        "optimizer.lr 0.01 instead of 0.5, training.batch_size 100 instead of 7; to be compared with the other "
        "rows only if that is meant."
    )
    assert borrowed_remarks(experiment) == [said]  # not of z, which is a run of this table
    assert said in build(experiment, None, protocol=Protocol(borrowed=(said,))).warnings
    monkeypatch.setattr(launch, "run_sweep", lambda jobs, titles, **options: [])
    for rows, lines in (("x", [said]), ("z", [])):  # where it is launched
        main(["train", "-m", "experiments=second", f"rows={rows}", "budget=smoke"])
        assert [line for line in capsys.readouterr().err.splitlines() if "same_as" in line] == lines


@pytest.mark.parametrize(
    ("rows", "sentences"),
    [
        ([_row("x", same_as="first:c")], ["unknown row of first, which same_as of row 'x' of second names: 'c'"]),
        ([_row("x", same_as="frist:a")], ["same_as of row 'x' of second names frist:a", "Did you mean 'first'?"]),
        ([_row("x", same_as="y"), _row("y", same_as="x")], ["in a circle, second:x -> second:y -> second:x"]),
        ([_row("x", init={"row": "x"})], ["in a circle, second:x -> second:x"]),
        ([_row("x", same_as="first:a", overrides=["seed=1"])], ["is the same run as first:a, so it can have no over"]),
        ([_row("x", init={"row": "first:a", "part": {}})], ["Did you mean 'parts'?"]),
        ([_row("x", init={"row": "first:a", "parts": {"a b": "c"}})], ["must map names of own parts to names"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(rows, sentences, tmp_path, monkeypatch):
    write_tables(tmp_path, monkeypatch, second=rows)
    with refused(*sentences):
        load_experiment("second")


def test_a_circle_through_two_tables_and_another_task(tmp_path, monkeypatch):
    write_tables(tmp_path, monkeypatch, first=[_row("a", init={"row": "second:x"})], second=SECOND["rows"])
    with refused("in a circle, first:a -> second:x -> first:a"):
        load_experiment("first")
    write_tables(tmp_path, monkeypatch, first=FIRST["rows"], task="denoising")
    with refused("same_as of row 'x' of second names first:a, a row of task=denoising", "of task=reconstruction"):
        load_experiment("second")


def test_what_is_pending_is_so_through_all_that_needs_it(tmp_path, monkeypatch):
    first = [_row("a", pending="not here yet"), _row("b", pending="nor this")]
    write_tables(tmp_path, monkeypatch, first=first)
    with refused("row 'y' of experiment second cannot run yet: it starts from first:b: nor this."):
        load_experiment("second").select(["y"])
    assert [row.name for row in load_experiment("second").select(None)] == ["early", "late"]
