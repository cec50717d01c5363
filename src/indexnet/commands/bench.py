"""``indexnet bench latency``: time and peak memory of trained networks against resolution."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.console import error_console, print_table, warn
from indexnet.core.errors import UserError
from indexnet.core.files import prepare_file
from indexnet.core.paths import check_checkpoint

if TYPE_CHECKING:
    from rich.table import Table

    from indexnet.inference.latency import Measurement
    from indexnet.networks import Network


HELP = "measure time and memory of trained networks against the size of the image: indexnet bench latency CKPT"

_COLUMNS = (
    "network", "width", "height", "megapixels", "median_s", "fastest_s", "slowest_s", "memory_bytes", "problem",
)  # fmt: skip
_FLOOR = "some 20 MB are the kernels' own at any size, so that smaller figures and differences are not resolved"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("what", choices=["latency"], help="what to measure")
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CKPT", help="checkpoints of any task")
    parser.add_argument(
        "--sizes",
        default="256,512,1024",
        metavar="N,WxH,...",
        help="sides of square images, or WIDTHxHEIGHT; made multiples of what the network needs (256,512,1024)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the CPU (default: PyTorch's choice)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed passes of each size (5)")
    for kind, what in (("json", "everything"), ("csv", "the table"), ("plot", "a picture, .png or .svg,")):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write {what} to this file")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.epilog = "exit codes: 0 all measured; 2 a mistake, or nothing fits; 3 some sizes do not fit in memory"


def main(args: argparse.Namespace) -> int:
    """Measure and print; write the files that were asked for.

    Returns:
        0 everything was measured; 3 some sizes do not fit in the memory; 2 none does.

    Raises:
        UserError: a checkpoint, a size, the device or a file cannot be used.
    """
    for path in args.checkpoints:
        check_checkpoint(path)
    sizes = parse_sizes(args.sizes)
    for option, value in (("--threads", args.threads), ("--repeats", args.repeats)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value} must be at least 1.")
    for path in (args.json, args.csv, args.plot):
        if path is not None and os.path.exists(path) and not args.overwrite:
            raise UserError(f"{path} exists; give --overwrite to replace it, or another name.")
        if path is not None:
            prepare_file(path)
    if args.plot is not None and args.plot.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"--plot {args.plot} must end with .png or .svg.")
    import torch

    from indexnet.core.machine import device_name
    from indexnet.inference.latency import measure
    from indexnet.inference.loading import pick_device

    networks, multiple = load(args.checkpoints)
    device = pick_device(args.device)
    for _, network in networks:
        network.to(device)
    threads = torch.get_num_threads()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    sizes = sorted({round_up(size, multiple) for size in sizes}, key=math.prod)
    try:
        with error_console().status("measuring") as status:
            lines = measure(networks, sizes, device, args.repeats, lambda text: status.update(text))
        used = torch.get_num_threads()
        name = device_name(device).replace("(1 threads)", "(1 thread)")  # records, which are compared, keep their word
    finally:
        torch.set_num_threads(threads)
    title = f"one image, forward pass alone, {name}; median of {args.repeats}"
    floor = device.type == "cpu" and any(line.memory_bytes is not None for line in lines)
    print_table(table(lines, title), f"memory: {_FLOOR}" if floor else "")
    about = {"device": name, "type": device.type, "threads": used, "torch": torch.__version__,
             "repeats": args.repeats}  # fmt: skip
    write_files(args, lines, about, title)
    failed = [line for line in lines if line.problem]
    for line in failed:
        warn(f"{line.network} at {line.width}x{line.height}: {line.problem}")
    return 0 if not failed else 2 if len(failed) == len(lines) else 3


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
    multiple = math.lcm(*(get_task(meta["task"]["name"]).input_multiple(network) for network, meta in loaded))
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
    from indexnet.core.files import atomic_write, write_json
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
