"""One self-contained HTML page: no script, no network, readable on a phone, in light and in dark."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from indexnet import __version__
from indexnet.report import plots as figures
from indexnet.report import remarks as words
from indexnet.report.html_samples import pictures
from indexnet.report.html_tables import badge, code, costs, missing, results, runs
from indexnet.report.provenance import facts
from indexnet.report.table import Block, Table, TableRow
from indexnet.run.run_sets import read_curve

if TYPE_CHECKING:
    from indexnet.run.tables import Column

GENERATOR = "indexnet report"
"""Content of the page's generator tag; tells our reports from other people's files."""

# Nothing may be fetched, whatever a caption or a label contains.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(table: Table, time: str) -> str:
    """Write the report.

    Args:
        table: what was measured.
        time: when the report is made, as text.

    Returns:
        A complete HTML document.
    """
    experiment = table.experiment
    style = resources.files("indexnet.report").joinpath("style.css").read_text(encoding="utf-8")
    sections = [results(table), missing(table), _glance(table), _cost(table), _curves(table), pictures(table)]
    sections.append(runs(table))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="{GENERATOR}">\n<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(experiment.title)}</title>\n<style>\n{style}</style>\n'
        f"</head>\n<body>\n{_header(table)}\n<main>\n" + "\n".join(filter(None, sections)) + "\n</main>\n"
        f"<footer><p>Made by <code>indexnet report {escape(experiment.name)}</code> "
        f"(version {__version__}, {escape(time)}). "
        "The same numbers are in <code>report.md</code>, <code>table.csv</code> and <code>table.tex</code> beside this "
        "page.</p></footer>\n"
        "</body>\n</html>\n"
    )


def _named(block: Block, content: str) -> str:
    """Put the block's name above what is shown of it."""
    return f"<h3>{escape(block.label)}</h3>{content}" if block.label and content else content


def _header(table: Table) -> str:
    experiment = table.experiment
    banner, remarks = words.banner(table), experiment.notes.strip()
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts(table))
    return (
        f'<header class="top"><h1>{escape(experiment.title)}</h1>'
        f'<p class="source">{escape(experiment.source)} · experiment <code>{escape(experiment.name)}</code></p>'
        + (f'<div class="banner" role="note"><p>{escape(banner)}</p></div>' if banner else "")
        + f'<p class="lead">{code(words.headline(table))}</p>'
        + (f"<p>{code(remarks)}</p>" if remarks else "")
        + f'<dl class="facts">{listed}</dl></header>'
    )


def _series(row: TableRow, column: Column) -> figures.Series | None:
    m = row.measured[column.metric]
    if m.mean is None:
        return None
    return figures.Series(row.number, row.short, list(m.values.values()), m.mean, m.sd, m.best)


def _glance(table: Table) -> str:
    column = table.main
    if column is None:
        return ""
    better = "more is better" if column.higher_is_better else "less is better"
    title = f"{column.title}, {better} ({table.setting})"
    plots, seeds = [], False
    for block in table.blocks:
        series = [s for row in block.rows if (s := _series(row, column))]
        if len(series) < 2:
            continue
        both = [
            figures.dot_plot(series, title, column.digits),
            figures.dot_plot(series, title, column.digits, width=340, narrow=True),
        ]
        plots.append(_named(block, f"<figure>{''.join(both)}</figure>"))
        seeds = seeds or any(len(s.values) > 1 for s in series)
    if not plots:
        return ""
    spread = " Rings are single seeds, the disc is their mean, the bar one standard deviation to each side."
    said = "One line per row of the table." + (spread if seeds else "")
    return (
        f'<section aria-labelledby="glance"><h2 id="glance">{escape(column.title)} at a glance</h2>'
        f'<p class="hint">{said}</p>{"".join(plots)}</section>'
    )


