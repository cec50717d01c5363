"""report.html in a real browser: from disk, in both colour schemes, on a screen and on a phone."""

from __future__ import annotations

import numpy as np
import pytest

from indexnet.report import html
from indexnet.report.build import build
from indexnet.report.rendering import render
from indexnet.run.run_sets import find_run_sets
from report_browser import EXECUTABLE, browser
from report_fabricated import MAE, PSNR, column, experiment, falling_loss, record, row, write_run

pytestmark = [pytest.mark.long, pytest.mark.skipif(EXECUTABLE is None, reason="there is no Chromium")]

# the last elements whose right edge lies outside the window, though no box of their own scrolls them
OUTSIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, nav') && !e.closest('svg') &&
    e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
# how far the first cell of a table moves when its box is scrolled to the end
MOVED = """(() => { const box = document.querySelector('.scroll'), cell = box.querySelector('tbody th[scope=row]');
    box.scrollLeft = 0; const first = cell.getBoundingClientRect().left; box.scrollLeft = 1e6;
    return [box.scrollLeft, first - cell.getBoundingClientRect().left]; })()"""


def test_no_requests_no_complaints_nothing_outside_the_window(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"r{i}" for i in range(14)]
    for number, name in enumerate(names[:9]):
        for seed in (0, 1):
            images = 25 + number + seed + rng.normal(size=8)
            pictures = [("a", kind, None, rng.integers(0, 255, (40, 64, 3), np.uint8)) for kind in ("input", "output")]
            pictures += [("a", "index", stage, rng.integers(0, 255, (8, 8, 3), np.uint8)) for stage in range(3)]
            metrics = {"psnr": images.mean(), "mae": 0.1 + number}
            parameters = {"parameters": 10**5 * (1 + number)}
            curve, scores = falling_loss(1.0, 0.1), {"psnr": images}
            content = record(metrics, **parameters)
            write_run(tmp_path, name, seed, content, per_image=scores, curve=curve, pictures=pictures)
    write_run(tmp_path, names[9], 0, record(status="failed", error="a" * 300))
    rows = [
        row(name, f"a rather long name of row {name}", printed={"p": "30.12", "params": "+4.99K", "gflops": "4.08"})
        for name in names
    ]
    made = experiment(rows, [column(**PSNR | {"printed": "p"}), column(**MAE)], notes="`code` " * 30)
    page = tmp_path / "report.html"
    page.write_text(html.page(build(made, find_run_sets(tmp_path, "made_up")[0]), "now"), encoding="utf-8")
    papers = {}
    with browser(tmp_path / "profile") as tab:
        for scheme in ("light", "dark"):
            for width in (1280, 390):
                tab.open(page, width=width, scheme=scheme)
                tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
                assert tab.requests() == [page.as_uri()]
                assert tab.complaints() == []
                assert tab.evaluate("document.documentElement.scrollWidth") <= width
                assert tab.evaluate(OUTSIDE) == []
                assert tab.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
            scrolled, moved = tab.evaluate(MOVED)  # on the phone
            assert scrolled > 50
            assert abs(moved) <= 15  # the padding of the box; the first column stays
            papers[scheme] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        tab.call("Emulation.setEmulatedMedia", media="print", features=dark)
        papers["print"] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert papers == {"light": "rgb(251, 251, 250)", "dark": "rgb(20, 22, 26)", "print": "rgb(255, 255, 255)"}


def test_times_sort_by_their_units_and_heads_without_a_name_do_not_sort(tmp_path):
    times = ["678 µs", "104 ms", "1.2 s", "7.5 ms"]
    content = {
        "facts": [],
        "parts": [(str(number), "", time, 10, "") for number, time in enumerate(times)],
        "ceilings": [],
        "operations": [],
    }
    named = ("title", "command", "parts_rule", "ceilings_rule", "operations_rule", "generator", "version")
    page = tmp_path / "profile.html"
    page.write_text(render("profile.html", **content, **dict.fromkeys(named, "")), encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open(page, width=1280, scheme="light")
        buttons = "[...document.querySelectorAll('table')].map(each => each.querySelectorAll('button').length)"
        assert tab.evaluate(buttons) == [4, 4, 4]
        tab.evaluate("document.querySelectorAll('table button')[2].click()")
        cells = "[...document.querySelectorAll('tbody td:nth-child(3)')].map(each => each.textContent)"
        assert tab.evaluate(cells) == ["678 µs", "7.5 ms", "104 ms", "1.2 s"]
        bars = "[...document.querySelectorAll('td svg')].map(each => each.getBoundingClientRect().left)"
        assert len(set(tab.evaluate(bars))) == 1
