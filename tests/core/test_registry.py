"""Names, options, discovery, plugins."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from indexnet.core.errors import UserError
from indexnet.core.registry import Registry, load_plugins, registered


class Shape:
    def __init__(self, width=0, *, sides: int, colour: str = "red"):
        self.width, self.sides, self.colour = width, sides, colour


@pytest.fixture
def shapes():
    registry: Registry[Shape] = Registry("shape", skip=("width",), name_of=lambda cls: cls.__name__.lower())

    @registry.register
    class Square(Shape):
        pass

    @registry.register
    class Circle(Shape):
        pass

    return registry


def test_names_options_and_instances(shapes):
    assert list(shapes.classes()) == ["circle", "square"]
    assert [cls.__name__ for cls in registered("shape")] == ["Circle", "Square"]
    square = shapes.create("square", 3, sides=4)
    assert (type(square), square.width, square.sides) == (shapes.get("square"), 3, 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "sqare",
            {},
            "unknown shape 'sqare'. Did you mean 'square'? Known: circle, square. Your own are "
            "found through INDEXNET_PLUGINS (not set).",
        ),
        (
            "square",
            {"side": 4},
            "shape 'square' has no option 'side'. Did you mean 'sides'? Its options: sides, colour.",
        ),
        ("square", {"width": 4}, "shape 'square' has no option 'width'. Its options: sides, colour."),
        ("square", {"colour": "blue"}, "shape 'square' needs the option 'sides'."),
    ],
)
def test_mistakes_get_one_sentence(shapes, name, options, message):
    with pytest.raises(UserError) as caught:
        shapes.create(name, **options)
    assert str(caught.value) == message


def test_a_name_is_given_once_but_a_definition_may_run_again(shapes):
    class Again(Shape):
        __qualname__ = shapes.get("square").__qualname__

    Again.__name__ = "Square"
    assert shapes.register(Again) is shapes.get("square")

    class Square(Shape):
        pass

    with pytest.raises(
        UserError, match=r"shape 'square' is registered twice, by \S+ and \S+; give one of them another"
    ):
        shapes.register(Square)
    assert shapes.get("square") is Again


def test_modules_are_found_when_a_name_is_asked_for(tmp_path, monkeypatch):
    package = tmp_path / "found_shapes"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from indexnet.core.registry import Registry\nSHAPES = Registry('found', __name__, name_of=str)\n"
    )
    (package / "one.py").write_text("from found_shapes import SHAPES\nSHAPES.register(int)\nassert SHAPES.classes()\n")
    (package / "_hidden.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)
    import found_shapes

    assert "found_shapes.one" not in sys.modules
    assert registered("found") == []
    assert list(found_shapes.SHAPES.classes().values()) == [int]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "is not found; put the folder that holds it on PYTHONPATH."),
        ("import no_such_module", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module' ("),
        ("x = 1\nx.missing()", "plugin.py, line 2)."),
        ("x = = 1", "cannot be imported: SyntaxError: invalid syntax ("),
        ("from indexnet.core.errors import UserError\nraise UserError('taken.')", "bad_plugin' of a test: taken."),
    ],
)
def test_plugins_that_cannot_be_imported(tmp_path, monkeypatch, code, message):
    monkeypatch.syspath_prepend(tmp_path)
    if code is not None:
        (tmp_path / "bad_plugin.py").write_text(code)
    for _ in range(2):  # the second time, too
        with pytest.raises(UserError, match=r"^plugin 'bad_plugin' of a test") as caught:
            load_plugins(["bad_plugin"], "a test")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_module_of_a_package_that_is_not_there():
    with pytest.raises(UserError, match=r"^plugin 'indexnet.nowhere' of a test is not found; put the folder"):
        load_plugins(["indexnet.nowhere"], "a test")


@pytest.mark.parametrize("names", ["my_module", [3], 3, {"a": 1}])
def test_plugins_are_a_list_of_names(names):
    with pytest.raises(UserError, match=r"the key plugins must be a list of modules, such as plugins=\[my_operators\]"):
        load_plugins(names)


def test_plugins_of_the_variable_and_of_installed_packages(tmp_path):
    code = (
        "from indexnet.networks import Autoencoder, NetworkInfo, register_network\n"
        "@register_network\nclass {0}(Autoencoder):\n    info = NetworkInfo('{0}', '', '', '', ())\n"
    )
    for name in ("Listed", "Installed"):
        (tmp_path / f"{name.lower()}_plugin.py").write_text(code.format(name))
    info = tmp_path / "somebody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[indexnet.plugins]\nshapes = installed_plugin\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "indexnet", "list", "networks", "--names"],
        env={**os.environ, "PYTHONPATH": path, "INDEXNET_PLUGINS": "listed_plugin, "}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {"Listed", "Installed", "autoencoder"} <= set(done.stdout.split())
