"""Errors that are a person's to mend: the command line shows their one sentence and exits with code 2."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what a person gave: names the file or key, what was expected and the remedy, in one sentence."""
