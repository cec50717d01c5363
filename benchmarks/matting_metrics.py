"""Time of the matting metrics on one core, as a ratio to the published code's form with scipy and scikit-image.

Both forms run in one process on the same mattes, in turns, on one thread; times are medians of processor time. The
published code for Conn computes distance maps that it never uses: "lean" is its time without them. All numbers are
compared too.

    python benchmarks/matting_metrics.py            # 1920x1080, 15 % unknown
    python benchmarks/matting_metrics.py --check    # exit 1 where Grad is not 4 or Conn not 10 times as fast

Mattes: "hair", an object with hair; "two" of them, apart; "glass", an object without opaque pixels; "noise", in which
nearly every pixel is unknown and a component of its own (no target).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch

from indexnet.metrics import create_metric

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from indexnet.core.turns import medians
from matting_literal import literal

TARGETS = {"grad": 4.0, "conn": 10.0}


def blob(shape: tuple[int, int], rng: np.random.Generator, centre: tuple[float, float], radius: float) -> np.ndarray:
    """A disc with a warped, soft border and curled hair around it, float32 in [0, 1]."""
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
        line = np.int32(np.array(points) * 16)
        cv2.polylines(hair, [line], False, float(rng.uniform(0.35, 1)), int(rng.integers(1, 3)), cv2.LINE_AA, 4)
    return np.maximum(body, cv2.GaussianBlur(hair, (0, 0), 0.8))


def mattes(kind: str, seed: int, shape: tuple[int, int] = (1080, 1920), share: float = 0.15) -> list[np.ndarray]:
    """Prediction, target and trimap, uint8; ``share`` of the pixels are unknown."""
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
    if kind == "noise":
        target = rng.integers(0, 256, shape).astype(np.uint8)
    near = cv2.distanceTransform(1 - ((target > 0) & (target < 255)).astype(np.uint8), cv2.DIST_L2, 5)
    unknown = near <= np.quantile(near, share)
    trimap = np.where(unknown, 128, np.where(target == 255, 255, 0)).astype(np.uint8)
    # what networks get wrong: blurred hair, patches of wrong opacity, grain
    patches = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 3) * 120
    wrong = cv2.GaussianBlur(target.astype(np.float32), (0, 0), 1.5) + patches + rng.standard_normal(shape) * 3
    prediction = np.where(unknown, np.clip(wrong, 0, 255), trimap).astype(np.uint8)
    return [prediction, target, trimap]


def measure(kind: str, name: str, arrays: list[np.ndarray], repeats: int) -> bool:
    """Print the lines of one metric on one set of mattes; return whether its targets are met."""
    batch = [torch.from_numpy(array)[None, None].float() / 255 for array in arrays]
    metrics = {semantics: create_metric(name, semantics=semantics) for semantics in ("released_python", "matlab")}
    published = partial(literal, name, *arrays, semantics="released_python")
    forms: dict[str, Callable[[int], object]] = {
        "published": lambda _: published(unused_distances=True),
        "lean": lambda _: published(),
        **{key: lambda _, metric=metric: metric.update(*batch) for key, metric in metrics.items()},
    }
    # on one thread, so that processor time is what it takes
    middle = {key: 1e3 * seconds for key, seconds in medians(forms, repeats, time.process_time).items()}
    good = True
    for semantics, metric in metrics.items():
        ratio, lean = (middle[key] / middle[semantics] for key in ("published", "lean"))
        expected = literal(name, *arrays, semantics=semantics)
        apart = abs(metric.latest.item() - expected) / expected
        met = kind == "noise" or (ratio >= TARGETS[name] and apart < 1e-6)
        good &= met
        print(
            f"{kind:6} {name:5} {semantics:16} {middle['published']:7.0f} ms {middle['lean']:7.0f} ms "
            f"{middle[semantics]:6.1f} ms {ratio:6.1f} {lean:6.1f}   {apart:.0e}{'' if met else '  MISSED'}",
            flush=True,
        )
    return good


def main() -> int:
    """Measure, print, and with ``--check`` compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kinds", nargs="+", default=["hair", "two", "glass"], choices=["hair", "two", "glass", "noise"]
    )
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    print("                               published      lean    shipped  ratio   lean   difference")
    good = True
    for kind in options.kinds:
        arrays = mattes(kind, options.seed)
        for name in TARGETS:
            good &= measure(kind, name, arrays, options.repeats)
    return int(options.check and not good)


if __name__ == "__main__":
    sys.exit(main())
