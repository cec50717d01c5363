"""indexnet.report: numbers computed by hand, and what is said where something is missing."""

from __future__ import annotations

import io
from html import unescape

import pytest

from indexnet.report import html, markdown, remarks, terminal
from indexnet.report.build import build
from indexnet.report.fields import cost_text
from indexnet.report.latex import table_tex
from indexnet.report.numbers import count, fixed, parse_number, signed, significant, spread
from indexnet.report.provenance import facts
from indexnet.run.run_sets import find_run_sets
from report_fabricated import MAE, PSNR, built, column, experiment, record, row, write_run
from table_support import in_terminal, read_csv


@pytest.fixture
def four_rows(tmp_path):
    """Three measured rows (the third not significantly worse), one pending; one run failed, one missing."""
    paper = {"params": "3.75M", "params_value": "3750000", "gflops": "4.08"}
    rows = [
        row("a", "Nearest", printed={"psnr": "25.88", **paper}),
        row("b", "Unpooling", printed={"psnr": "29.33", "params": "+4.99K", "params_value": "4990"}),
        row("c", "M2O", printed={"psnr": "48.37"}),
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
        costs |= {"train_samples_per_s": 300.0 - 100 * seed, "peak_memory_mb": 500.0 + 100 * seed}
        per_image = {"psnr": images, "mae": [0.1, 0.1, 0.1, 0.1]}
        write_run(tmp_path, name, seed, record(metrics, **costs), per_image=per_image)
    write_run(tmp_path, "c", 1, record(status="diverged", error="the loss is NaN at step 57"))
    columns = [column(**{**PSNR, "printed": "psnr"}), column(**MAE)]
    return experiment(rows, columns, seeds=(0, 1, 2), reference="a"), find_run_sets(tmp_path, "made_up")[0]


def test_what_is_missing_and_why(four_rows):
    table = build(*four_rows)
    assert [(row.label, seed, status) for row, seed, status, _ in table.problems] == [
        ("Nearest", 2, "missing"),
        ("Unpooling", 2, "missing"),
        ("M2O", 1, "diverged"),
        ("M2O", 2, "missing"),
    ]
    assert table.problems[2][3] == "the loss is NaN at step 57"
    assert (table.done, table.expected) == (5, 9)
    states = [*["2 of 3 seeds"] * 2, "1 of 3 seeds, 1 diverged", "pending"]
    assert [line.state(3) for line in table.rows] == states
    assert any("different numbers of finished seeds (1: M2O; 2: Nearest, Unpooling)" in text for text in table.warnings)
    assert "4 of 9 runs have no result yet" in remarks.headline(table)


@pytest.mark.parametrize(("rows", "said"), [(1, "only one row is measured"), (2, "no per-image results")])
def test_legend_says_why_nothing_is_told_apart(tmp_path, rows, said):
    for name in ("a", "b")[:rows]:
        images = {"psnr": [30.0, 31.0]} if rows == 1 else None
        write_run(tmp_path, name, 0, record({"psnr": 30.0 + (name == "b")}), per_image=images)
    text = " ".join(remarks.legend(built(tmp_path, [row("a", "A"), row("b", "B")], [column(**PSNR)], seeds=(0,))))
    assert said in text
    assert ("no per-image results" in text) == (rows == 2)


def test_smoke_ranks_nothing_whatever_the_experiment_says(tmp_path):
    for number, name in enumerate(("a", "b")):
        images = {"psnr": [30.0 + number, 31.0 + number]}
        write_run(tmp_path, name, 0, record({"psnr": 30.5 + number}), setting="photos-smoke", per_image=images)
    rows = [row("a", "A", printed={"psnr": "1"}), row("b", "B", printed={"psnr": "2"})]
    table = built(tmp_path, rows, [column(**{**PSNR, "printed": "psnr"})], seeds=(0,))
    cells = [cell for line in table.rows for cell in line.measured.values()]
    assert not any(cell.best or cell.tied or cell.rank for cell in cells)
    for text in (markdown.markdown(table), html.page(table, "now"), in_terminal(table)):
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


@pytest.mark.parametrize(("units", "title"), [
    (({}, {}), "SAD (thousands)"), (({"sad": ""}, {"sad": ""}), "SAD"), (({}, {"sad": ""}), "SAD"),
])  # fmt: skip
def test_columns_are_headed_with_the_unit_that_was_measured(tmp_path, units, title):
    for seed, each in enumerate(units):
        write_run(tmp_path, "a", seed, record({"sad": 0.5}, units=each))
    table = built(
        tmp_path, [row("a")], [column(metric="sad", title="SAD (thousands)", higher_is_better=False, digits=2)]
    )
    assert table.columns[0].title == title


def test_csv_holds_plain_numbers(four_rows):
    lines = read_csv(build(*four_rows))
    first, second, *_, fourth = lines
    assert (first["printed_params"], first["parameters"], first["printed_gflops"]) == ("3750000", "3753259", "4.08")
    assert (first["psnr_difference"], second["printed_params"], second["psnr_tied"]) == ("", "4990", "0")
    assert (fourth["pending"], fourth["psnr_mean"]) == ("the operator is not there yet", "")
    assert [line["mae_rank"] for line in lines] == ["3", "1", "2", ""]  # smaller is better
    assert [line["status"] for line in lines] == ["partial", "partial", "partial", "pending"]
    words_of = ("base", "row", "label", "status", "pending", "data", "budget")
    for line in lines:
        for key, cell in line.items():
            if key not in words_of and not key.endswith("_per_seed") and cell:
                float(cell)


def test_zero_runs_leave_printed_cells_in_place(four_rows):
    table = build(four_rows[0], None)
    assert read_csv(table)[1]["printed_psnr"] == "29.33"
    assert "29.33" in markdown.markdown(table)
    assert facts(table) == [("Measured", "nothing yet: there are no runs")]
    assert len(table.problems) == 9
    assert remarks.problems(table) == []  # the headline says it all
    assert remarks.missing(table) == []
    assert not table.folded


def test_parameters_beside_a_printed_difference(four_rows):
    table = build(*four_rows)
    assert cost_text(table, table.rows[0], "parameters") == "3.75M"
    assert cost_text(table, table.rows[1], "parameters") == "3.76M (+4.99K)"


def test_the_speed_of_a_row_is_that_of_its_fastest_seed_and_its_memory_the_mean(four_rows):
    row = build(*four_rows).rows[0]
    assert (row.cost("train_samples_per_s"), row.cost("peak_memory_mb")) == (300.0, 550.0)


def test_markdown_says_where_the_numbers_come_from(four_rows):
    text = markdown.markdown(build(*four_rows))
    head = next(line for line in text.splitlines() if line.startswith("| # |"))
    assert "PSNR (dB) ↑ published" in head
    assert "PSNR (dB) ↑ photos, small" in head
    assert "33.50 ± 0.71 ★" in text
    assert "33.00 ≈" in text
    assert "| M2O | 1 | diverged | the loss is NaN at step 57 |" in text
    assert "| Nearest | 2 | missing | not launched yet |" in text
    assert "A2U: pending, the operator is not there yet" in text
    widths = {line.count("|") for line in text.split("\n\n") for line in line.splitlines() if line.startswith("| ")}
    assert len(widths) == 2  # the table and the list of runs


@pytest.mark.parametrize(("measured", "said"), [(7, "tested on 4, and 3 of aim500"), (5, "tested on 5")])
def test_facts_name_further_test_sets(measured, said, tmp_path):
    tests = {"aim500": {"count": 3, "fingerprint": "f"}}
    data = {"name": "photos", "train": {"count": 9}, "test": {"count": 4}, "tests": tests}
    write_run(tmp_path, "a", 0, record({"psnr": 25.0}, data=data, test_count=measured))  # 5: capped by a budget
    table = built(tmp_path, [row("a", "A")], [column(**PSNR)], seeds=(0,))
    assert dict(facts(table))["Data"].endswith(f"9 training samples, {said}")


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
    table = built(tmp_path, [row("a", "A"), row("b", "B")], [column(**PSNR)], seeds=(0,))
    assert any("training steps (200: A; 400: B)" in text for text in table.warnings)
    assert any("test data (fingerprints) (bb: A; cc: B)" in text for text in table.warnings)


def test_rows_that_the_experiment_does_not_know_come_last(tmp_path):
    write_run(tmp_path, "extra", 0, record({"psnr": 30.0}, label="My own row"))
    table = built(tmp_path, [row("a", "A")], [column(**PSNR)], seeds=(0,))
    assert [line.label for line in table.rows] == ["A", "My own row"]


# --- numbers that are no means of per-image numbers ---------------------------------------------------------------


def pooled_runs(tmp_path, seeds):
    for name, values, images in (
        ("a", (40.0, 42.0), (50.0, 52.0, "", 54.0)),
        ("b", (38.0, 39.0), (55.0, 57.0, "nan", 59.0)),
    ):
        for seed, value in enumerate(values[:seeds]):
            write_run(tmp_path, name, seed, record({"miou": value}), per_image={"miou": images})
    miou = column(**{**PSNR, "metric": "miou", "title": "mIoU (%)"})
    return built(tmp_path, [row("a", "A"), row("b", "B")], [miou], seeds=(0, 1))


def test_pooled_numbers_are_compared_over_seeds(tmp_path):
    table = pooled_runs(tmp_path, 2)
    best, other = (line.measured["miou"] for line in table.rows)
    assert (best.best, best.pooled, other.pooled) == (True, True, True)
    # differences -2 and -3: mean -2.5, sd 1 / sqrt(2); Student's t of one degree of freedom 12.706205
    assert (other.interval.low, other.interval.high) == pytest.approx((-2.5 - 6.353102, -2.5 + 6.353102), abs=1e-5)
    assert other.tied
    text = " ".join(remarks.legend(table))
    assert "Student's t over 2 seeds;" in text
    assert "mIoU (%): computed from all images at once, so that seeds alone say which differences are real" in text
    assert "minus the best: 95 % interval −8.85 to +3.85" in unescape(html.page(table, ""))


def test_one_seed_of_a_pooled_number_has_no_interval(tmp_path):
    table = pooled_runs(tmp_path, 1)  # whose images' own numbers are better in the worse row
    other = table.rows[1].measured["miou"]
    assert (other.interval, other.tied) == (None, False)
    assert "it is not known which differences are real" in " ".join(remarks.legend(table))


def test_means_of_images_are_not_called_pooled(four_rows):
    table = build(*four_rows)
    assert not any(line.measured["psnr"].pooled for line in table.rows)
    assert table.rows[0].measured["mae"].pooled  # fabricated: not the mean of its images


def test_finished_runs_without_a_number_are_named(tmp_path):
    write_run(tmp_path, "a", 0, record({"psnr": 30.0}))
    write_run(tmp_path, "b", 0, record({"psnr": float("nan")}))
    table = built(tmp_path, [row("a", "A"), row("b", "B")], [column(**PSNR), column(**MAE)], seeds=(0,))
    assert "PSNR (dB): the finished runs of B have no such number." in table.warnings
    assert not any("MAE" in text for text in table.warnings)  # nobody has one
    assert remarks.headline(table).startswith("Best PSNR (dB) on photos at budget small: A, 30.00")


@pytest.mark.parametrize(("first", "second", "said"), [("a", "b", True), ("a", "a--data.augment-false", False)])
def test_other_training_data_are_said_unless_they_are_what_is_swept(tmp_path, first, second, said):
    for name in (first, second):
        train = {"count": 4096, "fingerprint": name}
        data = {"name": "photos", "train": train, "test": {"count": 4, "fingerprint": "bb"}}
        write_run(tmp_path, name, 0, record({"psnr": 30.0}, data=data))
    table = built(tmp_path, [row("a", "A"), row("b", "B")], [column(**PSNR)], seeds=(0,))
    assert any("training data" in text for text in table.warnings) == said


@pytest.mark.parametrize("width", [50, 60, 80, 100, 160, 200])
def test_terminal_table_fits(four_rows, width):
    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(*terminal.layout(build(*four_rows), width)[0])
    text = console.file.getvalue()
    assert "33.50 ± 0.71 ★" in text
    assert "…" not in text
    assert "MAE" in text  # in a table of its own where the terminal is narrow
    assert text.count("Row") == (2 if width < 80 else 1)
    assert ("34.00 (1)" in text) == ("best seed" in text) == (width >= 80)
    assert ("GMACs" in text) == (width >= 160)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


@pytest.mark.parametrize(("width", "differences", "best_seeds"), [(60, 0, 0), (100, 0, 1), (200, 1, 1)])
def test_only_columns_that_are_shown_are_explained(four_rows, width, differences, best_seeds):
    table = build(*four_rows)
    said = in_terminal(table, width)
    assert said.count("minus") == 2 * differences  # in the head and in the legend
    assert said.count("best seed: ") == best_seeds
    assert said.count("best seed") == 2 * best_seeds
    assert "minus Nearest: the difference" in markdown.markdown(table)
    assert "minus" not in table_tex(table)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("50.2", 50.2), ("3.75M", 3750000.0), ("+4.99K", 4990.0), ("+16", 16.0), ("−0.5", -0.5), ("0.69M", 690000.0)),
        *(("", None), ("-", None), ("> 130.55M", None), ("n/a", None)),
    ],
)
def test_parse_number(text, value):
    assert parse_number(text) == (pytest.approx(value) if value is not None else None)


def test_numbers_for_people():
    assert " ".join(map(count, (16, 4990, 999_600, 3_753_259, 130_545_345))) == "16 4.99K 1.00M 3.75M 131M"
    assert count(None) == ""
    assert [significant(v) for v in (0.0457, 4.0808, 130.55, 0)] == ["0.0457", "4.08", "131", "0"]
    assert (fixed(-0.123, 2), signed(0.1, 1), signed(-0.1, 1)) == ("−0.12", "+0.1", "−0.1")
    assert (spread(30.0, None, 1), spread(30.0, 0.25, 2), spread(None, None, 2)) == ("30.0", "30.00 ± 0.25", "")
