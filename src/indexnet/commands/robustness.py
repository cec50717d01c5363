"""``indexnet robustness``: matting metrics against the width of the trimap's unknown region, as tables and a plot."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from indexnet.core.errors import UserError
from indexnet.inference.methods import add_method_arguments, default_folder, describe, prepare, source_of, split_words

if TYPE_CHECKING:
    from indexnet.inference.comparison_table import Bounds
    from indexnet.inference.evaluation import Scores
    from indexnet.inference.methods import Setup
    from indexnet.inference.robustness import Range
    from indexnet.metrics import MetricInfo
    from indexnet.report.line_plots import Panel


HELP = "evaluate matting checkpoints on trimaps made again, wider and wider, from the true alpha"
SCHEMA = 1

_RANGES = "11-20,21-30,31-40,41-50"

Point = tuple[float, "Bounds | None"]
Results = list[dict[str, list[Point]]]
"""By method and metric a (value, interval) per range."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_method_arguments(parser, "for tables and plots (default: robustness/... beside CKPT)")
    parser.add_argument(
        "--ranges",
        default=_RANGES,
        metavar="LOW-HIGH,...",
        help=f"sizes of the eroding ellipses, in pixels, that trimaps draw from, range by range ({_RANGES})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")


def main(args: argparse.Namespace) -> int:
    """Measure, print a table, and write ``robustness.json``, ``.csv``, ``.svg``, ``.png`` and ``per_image.csv``.

    Returns:
        0 all images were measured; 3 some could not be, each named on stderr and left out everywhere.

    Raises:
        UserError: a mistake in what was given, or no image could be measured.
    """
    if args.seed < 0:
        raise UserError(f"--seed {args.seed} must be 0 or more.")
    paths, words = split_words(args.words)
    from indexnet.core.files import atomic_write, write_json
    from indexnet.core.statistics import interval
    from indexnet.inference.comparison_table import drawn_over
    from indexnet.inference.evaluation import bootstrap, group_count
    from indexnet.inference.robustness import measure, parse_ranges, range_name, rows_of
    from indexnet.report.line_plots import draw_png, draw_svg
    from indexnet.run import record as records
    from indexnet.run.splits import describe_splits

    ranges = parse_ranges(args.ranges)
    setup = prepare(paths, words, args)
    if setup.methods[0].task.name != "matting":
        raise UserError(f"robustness is for matting; {paths[0]} is for {setup.methods[0].task.name}.")
    folder = args.output or default_folder(paths, setup.name, setup.overrides, "robustness")
    result_file = folder / "robustness.json"
    if result_file.exists() and not args.overwrite:
        raise UserError(f"{result_file} exists; give --overwrite to replace it, or another --output.")
    started, begun = records.now(), time.monotonic()
    found = measure(setup, ranges, args.seed)
    took = time.monotonic() - begun
    levels = [scores for method in found for scores in method.values()]
    common = set.intersection(*(scores.names for scores in levels))
    if not common:
        raise UserError("no image could be measured by every method on every range; the reasons stand above.")
    first = levels[0]
    keys = [key for key in first.results if all(key in scores.over(common) for scores in levels)]
    infos = {key: first.metrics[key].info for key in keys}
    values: Results = []
    for method in found:
        over = [scores.over(common) for scores in method.values()]
        bounds = {key: [interval(bootstrap(scores, key, common)) for scores in method.values()] for key in keys}
        values.append({key: list(zip((o[key] for o in over), bounds[key], strict=True)) for key in keys})
    names = [range_name(widths) for widths in ranges]
    groups = group_count(first, common)
    failed = _failed(setup, found)
    panels = _panels(setup, infos, names, values)
    bounded = any(bounds is not None for mine in values for points in mine.values() for _, bounds in points)
    remark = drawn_over(len(common), groups)
    title = f"Trimap robustness on {setup.name}"
    result = {
        "schema": SCHEMA,
        "methods": [
            {**describe(method), "results": {key: _plain(points) for key, points in mine.items()}}
            for method, mine in zip(setup.methods, values, strict=True)
        ],
        "ranges": [list(widths) for widths in ranges],
        "seed": args.seed,
        "data": {"name": setup.name, "options": setup.options, "split": "test", **describe_splits(setup.tests)},
        "limit": args.limit,
        "test_count": len(common),
        "groups": groups,
        "note": remark,
        "failed": failed,
        "device": records.device_name(setup.device),
        "versions": records.versions(),
        "git": records.git_revision(),
        "started": started,
        "wall_time_s": round(took, 2),
    }
    records.write_rows(folder / "per_image.csv", rows_of(setup, found))
    atomic_write(folder / "robustness.csv", _csv(setup, names, values, len(common), groups))
    footer = (
        f"Trimaps: alpha = 0 and alpha = 1 eroded by ellipses of random size, in pixels, from each range. {remark}."
    )
    atomic_write(folder / "robustness.svg", draw_svg(panels, title, footer))
    atomic_write(folder / "robustness.png", draw_png(panels, title, footer))
    write_json(result_file, result)
    _print(setup, infos, names, values, title, remark + (", in robustness.csv and the plot" if bounded else ""))
    count = sum(setup.counts.values())
    print(f"{len(common)} of {count} images in {took:.1f} s on {setup.device}; written to {folder}")
    if failed:
        listed = ", ".join(sorted({entry["name"] for entry in failed}))
        print(f"not measured, for the reasons above, and left out everywhere: {listed}", file=sys.stderr)
    return 3 if failed else 0


