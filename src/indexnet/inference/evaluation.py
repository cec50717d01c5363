"""Measuring a task on test splits, and what the measured images say about others: bootstrap intervals.

Metrics are functions of sums over images (:mod:`indexnet.metrics.base`), so that any metric of any choice of images is
known once the sums of every image are, and the bootstrap never has to assume that a metric is a mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from indexnet.core import statistics
from indexnet.core.console import error_console, say
from indexnet.core.errors import UserError
from indexnet.metrics import SumMetric
from indexnet.tasks import Task, metric_key

if TYPE_CHECKING:
    from indexnet.data import Dataset


Row = dict[str, Any]
Watch = Callable[[Row, Mapping[str, Any], torch.Tensor], None]
"""Called with the row of one image, its batch of one, and the prediction (1, K, H, W)."""


@dataclass
class Scores:
    """What a task scored.

    Attributes:
        rows: one per measured image: ``name``, ``group`` (see :meth:`indexnet.data.Dataset.group`) and metrics.
        failed: (name, sentence) of images that could not be measured.
        results: the metrics over all images, by the names that a record uses.
        sums: by metric and image what the image adds to the metric's sums, (K,) float64.
        metrics: by name a metric, for :meth:`SumMetric.value`.
    """

    rows: list[Row] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    results: dict[str, float] = field(default_factory=dict)
    sums: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    metrics: dict[str, SumMetric] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Names of the measured images."""
        return {row["name"] for row in self.rows}

    def over(self, names: set[str]) -> dict[str, float]:
        """Return the metrics over some images only."""
        found = {}
        for key, images in self.sums.items():
            chosen = [sums for name, sums in images.items() if name in names]
            if chosen:
                found[key] = _value(self.metrics[key], np.sum(chosen, axis=0)[None])[0].item()
        return found


def evaluate(
    task: Task, tests: Mapping[str, Dataset], counts: Mapping[str, int], *, title: str = "", watch: Watch | None = None
) -> Scores:
    """Run a task over the first samples of test splits.

    Args:
        task: in eval mode, on the device.
        tests: test splits by name.
        counts: how many samples of each.
        title: what the progress bar adds to its words.
        watch: is shown every measured image.

    Raises:
        UserError: the data set does not fit the task at all: other channels, or nothing to measure against.
    """
    from rich.progress import track
    from torch.utils.data import default_collate

    from indexnet.inference.predictor import as_samples, check_channels

    scores = Scores()
    console = error_console()

    def fail(name: str, reason: str) -> None:
        scores.failed.append((name, reason))
        say(console, reason)

    step = task.test_batch_size
    for split, dataset in tests.items():
        metrics = {metric_key(split, name): metric for name, metric in task.create_metrics().items()}
        totals: dict[str, Any] = dict.fromkeys(metrics, 0.0)
        before = len(scores.rows)
        starts = range(0, counts[split], step)
        words = " ".join(filter(None, ["evaluating", split, title]))
        for start in track(starts, words, console=console, transient=True, disable=not console.is_terminal):
            samples, groups = [], {}
            for index in range(start, min(start + step, counts[split])):
                try:
                    samples.append(dataset.sample(index, np.random.default_rng(0)))
                except UserError as error:
                    fail(metric_key(split, dataset.name(index)), str(error))
                    continue
                groups[str(samples[-1]["name"])] = metric_key(split, dataset.group(index))
            for group in as_samples(samples):
                check_channels(task, group[0])
                task.check_target(group[0])
                batch = task.prepare(default_collate([dict(sample) for sample in group]))
                prediction = _predict(task, batch, [metric_key(split, str(s["name"])) for s in group], fail)
                if prediction is None:
                    continue
                inputs = task.metric_inputs(prediction, batch)
                with torch.no_grad():
                    sums = {key: metric.statistics(*inputs) for key, metric in metrics.items()}
                values = {key: metric.value(sums[key]) for key, metric in metrics.items()}
                for place, sample in enumerate(group):
                    name = metric_key(split, str(sample["name"]))
                    row: Row = {"name": name, "group": groups[str(sample["name"])]}
                    row.update({key: found[place].item() for key, found in values.items()})
                    if all(math.isnan(value) for value in row.values() if isinstance(value, float)):
                        diverged = not bool(torch.isfinite(prediction[place]).all())
                        why = "the prediction is not finite" if diverged else "its target has no valid pixel"
                        fail(name, f"{name}: nothing in it can be measured; {why}.")
                        continue
                    scores.rows.append(row)
                    for key, batch_sums in sums.items():
                        totals[key] = totals[key] + batch_sums[place]
                        scores.sums.setdefault(key, {})[name] = batch_sums[place].cpu().numpy()
                    if watch is not None:
                        one = {key: value[place : place + 1] for key, value in batch.items()}
                        watch(row, one, prediction[place : place + 1])
        if len(scores.rows) > before:
            scores.metrics.update(metrics)
            scores.results.update({key: metric.value(totals[key]).item() for key, metric in metrics.items()})
    return scores


def _predict(
    task: Task, batch: Mapping[str, Any], names: Sequence[str], fail: Callable[[str, str], None]
) -> torch.Tensor | None:
    """Return predictions, or None where these images alone are at fault."""
    from indexnet.networks.tiled.memory import is_out_of_memory

    try:
        return task.predict(batch)
    except UserError as error:
        for name in names:
            fail(name, str(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        for name in names:
            fail(name, f"{name} is too large for the memory; give --device cpu, or for matting a smaller --memory.")
    return None


def _value(metric: SumMetric, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(metric.value(torch.from_numpy(np.ascontiguousarray(sums, np.float64))).cpu(), np.float64)


def bootstrap(
    scores: Scores,
    key: str,
    names: set[str] | None = None,
    *,
    replicates: int = statistics.REPLICATES,
    seed: int = 0,
) -> NDArray[np.float64] | None:
    """Return a metric over draws of groups of images, see :func:`indexnet.core.statistics.bootstrap`.

    Args:
        scores: the measured images and their groups.
        key: the metric.
        names: images to take; default all.
        replicates: number of draws.
        seed: of the draws.
    """
    groups = {row["name"]: row["group"] for row in scores.rows}
    sums = {n: s for n, s in scores.sums.get(key, {}).items() if n in groups and (names is None or n in names)}
    value = partial(_value, scores.metrics[key])
    return statistics.bootstrap(sums, groups, value, replicates=replicates, seed=seed)


def group_count(scores: Scores, names: set[str] | None = None) -> int:
    """Return how many groups the measured images belong to."""
    return len({row["group"] for row in scores.rows if names is None or row["name"] in names})
