"""indexnet report FOLDER --across: tables side by side, ranks and fronts by hand."""

from __future__ import annotations

import csv
import io
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from indexnet.cli import main
from indexnet.report import across_files
from indexnet.report.across import PRICES, answers, put_together, ranks
from indexnet.report.build import build
from indexnet.run.experiments.tables import list_experiments, load_experiment
from indexnet.run.run_sets import find_run_sets
from report_checker import check
from report_fabricated import MAE, PSNR, column, experiment, record, row, write_run

GAINS = np.array([-1.0, 1.0, -0.5, 0.5, -2.0, 2.0])
"""Of single images: mean 0."""


def write_table(runs, name, values, columns=(PSNR,), setting="photos-small", seeds=(0, 1), **options):
    """A table whose rows have (quality, spread of the difference between images, parameters, samples/s, MB)."""
    metric = columns[0]["metric"]
    for each, (quality, spread, parameters, speed, memory) in values.items():
        for seed in seeds:
            images = quality + seed * 0.01 + spread * GAINS
            costs = {"parameters": parameters, "true_gmacs": parameters / 1e5}
            costs |= {"train_samples_per_s": speed, "peak_memory_mb": memory}
            content = record({metric: float(images.mean())}, **costs)
            write_run(runs, each, seed, content, name=name, setting=setting, per_image={metric: images})
    return build_table(runs, name, [*values], columns, **options)


def build_table(runs, name, names, columns=(PSNR,), **options):
    rows = [row(each, f"operator {each}") for each in names]
    made = experiment(rows, [column(**each) for each in columns], name=name, title=f"Table {name}", **options)
    sets = find_run_sets(runs, name)
    return build(made, sets[0] if sets else None)


@pytest.fixture
def two_tables(tmp_path):
    """In the first b is best and c not significantly worse, in the second, where less is better, a is best."""
    first = write_table(
        tmp_path,
        "zoo/first",
        {"a": (20.0, 0.0, 100_000, 500, 100), "b": (30.0, 0.0, 400_000, 100, 90), "c": (29.5, 1.0, 200_000, 200, 300)},
    )
    second = write_table(
        tmp_path,
        "zoo/second",
        {"a": (0.10, 0.0, 100_000, 400, 50), "b": (0.20, 0.0, 400_000, 100, 70), "d": (0.15, 0.0, 50_000, 100, 70)},
        columns=(MAE,),
        setting="scenes-small",
    )
    return put_together("zoo", [first, second])


def test_ranks_with_ties(two_tables):
    head, lines = ranks(two_tables)
    assert head == ["row", "first", "second", "best or ≈", "mean rank"]
    assert lines == [
        ["operator b", "1 ★", "3", "1 of 2", "2.0"],
        ["operator c", "2 ≈", "", "1 of 1", "2.0"],
        ["operator a", "3", "1 ★", "1 of 2", "2.0"],
        ["operator d", "", "2", "0 of 1", "2.0"],
    ]


def test_answers_name_the_cheapest_of_those_that_equal_the_best(two_tables):
    head, (first, second) = answers(two_tables)
    assert head[:5] == ["table", "metric", "best", "not significantly different from it", "fewest parameters"]
    assert first[0] == "first"
    assert first[2].startswith("operator b, 30.0")  # 30.00 and 30.01 over two seeds
    assert first[3:] == ["operator c", "operator c, 200K", "operator c, 2.00", "operator c, 5.00", "operator b, 90.0"]
    assert second[2].startswith("operator a, 0.10")
    assert second[3] == ""


def test_what_equals_the_best_is_not_known_without_images(tmp_path):
    values = {"a": (20.0, 0.0, 100, 10, 10), "b": (30.0, 0.0, 200, 10, 20)}
    write_table(tmp_path, "zoo/first", values, seeds=(0,))
    for images in tmp_path.rglob("per_image.csv"):
        images.unlink()
    across = put_together("zoo", [build_table(tmp_path, "zoo/first", ["a", "b"])])
    assert answers(across)[1][0][2:4] == ["operator b, 30.00", "not known"]


