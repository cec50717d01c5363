"""What the registered metrics are called and which way is better, read from their sources.

Importing :mod:`indexnet.metrics` imports torch and torchmetrics, which takes seconds; a command that lists what is
there, or finds every run of a sweep done, needs no tensor.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType


@dataclass(frozen=True)
class MetricFacts:
    """Facts about one metric; the attributes of :class:`indexnet.metrics.MetricInfo`."""

    name: str
    title: str
    unit: str
    higher_is_better: bool
    task: str


@functools.cache
def known_metrics() -> Mapping[str, MetricFacts]:
    """Return the facts of every metric in the package of metrics, by name."""
    import indexnet

    found: dict[str, MetricFacts] = {}
    try:
        for path in sorted((Path(indexnet.__file__).parent / "metrics").glob("*.py")):
            for facts in _registered(ast.parse(path.read_text(encoding="utf-8"))):
                found[facts.name] = facts
    except (OSError, SyntaxError, ValueError, TypeError):  # no sources, or a registration that is computed
        found = {}
    return MappingProxyType(found or _imported())


def _registered(module: ast.Module) -> list[MetricFacts]:
    """Return what the decorators ``@register_metric(...)`` of a module say.

    Raises:
        ValueError: one is not made of literals.
        TypeError: one has other arguments than facts.
    """
    found = []
    for node in module.body:
        for call in getattr(node, "decorator_list", []):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "register_metric":
                values = [ast.literal_eval(argument) for argument in call.args]
                named = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
                found.append(MetricFacts(*values, **named))
    return found


def _imported() -> dict[str, MetricFacts]:
    from indexnet.metrics import list_metrics

    return {
        info.name: MetricFacts(info.name, info.title, info.unit, info.higher_is_better, info.task)
        for info in list_metrics()
    }
