"""``indexnet bench``: time and memory of trained networks against resolution, and of operators on one map."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.console import error_console, print_table, tracked, warn
from indexnet.core.errors import UserError
from indexnet.core.escape import markdown_table
from indexnet.core.files import atomic_write, prepare_file, write_json
from indexnet.core.machine import cores, keep_freed_memory
from indexnet.core.paths import check_checkpoint

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from indexnet.inference.latency import Measurement
    from indexnet.inference.operator_costs import OperatorCost
    from indexnet.networks import Network


HELP = "measure time and memory: of trained networks, of operators, and of the data that training is fed with"

_COLUMNS = (
    "network", "width", "height", "megapixels", "median_s", "fastest_s", "slowest_s", "memory_bytes", "problem",
)  # fmt: skip
_OPERATOR_HEADS = (
    "operator", "forward\nms", "backward\nms", "ratio", "saved\nMB", "ratio", "peak\nMB", "ratio", "params",
)  # fmt: skip
_FLOOR = "some 20 MB are the kernels' own at any size, so that smaller figures and differences are not resolved"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parts = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    text = "time and peak memory of trained networks against the size of the image"
    latency = parts.add_parser("latency", help=text, description=text)
    latency.add_argument("checkpoints", type=Path, nargs="+", metavar="CKPT", help="checkpoints of any task")
    latency.add_argument(
        "--sizes",
        default="256,512,1024",
        metavar="N,WxH,...",
        help="sides of square images, or WIDTHxHEIGHT; made multiples of what the network needs (256,512,1024)",
    )
    text = "time and memory of operators on one map, forward and backward, against bilinear"
    operators = parts.add_parser("operators", help=text, description=text)
    operators.add_argument(
        "operators",
        nargs="*",
        metavar="OPERATOR",
        help="NAME or NAME:OPTION=VALUE,..., as indexnet:family=hin (all, and nearest with every pooling)",
    )
    operators.add_argument(
        "--size", default="4,64,128,128", metavar="N,C,H,W", help="of the encoder map (4,64,128,128)"
    )
    files = {"json": "everything", "csv": "the table", "plot": "a picture, .png or .svg,"}
    for part, passes, kinds in ((latency, "passes of each size", files), (operators, "passes", {"json": "everything"})):
        part.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        part.add_argument("--threads", type=int, metavar="N", help="threads of the CPU (default: PyTorch's choice)")
        part.add_argument("--repeats", type=int, default=5, metavar="N", help=f"timed {passes} (5)")
        for kind, what in kinds.items():
            part.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write {what} to this file")
        part.add_argument("--overwrite", action="store_true", help="replace files that exist")
        part.epilog = "exit codes: 0 all measured; 2 a mistake, or nothing fits; 3 some do not fit"
    operators.add_argument("--output", type=Path, metavar="FILE.md", help="write the table as Markdown to this file")
    text = "training samples of every kind of data set, made by one core, against one photograph decoded"
    data = parts.add_parser("data", help=text, description=text, epilog="exit codes: 0 all measured; 2 a mistake")
    data.add_argument("--feed", type=float, metavar="SAMPLES", help="a second: say how many cores make so many")
    data.add_argument("--turns", type=int, default=7, metavar="N", help="of each form (7)")
    data.add_argument("--quick", action="store_true", help="take smaller sizes")
    data.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    data.add_argument("--overwrite", action="store_true", help="replace files that exist")


def main(args: argparse.Namespace) -> int:
    """Measure and print; write the files that were asked for.

    Returns:
        0 everything was measured; 3 some sizes or operators do not fit; 2 none does.

    Raises:
        UserError: a checkpoint, an operator, a size, the device or a file cannot be used.
    """
    if args.what == "data":
        return bench_data(args)
    for option, value in (("--threads", args.threads), ("--repeats", args.repeats)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value} must be at least 1.")
    if args.threads is not None and args.threads > cores():  # far too many end the process
        raise UserError(f"--threads {args.threads} are more than this machine's {cores()} cores; give fewer.")
    return bench_latency(args) if args.what == "latency" else bench_operators(args)


def bench_data(args: argparse.Namespace) -> int:
    """Measure training samples, on one thread."""
    if args.turns < 1:
        raise UserError(f"--turns {args.turns} must be at least 1.")
    if args.feed is not None and not 0 < args.feed < math.inf:
        raise UserError(f"--feed {args.feed} must be a number of samples a second, above 0.")
    _prepare(args, args.json)
    from indexnet.benchmarks.base import BenchOptions
    from indexnet.benchmarks.data import figures, rate_table, rates

    keep_freed_memory()  # as runs do
    with _threads(1), error_console().status("measuring") as status:
        found = figures(BenchOptions(1, args.turns, args.quick), lambda text: status.update(text))
    lines = rates(found, args.feed)
    print_table(rate_table(lines, f"training samples, median of {args.turns}"))
    for figure in found[len(lines) :]:
        print(f"{figure.case}: {figure.ratio:.2f} of the time of {figure.reference}")
    if args.json is not None:
        rows = [asdict(figure) | {"ratio": figure.ratio} for figure in found]
        write_json(args.json, {"figures": rows, "rates": [line._asdict() for line in lines]})
    return 0


def bench_latency(args: argparse.Namespace) -> int:
    """Measure trained networks."""
    for path in args.checkpoints:
        check_checkpoint(path)
    sizes = parse_sizes(args.sizes)
    if args.plot is not None and args.plot.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"--plot {args.plot} must end with .png or .svg.")
    _prepare(args, args.json, args.csv, args.plot)
    from indexnet.inference.latency import measure
    from indexnet.inference.loading import pick_device

    networks, multiple = load(args.checkpoints)
    device = pick_device(args.device)
    for _, network in networks:
        network.to(device)
    sizes = sorted({round_up(size, multiple) for size in sizes}, key=math.prod)
    with _threads(args.threads), error_console().status("measuring") as status:
        lines = measure(networks, sizes, device, args.repeats, lambda text: status.update(text))
        about = _about(device, args.repeats)
    title = f"one image, forward pass alone, {about['device']}; median of {args.repeats}"
    floor = device.type == "cpu" and any(line.memory_bytes is not None for line in lines)
    print_table(table(lines, title), f"memory: {_FLOOR}" if floor else "")
    write_files(args, lines, about, title)
    failed = [line for line in lines if line.problem]
    for line in failed:
        warn(f"{line.network} at {line.width}x{line.height}: {line.problem}")
    return 0 if not failed else 2 if len(failed) == len(lines) else 3


def bench_operators(args: argparse.Namespace) -> int:
    """Measure operators."""
    words = args.size.split(",")
    if len(words) != 4 or not all(re.fullmatch(r"\s*[1-9]\d{0,5}\s*", word) for word in words):
        raise UserError(f"--size {args.size} must be batch, channels, height and width, as 4,64,128,128.")
    count, channels, height, width = map(int, words)
    if min(height, width) < 3:  # of one pixel alone, nothing can be normalised
        raise UserError(f"--size {args.size}: height and width must be at least 3, so that two are left when halved.")
    if args.output is not None and args.output.suffix.lower() != ".md":
        raise UserError(f"--output {args.output} must end with .md; --json FILE writes all figures.")
    _prepare(args, args.json, args.output)
    from indexnet.inference.loading import pick_device
    from indexnet.inference.operator_costs import measure_operators, usual_operators

    device = pick_device(args.device)
    with _threads(args.threads):
        operators = args.operators or usual_operators()
        lines = measure_operators(operators, (count, channels, height, width), device, args.repeats, tracked)
        about = _about(device, args.repeats) | {"size": [count, channels, height, width]}
    title = f"a map ({', '.join(map(str, about['size']))}), forward and backward, {about['device']}, "
    title += f"torch {about['torch']}; median of {args.repeats}"
    rows = operator_rows(lines)
    print_table(operator_table(rows, title), f"peak: {_FLOOR}" if device.type == "cpu" and rows else "")
    if args.json is not None:
        write_json(args.json, about | {"measurements": [asdict(line) for line in lines]})
    if args.output is not None:
        cells = [[f"`{row[0]}`", *row[1:]] for row in rows]
        heads = [head.replace("\n", " ") for head in _OPERATOR_HEADS]
        note = f"\n\nPeak: {_FLOOR}." if device.type == "cpu" else ""
        text = f"{title[0].upper()}{title[1:]}.\n\n{markdown_table(heads, cells)}{note}\n"
        atomic_write(args.output, text)
    failed = [line for line in lines if line.problem]
    for line in failed:
        warn(f"{line.operator}: {line.problem}")
    return 0 if not failed else 2 if len(failed) == len(lines) else 3


def _prepare(args: argparse.Namespace, *paths: Path | None) -> None:
    given = [os.path.abspath(path) for path in paths if path is not None]
    if len(set(given)) < len(given):
        raise UserError("two of the files to be written are one; give each a name of its own.")
    for path in paths:
        if path is not None and os.path.exists(path) and not args.overwrite:
            raise UserError(f"{path} exists; give --overwrite to replace it, or another name.")
        if path is not None:
            prepare_file(path)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let PyTorch use so many threads for a while."""
    import torch

    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def _about(device: torch.device, repeats: int) -> dict[str, Any]:
    """Return what was measured with."""
    import torch

    from indexnet.core.machine import device_name

    threads, name = torch.get_num_threads(), device_name(device)
    return {"device": name, "type": device.type, "threads": threads, "torch": torch.__version__, "repeats": repeats}


