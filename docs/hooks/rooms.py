"""The layers of the contract as boxes: what a page can draw by itself of a diagram that needs a script."""

from __future__ import annotations

import html
import re
import tomllib

from indexnet.core.paths import data_root

DIAGRAM = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)


def layers() -> list[list[str]]:
    """Return the rooms of each layer, from above, as import-linter checks them."""
    tool = tomllib.loads((data_root() / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (found,) = (each["layers"] for each in tool["importlinter"]["contracts"] if each["type"] == "layers")
    return [[room.split(".")[-1].strip() for room in layer.split("|")] for layer in found]


def boxes(diagram: str) -> str:
    """Return the diagram's rooms layer by layer, each with its words; imports go from above to below."""
    words = dict(re.findall(r"(\w+)\[(?:\w+: )?([^]]*)\]", diagram))
    rows = (
        "".join(f"<span><b>{room}</b> {html.escape(words[room]) * (words[room] != room)}</span>" for room in layer)
        for layer in layers()
    )
    return f'<div class="rooms" markdown="0">{"".join(f"<div>{row}</div>" for row in rows)}</div>'
