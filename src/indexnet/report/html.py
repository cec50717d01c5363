"""One self-contained HTML page: no script, no network, readable on a phone, in light and in dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from indexnet import __version__
from indexnet.report import figures, formats
from indexnet.report.gallery import LEGEND, Strip, common, data_uri, samples
from indexnet.report.numbers import fixed, signed, significant
from indexnet.report.records import Picture, read_curve
from indexnet.report.table import Block, Measurement, Table, TableRow, facts

if TYPE_CHECKING:
    from indexnet.run.experiments import Column

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
    sections = [_results(table), _glance(table), _cost(table), _curves(table), _pictures(table), _runs(table)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="{GENERATOR}">\n<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(experiment.title)}</title>\n<style>\n{style}</style>\n'
        f"</head>\n<body>\n{_header(table)}\n<main>\n" + "\n".join(filter(None, sections)) + "\n</main>\n"
        f"<footer><p>Made by <code>indexnet report {escape(experiment.name)}</code> "
        f"(version {__version__}, {escape(time)}). "
        "The same numbers are in <code>report.md</code> and <code>table.csv</code> beside this page.</p></footer>\n"
        "</body>\n</html>\n"
    )


def _code(text: str) -> str:
    """Escape text; parts between backticks become code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


def _badge(number: int) -> str:
    colour = (number - 1) % figures.COLOURS
    return f'<span class="badge" style="--s:var(--c{colour})">{number}</span>'


def _named(block: Block, content: str) -> str:
    """Put the block's name above what is shown of it."""
    return f"<h3>{escape(block.label)}</h3>{content}" if block.label and content else content


def _header(table: Table) -> str:
    experiment = table.experiment
    banner, remarks = formats.banner(table), experiment.notes.strip()
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts(table))
    return (
        f'<header class="top"><h1>{escape(experiment.title)}</h1>'
        f'<p class="source">{escape(experiment.source)} · experiment <code>{escape(experiment.name)}</code></p>'
        + (f'<div class="banner" role="note"><p>{escape(banner)}</p></div>' if banner else "")
        + f'<p class="lead">{_code(formats.headline(table))}</p>'
        + (f"<p>{_code(remarks)}</p>" if remarks else "")
        + f'<dl class="facts">{listed}</dl></header>'
    )


# --- the table ---------------------------------------------------------------------------------------------------


def _results(table: Table) -> str:
    top, sub = ['<th class="row" scope="col" rowspan="2">Row</th>'], []
    for column in table.columns:
        title = f"{escape(column.title)} {formats.arrow(column)}"
        heads = [f"<th scope='col'>{name}</th>" for name in _heads(table, column)]
        if len(heads) == 1 and not table.has_printed:
            top.append(f'<th scope="col" rowspan="2">{title}</th>')
        else:
            heads[0] = heads[0].replace("<th", '<th class="start"', 1)
            top.append(f'<th class="start" scope="colgroup" colspan="{len(heads)}">{title}</th>')
            sub += heads
    for name, key in (("Parameters", "params"), ("GFLOPs", "gflops")):
        if table.prints_cost(key):
            top.append(f'<th class="start" scope="colgroup" colspan="2">{name}</th>')
            sub += ['<th class="start" scope="col">printed</th>', '<th scope="col">counted</th>']
        else:
            top.append(f'<th class="start" scope="col" rowspan="2">{name}</th>')
    top += [f'<th scope="col" rowspan="2">{name}</th>' for name in ("GMACs", "Training<br>samples/s")]
    top.append('<th class="text" scope="col" rowspan="2">Runs</th>')
    width = sum("colspan" not in head for head in top) + len(sub)
    body = "".join(_body(table, block, width) for block in table.blocks)
    line = f"<tr>{''.join(top)}</tr><tr>{''.join(sub)}</tr>"
    if not sub:
        line = f"<tr>{''.join(top)}</tr>".replace(' rowspan="2"', "")
    notes = [f'<li class="warning">{escape(text)}</li>' for text in table.warnings]
    notes += [f"<li>{escape(text)}</li>" for text in formats.legend(table)]
    notes += [f"<li>{escape(text)}</li>" for text in formats.notes(table) if text not in table.warnings]
    return (
        f'<section aria-labelledby="results"><h2 id="results">Results</h2>'
        f'<p class="hint">Rows in the order of the source. {_origin(table)}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="results"><table>'
        f"<thead>{line}</thead>\n{body}</table></div>"
        f'<ul class="notes">{"".join(notes)}</ul></section>'
    )


def _origin(table: Table) -> str:
    if table.runs is None:
        return "Nothing is measured yet."
    data, budget = escape(table.runs.data), escape(table.runs.budget)
    return f"Measured on <strong>{data}</strong> at budget <strong>{budget}</strong>."


def _heads(table: Table, column: Column) -> list[str]:
    printed = table.prints(column)
    heads = [escape(formats.printed_head(table)).replace(", ", ":<br>")] if printed else []
    heads.append("measured:<br>" + escape(table.setting) if table.has_printed else "measured")
    return [*heads, "difference"] if table.comparable and printed else heads


