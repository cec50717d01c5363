"""Reports of rows that are only cited, improvements over a row, expected bounds and columns of speed."""

from __future__ import annotations

import csv
import io
import json
from html import unescape

import pytest

from indexnet.core.metric_facts import THROUGHPUT
from indexnet.report import html, latex, markdown, relative, remarks
from indexnet.report.build import build
from indexnet.report.table import Protocol
from indexnet.run.experiments.tables import load_experiment
from indexnet.run.run_sets import find_run_sets
from report_fabricated import PSNR, column, experiment, record, row, write_run
from table_support import in_terminal

SAD = {"metric": "sad", "title": "SAD (thousands)", "higher_is_better": False, "digits": 1, "printed": "sad"}
DB = {**PSNR, "printed": "psnr"}
PAPER = {
    "printed_data": ("photos",),
    "relative_to": "old",
    "seeds": (0, 1),
}


def cells(sad, psnr, **more):
    return {"sad": sad, "psnr": psnr, **more}


ROWS = [
    row("old", "Old method", printed=cells("50.0", "30.00"), cited="somebody (2017)"),
    row("again", "Old method, again", printed=cells("60.0", "27.00")),
    row("new", "New method", printed=cells("40.0", "36.00")),
]


def table(tmp_path, setting="photos-paper", rows=ROWS, columns=(SAD, DB), changes=(), more=None, **values):
    """Two seeds of the new method, one of the old one done again."""
    runs = (("again", 0, 55.0, 24.0), ("new", 0, 41.0, 33.0), ("new", 1, 43.0, 35.0))
    for name, seed, sad, psnr in runs:
        per_image = {"sad": [sad - 1, sad + 1] * 4, "psnr": [psnr - 1, psnr + 1] * 4}
        content = {**record({"sad": sad, "psnr": psnr}), **(more or {})}
        write_run(tmp_path, name, seed, content, setting=setting, per_image=per_image)
    made = experiment(rows, [column(**each) for each in columns], **{**PAPER, **values})
    return build(made, find_run_sets(tmp_path, "made_up")[0], protocol=Protocol(changes))


def by_name(made):
    return {each.name: each for each in made.rows}


def lines_of(made):
    return {line["row"]: line for line in csv.DictReader(io.StringIO(markdown.table_csv(made)))}


# --- cited rows --------------------------------------------------------------------------------------------------


def test_a_cited_row_is_shown_and_never_missing(tmp_path):
    made = table(tmp_path)
    old = by_name(made)["old"]
    assert (old.state(2), old.status(2)) == ("cited", "cited")
    assert (made.done, made.expected) == (3, 4)
    assert all(line.name != "old" for line, *_ in made.problems)
    assert not any("Old method," in text and "Not run" in text for text in remarks.missing(made))
    said = "Old method: cited from somebody (2017), never run here"
    for text in (markdown.markdown(made), unescape(html.page(made, "")), latex.table_tex(made), in_terminal(made)):
        assert said in text
        assert "50.0" in text
    assert "Old method (cited) & 50.0" in latex.table_tex(made)
    assert lines_of(made)["old"]["status"] == "cited"


# --- improvements ------------------------------------------------------------------------------------------------


def test_improvements_are_shares_of_the_reference_and_the_worst_is_the_smallest(tmp_path):
    made = table(tmp_path)
    sad, psnr = made.columns
    new, again, old = (by_name(made)[name] for name in ("new", "again", "old"))
    assert relative.improvement(made, new, sad, "printed") == pytest.approx(0.2)  # (50 - 40) / 50
    assert relative.improvement(made, new, psnr, "printed") == pytest.approx(0.2)  # (36 - 30) / 30
    assert relative.improvement(made, again, psnr, "printed") == pytest.approx(-0.1)
    assert relative.worst(made, again, "printed") == pytest.approx(-0.2)
    # the cited row was not measured: on the printed data, at the printed protocol, its printed number stands in
    assert relative.improvement(made, new, sad, "measured") == pytest.approx(0.16)  # (50 - 42) / 50
    assert relative.worst(made, new, "measured") == pytest.approx((34 - 30) / 30)
    assert relative.improvement(made, old, sad, "printed") is None  # not over itself


