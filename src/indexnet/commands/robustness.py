"""``indexnet robustness``: matting metrics against the width of the trimap's unknown region, as tables and a plot."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from indexnet.core.console import print_table, tell, warn
from indexnet.core.errors import UserError
from indexnet.inference.methods import add_method_arguments, default_folder, describe, prepare, source_of, split_words

if TYPE_CHECKING:
    from rich.table import Table

    from indexnet.inference.comparison_table import Comparison, Line
    from indexnet.report.line_plots import Panel


HELP = "evaluate matting checkpoints on trimaps made again, wider and wider, from the true alpha"
SCHEMA = 1

RANGES = "11-20,21-30,31-40,41-50"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_method_arguments(parser, "for tables and plots (default: robustness/... beside CKPT)")
    parser.add_argument(
        "--ranges",
        default=RANGES,
        metavar="LOW-HIGH,...",
        help=f"sizes of the eroding ellipses, in pixels, that trimaps draw from, range by range ({RANGES})",
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
    from indexnet.core.files import atomic_write, prepare_folder, write_json
    from indexnet.core.machine import device_name
    from indexnet.inference.comparison_table import compare_scores, finite_or_none, interval_note, table_rows
    from indexnet.inference.robustness import measure, range_name
    from indexnet.report.line_plots import draw_png, draw_svg
    from indexnet.run import record as records
    from indexnet.run.loader import describe_splits

    ranges = parse_ranges(args.ranges)
    names = [range_name(widths) for widths in ranges]
    setup = prepare(paths, words, args)
    if setup.methods[0].task.guide != "trimap":
        raise UserError(f"robustness is for matting; {paths[0]} is for {setup.methods[0].task.name}.")
    folder = args.output or default_folder(paths, setup.name, setup.overrides, "robustness")
    result_file = folder / "robustness.json"
    if os.path.exists(result_file) and not args.overwrite:
        raise UserError(f"{result_file} exists; give --overwrite to replace it, or another --output.")
    prepare_folder(folder)
    started, begun = records.now(), time.monotonic()
    measured = measure(setup, ranges, args.seed)
    took = time.monotonic() - begun
    if not set.intersection(*(scores.names for _, _, scores in measured)):
        raise UserError("no image could be measured by every method on every range; the reasons stand above.")
    comparison = compare_scores([(method.caption, source_of(method), scores) for method, _, scores in measured])
    remark = interval_note(comparison.images, comparison.groups)
    title = f"Trimap robustness on {setup.name}"
    curves = [comparison.lines[at : at + len(ranges)] for at in range(0, len(comparison.lines), len(ranges))]
    failed = [
        {"method": method.caption, "range": name, "name": who, "error": reason}
        for method, name, scores in measured
        for who, reason in scores.failed
    ]
    result = {
        "schema": SCHEMA,
        "methods": [
            {
                **describe(method),
                "results": {
                    key: [
                        {"value": finite_or_none(line.cells[key].value), "interval": line.cells[key].bounds}
                        for line in curve
                    ]
                    for key in comparison.keys
                },
            }
            for method, curve in zip(setup.methods, curves, strict=True)
        ],
        "ranges": [list(widths) for widths in ranges],
        "seed": args.seed,
        "data": {"name": setup.name, "options": setup.options, "split": "test", **describe_splits(setup.tests)},
        "limit": args.limit,
        "test_count": comparison.images,
        "groups": comparison.groups,
        "note": remark,
        "failed": failed,
        "device": device_name(setup.device),
        "versions": records.versions(),
        "git": records.git_revision(),
        "started": started,
        "wall_time_s": round(took, 2),
    }
    rows = [{"method": method.caption, "range": name, **row} for method, name, s in measured for row in s.rows]
    records.write_rows(folder / "per_image.csv", rows)
    records.write_rows(folder / "robustness.csv", table_rows(comparison, names))
    footer = (
        f"Trimaps: alpha = 0 and alpha = 1 eroded by ellipses of random size, in pixels, from each range. {remark}."
    )
    panels = _panels(comparison, curves, names)
    atomic_write(folder / "robustness.svg", draw_svg(panels, title, footer))
    atomic_write(folder / "robustness.png", draw_png(panels, title, footer))
    write_json(result_file, result)
    bounded = any(line.cells[key].bounds for line in comparison.lines for key in comparison.keys)
    remark += ", in robustness.csv and the plot" if bounded else ""
    print_table(_table(comparison, curves, names, title), remark)
    count = sum(setup.counts.values())
    tell(f"{comparison.images} of {count} images in {took:.1f} s on {setup.device}; written to {folder}")
    if failed:
        listed = ", ".join(sorted({entry["name"] for entry in failed}))
        warn(f"not measured, for the reasons above, and left out everywhere: {listed}")
    return 3 if failed else 0


def parse_ranges(text: str) -> list[tuple[int, int]]:
    """Read ``LOW-HIGH,LOW-HIGH,...``; a single number is a range of one width.

    Raises:
        UserError: it is not that, a range is empty, or one stands there twice.
    """
    ranges: list[tuple[int, int]] = []
    for word in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", word)
        low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= low <= high:
            raise UserError(
                f"--ranges {text} is not understood at {word!r}; give widths in pixels from 1 up, as {RANGES}."
            )
        ranges.append((low, high))
    if len(set(ranges)) < len(ranges):
        raise UserError(f"--ranges {text} has a range twice; give each once.")
    return ranges


def _panels(comparison: Comparison, curves: Sequence[Sequence[Line]], names: Sequence[str]) -> list[Panel]:
    from indexnet.inference.comparison_table import heading
    from indexnet.report import line_plots

    return [
        line_plots.Panel(
            f"{heading(key, info)}, {'higher' if info.higher_is_better else 'lower'} is better",
            list(names),
            [
                line_plots.Line(curve[0].caption, [(line.cells[key].value, line.cells[key].bounds) for line in curve])
                for curve in curves
            ],
            "size of the eroding ellipses, pixels",
        )
        for key, info in ((key, comparison.infos[key]) for key in comparison.keys)
    ]


def _table(comparison: Comparison, curves: Sequence[Sequence[Line]], names: Sequence[str], title: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from indexnet.inference.comparison_table import arrow, format_number, heading

    table = Table(title=escape(title), title_justify="left")
    table.add_column("metric")
    table.add_column("method", overflow="fold")
    for name in names:
        table.add_column(f"{name} px", justify="right", overflow="fold")
    for key in comparison.keys:
        info = comparison.infos[key]
        for place, curve in enumerate(curves):
            word = f"{heading(key, info)} {arrow(info)}" if place == 0 else ""
            table.add_row(
                escape(word), escape(curve[0].caption), *(format_number(line.cells[key].value) for line in curve)
            )
        table.add_section()
    return table
