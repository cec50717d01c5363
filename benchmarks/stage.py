"""Time and peak memory of index stages, forward and backward, as ratios to the papers' literal form.

Each row of the ablation (family x linearity x context) at the five resolutions at which the matting network has them.
Four forms run in one process with the same weights and inputs, in turns (every other turn in the opposite order), so
that what else the machine does meets all alike: the literal four columns; the shipped stage, channels-first and
channels-last; and the stage's own convolutions alone. That the first three agree is checked before. Time is the median
over the turns. Memory is what the allocator hands out at most above what was there before, gradients of the parameters
included, at the first resolution.

    python benchmarks/stage.py                     # the figures, on one thread
    python benchmarks/stage.py --check             # exit 1 where a target is missed
    python benchmarks/stage.py --threads 2 --repeats 15 --device cuda
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from indexnet.core.machine import keep_freed_memory
from indexnet.core.turns import medians
from indexnet.inference.operator_costs import clock_of
from indexnet.resampling import ResamplingStage, create_resampling, fuse_columns

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from reference import LiteralStage

SITES = ((32, 1), (24, 2), (32, 4), (64, 8), (160, 16))
"""Channels and stride of the maps that the matting network on MobileNetV2 halves."""

KINDS = {"L": (False, False), "NL": (True, False), "NL+C": (True, True)}
TARGETS = {"hin": 0.9, "o2o_modelwise": 0.4, "o2o_shared": 0.4, "o2o_unshared": 0.6, "m2o": 0.9}
"""Largest time against the literal form that is acceptable on a CPU; peak memory must be lower in all."""


def literal_step(stage: nn.Module, x: Tensor, cotangents: list[Tensor]) -> None:
    """Forward and backward of the literal form."""
    torch.autograd.backward(list(stage(x)), cotangents)


def shipped_step(stage: ResamplingStage, x: Tensor, cotangents: list[Tensor]) -> None:
    """Forward and backward of the shipped form; the decoder between down and up is the identity in both."""
    features, skip, guide, size = stage.down(x)
    torch.autograd.backward([features, skip, stage.up(features, guide, size)], cotangents)


def peak_bytes(step: Callable[[], object], device: str) -> int:
    """Most memory allocated at once during ``step`` above what was allocated before it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = [e for e in json.loads(trace.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    events.sort(key=lambda e: e["ts"])
    totals = [e["args"]["Total Allocated"] for e in events]
    return int(max(totals) - (totals[0] - events[0]["args"]["Bytes"]))


class Site:
    """One stage in all forms, with its input and the gradients that come back."""

    def __init__(self, family: str, kind: str, shape: tuple[int, int, int, int], device: str) -> None:
        torch.manual_seed(0)
        n, c, h, w = shape
        nonlinear, context = KINDS[kind]
        self.literal = LiteralStage(c, family, nonlinear, context).to(device)
        resampling = create_resampling("indexnet", [c], family=family, nonlinear=nonlinear, context=context)
        self.resampling, self.stage = resampling.to(device), resampling.stages[0]
        self.stage.index_network.load_state_dict(fuse_columns(self.literal.state_dict()))
        tensors = [torch.randn(size, device=device) for size in (shape, (n, c, h // 2, w // 2), shape, shape)]
        self.first, self.last = (
            [tensor.contiguous(memory_format=form) for tensor in tensors]
            for form in (torch.contiguous_format, torch.channels_last)
        )

    def forms(self) -> dict[str, Callable[[], Tensor]]:
        """Return what runs forward and backward and hands out the gradient of the input, by name."""

        def run(step: Callable[[Tensor, list[Tensor]], None], tensors: list[Tensor]) -> Callable[[], Tensor]:
            def once() -> Tensor:
                x, *upstream = tensors
                x = x.detach().requires_grad_()
                for module in (self.literal, self.resampling):
                    module.zero_grad(set_to_none=True)
                step(x, upstream)
                assert x.grad is not None
                return x.grad

            return once

        def convolutions(x: Tensor, upstream: list[Tensor]) -> None:
            logits = self.stage.index_network(x, x.shape[1])
            logits.backward(logits.detach())

        shipped = partial(shipped_step, self.stage)
        return {
            "literal": run(partial(literal_step, self.literal), self.first),
            "shipped": run(shipped, self.first),
            "channels-last": run(shipped, self.last),
            "convolutions": run(convolutions, self.first),
        }


def measure(
    family: str, kind: str, batch: int, crop: int, repeats: int, device: str
) -> tuple[dict[str, float], dict[str, int]]:
    """Return median seconds over all sites, and peak bytes at the first, of each form."""
    sites = [
        Site(family, kind, (batch, channels, crop // stride, crop // stride), device).forms()
        for channels, stride in SITES
    ]
    for site in sites:
        expected = site["literal"]()
        for name in ("shipped", "channels-last"):
            # in norm: a hidden value at a kink of ReLU6 falls on either side by rounding
            assert (site[name]() - expected).norm() < 1e-3 * expected.norm(), (family, kind, name)
    steps = {name: lambda _, name=name: [site[name]() for site in sites] for name in sites[0]}
    times = medians(steps, repeats, clock_of(torch.device(device)))
    return times, {name: peak_bytes(step, device) for name, step in sites[0].items()}


def main() -> int:
    """Print one line for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2, help="crops (default 2)")
    parser.add_argument(
        "--crop", type=int, default=320, help="side of a crop in pixels, a multiple of 32 (default 320)"
    )
    parser.add_argument("--repeats", type=int, default=7, help="turns that count (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    kept = keep_freed_memory()
    missed, ratios = 0, []
    print(f"five stages of {args.batch} crops of {args.crop}, {args.device}, {args.threads} thread(s), "
          f"torch {torch.__version__}, freed memory {'' if kept else 'not '}kept", flush=True)  # fmt: skip
    print(f"{'':20} {'literal':>10} {'shipped':>8} {'ch.-last':>8} {'/ own convolutions':>20}   memory: {'shipped':>8} "
          f"{'ch.-last':>8}")  # fmt: skip
    for family, target in TARGETS.items():
        for kind in KINDS:
            times, memory = measure(family, kind, args.batch, args.crop, args.repeats, args.device)
            ratio, last, own = (
                times[name] / times[other]
                for name, other in (("shipped", "literal"), ("channels-last", "literal"), ("shipped", "convolutions"))
            )
            room, last_room = (memory[name] / memory["literal"] for name in ("shipped", "channels-last"))
            ratios.append(ratio)
            bad = ratio > target or room >= 1
            missed += bad
            if args.json:
                print(json.dumps({"network": f"{family} {kind}", "seconds": times, "bytes": memory}), flush=True)
                continue
            print(f"{family + ' ' + kind:20} {1e3 * times['literal']:7.1f} ms {ratio:8.3f} {last:8.3f} {own:20.2f}   "
                  f"        {room:8.2f} {last_room:8.2f}{'  missed' if bad else ''}", flush=True)  # fmt: skip
    print(f"geometric mean of shipped / literal: {statistics.geometric_mean(ratios):.3f}")
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
