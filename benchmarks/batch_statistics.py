"""What the running statistics of batch normalization cost a table of denoising: every test patch is measured twice.

    python benchmarks/batch_statistics.py NAME --runs RUNS   # NAME: of docs/results/results.yaml

In training a batch is normalized by its own statistics, in a test by running ones. The photographs of the first test
set are cut into patches of 160 pixels, which are put together at random to batches of the training's size, and denoised
once with the running statistics, once with those of their batch. Patches are larger than those of the training because
what fails is inside large areas. PSNR is that of a photograph's patches together; borders of patches are seen, so it is
not that of whole photographs. The same batches for every run. A third time they are denoised with running statistics
that were estimated anew, over the first batches of the training, as those of a run follow its last steps only.

It writes docs/results/evaluations/NAME_statistics.json, and measures what is not there yet: two to six minutes a run on
one core.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import FOLDER, Result, find
from torch import Tensor, nn
from torch.nn.functional import unfold
from torch.optim.swa_utils import update_bn

from indexnet.core.errors import UserError
from indexnet.core.files import write_json
from indexnet.core.machine import device_name
from indexnet.data.base import Dataset
from indexnet.inference.loading import load_task
from indexnet.run.folder import RunFolder
from indexnet.run.loader import StepStream, build_data, train_loader
from indexnet.run.record import git_revision
from indexnet.run.run_sets import Run, read_config
from indexnet.tasks.base import Task

SIZE = 160
BATCHES = 50
"""Training batches that statistics are estimated anew over."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def patches(task: Task, photographs: list[Any], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut photographs to patches that do not overlap: noisy and clean ones, (N, C, size, size), and whose they are."""
    noisy: list[Tensor] = []
    clean: list[Tensor] = []
    numbers: list[Tensor] = []
    for number, sample in enumerate(photographs):
        batch = task.prepare({"image": sample["image"][None], "name": [sample["name"]]})
        for key, found in (("noisy", noisy), ("clean", clean)):
            columns = unfold(batch[key], size, stride=size)[0].T
            found.append(columns.reshape(len(columns), -1, size, size))
        numbers.append(torch.full((len(found[-1]),), number))
    return torch.cat(noisy), torch.cat(clean), torch.cat(numbers)


def measure(network: nn.Module, noisy: Tensor, clean: Tensor, numbers: Tensor, batch: int) -> list[float]:
    """Denoise patches in batches and return the PSNR of every photograph, in dB."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(noisy)))
    errors = torch.zeros(len(noisy), dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, len(order), batch):
            start = min(start, len(order) - batch)  # the last batch is filled up with patches of the one before
            each = order[start : start + batch]
            errors[each] = (network(noisy[each]) - clean[each]).square().flatten(1).mean(1).double()
    return [-10 * math.log10(float(errors[numbers == n].mean())) for n in range(int(numbers.max()) + 1)]


def by_batch(network: nn.Module) -> nn.Module:
    """Let norms, and nothing else, work as in training; their running statistics stay."""
    for module in network.modules():
        if isinstance(module, NORMS):
            module.train()
            module.momentum = 0.0
    return network


def reestimate(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Take the means of the statistics of batches as running statistics."""
    update_bn(batches, network)
    return network.eval()


def training_batches(train: Dataset, sigma: float, batch: int) -> Iterator[Tensor]:
    """Yield noisy batches of the training of seed 0, (N, C, H, W), with a noise of their own."""
    noise = torch.Generator().manual_seed(0)
    for each in itertools.islice(train_loader(train, StepStream(len(train), batch, BATCHES, 0), workers=0), BATCHES):
        yield each["image"] + torch.randn(each["image"].shape, generator=noise) * sigma / 255


def measure_run(run: Run) -> dict[str, Any]:
    """Return the PSNR of the photographs of a run's first test set by all statistics, and what was measured how."""
    config = read_config(run)
    if config is None:
        raise UserError(f"{run.path} has no configuration; train the run again.")
    batch = config["training"]["batch_size"]
    data = build_data(config["data"], "denoising", config["training"]["size"])
    split, test = next(iter(data.tests().items()))
    task, _ = load_task(RunFolder(run.path).checkpoint())
    network, cut = task.network, patches(task, [test[n] for n in range(len(test))], SIZE)
    values = {"running": measure(network, *cut, batch)}
    values["batch"] = measure(by_batch(copy.deepcopy(network)), *cut, batch)
    reestimate(network, training_batches(data.train(), config["task"]["sigma"], batch))
    values["reestimated"] = measure(network, *cut, batch)
    about = {"split": split, "patch": SIZE, "batch_size": batch, "device": device_name(torch.device("cpu"))}
    return about | {key: [round(value, 3) for value in each] for key, each in values.items()}


def measure_table(result: Result, runs: Path, file: Path) -> None:
    """Measure the runs of a table that are done, and write them one by one."""
    if not (sets := result.run_sets(runs)):
        where = runs / result.experiment / result.set
        raise UserError(f"{where}: there are no runs; train them first: {result.command}")
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    revision = git_revision()  # before this writes a file of the project
    for run in sets[0].runs:
        name, config_hash = f"{run.row}/seed={run.seed}", run.record.config_hash
        there = found.get(name, {})
        if run.status != "done" or (there.get("config_hash"), there.get("patch")) == (config_hash, SIZE):
            continue
        found[name] = {"config_hash": config_hash, "git": revision, **measure_run(run)}
        shown = ", ".join(f"{key} {np.mean(found[name][key]):.2f}" for key in ("running", "batch", "reestimated"))
        print(f"{name}: {shown} dB", flush=True)
        write_json(file, dict(sorted(found.items())))


def main() -> int:
    """Measure the table that was named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of a table of denoising")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    args = parser.parse_args()
    try:
        measure_table(find(args.name), args.runs, FOLDER / "evaluations" / f"{args.name}_statistics.json")
    except UserError as error:
        print(f"batch_statistics: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
