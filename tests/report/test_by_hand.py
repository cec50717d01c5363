"""The whole way from records to every format, against numbers that are worked out by hand in the comments."""

from __future__ import annotations

import dataclasses
import re
from html import unescape

import pytest

from indexnet.report import html, latex, markdown, remarks
from indexnet.report.build import build
from indexnet.report.table import Protocol
from indexnet.run.run_sets import find_run_sets
from report_fabricated import MAE, PSNR, column, experiment, record, row, write_run
from table_support import in_terminal, read_csv

# PSNR of four test images for every seed. Within a seed, the images of A, B, C and E differ from each other alike, so
# that the differences of two of them are the same for all images; D has one seed, and its images differ from A's.
BASE = (-1.0, 1.0, 0.0, 0.0)
MEANS = {
    "a": {0: 30.0, 1: 31.0, 2: 32.0},  # mean 31; deviations -1 0 1: sd = sqrt(2 / 2) = 1; best seed 2
    "b": {0: 26.0, 1: 28.0, 2: 30.0},  # mean 28; deviations -2 0 2: sd = sqrt(8 / 2) = 2; best seed 2
    "c": {0: 31.0, 1: 30.0, 2: 29.0},  # mean 30; deviations 1 0 -1: sd = 1; best seed 0
    "e": {0: 29.0, 1: 30.0, 2: 31.0},  # mean 30, sd 1; best seed 2
}
D = (27.0, 31.0, 30.0, 32.0)  # seed 0: mean 120 / 4 = 30; no sd
A_MAE = {
    0: 0.1,
    1: 0.2,
    2: 0.6,
}  # mean 0.3; deviations -0.2 -0.1 0.3: sd = sqrt(0.14 / 2) = 0.26458; best (least) seed 0

# Ranks by mean, more is better: A 31 is 1; C, D and E share 30, so all are 2; B 28 is 5.
# Intervals of (row - A), over the seeds that both have; images alike, so that seeds alone spread. Student's t of two
# degrees of freedom is 4.302653, of three 3.182446:
#   B - A per seed: -4 -3 -2, mean -3, sd 1: half 4.302653 / sqrt(3) = 2.484138. Zero is outside: significant.
#   C - A per seed: +1 -1 -3, mean -1, sd 2: half 4.968275. Zero is inside: not significant.
#   E - A per seed: -1 -1 -1, so [-1, -1]: significant.
#   D - A, seed 0 alone, images: 27 - 29, 31 - 31, 30 - 30, 32 - 30 = -2 0 0 2: mean 0, sd sqrt(8 / 3) = 1.632993,
#     half 3.182446 * 1.632993 / sqrt(4) = 2.598456. Not significant.
EXPECTED = {  # mean, sd, n, best, best seed, per seed, difference, rank, tied, interval
    "a": ("31", "1", "3", "32", "2", "0:30;1:31;2:32", "1", "1", "0", "", ""),
    "b": ("28", "2", "3", "30", "2", "0:26;1:28;2:30", "1", "5", "0", "-5.484138", "-0.515862"),
    "c": ("30", "1", "3", "31", "0", "0:31;1:30;2:29", "0", "2", "1", "-5.968275", "3.968275"),
    "d": ("30", "", "1", "30", "0", "0:30", "", "2", "1", "-2.598456", "2.598456"),
    "e": ("30", "1", "3", "31", "2", "0:29;1:30;2:31", "1", "2", "0", "-1", "-1"),
}
# Printed: A 30, B 27, C 30, D nothing, E 29. Differences measured - printed: A +1, B +1, C 0, E +1.
PRINTED = {"a": "30.0", "b": "27.0", "c": "30.0", "d": "", "e": "29.0"}
# Kendall's tau-b over A B C E, printed 30 27 30 29, measured 31 28 30 30, by pairs:
#   AB + +, AE + +, BC - -, BE - -: 4 concordant. AC: tied in print. CE: tied in the measurement. None is discordant.
#   5 of 6 pairs are not tied in print, 5 of 6 not in the measurement: 4 / sqrt(5 * 5) = 0.8.
TAU = 0.8


@pytest.fixture
def table(tmp_path):
    for name, seeds in MEANS.items():
        for seed, mean in seeds.items():
            images = [mean + offset for offset in BASE]
            mae = {"mae": A_MAE[seed]} if name == "a" else {}
            write_run(
                tmp_path, name, seed, record({"psnr": mean} | mae), per_image={"psnr": images}, setting="photos-paper"
            )
    write_run(tmp_path, "d", 0, record({"psnr": 30.0}), per_image={"psnr": D}, setting="photos-paper")
    rows = [row(name, f"row {name.upper()}", printed={"p": PRINTED[name]}) for name in "abcde"]
    made = experiment(rows, [column(**PSNR | {"printed": "p"}), column(**MAE)], seeds=(0, 1, 2))
    made = dataclasses.replace(made, printed_data=("photos",))
    # the made-up experiment cannot be composed; that its runs followed the protocol is given here
    return build(made, find_run_sets(tmp_path, "made_up")[0], protocol=Protocol())


