"""The matting metrics Grad and Conn against the published code's form with scipy and scikit-image.

Time is that of the processor. The published code of Conn computes distance maps that it never uses: "lean" is its form
without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from indexnet.benchmarks.base import TIME, BenchOptions, Figure, Progress, compared
from indexnet.benchmarks.literal_metrics import literal
from indexnet.core.turns import medians
from indexnet.metrics import create_metric
from indexnet.metrics.base import SumMetric

PART = "metrics"
PUBLISHED, LEAN = "published", "published, lean"
TARGETS = {"grad": 1 / 4, "conn": 1 / 10}
SEMANTICS = ("released_python", "matlab")
KINDS = ("hair", "two", "glass")
"""An object with hair; two of them, apart; an object without opaque pixels."""


def figures(options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure both metrics on mattes of 1920x1080, 15 % of them unknown; ``quick``: on one of 960x540.

    Raises:
        RuntimeError: a metric gives another number than the published form.
    """
    found = []
    shape, kinds = ((540, 960), KINDS[:1]) if options.quick else ((1080, 1920), KINDS)
    for kind in kinds:
        arrays = mattes(kind, 0, shape)
        for name in TARGETS:
            progress(f"{name}, {kind}")
            found += measure(name, kind, arrays, options)
    return found


def measure(name: str, kind: str, arrays: list[NDArray[np.uint8]], options: BenchOptions) -> list[Figure]:
    """Measure one metric on a prediction, its target and their trimap, uint8 (H, W).

    Raises:
        RuntimeError: it gives another number than the published form.
    """
    batch = [torch.from_numpy(array)[None, None].float() / 255 for array in arrays]
    metrics = {semantics: create_metric(name, semantics=semantics) for semantics in SEMANTICS}
    prediction, target, trimap = arrays
    images = (prediction, target, trimap)
    case = f"{name}, {kind}"
    for semantics, metric in metrics.items():
        metric.update(*batch)
        expected = literal(name, *images, semantics=semantics)
        if not abs(float(metric.compute()) - expected) <= 1e-6 * expected:
            raise RuntimeError(f"bench {PART}, {case}: the metric gives another number than its published form.")

    def shipped(metric: SumMetric, _: int) -> None:
        metric.update(*batch)

    def published(unused_distances: bool, _: int) -> float:
        return literal(name, *images, semantics="released_python", unused_distances=unused_distances)

    forms: dict[str, Callable[[int], object]] = {
        PUBLISHED: partial(published, True),
        LEAN: partial(published, False),
        **{semantics: partial(shipped, metric) for semantics, metric in metrics.items()},
    }
    found = medians(forms, options.turns, time.process_time)
    targets: dict[str, float | None] = {PUBLISHED: TARGETS[name], LEAN: None}
    pairs = {(semantics, reference): targets[reference] for reference in targets for semantics in SEMANTICS}
    return compared(PART, case, TIME, found, pairs, options.turns, options.threads)


def blob(
    shape: tuple[int, int], rng: np.random.Generator, centre: tuple[float, float], radius: float
) -> NDArray[np.float32]:
    """Return a disc with a warped, soft border and curled hair around it, float32 in [0, 1]."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    warps = [cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), s) * s * s for s in (40, 25)]
    distance = np.hypot(x + warps[0] - centre[0], y + warps[1] - centre[1])
    body = np.clip((radius - distance) / 6 + 0.5, 0, 1)
    hair = np.zeros(shape, np.float32)
    for _ in range(400):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.6) * radius
        place = np.array(centre) + 0.9 * radius * np.array([np.cos(angle), np.sin(angle)])
        points = [place]
        for _ in range(20):
            angle += rng.normal(0, 0.15)
            points.append(points[-1] + length / 20 * np.array([np.cos(angle), np.sin(angle)]))
        line = np.array(np.array(points) * 16, np.int32)
        cv2.polylines(hair, [line], False, float(rng.uniform(0.35, 1)), int(rng.integers(1, 3)), cv2.LINE_AA, 4)
    return np.asarray(np.maximum(body, cv2.GaussianBlur(hair, (0, 0), 0.8)), np.float32)


def mattes(kind: str, seed: int, shape: tuple[int, int] = (1080, 1920), share: float = 0.15) -> list[NDArray[np.uint8]]:
    """Draw one of :data:`KINDS`.

    Returns:
        Prediction, target and trimap, uint8; ``share`` of the pixels are unknown.
    """
    rng = np.random.default_rng(seed)
    height, width = shape
    if kind == "two":  # of about one size, apart: filling one says nothing about the other
        alpha = np.zeros(shape, np.float32)
        for column in (0.27, 0.73):
            alpha = np.maximum(alpha, blob(shape, rng, (column * width, height / 2), 0.25 * height))
    else:
        alpha = blob(shape, rng, (width / 2, height / 2), 0.28 * height)
    if kind == "glass":  # no opaque pixel
        alpha *= 0.6 + 0.2 * cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 15) * 15
    target = np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8)
    near = cv2.distanceTransform(1 - ((target > 0) & (target < 255)).astype(np.uint8), cv2.DIST_L2, 5)
    unknown = near <= np.quantile(near, share)
    trimap = np.where(unknown, 128, np.where(target == 255, 255, 0)).astype(np.uint8)
    # what networks get wrong: blurred hair, patches of wrong opacity, grain
    patches = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 3) * 120
    wrong = cv2.GaussianBlur(target.astype(np.float32), (0, 0), 1.5) + patches + rng.standard_normal(shape) * 3
    prediction = np.where(unknown, np.clip(wrong, 0, 255), trimap).astype(np.uint8)
    return [prediction, target, trimap]
