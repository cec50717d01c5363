"""Tables with rows in blocks and with named test splits."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest

from indexnet.report import html, markdown, remarks, terminal
from indexnet.report.build import build
from indexnet.report.fields import cost_text, grid
from indexnet.report.provenance import facts
from indexnet.run.experiments.tables import load_experiment
from indexnet.run.run_sets import find_run_sets
from report_checker import check
from report_fabricated import MAE, PSNR, column, experiment, record, row, write_run
from table_support import THESIS, read_csv, write_thesis

SPLITS = {"bsd68": [30.0, 31.0, 32.0, 33.0], "set12": [34.0, 35.0]}


SIGMAS = (15, 25)


def blocked(**values):
    """Three rows at two noise levels, printed for the test splits of train400; another printed column stays empty."""
    printed = {
        ("a", 15): {"psnr_{s}": "31.7", "params": "7.09M"}, ("b", 15): {"psnr_{s}": "31.2", "params": "+16"},
        ("a", 25): {"psnr_{s}": "29.2", "params": "7.09M"}, ("b", 25): {"psnr_{s}": "29.3", "params": "+16"},
    }  # fmt: skip
    rows = [
        row(
            f"{name}_sigma{sigma}",
            f"{name.upper()}, sigma {sigma}",
            block=f"sigma {sigma}",
            base=name,
            printed=printed.get((name, sigma), {}),
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
    said = remarks.headline(table)
    first = "Best BSD68 PSNR (dB) on train400 at budget small: sigma 15: A, 32.50 (one seed: spread unknown); it costs"
    assert first in said
    assert (
        "; sigma 25: B, 26.55 (one seed: spread unknown), +0.05 against A, not significantly different from A; it costs"
        in said
    )


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
    assert cost_text(table, table.rows[1], "parameters") == "7.09M (+16)"
    left = dataclasses.replace(runs, runs=tuple(run for run in runs.runs if run.row != "a_sigma25"))
    table = build(blocked(), left)
    assert cost_text(table, table.rows[4], "parameters") == "7.09M (+16)"


def test_rows_that_an_experiment_with_blocks_does_not_know_are_a_block_of_their_own(tmp_path):
    write_run(tmp_path, "mine", 0, record({"bsd68/psnr": 50.0}), setting="train400-small")
    table = build(blocked(), write_blocked(tmp_path))
    assert [block.label for block in table.blocks] == ["sigma 15", "sigma 25", "other rows"]
    assert table.rows[0].measured["bsd68/psnr"].best  # 50 dB are not compared with it
    check_page(table)


def test_blocks_of_two_data_sets_have_a_report_each_in_which_nothing_of_the_other_is_missing(tmp_path):
    made = load_experiment("thesis/table4_1")
    names = {data: [each.name for each in made.rows if each.block == data] for data in ("mnist", "fashion_mnist")}
    for data, rows in names.items():
        for place, name in enumerate(rows):
            write_run(tmp_path, name, 0, record({"psnr": 20.0 + place}), setting=f"{data}-small")
    tables = {each.data: build(made, each) for each in find_run_sets(tmp_path, "made_up")}
    assert {data: [line.name for line in table.rows] for data, table in tables.items()} == names
    assert {(table.done, table.expected) for table in tables.values()} == {(9, 9)}
    assert not [line for table in tables.values() for line in remarks.missing(table) if "Not run" in line]
    assert remarks.headline(tables["mnist"]).startswith("Best PSNR (dB) on mnist at budget small: MaxPool-IndexNet")
    assert not any("mnist:" in remarks.agreement(table) for table in tables.values())  # there is no other block
    assert len(build(made, None).rows) == 18  # the whole table, before anything has run


def test_a_run_of_a_row_of_another_data_set_is_shown_all_the_same(tmp_path):
    rows = [row("a", overrides=("data=mnist",)), row("b", overrides=("data=photos",)), row("c"), row("d")]
    for name in ("a", "b"):
        write_run(tmp_path, name, 0, record({"psnr": 30.0}), setting="mnist-small")
    (found,) = find_run_sets(tmp_path, "made_up")
    made = experiment(rows, [column(**PSNR)], data="photos")
    assert [line.name for line in build(made, found).rows] == ["a", "b"]
    left = dataclasses.replace(found, runs=found.runs[:1])
    assert [line.name for line in build(made, left).rows] == ["a"]
    there = dataclasses.replace(found, data="photos", runs=found.runs[1:])
    assert [(line.name, line.number) for line in build(made, there).rows] == [("b", 2), ("c", 3), ("d", 4)]


def check_page(table):
    return check(html.page(table, "now"))


def test_a_page_shows_blocks_everywhere(tmp_path):
    table = build(blocked(), write_blocked(tmp_path))
    page = html.page(table, "now")
    checker = check_page(table)
    heads = [attributes for tag, attributes in checker.tags if tag == "th" and attributes.get("scope") == "rowgroup"]
    assert len(heads) == 2 * 3  # results, seed by seed, costs
    line = page[page.index('<th scope="row"') :]
    assert int(heads[0]["colspan"]) == line[: line.index("</tr>")].count("<td") + 1
    section = page[page.index('id="glance"') : page.index('id="cost"')]
    assert [part.split("<")[0] for part in section.split("<h3>")[1:]] == ["sigma 15", "sigma 25"]
    assert section.count("<svg") == 4
    section = page[page.index('id="cost"') : page.index('id="curves"')]
    assert section.count("<svg") == 8  # parameters and GFLOPs, wide and narrow, per block
    assert section[section.index("<h3>") :].count('<span class="badge ') == 2  # one key for both blocks
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
    said = "published for the test splits bsd68 and set12; photos has one test split, whose numbers stand in for them."
    assert any(said in text for text in table.warnings)
    text = markdown.markdown(table)
    assert "PSNR (dB) ↑ published, bsd68 |" in text
    assert "Set12" not in text
    assert "published:<br>bsd68" in html.page(table, "now")
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
    head, cells = grid(table, table.rows, table.columns)
    assert head.count("difference") == 1
    assert {len(line) for line in cells} == {len(head)}
    page = html.page(table, "now")
    assert len(re.findall(r"<th[^>]*>difference</th>", page)) == 1
    check_page(table)
