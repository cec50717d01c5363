"""What every command says of itself with ``--help``."""

from __future__ import annotations

import contextlib
import io
import os
import re
from unittest import mock

from indexnet.cli import COMMANDS, main


def help_of(arguments: list[str]) -> str:
    """Return what a command prints with ``--help``, 100 columns wide."""
    said = io.StringIO()
    wide = mock.patch.dict(os.environ, COLUMNS="100")
    with wide, contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*arguments, "--help"])
    return said.getvalue().rstrip()


def markdown(place: str) -> str:
    """Return a section for each command, `indexnet` itself first."""
    shown = help_of([])
    names = [
        name for name in COMMANDS if re.search(rf"^    {name}\b", shown, re.MULTILINE)
    ]  # `job` is started by other commands alone
    sections = [("indexnet", shown), *((f"indexnet {name}", help_of([name])) for name in names)]
    return "\n".join(f"## {title}\n\n```text\n{text}\n```\n" for title, text in sections)
