"""Errors that are a person's to mend: the command line shows their one sentence and exits with code 2."""

from __future__ import annotations

from typing import Any

from indexnet.core.escape import visible


class UserError(ValueError):
    """A mistake in what a person gave: names the file or key, what was expected and the remedy, in one sentence.

    Control characters, which the name of a file may have, are written out: the sentence goes to terminals and logs.
    """

    def __str__(self) -> str:
        return visible(super().__str__())


def shown(value: Any) -> str:
    """Return a value for a sentence, shortened where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"
