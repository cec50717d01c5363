r"""A table as LaTeX: every row and number, printed beside measured. Needs the package booktabs and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from indexnet.report import remarks
from indexnet.report.numbers import MINUS
from indexnet.report.rendering import render
from indexnet.report.table import COSTS, Measurement, Table, TableRow

NONE = "--"
"""A cell without a number."""

_WIDE = 8  # more columns than that span both columns of a paper

_ESCAPES = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    MINUS: "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≈": r"$\approx$",
    "τ": r"$\tau$",
    "σ": r"$\sigma$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "²": "$^2$",
    "³": "$^3$",
    "⁹": "$^9$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    "★": r"$\star$",
    "\N{NO-BREAK SPACE}": "~",
}


def escape(text: str) -> str:
    """Write plain text so that LaTeX prints it as it stands; backticks, which mark code elsewhere, are left out."""
    return "".join(_ESCAPES.get(character, character) for character in text.replace("`", ""))


def table_tex(table: Table) -> str:
    r"""Write the table as a LaTeX ``table`` environment, with all rows, run or not.

    The best mean of a column is bold, what cannot be told apart from it has the sign for "approximately equal".
    """
    groups = _groups(table)
    columns = 1 + sum(len(heads) for _, heads in groups)
    return render(
        "table.tex",
        table=table,
        environment="table*" if columns > _WIDE else "table",
        columns=columns,
        caption=_caption(table),
        label="".join(c if c.isalnum() or c in "-:/" else "-" for c in table.experiment.name),
        heads=_heads(groups),
        line=_line,
        cells=_cells,
        escape=escape,
    )


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _groups(table: Table) -> list[tuple[str, list[str]]]:
    """Return (title, one head per column below it)."""
    groups = []
    for column in table.columns:
        kinds = table.kinds(column)
        named = {
            "printed": remarks.printed_head(table),
            "measured": "measured" if table.has_printed or "best seed" in kinds else "",
        }
        groups.append((remarks.title(column), [named.get(kind, kind) for kind in kinds]))
    groups += [(title, ["printed", "counted"] if table.prints_cost(key) else [""]) for key, _, title in COSTS]
    return [*groups, ("Samples/s", [""])]


def _heads(groups: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    top, rules, sub = [""], "", ["Row"]
    for title, heads in groups:
        size, place = len(heads), len(sub) + 1
        if size == 1:
            top.append(escape(title))
        else:
            top.append(f"\\multicolumn{{{size}}}{{c}}{{{escape(title)}}}")
            rules += f"\\cmidrule(lr){{{place}-{place + size - 1}}}"
        sub += map(escape, heads)
    if not any(sub[1:]):  # nothing below the titles: one line of heads is enough
        return [_line(["Row", *top[1:]])]
    return [_line(top), *([rules] if rules else []), _line(sub)]


def _cells(table: Table, row: TableRow) -> list[str]:
    cells = [escape(row.short)]
    for column in table.columns:
        m, digits = row.measured[column.metric], column.digits
        found = {
            "printed": escape(m.printed),
            "measured": _measured(m, digits),
            "best seed": escape(remarks.best_seed(m, digits)),
            "difference": f"${m.difference:+.{digits}f}$" if m.difference is not None else "",
        }
        cells += [found[kind] for kind in table.kinds(column)]
    for key, cost, _ in COSTS:
        cells += [escape(row.printed.get(key, ""))] if table.prints_cost(key) else []
        cells.append(escape(remarks.cost(table, row, cost)))
    cells.append(remarks.cost(table, row, "train_samples_per_s"))
    return [cell or NONE for cell in cells]


def _measured(m: Measurement, digits: int) -> str:
    if m.mean is None:
        return ""
    number = f"{m.mean:.{digits}f}" + (f" \\pm {m.sd:.{digits}f}" if m.sd is not None else "")
    number = f"\\mathbf{{{number}}}" if m.best else number
    return f"${number}^{{\\approx}}$" if m.tied else f"${number}$"


def _caption(table: Table) -> str:
    experiment = table.experiment
    parts = [f"{experiment.title}."]
    if table.has_printed:
        parts.append(f"Printed: {experiment.source}.")
    if table.runs is None:
        parts.append("Nothing is measured yet.")
    else:
        changed = f", with a changed protocol ({', '.join(table.protocol.changes)})" if table.protocol.changes else ""
        seeds = f"seed{'s' if len(table.seeds) > 1 else ''} {', '.join(map(str, table.seeds))}"
        parts.append(f"Measured: {table.runs.data} at budget {table.runs.budget}{changed}, {seeds}.")
        signs = remarks.legend(table, costs=False, star="bold:")
        parts += [f"{text[0].upper()}{text[1:]}." for text in signs]
        parts += [remarks.banner(table), remarks.agreement(table), *table.warnings, *remarks.missing(table)]
    parts += [f"{text}." for text in remarks.pending(table)]
    return escape(" ".join(filter(None, parts)))
