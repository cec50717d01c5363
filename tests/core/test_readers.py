"""Text that cannot be trusted is read, or refused in a sentence that names its file."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from damage import BOMB, MERGES
from indexnet.core.readers import DamagedFileError, read_csv, read_json, read_mapping, read_text, read_yaml

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(string.printable),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(string.ascii_letters), inner, max_size=4),
    max_leaves=20,
)
DAMAGED = {
    "no UTF-8": b"a: \xff\xfe",
    "alias bomb": BOMB.encode(),
    "merge bomb": MERGES.encode(),
    "deep flow": b"[" * 10_000,
    "deep and closed": b"[" * 5_000 + b"]" * 5_000,
    "contains itself": b"&a [*a]",
    "a date that is none": b"2024-02-31",
    "a key that is a list": b"[1]: 2",
    "an unknown tag": b"!!python/object/apply:os.system ['true']",
    "a NUL": b"a: \x00",
    "a tab": b"a:\n\t- b",
    "half a file": b'a: {"b',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_yaml_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"x\.yaml"):
        read_yaml(file)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 10_000, b"[" * 500 + b"]" * 500, b"9" * 5_000])
def test_damaged_json_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"x\.json"):
        read_json(file)


@pytest.mark.parametrize("kind", ["folder", "link that leads nowhere", "circle of links", "too large"])
def test_what_is_no_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    if kind == "folder":
        file.mkdir()
    elif kind == "link that leads nowhere":
        file.symlink_to(tmp_path / "nothing")
    elif kind == "circle of links":
        file.symlink_to(file)
    else:
        file.write_bytes(b"x" * 101)
    with pytest.raises(DamagedFileError, match=r"x\.json"):
        read_text(file, max_bytes=100)


def test_nothing_there_is_not_damage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "x.json", tmp_path / "file" / "x.json"):
        with pytest.raises(FileNotFoundError):
            read_json(path)


@settings(max_examples=60, deadline=None)
@given(value=PLAIN)
def test_plain_data_comes_back(value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("plain")
    (folder / "x.json").write_text(json.dumps(value), encoding="utf-8")
    assert read_json(folder / "x.json") == value
    (folder / "x.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
    assert read_yaml(folder / "x.yaml") == value


def test_aliases_that_stay_small_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: &a [1, 2]\nb: *a\n")
    assert read_mapping(tmp_path / "x.yaml") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("content", ["", "[]", "3", "1: 2"])
def test_what_is_no_mapping_of_names_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(DamagedFileError, match=r"x\.yaml holds"):
        read_mapping(tmp_path / "x.yaml")


def test_tables(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(b'\xef\xbb\xbfa,b\r\n1,"x\r\ny"\r\n2\r\n')
    assert read_csv(file) == [{"a": "1", "b": "x\r\ny"}, {"a": "2", "b": ""}]
    file.write_text("a\n" + "x" * 200_000 + "\n")
    with pytest.raises(DamagedFileError, match=r"x\.csv, line \d+"):
        read_csv(file)
    file.write_text("a\n1,2\n")
    with pytest.raises(DamagedFileError, match=r"x\.csv, line 2"):
        read_csv(file)
