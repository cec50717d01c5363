r"""A table as LaTeX: every row and number, printed beside measured. Needs the package booktabs and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexnet.report import remarks
from indexnet.report.numbers import MINUS
from indexnet.report.table import Block, Measurement, Table, TableRow

if TYPE_CHECKING:
    from indexnet.run.tables import Column

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


@dataclass(frozen=True)
class _Group:
    """Neighbouring columns under one title; ``heads`` has one text per column."""

    title: str
    heads: tuple[str, ...]


def table_tex(table: Table) -> str:
    r"""Write the table as a LaTeX ``table`` environment, with all rows, run or not.

    The best mean of a column is bold, what cannot be told apart from it has the sign for "approximately equal".
    """
    groups = _groups(table)
    count = 1 + sum(len(group.heads) for group in groups)
    kind = "table*" if count > _WIDE else "table"
    lines = [
        f"% Made by `indexnet report {table.experiment.name}`. Needs \\usepackage{{booktabs}}.",
        f"\\begin{{{kind}}}[t]",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        f"\\caption{{{_caption(table)}}}",
        f"\\label{{tab:{_label(table.experiment.name)}}}",
        f"\\begin{{tabular}}{{l{'r' * (count - 1)}}}",
        r"\toprule",
        *_heads(groups),
        r"\midrule",
    ]
    for index, block in enumerate(table.blocks):
        lines += [r"\midrule"] if index else []
        lines += _block(table, block, count)
    lines += [r"\bottomrule", r"\end{tabular}", f"\\end{{{kind}}}"]
    return "\n".join(lines) + "\n"


def _label(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-:/" else "-" for character in name)


def _groups(table: Table) -> list[_Group]:
    groups = []
    for column in table.columns:
        printed = table.prints(column)
        heads = [remarks.printed_head(table)] if printed else []
        best_seeds = table.names_best_seeds and column is table.main
        heads.append("measured" if table.has_printed or best_seeds else "")
        heads += ["best seed"] if best_seeds else []
        heads += ["difference"] if table.comparable and printed else []
        groups.append(_Group(f"{column.title} {remarks.arrow(column)}", tuple(heads)))
    for key, title in (("params", "Parameters"), ("gflops", "GFLOPs")):
        groups.append(_Group(title, ("printed", "counted") if table.prints_cost(key) else ("",)))
    return [*groups, _Group("Samples/s", ("",))]


def _heads(groups: list[_Group]) -> list[str]:
    top, rules, sub, place = [""], [], ["Row"], 2
    for group in groups:
        size, title = len(group.heads), escape(group.title)
        if size == 1:
            top.append(title)
        else:
            top.append(f"\\multicolumn{{{size}}}{{c}}{{{title}}}")
            rules.append(f"\\cmidrule(lr){{{place}-{place + size - 1}}}")
        sub += map(escape, group.heads)
        place += size
    if not any(sub[1:]):  # nothing below the titles: one line of heads is enough
        return [_line(["Row", *top[1:]])]
    return [_line(top), *(["".join(rules)] if rules else []), _line(sub)]


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _block(table: Table, block: Block, count: int) -> list[str]:
    head = [f"\\multicolumn{{{count}}}{{l}}{{\\textit{{{escape(block.label)}}}}} \\\\"] if block.label else []
    return [*head, *(_line(_cells(table, row)) for row in block.rows)]


def _cells(table: Table, row: TableRow) -> list[str]:
    cells = [escape(row.short)]
    for column in table.columns:
        cells += _measured(table, column, row.measured[column.metric])
    counted = {"params": remarks.parameters(table, row), "gflops": remarks.cost_text(row, "paper_gflops")}
    for key, text in counted.items():
        cells += [escape(row.printed.get(key, "") or NONE)] if table.prints_cost(key) else []
        cells.append(escape(text or NONE))
    return [*cells, escape(remarks.cost_text(row, "train_samples_per_s") or NONE)]


def _measured(table: Table, column: Column, m: Measurement) -> list[str]:
    """Return the cells of one metric: printed, measured, best seed, difference, as :func:`_groups` has them."""
    printed = table.prints(column)
    cells = [escape(m.printed or NONE)] if printed else []
    if m.mean is None:
        cells.append(NONE)
    else:
        number = f"{m.mean:.{column.digits}f}" + (f" \\pm {m.sd:.{column.digits}f}" if m.sd is not None else "")
        number = f"\\mathbf{{{number}}}" if m.best else number
        cells.append(f"${number}^{{\\approx}}$" if m.tied else f"${number}$")
    if table.names_best_seeds and column is table.main:
        cells.append(escape(remarks.best_seed(m, column.digits) or NONE))
    if table.comparable and printed:
        cells.append(f"${m.difference:+.{column.digits}f}$" if m.difference is not None else NONE)
    return cells


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
