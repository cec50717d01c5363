"""A network of segmentation-models-pytorch on CamVid, trained further with operators in the place of its upsampling.

Trains ``smp.Unet("resnet18")`` from random weights, keeps them, then trains on from there: as it is, and with each
operator of the list, the new weights with ten times the learning rate. Prints the loss of the last steps, mean IoU on a
part of the test images, and the time of a step.

    python benchmarks/finetune_replaced.py --root CAMVID --operators dysample sapa_b
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from indexnet.data import Data, create_data
from indexnet.metrics import create_metric
from indexnet.resampling import replace


def main() -> None:
    """Train, test, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of CamVid")
    parser.add_argument("--operators", nargs="*", default=["dysample", "sapa_b"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--weights", type=Path, help="where the first weights are kept, and found again")
    args = parser.parse_args()
    import segmentation_models_pytorch as smp

    data = create_data("camvid", root=args.root, size=128, scale=(0.35, 0.5))
    weights = args.weights
    if weights is not None and weights.exists():
        start = torch.load(weights, weights_only=True)
    else:
        torch.manual_seed(0)
        model = smp.Unet("resnet18", encoder_weights=None, classes=11)
        print("from random weights", train(model, data, args.steps, [{"params": model.parameters(), "lr": 1e-3}]))
        start = model.state_dict()
        if weights is not None:
            torch.save(start, weights)
    for operator in dict.fromkeys(["none", *args.operators]):
        torch.manual_seed(1)
        model = smp.Unet("resnet18", encoder_weights=None, classes=11)
        model.load_state_dict(start)
        groups = [{"params": list(model.parameters()), "lr": 1e-4}]
        if operator != "none":
            replaced = replace(model, operator, torch.rand(1, 3, 64, 64))
            groups.append({"params": list(replaced.parameters()), "lr": 1e-3})
            before = [each.clone() for each in replaced.parameters()]
        print(operator, train(model, data, args.steps, groups), score(model, data), flush=True)
        if operator != "none":
            moved = sum(not torch.equal(a, b) for a, b in zip(before, replaced.parameters(), strict=True))
            print(f"  {len(replaced.stages)} sites, {moved} of {len(before)} new parameters moved")


def train(model: nn.Module, data: Data, steps: int, groups: list[dict[str, object]]) -> str:
    """Train, and return what the last fifty steps were like."""
    torch.manual_seed(2)
    loader = DataLoader(data.train(), batch_size=4, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(groups)
    model.train()
    losses, times = [], []
    while len(losses) < steps:
        for batch in loader:
            began = time.perf_counter()
            loss = F.cross_entropy(model(batch["image"]), batch["label"], ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            times.append(time.perf_counter() - began)
            if len(losses) == steps:
                break
    first, last = statistics.mean(losses[:10]), statistics.mean(losses[-50:])
    return f"loss {last:.3f} (first steps {first:.3f}), {statistics.median(times):.2f} s a step"


@torch.no_grad()
def score(model: nn.Module, data: Data, count: int = 40) -> str:
    """Return the mean IoU over every so many-th test image."""
    model.eval()
    metric = create_metric("miou", classes=11)
    images = data.test()
    for sample in DataLoader(Subset(images, range(0, len(images), len(images) // count))):
        image = F.interpolate(sample["image"], size=(160, 224), mode="bilinear", align_corners=False)
        logits = F.interpolate(model(image), size=sample["label"].shape[-2:], mode="bilinear", align_corners=False)
        metric.update(logits, sample["label"])
    return f"mean IoU {metric.compute():.1f}"


if __name__ == "__main__":
    main()
