"""Whether long use of one process holds more and more: resident memory and open files after warm-up and at the end.

Predicts photographs one after another as `indexnet predict` does, then trains in the same process as `indexnet job`
does. Small pictures and networks: what would be lost with each of them does not depend on their size.

    python benchmarks/long_use.py                                # 300 predictions, 2,000 steps; prints a line each
    python benchmarks/long_use.py --check                        # exit 1 where either grew
    python benchmarks/long_use.py --predictions 30 --steps 100
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import indexnet
from indexnet.cli import main as indexnet_command
from indexnet.core.machine import release_memory, resident_memory

WARM_UP = 0.2
"""Share of the work after which memory is looked at first: by then caches and allocators have what they want."""
GROWTH = 32e6
"""Bytes by which resident memory may differ: allocators keep what is free, here a little more, there a little less."""


def open_files() -> int:
    """Return how many files, sockets and pipes this process holds."""
    return len(os.listdir("/proc/self/fd"))


def watch(work: Callable[[int], None], count: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Do ``work`` so many times; return resident bytes and open files after the warm-up and at the end."""
    seen = []
    for number in range(count):
        work(number)
        if number in (max(0, int(WARM_UP * count) - 1), count - 1):
            gc.collect()
            release_memory()
            seen.append((resident_memory(), open_files()))
    return seen[0], seen[-1]


def save_checkpoint(path: Path) -> Path:
    """Save a small matting network with random weights."""
    from indexnet.networks import create_network
    from indexnet.networks.checkpoint import checkpoint_meta, save_checkpoint

    encoder = {"name": "mobilenetv2_released", "width": 0.35}
    spec = {"encoder": encoder, "resampling": {"name": "indexnet", "family": "hin"}, "context": "none"}
    network = create_network("matting_unet", **spec)
    save_checkpoint(
        path, checkpoint_meta({"name": "matting"}, {"name": "matting_unet", **spec}, {}), network.state_dict()
    )
    return path


def save_photographs(folder: Path) -> None:
    """Save ten photographs of several sizes with their trimaps."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("images", "trimaps"):
        (folder / name).mkdir()
    for number in range(10):
        height, width = 64 + 8 * number, 96
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / "images" / f"{number}.jpg")
        trimap = np.full((height, width), 128, np.uint8)
        trimap[:, :20], trimap[:, -20:] = 0, 255
        Image.fromarray(trimap).save(folder / "trimaps" / f"{number}.png")


def predictions(folder: Path, count: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Predict ``count`` photographs, ten a command."""
    checkpoint = save_checkpoint(folder / "network.ckpt")
    save_photographs(folder)
    words = ["predict", str(checkpoint), "--device", "cpu", "--overwrite", "--output", str(folder / "out")]
    words += ["--images", str(folder / "images"), "--trimaps", str(folder / "trimaps")]

    def predict(number: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            assert indexnet_command(words) == 0

    return watch(predict, max(2, count // 10))


def steps(folder: Path, count: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Train ``count`` steps as one run with validations and checkpoints."""
    import pytorch_lightning as pl

    from indexnet.run.config import compose, freeze
    from indexnet.run.folder import prepare
    from indexnet.run.job import run_job

    seen: list[tuple[int, int]] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *given: object) -> None:
            if trainer.global_step in (max(1, int(WARM_UP * count)), count):
                gc.collect()
                release_memory()
                seen.append((resident_memory(), open_files()))

    sys.modules["long_use"] = sys.modules[__name__]
    globals()["Watch"] = Watch
    words = [
        "task=denoising", "data=photos", "data.train_count=32", "data.test_count=4", "network=dncnn", "network.width=4",
        "resampling=none", "network.depth=3", f"training.steps={count}", "training.batch_size=4", "training.size=24",
        f"training.validate_every={max(1, count // 20)}", f"trainer.checkpoint_every={max(1, count // 20)}",
        "trainer.accelerator=cpu", "trainer.num_workers=0", "+callbacks.watch={_target_: long_use.Watch}",
        f"paths.runs={folder / 'runs'}",
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        assert run_job(prepare(freeze(compose(words))).path) == 0
    return seen[0], seen[-1]


def main() -> int:
    """Print a line for each kind of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=300)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--check", action="store_true", help="exit code 1 where memory or open files have grown")
    args = parser.parse_args()
    grown = False
    print(f"indexnet {indexnet.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for title, work, count in (("predictions", predictions, args.predictions), ("steps", steps, args.steps)):
            place = Path(folder) / title
            place.mkdir()
            (before, files), (after, files_after) = work(place, count)
            print(
                f"{count} {title}: resident {before / 1e6:.0f} MB after warm-up, {after / 1e6:.0f} MB at the end; "
                f"open files {files}, {files_after}",
                flush=True,
            )
            grown = grown or after - before > GROWTH or files_after > files
    return 1 if grown and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