def test_what_is_missing_stands_with_its_table(tmp_path):
    values = {"a": (20.0, 0.0, 100, 10, 10), "b": (30.0, 0.0, 200, 10, 20)}
    full = write_table(tmp_path, "zoo/first", values, reference="a")
    write_table(tmp_path, "zoo/second", values)
    across = put_together("zoo", [full, build_table(tmp_path, "zoo/second", ["a", "b", "c"])])
    ranked, first, second = across_files.markdown(across).partition("## Ranks")[2].split("\n## ")
    assert "Not run" not in ranked + first
    assert "* Not run: 1 of 3 rows (operator c)." in second
    assert "minus operator a" not in ranked  # no column of this page


def test_fronts(two_tables):
    def fronts(contest):
        return [[row.name for row in contest.front(price.value)] for price in PRICES]

    first, second = two_tables.contests
    assert fronts(first) == [["a", "c", "b"], ["a", "c", "b"], ["a", "c", "b"], ["b"]]
    assert fronts(second) == [["d", "a"], ["d", "a"], ["a"], ["a"]]


def test_equal_rows_share_a_front(tmp_path):
    values = {"a": (20.0, 0, 100, 10, 10), "b": (20.0, 0, 100, 10, 20), "c": (20.0, 0, 200, 10, 20)}
    (contest,) = put_together("zoo", [write_table(tmp_path, "zoo/one", values)]).contests
    assert [[row.name for row in contest.front(price.value)] for price in PRICES] == [
        ["a", "b"], ["a", "b"], ["a", "b", "c"], ["a"],
    ]  # fmt: skip


def test_page_and_markdown_and_csv_say_the_same(two_tables):
    page = across_files.page(two_tables, "2026-11-21 09:00")
    checker = check(page)
    assert {"answers", "ranks", "contest1", "contest2"} <= set(checker.ids)
    text, written = unescape(" ".join(checker.text)), across_files.markdown(two_tables)
    for said in ("operator c, 200K", "Table zoo/first: photos at budget small, 6 of 6 runs", "100K ◆", "5.00 ◆"):
        assert said in text
        assert said in written
    assert page.count('<polyline class="front"') == 2 * (3 + 2)  # twice each, where a front has two rows or more
    lines = list(csv.DictReader(io.StringIO(across_files.table_csv(two_tables))))
    assert [(line["experiment"], line["row"], line["rank"], line["tied"]) for line in lines] == [
        ("zoo/first", "b", "1", "0"), ("zoo/first", "c", "2", "1"), ("zoo/first", "a", "3", "0"),
        ("zoo/second", "a", "1", "0"), ("zoo/second", "d", "2", "0"), ("zoo/second", "b", "3", "0"),
    ]  # fmt: skip
    assert (lines[1]["train_ms_per_sample"], lines[1]["peak_memory_mb_front"], lines[1]["parameters_front"]) == (
        "5.0", "0", "1",
    )  # fmt: skip


def test_tables_without_runs_and_too_small_budgets_are_said(tmp_path):
    values = {"a": (20.0, 0.0, 100, 10, 10), "b": (30.0, 0.0, 200, 10, 20)}
    smoke = write_table(tmp_path, "zoo/first", values, setting="photos-smoke")
    across = put_together("zoo", [smoke, build_table(tmp_path, "zoo/second", ["a"])])
    page = across_files.page(across, "now")
    check(page)
    assert "The budget smoke ranks nothing" in page
    assert "Not run: second." in page
    assert "★" not in across_files.markdown(across)
    nothing = put_together("zoo", [build_table(tmp_path, "zoo/second", ["a"])])
    check(across_files.page(nothing, "now"))
    assert "Nothing is measured yet" in across_files.markdown(nothing)


def test_tables_of_one_name_in_two_folders(tmp_path):
    values = {"a": (20.0, 0.0, 100, 10, 10), "b": (30.0, 0.0, 200, 10, 20)}
    across = put_together("zoo", [write_table(tmp_path, f"zoo/{folder}/table", values) for folder in ("one", "two")])
    assert [contest.label for contest in across.contests] == ["one/table", "two/table"]
    assert ranks(across)[1] == [
        ["operator b", "1 ★", "1 ★", "2 of 2", "1.0"],
        ["operator a", "2", "2", "0 of 2", "2.0"],
    ]


