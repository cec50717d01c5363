"""Two tables of which one has rows of the other, for the tests of such rows."""

from __future__ import annotations

import copy
from typing import Any

import yaml

_NODE = {"title": "t", "source": "mine", "seeds": [0], "columns": [{"metric": "psnr"}]}
FIRST: dict[str, Any] = {
    "rows": [
        {"name": "a", "label": "A", "overrides": ["resampling=max_unpool"]},
        {"name": "b", "label": "B", "overrides": ["resampling=nearest"]},
    ]
}
SECOND: dict[str, Any] = {
    "rows": [
        {"name": "x", "label": "X", "same_as": "first:a"},
        {"name": "y", "overrides": ["resampling=bilinear"], "init": {"row": "first:b", "parts": {"bottom": "bottom"}}},
        {"name": "z", "same_as": "y"},
        {"name": "early", "overrides": ["resampling=nearest"], "intermediate": True},
        {"name": "late", "overrides": ["resampling=nearest"], "init": {"row": "early"}},
    ]
}
TINY = ["network.widths=[4,8]", "data.train_count=6", "data.test_count=2", "budget=smoke", "trainer.accelerator=cpu",
        "trainer.num_workers=0"]  # fmt: skip


def write_tables(folder, monkeypatch, first=None, second=None, *, task="reconstruction", second_task="reconstruction"):
    """Write the tables ``first`` and ``second`` into a person's folder; rows may be given."""
    monkeypatch.setenv("INDEXNET_EXPERIMENTS", str(folder))
    (folder / "experiments").mkdir(parents=True, exist_ok=True)
    for name, node, rows, its in (("first", FIRST, first, task), ("second", SECOND, second, second_task)):
        node = copy.deepcopy({**_NODE, **node, "name": name, **({"rows": rows} if rows is not None else {})})
        content = {"defaults": [{"override /task": its}], "experiment": node}
        text = "# @package _global_\n" + yaml.safe_dump(content, sort_keys=False)
        (folder / "experiments" / f"{name}.yaml").write_text(text, encoding="utf-8")
