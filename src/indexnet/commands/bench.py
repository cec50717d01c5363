"""``indexnet bench``: forms of a computation against each other, and trained networks against resolution."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.benchmarks import ALL, PARTS, TOLERANCE
from indexnet.core.console import error_console, note, print_table, tracked, warn
from indexnet.core.errors import UserError
from indexnet.core.escape import markdown_table
from indexnet.core.files import atomic_write, prepare_file, write_json
from indexnet.core.machine import cores, keep_freed_memory
from indexnet.core.paths import check_checkpoint

if TYPE_CHECKING:
    import torch

    from indexnet.benchmarks.base import BenchOptions, Figure
    from indexnet.inference.latency import Measurement
    from indexnet.inference.operator_costs import OperatorCost


HELP = "measure time and memory: of operators, networks, metrics and predictions against reference forms"

_COLUMNS = (
    "network", "width", "height", "megapixels", "median_s", "fastest_s", "slowest_s", "memory_bytes", "problem",
)  # fmt: skip
_FLOOR = "some 20 MB are the kernels' own at any size, so that smaller figures and differences are not resolved"
_EPILOG = (
    "Every figure is a ratio of forms that run in turns in one process, after it has been checked that they give the "
    "same. A part with a figure that is worse than the baseline's is measured once more, and the better ratio counts. "
    "A baseline of other hardware is said, and its ratios are compared all the same; figures that one of the two "
    "lacks are said. Exit codes: 0 all measured, nothing worse; 2 a mistake; 3 worse than the baseline, or some "
    "operators do not fit."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parts = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, text in {**PARTS, ALL: "all of these"}.items():
        part = parts.add_parser(name, help=text, description=text, epilog=_EPILOG)
        if name == "operators":
            part.add_argument(
                "operators",
                nargs="*",
                metavar="OPERATOR",
                help="NAME or NAME:OPTION=VALUE,..., as indexnet:family=hin (all, and nearest with every pooling)",
            )
            part.add_argument("--size", metavar="N,C,H,W", help="of the encoder map (4,64,128,128)")
            part.add_argument("--output", type=Path, metavar="FILE.md", help="write the table as Markdown to this file")
        if name == "data":
            part.add_argument("--feed", type=float, metavar="SAMPLES", help="a second: say how many cores make so many")
        part.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        part.add_argument("--threads", default="1", metavar="N,...", help="threads of the CPU, one after another (1)")
        part.add_argument("--turns", "--repeats", type=int, default=7, metavar="N", help="of each form (7)")
        part.add_argument("--quick", action="store_true", help="take smaller sizes")
        part.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
        part.add_argument("--overwrite", action="store_true", help="replace files that exist")
        part.add_argument("--check", type=Path, metavar="BASELINE", help="compare ratios with those of this file")
        part.add_argument(
            "--tolerance",
            type=float,
            default=TOLERANCE,
            metavar="SHARE",
            help=f"how much larger a ratio may be ({TOLERANCE})",
        )
        part.add_argument(
            "--write-baseline", action="store_true", help="put what is measured into --check's file instead"
        )
    text = "time and peak memory of trained networks against the size of the image"
    latency = parts.add_parser("latency", help=text, description=text)
    latency.add_argument("checkpoints", type=Path, nargs="+", metavar="CKPT", help="checkpoints of any task")
    latency.add_argument(
        "--sizes",
        default="256,512,1024",
        metavar="N,WxH,...",
        help="sides of square images, or WIDTHxHEIGHT; made multiples of what the network needs (256,512,1024)",
    )
    latency.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    latency.add_argument("--threads", type=int, metavar="N", help="threads of the CPU (default: PyTorch's choice)")
    latency.add_argument("--repeats", type=int, default=5, metavar="N", help="timed passes of each size (5)")
    for kind, what in {"json": "everything", "csv": "the table", "plot": "a picture, .png or .svg,"}.items():
        latency.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write {what} to this file")
    latency.add_argument("--overwrite", action="store_true", help="replace files that exist")
    latency.epilog = "exit codes: 0 all measured; 2 a mistake, or nothing fits; 3 some do not fit"


def main(args: argparse.Namespace) -> int:
    """Measure and print; write the files that were asked for.

    Returns:
        0 everything was measured; 3 something does not fit, or is worse than the baseline; 2 nothing fits.

    Raises:
        UserError: a checkpoint, an operator, a size, the device or a file cannot be used.
    """
    if args.what == "latency":
        _check("--threads", args.threads)
        _check("--repeats", args.repeats)
        return bench_latency(args)
    options = bench_options(args)
    keep_freed_memory()  # as runs do; predictions, of which latency is one, do not
    return bench_operators(args, options) if args.what == "operators" else bench_parts(args, options)


def _check(option: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UserError(f"{option} {value} must be at least 1.")
    if option == "--threads" and value is not None and value > cores():  # far too many end the process
        raise UserError(f"--threads {value} are more than this machine's {cores()} cores; give fewer.")


def bench_options(args: argparse.Namespace) -> list[BenchOptions]:
    """Read the arguments of all parts but ``latency``: the options of each number of threads."""
    words = args.threads.split(",")
    if not all(re.fullmatch(r"\s*\d+\s*", word) for word in words) or len({*map(int, words)}) < len(words):
        raise UserError(f"--threads {args.threads} must be numbers, each once, as 1,2.")
    for count in map(int, words):
        _check("--threads", count)
    _check("--turns", args.turns)
    feed = getattr(args, "feed", None)
    if feed is not None and not 0 < feed < math.inf:
        raise UserError(f"--feed {feed} must be a number of samples a second, above 0.")
    if not 0 <= args.tolerance < math.inf:
        raise UserError(f"--tolerance {args.tolerance} must be a share, as 0.25.")
    if args.write_baseline and args.check is None:
        raise UserError("--write-baseline needs --check FILE, the file to write.")
    if args.check is not None and getattr(args, "size", None):
        raise UserError("--size and --check do not go together: a baseline has the usual sizes; leave one out.")
    _prepare(args, args.json, getattr(args, "output", None))
    from indexnet.benchmarks.base import BenchOptions
    from indexnet.benchmarks.baseline import check_replaced, read_baseline
    from indexnet.inference.loading import pick_device

    device = pick_device(args.device)
    options = [BenchOptions(int(word), args.turns, args.quick, device, args.what == ALL) for word in words]
    if args.write_baseline:  # a mistake is said before minutes are spent
        prepare_file(args.check)
        check_replaced(args.check, options[0], parts_of(args.what, device), [each.threads for each in options])
    elif args.check is not None:
        read_baseline(args.check, options[0])
    return options


def parts_of(what: str, device: torch.device) -> list[str]:
    """Return the parts that are measured where one is named, or ``all``."""
    if what != ALL:
        return [what]
    return [name for name in PARTS if name != "kernels" or device.type == "cuda"]


def bench_parts(args: argparse.Namespace, options: Sequence[BenchOptions]) -> int:
    """Measure one part of the benchmark, or all."""
    from indexnet.benchmarks.parts import measure
    from indexnet.benchmarks.tables import figure_table

    names = parts_of(args.what, options[0].device)
    figures = measure(names, options, note, tracked)
    for each in options:
        for name in names:
            found = [figure for figure in figures if (figure.part, figure.threads) == (name, each.threads)]
            title = f"{name}, {each.threads} thread{'' if each.threads == 1 else 's'}; median of {each.turns}"
            print_table(figure_table(found, title))

    def again(parts: list[str]) -> list[Figure]:
        return measure(parts, options, note, tracked)

    if "data" not in names:
        return conclude(args, options, figures, again)
    from indexnet.benchmarks.data import rate_table, rates

    lines = rates([figure for figure in figures if figure.threads == options[0].threads], getattr(args, "feed", None))
    print_table(rate_table(lines, "training samples"))
    return conclude(args, options, figures, again, rates=[line._asdict() for line in lines])


def conclude(
    args: argparse.Namespace,
    options: Sequence[BenchOptions],
    figures: list[Figure],
    again: Callable[[list[str]], list[Figure]],
    **further: Any,
) -> int:
    """Write figures, and compare them with a baseline or make them one.

    Args:
        args: of the command.
        options: what was measured with, one for each number of threads.
        figures: what was measured.
        again: measures some parts once more.
        **further: what else belongs into the file of figures.

    Returns:
        3 where one is worse than the baseline's, else 0.
    """
    from indexnet.benchmarks import baseline

    def write() -> None:
        if args.json is not None:
            write_json(args.json, baseline.about(options) | {"figures": baseline.rows(figures)} | further)

    write()
    if args.check is None:
        return 0
    if args.write_baseline:
        write_json(args.check, baseline.merged(args.check, figures, options))
        return 0
    before = baseline.read_baseline(args.check, options[0])
    if said := baseline.remark(args.check, before, options[0].device):
        warn(said)
    found = baseline.compare(figures, before, args.tolerance)
    if not found.compared:
        raise UserError(f"{args.check} has none of these figures; write them with --write-baseline.")
    if found.worse:  # what else the machine did for a while is no reason
        keys = {key for key, _, _ in found.worse}
        parts = list(dict.fromkeys(figure.part for figure in figures if figure.key in keys))
        figures = baseline.better_of(figures, again(parts))
        write()
        found = baseline.compare(figures, before, args.tolerance)
    for what, missing in (("was not measured", found.missing), (f"is not in {args.check}", found.unknown)):
        for key in missing:
            warn(f"{key}: {what}")
    for key, then, now in found.worse:
        warn(f"worse: {key}: {now:.3g}, {now / then - 1:.0%} above the {then:.3g} of {args.check}")
    print(f"{found.compared} figures compared with {args.check}, {len(found.worse)} worse by over {args.tolerance:.0%}")
    return 3 if found.worse else 0


def bench_latency(args: argparse.Namespace) -> int:
    """Measure trained networks."""
    for path in args.checkpoints:
        check_checkpoint(path)
    from indexnet.benchmarks.trained import load, parse_sizes, round_up

    sizes = parse_sizes(args.sizes)
    if args.plot is not None and args.plot.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"--plot {args.plot} must end with .png or .svg.")
    _prepare(args, args.json, args.csv, args.plot)
    from indexnet.benchmarks.parts import threads
    from indexnet.benchmarks.tables import latency_table
    from indexnet.inference.latency import measure
    from indexnet.inference.loading import pick_device

    networks, multiple = load(args.checkpoints)
    device = pick_device(args.device)
    for _, network in networks:
        network.to(device)
    sizes = sorted({round_up(size, multiple) for size in sizes}, key=math.prod)
    with threads(args.threads), error_console().status("measuring") as status:
        lines = measure(networks, sizes, device, args.repeats, lambda text: status.update(text))
        about = _about(device, args.repeats)
    title = f"one image, forward pass alone, {about['device']}; median of {args.repeats}"
    floor = device.type == "cpu" and any(line.memory_bytes is not None for line in lines)
    print_table(latency_table(lines, title), f"memory: {_FLOOR}" if floor else "")
    write_files(args, lines, about, title)
    failed = [line for line in lines if line.problem]
    for line in failed:
        warn(f"{line.network} at {line.width}x{line.height}: {line.problem}")
    return 0 if not failed else 2 if len(failed) == len(lines) else 3


def bench_operators(args: argparse.Namespace, options: Sequence[BenchOptions]) -> int:
    """Measure operators."""
    from indexnet.benchmarks import operators
    from indexnet.benchmarks.parts import threads
    from indexnet.benchmarks.tables import OPERATOR_HEADS, operator_table
    from indexnet.inference.operator_costs import measure_operators, usual_operators

    size, failed, figures, measurements, texts = operators.map_size(args.quick, args.size), [], [], [], []
    if args.output is not None and args.output.suffix.lower() != ".md":
        raise UserError(f"--output {args.output} must end with .md; --json FILE writes all figures.")
    for each in options:
        with threads(each.threads):
            lines = measure_operators(args.operators or usual_operators(), size, each.device, each.turns, tracked)
            about = _about(each.device, each.turns)
        title = f"a map {size}, forward and backward, {about['device']}, torch {about['torch']}; median of {each.turns}"
        rows, floor = operator_rows(lines), each.device.type == "cpu"
        print_table(operator_table(rows, title), f"peak: {_FLOOR}" if floor and rows else "")
        cells = [[f"`{row[0]}`", *row[1:]] for row in rows]
        table = markdown_table([head.replace("\n", " ") for head in OPERATOR_HEADS], cells)
        texts.append(f"{title[0].upper()}{title[1:]}.\n\n{table}" + (f"\n\nPeak: {_FLOOR}." if floor else ""))
        figures += operators.as_figures(lines, each)
        measurements += [{"threads": each.threads, **asdict(line)} for line in lines]
        failed += [line for line in lines if line.problem]
    if args.output is not None:
        atomic_write(args.output, "\n\n".join(texts) + "\n")
    for line in failed:
        warn(f"{line.operator}: {line.problem}")

    def again(_: list[str]) -> list[Figure]:
        found: list[Figure] = []
        for each in options:
            with threads(each.threads):
                found += operators.figures(each, note, args.operators)
        return found

    worse = conclude(args, options, figures, again, size=size, measurements=measurements)
    return 2 if len(failed) == len(measurements) else 3 if failed else worse


def _prepare(args: argparse.Namespace, *paths: Path | None) -> None:
    given = [os.path.abspath(path) for path in paths if path is not None]
    if len(set(given)) < len(given):
        raise UserError("two of the files to be written are one; give each a name of its own.")
    for path in paths:
        if path is not None and os.path.exists(path) and not args.overwrite:
            raise UserError(f"{path} exists; give --overwrite to replace it, or another name.")
        if path is not None:
            prepare_file(path)


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


def write_files(args: argparse.Namespace, lines: Sequence[Measurement], about: dict[str, Any], title: str) -> None:
    """Write the files that were asked for; the names of figures say their units."""
    from indexnet.run.record import write_rows

    rows = [asdict(line) | {"megapixels": line.megapixels} for line in lines]
    if args.json is not None:
        write_json(args.json, about | {"measurements": rows})
    if args.csv is not None:
        write_rows(args.csv, [{key: row[key] for key in _COLUMNS} for row in rows])
    if args.plot is not None:
        from indexnet.report.figures.line_plots import draw_png, draw_svg

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
    from indexnet.report.figures.line_plots import Line, Panel

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