def test_what_is_not_on_equal_terms_is_said_at_the_top(tmp_path):
    values = {"a": (20.0, 2.0, 100, 10, 10), "b": (30.0, 0.0, 200, 10, 20)}
    write_table(tmp_path, "zoo/first", {"c": (29.9, 2.0, 100, 10, 10)}, seeds=(0,))
    write_table(tmp_path, "zoo/first", values)
    across = put_together("zoo", [build_table(tmp_path, "zoo/first", ["a", "b", "c"])])
    assert "Not all on equal terms, or with another protocol: first; see the notes." in across_files.headline(across)
    written = across_files.markdown(across)
    assert "different numbers of finished seeds (1: operator c; 2: operator a, operator b)" in written
    assert "Student's t over 6 images and 2 seeds; one seed: images only" in written


def test_names_stay_text(tmp_path):
    values = {"a": (20.0, 0.0, 100, 10, 10), "b": (30.0, 0.0, 200, 10, 20)}
    table = write_table(tmp_path, "zoo/first", values)
    made = experiment([row("a", "<script>x</script>|y"), row("b", "=1+1")], [column(**PSNR)], name="zoo/first")
    across = put_together("zoo", [build(made, table.runs)])
    check(across_files.page(across, "now"))
    assert r"\<script>x\</script>\|y" in across_files.markdown(across)
    assert "'=1+1" in across_files.table_csv(across)


def test_in_the_terminal(two_tables):
    console = Console(width=80, file=io.StringIO(), color_system=None)
    across_files.show(two_tables, console)
    said = " ".join(console.file.getvalue().split())
    assert "not significantly different from it: operator c" in said
    assert "2 ≈" in said
    assert (
        "operator b, operator c, operator a are each best, or not significantly different from the best, in 1 of 2."
        in said
    )


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    costs = {"carafe": (30.0, 0.0, 400, 10, 10), "bilinear": (28.0, 0.0, 200, 20, 20)}
    write_table(tmp_path / "runs", "zoo/denoising", costs, setting="photos-small")
    write_table(tmp_path / "runs", "zoo/denoising", costs, setting="train400-small", seeds=(0,))
    write_table(tmp_path / "runs", "zoo/reconstruction", costs, setting="photos-small")
    assert main(["report", "zoo", "--across"]) == 0
    assert "Across 5 tables: zoo" in capsys.readouterr().out
    folder = tmp_path / "reports" / "zoo" / "across"
    assert {path.name for path in folder.iterdir()} == {"report.html", "report.md", "table.csv"}
    assert "photos at budget small" in (folder / "report.md").read_text()
    assert main(["report", "zoo", "--across", "--data", "train400-small"]) == 0
    written = (folder / "report.md").read_text()
    runs = 3 * len(load_experiment("zoo/denoising").rows)
    assert f"Image denoising with every operator: train400 at budget small, 2 of {runs} runs" in written
    assert "Image reconstruction with every operator: photos at budget small" in written
    assert "Not run: depth, matting, segmentation." in written


def test_a_table_of_two_data_sets_takes_part_with_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data, psnr in (("mnist", 30.0), ("fashion_mnist", 20.0)):
        for name, more in (("a2u", 1.0), ("maxpool_unpool", 0.0)):
            content = record({"psnr": psnr + more})
            write_run(tmp_path / "runs", f"{name}_{data}", 0, content, name="thesis/table4_1", setting=f"{data}-small")
    assert main(["report", "thesis", "--across"]) == 0
    with Path("reports/thesis/across/table.csv").open() as file:
        lines = [(line["data"], line["base"], line["mean"], line["rank"]) for line in csv.DictReader(file)]
    assert lines == [
        ("fashion_mnist", "a2u", "21.0", "1"), ("fashion_mnist", "maxpool_unpool", "20.0", "2"),
        ("mnist", "a2u", "31.0", "1"), ("mnist", "maxpool_unpool", "30.0", "2"),
    ]  # fmt: skip
    text = Path("reports/thesis/across/report.md").read_text()
    assert "table4_1, mnist" in text
    number = sum(name.startswith("thesis/") for name in list_experiments())
    assert f"# Across {number} tables" in text
    assert f"Experiments `thesis/…`: {number} tables." in text
    assert f"{number} tables, experiments" in Path("reports/thesis/across/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["zooo", "--across"], "on one page: checks, mindspore, mmediting, official, thesis, tpami, zoo; not 'zooo'"),
     (["zoo"], "zoo is a folder of experiments: name one, or give --across"),
     (["zoo", "--across", "--data", "mnist-small"], "such data and budget; there are no runs at all")],
)  # fmt: skip
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    assert said in capsys.readouterr().err
