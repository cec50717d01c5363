"""A notebook as Markdown: its words, its code, what it printed and its pictures, as they are saved in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]


def markdown(place: str) -> str:
    """Return the notebook that lies beside the page at ``place`` and has its name."""
    file = (DOCS / place).with_suffix(".ipynb")
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return (
        "\n\n".join(part for cell in cells for part in _parts(cell)) + f"\n\n[This page as a notebook]({file.name})\n"
    )


def _parts(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    return [f"```python\n{source}\n```", *(_output(each) for each in cell["outputs"])]


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![What the code above draws](data:image/png;base64,{''.join(data['image/png'].split())})"
    return f"```text\n{''.join(output.get('text') or data['text/plain']).rstrip()}\n```"
