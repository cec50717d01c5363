"""What makes a page of twenty rows readable: looks, axis titles, differences to the baseline, words, sorting."""

from __future__ import annotations

import csv
import io
import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from indexnet.report import html, markdown, remarks, terminal
from indexnet.report.build import build
from indexnet.report.figures.axes import Series, text_width
from indexnet.report.figures.curves import learning_curves
from indexnet.report.figures.looks import DARK, LIGHT, contrast, look, text_on
from indexnet.report.figures.plots import dot_plot, scatter
from indexnet.run.experiments.tables import load_experiment
from indexnet.run.run_sets import find_run_sets
from report_browser import EXECUTABLE, browser
from report_checker import check
from report_fabricated import MAE, PSNR, built, column, falling_loss, record, row, write_run


def test_no_two_rows_look_alike():
    assert len({look(number) for number in range(1, 97)}) == 96
    assert len({look(number).colour for number in range(1, 25)}) == len(set(LIGHT)) == len(set(DARK)) == 24
    for colours, page in ((LIGHT, "#ffffff"), (DARK, "#1b1e24")):
        assert min(contrast(colour, page) for colour in colours) >= 3
        assert min(contrast(colour, text_on(colour)) for colour in colours) >= 4.5
    assert contrast("#ffffff", "#000000") == pytest.approx(21)


def fill(runs, count, **values):
    for number in range(count):
        for seed in (0, 1):
            images = 20 + number + seed + 0.1 * np.arange(8.0)
            write_run(
                runs,
                f"r{number}",
                seed,
                record({"psnr": images.mean(), "mae": 0.1 + number}, parameters=100_000 * (2 + number)),
                per_image={"psnr": images},
                curve=falling_loss(1.0, 0.1 * (1 + number)),
                **values,
            )
    return [row(f"r{number}", f"operator {number}") for number in range(count)]


def test_a_page_of_24_rows_has_24_badges_and_a_frame_of_curves_for_each(tmp_path):
    page = html.page(built(tmp_path, fill(tmp_path, 24), [column(**PSNR)]), "now")
    check(page)
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    badges = re.findall(r'<span class="badge (m\d)" style="--s:(var\(--c\d+\));', body)
    assert len(badges) == len(set(badges)) == 24
    assert len({colour for _, colour in badges}) == 24
    panels = page[page.index('class="panels"') :]
    assert panels.count("<figcaption>") == panels.count('<use href="#all-train-loss"/>') == 24
    links = re.findall(r'<li><a href="#(\w+)">', page)
    assert links[:2] == ["results", "glance"]
    assert all(f'<h2 id="{link}">' in page for link in links)


SIZES = {"axis": 12.5, "tick": 12, "label small": 11.5, "label small strong": 11.5, "coloured small": 11.5}


