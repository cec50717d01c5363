"""``indexnet robustness``: metrics against the width of the trimap's unknown region or damage to images."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from indexnet.core.console import print_table, tell, warn
from indexnet.core.errors import UserError
from indexnet.inference.methods import add_method_arguments, default_folder, describe, prepare, source_of, split_words

if TYPE_CHECKING:
    from rich.table import Table

    from indexnet.inference.comparison_table import Comparison, Line
    from indexnet.inference.robustness import Condition, Series
    from indexnet.report.figures.line_plots import Panel
    from indexnet.tasks import Task


HELP = "evaluate checkpoints on damaged images, or matting on trimaps made again, wider and wider"
SCHEMA = 1

RANGES = "11-20,21-30,31-40,41-50"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_method_arguments(parser, "for tables and plots (default: robustness/... beside CKPT)")
    parser.add_argument(
        "--ranges",
        metavar="LOW-HIGH,...",
        help="matting: sizes of the eroding ellipses, in pixels, that trimaps draw from, range by range "
        f"(without --degrade {RANGES}; with it trimaps stay)",
    )
    parser.add_argument(
        "--degrade",
        action="append",
        default=[],
        metavar="KIND[=LEVEL,...]",
        help="damage images, not trimaps: noise (sigma), jpeg (quality), blur (sigma, pixels), gamma; as "
        "noise,jpeg,blur,gamma at usual levels, or noise=5,10,25; can be given repeatedly",
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
    from indexnet.data.degradations import parse_degradations
    from indexnet.inference.comparison_table import compare_scores, finite_or_none, interval_note, table_rows
    from indexnet.inference.robustness import make_series, measure
    from indexnet.report.figures.line_plots import draw_png, draw_svg
    from indexnet.run import record as records
    from indexnet.run.loader import describe_splits

    degradations = parse_degradations(args.degrade)
    ranges = parse_ranges(args.ranges or RANGES) if args.ranges is not None or not degradations else []
    series = make_series(ranges, degradations)
    conditions = list(dict.fromkeys(condition for each in series for condition in each.conditions))
    setup = prepare(paths, words, args)
    _check_task(setup.methods[0].task, paths[0], bool(ranges), bool(degradations))
    asked = {"degrade": "+".join(f"{kind}={_joined(levels)}" for kind, levels in degradations.items())}
    asked |= {"ranges": args.ranges or ""}
    own = setup.overrides | ({key: value for key, value in asked.items() if value} if degradations else {})
    folder = args.output or default_folder(paths, setup.name, own, "robustness")
    result_file = folder / "robustness.json"
    if os.path.exists(result_file) and not args.overwrite:
        raise UserError(f"{result_file} exists; give --overwrite to replace it, or another --output.")
    prepare_folder(folder)
    started, begun = records.now(), time.monotonic()
    measured = measure(setup, conditions, args.seed)
    took = time.monotonic() - begun
    if not set.intersection(*(scores.names for _, _, scores in measured)):
        what = "on every range" if not degradations else "under every condition"
        raise UserError(f"no image could be measured by every method {what}; the reasons stand above.")
    comparison = compare_scores([(method.caption, source_of(method), scores) for method, _, scores in measured])
    remark = interval_note(comparison.images, comparison.groups)
    title = f"{'Robustness' if degradations else 'Trimap robustness'} on {setup.name}"
    count = len(conditions)
    lines = [comparison.lines[at : at + count] for at in range(0, len(comparison.lines), count)]
    curves = [dict(zip(conditions, own, strict=True)) for own in lines]
    failed = [
        {"method": method.caption, **condition.columns, "name": who, "error": reason}
        for method, condition, scores in measured
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
                        for line in own
                    ]
                    for key in comparison.keys
                },
            }
            for method, own in zip(setup.methods, lines, strict=True)
        ],
        "ranges": [list(widths) for widths in ranges],
        "degradations": {kind: list(levels) for kind, levels in degradations.items()},
        "conditions": [condition.columns for condition in conditions],
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
    rows = [{"method": method.caption, **under.columns, **row} for method, under, s in measured for row in s.rows]
    records.write_rows(folder / "per_image.csv", rows)
    records.write_rows(folder / "robustness.csv", table_rows(comparison, [each.columns for each in conditions]))
    footer = " ".join(filter(None, [_TRIMAPS if ranges else "", _DAMAGE if degradations else "", f"{remark}."]))
    panels = _panels(comparison, curves, series)
    columns = 2 if len(series) == 1 else min(len(series), _COLUMNS)
    atomic_write(folder / "robustness.svg", draw_svg(panels, title, footer, columns))
    atomic_write(folder / "robustness.png", draw_png(panels, title, footer, columns))
    write_json(result_file, result)
    bounded = any(line.cells[key].bounds for line in comparison.lines for key in comparison.keys)
    remark += ", in robustness.csv and the plot" if bounded else ""
    for each in series:
        heading = f"{title}: {each.title}" if each.title else title
        print_table(_table(comparison, curves, each, heading), remark if each is series[-1] else "")
    count = sum(setup.counts.values())
    tell(f"{comparison.images} of {count} images in {took:.1f} s on {setup.device}; written to {folder}")
    if failed:
        listed = ", ".join(sorted({entry["name"] for entry in failed}))
        warn(f"not measured, for the reasons above, and left out everywhere: {listed}")
    return 3 if failed else 0


_COLUMNS = 4  # frames in a row of the plot: a row is a metric, a column a kind of damage
_TRIMAPS = "Trimaps: alpha = 0 and alpha = 1 eroded by ellipses of random size, in pixels, from each range."
_DAMAGE = "Images are damaged, trimaps and targets are not."


def _check_task(task: Task, path: Path, trimaps: bool, damage: bool) -> None:
    """Refuse tasks that have no trimaps, or whose target is the image itself.

    Raises:
        UserError: the task is such a one.
    """
    own = task.target in (None, "clean")
    if trimaps and task.guide != "trimap":
        instead = "" if own else "; --degrade noise,jpeg,blur,gamma damages its images"
        what = "robustness" if not damage else "--ranges"
        raise UserError(f"{what} is for matting; {path} is for {task.name}{instead}.")
    if damage and own:
        noise = " Other noise is `indexnet evaluate CKPT task.sigma=VALUE`." if task.target else ""
        raise UserError(f"--degrade damages images, but those of {task.name} are what its results are to be.{noise}")


def _joined(levels: Sequence[float]) -> str:
    return "-".join(f"{level:g}" for level in levels)


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


def _panels(
    comparison: Comparison, curves: Sequence[Mapping[Condition, Line]], series: Sequence[Series]
) -> list[Panel]:
    from indexnet.inference.comparison_table import heading
    from indexnet.report.figures import line_plots

    found = []
    for key in comparison.keys:
        info = comparison.infos[key]
        better = f"{heading(key, info)}, {'higher' if info.higher_is_better else 'lower'} is better"
        for each in series:
            lines = [[curve[condition] for condition in each.conditions] for curve in curves]
            drawn = [
                line_plots.Line(own[0].caption, [(line.cells[key].value, line.cells[key].bounds) for line in own])
                for own in lines
            ]
            title = f"{each.title}: {better}" if each.title else better
            found.append(line_plots.Panel(title, list(each.places), drawn, each.axis))
    return found


def _table(comparison: Comparison, curves: Sequence[Mapping[Condition, Line]], series: Series, title: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from indexnet.inference.comparison_table import arrow, format_number, heading

    table = Table(title=escape(title), title_justify="left", caption=escape(series.axis) if series.title else None)
    table.add_column("metric")
    table.add_column("method", overflow="fold")
    for name in series.places:
        table.add_column(name if series.title else f"{name} px", justify="right", overflow="fold")
    for key in comparison.keys:
        info = comparison.infos[key]
        for place, curve in enumerate(curves):
            lines = [curve[condition] for condition in series.conditions]
            word = f"{heading(key, info)} {arrow(info)}" if place == 0 else ""
            values = (format_number(line.cells[key].value) for line in lines)
            table.add_row(escape(word), escape(lines[0].caption), *values)
        table.add_section()
    return table
