"""table.tex: all rows, nothing but LaTeX and booktabs, every line with as many cells as the head."""

from __future__ import annotations

import re

import pytest

from indexnet.core.escape import latex as escape
from indexnet.report.build import build
from indexnet.report.latex import NONE, table_tex
from indexnet.run.experiments.tables import list_experiments, load_experiment
from report_fabricated import MAE, PSNR, built, column, record, row, write_run

# commands of LaTeX itself and of booktabs
KNOWN = frozenset(
    """begin end centering small setlength tabcolsep caption label multicolumn textit mathbf usepackage
    pm approx tau sigma times star uparrow downarrow cdot ldots dag ddag textbackslash textasciitilde textasciicircum
    toprule midrule cmidrule bottomrule""".split()  # noqa: SIM905
)


def cells(line):
    """Columns that a line of a tabular fills."""
    parts = re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
    return sum(int(match[1]) if (match := re.match(r"\s*\\multicolumn\{(\d+)\}", part)) else 1 for part in parts)


def check(text):
    """Balanced groups, environments and formulas; known commands; lines of equal length; only plain characters."""
    bare = re.sub(r"\\[\\&%$#_{}]", "", text)
    source = "\n".join(line for line in bare.splitlines() if not line.startswith("%"))
    depth = 0
    for character in source:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0
    assert source.count("$") % 2 == 0
    assert set(re.findall(r"\\([a-zA-Z]+)", source)) <= KNOWN
    begun, ended = re.findall(r"\\begin\{([^}]*)\}", source), re.findall(r"\\end\{([^}]*)\}", source)
    assert begun == ended[::-1]
    outside = re.sub(r"\$[^$]*\$", "", source)
    assert not re.search(r"[\^~#]", outside)
    assert "_" not in re.sub(r"\\label\{[^}]*\}", "", outside)
    assert all(ord(character) < 0x250 or character in "–—‘’“”" for character in source)
    (columns,) = re.findall(r"\\begin\{tabular\}\{(l+r*)\}", source)
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {cells(line) for line in lines} == {len(columns)}
    for place in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", body):
        assert 2 <= int(place[0]) < int(place[1]) <= len(columns)
    return lines


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_without_runs(name):
    made = load_experiment(name)
    text = table_tex(build(made, None))
    lines = check(text)
    assert "Nothing is measured yet." in text
    starts = [line.split(" & ")[0] for line in lines]
    for each in (found for found in made.rows if not found.intermediate):
        label = each.label.removesuffix(f", {each.block}") if each.block else each.label
        assert escape(f"{label} (cited)" if each.cited else label) in starts
    for each in made.rows:
        for printed in (each.printed.get(c.printed) for c in made.columns if c.printed):
            assert not printed or any(f" & {escape(printed)}" in line for line in lines)
    assert r"\pm" not in text.replace(r"\pm$", "")


def fill(runs):
    for number, name in enumerate(("a_1", "b")):
        for seed in (0, 1):
            images = [30.0 + number + seed, 31.0 + number + seed]
            metrics = {"psnr": sum(images) / 2, "mae": 0.1}
            write_run(runs, name, seed, record(metrics), per_image={"psnr": images, "mae": [0.1, 0.1]})
    write_run(runs, "c", 0, record(status="failed", error="no memory"))


def test_measured_printed_and_missing_cells(tmp_path):
    fill(tmp_path)
    rows = [
        row("a_1", "50% & more_less", printed={"p": "25.88", "params": "+4.99K", "gflops": "4.08"}),
        row("b", "σ ≈ 3", printed={"p": ""}),
        row("c", "failed"),
        row("d", "waiting", pending="not there_yet"),
    ]
    table = built(tmp_path, rows, [column(**PSNR | {"printed": "p"}), column(**MAE)], title="A {made_up} table")
    lines = check(text := table_tex(table))
    assert lines[0].startswith(r" & \multicolumn{3}{c}{PSNR (dB) $\uparrow$} & MAE $\downarrow$ & ")
    assert lines[1].startswith("Row & published & measured & best seed & measured & published & counted")
    assert lines[2].startswith(
        r"50\% \& more\_less & 25.88 & $31.00 \pm 0.71$ & 31.50 (1) & $\mathbf{0.1000 \pm 0.0000}$ & +4.99K & 100K"
    )
    assert lines[3].startswith(r"$\sigma$ $\approx$ 3 & -- & $\mathbf{32.00 \pm 0.71}$ & 32.50 (1)")
    assert lines[4].split(" & ")[1:] == [NONE] * 8 + [rf"{NONE} \\"]
    assert r"\caption{A \{made\_up\} table. Published: nobody (2021), table 1. Measured: photos at budget small" in text
    assert "Runs without a result: 1 failed." in text
    assert r"waiting: pending, not there\_yet." in text


def test_blocks_are_headed(tmp_path):
    rows = [row(f"a_{s}", f"A, sigma {s}", block=f"sigma {s}", base="a") for s in (15, 25)]
    for each in rows:
        write_run(tmp_path, each.name, 0, record({"psnr": 30.0}))
    lines = check(table_tex(built(tmp_path, rows, [column(**PSNR)])))
    assert [line[:40] for line in lines if line.startswith("\\multicolumn")] == [
        r"\multicolumn{5}{l}{\textit{sigma 15}} \\"[:40],
        r"\multicolumn{5}{l}{\textit{sigma 25}} \\"[:40],
    ]


def test_escape_covers_what_latex_reads():
    assert escape(r"a\b_c^d~e{f}$5 % # & <|>") == (
        r"a\textbackslash{}b\_c\textasciicircum{}d\textasciitilde{}e\{f\}\$5 \% \# \& $<$$|$$>$"
    )
    assert escape("`code` −1 × 2² ± 3…") == r"code $-$1 $\times$ 2$^2$ $\pm$ 3\ldots{}"
