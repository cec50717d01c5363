"""What the page of measured results says of methods that `indexnet evaluate` measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results import Evaluation

from indexnet.report.numbers import fixed, significant

MATTING = {
    "sad": ("SAD (thousands)", 2), "mse": ("MSE", 4), "grad": ("Grad (thousands)", 2), "conn": ("Conn (thousands)", 2),
}  # fmt: skip


def find_method(evaluation: Evaluation, name: str) -> dict[str, Any]:
    """Return what was found of a method, by its caption or the stem of its checkpoint."""
    (found,) = (each for each in (evaluation.found or {})["methods"] if _method_name(each) == name)
    return found


def _method_name(method: Mapping[str, Any]) -> str:
    return Path(method["checkpoint"] or method["caption"]).stem


def methods_text(evaluation: Evaluation) -> str:
    """Return a table of what `indexnet evaluate` found, a line a method, as far as all have a number."""
    found = evaluation.found or {}
    methods = found["methods"]
    columns = [metric for metric in MATTING if all(metric in each["metrics"] for each in methods)]
    head = ["Method", *(f"{MATTING[metric][0]} ↓" for metric in columns), "Seconds per image"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for each in methods:
        values = [fixed(each["metrics"][metric], MATTING[metric][1]) for metric in columns]
        lines.append([_method_name(each), *values, significant(each["wall_time_s"] / found["test_count"], 2)])
    words = f"{found['test_count']} images of `{found['data']['name']}`; {found['device']}; code {found['git'][:7]}."
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{words}"
