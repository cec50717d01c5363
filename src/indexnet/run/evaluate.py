"""``indexnet evaluate``: a checkpoint on the test split of a data set."""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.errors import UserError
from indexnet.run.inputs import DEVICE_HELP, allow_anywhere, error_console, say

if TYPE_CHECKING:
    from indexnet.data import Dataset
    from indexnet.tasks import Task

HELP = "evaluate a checkpoint on a test set; data=NAME and data.OPTION=VALUE choose another than its own"
SCHEMA = 1

_TASK_KEYS = ("name", "task")
_UNSAFE = re.compile(r"[^\w.,=+-]+")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a .ckpt that train or convert wrote")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="data[.OPTION]=VALUE",
        help="another data set, or other options of it: data=alphamatting data.root=DIR data.trimap=Trimap2",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="for evaluation.json and per_image.csv (default: evaluations/... beside CKPT)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="evaluate the first N images only")
    parser.add_argument("--overwrite", action="store_true", help="replace an evaluation that exists")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    allow_anywhere(parser)


def main(args: argparse.Namespace) -> int:
    """Evaluate, print a table, and write ``evaluation.json`` and ``per_image.csv``.

    Without ``--output`` they go to ``evaluations/<checkpoint>/<data and its options>/`` beside the checkpoint.

    Returns:
        0 all images were evaluated; 3 some could not be, each named on stderr and left out of the means.

    Raises:
        UserError: a mistake in what was given, or no image could be evaluated.
    """
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit {args.limit} must be at least 1.")
    chosen, overrides = parse_overrides(args.overrides)
    from indexnet.run.infer import load_task, pick_device

    task, meta = load_task(args.checkpoint)
    from indexnet.data import create_data
    from indexnet.files import sha256_file, write_json
    from indexnet.run import record as records

    options = evaluation_data(meta, chosen, overrides)
    name = options.pop("name")
    data = create_data(name, **options)
    task.check_data(data)
    tests = data.tests()
    folder = args.output or default_folder(args.checkpoint, name, overrides)
    result_file = folder / "evaluation.json"
    if result_file.exists() and not args.overwrite:
        raise UserError(f"{result_file} exists; give --overwrite to replace it, or another --output.")
    device = pick_device(args.device)
    counts = {split: min(args.limit or len(data), len(data)) for split, data in tests.items()}
    count = sum(counts.values())
    started, begun = records.now(), time.monotonic()
    rows, failed, metrics = evaluate(task.to(device), tests, counts)
    took = time.monotonic() - begun
    if not rows:
        raise UserError(f"none of the {count} images of {name} could be evaluated; the reasons stand above.")
    result = {
        "schema": SCHEMA,
        "checkpoint": str(args.checkpoint),
        "checkpoint_sha256": sha256_file(args.checkpoint),
        "task": meta["task"],
        "network": meta["network"],
        "data": {
            "name": name,
            "options": options,
            "split": "test",
            **records.describe_splits(tests),
        },
        "test_count": len(rows),
        "limit": args.limit,
        "failed": [{"name": who, "error": why} for who, why in failed],
        "metrics": {key: value if math.isfinite(value) else None for key, value in metrics.items()},
        "device": records.device_name(device),
        "versions": records.versions(),
        "git": records.git_revision(),
        "started": started,
        "wall_time_s": round(took, 2),
    }
    records.write_rows(folder / "per_image.csv", rows)
    write_json(result_file, result)
    _print_table(f"{args.checkpoint.name} on {name}, test", rows, metrics)
    print(f"{len(rows)} of {count} images in {took:.1f} s on {device}; written to {folder}")
    if failed:
        names = ", ".join(who for who, _ in failed)
        print(f"not evaluated, for the reasons above, and left out of the means: {names}", file=sys.stderr)
    return 3 if failed else 0


