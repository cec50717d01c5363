"""SAD and MSE of predictions without a network, on the alphamatting.com training set: what a network must beat.

    python benchmarks/matting_baselines.py --root FOLDER [--methods half closed_form knn]

``half`` is alpha = 0.5 in the unknown region; ``closed_form`` and ``knn`` are pymatting's (extra ``matting``). All
predictions are cut to 8 bit and measured as `indexnet evaluate` does, over the unknown region.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import indexnet  # noqa: F401  first: it prepares torchvision
from indexnet.data import create_data
from indexnet.metrics import create_metric

METRICS = ("sad", "mse")


def half(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Predict 0.5 wherever nothing is known."""
    return np.where((trimap > 0) & (trimap < 1), 0.5, trimap)


def closed_form(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Levin et al., 2008."""
    from pymatting import estimate_alpha_cf

    return estimate_alpha_cf(image, trimap)


def knn(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Chen et al., 2013."""
    from pymatting import estimate_alpha_knn

    return estimate_alpha_knn(image, trimap)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "half": half,
    "closed_form": closed_form,
    "knn": knn,
}


def main() -> None:
    """Print the means, and write the values of every image where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder with input_, gt_ and trimap_training_lowres")
    parser.add_argument("--trimaps", nargs="+", default=["Trimap1", "Trimap2"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["half", "closed_form"])
    parser.add_argument("--csv", type=Path, help="write the values of every image here")
    args = parser.parse_args()
    rows = []
    for trimap_set in args.trimaps:
        dataset = create_data("alphamatting", task="matting", root=args.root, trimap=trimap_set).test()
        for method in args.methods:
            metrics = {name: create_metric(name) for name in METRICS}
            begun = time.perf_counter()
            for index in range(len(dataset)):
                sample = dataset.sample(index, np.random.default_rng(0))
                image = sample["image"].permute(1, 2, 0).double().numpy()
                trimap = sample["trimap"][0].double().numpy()
                alpha = METHODS[method](image, trimap).clip(0, 1)
                alpha = np.where((trimap > 0) & (trimap < 1), np.floor(alpha * 255 + 1e-4) / 255, trimap)
                prediction = sample["alpha"].new_tensor(alpha)[None, None]
                for metric in metrics.values():
                    metric.update(prediction, sample["alpha"][None], sample["trimap"][None])
                rows.append(
                    {"trimaps": trimap_set, "method": method, "name": sample["name"]}
                    | {name: float(metric.latest[0]) for name, metric in metrics.items()}
                )
            values = ", ".join(f"{name} {float(metric.compute()):.4f}" for name, metric in metrics.items())
            seconds = (time.perf_counter() - begun) / len(dataset)
            print(f"{trimap_set} {method:12s} {values}  ({len(dataset)} images, {seconds:.1f} s an image)", flush=True)
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
