"""Imports point down: a room uses rooms below it, never one above or beside it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "indexnet"
# from the bottom up; what shares a line shares no imports
FLOORS = (
    ("ops",),
    ("resampling",),
    ("networks",),
    ("interop", "data", "metrics", "losses"),
    ("tasks",),
    ("run",),
    ("report",),
)
ROOMS = [room for floor in FLOORS for room in floor]


def _level(room):
    return next(level for level, floor in enumerate(FLOORS) if room in floor)


def _imports(room):
    """Yield (file, imported module) for every import in a room, those inside functions included."""
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield path.name, node.module
            elif isinstance(node, ast.Import):
                yield from ((path.name, alias.name) for alias in node.names)


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in ("run", "report")])
def test_a_room_imports_only_from_below(room):
    for file, module in _imports(room):
        parts = module.split(".")
        if parts[0] == "indexnet" and len(parts) > 1 and parts[1] in ROOMS and parts[1] != room:
            assert _level(parts[1]) < _level(room), f"{room}/{file} imports {module}"


@pytest.mark.parametrize("room", ["ops", "resampling", "networks", "losses", "metrics", "data", "interop"])
def test_what_is_below_the_tasks_knows_neither_lightning_nor_hydra(room):
    strangers = {"pytorch_lightning", "lightning", "hydra", "omegaconf", "wandb"}
    for file, module in _imports(room):
        assert module.split(".")[0] not in strangers, f"{room}/{file} imports {module}"
