"""Ways in which a crash, a disk or a person damages a file, and where a value of plain data can be another one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

KINDS = (
    "empty",
    "list",
    "number",
    "half",
    "no text",
    "NUL",
    "deep",
    "bomb",
    "folder",
    "dangling link",
    "loop",
    "bytes",
)


def spoil(file: Path, kind: str, rng: random.Random) -> None:
    """Damage a file; ``bytes`` changes a few of its bytes at random, so that it may still be whole."""
    content = file.read_bytes() if file.is_file() else b""
    if kind in ("folder", "dangling link", "loop"):
        file.unlink(missing_ok=True)
        if kind == "folder":
            file.mkdir(parents=True)
        else:
            file.symlink_to(file if kind == "loop" else file.with_name("nowhere") / "x")
        return
    bomb = b"a0: &a0 [x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 20)) for n in range(1, 12)
    )
    plain = {"empty": b"", "list": b"[]", "number": b"7", "half": content[: len(content) // 2], "bomb": bomb}
    plain |= {"no text": content[:20] + b"\xff\xfe" + content[20:], "NUL": content[:9] + b"\0" + content[9:]}
    plain |= {"deep": b"[" * 20_000}
    if kind == "bytes":
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
        plain[kind] = bytes(changed)
    file.write_bytes(plain[kind])


def copy_fresh(source: Path, target: Path) -> None:
    """Copy a folder in place of what is there."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value inside plain data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from places(each, (*path, key))


def put(content: Any, path: tuple[Any, ...], value: Any) -> None:
    """Put a value in the place of another one."""
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value
