"""Digests of source code: what a module does, as 12 hexadecimal digits, found without importing anything.

Comments, docstrings, blank lines and the way a line is broken do not count. A file is named by its path from where its
top-level package or module lies, ``indexnet/resampling/indexnet.py`` or ``my_operator.py``: by the same name on every
machine.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

OWN = __name__.partition(".")[0]
"""The name of this package."""


@dataclass
class Sources:
    """Source files and what they say.

    Attributes:
        digests: of each file, by its name.
        folders: of each top-level package or module but this one: where it lies.
    """

    digests: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)


def read_sources(modules: Iterable[str], wanted: Callable[[str], bool] = lambda module: True) -> Sources:
    """Return the digests of modules and of what they import from the folder that holds them, directly or not.

    Packages of this one hand on names of their modules: what imports such a name is taken to import the module that
    defines it. Of a package from elsewhere every ``__init__.py`` on the way counts. Installed packages are followed
    within themselves only. An import is seen wherever it stands in a file, but under ``if TYPE_CHECKING``; one whose
    name is computed is not.

    Args:
        modules: dotted names; one that has no source file is left out.
        wanted: whether a module of this package is one to name and to follow.
    """
    found, waiting, seen = Sources(), list(modules), set[str]()
    folders = {top: _folder(top) for top in (OWN, *(name.partition(".")[0] for name in waiting))}
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        folder = folders.get(top)
        file = None if folder is None else _file(folder, name)
        if name in seen or folder is None or file is None or (top == OWN and not wanted(name)):
            continue
        seen.add(name)
        found.digests[file.relative_to(folder).as_posix()] = digest(file)
        if top != OWN:
            found.folders[top] = str(folder)
            waiting += [".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 1)]
        alone = top == OWN or _installed(folder)
        for base, imported in _imports(file, name):
            first = base.partition(".")[0]
            if first not in folders and not alone and (_file(folder, first) or os.path.isdir(folder / first)):
                folders[first] = folder  # a module beside this one
            if first == OWN:
                waiting.append(_definer(base, imported))
            elif first == top or (first in folders and not alone):
                waiting += [base, f"{base}.{imported}"] if imported else [base]
    found.digests = dict(sorted(found.digests.items()))
    return found


def changed_files(digests: Mapping[str, str], folders: Mapping[str, str]) -> list[str]:
    """Return the names of the files that do not say any more what they said.

    A file of this package that is gone has changed; of one from elsewhere that is not found, nothing is known.

    Args:
        digests: as in :class:`Sources`.
        folders: as in :class:`Sources`. Where Python finds all that lay in one of them in another one now, that is
            looked at instead.
    """
    now: dict[str, Path | None] = {OWN: _folder(OWN)}
    for lay in set(folders.values()):
        tops = [top for top, each in folders.items() if each == lay and top.isidentifier()]
        places = {_folder(top) for top in tops}
        place = places.pop() if len(places) == 1 else None
        now |= dict.fromkeys(tops, place or Path(lay))
    found = []
    for name, before in digests.items():
        top = name.partition("/")[0].removesuffix(".py")
        folder = now.get(top)
        if ".." in name.split("/"):  # no module: somebody has edited the record
            continue
        if folder is not None and os.path.isfile(folder / name):
            found += [name] if digest(folder / name) != before else []
        elif top == OWN:
            found.append(name)
    return found


def digest(file: Path) -> str:
    """Return 12 hexadecimal digits that stand for what a source file does; of one that is no Python, for its bytes."""
    status = file.stat()
    return _read(file, status.st_mtime_ns, status.st_size)[0]


def _imports(file: Path, module: str) -> list[tuple[str, str]]:
    """Return what a file imports: a dotted name, and what ``from`` takes out of it or "", which may be a module too."""
    status = file.stat()
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    found = []
    for level, base, name in _read(file, status.st_mtime_ns, status.st_size)[1]:
        parts = [*package[: len(package) - level + 1], *filter(None, [base])] if level else [base]
        found.append((".".join(parts), name))
    return found


def _definer(module: str, name: str) -> str:
    """Return the module of this package that defines what an import takes out of one of its packages."""
    folder = _folder(OWN)
    assert folder is not None
    for _ in range(9):
        if name and _file(folder, f"{module}.{name}") is not None:
            return f"{module}.{name}"
        file = _file(folder, module)
        if not name or file is None or file.name != "__init__.py":
            return module
        handed = next((base for base, each in _imports(file, module) if each == name and base != module), None)
        if handed is None:
            return module
        module = handed
    return module


@functools.lru_cache(maxsize=4096)
def _read(file: Path, time: int, size: int) -> tuple[str, list[tuple[int, str, str]]]:
    """Read a file as it was at a time: its digest, and its imports as in :func:`_imports` with their leading dots."""
    content = file.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return hashlib.sha256(content).hexdigest()[:12], []
    imports = [each for node in _executed(tree) for each in _imported(node)]
    parts: list[str] = []
    _write(tree, parts)
    return hashlib.sha256("".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12], imports


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Walk over a tree but for what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        yield child
        guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not guarded and not isinstance(child, ast.expr):
            yield from _executed(child)


def _imported(node: ast.AST) -> Iterator[tuple[int, str, str]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield 0, alias.name, ""
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield node.level, node.module or "", alias.name


def _write(node: object, parts: list[str]) -> None:
    """Write a tree down, but for docstrings, places and empty fields, which differ between versions of Python."""
    if isinstance(node, ast.AST):
        parts.append(f"{type(node).__name__}(")
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
            if value is None or value == [] or isinstance(value, ast.expr_context):
                continue
            parts.append(f"{name}=")
            _write(value, parts)
        parts.append(")")
    elif isinstance(node, list):
        parts.append("[")
        for each in node:
            _write(each, parts)
            parts.append(",")
        parts.append("]")
    else:
        parts.append(repr(node))


def _file(folder: Path, module: str) -> Path | None:
    """Return a module's source file below the folder that its top-level package lies in."""
    path = folder.joinpath(*module.split("."))
    files = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((file for file in files if os.path.isfile(file)), None)


def _folder(top: str) -> Path | None:
    """Return the folder that a top-level package or module lies in; None where Python finds no source of it."""
    if top == OWN:
        return Path(__file__).resolve().parents[2]
    if (module := sys.modules.get(top)) is not None:
        places = [*getattr(module, "__path__", ()), *filter(None, [getattr(module, "__file__", None)])]
    else:
        try:
            spec = importlib.util.find_spec(top)  # of a top-level name: nothing is imported
        except (ImportError, ValueError):
            spec = None
        places = [] if spec is None else [*(spec.submodule_search_locations or ()), *filter(None, [spec.origin])]
    folder = Path(places[0]).resolve().parent if places else None
    return folder if folder is not None and os.path.isdir(folder) else None


def _installed(folder: Path) -> bool:
    """Whether a folder holds installed packages, which have nothing to do with each other."""
    return str(folder) in {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
