"""What a sweep and its rows are called: a name that a person gave, and names and labels made from what is swept."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from indexnet.core.errors import UserError, shown

Point = Mapping[str, str]
"""The settings that make one row: dotted key or config group, and the value as an override writes it."""

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST = 100  # W&B takes 128 characters for a group
_TAKEN = ("single", "search")
"""Folders below ``runs/`` that are no table's."""
_NO_ROWS = ("sweep.json",)  # a file beside the folders of the rows
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*")
_SAY_NOTHING = ("true", "false", "null", "none", "auto", "yes", "no", "on", "off", "default", "nan", "inf")
_LONG = 80


def check_sweep_name(value: Any, said: str) -> str:
    """Return the name that ``sweep=`` gives.

    Args:
        value: as Hydra reads it.
        said: the whole override, for messages.

    Raises:
        UserError: it is no name for a folder.
    """
    name = value if isinstance(value, str) else said.partition("=")[2].strip()
    parts = name.split("/")
    fits = all(_PART.fullmatch(part) for part in parts)
    if isinstance(value, bool | list | dict) or not fits or len(parts) > 2 or len(name) > _LONGEST:
        raise UserError(
            f"{shown(said)[1:-1]}: a sweep's name is of letters, digits, dot, dash and underscore, at most {_LONGEST}, "
            "and may have one folder, as in sweep=mysweep or sweep=mine/first."
        )
    if parts[0] in _TAKEN:
        raise UserError(f"sweep={name}: runs/{parts[0]} holds runs of no table; give the sweep another name.")
    return name


def name_rows(
    points: Sequence[Point], names: Collection[str] = (), labels: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Return a name, fit for a folder, and a label for each of several different rows.

    A value that is a word stands for itself (``hin``, ``max_unpool``), any other with its key (``lr-0.01``); a label
    has the keys as well (``family hin``), but for config groups. Where that is not unique, whole keys are written out.

    Args:
        points: what makes each row; all have the same keys.
        names: those that other rows have already.
        labels: those that other rows have already.
    """
    words = _telling(points)
    ends = [_end(key) for key in points[0]] if points else []
    short = _end if len(set(ends)) == len(ends) else str  # what a key is called

    def name(key_of: Callable[[str], str], point: Point) -> str:
        keys = {key: key_of(key) for key in point}
        return "_".join(
            "-".join(_clean(part) or "empty" for part in (keys[key], value) if part) for key, value in point.items()
        )

    def label(key_of: Callable[[str], str], point: Point) -> str:
        first, *others = (_plain(f"{key_of(key)} {_bare(value)}") for key, value in point.items())
        return f"{first} ({', '.join(others)})" if others else first

    name_forms = tuple(partial(name, key_of) for key_of in (lambda key: "" if key in words else short(key), short, str))
    label_forms = tuple(
        partial(label, key_of) for key_of in (lambda key: "" if key in words and "." not in key else short(key), str)
    )
    found = _first_unique(points, name_forms, {*names, *_NO_ROWS}, "-")
    return list(zip(found, _first_unique(points, label_forms, set(labels), " "), strict=True))


def name_only_row(sweep: str) -> tuple[str, str]:
    """Return name and label of the row of a sweep in which nothing is swept but seeds."""
    return _clean(sweep.rpartition("/")[2]), sweep


def _first_unique(
    points: Sequence[Point], forms: Sequence[Callable[[Point], str]], taken: set[str], joint: str
) -> list[str]:
    """Return what the first form makes of the points that gives each a text of its own; else with a hash."""
    for form in forms:
        found = [_shortened(form(point), point, joint) for point in points]
        if all(found) and len(set(found)) == len(found) and not taken & set(found):
            return found
    for digits in range(6, 64):
        found = [f"{_shortened(forms[0](point), point, joint)}{joint}{_digest(point, digits)}" for point in points]
        if len(set(found)) == len(found) and not taken & set(found):
            break
    return [text.lstrip(joint) for text in found]


def _telling(points: Sequence[Point]) -> set[str]:
    """Return the keys whose values say by themselves what they are: words, different from those of any other key."""
    values: dict[str, set[str]] = {}
    for point in points:
        for key, value in point.items():
            values.setdefault(key, set()).add(value)
    words = {
        key
        for key, found in values.items()
        if all(_WORD.fullmatch(_bare(value)) and _bare(value).lower() not in _SAY_NOTHING for value in found)
    }
    return {key for key in words if not any(values[key] & values[other] for other in words - {key})}


def _bare(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _end(key: str) -> str:
    """Return the last part of a key; of a list's element, the list's name too."""
    parts = key.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdecimal() else parts[-1]


def _clean(text: str) -> str:
    """Return a text as part of the name of a folder: small letters, digits, dot, underscore, single dashes."""
    text = re.sub(r"(^|[^\w.])-(?=[\d.])", r"\1minus", _bare(text).lower())
    text = re.sub(r"(?<=\d)e\+(?=\d)", "e", text)  # 1e+16
    return re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9._-]+", "-", text)).strip("-._")


def _plain(text: str) -> str:
    """Return a text as part of a label: one line, without what an experiment file would fill in."""
    return " ".join(text.translate(str.maketrans("{}", "()")).split())


def _shortened(text: str, point: Point, joint: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 10].rstrip('-._ ')}{joint}{_digest(point, 6)}"


def _digest(point: Point, digits: int) -> str:
    return hashlib.sha256(json.dumps(sorted(point.items())).encode()).hexdigest()[:digits]
