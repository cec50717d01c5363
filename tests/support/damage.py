"""Ways in which a crash, a disk or a person damages a file, and where a value of plain data can be another one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["../../x", "a\0b", "2024-02-31", "${oc.env:HOME}", "x" * 300, 10**400, -1, 0, "auto"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
"""What somebody may write where something else belongs."""


def _bomb(first: str, more: str) -> str:
    lines = [f"a{n}: &a{n} {more % ', '.join([f'*a{n - 1}'] * 20)}\n" for n in range(1, 12)]
    return f"a0: &a0 {first}\n{''.join(lines)}"


BOMB = _bomb("[x, x]", "[%s]")
"""YAML of 10^14 values once written out."""

MERGES = _bomb("{x: 1, y: 2}", "{<<: [%s]}")
"""YAML of as many pairs while they are merged, two afterwards."""

KINDS = ("empty", "list", "number", "half", "no text", "NUL", "deep", "bomb", "folder", "dangling link", "loop",
         "bytes")  # fmt: skip


def spoil(file: Path, kind: str, rng: random.Random) -> None:
    """Damage a file; ``bytes`` changes a few of its bytes at random, so that it may still be whole."""
    content = file.read_bytes() if file.is_file() else b""
    damaged = {
        "empty": b"",
        "list": b"[]",
        "number": b"7",
        "half": content[: len(content) // 2],
        "no text": content[:20] + b"\xff\xfe" + content[20:],
        "NUL": content[:9] + b"\0" + content[9:],
        "deep": b"[" * 20_000,
        "bomb": BOMB.encode(),
        "bytes": _changed(content, rng),
    }
    if kind in damaged:
        file.write_bytes(damaged[kind])
        return
    file.unlink(missing_ok=True)
    if kind == "folder":
        file.mkdir(parents=True)
    else:
        file.symlink_to(file if kind == "loop" else file.with_name("nowhere") / "x")


def _changed(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(changed) or 1)
        how = rng.randrange(3)
        if how == 0:
            changed[place : place + 1] = bytes([rng.randrange(256)])
        elif how == 1:
            del changed[place : place + rng.randint(1, 40)]
        else:
            changed[place:place] = changed[: rng.randint(1, 40)]
    return bytes(changed)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value inside plain data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from places(each, (*path, key))


def put_any(data: st.DataObject, content: Any, most: int) -> None:
    """Put values of any kind in the places of up to so many drawn ones."""
    for _ in range(data.draw(st.integers(1, most))):
        *path, last = data.draw(st.sampled_from(sorted(places(content), key=str)))
        inner = content
        for key in path:
            inner = inner[key]
        inner[last] = data.draw(VALUES)


def fuzzed(check: Callable[..., None], few: int, many: int) -> tuple[Any, Any]:
    """Make a check that draws from ``data`` a quick test of few examples, and a nightly one of many."""

    def test(examples: int) -> Any:
        given_data = given(data=st.data())(check)
        return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)(
            given_data
        )

    return test(few), pytest.mark.long(pytest.mark.nightly(test(many)))
