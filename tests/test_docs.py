"""What README and docs show runs."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from commands_support import save_random
from data_support import write_camvid
from indexnet.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "api").glob("*.md")),
]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
PACKAGE = ROOT / "src" / "indexnet"
OF_RUNS = {"config.yaml", "record.json", "progress.json", "console.log"}  # files that runs write


def _blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page, "python")], ids=lambda page: page.stem)
def test_python_of_the_docs_runs(page, tmp_path, monkeypatch):
    names = {"__name__": "docs"}  # one page is read from its top
    for i, code in enumerate(_blocks(page, "python")):
        (tmp_path / str(i)).mkdir()
        monkeypatch.chdir(tmp_path / str(i))
        exec(compile(code, f"{page.name}, block {i}", "exec"), names)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_a_notebook_imports_of_the_package_exists(file):  # that its cells run is a long test
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    lines = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    for line in (node for node in lines if node.module.startswith("indexnet")):
        exec(ast.unparse(line), {})


def test_the_docs_show_only_commands_that_exist():
    shown = {line.split()[1] for page in PAGES for block in _blocks(page, "bash") for line in block.splitlines()
             if line.startswith("indexnet ")}  # fmt: skip
    assert shown <= set(COMMANDS)
    assert shown >= {"train", "evaluate", "predict", "compare", "report", "costs", "convert", "list"}


def test_links_of_the_docs_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", _without_code(page)):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def _without_code(page):
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def _code_spans(page):
    return re.findall(r"`([^`\n]+)`", _without_code(page))


def _is_path(span):
    return re.fullmatch(r"[\w./-]*/|[\w./-]+\.(py|ya?ml|md|toml|json|log|csv|html)", span) is not None


def _exists(span):
    """Whether a path is there, seen from the checkout, `src` or the package; of NAME.py, whether its folder is."""
    place = str(Path(span).parent) if "NAME" in span else span
    return any((base / place).exists() for base in (ROOT, ROOT / "src", PACKAGE))


def _resolves(dotted):
    """Whether a dotted name, from the package or `hydra_plugins` on, is a module, or a name that its module has."""
    try:
        pkgutil.resolve_name(dotted if dotted.startswith("hydra_plugins.") else f"indexnet.{dotted}")
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize(
    ("dotted", "there"),
    [
        ("run.config.freeze", True), ("run.config.melt", False), ("run.cooking.freeze", False),
        ("tasks.base.Task.training_step", True), ("tasks.base.Task.lunch_step", False), ("report.table.COSTS", True),
        ("resampling.list_resampling", True), ("optimizer.lr", False),
    ],
)  # fmt: skip
def test_names_are_looked_up_in_the_sources(dotted, there):
    assert _resolves(dotted) is there


def test_what_the_architecture_page_names_exists():
    spans = set(_code_spans(ARCHITECTURE)) - OF_RUNS
    paths = {span for span in spans if _is_path(span)}
    names = {span for span in spans - paths if re.fullmatch(r"[a-z]\w*(\.\w+)+", span)}
    assert len(paths) > 30
    assert len(names) > 60
    assert [span for span in sorted(paths) if not _exists(span)] == []
    assert [span for span in sorted(names) if not _resolves(span)] == []


def test_the_picture_of_the_rooms_is_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (each["layers"] for each in contracts["contracts"] if each["type"] == "layers")
    height = {room.split(".")[-1].strip(): i for i, layer in enumerate(layers) for room in layer.split("|")}
    (picture,) = _blocks(ARCHITECTURE, "mermaid")
    assert set(re.findall(r"(\w+)\[", picture)) == set(height)
    plain = re.sub(r"\[[^]]*\]", "", picture)
    edges = [
        (upper, lower)
        for left, right in re.findall(r"^  (.+) --> (.+)$", plain, flags=re.MULTILINE)
        for upper in left.split(" & ")
        for lower in right.split(" & ")
    ]
    assert len(edges) >= len(height) - 1
    assert [edge for edge in edges if not height[edge[0]] < height[edge[1]]] == []
    rooms = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", ARCHITECTURE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert rooms == [room.split(".")[-1].strip() for layer in layers for room in layer.split("|")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_sources_that_a_page_names_exist(page):
    own = set(re.findall(r"```\w+ file=(\S+)", page.read_text(encoding="utf-8")))  # that the reader is to write
    spans = set(_code_spans(page)) - own
    paths = [s for s in spans if re.match(r"(src|conf|experiments|tests|benchmarks|docs)/", s) and _is_path(s)]
    names = [s for s in spans - set(paths) if re.match(r"indexnet\.[a-z]\w*\.\w", s)]
    assert [path for path in paths if not _exists(path)] == []
    assert [name for name in names if not _resolves(re.sub(r"\(.*", "", name).removeprefix("indexnet."))] == []


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(command, capsys):
    arguments = ["--help"] if command is None else [command, "--help"]
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 0
    assert "usage: indexnet" in capsys.readouterr().out


@pytest.mark.long
def test_the_readme_commands_run(tmp_path, monkeypatch, capsys):
    """Every `indexnet` line of the README, in order, in an empty folder; files of a person's own are made here."""
    import cv2
    import numpy as np

    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "trimaps", "masks"):
        Path(folder).mkdir()
    rng = np.random.default_rng(0)
    cv2.imwrite("photos/cat.png", rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    trimap = np.zeros((40, 50), np.uint8)
    trimap[10:30, 10:40], trimap[15:25, 15:35] = 128, 255
    cv2.imwrite("trimaps/cat.png", trimap)
    cv2.imwrite("masks/cat.png", np.where(trimap > 0, np.uint8(255), np.uint8(0)))
    train = ["task=matting", "encoder.width=0.25", "training.steps=1", "training.batch_size=2", "training.size=64"]
    train += ["data.test_count=1", "data.train_count=2"]
    assert main(["train", *train]) == 0
    checkpoint = next(Path("runs/single").glob("matting-*/checkpoints/last.ckpt"))
    write_camvid(Path("camvid"))
    narrow = {"name": "pspm", "encoder": {"name": "mobilenetv2_released", "width": 0.25}}
    portrait = save_random(tmp_path / "PORTRAIT.ckpt", "portrait", narrow, None)
    files = {"runs/.../checkpoints/last.ckpt": checkpoint, "A.ckpt": checkpoint, "B.ckpt": checkpoint}
    files["PORTRAIT.ckpt"] = portrait
    lines = [line for block in _blocks(ROOT / "README.md", "bash") for line in block.splitlines()]
    for line in lines:
        line = line.replace("FOLDER", "camvid")
        words = [str(files.get(word, word)) for word in shlex.split(line, comments=True)]
        if not words or words[0] != "indexnet" or words[1] in ("convert", "app"):  # they have tests of their own
            continue
        capsys.readouterr()
        code = main(words[1:])
        said = capsys.readouterr()
        assert code == 0, f"{line}\n{said.out}\n{said.err}"


@functools.cache
def _hook(name):
    """Import what makes a page, `docs/hooks/NAME.py`."""
    spec = importlib.util.spec_from_file_location(f"docs_hooks_{name}", ROOT / "docs" / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_configuration_key_has_a_type_and_a_meaning():
    made = _hook("config_keys")
    keys = [key for group in made.fixed_keys().values() for key in group]
    keys += [key for *_, options in made.open_keys() for key in options]
    names = {key.name for key in keys}
    assert names >= {"seed", "rerun", "training.batch_size", "trainer.timeout", "resampling.family", "optimizer.lr"}
    assert [key.name for key in keys if not key.kind or key.kind == "something else"] == []
    assert [key.name for key in keys if not key.meaning or key.meaning.startswith("see ")] == []
    poolings = {key.kind for key in keys if key.name == "resampling.pooling"}
    assert len(poolings) == 3  # of most operators, of indexnet, of a2u
    assert [kind for kind in poolings if "max, avg, conv" not in kind] == []
    values = {key.name: key.default for key in keys}
    assert (values["seed"], values["budget.name"], values["training.size"]) == ("`0`", "`paper`", "")


def test_every_key_of_the_config_files_is_on_the_page_of_keys():
    made = _hook("config_keys")
    known = {key.name for group in made.fixed_keys().values() for key in group}
    for group, name, _, options in made.open_keys():
        if (file := ROOT / "conf" / group / f"{name}.yaml").exists():
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            content = content.get(group, content)
            known |= {key.name for key in options}
            assert {f"{group}.{key}" for key in content if key not in ("name", "defaults")} <= known, file.name


def test_every_command_is_on_the_page_of_commands():
    text = _hook("commands").markdown("cli.md")
    assert set(re.findall(r"^## indexnet ?(.*)$", text, flags=re.MULTILINE)) == {"", *COMMANDS} - {"job"}
    assert text.count("usage: indexnet") == len(COMMANDS)


@pytest.mark.long
def test_the_site_is_built_and_asks_no_other_machine_for_anything(tmp_path):
    from indexnet.resampling import get_resampling, list_resampling

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    pages = {page.relative_to(site).as_posix(): page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    assert {"data.html", "api/data.html", "index.html", "results/index.html"} <= set(pages)
    fetched = re.compile(r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>")
    assert {name: found for name, text in pages.items() if (found := fetched.findall(text))} == {}
    assert [name for name, text in pages.items() if "<!-- made:" in text] == []
    own = [info.name for info in list_resampling() if get_resampling(info.name).__module__.startswith("indexnet.")]
    assert [name for name in own if f'<h3 id="{name}"' not in pages["operators.html"]] == []
    assert pages["operators.html"].count("data:image/png;base64,") == 2 + len(own)
    assert [key for key in ("training.batch_size", "resampling.family") if key not in pages["config.html"]] == []
    assert 'class="index-map"' in pages["index.html"]
    sources = {".j2", ".yaml", ".py"}
    assert [path for path in site.rglob("*") if path.suffix in sources or path.name == "record.json"] == []
    assert [name for name, text in pages.items() if "```" in text] == []  # code that is shown as text
