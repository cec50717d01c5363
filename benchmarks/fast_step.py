"""A matting training step in the ways that ``trainer=fast`` and ``trainer.checkpoint_activations`` offer, as ratios.

The network with many-to-one index networks, nonlinear and with context; loss, gradients and the optimizer's step on one
batch of random crops. All forms start with the same weights; that their first losses agree is checked before. They run
in turns in one process; time is the median over the turns, memory what a step takes at its peak above what is held
before it. How long compiling took is said, too.

    python benchmarks/fast_step.py                               # matting_unet, 2 crops of 320
    python benchmarks/fast_step.py --network deep_matting --batch 1 --forms plain recomputed
    python benchmarks/fast_step.py --device cuda --batch 16
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from indexnet.core.machine import keep_freed_memory, memory_of
from indexnet.core.turns import medians
from indexnet.inference.operator_costs import clock_of
from indexnet.networks.recompute import checkpoint_activations
from indexnet.tasks import create_optimizer, create_task

FORMS = {
    "plain": set(),
    "fused optimizer": {"fused"},
    "channels-last": {"last"},
    "bf16, channels-last": {"bf16", "last"},
    "bf16, channels-last, fused": {"bf16", "last", "fused"},
    "trainer=fast": {"bf16", "last", "fused", "compile"},
    "recomputed": {"recompute"},
    "trainer=fast, recomputed": {"bf16", "last", "fused", "compile", "recompute"},
}


def form(options: set[str], network: str, batch: dict[str, torch.Tensor]) -> Callable[..., float]:
    """Build a step with some options; it returns the loss."""
    torch.manual_seed(0)
    device = batch["image"].device
    task = create_task("matting", {"name": network, "resampling": {"name": "indexnet", "family": "m2o"}}).to(device)
    if "last" in options:
        task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if "recompute" in options:
        checkpoint_activations(task.network)
    if "compile" in options:
        task.network.compile()
    spec = {"name": "adam", "lr": 1e-4, **({"fused": True} if "fused" in options else {})}
    optimizer = create_optimizer(spec, [{"params": list(task.parameters())}])
    half = torch.autocast(device.type, torch.bfloat16) if "bf16" in options else nullcontext()

    def step(*_: Any) -> float:
        optimizer.zero_grad()
        with half:
            loss = task.losses(batch)["loss"]
        loss.backward()
        optimizer.step()
        return loss.detach()  # type: ignore[return-value]

    return step


def main() -> None:
    """Print one line for each form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="matting_unet")
    parser.add_argument("--batch", type=int, default=2, help="crops (default 2)")
    parser.add_argument("--crop", type=int, default=320, help="side of a crop in pixels (default 320)")
    parser.add_argument("--repeats", type=int, default=7, help="turns that count (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--forms", nargs="*", default=list(FORMS)[:-1], choices=FORMS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device, generator = torch.device(args.device), torch.Generator().manual_seed(0)
    shape = (args.batch, 3, args.crop, args.crop)
    batch = {key: torch.rand(shape, generator=generator).to(device) for key in ("image", "fg", "bg")}
    batch["alpha"] = torch.rand(shape, generator=generator)[:, :1].to(device)
    batch["trimap"] = torch.full_like(batch["alpha"], 128 / 255)
    steps, taken, first = {}, {}, None
    for name in args.forms:
        steps[name] = form(FORMS[name], args.network, batch)
        began = time.perf_counter()
        loss = float(steps[name]())
        seconds = time.perf_counter() - began
        first = loss if first is None else first
        assert abs(loss - first) < 0.02 * first, (name, loss, first)
        taken[name] = memory_of(steps[name], device)
        if "compile" in FORMS[name]:
            print(f"{name}: the first step, which compiles, took {seconds:.0f} s", flush=True)
    times = medians(steps, args.repeats, clock_of(device))
    print(f"{args.network}, {args.batch} crops of {args.crop}, {args.device}, {args.threads} thread(s), "
          f"torch {torch.__version__}")  # fmt: skip
    base = args.forms[0]
    for name in args.forms:
        memory, whole = taken[name], taken[base]
        room = "" if not memory or not whole else f"{memory / whole:8.2f} of the memory ({memory / 2**20:.0f} MiB)"
        print(f"{name:28} {1e3 * times[name]:8.0f} ms {times[name] / times[base]:8.2f} of the time {room}", flush=True)


if __name__ == "__main__":
    main()