def test_csv_holds_the_numbers_worked_out_by_hand(table):
    lines = {line["row"]: line for line in read_csv(table)}
    names = [f"psnr_{name}" for name in (*markdown.MEASURED, *markdown.INTERVAL)]
    for name, expected in EXPECTED.items():
        found = [lines[name][key] for key in names]
        for key, cell, wanted in zip(names, found, expected, strict=True):
            if key.endswith("_per_seed") or "" in (cell, wanted):
                assert cell == wanted, (name, key)
            else:
                assert float(cell) == pytest.approx(float(wanted), abs=1e-5), (name, key)
    a = lines["a"]
    assert [float(a[f"mae_{key}"]) for key in ("mean", "sd", "best", "best_seed", "rank")] == pytest.approx(
        [0.3, 0.2645751, 0.1, 0, 1]
    )
    assert {line["mae_mean"] for name, line in lines.items() if name != "a"} == {""}
    assert [lines[name]["status"] for name in "abcde"] == ["done", "done", "done", "partial", "done"]
    assert [lines[name]["printed_psnr"] for name in "abcde"] == ["30", "27", "30", "", "29"]


def test_agreement_with_the_printed_order_worked_out_by_hand(table):
    (block,) = table.blocks
    assert block.agreement["psnr"].tau == pytest.approx(TAU)
    assert block.agreement["psnr"].rows == 4


FORMATS = {
    "html": lambda table: re.sub(' data-value="[^"]*"', "", unescape(html.page(table, "now"))),
    "markdown": markdown.markdown,
    "terminal": in_terminal,
    "latex": latex.table_tex,
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_names_best_seed_ties_spread_difference_and_agreement(table, kind):
    text = " ".join(FORMATS[kind](table).split())
    cells = {  # best, tied, significant, one seed
        "html": (
            '31.00 <span class="sd">± 1.00</span><span class="sign" role="img" aria-label="best">★</span></td>'
            "<td>32.00 (2)</td><td>+1.00</td>",
            '30.00 <span class="sd">± 1.00</span><span class="sign" role="img" '
            'aria-label="not significantly different from the best">≈</span></td><td>31.00 (0)</td><td>+0.00</td>',
            '28.00 <span class="sd">± 2.00</span><span class="sign"></span></td><td>30.00 (2)</td><td>+1.00</td>',
            "<td>−5.97 to +3.97</td>",
            "<strong>32.00 ●</strong>",
        ),
        "markdown": (
            "| 31.00 ± 1.00 ★ | 32.00 (2) | +1.00 |",
            "| 30.00 ± 1.00 ≈ | 31.00 (0) | +0.00 |",
            "| 28.00 ± 2.00 | 30.00 (2) | +1.00 |",
            "| 30.00 ≈ | 30.00 (0) | |",
        ),
        "latex": (
            r"$\mathbf{31.00 \pm 1.00}$ & 32.00 (2) & $+1.00$",
            r"$30.00 \pm 1.00^{\approx}$ & 31.00 (0) & $+0.00$",
            r"$28.00 \pm 2.00$ & 30.00 (2) & $+1.00$",
            r"$30.00^{\approx}$ & 30.00 (0) & --",
        ),
    }
    cells["terminal"] = [" ".join(cell.replace("|", "").split()) for cell in cells["markdown"]]
    for cell in cells[kind]:
        assert cell in text
    signs = {"latex": (r"Bold: best mean of the column", r"$\approx$ not significantly different from the best")}
    for sign in signs.get(kind, ("★ best mean of the column", "≈ not significantly different from the best")):
        assert sign in text
    assert "best seed: the value of a row's best run and, in brackets, its seed" in text.replace(
        "Best seed:", "best seed:"
    )
    said = r"$\tau$-b" if kind == "latex" else "τ-b"
    assert f"Kendall's {said} between published and measured order" in text
    assert "order of 4 rows" in text
    assert "PSNR (dB) 0.80." in text
    assert "Fewer than 3 finished seeds: row D (1)." in text


def test_the_headline_names_the_best_row_its_best_seed_and_its_equals(table):
    assert remarks.headline(table) == (
        "Best PSNR (dB) on photos at budget paper: row A, 31.00 ± 1.00 (3 seeds; best 32.00, seed 2), "
        "not significantly different from row C, row D; it costs 100K parameters and 0.0540 GMACs. "
        "2 of 15 runs have no result yet."
    )