def _body(table: Table, block: Block, columns: int) -> str:
    lines = [_line(table, row) for row in block.rows]
    if block.label:
        head = f'<th class="block" scope="rowgroup" colspan="{columns}"><span>{escape(block.label)}</span></th>'
        lines.insert(0, f"<tr>{head}</tr>")
    return "<tbody>\n" + "\n".join(lines) + "\n</tbody>\n"


def _line(table: Table, row: TableRow) -> str:
    cells = []
    for column in table.columns:
        m = row.measured[column.metric]
        first = " start" if table.has_printed else ""
        if table.prints(column):
            cells.append(f'<td class="printed{first}">{escape(m.printed)}</td>')
            first = ""
        cells.append(_measured(m, column.digits, first))
        if table.comparable and table.prints(column):
            cells.append(f"<td>{signed(m.difference, column.digits)}</td>")
    for key, text in (
        ("params", formats.parameters(table, row)),
        ("gflops", formats.cost_text(row, "paper_gflops")),
    ):
        if table.prints_cost(key):
            cells.append(f'<td class="printed start">{escape(row.printed.get(key, ""))}</td><td>{text}</td>')
        else:
            cells.append(f'<td class="start">{text}</td>')
    cells += [f"<td>{formats.cost_text(row, key)}</td>" for key in ("true_gmacs", "train_samples_per_s")]
    cells.append(f'<td class="text">{escape(row.state(len(table.seeds)))}</td>')
    css = ' class="pending"' if row.pending else ""
    return f'<tr{css}><th scope="row">{_badge(row.number)}{escape(row.short)}</th>{"".join(cells)}</tr>'


def _measured(m: Measurement, digits: int, css: str) -> str:
    if m.mean is None:
        return f'<td class="{css.strip()}"></td>'
    spread = f' <span class="sd">± {fixed(m.sd, digits)}</span>' if m.sd is not None else ""
    seeds = "; ".join(f"seed {seed}: {fixed(value, digits)}" for seed, value in sorted(m.values.items()))
    said = f"rank {m.rank}; {seeds}" if m.rank is not None else seeds
    if m.interval is not None:
        low, high = signed(m.interval.low, digits), signed(m.interval.high, digits)
        what = "mean of the images' own numbers minus the best's" if m.pooled else "minus the best"
        said += f"; {what}: 95 % interval {low} to {high}"
    sign = f'<span class="sign">{formats.mark(m).strip()}</span>'
    best = "best" if m.best else ""
    return f'<td class="{best}{css}" title="{escape(said)}">{fixed(m.mean, digits)}{spread}{sign}</td>'


