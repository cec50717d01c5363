"""Measuring a task on test splits, and what the measured images say about others: bootstrap intervals.

Metrics are functions of sums over images (:mod:`indexnet.metrics.base`), so that any metric of any choice of images is
known once the sums of every image are, and the bootstrap never has to assume that a metric is a mean.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

from indexnet.core import statistics
from indexnet.core.console import error_console, say, tracked
from indexnet.core.errors import UserError
from indexnet.data import Dataset
from indexnet.inference.loading import check_channels
from indexnet.metrics import SumMetric
from indexnet.networks.tiled.memory import is_out_of_memory
from indexnet.tasks import Task, metric_key

Row = dict[str, Any]
Watch = Callable[[Row, Mapping[str, Any], torch.Tensor], None]
"""Called with the row of one image, its batch of one, and the prediction (1, K, H, W)."""


@dataclass
class Scores:
    """What a task scored.

    Attributes:
        rows: one per measured image: ``name``, ``group`` (see :meth:`indexnet.data.Dataset.group`) and metrics.
        failed: (name, sentence) of images that could not be measured.
        sums: by metric and image what the image adds to the metric's sums, (K,) float64.
        metrics: by name a metric, for :meth:`SumMetric.value`.
    """

    rows: list[Row] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    sums: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    metrics: dict[str, SumMetric] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Names of the measured images."""
        return {row["name"] for row in self.rows}

    @property
    def results(self) -> dict[str, float]:
        """The metrics over all images, by the names that a record uses."""
        return self.over(self.names)

    def over(self, names: set[str]) -> dict[str, float]:
        """Return the metrics over some images only."""
        found = {}
        for key, images in self.sums.items():
            chosen = [sums for name, sums in images.items() if name in names]
            if chosen:
                found[key] = _value(self.metrics[key], np.sum(chosen, axis=0)[None])[0].item()
        return found


def evaluate(
    task: Task,
    tests: Mapping[str, Dataset],
    counts: Mapping[str, int],
    *,
    title: str = "",
    watches: Sequence[Watch] = (),
) -> Scores:
    """Run a task over the first samples of test splits.

    Args:
        task: in eval mode, on the device.
        tests: test splits by name.
        counts: how many samples of each.
        title: what the progress bar adds to its words.
        watches: are shown every measured image.

    Raises:
        UserError: the data set does not fit the task at all: other channels, or nothing to measure against.
    """
    scores = Scores()
    console = error_console()

    def fail(name: str, reason: str) -> None:
        scores.failed.append((name, reason))
        say(console, reason)

    for split, dataset in tests.items():
        metrics = task.create_metrics()
        scores.metrics.update({metric_key(split, name): metric for name, metric in metrics.items()})
        count, step = counts[split], task.test_batch_size
        words = " ".join(filter(None, ["evaluating", split, title]))
        places = [range(start, min(start + step, count)) for start in range(0, count, step)]
        shown = tracked(places, words, len(places), console=console)
        for samples in _alike(dataset, split, shown, fail):
            check_channels(task, samples[0])
            task.check_target(samples[0])
            batch = task.prepare(default_collate(samples))
            try:
                prediction, finite = task.predict_finite(batch)
            except (UserError, RuntimeError, MemoryError) as error:
                if not isinstance(error, UserError) and not is_out_of_memory(error):
                    raise
                for name in (metric_key(split, name) for name in batch["name"]):
                    large = f"{name} is too large for the memory; give --device cpu, or for matting a smaller --memory."
                    fail(name, str(error) if isinstance(error, UserError) else large)
                continue
            for place, measured in enumerate(task.measure(prediction, batch, metrics, split)):
                name = measured["name"]
                if not finite[place] or all(math.isnan(v) for v in measured.values() if isinstance(v, float)):
                    why = "its target has no valid pixel" if finite[place] else "the prediction is not finite"
                    fail(name, f"{name}: nothing in it can be measured; {why}.")
                    continue
                row = {"name": name, "group": metric_key(split, samples[place]["group"]), **measured}
                scores.rows.append(row)
                for key, metric in metrics.items():
                    scores.sums.setdefault(metric_key(split, key), {})[name] = metric.sums[place].cpu().numpy()
                one = {key: value[place : place + 1] for key, value in batch.items()} if watches else {}
                for watch in watches:
                    watch(row, one, prediction[place : place + 1])
    return scores


def _alike(
    dataset: Dataset, split: str, batches: Iterable[range], fail: Callable[[str, str], None]
) -> Iterator[list[dict[str, Any]]]:
    """Yield samples, each with its ``group``: of a batch those together that are of one shape and follow each other."""
    for batch in batches:
        samples: list[dict[str, Any]] = []
        for index in batch:
            try:
                sample = dataset.sample(index, np.random.default_rng(0))
            except UserError as error:
                fail(metric_key(split, dataset.name(index)), str(error))
                continue
            samples.append({**sample, "group": dataset.group(index)})
        for _, alike in itertools.groupby(samples, key=lambda sample: sample["image"].shape):
            yield list(alike)


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
