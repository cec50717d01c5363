"""Time and peak memory of one index stage, forward and backward, as a ratio to the papers' literal form.

Both forms run in one process with the same weights and input, in turns (first one, then the other, the order swapped
each time), so that what else the machine does meets both alike. Time is the median over the turns. Memory is what the
allocator hands out at most above what was there before, parameters' gradients included; both forms keep their input.

    python benchmarks/stage.py                     # the figures, on one thread
    python benchmarks/stage.py --check             # exit 1 where a target is missed
    python benchmarks/stage.py --threads 2 --repeats 15 --device cuda
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from indexnet.core.turns import medians
from indexnet.inference.operator_costs import clock_of
from indexnet.resampling import ResamplingStage, create_resampling, fuse_columns

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from reference import LiteralStage

# (family, nonlinear, context) -> largest time ratio that is acceptable on a CPU; peak memory must be lower in all.
CASES: dict[tuple[str, bool, bool], float] = {
    ("m2o", True, True): 0.9,
    ("m2o", False, False): 0.65,
    ("m2o", False, True): 0.70,  # in no printed table
    ("o2o_shared", True, True): 0.25,
    ("o2o_shared", False, False): 0.4,
    ("o2o_unshared", True, True): 0.75,
    ("hin", True, True): 1.0,
}


def literal_step(stage: nn.Module, x: Tensor, cotangents: list[Tensor]) -> None:
    """Forward and backward of the literal form."""
    torch.autograd.backward(list(stage(x)), cotangents)


def shipped_step(stage: ResamplingStage, x: Tensor, cotangents: list[Tensor]) -> None:
    """Forward and backward of the shipped form; the decoder between down and up is the identity in both."""
    features, skip, guide, size = stage.down(x)
    torch.autograd.backward([features, skip, stage.up(features, guide, size)], cotangents)


def peak_bytes(step: Callable[[], None], device: str) -> int:
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


def measure(
    family: str, nonlinear: bool, context: bool, shape: tuple[int, int, int, int], repeats: int, device: str
) -> dict[str, float]:
    """Median seconds and peak bytes of both forms."""
    torch.manual_seed(0)
    n, c, h, w = shape
    literal = LiteralStage(c, family, nonlinear, context)
    stage = create_resampling("indexnet", [c], family=family, nonlinear=nonlinear, context=context).stages[0]
    assert isinstance(stage, ResamplingStage)
    stage.index_network.load_state_dict(fuse_columns(literal.state_dict()))
    literal, stage = literal.to(device), stage.to(device)
    x = torch.randn(shape, device=device, requires_grad=True)
    cotangents = [torch.randn(size, device=device) for size in ((n, c, h // 2, w // 2), shape, shape)]

    def fresh(run: Callable, module: nn.Module) -> Callable[[object], None]:
        def step(_: object = None) -> None:
            x.grad = None
            module.zero_grad(set_to_none=True)
            run(module, x, cotangents)

        return step

    steps = {"literal": fresh(literal_step, literal), "shipped": fresh(shipped_step, stage)}
    result = {f"{name}_s": median for name, median in medians(steps, repeats, clock_of(torch.device(device))).items()}
    for name, step in steps.items():
        x.grad = None
        literal.zero_grad(set_to_none=True)
        stage.zero_grad(set_to_none=True)
        result[f"{name}_bytes"] = peak_bytes(step, device)
    result["time_ratio"] = result["shipped_s"] / result["literal_s"]
    result["memory_ratio"] = result["shipped_bytes"] / result["literal_bytes"]
    return result


def main() -> int:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, default=(4, 32, 160, 160), metavar=("N", "C", "H", "W"))
    parser.add_argument("--repeats", type=int, default=7, help="turns that count (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    missed = 0
    print(
        f"stage at {tuple(args.shape)}, {args.device}, {args.threads} thread(s), torch {torch.__version__}", flush=True
    )
    print(f"{'network':24} {'literal':>10} {'shipped':>10} {'ratio':>6} {'target':>7}   peak memory, MiB and ratio")
    for (family, nonlinear, context), target in CASES.items():
        r = measure(family, nonlinear, context, tuple(args.shape), args.repeats, args.device)
        name = f"{family} {'NL' if nonlinear else 'L'}{'+C' if context else ''}"
        bad = r["time_ratio"] > target or r["memory_ratio"] >= 1
        missed += bad
        if args.json:
            print(json.dumps({"network": name, "target": target, **r}), flush=True)
            continue
        print(
            f"{name:24} {1e3 * r['literal_s']:7.1f} ms {1e3 * r['shipped_s']:7.1f} ms {r['time_ratio']:6.3f} "
            f"{'<= ' + format(target, '.2f'):>7}   {r['literal_bytes'] / 2**20:6.1f} {r['shipped_bytes'] / 2**20:6.1f} "
            f"{r['memory_ratio']:5.2f}{'  missed' if bad else ''}",
            flush=True,
        )
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