def _cost(table: Table) -> str:
    column = table.main
    if column is None:
        return ""
    listed = costs(table)
    plots = [_named(block, _scatters(block, column)) for block in table.blocks]
    if not listed and not any(plots):
        return ""
    sizes = {str(run.record.costs_input) for row in table.rows for run in row.done if run.record.costs_input}
    counted = f" Counted for one input of {escape(_shape(table))}." if len(sizes) == 1 else ""
    hint = f'<p class="hint">Whole networks.{counted} {words.COST_RULE}.</p>'
    corner = "upper" if column.higher_is_better else "lower"
    drawn = ""
    if any(plots):
        drawn = (
            f'<p class="hint">The {corner} left corner is where one wants to be. The numbers are those of the table.'
            f"</p>{''.join(plots)}{_key(_numbered(table), 'always')}"
        )
    return (
        f'<section aria-labelledby="cost"><h2 id="cost">Cost{" against quality" if drawn else ""}</h2>'
        f"{hint}{listed}{drawn}</section>"
    )


def _scatters(block: Block, column: Column) -> str:
    parts = []
    for key, title in (("parameters", "parameters"), ("paper_gflops", "GFLOPs, the papers' counting rule")):
        points = [
            (s, cost)
            for row in block.rows
            if (s := _series(row, column)) is not None and (cost := row.cost(key)) is not None and cost > 0
        ]
        if len(points) > 1:
            wide = figures.scatter(points, title, column.title, column.digits)
            narrow = figures.scatter(points, title, column.title, column.digits, narrow=True)
            parts.append(f"<figure>{wide}{narrow}</figure>")
    return f'<div class="pair">{"".join(parts)}</div>' if parts else ""


def _shape(table: Table) -> str:
    shape = next(run.record.costs_input for row in table.rows for run in row.done if run.record.costs_input)
    return " × ".join(map(str, shape)) + " (channels, height, width)" if isinstance(shape, list) else str(shape)


def _numbered(table: Table) -> list[tuple[int, str]]:
    """Return numbers and names of the rows with finished runs; a row of several blocks once."""
    return list(dict.fromkeys((row.number, row.short) for row in table.rows if row.done))


def _key(entries: Iterable[tuple[int, str]], css: str) -> str:
    listed = "".join(f"<li>{badge(number)}{escape(label)}</li>" for number, label in entries)
    return f'<ul class="key {css}">{listed}</ul>'


def _curves(table: Table) -> str:
    rows = []
    for row in table.rows:
        curves = [curve for run in row.runs if run.status != "unreadable" and len(curve := read_curve(run)) > 1]
        if curves:
            rows.append((row, curves))
    if not rows:
        return ""
    several = len(table.blocks) > 1
    lines = [(figures.Series(row.number, row.short, (), 0.0, None), curves) for row, curves in rows]
    if len(rows) <= figures.COLOURS and not several:
        shown = (
            "<figure>"
            + figures.learning_curves(lines)
            + figures.learning_curves(lines, width=340, narrow=True)
            + "</figure>"
        )
        shown += _key(((s.number, s.label) for s, _ in lines), "")
    else:  # too many lines for one frame: a frame each, with the same axes
        panels: dict[str, list[tuple[figures.Series, list[list[tuple[int, float]]]]]] = {}
        drawn = {row.block for row, _ in rows}
        places = {block.label: place for place, block in enumerate(table.blocks, 1) if block.label in drawn}
        for (row, curves), (series, _) in zip(rows, lines, strict=True):
            line = figures.Series(places[row.block], row.block, (), 0.0, None) if several else series
            panels.setdefault(f"{row.number} {row.short}", []).append((line, curves))
        frames = (
            f"<figure><figcaption>{escape(name)}</figcaption>{panel}</figure>"
            for name, panel in zip(panels, figures.curve_panels(list(panels.items())), strict=True)
        )
        shown = _key(((place, label) for label, place in places.items()), "always") if several else ""
        shown += f'<div class="panels">{"".join(frames)}</div>'
    seeds = " Strong: mean over seeds; faint: single seeds." if any(len(curves) > 1 for _, curves in lines) else ""
    return (
        '<section aria-labelledby="curves"><h2 id="curves">Learning curves</h2>'
        f'<p class="hint">Training loss, averaged within short windows.{seeds}</p>{shown}</section>'
    )
