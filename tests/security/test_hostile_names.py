"""A name as an attacker would choose it, for rows, titles and files, through everything that is written for people."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.table import Table
from rich.text import Text

from indexnet.commands.compare import html_page
from indexnet.core.console import create_console, say
from indexnet.core.errors import UserError
from indexnet.core.escape import csv_cell, csv_text, latex, markdown, markdown_cell, markdown_table, visible
from indexnet.data.io.images import read_image
from indexnet.inference.comparison_table import (
    compare_scores,
    print_comparison,
    print_single,
    table_markdown,
    table_rows,
)
from indexnet.inference.evaluation import Scores
from indexnet.metrics import create_metric
from indexnet.report.build import build
from indexnet.report.html import page
from indexnet.report.latex import table_tex
from indexnet.report.markdown import markdown as report_markdown
from indexnet.report.markdown import table_csv
from indexnet.report.terminal import show
from indexnet.run.record import write_rows
from indexnet.run.run_sets import find_run_sets, read_per_image
from report_fabricated import PSNR, column, experiment, falling_loss, record, row, write_run

PLAIN = "a plain name of `code` and `more`"
HOSTILE = (
    "=HYPERLINK(\"http://evil.example\")|<script>alert(1)</script><img src=x onerror='alert(2)'> "
    "[a](javascript:alert(3)) ![b](http://evil.example/x.png) <http://evil.example> | `code` \\input{/etc/passwd}"
    "\\write18{id}^^M $x$ %c &lt; #1 _e_ **s** ~~t~~ `{x}` {} \x1b]0;title\x07\x1b[31mred\x9b2J \u202egnp.exe\t\r\n"
    "\n# heading\n\n* item\n\n| a | b |\n|---|---|\n</td></style></title>--><svg onload=alert(4)>"
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
STARTS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", "＝1", "'=1", "''=1")


def made(tmp_path, name):
    """A table in which all that is text has this name, with runs."""
    for seed in (0, 1):
        scores, curve = {"psnr": [30.0, 31.0]}, falling_loss(1, 0.1)
        shown = [(name, kind, None, np.zeros((8, 8, 3), np.uint8)) for kind in ("input", "output", name)]
        done = record({"psnr": 30.5 + seed}, device=name)
        write_run(tmp_path, "x", seed, done, per_image=scores, curve=curve, pictures=shown)
        write_run(tmp_path, "y", seed, record({"psnr": 29.5}, error=name, status="failed"))
    columns = [column(**PSNR | {"title": name}, printed="psnr")]
    texts = {"title": name, "source": name, "notes": name, "exceptions": {"x": name}}
    rows = [row("x", name, printed={"psnr": "30"}), row("y", f"y{name}", pending=name), row("z", "plain")]
    return build(experiment(rows, columns, **texts), find_run_sets(tmp_path, "made_up")[0])


def compared(name):
    """A comparison of two methods, whose names, files and worst image have this name."""
    scores = Scores(metrics={"mse": create_metric("mse")})
    for place in range(12):
        image = f"{name}{place}"
        scores.rows.append({"name": image, "group": image, "mse": float(place)})
        scores.sums.setdefault("mse", {})[image] = np.array([float(place), 1.0])
    return compare_scores([(name, name, scores), ("other", "other.ckpt", scores)]), scores


class Structure(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        places = [value for key, value in attrs if key in ("href", "src", "style", "class")]
        self.found.append((tag, [key for key, _ in attrs], places))


def html(text):
    found = Structure(text).found
    return [each for each in found if each[0] != "br"]  # new lines in a title may be seen


def rendered(text):
    def kinds(tokens):
        for token in tokens:
            if token.type not in ("text", "text_special", "softbreak"):
                yield token.type, token.tag, token.attrs
            yield from kinds(token.children or [])

    return list(kinds(MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)))


def commands(text):
    """The commands of a LaTeX text that are no escapes, and how deep its groups go."""
    bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]|\$[<>|]\$|\{\}(?=[\[*])", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not re.search(r"\\\\\s*[\[*]", bare)
    return re.findall(r"\\[A-Za-z@]+", bare)


def sheet(text):
    lines = list(csv.reader(io.StringIO(text, newline="")))
    for cell in (cell for line in lines for cell in line):
        assert not CONTROL.search(cell)
        try:
            float(cell)
        except ValueError:
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝")), cell
            assert not cell.startswith(("\t", "\r"))
    return [len(line) for line in lines]


def terminal(print_it):
    stream = io.StringIO()
    print_it(create_console(stream, width=160))
    assert not CONTROL.search(stream.getvalue())
    return []


def pictures(name):
    method = SimpleNamespace(caption=name, source=name, task=SimpleNamespace(name=name, difference_scale=name))
    return html(html_page([method], [(name, True)], truth=False, initial=False))


def rows_file(name, tmp_path):
    write_rows(tmp_path / "rows.csv", [{"name": name, "mse": -1.0}, *table_rows(compared(name)[0])])
    return sheet((tmp_path / "rows.csv").read_text(encoding="utf-8"))


REPORT = {
    "report.html": lambda table: html(page(table, "now")),
    "report.md": lambda table: rendered(report_markdown(table)),
    "table.tex": lambda table: commands(table_tex(table)),
    "table.csv": lambda table: sheet(table_csv(table)),
    "terminal": lambda table: terminal(lambda console: show(table, console)),
}
OTHERS = {
    "evaluation.md": lambda name, _: rendered(table_markdown(name, compared(name)[0])),
    "comparison.html": lambda name, _: [tag for tag, keys, _ in pictures(name)],
    "per_image.csv": rows_file,
    "a line": lambda name, _: terminal(lambda console: say(console, name)),
    "rich table": lambda name, _: terminal(lambda console: console.print(rich_table(name))),
}


def rich_table(name):
    table = Table(title=Text(name))
    table.add_column(Text(name))
    table.add_row(Text(name))
    return table


@pytest.mark.parametrize("writer", [*REPORT, *OTHERS])
def test_a_hostile_name_changes_no_writing(writer, tmp_path):
    """What is written has the same structure for a hostile name as for a plain one: only text differs."""
    found = []
    for name in (PLAIN, HOSTILE):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        found.append(REPORT[writer](made(folder, name)) if writer in REPORT else OTHERS[writer](name, folder))
    assert found[0] == found[1]


def test_the_terminal_of_an_evaluation(capsys):
    comparison, scores = compared(HOSTILE)
    print_comparison(HOSTILE, comparison)
    print_single(HOSTILE, scores)
    assert not CONTROL.search(capsys.readouterr().out)


@pytest.mark.parametrize("text", [*STARTS, "plain", "'quoted", "a=1", "-", "", HOSTILE])
def test_no_cell_is_a_formula(text, tmp_path):
    cell = csv_cell(text)
    assert not cell.lstrip(" \t\r\n").startswith(("=", "+", "-", "@", "＝"))
    assert csv_text(cell) == visible(text).replace("\t", "\\t")  # names of images are read back
    assert csv_cell(-1.5) == -1.5
    folder = write_run(tmp_path, "x", 0, record({"psnr": 1.0}))
    write_rows(folder / "per_image.csv", [{"name": text, "psnr": -1.5}])
    (run,) = find_run_sets(tmp_path, "made_up")[0].runs
    assert read_per_image(run) == {"psnr": {csv_text(cell): -1.5}}


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40) | st.text("`*_[]<>|~#+-=1. \\&:/\n\t$", max_size=20))
def test_any_text_stays_text(text):
    shown = rendered(markdown(text))
    assert {kind for kind, *_ in shown} <= {"paragraph_open", "inline", "paragraph_close", "code_inline"}
    cells = rendered(markdown_table(["a", "b"], [[markdown_cell(text), "x"]]))
    assert [kind for kind, *_ in cells].count("td_open") == 2
    assert {kind for kind, *_ in cells if kind.endswith("_open")} == {
        f"{each}_open" for each in ("table", "thead", "tr", "th", "tbody", "td")
    }
    assert commands(latex(text)) == [word for word in commands(latex(text)) if word in SIGNS]
    assert not CONTROL.search(visible(text))
    assert visible(visible(text)) == visible(text)
    assert csv_text(csv_cell(text)) == visible(text).replace("\t", "\\t")


SIGNS = {"\\pm", "\\times", "\\approx", "\\tau", "\\sigma", "\\uparrow", "\\downarrow", "\\cdot", "\\ldots", "\\star"}


def test_a_mistake_about_a_hostile_file_moves_no_terminal(tmp_path):
    file = tmp_path / "a\x1b]0;title\x07\x1b[31m\u202egnp.png"
    file.write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        read_image(file)
    assert not CONTROL.search(str(caught.value))
    assert str(caught.value).startswith(f"{tmp_path}/a\\x1b]0;title\\x07\\x1b[31m\\u202egnp.png cannot be read")