def operator_rows(lines: Sequence[OperatorCost]) -> list[list[str]]:
    """Write the cells of what was measured; ratios are to the first line."""
    from indexnet.report.numbers import count

    reference, rows = lines[0], []

    def ratio(value: float | None, other: float | None) -> str:
        return "" if value is None or not other else f"{value / other:.2f}"

    for line in lines:
        if line.problem:
            continue
        times = (f"{1e3 * (seconds or 0):.1f}" for seconds in (line.forward_s, line.backward_s))
        row = [line.operator, *times, ratio(line.step_s, reference.step_s)]
        for own, other in ((line.saved_bytes, reference.saved_bytes), (line.peak_bytes, reference.peak_bytes)):
            row += ["" if own is None else f"{own / 1e6:.1f}", ratio(own, other)]
        rows.append([*row, count(line.parameters)])
    return rows


def operator_table(rows: Sequence[Sequence[str]], title: str) -> Table:
    """Lay the cells out as a table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))  # 80 characters wide
    shown.title, shown.title_justify, shown.title_style = title, "left", "bold"
    shown.add_column(_OPERATOR_HEADS[0], overflow="fold")
    for heading in _OPERATOR_HEADS[1:]:
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, *cells in rows:
        shown.add_row(Text(name), *cells)
    return shown


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """Read ``--sizes``: (width, height) of each.

    Raises:
        UserError: one is not a size, or too large to be meant.
    """
    from indexnet.inference.latency import LIMIT

    found = []
    for word in text.split(","):
        match = re.fullmatch(r"\s*([1-9]\d*)(?:x([1-9]\d*))?\s*", word)
        if match is None:
            raise UserError(f"--sizes: {word.strip()!r} must be a side in pixels, as 512, or a size, as 1920x1080.")
        width, height = int(match[1]), int(match[2] or match[1])
        if width * height > LIMIT * 10**6:
            raise UserError(f"--sizes: {width}x{height} has more than {LIMIT} megapixels.")
        found.append((width, height))
    return found


def round_up(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Round a size up to multiples."""
    return math.ceil(size[0] / multiple) * multiple, math.ceil(size[1] / multiple) * multiple


