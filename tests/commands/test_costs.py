"""`indexnet costs`: printed and counted costs at the printed precision."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from indexnet.cli import main
from indexnet.commands.costs import Cell, as_printed, count, show
from indexnet.core.errors import UserError
from indexnet.networks import Costs
from indexnet.run.experiments.experiment import COST_CELLS
from indexnet.run.experiments.tables import list_experiments, load_experiment

# table: rows with printed costs, rows that agree, parameters of the baseline
PRINTED = {
    "official/readme": (2, 2, None),
    "tpami/table3_matting": (20, 19, 3_753_259),
    "tpami/table5_denoising": (20, 20, 7_087_873),
    "tpami/table6_sunrgbd": (17, 17, 24_964_645),
    "tpami/table7_nyudv2": (19, 15, 3_960_930),
    "thesis/table4_2_upsamplers": (12, 11, 8_049_003),
    "thesis/table4_5_benchmark": (4, 4, None),
    "thesis/table4_8_complexity": (6, 5, 8_049_003),
    "thesis/table5_2_decoder_skip": (10, 10, None),
    "thesis/table5_3_lfa_losses": (9, 9, None),
    "thesis/table5_4_comp1k": (4, 4, None),
    "thesis/table5_7_gflops": (2, 2, None),
    "thesis/table6_3_baselines": (3, 3, None),
    "thesis/table6_4_pspm_sharing": (6, 5, 8_153_771),
    "thesis/table6_7_pspm_pspnet": (3, 3, None),
}


def test_counted_costs_are_written_as_the_printed_ones():
    assert as_printed("3.75M", 3_753_259) == "3.75M"
    assert as_printed("130.55M", 130_545_345) == "130.55M"
    assert as_printed("+4.99K", 4_992) == "+4.99K"
    assert as_printed("+16", 16) == "+16"
    assert as_printed("4.08", 4.0808) == "4.08"
    assert Cell("+0.26M", as_printed("+0.26M", 262_304)).agrees
    assert not Cell("+0.26M", as_printed("+0.26M", 268_000)).agrees
    assert not Cell("+16", as_printed("+16", 17)).agrees
    assert not Cell("+16", as_printed("+16", -16)).agrees
    assert Cell("8.86M", as_printed("8.86M", 7_254_215)) == Cell("8.86M", "7.25M")
    with pytest.raises(UserError, match="'lots' cannot be read"):
        as_printed("lots", 3)


def pretend(counts, **changes):
    """Show a changed experiment with pretended counts."""
    found = dataclasses.replace(load_experiment("tpami/table3_matting"), **changes)
    found = dataclasses.replace(found, rows=tuple(row for row in found.rows if row.name in counts))
    return show(found, count(found, lambda _, row: Costs(*counts[row.name], assembly_macs=1)))


B11 = (3_753_259, 0, int(4.0808 * 1024**3), int(4.3817e9))
WIDE = (7_254_215, 0, int(7.6733 * 1024**3), int(8.2391e9))


def test_an_undeclared_difference_is_exit_code_1(capsys):
    assert pretend({"b11": B11}) == 0
    assert "1 of 1 rows with published costs agree" in capsys.readouterr().out
    assert pretend({"b11": B11, "b11_1_4": WIDE}) == 0
    said = capsys.readouterr().out
    assert "1 of 2 rows with published costs agree" in said
    assert (
        "B11-1.4 (declared exception): published 8.86M, counted 7.25M; published 7.61, counted 7.67: the released"
        in said
    )
    assert pretend({"b11": B11, "b11_1_4": WIDE}, exceptions={}) == 1
    assert "B11-1.4 disagrees: published 8.86M, counted 7.25M" in capsys.readouterr().out
    assert pretend({"b11": B11, "o2o_shared_l": (B11[0] + 81, *B11[1:])}) == 1
    assert "published +80, counted +81" in capsys.readouterr().out
    assert pretend({"b11": B11, "o2o_shared_l": (B11[0] + 80, *B11[1:])}) == 0
    assert pretend({"b11": (B11[0], 0, int(4.086 * 1024**3), 1)}) == 1
    assert "published 4.08, counted 4.09" in capsys.readouterr().out


def test_an_exception_that_agrees_is_said(capsys):
    assert pretend({"b11": B11}, exceptions={"b11": "never"}) == 0
    assert "declared as an exception, but agrees" in capsys.readouterr().out


def test_an_addition_needs_a_baseline():
    with pytest.raises(UserError, match="names no baseline"):
        pretend({"hin_l": B11}, reference=None)


def test_a_table_without_printed_costs(capsys):
    assert main(["costs", "tpami/table4_normalization"]) == 0
    said = capsys.readouterr().out
    assert "There are no published costs to compare with." in said
    assert said.count("8,153,771") == 4
    assert "4x224x224" in said
    assert said.count("published") == 1


def test_small_costs_keep_their_digits(capsys):
    assert main(["costs", "quickstart"]) == 0
    lines = {line.rsplit(None, 3)[0].strip(): line.split()[-3:] for line in capsys.readouterr().out.splitlines()[3:10]}
    assert lines["average pooling + nearest"] == ["86,017", "0.00742", "0.00796"]


def test_cited_rows_show_what_is_printed_of_them(capsys):
    found = load_experiment("thesis/table4_5_benchmark")
    found = dataclasses.replace(found, rows=tuple(row for row in found.rows if row.cited))
    assert show(found, count(found)) == 0
    said = capsys.readouterr().out
    shown = {words[0]: words[1:] for line in said.splitlines() if (words := line.split())[-1:] == ["cited"]}
    assert shown["Context-aware"][:2] == ["107.5M", "cited"]
    assert "> 130.55 M" in said
    assert said.count("not counted, cited from the thesis, from other papers.") == 1


def test_an_unknown_experiment(capsys):
    assert main(["costs", "tpami/table3_mating"]) == 2
    assert "Did you mean 'tpami/table3_matting'" in capsys.readouterr().err


def test_exceptions_may_be_about_one_cell(capsys):
    found = load_experiment("tpami/table7_nyudv2")
    rows = [row for row in found.rows if row.name in ("p_nnconv5", "o2o_modelwise_l", "o2o_shared_l")]
    found = dataclasses.replace(found, rows=tuple(rows))
    more = {"p_nnconv5": 0, "o2o_modelwise_l": 16, "o2o_shared_l": 80}

    def shown() -> int:
        return show(
            found, count(found, lambda _, row: Costs(3_960_930 + more[row.name], 0, int(1.0132 * 1024**3), 1, 1))
        )

    assert shown() == 0
    said = capsys.readouterr().out
    assert "1 of 3 rows with published costs agree." in said
    assert "modelwise O2O L (declared exception): published 1.02, counted 1.01: the index network adds" in said
    assert "shared O2O L (declared exception): published 1.02, counted 1.01: for the same reason." in said
    more["o2o_shared_l"] = 81  # another cell than the declared one
    assert shown() == 1
    assert "shared O2O L disagrees: published +80, counted +81; published 1.02, counted 1.0" in capsys.readouterr().out


def test_repeated_rows_are_counted_and_shown_once():
    found = load_experiment("tpami/table5_denoising")
    asked = []
    lines = count(found, lambda _, row: asked.append(row.name) or Costs(7_087_873, 0, 1, 1, 1))
    assert asked == [row.base for row in found.rows[:20]]
    assert [line.row.label for line in lines][:3] == ["DnCNN", "DnCNN-SegNet", "DnCNN-max-carafe"]


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in list_experiments() if not name.startswith("zoo/")])  # print none
def test_every_printed_cost_agrees_or_is_declared_not_to(name):
    """Every cell, at the printed precision, on the meta device."""
    found = load_experiment(name)
    lines = count(found)
    assert [line.costs is None for line in lines] == [bool(row.runs_never) for row in found.base_rows]
    assert all(line.is_fine for line in lines)
    rows, agree, parameters = PRINTED.get(name, (0, 0, None))
    assert sum(line.agrees is not None for line in lines) == rows
    assert sum(line.agrees is True for line in lines) == agree
    if parameters is not None:
        assert {line.row.name for line in lines if line.agrees is False} == set(found.exceptions)  # none that agrees
        baseline = next(line.costs for line in lines if line.row.name == found.reference)
        assert baseline.parameters == parameters
        # nothing is printed that is not counted
        cells = sum(bool(row.printed.get(key)) for row in found.base_rows if not row.pending for key in COST_CELLS)
        assert sum(len(line.cells) for line in lines) == cells


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("network.in_channels=0", "network.in_channels=0 must be"),
        ("network.in_channels=2.5", "network.in_channels=2.5 must be"),
        ("+network.foo=1", "has no option 'foo'"),
        ("+task.foo=1", "has no option 'foo'"),
        ("network.widths=abc", "network.widths='abc' must be"),
        ("optimizer.lr=no", "optimizer.lr='no' must be"),
    ],
)
def test_a_mistake_in_a_row_is_one_sentence(override, sentence, tmp_path, monkeypatch, mistake):
    (tmp_path / "experiments").mkdir()
    row = {"name": "wrong", "label": "Wrong", "overrides": ["resampling=max_unpool", override]}
    table = {"name": "mine", "title": "Mine", "source": "us", "columns": [{"metric": "psnr"}], "rows": [row]}
    text = "# @package _global_\n" + yaml.safe_dump(
        {"defaults": [{"override /task": "reconstruction"}], "experiment": table}
    )
    (tmp_path / "experiments" / "mine.yaml").write_text(text)
    monkeypatch.setenv("INDEXNET_EXPERIMENTS", str(tmp_path))
    mistake(main(["costs", "mine"]), sentence)


def test_gflops_by_another_rule_are_not_compared_with_the_printed_ones(capsys):
    found = load_experiment("tpami/table3_matting")
    found = dataclasses.replace(found, rows=tuple(row for row in found.rows if row.name == "b11"))
    costs = Costs(*B11, assembly_macs=10**9)
    lines = count(found, lambda *_: costs, rule="assembly")
    assert show(found, lines, "assembly") == 0
    said = capsys.readouterr().out
    assert "1 of 1 rows with published costs agree" in said  # its parameters
    assert "4.08" not in said
    assert f"{costs.gflops('assembly'):.2f}" in said
    assert "follow --rule papers, and are not compared" in " ".join(said.split())
