"""Time per sample of the procedural scenes on one core, all targets of a task included.

    python benchmarks/scenes.py [--size 320] [--count 300] [--sheet FILE.png]

``--sheet`` also writes a contact sheet: image, alpha, trimap, depth and labels of the first scenes.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch

from indexnet.data import create_data
from indexnet.data.io.images import write_png


def sheet(size: int, count: int, split: str, first: int) -> np.ndarray:
    """Rows of image, alpha, trimap, foreground, depth, labels."""
    colours = (np.array([[0, 0, 0], *np.random.default_rng(4).integers(60, 255, (7, 3))])).astype(np.uint8)
    sets = {
        task: getattr(create_data("scenes", task=task, size=size), split)()
        for task in ("matting", "depth", "segmentation")
    }
    rows = []
    for index in range(first, first + count):
        got = {task: data.sample(index, np.random.default_rng(index)) for task, data in sets.items()}
        matting = got["matting"]
        row = [matting[k].expand(3, -1, -1).permute(1, 2, 0).numpy() * 255 for k in ("image", "alpha", "trimap", "fg")]
        row.append(colours[got["segmentation"]["label"].numpy()])
        row.append(got["depth"]["image"].permute(1, 2, 0).numpy() * 255)
        depth = 255 * np.clip(got["depth"]["depth"][0].numpy() / 10, 0, 1)
        row.append(cv2.applyColorMap(depth.astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1])
        rows.append(np.concatenate([np.asarray(a, np.uint8) for a in row], axis=1))
    return np.concatenate(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--sheet")
    parser.add_argument("--sheet-split", default="test")
    parser.add_argument("--sheet-first", type=int, default=0)
    parser.add_argument("--sheet-count", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if options.sheet:
        picture = sheet(224, options.sheet_count, options.sheet_split, options.sheet_first)
        write_png(options.sheet, picture, overwrite=True)
        return
    for task in ("matting", "denoising", "segmentation", "depth"):
        data = create_data("scenes", task=task, size=options.size)
        for split in (data.train(), data.test()):
            split.sample(0, np.random.default_rng(0))
            times = []
            for index in range(min(options.count, len(split))):
                trials = []
                for _ in range(3):  # the least of three: other work on the machine only ever adds
                    rng = np.random.default_rng((0, 0, index))
                    start = time.process_time()
                    split.sample(index, rng)
                    trials.append(time.process_time() - start)
                times.append(min(trials))
            mean, high = 1000 * np.mean(times), 1000 * np.percentile(times, 95)
            print(f"{task:13} {split.split:6} {mean:6.1f} ms a sample (95 % below {high:.1f})", flush=True)


if __name__ == "__main__":
    main()
