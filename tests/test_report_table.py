"""indexnet.report.table and .formats: numbers computed by hand, and what is said where something is missing."""

from __future__ import annotations

import csv
import io
import math

import pytest

from indexnet.report import formats
from indexnet.report.numbers import count, fixed, parse_number, signed, significant, spread
from indexnet.report.records import find_run_sets
from indexnet.report.table import build, facts
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
    assert table.agreement["psnr"].tau == pytest.approx(1 / 3)
    assert table.agreement["psnr"].rows == 3
    assert "mae" not in table.agreement  # nothing printed
    assert "PSNR (dB) 0.33 (3 rows)" in formats.agreement(table)


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
    assert "4 of 9 runs have no result yet" in formats.headline(table)


def test_differences_only_where_data_and_budget_are_those_of_the_paper(four_rows, tmp_path):
    made, runs = four_rows
    table = build(made, runs)
    assert not table.comparable
    assert all(line.measured["psnr"].difference is None for line in table.rows)
    assert "no differences are given" in formats.comparison(table)
    assert "photos at budget small" in formats.comparison(table)


def test_differences_on_the_printed_data_at_the_printed_budget(tmp_path):
    rows = [row("a", "A", printed={"psnr": "29.33"}), row("b", "B")]
    made = experiment(rows, [column(**{**PSNR, "printed": "psnr"})], seeds=(0,), printed_data=("fashion_mnist",))
    for setting in ("fashion_mnist-paper", "fashion_mnist-small", "photos-paper"):
        for name in ("a", "b"):
            write_run(tmp_path, name, 0, record({"psnr": 30.0}), setting=setting)
    found = {each.name: build(made, each) for each in find_run_sets(tmp_path, "made_up")}
    assert [found[name].comparable for name in sorted(found)] == [True, False, False]
    table = found["fashion_mnist-paper"]
    assert table.rows[0].measured["psnr"].difference == pytest.approx(0.67)
    assert table.rows[1].measured["psnr"].difference is None
    assert "Same data and budget" in formats.comparison(table)
    assert "| +0.67 |" in formats.markdown(table)
    assert float(read_csv(table)[0]["psnr_difference"]) == pytest.approx(0.67)
    assert read_csv(found["photos-paper"])[0]["psnr_difference"] == ""


def test_no_ranks_where_the_budget_ranks_nothing(four_rows):
    made, runs = four_rows
    made = experiment(made.rows, made.columns, seeds=made.seeds, ranks=False)
    table = build(made, runs)
    cells = [cell for line in table.rows for cell in line.measured.values()]
    assert not any(cell.best or cell.tied or cell.rank for cell in cells)
    banner = formats.banner(table)
    assert "ranks nothing" in banner
    assert "up to 10.00" in banner  # means 23.5 ... 33.5
    assert "seeds of one row by up to 1.00" in banner
    assert formats.agreement(table) == ""
    assert "Best" not in formats.headline(table)
    assert "★" not in formats.markdown(table)


def read_csv(table):
    return list(csv.DictReader(io.StringIO(formats.table_csv(table))))


def test_csv_holds_plain_numbers(four_rows):
    table = build(*four_rows)
    first, second, third, fourth = read_csv(table)
    assert (first["label"], first["psnr_mean"], first["psnr_n"], first["psnr_rank"]) == ("Nearest", "23.5", "2", "3")
    assert float(first["psnr_sd"]) == pytest.approx(math.sqrt(0.5))
    assert (first["psnr_best"], first["psnr_best_seed"], first["psnr_best_or_tied"]) == ("24", "1", "0")
    assert (first["psnr_printed"], first["psnr_difference"]) == ("25.88", "")
    assert (first["printed_params"], first["parameters"], first["printed_gflops"]) == ("3750000", "3753259", "4.08")
    assert (second["printed_params"], second["psnr_best_or_tied"]) == ("4990", "1")
    assert (third["psnr_sd"], third["psnr_best_or_tied"]) == ("", "1")
    assert (fourth["pending"], fourth["psnr_mean"]) == ("the operator is not there yet", "")
    for line in (first, second, third, fourth):
        for key, cell in line.items():
            if key not in ("row", "label", "pending", "data", "budget") and cell:
                float(cell)


def test_zero_runs_leave_measured_cells_empty_and_printed_ones_in_place(four_rows):
    made, _ = four_rows
    table = build(made, None)
    for line in read_csv(table):
        measured = [k for k in line if k.endswith(("_mean", "_sd", "_n", "_rank", "_best", "_difference"))]
        assert measured
        assert all(line[key] == "" for key in [*measured, "parameters", "data", "budget"])
        assert line["seeds_finished"] == "0"
    assert read_csv(table)[1]["psnr_printed"] == "29.33"
    assert "indexnet train -m experiments=made_up" in formats.headline(table)
    assert facts(table) == [("Measured", "nothing yet: there are no runs")]
    assert len(table.problems) == 9
    assert formats.problems(table)[0] == ("Nearest", "0, 1, 2", "missing", "not launched yet")
    assert "29.33" in formats.markdown(table)


def test_parameters_beside_a_printed_difference(four_rows):
    table = build(*four_rows)
    assert formats.parameters(table, table.rows[0]) == "3.75M"
    assert formats.parameters(table, table.rows[1]) == "3.76M (+4.99K)"


def test_markdown_says_where_the_numbers_come_from(four_rows):
    text = formats.markdown(build(*four_rows))
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


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_terminal_table_fits(four_rows, width):
    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(formats.terminal(build(*four_rows), width))
    text = console.file.getvalue()
    assert "33.50 ± 0.71 ★" in text
    assert "…" not in text
    assert ("MAE" in text) == (width >= 100)
    assert ("GMACs" in text) == (width >= 200)
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
