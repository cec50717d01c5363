"""What the measuring commands start from: methods, a data set, a device."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.annotations import check_part, fits, in_words, option_types
from indexnet.core.console import DEVICE_HELP, MEMORY_HELP, allow_anywhere, warn
from indexnet.core.errors import UserError, shown
from indexnet.core.paths import check_methods
from indexnet.core.readers import plain_value, read_mapping

if TYPE_CHECKING:
    import torch

    from indexnet.data import Data, Dataset
    from indexnet.tasks import Task


METHODS_HELP = "a .ckpt that train or convert wrote; for matting also closed_form or knn"
WORDS_HELP = "another data set, or other options of it: data=alphamatting data.root=DIR data.trimap=Trimap2"
_LONGEST = 120  # characters of a folder's name
_UNSAFE = re.compile(r"[^\w.,=+-]+")
_TASK_KEYS = ("name", "task")


@dataclass
class Method:
    """One checkpoint, or one classical method.

    Attributes:
        caption: its name in tables, unique.
        source: its file, or the classical method's name.
        task: with the network.
        meta: the checkpoint's ``"indexnet"`` entry.
        classical: whether there is no checkpoint.
    """

    caption: str
    source: Path
    task: Task
    meta: dict[str, Any]
    classical: bool


def add_method_arguments(parser: argparse.ArgumentParser, output: str) -> None:
    """Add checkpoints, ``data`` words and the options that every measuring command has."""
    parser.add_argument("words", nargs="+", metavar="CKPT", help=f"{METHODS_HELP}. And data=NAME: {WORDS_HELP}")
    parser.add_argument("--output", type=Path, metavar="DIR", help=output)
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--memory", default="auto", metavar="SIZE", help=MEMORY_HELP)
    allow_anywhere(parser)


def set_scale(methods: Sequence[Method], scale: float) -> None:
    """Apply ``--scale``.

    Raises:
        UserError: it is no scale, or a method does not follow it.
    """
    if not 0 < scale <= 4:
        raise UserError(f"--scale {scale:g} must be above 0 and at most 4, as 0.5 for half height and width.")
    for method in methods:
        if scale != 1 and not method.task.scales:
            who = method.caption if method.classical else f"{method.source}, whose task is {method.task.name},"
            raise UserError(f"--scale is for matting networks; {who} runs images as they are.")
        method.task.scale = scale


@dataclass
class Setup:
    """What a measuring command works on.

    Attributes:
        methods: the checkpoints and classical methods.
        name: the data set's name.
        options: the data set's options, all of them.
        overrides: those, and options of the task, that were given on the command line.
        tests: the test splits by name.
        counts: how many samples of each to take.
        device: where to run.
    """

    methods: list[Method]
    name: str
    options: dict[str, Any]
    overrides: dict[str, Any]
    tests: Mapping[str, Dataset]
    counts: dict[str, int]
    device: torch.device

    @property
    def title(self) -> str:
        """The data set, and what of the task was given."""
        given = [f"{key}={value}" for key, value in self.overrides.items() if key.startswith("task.")]
        return ", ".join([self.name, "test", *given])


def prepare(paths: Sequence[Path], words: Sequence[str], args: argparse.Namespace) -> Setup:
    """Load what was named on the command line.

    Args:
        paths: checkpoints, or names of classical methods.
        words: ``data=NAME``, ``data.OPTION=VALUE``, and ``task.OPTION=VALUE`` of what says how the task is measured,
            such as ``task.region=`` of matting and ``task.sigma=`` of denoising.
        args: ``limit``, ``device`` and ``memory``.

    Raises:
        UserError: a mistake in any of them, or methods that cannot be measured together.
    """
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit {args.limit} must be at least 1.")
    measures = _read_measures([word for word in words if word.startswith("task.")])
    chosen, overrides = parse_overrides([word for word in words if not word.startswith("task.")])
    from indexnet.data import create_data
    from indexnet.inference.loading import pick_device

    methods = load_methods(paths, measures, args.memory)
    options = evaluation_data(_base(methods), chosen, overrides)
    name = str(options.pop("name"))
    data: Data = create_data(name, **options)
    for method in methods:
        method.task.check_data(data)
    tests = data.tests()
    counts = {split: min(args.limit or len(dataset), len(dataset)) for split, dataset in tests.items()}
    given = overrides | {f"task.{key}": value for key, value in measures.items()}
    return Setup(methods, name, options, given, tests, counts, pick_device(args.device))


def _base(methods: Sequence[Method]) -> Mapping[str, Any]:
    """Return the entry of the first checkpoint that names a data set, which is then that of all methods."""
    return next((m.meta for m in methods if (m.meta["config"].get("data") or {}).get("name")), methods[0].meta)


def _read_measures(words: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``task.OPTION=VALUE``, of the type that the task's constructor has for them.

    Raises:
        UserError: an option that says what was trained, not how it is measured; or a value of another type.
    """
    from indexnet.tasks import get_task, list_tasks

    measured = {name: get_task(name).measure_options for name in list_tasks()}
    found = {}
    for word in words:
        key, equals, text = word.removeprefix("task.").partition("=")
        takers = [name for name, options in measured.items() if key in options]
        if not equals or not takers:
            allowed = "; ".join(
                f"{' and '.join(f'task.{option}=VALUE' for option in options)} ({name})"
                for name, options in measured.items()
                if options
            )
            raise UserError(f"{word!r} follows from the checkpoint; of the task only {allowed} can be given.")
        kind, plain = option_types(get_task(takers[0])).get(key, Any), plain_value(text) if text else ""
        if not fits(plain, kind) and not fits(text, kind):
            raise UserError(f"task.{key}={shown(plain)} must be {in_words(kind)}.")
        found[key] = plain if fits(plain, kind) else text
    return found


