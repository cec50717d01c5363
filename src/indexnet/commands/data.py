"""``indexnet data``: whether a data set's files are what they should be; composites and foregrounds written to disk."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.console import allow_anywhere, error_console, output_console, say, tell
from indexnet.core.errors import UserError
from indexnet.core.files import format_bytes

if TYPE_CHECKING:
    from indexnet.data import Data
    from indexnet.data.check import Found


HELP = "check the files of a data set, or prepare composites: indexnet data check|prepare NAME root=DIR"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "action",
        choices=["check", "prepare"],
        help="check: read the files of every split; prepare: write composites or estimated foregrounds to disk",
    )
    parser.add_argument("name", metavar="NAME", help="a data set, see `indexnet list data`")
    parser.add_argument(
        "options",
        nargs="*",
        default=[],
        metavar="OPTION=VALUE",
        help="options of the data set, as after `data.` in train: root=DIR; check: task=NAME for one task only; "
        "prepare: output=DIR for another folder, and one of the words test (the default), training, foregrounds",
    )
    parser.add_argument("--full", action="store_true", help="check: decode every background, not only its header")
    parser.add_argument("--jobs", type=int, metavar="N", help="prepare: so many processes (default: one a core)")
    parser.add_argument("--verify", action="store_true", help="prepare: write nothing, compare files with checksums")
    allow_anywhere(parser)


def main(args: argparse.Namespace) -> int:
    """Check, or prepare.

    Returns:
        0 all is well; 2 it is not; 3 a part was prepared. The problems are listed.

    Raises:
        UserError: an unknown data set, task or option, or an option of the other action.
    """
    if args.action == "prepare":
        if args.full:
            raise UserError("--full belongs to `indexnet data check`; prepare decodes whatever it uses.")
        return _prepare(args)
    for option, given in (("--jobs", args.jobs is not None), ("--verify", args.verify)):
        if given:
            raise UserError(f"{option} belongs to `indexnet data prepare`; check does not take it.")
    return _check(args.name, args.options, args.full)


def _check(name: str, words: Sequence[str], full: bool) -> int:
    """Check every split for every task and print what was found; return 0, or 2 where files are not as they should."""
    from indexnet.data import get_data
    from indexnet.data.check import check, check_folder

    info = get_data(name).info
    options = read_options(name, words)
    tasks = (options.pop("task"),) if "task" in options else info.tasks
    sets = _create(name, tasks, options)
    started = time.monotonic()
    if info.layout:
        found = check(sets, full)
    elif folder := options.get("backgrounds"):
        found = [check_folder(Path(folder))]
    else:
        tell(f"{info.name} makes its samples itself: nothing to check.")
        return 0
    problems = list(dict.fromkeys(problem for split in found for problem in split.problems))
    _print_table(f"{info.name}: {info.title}", found)
    _print_problems(problems)
    took = time.monotonic() - started
    facts = [fact for split in found for fact in split.facts]
    remarks = list(dict.fromkeys(remark for split in found for remark in split.remarks))
    if problems:
        _print_problems([*facts, *remarks])
        tell(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}, found in {took:.1f} s.")
        if info.layout and not any(split.count for split in found):
            tell(f"expected files: {info.layout}")
        return 2
    verdict = f"{len(remarks)} to look at" if remarks else "all files are as they should be"
    tell(f"{'no file is wrong, but there is ' if remarks else ''}{verdict}, checked in {took:.1f} s.")
    _print_problems([*facts, *remarks])
    return 0


def read_options(name: str, words: Sequence[str], action: str = "check") -> dict[str, Any]:
    """Return a data set's options: those of its file in ``conf/data``, then ``OPTION=VALUE``.

    Args:
        name: registry name.
        words: ``OPTION=VALUE`` or ``data.OPTION=VALUE``; values are read as YAML.
        action: the word after ``indexnet data``, for the message.

    Raises:
        UserError: a word of another form.
    """
    from indexnet.core.paths import config_file
    from indexnet.core.readers import plain_value
    from indexnet.run.config import compose, to_plain

    options: dict[str, Any] = {}
    if config_file("data", name) is not None:
        options.update(to_plain(compose([f"data={name}"]))["data"])
        options.pop("name")
    for word in words:
        key, equals, text = word.partition("=")
        key = key.removeprefix("data.")
        if not equals or not key or key == "name":
            raise UserError(f"{word!r} is not understood; data {action} takes OPTION=VALUE after the data set's name.")
        value = plain_value(text)
        options[key] = os.path.expanduser(value) if isinstance(value, str) else value
    return options


def _create(name: str, tasks: Sequence[str], options: dict[str, Any]) -> list[Data]:
    """Build the data set for each task that takes these options.

    Raises:
        UserError: none does.
    """
    from indexnet.data import create_data

    sets, refusals = [], []
    for task in tasks:
        try:
            sets.append(create_data(name, task=task, **options))
        except UserError as error:
            refusals.append(error)
    if not sets:
        raise refusals[0]
    return sets


def _print_table(title: str, found: Sequence[Found]) -> None:
    """Print a line per split."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", title_style="bold")
    for heading in ("task", "split", "samples", "checked", "sizes", "decoded", "problems"):
        table.add_column(heading, justify="right" if heading in ("samples", "checked", "problems") else "left")
    for entry in found:
        table.add_row(
            entry.task,
            entry.split,
            str(entry.count),
            str(entry.items),
            _format_sizes(entry.sizes),
            format_bytes(entry.nbytes) if entry.nbytes else "",
            str(len(entry.problems)) if entry.problems else "none",
        )
    output_console().print(table)


