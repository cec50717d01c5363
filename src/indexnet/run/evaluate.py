"""``indexnet evaluate``: a checkpoint on the test split of a data set."""

from __future__ import annotations

import argparse
import csv
import io
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
    import torch

    from indexnet.data import Dataset
    from indexnet.networks import Network

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
    from indexnet.networks.checkpoint import load_network

    network, meta = load_network(args.checkpoint)
    from indexnet.data import create_data
    from indexnet.files import sha256_file, write_json
    from indexnet.run import record as records
    from indexnet.run.infer import pick_device

    options = evaluation_data(meta, chosen, overrides)
    name = options.pop("name")
    dataset = create_data(name, **options).test()
    folder = args.output or default_folder(args.checkpoint, name, overrides)
    result_file = folder / "evaluation.json"
    if result_file.exists() and not args.overwrite:
        raise UserError(f"{result_file} exists; give --overwrite to replace it, or another --output.")
    device = pick_device(args.device)
    task = meta["task"]["name"]
    count = len(dataset) if args.limit is None else min(args.limit, len(dataset))
    started, begun = records.now(), time.monotonic()
    rows, failed = evaluate(task, network.to(device), dataset, count, device)
    took = time.monotonic() - begun
    if not rows:
        raise UserError(f"none of the {count} images of {name} could be evaluated; the reasons stand above.")
    metrics = {key: _mean([row[key] for row in rows]) for key in rows[0] if key != "name"}
    result = {
        "schema": SCHEMA,
        "checkpoint": str(args.checkpoint),
        "checkpoint_sha256": sha256_file(args.checkpoint),
        "task": task,
        "network": meta["network"],
        "data": {
            "name": name,
            "options": options,
            "split": dataset.split,
            "count": len(dataset),
            "fingerprint": dataset.fingerprint(),
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
    _write_csv(folder / "per_image.csv", rows)
    write_json(result_file, result)
    _print_table(f"{args.checkpoint.name} on {name}, {dataset.split}", rows)
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
    task: str, network: Network, dataset: Dataset, count: int, device: torch.device
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Evaluate the first ``count`` samples of a split under a progress bar.

    Args:
        task: the task's name.
        network: in eval mode, on ``device``.
        dataset: a test split.
        count: how many samples, at most its length.
        device: where the network is.

    Returns:
        One row per image (``name`` and metrics), and (name, sentence) of those that a person's file made impossible.
    """
    import numpy as np
    from rich.progress import track
    from torch.utils.data import default_collate

    from indexnet.run.infer import as_samples, check_channels, predict_batch, score_batch
    from indexnet.tasks import get_task

    rows: list[dict[str, Any]] = []
    failed: list[tuple[str, str]] = []
    console = error_console()
    step = get_task(task).test_batch_size
    starts = range(0, count, step)
    for start in track(starts, "evaluating", console=console, transient=True, disable=not console.is_terminal):
        samples = []
        for index in range(start, min(start + step, count)):
            try:
                samples.append(dataset.sample(index, np.random.default_rng(0)))
            except UserError as error:
                failed.append((dataset.name(index), str(error)))
                say(console, str(error))
        for group in as_samples(samples):
            check_channels(task, network, group[0])
            batch = default_collate(list(group))
            values = score_batch(task, predict_batch(task, network, batch, device), batch)
            rows += [{"name": sample["name"], **row} for sample, row in zip(group, values, strict=True)]
    return rows, failed


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from indexnet.files import atomic_write

    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())


def _print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from indexnet.metrics import get_metric

    table = Table(title=escape(title), title_justify="left")
    for heading in ("metric", "better", "mean", "lowest", "highest", "worst image"):
        number = heading in ("mean", "lowest", "highest")
        table.add_column(heading, justify="right" if number else "left", no_wrap=heading != "worst image")
    for key in rows[0]:
        if key == "name":
            continue
        info = get_metric(key).info
        values = [row[key] for row in rows]
        worst = (min if info.higher_is_better else max)(rows, key=lambda row: row[key])
        unit = f" ({info.unit})" if info.unit else ""
        numbers = [f"{value:.4g}" for value in (_mean(values), min(values), max(values))]
        better = "higher" if info.higher_is_better else "lower"
        table.add_row(f"{info.title}{unit}", better, *numbers, escape(str(worst["name"])))
    Console(file=sys.stdout).print(table)