def _check_measures(path: Path, task: Task, measures: Mapping[str, Any]) -> None:
    """Refuse options that say how another task is measured.

    Raises:
        UserError: one does; the message names those of this task.
    """
    for key in measures:
        if key not in task.measure_options:
            own = " and ".join(f"task.{option}=VALUE" for option in task.measure_options) or "nothing"
            raise UserError(f"task.{key} is no option of {path}, which is for {task.name}; of that {own} can be given.")


def load_methods(paths: Sequence[Path], measures: Mapping[str, Any], memory: str) -> list[Method]:
    """Load checkpoints and classical methods that are to be measured in one way, that of the first.

    Args:
        paths: at least one.
        measures: options of the task that say how to measure.
        memory: ``--memory``.

    Raises:
        UserError: one cannot be loaded, or they are for different tasks, classes or noise.
    """
    from indexnet.inference.loading import is_classical, limit_memory, load_task, unique_captions

    loaded: list[tuple[Task, dict[str, Any]]] = []
    for path in paths:
        try:
            task, meta = load_task(path, {} if loaded else measures)
        except UserError:
            if measures and not loaded:  # the complaint would list what follows from the checkpoint, too
                _check_measures(path, load_task(path)[0], measures)
            raise
        first = loaded[0][0] if loaded else task
        if task.name != first.name:
            raise UserError(f"{paths[0]} is for {first.name} but {path} is for {task.name}; give methods of one task.")
        same = {key: first.options[key] for key in first.measure_options}
        if any(task.options[key] != value for key, value in same.items()):  # all are measured as the first
            own = task.options
            task, meta = load_task(path, same)
            changed = [key for key, value in same.items() if key not in measures and own[key] != value]
            for key in changed:
                warn(f"{path}: measured at task.{key}={same[key]}, as {paths[0]}, and not at its own {own[key]}.")
        ours, theirs = (
            {key: value for key, value in each.options.items() if key not in each.method_options}
            for each in (first, task)
        )
        if ours != theirs:
            raise UserError(
                f"{paths[0]} and {path} differ in the options of their task ({ours} and {theirs}), so "
                "that their numbers cannot be compared; evaluate each on its own."
            )
        limit_memory(task, memory)
        loaded.append((task, meta))
    captions = unique_captions(paths, [meta for _, meta in loaded])
    return [
        Method(caption, path, task, meta, is_classical(meta))
        for caption, path, (task, meta) in zip(captions, paths, loaded, strict=True)
    ]


