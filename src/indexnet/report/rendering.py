"""Fill the templates of this package: the page, Markdown and LaTeX."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from indexnet.core.escape import latex, markdown
from indexnet.core.statistics import INTERVAL
from indexnet.report import numbers, remarks
from indexnet.report.figures import looks


def render(template: str, **values: object) -> str:
    """Fill a template of ``templates/``; what it names must be there. All text is escaped but ``Markup``."""
    return _environment(template.rpartition(".")[2]).get_template(template).render(**values, remarks=remarks)


@cache
def _environment(kind: str) -> jinja2.Environment:
    """Return the settings for html, md or tex; LaTeX, which is full of braces, has ``<% %>`` and ``<< >>``."""
    write = {"md": markdown, "tex": latex}.get(kind)
    marks: dict[str, Any] = {
        "block_start_string": "<%", "block_end_string": "%>", "variable_start_string": "<<", "variable_end_string": ">>"
    }  # fmt: skip
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("indexnet.report"),
        autoescape=jinja2.select_autoescape(["html"]),
        finalize=lambda value: value if write is None or isinstance(value, Markup) else write(str(value)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **(marks if kind == "tex" else {}),
    )
    environment.globals.update(looks=looks, INTERVAL=INTERVAL, script_hash=_script_hash(environment))
    environment.filters.update(
        breaks=lambda text: escape(text).replace("\n", Markup("<br>")),
        code=_code,
        fixed=numbers.fixed,
        significant=lambda value: "" if value is None else numbers.significant(value),
    )
    return environment


def _script_hash(environment: jinja2.Environment) -> str:
    """Return what lets a page run its own script and no other: the digest of ``page.js``, as a policy has it."""
    assert environment.loader is not None
    source = environment.loader.get_source(environment, "page.js")[0]
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")


def _code(text: str) -> Markup:
    """Escape text; parts between backticks become code."""
    parts = escape(text).split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts))