def boxes(svg):
    """Left, top, right, bottom of the texts of a figure, but those within marks."""
    found = []
    for text in ElementTree.fromstring(svg).iter("text"):
        css = text.get("class")
        if css == "inside":
            continue
        size = SIZES.get(css, 14)
        width, x, y = text_width(text.text, size), float(text.get("x")), float(text.get("y"))
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")]
        found.append((left, y - 0.75 * size, left + width, y + 0.2 * size, text.text))
    return found


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 12345.0])
def test_texts_of_figures_do_not_overprint_and_stay_inside(narrow, scale):
    rows = [Series(n, f"operator {n}", (scale * n,), scale * n, 0.1 * scale, n == 9) for n in range(1, 21)]
    curves = [(s, [[(step, scale * (1 + s.number / step)) for step in range(1, 5001, 50)]]) for s in rows]
    title = "a metric with a rather long name (thousands), less is better"
    figures = [
        dot_plot(rows, title, 4, rows[0], narrow=narrow),
        scatter([(s, 1e5 * s.number**2) for s in rows], "GMACs of one image", title, 4, first=[1], narrow=narrow),
        learning_curves(curves, f"{title} in validation", narrow=narrow),
    ]
    for svg in figures:
        width, height = map(float, ElementTree.fromstring(svg).get("viewBox").split()[2:])
        for a, b in itertools.combinations(boxes(svg), 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
        assert all(a >= -1 and b >= -1 and c <= width + 1 and d <= height + 1 for a, b, c, d, _ in boxes(svg))


def test_differences_to_the_baseline_by_hand(tmp_path):
    table = built(tmp_path, fill(tmp_path, 3), [column(**PSNR), column(**MAE)], reference="r1")
    found = [[line.measured[m].delta for line in table.rows] for m in ("psnr", "mae")]
    assert found[0] == [pytest.approx(-1), None, pytest.approx(1)]
    assert found[1] == [pytest.approx(-1), None, pytest.approx(1)]
    page = html.page(table, "now")
    assert re.findall(r'class="delta"[^>]*>([^<]+)<', page) == ["\u22121.00", "\u22121.0000", "+1.00", "+1.0000"]
    assert "95 % interval +1.00 to +1.00" in page  # of images that differ by as much
    assert "minus operator 1" in page
    assert "| minus operator 1 |" in markdown.markdown(table)
    for width in (60, 160):  # where the terminal has no room for the column, nothing explains it
        console = Console(width=width, file=io.StringIO(), color_system=None)
        terminal.show(table, console)
        assert console.file.getvalue().count("difference to the table's baseline") == (width == 160)
    head, *lines = csv.reader(io.StringIO(markdown.table_csv(table)))
    assert head[-6:] == [f"{m}_minus_baseline{end}" for m in ("psnr", "mae") for end in ("", "_low", "_high")]
    cells = [dict(zip(head, line, strict=True))["psnr_minus_baseline"] for line in lines]
    assert [cell and round(float(cell), 6) for cell in cells] == [-1.0, "", 1.0]
    assert "minus operator 1" not in html.page(built(tmp_path, fill_rows(3), [column(**PSNR)], ranks=False), "now")


def test_a_difference_to_the_baseline_is_over_the_seeds_that_both_have(tmp_path):
    rows = fill(tmp_path, 2)
    write_run(tmp_path, "r2", 1, record({"psnr": 24.35}), per_image={"psnr": 24 + 0.1 * np.arange(8.0)})
    table = built(tmp_path, [*rows, row("r2", "one seed")], [column(**PSNR)], reference="r0")
    m = table.rows[2].measured["psnr"]
    assert m.delta == pytest.approx(24.35 - 21.35)  # seed 1 of the baseline, not 24.35 minus the mean of both, 20.85
    assert (m.delta_interval.low + m.delta_interval.high) / 2 == pytest.approx(m.delta)
    assert any("over the seeds that both have" in line for line in remarks.legend(table))


def fill_rows(count):
    return [row(f"r{number}", f"operator {number}") for number in range(count)]


def test_the_headline_says_what_the_best_costs(tmp_path):
    table = built(tmp_path, fill(tmp_path, 3), [column(**PSNR)], reference="r0")
    said = remarks.headline(table).replace("\N{NO-BREAK SPACE}", " ")
    assert "operator 2, 22.85 ± 0.71 (2 seeds; best 23.35, seed 1), +2.00 against operator 0" in said
    assert "; it costs 400K parameters (+100 %) and 0.0540 GMACs (0 %)" in said


@pytest.mark.parametrize("name", ["zoo/reconstruction", "zoo/matting", "quickstart"])
def test_tables_that_no_paper_has_do_not_speak_of_one(name, tmp_path):
    made = load_experiment(name)
    metrics = {each.metric: 20.0 for each in made.columns}
    for each in made.rows[:3]:
        write_run(tmp_path, each.name, 0, record(metrics, steps=300), name=name)
    table = build(made, find_run_sets(tmp_path, name)[0])
    page = html.page(table, "now")
    check(page)
    text = re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", "", page, flags=re.DOTALL)
    for said in (text, markdown.markdown(table)):
        assert not re.search(r"printed|published", said, re.IGNORECASE)
        assert "budget=small cuts" not in said
        assert "300 steps" in said
    protocol = text[text.rindex("Protocol of the table") :]
    assert "What the experiment file asks for. The runs at hand: photos at budget small, 300 steps" in protocol


def test_cells_give_the_number_that_they_are_sorted_by(tmp_path):
    fill(tmp_path, 3)
    labels = ["operator 0", "5M2O DINs (our)", "1128 images & more"]
    printed = [{"p": "18.5", "params": "3.75M"}, {"p": "n/a", "params": "+4.99K"}, {}]
    rows = [row(f"r{n}", labels[n], printed=printed[n]) for n in range(3)]
    page = html.page(built(tmp_path, rows, [column(**PSNR | {"printed": "p"})], reference="r2"), "now")
    assert sorted_by(page, 0) == [
        ["operator 0", "18.5", "20.85", "21.35", "-2", "2"],
        ["5M2O DINs (our)", "", "21.85", "22.35", "-1", "2"],
        ["1128 images &amp; more", "", "22.85", "23.35", "", "2"],
    ]
    assert [line[3] for line in sorted_by(page, 1)] == ["-2", "-1", ""]  # the interval, by its lower end
    assert [line[1:4] for line in sorted_by(page, 2)] == [
        ["3750000", "200000", "-50"],
        ["4990", "300000", "-25"],
        ["", "400000", ""],
    ]
    assert {line[0] for line in sorted_by(page, 3)} == {"operator 0", "5M2O DINs (our)", "1128 images &amp; more"}


def sorted_by(page, number):
    """What the cells of a table of the page give to be sorted by, "" where they show it, line by line."""
    table = page.split('<table class="sortable')[1 + number].partition("</table>")[0]
    lines = table[table.index("<tbody>") :].split("<tr")[1:]
    return [[(re.findall('data-value="(.*?)"', tag) or [""])[0] for tag in re.findall("<t[dh].*?>", s)] for s in lines]


SORTED = """(() => { const [head] = [...document.querySelectorAll('th')].filter(e => e.textContent === 'measured');
    const button = head.querySelector('button'); const seen = [];
    for (let i = 0; i < 3; i++) { button.click(); seen.push([head.getAttribute('aria-sort'),
        [...head.closest('table').tBodies[0].rows].map(r => r.cells[0].textContent.slice(1)).join()]); }
    return seen; })()"""
BY_NAME = """(() => { const [head] = document.querySelectorAll('th.row'); head.querySelector('button').click();
    return [...head.closest('table').querySelectorAll('tbody th')].map(e => e.lastChild.textContent); })()"""
HIDDEN = """(() => { const chart = document.querySelector('.chart'), [button] = chart.querySelectorAll('.key button');
    const shown = () => getComputedStyle(chart.querySelector('g[data-row="1"]')).display;
    const before = [button.getAttribute('aria-pressed'), shown()]; button.click();
    return [...before, button.getAttribute('aria-pressed'), shown()]; })()"""


@pytest.mark.long
@pytest.mark.skipif(EXECUTABLE is None, reason="there is no Chromium")
def test_heads_are_buttons_that_sort_and_curves_can_be_hidden(tmp_path):
    page = tmp_path / "report.html"
    rows = fill(tmp_path, 3)
    made = built(tmp_path, [rows[1], rows[2], rows[0]], [column(**PSNR), column(**MAE)], reference="r0")
    page.write_text(html.page(made, "now"), encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open(page, width=1280, scheme="light")
        down, up, source = tab.evaluate(SORTED)
        assert down == ["descending", "operator 2,operator 1,operator 0"]  # more is better, so the best comes first
        assert up == ["ascending", "operator 0,operator 1,operator 2"]
        assert source == ["none", "operator 1,operator 2,operator 0"]
        assert tab.evaluate("document.querySelectorAll('th[aria-sort] > button').length") > 5
        assert tab.evaluate(HIDDEN) == ["true", "inline", "false", "none"]
        assert tab.complaints() == []


@pytest.mark.long
@pytest.mark.skipif(EXECUTABLE is None, reason="there is no Chromium")
def test_rows_sort_by_their_names_below_the_heads_of_their_blocks(tmp_path):
    fill(tmp_path, 5)
    labels = ["operator 2", "5M2O DINs (our)", "30 images", "operator 1", "4x"]
    blocks = ["sigma 15"] * 3 + ["sigma 25"] * 2
    rows = [row(f"r{number}", labels[number], block=blocks[number]) for number in range(5)]
    page = tmp_path / "report.html"
    page.write_text(html.page(built(tmp_path, rows, [column(**PSNR)]), "now"), encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open(page, width=1280, scheme="light")
        first = ["sigma 15", "30 images", "5M2O DINs (our)", "operator 2"]
        assert tab.evaluate(BY_NAME) == [*first, "sigma 25", "4x", "operator 1"]
