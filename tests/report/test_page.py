"""report.html, and the command that writes it: complete, self-contained, accessible, safe."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import re

import numpy as np
import pytest
from PIL import Image

from indexnet.cli import main
from indexnet.report import html, markdown, pictures
from indexnet.report.build import build
from indexnet.report.table import COSTS
from indexnet.run.experiments.tables import list_experiments, load_experiment
from indexnet.run.run_sets import Picture, find_run_sets
from report_checker import check, outside
from report_fabricated import MAE, PSNR, built, column, experiment, falling_loss, record, row, write_run


def pixels(size=32):
    return np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)


def fill(runs, names=("a", "b", "m2o"), **values):
    for number, name in enumerate(names):
        for seed in (0, 1):
            images = 25 + 4 * number + seed + np.arange(6.0)
            pictures = [("camera 1", kind, None, pixels()) for kind in ("input", "output", "error")]
            if name == "m2o":
                pictures += [("camera 1", "index", stage, pixels(8)) for stage in (0, 1, 2)]
            write_run(
                runs,
                name,
                seed,
                record({"psnr": images.mean(), "mae": 0.1 / (1 + number)}, parameters=10**5 * (1 + number) ** 3),
                per_image={"psnr": images},
                curve=falling_loss(1.0, 0.1),
                pictures=pictures,
                **values,
            )


def table_of(runs, **values):
    made = experiment(
        [row("a", "Nearest"), row("b", "CARAFE"), row("m2o", "M2O"), row("x", "A2U", pending="not there yet")],
        [column(**PSNR), column(**MAE)],
        notes="Give `rows=m2o` for one row.",
        **values,
    )
    sets = find_run_sets(runs, "made_up")
    return build(made, sets[0] if sets else None)


def test_page_is_complete_and_self_contained(tmp_path):
    fill(tmp_path)
    page = html.page(table_of(tmp_path), "2026-11-21 09:00")
    checker = check(page)
    text = "".join(checker.text)
    for said in ("A made-up table", "nobody (2021), table 1", "35.0", "photos", "small", "200 steps", "a CPU"):
        assert said in text
    for name in ("results", "glance", "cost", "curves", "samples", "runs"):
        assert name in checker.ids
    assert "pending" in text
    assert "<code>rows=m2o</code>" in page
    assert not any(tag in ("iframe", "object", "video") for tag, _ in checker.tags)
    assert all(a["src"].startswith("data:image/") and a["alt"] for tag, a in checker.tags if tag == "img")
    assert "prefers-color-scheme: dark" in page
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in checker.tags


def test_the_search_for_references_finds_them():
    for bad in ('<img src="x.png">', "<a href=//x>", '<link rel="stylesheet" href="https://x">', "<use href='x#a'>"):
        assert outside(f"<style></style>{bad}") == [bad]
    assert outside("<style>a { background: url(x) }</style>")
    assert outside("<style>@import 'x';</style>")
    assert not outside('<style></style><img src="data:image/png;base64,AA"><link rel="icon" href="data:,">')


def test_banner_where_the_budget_ranks_nothing(tmp_path):
    fill(tmp_path)
    page = html.page(table_of(tmp_path, ranks=False), "")
    assert 'class="banner"' in page
    assert "ranks nothing" in page
    assert 'class="best' not in page
    ranked = html.page(table_of(tmp_path), "")
    assert 'class="banner"' not in ranked
    assert 'class="best' in ranked


def test_headings_descend_one_at_a_time_and_cells_have_heads(tmp_path):
    fill(tmp_path)
    checker = check(html.page(table_of(tmp_path), ""))
    levels = [int(tag[1]) for tag, _ in checker.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert all(a.get("scope") in ("row", "col", "colgroup", "rowgroup") for tag, a in checker.tags if tag == "th")
    scrolled = [a for tag, a in checker.tags if a.get("class") == "scroll"]
    assert len(scrolled) == sum(tag == "table" for tag, _ in checker.tags)
    assert all(a.get("tabindex") == "0" and ("aria-label" in a or "aria-labelledby" in a) for a in scrolled)


def test_every_line_has_as_many_cells_as_the_head(tmp_path):
    fill(tmp_path)
    made = experiment(
        [
            row("a", "Nearest", printed={"psnr": "25.88", "params": "3.75M", "gflops": "4.08"}),
            row("m2o", "M2O", printed={"psnr": "48.37"}),
        ],
        [column(**{**PSNR, "printed": "psnr"}), column(**MAE)],
    )
    page = html.page(build(made, find_run_sets(tmp_path, "made_up")[0]), "")
    table = page[page.index("<table") : page.index("</table>")]
    top, sub = (part.split("</tr>")[0] for part in table.split("<tr>")[1:3])
    spans = [int(m) for m in re.findall(r'colspan="(\d+)"', top)]
    single = top.count("<th") - len(spans)
    assert sub.count("<th") == sum(spans)
    for line in re.findall(r"<tr[^>]*><th scope=\"row\"[^>]*>.*?</tr>", table):
        assert line.count("<td") + 1 == single + sum(spans)
    assert "measured:<br>photos, small" in page  # never beside a printed number without its origin
    assert "These are different things" in page


def test_names_are_escaped(tmp_path):
    fill(tmp_path)
    (tmp_path / "made_up/photos-small/a/seed=0/record.json").write_text('{"status": "failed", "error": "<b>x</b>"}')
    page = html.page(built(tmp_path, [row("a", "<script>alert(1)</script> & co")], [column(**PSNR)], title="1 < 2"), "")
    check(page)
    assert "<script>alert" not in page
    assert "<b>x" not in page
    assert "1 &lt; 2" in page


def test_pages_of_empty_and_unfinished_tables(tmp_path):
    empty = html.page(table_of(tmp_path), "")
    assert "indexnet train -m experiments=made_up" in "".join(check(empty).text)
    write_run(tmp_path, "a", 0, record(status="running"), curve=falling_loss(1.0, 0.5))
    write_run(tmp_path, "b", 0, record(status="failed", error="out of memory"))
    checker = check(html.page(table_of(tmp_path), ""))
    assert "curves" in checker.ids  # a running run shows its curve
    assert "out of memory" in "".join(checker.text)
    assert "glance" not in checker.ids


def test_gallery_takes_the_lowest_finished_seed_and_orders_kinds(tmp_path):
    fill(tmp_path)
    (tmp_path / "made_up/photos-small/m2o/seed=0/record.json").write_text('{"status": "failed"}')
    ((name, strips),) = pictures.samples(table_of(tmp_path), limit=2)
    assert name == "camera 1"
    assert [(strip.row.label, strip.seed) for strip in strips] == [("Nearest", 0), ("CARAFE", 0), ("M2O", 1)]
    assert [p.kind for p in strips[2].pictures] == ["input", "output", "error", "index", "index", "index"]
    assert [p.stage for p in strips[2].pictures[3:]] == [0, 1, 2]


def write_pictures(runs, name, pictures):
    write_run(runs, name, 0, record({"psnr": 30.0}), pictures=[("cat", kind, None, p) for kind, p in pictures])
    return runs / "made_up/photos-small" / name / "seed=0/pictures/pictures.json"


def test_pictures_that_all_rows_have_alike_are_shown_once(tmp_path):
    same, other = pixels(), pixels()[::-1]
    for name, shown in (("a", same), ("b", other)):
        write_pictures(tmp_path, name, [("input", same), ("target", shown), ("output", same)])
    ((_, strips),) = pictures.samples(table_of(tmp_path), limit=1)
    shared, own = pictures.common(strips)
    assert [p.kind for p in shared] == ["input"]  # the outputs agree by chance and stay
    assert [[p.kind for p in strip.pictures] for strip in own] == [["target", "output"]] * 2
    checker = check(html.page(table_of(tmp_path), ""))
    assert [a["alt"] for tag, a in checker.tags if tag == "img"] == [
        *("all rows: input", "Nearest: target", "Nearest: output"),
        *("CARAFE: target", "CARAFE: output"),
    ]


def test_a_legend_is_shown_once_and_at_half_size(tmp_path):
    for name in ("a", "b"):
        write_pictures(tmp_path, name, [("output", pixels()), ("legend", pixels(600))])
    page = html.page(table_of(tmp_path), "")
    checker = check(page)
    (legend,) = [a for tag, a in checker.tags if tag == "img" and a["alt"].startswith("legend")]
    assert (legend["width"], legend["height"]) == ("300", "300")
    assert decode(legend["src"]).size == (600, 600)  # whole: it holds text


def test_entries_of_all_legends_are_shown_as_text(tmp_path):
    for name, entries in (
        ("a", '[["wall & co", "#4477aa"]]'),
        ("b", '[["floor", "#ee6677"], ["wall & co", "#4477aa"]]'),
    ):
        listing = write_pictures(tmp_path, name, [("output", pixels()), ("legend", pixels())])
        listing.write_text(listing.read_text().replace('"kind": "legend"', f'"kind": "legend", "entries": {entries}'))
    page = html.page(table_of(tmp_path), "")
    checker = check(page)
    legend = page[page.index('<ul class="legend"') :]
    legend = legend[: legend.index("</ul>")]
    assert re.findall(r"background:(#\w+)\"></span>([^<]+)", legend) == [
        ("#ee6677", "floor"),
        ("#4477aa", "wall &amp; co"),
    ]
    assert not any(a["alt"].startswith("legend") for tag, a in checker.tags if tag == "img")


def test_blocks_have_their_own_pictures(tmp_path):
    rows = [row(f"a_{s}", f"A, sigma {s}", block=f"sigma {s}", base="a") for s in (15, 25)]
    for name, shown in (("a_15", pixels()), ("a_25", pixels()[::-1])):
        write_pictures(tmp_path, name, [("input", shown), ("output", shown)])
    page = html.page(built(tmp_path, rows, [column(**PSNR)]), "")
    check(page)
    section = page[page.index('id="samples"') :]
    assert section.index("<h4>sigma 15</h4>") < section.index("<h4>sigma 25</h4>")
    assert section.count('alt="all rows: input"') == 2


def decode(uri):
    head, _, data = uri.partition(",")
    assert head.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_pictures_are_embedded_whole_when_small_and_shrunk_when_large(tmp_path):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.fromarray(pixels(32)).save(small)
    Image.fromarray(np.tile(np.arange(600, dtype=np.uint8)[None, :, None], (300, 1, 3))).save(large)
    uri, width, height = pictures.embed(Picture(small, "x", "input", None, ""))
    assert (width, height) == (32, 32)
    assert (np.asarray(decode(uri)) == pixels(32)).all()
    uri, width, height = pictures.embed(Picture(large, "x", "output", None, ""))
    assert (width, height) == (256, 128)
    assert decode(uri).size == (256, 128)
    assert pictures.embed(Picture(large, "x", "index", 0, ""))[1:] == (600, 300)
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert pictures.embed(Picture(tmp_path / "broken.png", "x", "input", None, "")) is None


def test_photographs_become_jpeg(tmp_path):
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    uri, *_ = pictures.embed(Picture(path, "x", "input", None, ""))
    assert uri.startswith("data:image/jpeg")
    uri, *_ = pictures.embed(Picture(path, "x", "output", None, ""))
    assert uri.startswith("data:image/png")
    grey = tmp_path / "grey.png"
    Image.fromarray(np.repeat(noise[..., :1], 3, axis=2)).save(grey)
    assert decode(pictures.embed(Picture(grey, "x", "output", None, ""))[0]).mode == "L"
    assert decode(pictures.embed(Picture(path, "x", "error", None, ""))[0]).mode == "P"


@pytest.mark.parametrize("colours", [2, 250, 256, 300])
def test_index_maps_keep_every_colour(tmp_path, colours):
    path = tmp_path / "index.png"
    rng = np.random.default_rng(colours)
    scale = rng.permutation(256**3)[:colours]
    palette = np.stack([scale >> 16, scale >> 8 & 255, scale & 255], -1).astype(np.uint8)
    pixels = palette[np.r_[np.arange(colours), rng.integers(0, colours, 300 * 300 - colours)].reshape(300, 300)]
    Image.fromarray(pixels).save(path)
    shown = decode(pictures.embed(Picture(path, "x", "index", 0, ""))[0])
    assert np.array_equal(np.asarray(shown.convert("RGB")), pixels)
    assert shown.mode == ("P" if colours <= 256 else "RGB")


# --- the command -------------------------------------------------------------------------------------------------


def test_command_writes_its_files_and_prints_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "runs", ("carafe", "hin", "m2o"), name="quickstart")
    assert main(["report", "quickstart"]) == 0
    folder = tmp_path / "reports/quickstart/photos-small"
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.md", "table.csv", "table.tex"]
    said = capsys.readouterr().out
    assert "photos at budget small, 6 of 14 runs finished" in " ".join(said.split())
    assert "Best PSNR (dB)" in said
    assert "reports/quickstart/photos-small/report.html" in said
    assert main(["report", "quickstart"]) == 0  # again: our own report is replaced


def test_command_refuses_a_folder_of_runs_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    for name in ("nope", "file", "runs"):  # the default too, where it is named
        assert main(["report", "quickstart", "--runs", name]) == 2
        assert f"--runs {name}: there is no such folder" in capsys.readouterr().err
    assert not (tmp_path / "reports").exists()


def test_command_chooses_and_names_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "elsewhere", ("hin", "m2o"), name="quickstart")
    fill(tmp_path / "elsewhere", ("hin",), name="quickstart", setting="photos-paper")
    command = ["report", "quickstart", "--runs", "elsewhere"]
    assert main(command) == 0
    assert "also there: photos-paper (--data)" in " ".join(capsys.readouterr().out.split())
    assert main([*command, "--data", "photos-paper", "--output", "mine"]) == 0
    assert "photos at budget paper" in (tmp_path / "mine/report.md").read_text()
    assert main([*command, "--data", "scenes-small"]) == 2
    assert "present: photos-paper, photos-small" in capsys.readouterr().err


def test_command_overwrites_nothing_of_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/table.csv").write_text("precious")
    command = ["report", "quickstart", "--output", "mine"]
    assert main(command) == 2
    assert re.search(r"mine already holds table\.csv.*--overwrite", capsys.readouterr().err)
    assert (tmp_path / "mine/table.csv").read_text() == "precious"
    assert not (tmp_path / "mine/report.html").exists()
    assert main([*command, "--overwrite"]) == 0
    assert (tmp_path / "mine/table.csv").read_text() != "precious"
    (tmp_path / "file").write_text("x")
    assert main(["report", "quickstart", "--output", "file"]) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_file_makes_a_report_without_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", name]) == 0
    assert "Nothing is measured yet" in capsys.readouterr().out
    folder = tmp_path / "reports" / name / "no-runs"
    check((folder / "report.html").read_text(encoding="utf-8"))
    made = load_experiment(name)
    lines = list(csv.DictReader((folder / "table.csv").read_text(encoding="utf-8").splitlines()))
    assert [line["row"] for line in lines] == [row.name for row in made.rows if not row.intermediate]
    measured = [f"{c.metric}_{what}" for c in made.columns for what in (*markdown.MEASURED, *markdown.INTERVAL)]
    measured += [cost.key for cost in COSTS]
    assert all(line[key] == "" for line in lines for key in [*measured, "data", "budget"])
    printed = sum(bool(row.printed.get(c.printed)) for row in made.rows for c in made.columns if c.printed)
    assert {line["status"] for line in lines} <= {"missing", "pending", "cited"}
    assert sum(bool(line[f"printed_{column.metric}"]) for line in lines for column in made.columns) == printed