def load(paths: Sequence[Path]) -> tuple[list[tuple[str, Network]], int]:
    """Return the networks of checkpoints with names that tell them apart, and what sides must be multiples of.

    Raises:
        UserError: a file cannot be used, or is given twice.
    """
    from indexnet.inference.loading import unique_captions
    from indexnet.networks.checkpoint import load_network
    from indexnet.tasks import get_task

    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("a checkpoint is given twice; give each once.")
    loaded = [load_network(path) for path in paths]
    tasks = [(network, meta["task"]) for network, meta in loaded]
    multiple = math.lcm(*(get_task(task["name"]).input_multiple(network, task) for network, task in tasks))
    names = unique_captions(paths, [meta for _, meta in loaded])
    return [(name, network.eval()) for name, (network, _) in zip(names, loaded, strict=True)], multiple


def table(lines: Sequence[Measurement], title: str) -> Table:
    """Lay the measurements out as a table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    shown.add_column("network", overflow="fold", min_width=8)
    for heading in ("size", "ms", "fastest to\nslowest", "ms per\nmegapixel", "peak\nmemory, MB"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        name, size = Text(line.network), f"{line.width}x{line.height}"
        if line.median_s is None or line.fastest_s is None or line.slowest_s is None:
            shown.add_row(name, size, Text("does not fit", style="yellow"), "", "", "")
            continue
        shown.add_row(
            name,
            size,
            f"{1e3 * line.median_s:.1f}",
            f"{1e3 * line.fastest_s:.1f} to {1e3 * line.slowest_s:.1f}",
            f"{1e3 * line.median_s / line.megapixels:.0f}",
            "" if line.memory_bytes is None else f"{line.memory_bytes / 1e6:.0f}",
        )
    return shown


def write_files(args: argparse.Namespace, lines: Sequence[Measurement], about: dict[str, Any], title: str) -> None:
    """Write the files that were asked for; the names of figures say their units."""
    from indexnet.run.record import write_rows

    rows = [asdict(line) | {"megapixels": line.megapixels} for line in lines]
    if args.json is not None:
        write_json(args.json, about | {"measurements": rows})
    if args.csv is not None:
        write_rows(args.csv, [{key: row[key] for key in _COLUMNS} for row in rows])
    if args.plot is not None:
        from indexnet.report.line_plots import draw_png, draw_svg

        panels = _panels(lines)
        if not panels:
            warn(f"{args.plot} is not written: no size was measured on all networks.")
            return
        draw = draw_png if args.plot.suffix.lower() == ".png" else draw_svg
        footer = "Time with the fastest and the slowest pass; memory beyond the network and the image."
        footer += f" Memory: {_FLOOR}." if about["type"] == "cpu" else ""
        atomic_write(args.plot, draw(panels, title, footer))


def _panels(lines: Sequence[Measurement]) -> list[Any]:
    """Return time and memory over the sizes that all networks could run."""
    from indexnet.report.line_plots import Line, Panel

    unfit = {(line.width, line.height) for line in lines if line.median_s is None}
    fit = [line for line in lines if (line.width, line.height) not in unfit]
    if not fit:
        return []
    names = dict.fromkeys(line.network for line in fit)
    sizes = dict.fromkeys((line.width, line.height) for line in fit)
    square = all(width == height for width, height in sizes)
    axis = "side of the image, pixels" if square else "side, or width x height, of the image, pixels"
    places = [str(width) if width == height else f"{width}x{height}" for width, height in sizes]

    def curves(point: Callable[[Measurement], Any]) -> list[Line]:
        return [Line(name, [point(line) for line in fit if line.network == name]) for name in names]

    def times(line: Measurement) -> tuple[float, tuple[float, float]]:
        return 1e3 * (line.median_s or 0), (1e3 * (line.fastest_s or 0), 1e3 * (line.slowest_s or 0))

    panels = [Panel("milliseconds", places, curves(times), axis)]
    if all(line.memory_bytes is not None for line in fit):
        panels.append(
            Panel("peak memory, MB", places, curves(lambda line: ((line.memory_bytes or 0) / 1e6, None)), axis)
        )
    return panels
