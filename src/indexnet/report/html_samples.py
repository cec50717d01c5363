"""The page's section of qualitative results: the same samples for every row, and what colours mean."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from indexnet.report.gallery import LEGEND, Strip, common, data_uri, samples
from indexnet.report.html_tables import badge
from indexnet.report.numbers import fixed
from indexnet.report.table import Table
from indexnet.run.run_sets import Picture


def pictures(table: Table) -> str:
    """Write the section; "" where no run has pictures."""
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
            f'<li><div class="who">{badge(strip.row.number)}{escape(strip.row.short)}<small>{about}</small></div>'
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