def parse_overrides(words: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """Read ``data=NAME`` and ``data.OPTION=VALUE``.

    Returns:
        The name or None, and the options with values read as YAML, as Hydra does for plain values.

    Raises:
        UserError: another word.
    """
    import yaml

    name: str | None = None
    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not (key == "data" or (key.startswith("data.") and len(key) > 5)):
            raise UserError(
                f"{word!r} is not understood; evaluate takes data=NAME and data.OPTION=VALUE beside its --options."
            )
        try:
            value = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            value = text
        if key == "data":
            name = text
        elif key.removeprefix("data.") in _TASK_KEYS:
            raise UserError(f"{key} follows from the checkpoint; choose the data set with data=NAME.")
        else:
            expand = isinstance(value, str) and value.startswith("~")
            options[key.removeprefix("data.")] = str(Path(value).expanduser()) if expand else value
    return name, options


def evaluation_data(meta: Mapping[str, Any], chosen: str | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``name`` and options for :func:`indexnet.data.create_data`.

    The checkpoint's own data options are the base; another data set starts from its file in ``conf/data``.

    Args:
        meta: a checkpoint's ``"indexnet"`` entry.
        chosen: the name given with ``data=``, or None.
        overrides: options given with ``data.OPTION=``.

    Raises:
        UserError: no data set is known, its name is unknown, or an option that it needs is missing.
    """
    import inspect

    from indexnet._names import option_names
    from indexnet.data import get_data, list_data

    config, task = meta["config"], meta["task"]["name"]
    own = dict(config.get("data") or {})
    name = chosen or own.get("name")
    if name is None:
        known = ", ".join(info.name for info in list_data() if task in info.tasks)
        raise UserError(f"the checkpoint names no data set; give data=NAME, one of {known}, and its options.")
    cls = get_data(str(name))
    options = own if name == own.get("name") else {**_file_defaults(str(name), config), "name": name}
    options.update(overrides)
    options["task"] = task
    size = (config.get("training") or {}).get("size")
    if size is not None and "size" in option_names(cls):
        options.setdefault("size", size)
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.default is parameter.empty and options.get(parameter.name) is None:
            raise UserError(f"data={name} needs data.{parameter.name}=VALUE.")
    return options


def _file_defaults(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from indexnet.run.config import conf_dir

    file = conf_dir() / "data" / f"{name}.yaml"
    if not file.is_file():
        return {}
    tree = OmegaConf.create({"paths": dict(config.get("paths") or {"data": "data"}), "data": OmegaConf.load(file)})
    resolved = OmegaConf.to_container(tree, resolve=True)
    assert isinstance(resolved, dict)
    return dict(resolved["data"])


def default_folder(checkpoint: Path, name: str, overrides: Mapping[str, Any]) -> Path:
    """Return the folder for an evaluation, named after what was asked; a ``root`` says where, not what."""
    words = [f"{key}={value}" for key, value in sorted(overrides.items()) if key != "root"]
    return checkpoint.parent / "evaluations" / checkpoint.stem / _UNSAFE.sub("_", ",".join([name, *words]))


def evaluate(
    task: Task, tests: Mapping[str, Dataset], counts: Mapping[str, int]
) -> tuple[list[dict[str, Any]], list[tuple[str, str]], dict[str, float]]:
    """Evaluate the first samples of every test split under a progress bar.

    Args:
        task: in eval mode, on the device that is to be used.
        tests: test splits by name, as :meth:`indexnet.data.Data.tests` gives them.
        counts: how many samples of each, at most its length.

    Returns:
        One row per image (``name`` and metrics), (name, sentence) of those that a person's file made impossible, and
        the metrics over all images, by the names that a record uses.
    """
    import numpy as np
    from rich.progress import track
    from torch.utils.data import default_collate

    from indexnet.run.infer import as_samples, check_channels, predict_batch
    from indexnet.tasks import metric_key

    rows: list[dict[str, Any]] = []
    failed: list[tuple[str, str]] = []
    results: dict[str, float] = {}
    console = error_console()
    step = task.test_batch_size
    for split, dataset in tests.items():
        metrics = task.create_metrics()
        before = len(rows)
        starts = range(0, counts[split], step)
        title = f"evaluating {split}".rstrip()
        for start in track(starts, title, console=console, transient=True, disable=not console.is_terminal):
            samples = []
            for index in range(start, min(start + step, counts[split])):
                try:
                    samples.append(dataset.sample(index, np.random.default_rng(0)))
                except UserError as error:
                    failed.append((metric_key(split, dataset.name(index)), str(error)))
                    say(console, str(error))
            for group in as_samples(samples):
                check_channels(task, group[0])
                batch = task.prepare(default_collate(list(group)))
                inputs = task.metric_inputs(predict_batch(task, batch), batch)
                for metric in metrics.values():
                    metric.update(*inputs)
                for place, sample in enumerate(group):
                    row: dict[str, Any] = {"name": metric_key(split, str(sample["name"]))}
                    row.update({metric_key(split, key): m.latest[place].item() for key, m in metrics.items()})
                    if all(math.isnan(value) for value in row.values() if isinstance(value, float)):
                        reason = f"{row['name']}: nothing in it can be measured; its target has no valid pixel."
                        failed.append((row["name"], reason))
                        say(console, reason)
                        continue
                    rows.append(row)
        if len(rows) > before:
            results.update({metric_key(split, key): metric.compute().item() for key, metric in metrics.items()})
    return rows, failed, results


def _print_table(title: str, rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, float]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from indexnet.metrics import get_metric

    table = Table(title=escape(title), title_justify="left")
    for heading in ("metric", "better", "result", "lowest", "highest", "worst image"):
        number = heading in ("result", "lowest", "highest")
        table.add_column(heading, justify="right" if number else "left", no_wrap=heading != "worst image")
    for key, result in metrics.items():
        split, _, name = key.rpartition("/")
        info = get_metric(name).info
        measured = [row for row in rows if math.isfinite(row.get(key, math.nan))]
        if not measured:
            continue
        worst = (min if info.higher_is_better else max)(measured, key=lambda row: row[key])
        unit = f" ({info.unit})" if info.unit else ""
        values = [row[key] for row in measured]
        numbers = [f"{value:.4g}" for value in (result, min(values), max(values))]
        better = "higher" if info.higher_is_better else "lower"
        heading = f"{split} {info.title}{unit}".strip()
        table.add_row(escape(heading), better, *numbers, escape(str(worst["name"])))
    Console(file=sys.stdout).print(table)
