"""Errors that are a person's to mend: the command line shows their one sentence and exits with code 2."""

from __future__ import annotations

from typing import Any


class UserError(ValueError):
    """A mistake in what a person gave: names the file or key, what was expected and the remedy, in one sentence."""


def shown(value: Any) -> str:
    """Return a value for a sentence, shortened where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"
