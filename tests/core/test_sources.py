"""What of a source file counts, which files belong to a module, and which have changed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from indexnet.core.sources import changed_files, digest, read_sources

PLAIN = """
def scale(x, factor=2.0):
    return [factor * each for each in x]


class Empty:
    pass
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes files below a folder that Python looks in; modules that a test imported are forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)

    def put(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.py".replace("/init.py", "/__init__.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    yield put
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (f"# A remark.\n{PLAIN}", True),
        (f'"""What it is."""\n{PLAIN}', True),
        (PLAIN.replace("    return", '    """Multiply."""\n\n    # So.\n    return'), True),
        (PLAIN.replace("    pass", '    """Nothing."""\n\n    pass'), True),
        (PLAIN.replace("(x, factor=2.0)", "(\n    x,\n    factor=2.0,\n)"), True),
        (PLAIN.replace("2.0", "2"), False),
        (PLAIN.replace("2.0", "3.0"), False),
        (PLAIN.replace("factor * each", "each * factor"), False),
        (PLAIN.replace("return", "None\n    return"), False),
        (PLAIN.replace("return [factor * each for each in x]", "return None"), False),
        (PLAIN.replace("    pass", "    value = 'no docstring'"), False),
        ("def scale(:", False),
    ],
)
def test_what_counts_is_what_the_code_does(tmp_path, text, same):
    before, after = tmp_path / "before.py", tmp_path / "after.py"
    before.write_text(PLAIN)
    after.write_text(text)
    assert (digest(before) == digest(after)) is same
    assert len(digest(after)) == 12


def test_nothing_and_none_are_told_apart(tmp_path):
    texts = ["def f(): return", "def f(): return None", "f(a=[])", "f(a=[None])", "f()", "{**a}", "{None: a}"]
    found = set()
    for number, text in enumerate(texts):
        file = tmp_path / f"{number}.py"
        file.write_text(text)
        found.add(digest(file))
    assert len(found) == len(texts)


def test_a_file_is_read_again_when_it_was_written(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("gain = 1")
    before = digest(file)
    file.write_text("gain = 2")
    assert digest(file) != before


def test_an_operator_is_its_file_and_what_it_is_made_of():
    def wanted(module: str) -> bool:
        return module.startswith("indexnet.resampling.")

    found = read_sources(["indexnet.resampling.indexnet"], wanted)
    names = {name.removeprefix("indexnet/resampling/") for name in found.digests}
    assert {"indexnet.py", "base.py", "functional.py"} <= names
    assert not names & {"max_unpool.py", "carafe.py", "__init__.py"}  # the package only hands their names on
    assert found.folders == {}
    assert changed_files(found.digests, found.folders) == []
    altered = {**found.digests, "indexnet/resampling/base.py": "0" * 12, "indexnet/resampling/gone.py": "0" * 12}
    assert changed_files(altered, {}) == ["indexnet/resampling/base.py", "indexnet/resampling/gone.py"]


def test_a_plugin_is_what_it_imports_from_its_folder(write):
    root = write(
        my_plugin="import json\nimport numpy\nimport my_helper\nfrom my_package.inner import gain\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import my_types\n",
        my_helper="def late():\n    import my_late\n",
        my_late="x = 1",
        my_types="x = 1",
        my_stranger="x = 1",
        my_package__init="from .other import x",
        my_package__other="x = 1",
        my_package__inner="from . import deep\nfrom .deep import gain",
        my_package__deep="from indexnet.resampling import Downsampled\ngain = 1",
        my_package__unused="x = 1",
    )
    found = read_sources(["my_plugin"], lambda module: module == "indexnet.resampling.base")
    assert list(found.digests) == [
        "indexnet/resampling/base.py", "my_helper.py", "my_late.py", "my_package/__init__.py", "my_package/deep.py",
        "my_package/inner.py", "my_package/other.py", "my_plugin.py",
    ]  # fmt: skip
    assert found.folders == dict.fromkeys(["my_plugin", "my_helper", "my_late", "my_package"], str(root))
    assert not [name for name in sys.modules if name.startswith("my_")]  # nothing was imported
    write(my_package__deep="gain = 2", my_stranger="x = 2")
    assert changed_files(found.digests, found.folders) == ["my_package/deep.py"]


def test_an_installed_plugin_brings_no_other_package():
    found = read_sources(["yaml"])
    assert "yaml/__init__.py" in found.digests
    assert {name.partition("/")[0] for name in found.digests} == {"yaml"}


def test_a_plugin_is_found_where_python_finds_it_now(write, tmp_path_factory, monkeypatch):
    root = write(my_moved="gain = 1", my_beside="x = 1")
    write(my_moved="import my_beside\ngain = 1")
    found = read_sources(["my_moved"])
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(root)])
    assert changed_files(found.digests, found.folders) == []  # where it lay
    write(my_moved="gain = 2")
    assert changed_files(found.digests, found.folders) == ["my_moved.py"]
    copy = tmp_path_factory.mktemp("copy")
    (copy / "my_beside.py").write_text("another module of that name")
    monkeypatch.syspath_prepend(copy)
    assert changed_files(found.digests, found.folders) == ["my_moved.py"]  # not all that lay there is here
    (copy / "my_moved.py").write_text("import my_beside\ngain = 1")
    (copy / "my_beside.py").write_text("x = 1")
    assert changed_files(found.digests, found.folders) == []  # a copy, as it was
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(copy)])
    for name in ("my_moved.py", "my_beside.py"):
        (root / name).unlink()
    assert changed_files(found.digests, found.folders) == []  # on another machine: nothing is known


def test_a_module_without_a_source_file_is_left_out():
    assert read_sources(["sys", "no_such_module_anywhere"]).digests == {}


def test_a_name_that_no_file_can_have_is_a_changed_file():
    name = f"indexnet/{'x' * 300}.py"
    assert changed_files({name: "0"}, {}) == [name]