def test_improvements_stand_in_every_format(tmp_path):
    made = table(tmp_path)
    said = "Improvement over Old method (%)"
    for text in (markdown.markdown(made), unescape(html.page(made, "")), in_terminal(made)):
        assert said in text
        assert "worst metric" in text
        assert "+20.0" in text
        assert "−20.0" in text
    assert "| 3 | New method | published | +20.0 | +20.0 | +20.0 |" in markdown.markdown(made)
    assert "| 3 | New method | measured | +13.3 | +16.0 | +13.3 |" in markdown.markdown(made)
    assert r"Improvement over Old method (\%): worst metric" in latex.table_tex(made)
    assert " & +20.0 & $+13.3$ & " in latex.table_tex(made)
    line = lines_of(made)["new"]
    assert float(line["printed_relative_worst"]) == pytest.approx(0.2)
    assert float(line["sad_relative"]) == pytest.approx(0.16)
    assert line["printed_psnr_relative"]


def test_a_cited_number_never_stands_in_on_other_data(tmp_path):
    made = table(tmp_path, setting="photos-small")
    new = by_name(made)["new"]
    assert relative.improvement(made, new, made.columns[0], "measured") is None
    assert relative.worst(made, new, "printed") == pytest.approx(0.2)
    assert "| measured |" not in markdown.markdown(made)


def test_a_measured_reference_is_compared_with_on_any_data(tmp_path):
    made = table(tmp_path, setting="photos-small", relative_to="again")
    new = by_name(made)["new"]
    assert relative.improvement(made, new, made.columns[0], "measured") == pytest.approx((55 - 41) / 55)  # seed 0
    assert relative.improvement(made, by_name(made)["old"], made.columns[0], "measured") is None


def test_the_worst_metric_is_not_known_where_one_is_missing(tmp_path):
    rows = [ROWS[0], row("new", "New method", printed=cells("40.0", "")), ROWS[1]]
    made = table(tmp_path, rows=rows)
    new = by_name(made)["new"]
    assert relative.improvement(made, new, made.columns[0], "printed") == pytest.approx(0.2)
    assert relative.worst(made, new, "printed") is None


def test_the_readmes_claim_follows_from_its_table():
    made = build(load_experiment("official/readme"), None)
    found = relative.worst(made, by_name(made)["indexnet"], "printed")
    assert round(100 * found, 1) == 16.1  # "at least 16.1% relative improvements"


def test_tables_without_a_reference_have_no_improvements(tmp_path):
    made = table(tmp_path, relative_to=None)
    assert relative.groups(made) == []
    assert "Improvement" not in markdown.markdown(made) + html.page(made, "") + latex.table_tex(made)
    assert "relative" not in markdown.table_csv(made)


# --- expected bounds ---------------------------------------------------------------------------------------------

BOUNDED = ({**SAD, "expected": "sad_below"}, {**DB, "expected": "psnr_above"})
BOUNDS = [
    ROWS[0],
    row("again", "Old method, again", printed=cells("60.0", "27.00", sad_below="54.0", psnr_above="23.0")),
    row("new", "New method", printed=cells("40.0", "36.00", sad_below="42.5", psnr_above="34.0")),
]


def test_bounds_pass_or_fail_by_the_direction_of_the_metric(tmp_path):
    made = table(tmp_path, rows=BOUNDS, columns=BOUNDED)
    found = {name: [each.measured[c.metric].passes for c in made.columns] for name, each in by_name(made).items()}
    assert found == {"old": [None, None], "again": [False, True], "new": [True, False]}  # 34 is not above 34
    for text in (markdown.markdown(made), unescape(html.page(made, ""))):
        assert "< 54.0, fail" in text
        assert "> 34.0, fail" in text
        assert "< 42.5, pass" in text
    assert "< 54.0, fail" in in_terminal(made, 200)
    assert r"$<$ 54.0, fail" in latex.table_tex(made)
    assert 'class="expected fail"' in html.page(made, "")
    lines = lines_of(made)
    assert (lines["again"]["expected_sad"], lines["again"]["sad_passes"]) == ("54", "0")
    assert lines["new"]["sad_passes"] == "1"
    assert lines["old"]["sad_passes"] == ""


