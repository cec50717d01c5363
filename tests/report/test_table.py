"""indexnet.report: numbers computed by hand, and what is said where something is missing."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from html import unescape

import pytest
import yaml

from indexnet.commands import report
from indexnet.report import html, markdown, remarks, terminal
from indexnet.report.build import build
from indexnet.report.numbers import count, fixed, parse_number, signed, significant, spread
from indexnet.report.provenance import facts
from indexnet.run.config import compose, freeze
from indexnet.run.run_sets import find_run_sets
from indexnet.run.tables import load_experiment
from report_checker import check
from report_fabricated import MAE, PSNR, column, experiment, record, row, write_run


@pytest.fixture
def four_rows(tmp_path):
    """Three measured rows (the third not to be told apart from the best), one pending; one run failed, one missing."""
    printed = {"a": "25.88", "b": "29.33", "c": "48.37"}
    rows = [
        row(
            "a",
            "Nearest",
            printed={"psnr": printed["a"], "params": "3.75M", "params_value": "3750000", "gflops": "4.08"},
        ),
        row("b", "Unpooling", printed={"psnr": printed["b"], "params": "+4.99K", "params_value": "4990"}),
        row("c", "M2O", printed={"psnr": printed["c"]}),
        row("d", "A2U", pending="the operator is not there yet"),
    ]
    values = {
        ("a", 0): [20.0, 22.0, 24.0, 26.0],  # 23
        ("a", 1): [21.0, 23.0, 25.0, 27.0],  # 24
        ("b", 0): [30.0, 32.0, 34.0, 36.0],  # 33
        ("b", 1): [31.0, 33.0, 35.0, 37.0],  # 34
        ("c", 0): [30.5, 31.5, 34.5, 35.5],  # 33
    }
    for (name, seed), images in values.items():
        metrics = {"psnr": sum(images) / 4, "mae": 1 / sum(images)}
        costs = {"parameters": 3_753_259 if name == "a" else 3_758_251, "paper_gflops": 4.0808}
        per_image = {"psnr": images, "mae": [0.1, 0.1, 0.1, 0.1]}
        write_run(tmp_path, name, seed, record(metrics, **costs), per_image=per_image)
    write_run(tmp_path, "c", 1, record(status="diverged", error="the loss is NaN at step 57"))
    columns = [column(**{**PSNR, "printed": "psnr"}), column(**MAE)]
    return experiment(rows, columns, seeds=(0, 1, 2), reference="a"), find_run_sets(tmp_path, "made_up")[0]


def test_mean_sd_rank_and_best(four_rows):
    table = build(*four_rows)
    nearest, unpooling, m2o, a2u = (line.measured["psnr"] for line in table.rows)
    assert nearest.mean == 23.5
    assert nearest.sd == pytest.approx(math.sqrt(0.5))
    assert (nearest.rank, nearest.best, nearest.best_seed) == (3, False, 1)
    assert (unpooling.mean, unpooling.rank, unpooling.best) == (33.5, 1, True)
    assert (m2o.mean, m2o.sd, m2o.rank, m2o.best) == (33.0, None, 2, False)
    assert (a2u.mean, a2u.sd, a2u.rank, a2u.best_seed) == (None, None, None, None)
    less = [line.measured["mae"].rank for line in table.rows]
    assert less == [3, 1, 2, None]  # smaller is better


def test_bootstrap_marks_only_what_cannot_be_told_apart(four_rows):
    table = build(*four_rows)
    nearest, unpooling, m2o, _ = (line.measured["psnr"] for line in table.rows)
    assert m2o.tied  # differences to Unpooling, seed 0: +0.5, -0.5, +0.5, -0.5
    assert m2o.interval is not None
    assert m2o.interval.seeds == 1
    assert (m2o.interval.low, m2o.interval.high) == (-0.5, 0.5)
    assert not nearest.tied
    assert nearest.interval is not None
    assert (nearest.interval.low, nearest.interval.high) == (-10.0, -10.0)
    assert not unpooling.tied


def test_kendall_with_the_printed_order(four_rows):
    table = build(*four_rows)
    # printed: a < b < c; measured: a < c < b; 2 of 3 pairs agree
    (block,) = table.blocks
    assert block.agreement["psnr"].tau == pytest.approx(1 / 3)
    assert block.agreement["psnr"].rows == 3
    assert "mae" not in block.agreement  # nothing printed
    assert "order of 3 rows" in remarks.agreement(table)
    assert "PSNR (dB) 0.33." in remarks.agreement(table)


def test_what_is_missing_and_why(four_rows):
    table = build(*four_rows)
    assert [(p.label, p.seed, p.status) for p in table.problems] == [
        ("Nearest", 2, "missing"),
        ("Unpooling", 2, "missing"),
        ("M2O", 1, "diverged"),
        ("M2O", 2, "missing"),
    ]
    assert table.problems[2].reason == "the loss is NaN at step 57"
    assert (table.done, table.expected) == (5, 9)
    assert [line.state(3) for line in table.rows] == [
        "2 of 3 seeds",
        "2 of 3 seeds",
        "1 of 3 seeds, 1 diverged",
        "pending",
    ]
    assert any("different numbers of finished seeds (1: M2O; 2: Nearest, Unpooling)" in text for text in table.warnings)
    assert "4 of 9 runs have no result yet" in remarks.headline(table)


def test_differences_only_where_data_and_budget_are_those_of_the_paper(four_rows, tmp_path):
    made, runs = four_rows
    table = build(made, runs)
    assert not table.comparable
    assert all(line.measured["psnr"].difference is None for line in table.rows)
    assert "no differences are given" in remarks.comparison(table)
    assert "photos at budget small" in remarks.comparison(table)


THESIS = "thesis/table3_2_reconstruction"
ROW = "maxpool_unpool"  # printed: 29.33 dB


def write_thesis(runs, *overrides, setting="fashion_mnist-paper", config=None, name=ROW, metrics=None):
    """A finished run of the thesis table with the configuration that these overrides really give."""
    experiment_row = next(each for each in load_experiment(THESIS).rows if each.name == name)
    folder = write_run(runs, name, 0, record(metrics or {"psnr": 30.0}), name=THESIS, setting=setting)
    if config is None:
        asked = [f"experiments={THESIS}", *experiment_row.overrides, f"experiment.row={name}", *overrides]
        config = yaml.safe_dump(freeze(compose(asked)))
    (folder / "config.yaml").write_text(config, encoding="utf-8")


def thesis_table(runs):
    return build(load_experiment(THESIS), find_run_sets(runs, THESIS)[0])


def measured(table, name=ROW):
    return next(line for line in table.rows if line.name == name).measured["psnr"]


def in_terminal(table, folder, capsys):
    report.show(table, folder)
    return " ".join(capsys.readouterr().out.split())


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


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.steps=5", "training.steps 5 instead of unset"),
        ("training.epochs=5", "training.epochs 5 instead of 100"),
        ("training.batch_size=50", "training.batch_size 50 instead of 100"),
        ("network.widths=[8,16]", "network.widths [8, 16] instead of [32, 64, 128]"),
        ("optimizer.lr=0.1", "optimizer.lr 0.1 instead of 0.01"),
        ("schedule.gamma=0.5", "schedule.gamma 0.5 instead of 0.1"),
        ("budget.max_steps=5", "budget.max_steps 5 instead of unset"),
        ("debug=overfit", "debug.overfit true instead of false"),
        ("data.fit=pad", "data.fit pad instead of resize"),
        ("trainer.gradient_clip=0.5", "trainer.gradient_clip 0.5 instead of unset"),
    ],
)
def test_a_changed_protocol_is_named_and_not_compared(tmp_path, capsys, override, said):
    write_thesis(tmp_path, override)
    table = thesis_table(tmp_path)
    assert table.protocol.changes == (said,)
    assert not table.comparable
    assert measured(table).difference is None
    assert all(line["psnr_difference"] == "" for line in read_csv(table))
    texts = [markdown.markdown(table), unescape(html.page(table, "now")), in_terminal(table, tmp_path, capsys)]
    for text in texts:
        assert f"do not follow the experiment's protocol: {said}." in text
        assert "no differences are given" in text
        assert "Same data" not in text
        assert "full protocol" not in text
    assert dict(facts(table))["Protocol"] == f"changed: {said}"


@pytest.mark.parametrize(("value", "shown"), [(0.0735, "0.0735"), (0.735, "0.735"), (7.35, "7.35"), (735.0, "735.00")])
def test_other_data_get_the_decimals_that_their_numbers_need(tmp_path, value, shown):
    write_run(tmp_path, "a", 0, record({"psnr": value}))
    made = experiment([row("a", "A")], [column(**PSNR)], seeds=(0,))
    assert f"{shown} ★" in markdown.markdown(build(made, find_run_sets(tmp_path, "made_up")[0])).replace("*", "")


def test_many_changes_are_counted_where_space_is_short_and_named_once(tmp_path):
    write_thesis(tmp_path, "training.steps=5", "training.batch_size=50", "optimizer.lr=0.1")
    table = thesis_table(tmp_path)
    assert dict(facts(table))["Protocol"] == "3 settings changed, named below the table"
    assert markdown.markdown(table).count("optimizer.lr 0.1 instead of 0.01") == 1


def test_a_change_of_some_rows_names_them(tmp_path):
    write_thesis(tmp_path)
    write_thesis(tmp_path, "training.epochs=5", name="s2d_d2s", metrics={"psnr": 31.0})
    table = thesis_table(tmp_path)
    assert table.protocol.changes == ("training.epochs 5 instead of 100 (S2D-D2S)",)
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
    made = experiment([row("a", "A")], [column(**PSNR)], seeds=(0,))
    said = dict(facts(build(made, find_run_sets(tmp_path, "made_up")[0])))
    assert said["Budget"] == "paper (full, as the experiment file says)"


@pytest.mark.parametrize(("rows", "said"), [(1, "only one row is measured"), (2, "no per-image results")])
def test_legend_says_why_nothing_is_told_apart(tmp_path, rows, said):
    for name in ("a", "b")[:rows]:
        images = {"psnr": [30.0, 31.0]} if rows == 1 else None
        write_run(tmp_path, name, 0, record({"psnr": 30.0 + (name == "b")}), per_image=images)
    made = experiment([row("a", "A"), row("b", "B")], [column(**PSNR)], seeds=(0,))
    text = " ".join(remarks.legend(build(made, find_run_sets(tmp_path, "made_up")[0])))
    assert said in text
    assert ("no per-image results" in text) == (rows == 2)


def test_smoke_ranks_nothing_whatever_the_experiment_says(tmp_path, capsys):
    for number, name in enumerate(("a", "b")):
        images = {"psnr": [30.0 + number, 31.0 + number]}
        write_run(tmp_path, name, 0, record({"psnr": 30.5 + number}), setting="photos-smoke", per_image=images)
    rows = [row("a", "A", printed={"psnr": "1"}), row("b", "B", printed={"psnr": "2"})]
    made = experiment(rows, [column(**{**PSNR, "printed": "psnr"})], seeds=(0,))
    table = build(made, find_run_sets(tmp_path, "made_up")[0])
    cells = [cell for line in table.rows for cell in line.measured.values()]
    assert not any(cell.best or cell.tied or cell.rank for cell in cells)
    for text in (markdown.markdown(table), html.page(table, "now"), in_terminal(table, tmp_path, capsys)):
        assert "The budget smoke ranks nothing" in text
        assert "★" not in text
        assert "Best" not in text
        assert "Kendall" not in text


def test_no_ranks_where_the_budget_ranks_nothing(four_rows):
    made, runs = four_rows
    made = experiment(made.rows, made.columns, seeds=made.seeds, ranks=False)
    table = build(made, runs)
    cells = [cell for line in table.rows for cell in line.measured.values()]
    assert not any(cell.best or cell.tied or cell.rank for cell in cells)
    banner = remarks.banner(table)
    assert "ranks nothing" in banner
    assert "up to 10.00" in banner  # means 23.5 ... 33.5
    assert "seeds of one row by up to 1.00" in banner
    assert remarks.agreement(table) == ""
    assert "Best" not in remarks.headline(table)
    assert "★" not in markdown.markdown(table)


def read_csv(table):
    return list(csv.DictReader(io.StringIO(markdown.table_csv(table))))


def test_csv_holds_plain_numbers(four_rows):
    table = build(*four_rows)
    first, second, third, fourth = read_csv(table)
    assert (first["label"], first["psnr_mean"], first["psnr_n"], first["psnr_rank"]) == ("Nearest", "23.5", "2", "3")
    assert float(first["psnr_sd"]) == pytest.approx(math.sqrt(0.5))
    assert (first["psnr_best"], first["psnr_best_seed"], first["psnr_tied"]) == ("24", "1", "0")
    assert first["psnr_per_seed"] == "0:23;1:24"
    assert (first["psnr_interval_low"], first["psnr_interval_high"]) == ("-10", "-10")
    assert (first["printed_psnr"], first["psnr_difference"]) == ("25.88", "")
    assert (first["printed_params"], first["parameters"], first["printed_gflops"]) == ("3750000", "3753259", "4.08")
    assert (second["printed_params"], second["psnr_rank"], second["psnr_tied"]) == ("4990", "1", "0")
    assert (third["psnr_sd"], third["psnr_tied"]) == ("", "1")
    assert (fourth["pending"], fourth["psnr_mean"]) == ("the operator is not there yet", "")
    assert [line["status"] for line in (first, second, third, fourth)] == ["partial", "partial", "partial", "pending"]
    words_of = ("base", "row", "label", "status", "pending", "data", "budget")
    for line in (first, second, third, fourth):
        for key, cell in line.items():
            if key not in words_of and not key.endswith("_per_seed") and cell:
                float(cell)


def test_zero_runs_leave_measured_cells_empty_and_printed_ones_in_place(four_rows):
    made, _ = four_rows
    table = build(made, None)
    for line in read_csv(table):
        measured = [f"{m}_{name}" for m in ("psnr", "mae") for name in (*markdown.MEASURED, *markdown.INTERVAL)]
        assert set(measured) < set(line)
        assert all(line[key] == "" for key in [*measured, "parameters", "data", "budget"])
        assert line["seeds_finished"] == "0"
    assert read_csv(table)[1]["printed_psnr"] == "29.33"
    assert "indexnet train -m experiments=made_up" in remarks.headline(table)
    assert facts(table) == [("Measured", "nothing yet: there are no runs")]
    assert len(table.problems) == 9
    assert remarks.problems(table) == []  # the headline says it all
    assert remarks.missing(table) == []
    assert not table.folded
    assert "29.33" in markdown.markdown(table)


def test_parameters_beside_a_printed_difference(four_rows):
    table = build(*four_rows)
    assert remarks.cost(table, table.rows[0], "parameters") == "3.75M"
    assert remarks.cost(table, table.rows[1], "parameters") == "3.76M (+4.99K)"


def test_markdown_says_where_the_numbers_come_from(four_rows):
    text = markdown.markdown(build(*four_rows))
    head = next(line for line in text.splitlines() if line.startswith("| # |"))
    assert "PSNR (dB) ↑ printed" in head
    assert "PSNR (dB) ↑ photos, small" in head
    assert "33.50 ± 0.71 ★" in text
    assert "33.00 ≈" in text
    assert "| M2O | 1 | diverged | the loss is NaN at step 57 |" in text
    assert "| Nearest | 2 | missing | not launched yet |" in text
    assert "A2U: pending, the operator is not there yet" in text
    widths = {line.count("|") for line in text.split("\n\n") for line in line.splitlines() if line.startswith("| ")}
    assert len(widths) == 2  # the table and the list of runs


def test_facts_name_data_budget_steps_seeds_and_hardware(four_rows):
    said = dict(facts(build(*four_rows)))
    assert said["Data"] == "photos: 4096 training samples, tested on 4"
    assert said["Budget"] == "small"
    assert said["Training"] == "200 steps, batch 64"
    assert said["Seeds"] == "0, 1, 2"
    assert said["Hardware"] == "a CPU (1 threads)"
    assert said["Time"] == "1.0 min of run time in all"
    assert said["Versions"] == "indexnet 0.1.0, torch 2.13.0"


def test_warns_where_runs_are_not_on_equal_terms(tmp_path):
    write_run(tmp_path, "a", 0, record({"psnr": 30.0}))
    other = record({"psnr": 31.0}, steps=400, data={"test": {"fingerprint": "cc"}})
    write_run(tmp_path, "b", 0, other)
    made = experiment([row("a", "A"), row("b", "B")], [column(**PSNR)], seeds=(0,))
    table = build(made, find_run_sets(tmp_path, "made_up")[0])
    assert any("training steps (200: A; 400: B)" in text for text in table.warnings)
    assert any("test data (fingerprints) (bb: A; cc: B)" in text for text in table.warnings)


def test_rows_that_the_experiment_does_not_know_come_last(tmp_path):
    write_run(tmp_path, "extra", 0, record({"psnr": 30.0}, label="My own row"))
    made = experiment([row("a", "A")], [column(**PSNR)], seeds=(0,))
    table = build(made, find_run_sets(tmp_path, "made_up")[0])
    assert [line.label for line in table.rows] == ["A", "My own row"]


# --- rows in blocks, test splits with names -----------------------------------------------------------------------

SPLITS = {"bsd68": [30.0, 31.0, 32.0, 33.0], "set12": [34.0, 35.0]}
SIGMAS = (15, 25)


def blocked(**values):
    """Three rows at two noise levels, printed for the test splits of train400; another printed column stays empty."""
    printed = {
        ("a", 15): {"psnr_{s}": "31.7", "params": "7.09M"},
        ("b", 15): {"psnr_{s}": "31.2", "params": "+16"},
        ("c", 15): {},
        ("a", 25): {"psnr_{s}": "29.2", "params": "7.09M"},
        ("b", 25): {"psnr_{s}": "29.3", "params": "+16"},
        ("c", 25): {},
    }
    rows = [
        row(
            f"{name}_sigma{sigma}",
            f"{name.upper()}, sigma {sigma}",
            block=f"sigma {sigma}",
            base=name,
            printed=printed[name, sigma],
            pending="not there yet" if name == "c" else "",
        )
        for sigma in SIGMAS
        for name in ("a", "b", "c")
    ]
    columns = [
        column(**{**PSNR, "metric": "bsd68/psnr", "title": "BSD68 PSNR (dB)", "split": "bsd68", "printed": "psnr_{s}"}),
        column(**{**PSNR, "metric": "set12/psnr", "title": "Set12 PSNR (dB)", "split": "set12"}),
    ]
    defaults = {"seeds": (0,), "reference": "a", "exceptions": {"a": "miscounted"}, "printed_data": ("train400",)}
    return experiment(rows, columns, **{**defaults, **values})


def write_blocked(runs, setting="train400-small", splits=SPLITS):
    """Row a is better at sigma 15 by 1 dB, row b at sigma 25 by so little that some images disagree."""
    shifts = {("a", 15): [1.0] * 4, ("b", 15): [0.0] * 4, ("a", 25): [-5.0] * 4, ("b", 25): [-5.5, -4.4, -5.5, -4.4]}
    for (name, sigma), shift in shifts.items():
        found = {
            split: {"psnr": [a + b for a, b in zip(values, shift, strict=False)]} for split, values in splits.items()
        }
        metrics = {f"{s}/psnr" if s else "psnr": sum(v["psnr"]) / len(v["psnr"]) for s, v in found.items()}
        content = record(metrics, parameters=7_090_000 + 16 * (name == "b"))
        named = {"splits": found} if "" not in splits else {"per_image": found[""]}
        write_run(runs, f"{name}_sigma{sigma}", 0, content, setting=setting, curve=[(0, 1.0), (9, 0.1)], **named)
    return find_run_sets(runs, "made_up")[0]


def test_blocks_are_ranked_compared_and_correlated_apart(tmp_path):
    table = build(blocked(), write_blocked(tmp_path))
    assert [block.label for block in table.blocks] == ["sigma 15", "sigma 25"]
    assert [[line.number for line in block.rows] for block in table.blocks] == [[1, 2, 3], [1, 2, 3]]
    assert [line.short for line in table.rows] == ["A", "B", "C"] * 2
    (a15, b15, _), (a25, b25, _) = ([line.measured["bsd68/psnr"] for line in block.rows] for block in table.blocks)
    assert (a15.best, b15.best, b15.tied, b15.rank) == (True, False, False, 2)
    assert (b25.best, a25.best, a25.tied, a25.rank) == (True, False, True, 2)
    assert (b15.interval.images, a25.interval.images) == (4, 4)
    assert a15.mean == 32.5
    assert table.rows[0].measured["set12/psnr"].mean == 35.5
    assert [block.agreement["bsd68/psnr"].tau for block in table.blocks] == [1.0, 1.0]
    assert "of 2 rows" in remarks.agreement(table)
    assert "sigma 15: BSD68 PSNR (dB) 1.00; sigma 25: BSD68 PSNR (dB) 1.00" in remarks.agreement(table)
    assert (
        "Best BSD68 PSNR (dB) on train400 at budget small: sigma 15: A, 32.50 (one seed: spread unknown); "
        "sigma 25: B, 26.55 (one seed: spread unknown), not to be told apart from A."
    ) in remarks.headline(table)


def test_blocks_in_csv_markdown_and_terminal(tmp_path):
    from rich.console import Console

    table = build(blocked(), write_blocked(tmp_path))
    lines = read_csv(table)
    assert [(line["block"], line["base"], line["row"]) for line in lines[1:4]] == [
        ("sigma 15", "b", "b_sigma15"),
        ("sigma 15", "c", "c_sigma15"),
        ("sigma 25", "a", "a_sigma25"),
    ]
    assert (lines[0]["bsd68/psnr_mean"], lines[0]["set12/psnr_mean"], lines[0]["bsd68/psnr_rank"]) == (
        *("32.5", "35.5"),
        "1",
    )
    text = markdown.markdown(table)
    assert text.index("## sigma 15") < text.index("32.50 ★") < text.index("## sigma 25") < text.index("26.55 ★")
    assert text.count("| # |") == 2
    assert "A: known exception, miscounted" in text  # once, not once a block
    assert text.count("C: pending, not there yet") == 1
    console = Console(width=120, file=io.StringIO(), color_system=None)
    console.print(*terminal.layout(table, 120)[0])
    shown = console.file.getvalue()
    assert shown.index("sigma 15") < shown.index("32.50 ★") < shown.index("sigma 25") < shown.index("26.55 ★")
    assert "tested on 4" in dict(facts(table))["Data"]


def test_parameter_differences_refer_to_the_own_block_or_to_one_that_has_run(tmp_path):
    runs = write_blocked(tmp_path)
    table = build(blocked(), runs)
    assert [table.reference(line).name for line in table.rows[1::3]] == ["a_sigma15", "a_sigma25"]
    assert remarks.cost(table, table.rows[1], "parameters") == "7.09M (+16)"
    left = dataclasses.replace(runs, runs=tuple(run for run in runs.runs if run.row != "a_sigma25"))
    table = build(blocked(), left)
    assert remarks.cost(table, table.rows[4], "parameters") == "7.09M (+16)"


def test_rows_that_an_experiment_with_blocks_does_not_know_are_a_block_of_their_own(tmp_path):
    write_run(tmp_path, "mine", 0, record({"bsd68/psnr": 50.0}), setting="train400-small")
    table = build(blocked(), write_blocked(tmp_path))
    assert [block.label for block in table.blocks] == ["sigma 15", "sigma 25", "other rows"]
    assert table.rows[0].measured["bsd68/psnr"].best  # 50 dB are not compared with it
    check_page(table)


def check_page(table):
    return check(html.page(table, "now"))


def test_a_page_shows_blocks_everywhere(tmp_path):
    table = build(blocked(), write_blocked(tmp_path))
    page = html.page(table, "now")
    checker = check_page(table)
    heads = [attributes for tag, attributes in checker.tags if tag == "th" and attributes.get("scope") == "rowgroup"]
    assert len(heads) == 2 * 3  # results, seed by seed, costs
    line = page[page.index('<th scope="row">') :]
    assert int(heads[0]["colspan"]) == line[: line.index("</tr>")].count("<td") + 1
    section = page[page.index('id="glance"') : page.index('id="cost"')]
    assert [part.split("<")[0] for part in section.split("<h3>")[1:]] == ["sigma 15", "sigma 25"]
    assert section.count("<svg") == 4
    section = page[page.index('id="cost"') : page.index('id="curves"')]
    assert section.count("<svg") == 8  # parameters and GFLOPs, wide and narrow, per block
    assert section[section.index("<h3>") :].count('<span class="badge"') == 2  # one key for both blocks
    section = page[page.index('id="curves"') :]
    assert section.count("<svg") == 2  # a frame per row, a line per block
    assert section.count("<polyline") == 4


def test_no_ranks_in_blocks_name_the_spread_of_one_block(tmp_path):
    text = remarks.banner(build(blocked(ranks=False), write_blocked(tmp_path)))
    assert "of one of the 2 blocks differ by up to 1.00" in text  # not the 6 dB between the noise levels


@pytest.mark.parametrize("budget", ["small", "paper"])
def test_one_test_split_stands_in_for_those_of_the_table(tmp_path, budget):
    runs = write_blocked(tmp_path, f"photos-{budget}", {"": SPLITS["bsd68"]})
    table = build(blocked(), runs)
    assert [(c.metric, c.title, c.printed) for c in table.columns] == [("psnr", "PSNR (dB)", "psnr_{s}")]
    assert table.stand_in == "bsd68"
    assert not table.comparable
    assert table.rows[0].measured["psnr"].mean == 32.5
    said = "printed for the test splits bsd68 and set12; photos has one test split, whose numbers stand in for them."
    assert any(said in text for text in table.warnings)
    text = markdown.markdown(table)
    assert "PSNR (dB) ↑ printed, bsd68 |" in text
    assert "Set12" not in text
    assert "printed:<br>bsd68" in html.page(table, "now")
    check_page(table)
    assert set(read_csv(table)[0]) >= {"psnr_mean", "printed_psnr"}


def test_several_test_splits_stand_in_for_one(tmp_path):
    runs = write_blocked(tmp_path)
    rows = [row(f"{name}_sigma15", name, printed={"p": "29"}) for name in "ab"]
    table = build(experiment(rows, [column(**PSNR, printed="p"), column(**MAE)], printed_data=("mnist",)), runs)
    assert [(c.metric, c.printed) for c in table.columns] == [
        *(("bsd68/psnr", "p"), ("bsd68/mae", "")),
        ("set12/psnr", ""),  # MAE was measured nowhere; the first split keeps every column of the table
    ]
    assert [c.title for c in table.columns][::2] == ["bsd68 PSNR (dB)", "set12 PSNR (dB)"]
    assert table.stand_in == "mnist"
    assert any("train400 has the test splits bsd68 and set12, whose numbers" in text for text in table.warnings)


def test_named_splits_that_were_measured_in_part_stay(tmp_path):
    table = build(blocked(), write_blocked(tmp_path, splits={"bsd68": SPLITS["bsd68"]}))
    assert [c.metric for c in table.columns] == ["bsd68/psnr", "set12/psnr"]
    assert table.stand_in == ""
    assert build(blocked(), None).columns == blocked().columns


def test_differences_only_in_columns_with_printed_numbers(tmp_path):
    write_thesis(tmp_path, metrics={"psnr": 30.0, "mae": 0.1})
    made = dataclasses.replace(load_experiment(THESIS), columns=(load_experiment(THESIS).columns[0], column(**MAE)))
    table = build(made, find_run_sets(tmp_path, THESIS)[0])
    assert table.comparable
    head, cells = markdown.grid(table, table.rows, table.columns)
    assert head.count("difference") == 1
    assert {len(line) for line in cells} == {len(head)}
    page = html.page(table, "now")
    assert page.count('scope="col">difference</th>') == 1
    check_page(table)


# --- numbers that are no means of per-image numbers ---------------------------------------------------------------


def pooled_runs(tmp_path, second):
    for name, value, images in (("a", 40.0, [50.0, 52.0, "", 54.0]), ("b", 38.0, second)):
        write_run(tmp_path, name, 0, record({"miou": value}), per_image={"miou": images})
    made = experiment([row("a", "A"), row("b", "B")], [column(**{**PSNR, "metric": "miou", "title": "mIoU (%)"})])
    return build(made, find_run_sets(tmp_path, "made_up")[0])


def test_pooled_numbers_say_what_is_compared(tmp_path):
    table = pooled_runs(tmp_path, [45.0, 47.0, "nan", 49.0])
    best, other = (line.measured["miou"] for line in table.rows)
    assert (best.best, best.pooled, other.pooled, other.tied) == (True, True, True, False)
    assert other.interval.images == 3  # the image in which nothing counts is left out
    assert (other.interval.low, other.interval.high) == (-5.0, -5.0)
    text = " ".join(remarks.legend(table))
    assert "mIoU (%): computed from all images at once, so not the mean of the images' own numbers" in text
    page = unescape(html.page(table, ""))
    assert "mean of the images' own numbers minus the best's: 95 % interval −5.00 to −5.00" in page


def test_a_row_with_better_images_is_not_told_apart_from_the_best_pooled_number(tmp_path):
    table = pooled_runs(tmp_path, [55.0, 57.0, "", 59.0])
    assert table.rows[0].measured["miou"].best
    assert table.rows[1].measured["miou"].interval.low == 5.0
    assert table.rows[1].measured["miou"].tied


def test_means_of_images_are_not_called_pooled(four_rows):
    table = build(*four_rows)
    assert not any(line.measured["psnr"].pooled for line in table.rows)
    assert table.rows[0].measured["mae"].pooled  # fabricated: not the mean of its images


def test_finished_runs_without_a_number_are_named(tmp_path):
    write_run(tmp_path, "a", 0, record({"psnr": 30.0}))
    write_run(tmp_path, "b", 0, record({"psnr": float("nan")}))
    made = experiment([row("a", "A"), row("b", "B")], [column(**PSNR), column(**MAE)], seeds=(0,))
    table = build(made, find_run_sets(tmp_path, "made_up")[0])
    assert "PSNR (dB): the finished runs of B have no such number." in table.warnings
    assert not any("MAE" in text for text in table.warnings)  # nobody has one
    assert remarks.headline(table).startswith("Best PSNR (dB) on photos at budget small: A, 30.00")


@pytest.mark.parametrize("width", [50, 60, 80, 100, 160, 200])
def test_terminal_table_fits(four_rows, width):
    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(*terminal.layout(build(*four_rows), width)[0])
    text = console.file.getvalue()
    assert "33.50 ± 0.71 ★" in text
    assert "…" not in text
    assert "MAE" in text  # in a table of its own where the terminal is narrow
    assert text.count("Row") == (2 if width == 50 else 1)
    assert ("34.00 (1)" in text) == ("best seed" in text) == (width >= 80)
    assert ("GMACs" in text) == (width >= 160)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("50.2", 50.2),
        ("3.75M", 3750000.0),
        ("+4.99K", 4990.0),
        ("+16", 16.0),
        ("−0.5", -0.5),
        ("0.69M", 690000.0),
        ("", None),
        ("-", None),
        ("> 130.55M", None),
        ("n/a", None),
    ],
)
def test_parse_number(text, value):
    assert parse_number(text) == (pytest.approx(value) if value is not None else None)


def test_numbers_for_people():
    assert [count(v) for v in (16, 4990, 999_600, 3_753_259, 130_545_345, None)] == [
        "16",
        "4.99K",
        "1.00M",
        "3.75M",
        "131M",
        "",
    ]
    assert [significant(v) for v in (0.0457, 4.0808, 130.55, 0)] == ["0.0457", "4.08", "131", "0"]
    assert (fixed(-0.123, 2), signed(0.1, 1), signed(-0.1, 1)) == ("−0.12", "+0.1", "−0.1")
    assert (spread(30.0, None, 1), spread(30.0, 0.25, 2), spread(None, None, 2)) == ("30.0", "30.00 ± 0.25", "")
