"""Measured beside printed numbers: only where data, budget and protocol are those of the experiment file."""

from __future__ import annotations

import dataclasses
from html import unescape

import pytest

from indexnet.report import html, markdown, remarks
from indexnet.report.build import build
from indexnet.report.provenance import facts
from indexnet.run.experiments.tables import load_experiment
from indexnet.run.run_sets import find_run_sets
from report_fabricated import PSNR, built, column, experiment, record, row, write_run
from table_support import THESIS, in_terminal, measured, read_csv, write_thesis


def thesis_table(runs):
    return build(load_experiment(THESIS), find_run_sets(runs, THESIS)[0])


def test_differences_on_the_printed_data_budget_and_protocol(tmp_path):
    # where a run computes, where its data lie and how many seeds there are is no part of the protocol
    write_thesis(tmp_path, "paths.data=elsewhere", "trainer.num_workers=1", "logger=none")
    table = thesis_table(tmp_path)
    assert table.comparable
    assert table.protocol.followed
    assert not table.warnings
    assert measured(table).difference == pytest.approx(0.67)
    assert "Same data, budget and protocol" in remarks.comparison(table)
    assert "| +0.67 |" in markdown.markdown(table)
    assert {line["psnr_difference"] != "" for line in read_csv(table) if line["psnr_mean"]} == {True}
    assert dict(facts(table))["Budget"] == "paper (the full protocol)"
    assert "Protocol" not in dict(facts(table))


CHANGES = {
    "training.steps=5": "training.steps 5 instead of unset",
    "training.batch_size=50": "training.batch_size 50 instead of 100",
    "network.widths=[8,16]": "network.widths [8, 16] instead of [32, 64, 128]",
    "optimizer.lr=0.1": "optimizer.lr 0.1 instead of 0.01",
    "schedule.gamma=0.5": "schedule.gamma 0.5 instead of 0.1",
    "budget.max_steps=5": "budget.max_steps 5 instead of unset",
    "debug=overfit": "debug.overfit true instead of false",
    "data.fit=pad": "data.fit pad instead of resize",
    "trainer.gradient_clip_val=0.5": "trainer.gradient_clip_val 0.5 instead of unset",
}


def test_whatever_of_the_protocol_is_changed_is_named(tmp_path):
    write_thesis(tmp_path, *CHANGES)
    assert sorted(thesis_table(tmp_path).protocol.changes) == sorted(CHANGES.values())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epochs=90", "training.epochs 90 instead of 100"),
        ("budget.max_steps=5", "budget.max_steps 5 instead of unset"),
    ],
)
def test_a_changed_protocol_is_named_and_not_compared(tmp_path, override, said):
    write_thesis(tmp_path, override)
    table = thesis_table(tmp_path)
    assert table.protocol.changes == (said,)
    assert not table.comparable
    assert measured(table).difference is None
    assert all(line["psnr_difference"] == "" for line in read_csv(table))
    texts = [markdown.markdown(table), unescape(html.page(table, "now")), in_terminal(table)]
    for text in texts:
        assert f"do not follow the experiment's protocol: {said}." in text
        assert "no differences are given" in text
        assert "Same data" not in text
        assert "full protocol" not in text
    assert dict(facts(table))["Protocol"] == f"changed: {said}"


@pytest.mark.parametrize(("value", "shown"), [(0.0735, "0.0735"), (0.735, "0.735"), (7.35, "7.35"), (735.0, "735.00")])
def test_other_data_get_the_decimals_that_their_numbers_need(tmp_path, value, shown):
    write_run(tmp_path, "a", 0, record({"psnr": value}))
    table = built(tmp_path, [row("a", "A")], [column(**PSNR)], seeds=(0,))
    assert f"{shown} ★" in markdown.markdown(table)


def test_many_changes_are_counted_where_space_is_short_and_named_once(tmp_path):
    write_thesis(tmp_path, "training.steps=5", "training.batch_size=50", "optimizer.lr=0.1")
    table = thesis_table(tmp_path)
    assert dict(facts(table))["Protocol"] == "3 settings changed, named below the table"
    assert markdown.markdown(table).count("optimizer.lr 0.1 instead of 0.01") == 1


def test_a_change_of_some_rows_names_them(tmp_path):
    write_thesis(tmp_path)
    write_thesis(tmp_path, "training.epochs=90", name="s2d_d2s", metrics={"psnr": 31.0})
    table = thesis_table(tmp_path)
    assert table.protocol.changes == ("training.epochs 90 instead of 100 (S2D-D2S)",)
    assert not table.comparable
    assert table.blocks[0].agreement["psnr"].rows == 2  # orders may still be compared


def test_a_protocol_that_cannot_be_read_is_not_taken_for_the_printed_one(tmp_path):
    for config in ("seed: 0\n", "a: [", ""):
        folder = tmp_path / str(len(config))
        write_thesis(folder, config=config)
        table = thesis_table(folder)
        assert not table.comparable
        assert table.protocol.unknown == ("MaxPool-MaxUnpool",)
        assert any("cannot be told for MaxPool-MaxUnpool" in text for text in table.warnings)


def test_an_experiment_that_cannot_be_composed_is_not_compared(tmp_path):
    made = experiment([row("a", "A", printed={"psnr": "29"})], [column(**{**PSNR, "printed": "psnr"})], seeds=(0,))
    made = dataclasses.replace(made, printed_data=("photos",))
    folder = write_run(tmp_path, "a", 0, record({"psnr": 30.0}), setting="photos-paper")
    (folder / "config.yaml").write_text("training: {steps: 5}\n", encoding="utf-8")
    table = build(made, find_run_sets(tmp_path, "made_up")[0])
    assert table.protocol.unknown == ("A",)
    assert not table.comparable


def test_another_data_set_or_budget_is_not_compared_but_follows_the_protocol(tmp_path):
    for setting, override in (("photos-paper", "data=photos"), ("fashion_mnist-small", "budget=small")):
        write_thesis(tmp_path / setting, override, setting=setting)
        table = thesis_table(tmp_path / setting)
        assert table.protocol.followed
        assert not table.comparable
        assert "no differences are given" in remarks.comparison(table)


def test_a_full_budget_without_printed_numbers_is_that_of_the_experiment_file(tmp_path):
    write_run(tmp_path, "a", 0, record({"psnr": 30.0}), setting="photos-paper")
    said = dict(facts(built(tmp_path, [row("a", "A")], [column(**PSNR)], seeds=(0,))))
    assert said["Budget"] == "paper (full, as the experiment file says)"
