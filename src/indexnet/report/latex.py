r"""A table as LaTeX: every row and number, published beside measured. Needs the package booktabs and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from indexnet.core.escape import latex as escape
from indexnet.report import relative, remarks
from indexnet.report.costs import COSTS
from indexnet.report.fields import Field, cost_fields, head_of, metric_fields, title
from indexnet.report.numbers import MINUS
from indexnet.report.rendering import render
from indexnet.report.table import Table, TableRow

NONE = "--"
"""A cell without a number."""

_WIDE = 8  # more columns than that span both columns of a paper


def table_tex(table: Table) -> str:
    r"""Write the table as a LaTeX ``table`` environment, with all rows, run or not.

    The best mean of a column is bold; what does not differ significantly has the sign for "approximately equal".
    """
    groups = [(title(column), _fields(metric_fields(table, column))) for column in table.columns]
    groups += [(f"{relative.heading(table)}: {name}", each) for name, each in relative.groups(table)[:1]]
    groups += [(cost.paper, _fields(cost_fields(table, cost))) for cost in COSTS if cost.paper]
    fields = [field for _, group in groups for field in group]

    def cells(row: TableRow) -> list[str]:
        name = escape(f"{row.short} (cited)" if row.cited else row.short)
        return [cell or NONE for cell in (name, *(_cell(field, row) for field in fields))]

    return render(
        "table.tex",
        table=table,
        environment="table*" if len(fields) + 1 > _WIDE else "table",
        columns=len(fields) + 1,
        caption=_caption(table),
        label="".join(c if c.isalnum() or c in "-:/" else "-" for c in table.experiment.name),
        heads=_heads(table, groups),
        line=_line,
        cells=cells,
    )


def _fields(found: Sequence[Field]) -> list[Field]:
    """Leave out what follows from other rows: papers name their baseline and print no differences to it."""
    return [field for field in found if field.kind not in ("delta", "share")]


def _line(cells: Sequence[str]) -> Markup:
    return Markup(" & ".join(cells) + r" \\")


def _heads(table: Table, groups: Sequence[tuple[str, Sequence[Field]]]) -> list[str]:
    top, rules, sub = [""], "", ["Row"]
    for heading, fields in groups:
        size, place = len(fields), len(sub) + 1
        wide = f"\\multicolumn{{{size}}}{{c}}{{{escape(heading)}}}"
        top.append(wide if size > 1 else escape(heading))
        rules += f"\\cmidrule(lr){{{place}-{place + size - 1}}}" if size > 1 else ""
        named = {"measured": "measured" if table.has_printed else "", "counted": ""} if size == 1 else {}
        sub += [escape(named.get(field.kind, head_of(table, field))) for field in fields]
    if not any(sub[1:]):  # nothing below the titles: one line of heads is enough
        return [_line(["Row", *top[1:]])]
    return [_line(top), *([Markup(rules)] if rules else []), _line(sub)]


def _cell(field: Field, row: TableRow) -> str:
    text = field.text(row)
    if not text or field.kind not in ("measured", "difference"):
        return escape(text)
    number = text.rstrip(" ★≈").replace(MINUS, "-").replace("±", r"\pm")
    if text.endswith("★"):
        number = f"\\mathbf{{{number}}}"
    return f"${number}^{{\\approx}}$" if text.endswith("≈") else f"${number}$"


def _caption(table: Table) -> str:
    experiment = table.experiment
    parts = [f"{experiment.title}."]
    if table.has_printed:
        parts.append(f"Published: {experiment.source}.")
    if table.runs is None:
        parts.append("Nothing is measured yet.")
    else:
        changed = f", with a changed protocol ({', '.join(table.protocol.changes)})" if table.protocol.changes else ""
        seeds = f"seed{'s' if len(table.seeds) > 1 else ''} {', '.join(map(str, table.seeds))}"
        parts.append(f"Measured: {table.runs.data} at budget {table.runs.budget}{changed}, {seeds}.")
        signs = remarks.legend(table, columns=("best_seeds",), star="bold:")
        parts += [f"{text[0].upper()}{text[1:]}." for text in signs]
        parts += [remarks.banner(table), remarks.agreement(table), *table.warnings, *remarks.missing(table)]
    parts += [remarks.relative(table), remarks.expected(table), remarks.speed(table)]
    parts += [f"{text}." for text in (*remarks.pending(table), *remarks.cited(table))]
    return " ".join(filter(None, parts))