def _failed(setup: Setup, found: Sequence[Mapping[Range, Scores]]) -> list[dict[str, str]]:
    from indexnet.inference.robustness import range_name

    return [
        {"method": method.caption, "range": range_name(widths), "name": name, "error": reason}
        for method, levels in zip(setup.methods, found, strict=True)
        for widths, scores in levels.items()
        for name, reason in scores.failed
    ]


def _plain(points: Sequence[Point]) -> list[dict[str, Any]]:
    from indexnet.inference.comparison_table import plain

    return [{"value": plain(value), "interval": bounds} for value, bounds in points]


def _csv(setup: Setup, names: Sequence[str], values: Results, images: int, groups: int) -> str:
    """Write a line per method and range; a metric's columns are its value and its interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(values[0])
    columns = [f"{key}{ending}" for key in keys for ending in ("", "_low", "_high")]
    writer.writerow(["method", "source", "range", "images", "groups", *columns])
    for method, mine in zip(setup.methods, values, strict=True):
        for place, name in enumerate(names):
            cells: list[Any] = [method.caption, source_of(method), name, images, groups]
            for key in keys:
                value, bounds = mine[key][place]
                cells += [value, *(bounds or ("", ""))]
            writer.writerow(cells)
    return text.getvalue()


def _panels(setup: Setup, infos: Mapping[str, MetricInfo], names: Sequence[str], values: Results) -> list[Panel]:
    from indexnet.inference.comparison_table import heading
    from indexnet.report.line_plots import Line, Panel

    return [
        Panel(
            f"{heading(key, info)}, {'higher' if info.higher_is_better else 'lower'} is better",
            list(names),
            [Line(method.caption, mine[key]) for method, mine in zip(setup.methods, values, strict=True)],
            "size of the eroding ellipses, pixels",
        )
        for key, info in infos.items()
    ]


def _print(
    setup: Setup, infos: Mapping[str, MetricInfo], names: Sequence[str], values: Results, title: str, remark: str
) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from indexnet.inference.comparison_table import arrow, heading, number

    table = Table(title=escape(title), title_justify="left")
    table.add_column("metric")
    table.add_column("method", overflow="fold")
    for name in names:
        table.add_column(f"{name} px", justify="right", overflow="fold")
    for key, info in infos.items():
        for place, (method, mine) in enumerate(zip(setup.methods, values, strict=True)):
            cells = [number(value) for value, _ in mine[key]]
            word = f"{heading(key, info)} {arrow(info)}" if place == 0 else ""
            table.add_row(escape(word), escape(method.caption), *cells)
        table.add_section()
    console = Console(file=sys.stdout)
    console.print(table)
    console.print(remark, style="dim", highlight=False, markup=False)
