"""Reading ahead."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexnet.core.errors import UserError
from indexnet.inference.image_files import Item
from indexnet.inference.image_loop import ReadAhead


def test_the_next_images_are_read_meanwhile_and_each_once():
    """What cannot be read fails when it is its turn, and the others go on."""
    items = [Item(Path(name)) for name in "abcde"]
    read: list[str] = []

    def load(item):
        read.append(item.stem)
        if item.stem == "c":
            raise UserError("c is broken")
        return item.stem.upper()

    with ReadAhead(items, load) as ready:
        assert ready.take(items[0]) == "A"
        assert ready.peek(items[1]) == "B"
        assert set(read) <= {"a", "b"}  # one ahead, not all
        assert ready.take(items[1]) == "B"
        with pytest.raises(UserError, match="c is broken"):
            ready.take(items[2])
        assert ready.take(items[3]) == "D"
        assert ready.take(items[4]) == "E"
    assert read == list("abcde")
