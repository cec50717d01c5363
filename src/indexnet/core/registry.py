"""Names that people type: finding what a package registers, looking it up, checking its options, one sentence each."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from indexnet.core.errors import UserError


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


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import every module and package in a package's folder, but those whose names start with an underscore.

    Args:
        package: its name, ``__name__``.
        path: its folders, ``__path__``.
    """
    for module in sorted(pkgutil.iter_modules(path), key=lambda module: module.name):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")


def check_choice(operator: str, option: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuse a value that is not one of ``choices``, naming the nearest one.

    Raises:
        UserError: the value is none of them.
    """
    # True == 1, so membership alone would take a bool for a number and the reverse.
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return
    guess = nearest(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else None
    hint = f" Did you mean {guess!r}?" if guess else ""
    known = ", ".join(repr(choice) for choice in choices)
    raise UserError(f"resampling {operator!r}: {option}={value!r} is not one of {known}.{hint}")


def check_positive(operator: str, option: str, value: Any, *, odd: bool = False) -> None:
    """Refuse anything but a positive (odd) integer.

    Raises:
        UserError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (odd and value % 2 == 0):
        kind = "a positive odd integer" if odd else "a positive integer"
        raise UserError(f"resampling {operator!r}: {option} must be {kind}, got {value!r}.")
