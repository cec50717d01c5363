"""Names that people type: one way to look them up and to say what is wrong with them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from indexnet.errors import UserError


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to ``name``, or None where nothing is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Build the error for an unknown name of a registry."""
    names = sorted(known)
    guess = nearest(name, names)
    hint = f" Did you mean {guess!r}?" if guess else ""
    return UserError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")


def option_names(target: Callable[..., Any], skip: Iterable[str] = ()) -> list[str]:
    """Return the names of a callable's keyword arguments, but those in ``skip``."""
    skipped = {"self", *skip}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in inspect.signature(target).parameters.values() if p.kind in kinds and p.name not in skipped]


def check_options(what: str, target: Callable[..., Any], options: Mapping[str, Any], skip: Iterable[str] = ()) -> None:
    """Refuse options that ``target`` does not take, naming the nearest one that it does.

    Raises:
        UserError: an option is unknown.
    """
    known = option_names(target, skip)
    for key in options:
        if key not in known:
            guess = nearest(key, known)
            hint = f" Did you mean {guess!r}?" if guess else ""
            raise UserError(f"{what} has no option {key!r}.{hint} Its options: {', '.join(known) or 'none'}.")
