"""Samples a second of the ``dim`` pipeline, one worker, as a ratio to the published order of operations.

The published order decodes the composite, alpha, foreground and background of a sample, computes the distance transform
of the whole image, scales the background to it, and crops then. Here foregrounds and distances are kept, backgrounds
decoded, and only the crop is touched. Both run in one process on the same files, in turns; times are medians.

    python benchmarks/matting_pipeline.py            # foregrounds of 1920x1280, backgrounds of 640x480
    python benchmarks/matting_pipeline.py --check    # exit 1 where the ratio is less than 6
    python benchmarks/matting_pipeline.py --profile  # where the time goes
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from indexnet.core.turns import medians
from indexnet.data.matting import pair_foregrounds
from indexnet.data.matting.compositing import composite, cover
from indexnet.data.matting.train_composites import TrainingComposites

TARGET = 6.0
SIZE = 320


def write_files(root: Path, foregrounds: int, per_foreground: int) -> None:
    """Write photographs with structure and noise, hairy mattes, and the composites that the published order reads."""
    rng = np.random.default_rng(0)

    def photograph(height: int, width: int) -> np.ndarray:
        coarse = rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)

    def matte(height: int, width: int) -> np.ndarray:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        field = np.hypot(y / height - 0.5, x / width - 0.5)
        hair = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 2)
        rim = np.exp(-(((field - 0.34) / 0.05) ** 2))
        return np.clip(255 * ((0.33 - field) * 60 + 25 * hair * rim + 0.5), 0, 255).astype(np.uint8)

    for folder in ("fg", "alpha", "bg", "merged"):
        (root / folder).mkdir()
    for f in range(foregrounds):
        colour, alpha = photograph(1280, 1920), matte(1280, 1920)
        Image.fromarray(colour).save(root / f"fg/{f}.jpg", quality=95)
        Image.fromarray(alpha).save(root / f"alpha/{f}.jpg", quality=95)
        colour, alpha = (np.array(Image.open(root / f"{folder}/{f}.jpg")) for folder in ("fg", "alpha"))
        for k in range(per_foreground):
            name = f"{f * per_foreground + k:03d}"
            Image.fromarray(photograph(480, 640)).save(root / f"bg/{name}.jpg", quality=90)
            background = cover(np.array(Image.open(root / f"bg/{name}.jpg")), alpha.shape, shrink=False)
            Image.fromarray(composite(colour, background, alpha)).save(root / f"merged/{name}.png", compress_level=6)


def published_order(root: Path, index: int, per_foreground: int, rng: np.random.Generator) -> torch.Tensor:
    """One sample as the released loader makes it: everything at full resolution, then the crop."""
    f = index // per_foreground
    merged = np.array(Image.open(root / f"merged/{index:03d}.png"))
    alpha = np.array(Image.open(root / f"alpha/{f}.jpg"))
    colour = np.array(Image.open(root / f"fg/{f}.jpg"))
    background = cover(np.array(Image.open(root / f"bg/{index:03d}.jpg")), alpha.shape, shrink=True)
    mixed = (alpha > 0) & (alpha < 255)
    unknown = ndimage.distance_transform_edt(~mixed) <= rng.integers(1, 20)
    trimap = np.where(unknown, 128, np.where(alpha == 255, 255, 0)).astype(np.uint8)
    stack = np.concatenate([merged, trimap[..., None], alpha[..., None], colour, background], 2)
    height, width = alpha.shape
    side = int(rng.choice([320, 480, 640]))
    half = side // 2
    inside = np.zeros((height, width), bool)
    inside[half : height - half + 1, half : width - half + 1] = True
    ys, xs = np.nonzero((trimap == 128) & inside)
    pick = int(rng.integers(len(ys)))
    top, left = ys[pick] - half, xs[pick] - half
    crop = np.ascontiguousarray(stack[top : top + side, left : left + side])
    parts = []
    for first, last, how in ((0, 3, cv2.INTER_CUBIC), (3, 4, cv2.INTER_NEAREST), (4, 5, cv2.INTER_CUBIC),
                             (5, 8, cv2.INTER_CUBIC), (8, 11, cv2.INTER_CUBIC)):  # fmt: skip
        part = cv2.resize(crop[..., first:last], (SIZE, SIZE), interpolation=how)
        parts.append(part.reshape(SIZE, SIZE, last - first))
    small = np.concatenate(parts, 2)
    if rng.integers(2):
        small = small[:, ::-1]
    return torch.from_numpy(small.astype(np.float32).transpose(2, 0, 1) / 255)


def main() -> int:
    """Measure, print, and with ``--check`` judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=24, help="samples of each form; default 24")
    parser.add_argument("--cache", default="true", help="true, false, or a folder; default true")
    parser.add_argument("--check", action="store_true", help=f"exit 1 where the ratio is below {TARGET:g}")
    parser.add_argument("--profile", action="store_true", help="print where the time of both forms goes")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    foregrounds, each = 3, 4
    count = foregrounds * each
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_files(root, foregrounds, each)
        objects, backgrounds = pair_foregrounds(root / "fg", root / "alpha"), sorted((root / "bg").iterdir())
        cache = {"true": True, "false": False}.get(options.cache, options.cache)

        def build(pipeline: str) -> TrainingComposites:
            split = TrainingComposites("train", "benchmark", objects, backgrounds, each, pipeline, SIZE, cache=cache)
            start = time.perf_counter()
            said = split.prepare()
            print(f"{pipeline}: {said or 'nothing kept'} ({time.perf_counter() - start:.1f} s)")
            return split

        rng = np.random.default_rng(1)
        splits = {name: build(name) for name in ("dim", "mmediting", "gca")}
        makers: dict[str, Callable[[int], object]] = {
            "published order": lambda turn: published_order(root, turn % count, each, rng),
            **{name: lambda turn, split=split: split.sample(turn % count, rng) for name, split in splits.items()},
        }
        middle = medians(makers, options.samples)
        for name, middle_time in middle.items():
            print(f"{name:16} {1000 * middle_time:8.1f} ms a sample {1 / middle_time:8.1f} samples/s")
        ratio = middle["published order"] / middle["dim"]
        print(f"dim makes {ratio:.1f} times as many samples a second as the published order")
        if options.profile:
            for name in ("published order", "dim"):
                profile = cProfile.Profile()
                profile.enable()
                for index in range(count):
                    makers[name](index)
                profile.disable()
                print(f"\n{name}, {count} samples:")
                pstats.Stats(profile).sort_stats("tottime").print_stats(12)
    return 1 if options.check and ratio < TARGET else 0


if __name__ == "__main__":
    sys.exit(main())
