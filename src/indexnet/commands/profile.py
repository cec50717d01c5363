"""``indexnet profile``: where the time of a training step goes, as a trace and a page."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet import __version__
from indexnet.core.console import print_table, tell, warn
from indexnet.core.errors import UserError
from indexnet.core.files import atomic_write, prepare_folder

if TYPE_CHECKING:
    from rich.table import Table

    from indexnet.benchmarks.profile import Profile


HELP = "trace some training steps: waiting for data, host, kernels, arithmetic and bandwidth, as one page"

_TRACE, _PAGE = "trace.json", "profile.html"
_SAID = {
    "data": "the loop waits for the loader",
    "forward": "network and loss",
    "backward": "gradients",
    "optimizer": "the optimizer's own, and clipping",
    "rest": "loggers, callbacks, schedule, Lightning's loop",
}
_PARTS_RULE = "Shares of {steps} steps, {waited}without tracing; a step is their median."
_WAITED = "each part waiting for the one before, but for the loader; "
_HOST = {
    False: "Python and dispatch, the loader aside: the share of the traced steps in which no operation was computed",
    True: "the share of the traced steps in which the GPU had nothing to do",
}
_CEILINGS_RULE = (
    "Arithmetic is estimated: multiply-adds of convolutions and linear layers, two operations each, three times for "
    "forward and backward. Bandwidth is what operations would move if each read its inputs from memory and wrote its "
    "results there; caches save some of it. At most: a product of large matrices in {dtype}, and c = a + 2 b over long "
    "vectors, measured just now."
)
_OPERATIONS_RULE = (
    "{what} by the time that is their own, of {steps} traced steps; tracing makes steps somewhat longer than they are."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.usage = "indexnet profile [-h] [--steps N] [--output DIR] [--overwrite] [override ...]"
    parser.add_argument(
        "overrides", metavar="override", nargs="*",
        help="as for `indexnet train`; of a table one row, experiments=NAME rows=ROW",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="steps to time, then to trace (%(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("profile"), metavar="DIR",
        help=f"folder of {_TRACE} (for ui.perfetto.dev) and {_PAGE} (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a profile that is in it")
    parser.epilog = "nothing is left in runs/; exit codes: 0 done; 2 a mistake in what was given, nothing done"


def main(args: argparse.Namespace) -> int:
    """Measure, write the folder and print a summary.

    Returns:
        0.

    Raises:
        UserError: a number, the folder or the configuration cannot be used.
    """
    if args.steps < 1:
        raise UserError(f"--steps {args.steps} must be at least 1.")
    for name in (_TRACE, _PAGE):
        if os.path.lexists(there := args.output / name) and not args.overwrite:
            raise UserError(f"{there} exists; give --overwrite to replace it, or another --output.")
    prepare_folder(args.output)
    content = _frozen(args.overrides)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the tracer says on stderr when it starts and stops
    from indexnet.benchmarks.profile import profile_training
    from indexnet.report.rendering import render

    made = not args.output.exists()
    args.output.mkdir(parents=True, exist_ok=True)
    try:
        found = profile_training(content, args.steps, args.output / _TRACE, warn)
    except BaseException:
        if made and not any(args.output.iterdir()):
            args.output.rmdir()
        raise
    network, operator = content["network"]["name"], content["resampling"]["name"]
    title = f"A training step: {content['task']['name']}, {network}, {operator}"
    text = render(
        _PAGE,
        title=title,
        command=shlex.join(["indexnet", "profile", *args.overrides]),
        facts=_facts(found),
        parts=_parts(found),
        parts_rule=_PARTS_RULE.format(steps=found.steps, waited=_WAITED if found.on_gpu else ""),
        ceilings=_ceilings(found),
        ceilings_rule=_CEILINGS_RULE.format(dtype=found.dtype),
        operations=_operations(found),
        operations_rule=_OPERATIONS_RULE.format(what="Kernels" if found.on_gpu else "Operations", steps=found.steps),
        generator="indexnet profile",
        version=__version__,
    )
    atomic_write(args.output / _PAGE, text)
    tell(title)
    for name, value in _facts(found):
        tell(f"  {name}: {value}")
    print_table(_table(["part", "share", "time", ""], [[n, s, t, what] for n, s, t, _, what in _parts(found)]))
    print_table(_table(["", "a step", "achieved", "at most", "share"], _ceilings(found)))
    print_table(_table(["operation", "share", "time", "calls a step"], _operations(found)))
    tell(f"wrote {args.output / _TRACE} and {args.output / _PAGE}")
    return 0


def _frozen(words: Sequence[str]) -> dict[str, Any]:
    """Compose and freeze what ``indexnet train`` would run, of a table the one row that is named.

    Raises:
        UserError: an override does not fit, or there are several rows.
    """
    from indexnet.run.config import compose, freeze
    from indexnet.run.experiments.experiment import key_of

    if not any(key_of(word) == "experiments" for word in words):
        return freeze(compose(words))
    from indexnet.sweep.frozen import compose_sweep

    configs = compose_sweep(words)[0]
    rows = list(dict.fromkeys(str(each["experiment"]["row"]) for each in configs))
    if len(rows) > 1:
        raise UserError(f"a profile is of one run, and these are {len(rows)} rows; give rows=NAME: {', '.join(rows)}.")
    return configs[0]


def _facts(found: Profile) -> list[tuple[str, str]]:
    channels, height, width = found.size
    return [
        ("device", found.device),
        ("a step", f"{_seconds(found.step_s)}, {found.images / found.step_s:.3g} images/s"),
        ("batch", f"{found.images} x {channels} x {height} x {width}"),
        ("parameters", f"{found.parameters:,}"),
    ]


def _parts(found: Profile) -> list[tuple[str, str, str, int, str]]:
    """Return name, share, time, length of the bar in pixels, and what it is, of each part of a step."""
    rows = [(part, share, _seconds(share * found.step_s), _SAID[part]) for part, share in found.shares.items()]
    rows.append(("GPU idle" if found.on_gpu else "host", found.host, "", _HOST[found.on_gpu]))
    return [(name, f"{share:.1%}", time, round(200 * share), text) for name, share, time, text in rows]


def _ceilings(found: Profile) -> list[list[str]]:
    rows = []
    for name, unit, work, most in (
        ("arithmetic", "FLOP", found.flops, found.peak_flops),
        ("bandwidth", "B", found.traffic, found.peak_bandwidth),
    ):
        cells = [f"{_scaled(most)}{unit}/s", ""]
        if work is None:
            rows.append([name, "not known of a compiled network", "", *cells])
            continue
        speed = work / found.step_s
        rows.append([name, f"{_scaled(work)}{unit}", f"{_scaled(speed)}{unit}/s", cells[0], f"{speed / most:.1%}"])
    return rows


def _operations(found: Profile) -> list[list[str]]:
    return [[each.name, f"{each.share:.1%}", _seconds(each.seconds), f"{each.calls:g}"] for each in found.operations]


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def _scaled(value: float) -> str:
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i, head in enumerate(heads):
        text = i == 0 or not head
        shown.add_column(head, justify="left" if text else "right", overflow="fold", no_wrap=not text)
    for row in rows:
        shown.add_row(*map(Text, row))
    return shown
