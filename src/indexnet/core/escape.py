"""Text that others chose (names of rows and files, titles), written so that it stays text where it is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# what moves a terminal's cursor or colours it, and what turns the direction of reading: C0, C1, marks of direction
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# brackets are escaped where they can end the text of a link, and stay readable elsewhere
_MARKDOWN = re.compile(r"[\\*<|~]|\](?=[(\[:]|\Z)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|&(?=#?\w+;)|:(?=//)")
_BAR = re.compile(r"(?<!\\)\|")
_BEGINS_BLOCK = re.compile(r"\A(?:(?:#{1,6}|[-+])(?=\s|\Z)|>|[=-]+\s*\Z)")
_BEGINS_LIST = re.compile(r"\A(\d{1,9})([.)])(?=\s|\Z)")

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "`": "",  # marks code elsewhere
    "\N{MINUS SIGN}": "$-$",
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
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "\N{NO-BREAK SPACE}": "~",
}

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def visible(text: str) -> str:
    r"""Write control characters and marks of direction as ``\x1b``; tabs and new lines stay."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def markdown(text: str) -> str:
    """Write text for Markdown, on one line: only what stands between backticks keeps a meaning, as code."""
    found = _BEGINS_LIST.sub(r"\1\\\2", _inline(text))
    return _BEGINS_BLOCK.sub(r"\\\g<0>", found)


def markdown_cell(text: str) -> str:
    """Write text for a cell of a Markdown table, where a bar ends a cell even in code."""
    return _BAR.sub(r"\|", _inline(text))


def _inline(text: str) -> str:
    parts = " ".join(visible(text).split()).split("`")
    if len(parts) % 2 == 0:  # the last backtick has no partner
        parts[-2:] = [f"{parts[-2]}\0{parts[-1]}"]
    written = (part if place % 2 else _MARKDOWN.sub(r"\\\g<0>", part) for place, part in enumerate(parts))
    return "`".join(written).replace("\0", "\\`")


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> str:
    """Put written cells together to a table in Markdown; columns from ``left`` on are aligned right."""
    rule = ["---" if place < left else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def latex(text: str) -> str:
    """Write text for LaTeX, on one line; backticks, which mark code elsewhere, are left out."""
    plain = " ".join(visible(text).split())
    written = "".join(_LATEX.get(character, character) for character in plain)
    return f"{{}}{written}" if written.startswith(("[", "*")) else written  # else they belong to the \\ before them


def csv_cell(value: object) -> object:
    """Write a cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe.

    Text that begins with an apostrophe and then like one gets one more, so that :func:`csv_text` finds each again.
    """
    if not isinstance(value, str):
        return value
    plain = visible(value).replace("\t", "\\t")
    return f"'{plain}" if plain.lstrip(" \n'").startswith(_FORMULA) else plain


def csv_text(cell: str) -> str:
    """Read a cell that :func:`csv_cell` wrote."""
    return cell[1:] if cell.startswith("'") and cell.lstrip(" \n'").startswith(_FORMULA) else cell
