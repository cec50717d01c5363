"""`indexnet costs`: printed and counted costs at the printed precision."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

from indexnet.cli import main
from indexnet.errors import UserError
from indexnet.networks import Costs
from indexnet.run import costs, experiments
from indexnet.run.costs import Cell, count
from indexnet.run.experiments import load_experiment


def test_counted_costs_are_written_as_the_printed_ones():
    like = costs._like
    assert like("3.75M", 3_753_259) == "3.75M"
    assert like("130.55M", 130_545_345) == "130.55M"
    assert like("+4.99K", 4_992) == "+4.99K"
    assert like("+16", 16) == "+16"
    assert like("4.08", 4.0808) == "4.08"
    assert Cell("+0.26M", like("+0.26M", 262_304)).agrees
    assert not Cell("+0.26M", like("+0.26M", 268_000)).agrees
    assert not Cell("+16", like("+16", 17)).agrees
    assert not Cell("+16", like("+16", -16)).agrees
    assert Cell("8.86M", like("8.86M", 7_254_215)) == Cell("8.86M", "7.25M")
    with pytest.raises(UserError, match="'lots' cannot be read"):
        like("lots", 3)


@pytest.fixture
def pretend(monkeypatch):
    """Let `costs` see a changed experiment and pretended counts."""

    def make(counts, **changes):
        found = dataclasses.replace(load_experiment("tpami/table3_matting"), **changes)
        found = dataclasses.replace(found, rows=tuple(row for row in found.rows if row.name in counts))
        monkeypatch.setattr(experiments, "load_experiment", lambda name: found)
        monkeypatch.setattr(costs, "row_costs", lambda experiment, row: Costs(*counts[row.name]))
        return costs.main(argparse.Namespace(experiment="tpami/table3_matting"))

    return make


B11 = (3_753_259, 0, int(4.0808 * 1024**3), int(4.3817e9))
WIDE = (7_254_215, 0, int(7.6733 * 1024**3), int(8.2391e9))


def test_an_undeclared_difference_is_exit_code_1(pretend, capsys):
    assert pretend({"b11": B11}) == 0
    assert "1 of 1 rows with printed costs agree" in capsys.readouterr().out
    assert pretend({"b11": B11, "b11_1_4": WIDE}) == 0
    said = capsys.readouterr().out
    assert "1 of 2 rows with printed costs agree" in said
    assert (
        "B11-1.4 (declared exception): printed 8.86M, counted 7.25M; printed 7.61, counted 7.67: the released" in said
    )
    assert pretend({"b11": B11, "b11_1_4": WIDE}, exceptions={}) == 1
    assert "B11-1.4 disagrees: printed 8.86M, counted 7.25M" in capsys.readouterr().out
    assert pretend({"b11": B11, "o2o_shared_l": (B11[0] + 81, *B11[1:])}) == 1
    assert "printed +80, counted +81" in capsys.readouterr().out
    assert pretend({"b11": B11, "o2o_shared_l": (B11[0] + 80, *B11[1:])}) == 0
    assert pretend({"b11": (B11[0], 0, int(4.086 * 1024**3), 1)}) == 1
    assert "printed 4.08, counted 4.09" in capsys.readouterr().out


def test_an_exception_that_agrees_is_said(pretend, capsys):
    assert pretend({"b11": B11}, exceptions={"b11": "never"}) == 0
    assert "declared as an exception, but agrees" in capsys.readouterr().out


def test_an_addition_needs_a_baseline(pretend):
    with pytest.raises(UserError, match="names no baseline"):
        pretend({"hin_l": B11}, reference=None)


def test_a_table_without_printed_costs(capsys):
    assert main(["costs", "tpami/table4_normalization"]) == 0
    said = capsys.readouterr().out
    assert "The table prints no costs" in said
    assert said.count("8,153,771") == 4
    assert "4x224x224" in said


def test_an_unknown_experiment(capsys):
    assert main(["costs", "tpami/table3_mating"]) == 2
    assert "Did you mean 'tpami/table3_matting'" in capsys.readouterr().err


@pytest.mark.long
def test_19_of_the_20_printed_matting_costs_agree(capsys):
    assert main(["costs", "tpami/table3_matting"]) == 0
    said = capsys.readouterr().out
    assert "19 of 20 rows with printed costs agree." in said
    assert "B11-1.4 (declared exception): printed 8.86M, counted 7.25M; printed 7.61, counted 7.67" in said
    assert "DIM with refinement: pending" in said


@pytest.mark.long
def test_every_experiment_can_be_counted():
    for name in experiments.list_experiments():
        found = load_experiment(name)
        lines = count(found)
        assert [line.costs is None for line in lines] == [bool(row.pending) for row in found.rows]
        assert all(line.agrees is not False or line.exception for line in lines)