# --- figures -----------------------------------------------------------------------------------------------------


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
    parts = [_named(block, _scatters(block, column)) for block in table.blocks]
    if not any(parts):
        return ""
    sizes = {
        str(run.record.get("costs_input")) for row in table.rows for run in row.done if run.record.get("costs_input")
    }
    counted = f" Counted for one input of {escape(_shape(table))}." if len(sizes) == 1 else ""
    corner = "upper" if column.higher_is_better else "lower"
    return (
        '<section aria-labelledby="cost"><h2 id="cost">Cost against quality</h2>'
        f'<p class="hint">Whole networks; the {corner} left corner is where one wants to be.{counted} '
        f"The numbers are those of the table.</p>{''.join(parts)}"
        f"{_key(_numbered(table), 'always')}</section>"
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
    shape = next(run.record["costs_input"] for row in table.rows for run in row.done if run.record.get("costs_input"))
    return " × ".join(map(str, shape)) + " (channels, height, width)" if isinstance(shape, list) else str(shape)


def _numbered(table: Table) -> list[tuple[int, str]]:
    """Return numbers and names of the rows with finished runs; a row of several blocks once."""
    return list(dict.fromkeys((row.number, row.short) for row in table.rows if row.done))


def _key(entries: Iterable[tuple[int, str]], css: str) -> str:
    listed = "".join(f"<li>{_badge(number)}{escape(label)}</li>" for number, label in entries)
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
        places = {block.label: place for place, block in enumerate(table.blocks, 1)}
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


# --- pictures ----------------------------------------------------------------------------------------------------


def _pictures(table: Table) -> str:
    chosen = samples(table, limit=2 if len(table.rows) <= 10 else 1)
    if not chosen:
        return ""
    shown = []
    for name, strips in chosen:
        parts = []
        for block in table.blocks:
            mine = [strip for strip in strips if strip.row.block == block.label]
            if mine:
                head = f"<h4>{escape(block.label)}</h4>" if block.label else ""
                parts.append(head + _strips(table, mine))
        shown.append(f"<h3>{escape(name)}</h3>{''.join(parts)}")
    maps = any(p.kind == "index" for _, strips in chosen for strip in strips for p in strip.pictures)
    said = (
        " Index maps show what an operator hands from its downsampling to its upsampling half, one per stage; stage 0 "
        "is full resolution. They are averaged over channels and stretched to their own range: violet is low, yellow "
        "is high."
    )
    return (
        '<section aria-labelledby="samples"><h2 id="samples">Samples</h2>'
        '<p class="hint">The same test samples for every row. Error maps: black is no error, the brighter the larger.'
        f"{_UNMEASURED.get(table.experiment.task, '')}{said if maps else ''}</p>{''.join(shown)}</section>"
    )


_UNMEASURED = {
    "segmentation": " Grey pixels of the true classes have no label and do not count.",
    "depth": " Grey pixels of error maps have no measured depth and do not count.",
}


def _strips(table: Table, strips: Sequence[Strip]) -> str:
    """Show the pictures that all rows have in common, then every row's own."""
    column = table.main
    shared, own = common(strips)
    items = []
    frames = "".join(_frame(picture, "all rows") for picture in shared if picture.kind != LEGEND)
    legend = "".join(_legend(picture) for picture in shared if picture.kind == LEGEND)
    if frames:
        items.append(f'<li><div class="who">All rows</div><div class="pictures">{frames}</div></li>')
    for strip in own:
        value = strip.row.measured[column.metric].values.get(strip.seed) if column else None
        about = f"seed {strip.seed}" + (
            f", {escape(column.title)} {fixed(value, column.digits)} on the whole test set"
            if column and value is not None
            else ""
        )
        frames = "".join(_frame(picture, strip.row.label) for picture in strip.pictures)
        items.append(
            f'<li><div class="who">{_badge(strip.row.number)}{escape(strip.row.short)}<small>{about}</small></div>'
            f'<div class="pictures">{frames}</div></li>'
        )
    return f'{legend}<ul class="strips">{"".join(items)}</ul>'


def _legend(picture: Picture) -> str:
    """Show what colours mean: as text where the picture says which they are."""
    if picture.entries:
        listed = "".join(
            f'<li><span class="swatch" style="background:{colour}"></span>{escape(text)}</li>'
            for text, colour in picture.entries
        )
        return f'<ul class="legend" aria-label="{escape(picture.caption or LEGEND)}">{listed}</ul>'
    found = data_uri(picture)
    if found is None:
        return ""
    uri, width, height = found  # drawn for half its size
    caption = escape(picture.caption or LEGEND)
    return (
        f'<figure class="legend"><img src="{uri}" width="{(width + 1) // 2}" height="{(height + 1) // 2}" '
        f'alt="legend: {caption}"><figcaption>{caption}</figcaption></figure>'
    )


def _frame(picture: Picture, label: str) -> str:
    found = data_uri(picture)
    if found is None:
        return ""
    uri, width, height = found
    stage = f"index map, stage {picture.stage}" if picture.stage is not None else picture.kind
    caption = picture.caption or stage
    css = ' class="pixelated"' if picture.kind == "index" or max(width, height) < 160 else ""
    return (
        f'<figure><img{css} src="{uri}" width="{width}" height="{height}" style="--ratio:{width}/{height}" '
        f'alt="{escape(label)}: {escape(stage)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


# --- runs --------------------------------------------------------------------------------------------------------


def _runs(table: Table) -> str:
    parts = []
    if table.problems:
        lines = "".join(
            f'<tr><th scope="row">{escape(label)}</th><td class="text">{seeds}</td><td class="text">{status}</td>'
            f'<td class="reason">{escape(reason)}</td></tr>'
            for label, seeds, status, reason in formats.problems(table)
        )
        heads = _heads_line((("Row", "row"), ("Seeds", "text"), ("Status", "text"), ("Reason", "text")))
        parts.append(
            f"<h3>Without a result ({len(table.problems)})</h3>" + _scroll("Runs without a result", heads, lines)
        )
    finished = [(row, run) for row in table.rows for run in row.done]
    if finished:
        lines = "".join(
            f'<tr><th scope="row">{_badge(row.number)}{escape(row.label)}</th><td>{run.seed}</td>'
            f"<td>{escape(str(run.record.get('steps', '')))}</td><td>{_plain(run.number('wall_time_s'))}</td>"
            f"<td>{_plain(run.number('train_samples_per_s'))}</td><td>{_plain(run.number('peak_memory_mb'))}</td>"
            f'<td class="text">{escape(str(run.record.get("device", "")))}</td>'
            f'<td class="text"><code>{escape(str(run.record.get("git") or "")[:10])}</code></td></tr>'
            for row, run in finished
        )
        heads = _heads_line(
            (
                *(("Row", "row"), ("Seed", ""), ("Steps", ""), ("Seconds", ""), ("Samples/s", ""), ("Peak MB", "")),
                *(("Device", "text"), ("Revision", "text")),
            )
        )
        title = f"<summary>All {len(finished)} finished runs</summary>"
        parts.append(f"<details>{title}{_scroll('Finished runs', heads, lines)}</details>")
    return f'<section aria-labelledby="runs"><h2 id="runs">Runs</h2>{"".join(parts)}</section>' if parts else ""


def _plain(value: float | None) -> str:
    return "" if value is None else significant(value)


def _heads_line(names: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<th class="{css}" scope="col">{name}</th>' for name, css in names)


def _scroll(label: str, heads: str, lines: str) -> str:
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
