"""Predictions without a network on the alphamatting.com training set: what a network must beat.

    python benchmarks/matting_baselines.py --root FOLDER [--methods half closed_form knn]

``half`` is alpha = 0.5 in the unknown region; ``closed_form`` and ``knn`` are pymatting's (extra ``matting``). All are
measured as `indexnet evaluate` does, over the unknown region; with intervals and against checkpoints, and for any data
set: ``indexnet evaluate CKPT closed_form knn data=alphamatting data.root=FOLDER``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import indexnet  # noqa: F401  first: it prepares torchvision
from indexnet.data import create_data
from indexnet.inference.evaluation import evaluate
from indexnet.run.record import write_rows
from indexnet.tasks.base import Batch
from indexnet.tasks.classical import CLASSICAL, ClassicalMatting
from indexnet.tasks.matting import MattingTask


class Half(ClassicalMatting):
    """Predicts 0.5, cut to 8 bits, wherever nothing is known."""

    def __init__(self) -> None:
        super().__init__("closed_form")

    def infer(self, batch: Batch) -> torch.Tensor:
        """Return alpha (N, 1, H, W)."""
        trimap: torch.Tensor = batch["trimap"]
        return torch.where((trimap > 0) & (trimap < 1), 127 / 255, trimap)


def create(method: str) -> MattingTask:
    """Return a task by the method's name."""
    return Half() if method == "half" else ClassicalMatting(method)


def main() -> None:
    """Print the means, and write the values of every image where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder with input_, gt_ and trimap_training_lowres")
    parser.add_argument("--trimaps", nargs="+", default=["Trimap1", "Trimap2"])
    parser.add_argument("--methods", nargs="+", choices=["half", *CLASSICAL], default=["half", "closed_form"])
    parser.add_argument("--csv", type=Path, help="write the values of every image here")
    args = parser.parse_args()
    rows = []
    for trimap_set in args.trimaps:
        dataset = create_data("alphamatting", task="matting", root=args.root, trimap=trimap_set).test()
        for method in args.methods:
            begun = time.perf_counter()
            scores = evaluate(create(method), {"": dataset}, {"": len(dataset)})
            rows += [{"trimaps": trimap_set, "method": method, **row} for row in scores.rows]
            values = ", ".join(f"{name} {value:.4f}" for name, value in scores.results.items())
            seconds = (time.perf_counter() - begun) / len(dataset)
            print(f"{trimap_set} {method:12s} {values}  ({len(dataset)} images, {seconds:.1f} s an image)", flush=True)
    if args.csv:
        write_rows(args.csv, rows)


if __name__ == "__main__":
    main()
