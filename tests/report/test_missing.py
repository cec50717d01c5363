"""Unfinished sweeps: rows without runs are folded away and named, nothing is lost in the files for programs."""

from __future__ import annotations

import re
from html import unescape

import pytest

from indexnet.report import html, latex, markdown, remarks
from indexnet.report.provenance import facts
from report_checker import check
from report_fabricated import MAE, PSNR, built, column, record, row, write_run
from table_support import in_terminal, read_csv


def sparse(runs, idle=9, **values):
    """Rows a and b have run, ``idle`` rows have not; one of them cannot."""
    for number, name in enumerate("ab"):
        write_run(runs, name, 0, record({"psnr": 30.0 + number, "mae": 0.1}))
    rows = [row("a", "Alpha", printed={"p": "31.11"}), row("b", "Beta", printed={"p": "32.22"})]
    rows += [row(f"x{i}", f"Idle {i}", printed={"p": f"4{i}.44"}) for i in range(idle - 1)]
    rows.insert(1, row("y", "Waiting", printed={"p": "55.55"}, pending="not there yet"))
    return built(runs, rows, [column(**PSNR | {"printed": "p"}), column(**MAE)], seeds=(0,), **values)


def test_rows_without_runs_are_folded_away_for_people_and_kept_for_programs(tmp_path):
    table = sparse(tmp_path)
    assert [line.name for line in table.shown] == ["a", "b"]
    assert remarks.folded(table) == "8 rows not run, 1 row pending"
    page = html.page(table, "now")
    check(page)
    results = page[page.index('id="results"') : page.index('id="missing"')]
    before, _, after = results.partition("<details>")
    assert "Alpha" in before
    assert "Idle" not in before
    assert after.startswith("<summary>8 rows not run, 1 row pending: names and published numbers</summary>")
    assert all(f"4{i}.44" in after for i in range(8))
    assert "55.55" in after
    text = markdown.markdown(table)
    before, _, after = text.partition("<details><summary>8 rows not run, 1 row pending</summary>")
    assert "Idle" not in before
    assert "| 4 | Idle 0 | 40.44 |" in after
    shown = in_terminal(table)
    assert "Left out here: 8 rows not run, 1 row pending" in shown
    assert "40.44" not in shown
    assert len(read_csv(table)) == 11
    assert all(f"4{i}.44" in latex.table_tex(table) for i in range(8))


def test_a_few_rows_without_runs_stay_in_their_places(tmp_path):
    table = sparse(tmp_path, idle=3)
    assert [line.name for line in table.shown] == ["a", "y", "b", "x0", "x1"]
    assert "names and published numbers" not in html.page(table, "now")
    assert "41.44" in in_terminal(table)
    assert "Not run: 2 of 5 rows (Idle 0, Idle 1)." in remarks.missing(table)


def test_what_is_missing_is_said_in_plain_words_everywhere(tmp_path):
    for seed, status in ((1, "failed"), (2, "diverged"), (3, "running")):
        write_run(tmp_path, "b", seed, record(status=status, error=f"it {status}"))
    write_run(tmp_path, "b", 4, record(schema=2))
    write_run(tmp_path, "b", 5, None)
    table = sparse(tmp_path)
    said = remarks.missing(table)
    assert said == [
        "Not run: 8 of 11 rows (Idle 0, Idle 1, Idle 2, Idle 3, Idle 4 and 3 more).",
        "Fewer than 6 finished seeds: Alpha (1), Beta (1).",
        "Runs without a result: 1 failed, 1 diverged, 1 unreadable, 1 unfinished, 1 new.",
    ]
    for text in (unescape(html.page(table, "now")), markdown.markdown(table), in_terminal(table, 300)):
        assert all(line in text for line in said)
        assert "it failed" in text
        assert re.search(r"unreadable.*record\.json has schema 2.*update indexnet", text)
    line = next(line for line in read_csv(table) if line["row"] == "b")
    assert (line["status"], line["seeds_finished"], line["seeds_expected"]) == ("partial", "1", "6")


def test_a_metric_that_nothing_measured_is_named(tmp_path):
    write_run(tmp_path, "a", 0, record({"psnr": 30.0}))
    table = built(tmp_path, [row("a", "A")], [column(**PSNR), column(**MAE)], seeds=(0,))
    assert remarks.missing(table) == ["No finished run has MAE."]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], "missing"),
        (["done", "done"], "done"),
        (["done", "failed"], "partial"),
        (["running", "failed"], "failed"),
        (["running", "diverged"], "diverged"),
        (["running"], "running"),
    ],
)
def test_status_in_one_word(tmp_path, statuses, expected):
    write_run(tmp_path, "other", 0, record({"psnr": 30.0}))
    for seed, status in enumerate(statuses):
        write_run(tmp_path, "a", seed, record({"psnr": 30.0}, status=status))
    table = built(tmp_path, [row("a", "A")], [column(**PSNR)])
    assert table.rows[0].status(2) == expected


def test_records_say_what_they_changed_and_where_they_were_measured(tmp_path):
    batch, rate = "global batch 8 instead of the table's 16", "optimizer.lr 0.001 instead of the published 0.01"
    precision = "precision 32-true instead of bf16-mixed"
    write_run(tmp_path, "a", 0, record({"psnr": 30.0}, changes=[batch, rate, precision], split="test"))
    other = record({"psnr": 31.0}, changes=[batch], split="validation", device="another CPU (1 threads)")
    write_run(tmp_path, "b", 0, other)
    ours = built(tmp_path, [row("a", "A"), row("b", "B")], [column(**PSNR)], seeds=(0,))
    assert dict(facts(ours))["Against the configuration"] == f"{precision} (1 of 2 runs)"
    assert not any("published" in name + text for name, text in facts(ours))
    rows = [row("a", "A", printed={"p": "31.11"}), row("b", "B")]
    table = built(tmp_path, rows, [column(**PSNR | {"printed": "p"})], seeds=(0,))
    assert dict(facts(table))["Against the published protocol"] == (
        f"{batch}; {rate} (1 of 2 runs); {precision} (1 of 2 runs)"
    )
    assert "Measured on validation data instead of test data: B." in table.warnings
    assert any("different devices (a CPU (1 threads), another CPU" in text for text in table.warnings)


def test_code_that_has_changed_since_is_a_remark_and_a_fact(tmp_path):
    changed = {"indexnet/resampling/base.py": "0" * 12}
    for seed in (0, 1):
        write_run(tmp_path, "a", seed, record({"psnr": 30.0}, code=changed, tags=["mine", "old"][: seed + 1]))
    write_run(tmp_path, "b", 0, record({"psnr": 31.0}, code={"mine.py": "0" * 12}, code_before={"mine.py": ["1" * 12]}))
    write_run(tmp_path, "b", 1, record({"psnr": 31.0}))  # of an earlier version
    table = built(tmp_path, [row("a", "A"), row("b", "B")], [column(**PSNR)])
    again = "`rerun=changed` does again what was made with other code."
    assert f"A: indexnet/resampling/base.py has changed since; {again}" in table.warnings
    assert f"B: mine.py changed while it ran; {again}" in table.warnings
    found = dict(facts(table))
    assert found["Code changed since"] == "indexnet/resampling/base.py (2 of 4 runs); mine.py (1 of 4 runs)"
    assert found["Tags"] == "mine (2 of 4 runs); old (1 of 4 runs)"