def _format_sizes(sizes: set[tuple[int, int]]) -> str:
    """Write image sizes as people do, width first."""
    by_area = [f"{w}x{h}" for h, w in sorted(sizes, key=lambda size: (size[0] * size[1], size))]
    if len(by_area) <= 2:
        return ", ".join(by_area)
    return f"{by_area[0]} to {by_area[-1]} ({len(by_area)} sizes)"


_SHOWN = 20  # problems that are listed; the others are counted


def _print_problems(problems: Sequence[str]) -> None:
    """Print the first twenty sentences and count the others."""
    for problem in problems[:_SHOWN]:
        tell(problem)
    if len(problems) > _SHOWN:
        tell(f"... and {len(problems) - _SHOWN} more.")


_WHAT = {"test": "test", "training": "train", "foregrounds": "foregrounds"}


def _prepare(args: argparse.Namespace) -> int:
    """Write, or with ``--verify`` compare, what the command names.

    Returns:
        0 all is there; 2 nothing is, or files differ from their checksums; 3 a part is. The problems are listed.

    Raises:
        UserError: a mistake in the command, missing files, too few backgrounds, a folder of other files, a full disk.
    """
    from indexnet.data.prepare import find_batch, prepare, verify

    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs must be a positive whole number; got {args.jobs}.")
    what = [word for word in args.options if word in _WHAT] or ["test"]
    if len(what) > 1:
        raise UserError(f"one of {', '.join(_WHAT)} is prepared at a time; got {' '.join(what)}.")
    options = read_options(args.name, [word for word in args.options if word not in _WHAT], "prepare")
    output = options.pop("output", None)
    if output is not None and not isinstance(output, str):
        raise UserError(f"output must be a folder; got {output!r}.")
    batch = find_batch(args.name, _WHAT[what[0]], options, None if output is None else Path(output))
    title, started = f"{args.name}, {what[0]}", time.monotonic()
    if args.verify:
        total, problems = verify(batch, title)
        _print_problems(problems)
        took = time.monotonic() - started
        if problems:
            tell(f"{title}: {len(problems)} of {total} files are not as written, found in {took:.1f} s.")
            return 2
        tell(f"{title}: all {total} files in {batch.folder} have their checksums ({took:.1f} s).")
        return 0
    done = prepare(batch, title, args.jobs, lambda text: say(error_console(), text))
    if done.before == done.total:
        tell(f"{title}: nothing to do, all {done.total} files are in {batch.folder}.")
        return 0
    tell(
        f"{title}: {batch.own} in {batch.folder}; {done.written} files ({format_bytes(done.nbytes)}) written in "
        f"{time.monotonic() - started:.1f} s" + (f", {done.before} were there before." if done.before else ".")
    )
    if not done.problems:
        return 0
    _print_problems(done.problems)
    missing = done.total - done.before - done.written
    tell(f"{missing} of {done.total} files are missing; mend this, then the same command goes on.")
    return 3 if done.written or done.before else 2
