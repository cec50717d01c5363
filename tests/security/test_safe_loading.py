"""Files of others are read in safe modes only: a walk over the calls of our code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FORBIDDEN = {
    "eval", "exec", "os.system", "os.popen", "tempfile.mktemp", "torch.hub.load", "pandas.read_pickle", "joblib.load",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "shelve.open", "marshal.load", "marshal.loads", "dill.load",
    "cloudpickle.load", "cloudpickle.loads",
}  # fmt: skip
NEEDED = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False),
          "numpy.lib.format.read_array": ("allow_pickle", False)}  # fmt: skip


def unsafe_calls(source: str) -> list[str]:
    """Calls that let a file or a text run code, as ``line: name``; names are followed through imports."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {each.asname or each.name.split(".")[0]: each.name if each.asname else each.name.split(".")[0]
                      for each in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom):
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            # a function that is handed on, as in map(pickle.load, files)
            if isinstance(node, ast.Attribute | ast.Name) and full_name(node, names) in FORBIDDEN - {"eval", "exec"}:
                found.append(f"{node.lineno}: {full_name(node, names)}")
            continue
        name = full_name(node.func, names)
        given = {each.arg: getattr(each.value, "value", None) for each in node.keywords}
        key, value = NEEDED.get(name, ("", None))
        wrong = given.get("weights_only") is False or given.get("allow_pickle") is True or given.get("shell")
        if name in ("eval", "exec") or wrong or (key and given.get(key) is not value):
            found.append(f"{node.lineno}: {name}")
    return found


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    return f"{full_name(node.value, names)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def test_no_file_of_others_runs_code():
    files = [path for folder in ("src", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    found = {str(path.relative_to(ROOT)): unsafe_calls(path.read_text(encoding="utf-8")) for path in files}
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize("text", [
    "import torch\ntorch.load(p)", "from torch import load as l\nl(p, weights_only=False)",
    "import numpy as np\nnp.load(p)", "import torch\ntorch.load(p, weights_only=flag)",
    "import numpy\nnumpy.load(p, allow_pickle=True)",
    "import yaml\nyaml.load(t, yaml.Loader)", "from yaml import unsafe_load\nunsafe_load(t)",
    "import pickle as p\np.loads(b)", "import pickle\nlist(map(pickle.load, files))", "eval(t)", "exec(t)",
    "import subprocess\nsubprocess.run(c, shell=True)",
    "import os\nos.system(c)", "import tempfile\ntempfile.mktemp()", "trainer.fit(t, weights_only=False)",
])  # fmt: skip
def test_what_is_unsafe_is_found(text):
    assert unsafe_calls(text)


@pytest.mark.parametrize("text", [
    "import torch\ntorch.load(p, weights_only=True)", "import numpy as np\nnp.load(p, allow_pickle=False)",
    "import yaml\nyaml.safe_load(t)", "network.eval()", "import subprocess\nsubprocess.run(c)",
])  # fmt: skip
def test_what_is_safe_is_not(text):
    assert not unsafe_calls(text)