def split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Tell checkpoints from ``key=value`` words; a file whose name has an equals sign is a file.

    Raises:
        UserError: no checkpoint is given, or one is not there.
    """
    given = [word for word in words if re.match(r"(data|task)(\.\w+)?=", word) or _is_word(word)]
    paths = [Path(word) for word in words if word not in given]
    if not paths:
        raise UserError("give a checkpoint, or closed_form or knn, beside the data.")
    check_methods(paths)
    return paths, given


def _is_word(word: str) -> bool:
    return "=" in word and not word.endswith(".ckpt") and not os.path.exists(word)


def parse_overrides(words: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """Read ``data=NAME`` and ``data.OPTION=VALUE``.

    Returns:
        The name or None, and the options with values read as YAML.

    Raises:
        UserError: another word.
    """
    name: str | None = None
    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not (key == "data" or (key.startswith("data.") and len(key) > 5)):
            raise UserError(f"{word!r} is not understood; give data=NAME and data.OPTION=VALUE, beside the --options.")
        value = plain_value(text) if text else ""
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

    from indexnet.core.registry import option_names
    from indexnet.data import get_data, list_data

    config, task = meta["config"], meta["task"]["name"]
    own = dict(config.get("data") or {})
    name = chosen or own.get("name")
    if name is None:
        known = ", ".join(info.name for info in list_data() if task in info.tasks)
        raise UserError(f"the checkpoint names no data set; give data=NAME, one of {known}, and its options.")
    cls = get_data(str(name))
    folder = str((config.get("paths") or {}).get("data", "data"))
    options = own if name == own.get("name") else {**file_options(str(name), folder), "name": name}
    options.update(overrides)
    options["task"] = task
    size = (config.get("training") or {}).get("size")
    if size is not None and "size" in option_names(cls):
        options.setdefault("size", size)
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.default is parameter.empty and options.get(parameter.name) is None:
            raise UserError(f"data={name} needs data.{parameter.name}=VALUE.")
    check_part("data", {"name": name} | {key: value for key, value in options.items() if key != "task"}, cls)
    return options


def file_options(name: str, folder: str = "data") -> dict[str, Any]:
    """Return the options in a data set's file in ``conf/data``, ``{}`` where it has none.

    Args:
        name: of the data set.
        folder: what ``${paths.data}`` stands for, the one reference that these files make.
    """
    from indexnet.core.paths import config_file

    file = config_file("data", name)
    options = {} if file is None else read_mapping(file)
    return {
        key: value.replace("${paths.data}", folder) if isinstance(value, str) else value
        for key, value in options.items()
    }


def source_of(method: Method) -> str:
    """Say where a method comes from: its file, or its paper."""
    return str(method.meta["source"]) if method.classical else str(method.source)


def describe(method: Method) -> dict[str, Any]:
    """Return what a result says of a method."""
    from indexnet.core.files import sha256_file

    return {
        "caption": method.caption,
        "checkpoint": None if method.classical else str(method.source),
        "checkpoint_sha256": None if method.classical else sha256_file(method.source),
        "task": method.meta["task"],
        "network": method.meta["network"],
        # options of the task that it is measured with, but was not trained with
        "own_task_options": method.meta.get("changed", {}),
    }


def folder_name(text: str) -> str:
    """Make a folder's name of a caption or of what was asked."""
    return _UNSAFE.sub("_", text)


def default_folder(paths: Sequence[Path], name: str, overrides: Mapping[str, Any], kind: str = "evaluations") -> Path:
    """Return the folder for results, named after what was asked: beside the one checkpoint, or else here.

    Args:
        paths: checkpoints, or names of classical methods.
        name: the data set.
        overrides: options that were given; a ``root`` says where, not what, and is left out.
        kind: name of the folder that holds such results.
    """
    from indexnet.tasks.classical import CLASSICAL

    words = [f"{key}={value}" for key, value in sorted(overrides.items()) if key != "root"]
    last = folder_name(",".join([name, *words]))
    beside = paths[0].parent if len(paths) == 1 and str(paths[0]) not in CLASSICAL else Path()
    methods = "+".join(path.stem for path in paths)[:_LONGEST]
    return beside / kind / methods / last