@pytest.mark.parametrize(
    ("setting", "changes", "data", "judged"),
    [
        ("photos-paper", (), "", True),
        ("scenes-paper", (), "scenes", True),  # what the file itself trains on, printed or not
        ("scenes-paper", (), "", False),
        ("photos-small", (), "photos", False),
        ("photos-paper", ("optimizer.lr 1 instead of 2",), "photos", False),
    ],
)
def test_bounds_are_judged_where_they_are_meant(tmp_path, setting, changes, data, judged):
    made = table(tmp_path, setting, BOUNDS, BOUNDED, changes, data=data)
    assert (by_name(made)["new"].measured["sad"].passes is not None) == judged
    assert ("pass or fail" in remarks.expected(made)) == judged
    assert "< 42.5" in markdown.markdown(made)


# --- speed -------------------------------------------------------------------------------------------------------

SPEED = [
    column(metric=name, title=info.heading, higher_is_better=info.higher_is_better, digits=1, printed=printed)
    for (name, info), printed in zip(THROUGHPUT.items(), ("ms", "h", ""), strict=True)
]
FAST = {"train_samples_per_s": 32.0, "batch": {"global": 16}, "steps": 7200}


def test_speed_is_measured_shown_and_never_ranked_or_subtracted(tmp_path):
    rows = [row(each.name, each.label, printed={**each.printed, "ms": "516", "h": "11.6"}) for each in ROWS]
    columns = (SAD, *(dict(vars(each)) for each in SPEED))
    made = table(tmp_path, rows=rows, columns=columns, more=FAST, relative_to="again")
    new = by_name(made)["new"]
    found = {name: new.measured[name].mean for name in THROUGHPUT}
    assert found == pytest.approx({"ms_per_step": 500.0, "hours": 1.0, "images_per_second": 32.0})  # 7200 x 0.5 s
    for name in THROUGHPUT:
        m = new.measured[name]
        assert (m.rank, m.tied, m.difference, m.sign) == (None, False, None, "")
    assert made.comparable
    assert new.measured["sad"].difference == pytest.approx(2.0)
    assert {name for name, _ in relative.groups(made)} == {"worst metric", "SAD"}
    assert "ms_per_step" not in remarks.agreement(made)
    for text in (markdown.markdown(made), unescape(html.page(made, "")), in_terminal(made, 240)):
        assert "ms/step" in text
        assert "516" in text
        assert "500.0" in text
        assert "never ranked" in text
    assert lines_of(made)["new"]["hours_mean"] == "1"


def test_speed_is_shown_beside_the_splits_of_another_data_set(tmp_path):
    columns = ({**SAD, "metric": "test/sad", "split": "test"}, dict(vars(SPEED[0])))
    made = table(
        tmp_path, "scenes-small", columns=columns, more=FAST | {"metrics": {"other/sad": 2.0}}, relative_to=None
    )
    assert [each.metric for each in made.columns] == ["other/sad", "ms_per_step"]
    assert by_name(made)["new"].measured["ms_per_step"].mean == pytest.approx(500.0)


def test_speed_of_a_run_that_tells_none_is_empty(tmp_path):
    made = table(tmp_path, columns=(SAD, dict(vars(SPEED[1]))), more={"train_samples_per_s": None}, relative_to=None)
    assert by_name(made)["new"].measured["hours"].mean is None


def test_dashboards_have_bounds_improvements_and_cited_rows(tmp_path):
    dashboard = pytest.importorskip("indexnet.report.dashboard")
    for name in ("mindspore/aim500", "official/readme"):
        dashboard.write(build(load_experiment(name), None), tmp_path / name, "", "indexnet")
    texts = [(tmp_path / name / "report.json").read_text() for name in ("mindspore/aim500", "official/readme")]
    first, second = (json.dumps(json.loads(text), ensure_ascii=False) for text in texts)
    assert "24.00" in first
    assert "2670" in first
    assert "+16.1" in second
    assert "Deep Matting (paper) (cited)" in second
