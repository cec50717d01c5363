"""Fill in what pages say is made from the code: ``<!-- made: NAME -->`` becomes what ``NAME.py`` beside this writes.

Called by mkdocs, see ``mkdocs.yml``.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from rooms import DIAGRAM, boxes

HOOKS = Path(__file__).parent


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with what is made from the code in the place of its markers, and of diagrams."""
    markdown = re.sub(DIAGRAM, lambda found: boxes(found[1]), markdown)
    return re.sub(r"(?m)^<!-- made: (\w+) -->$", lambda found: make(found[1], page.file.src_uri), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Return the page without the roles of references in docstrings, ``:class:`` and the like."""
    return re.sub(r":\w+:(?=<code>)", "", html)


def make(name: str, place: str) -> str:
    """Return the Markdown that the module of that name makes for the page at ``place``."""
    if str(HOOKS) not in sys.path:
        sys.path.insert(0, str(HOOKS))
    return importlib.import_module(name).markdown(place)
