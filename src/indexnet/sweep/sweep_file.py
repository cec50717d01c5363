"""The file of a sweep with a name: how it is written, and how an experiment file is made of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from indexnet.core.errors import UserError
from indexnet.core.files import atomic_write
from indexnet.core.paths import experiments_dir, own_dirs
from indexnet.core.registry import unknown_name
from indexnet.run.experiments.tables import experiment_files, load_experiment, read_file, sweep_files


class _Line(dict[str, Any]):
    """A mapping that is written on one line."""


class _Dumper(yaml.SafeDumper):
    """Writes lists as experiment files have them: indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(
    _Line, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)
)


def as_text(content: Mapping[str, Any], comment: str) -> str:
    """Write the content of an experiment file, rows and columns a line each."""
    written: dict[str, Any] = copy.deepcopy(dict(content))
    for node, keys in ((written, ("defaults",)), (written["experiment"], ("columns", "rows"))):
        for key in keys:
            node[key] = [_Line(each) if isinstance(each, Mapping) else each for each in node[key]]
    options: dict[str, Any] = {"sort_keys": False, "default_flow_style": None, "allow_unicode": True, "width": 110}
    return f"# @package _global_\n# {comment}\n{yaml.dump(written, Dumper=_Dumper, **options)}"


def save_sweep(name: str, target: Path, runs: Path) -> tuple[str, Path | None]:
    """Make an experiment file of a sweep, which ``indexnet train -m experiments=...`` runs as the sweep did.

    Args:
        name: of the sweep.
        target: ``.../experiments/NAME.yaml``; nothing may be there.
        runs: the folder of the runs.

    Returns:
        The name of the experiment, and the folder to be given as ``--config-dir``; None where it is known already.

    Raises:
        UserError: there is no such sweep, or the file cannot be there.
    """
    if name not in sweep_files(runs) and name in experiment_files():
        raise UserError(f"{name} is an experiment file already, {experiment_files()[name]}; copy that.")
    if not (sweeps := sweep_files(runs)):
        raise UserError(f"{runs} has no sweep with a name; `indexnet train -m ... sweep={name}` makes one.")
    if name not in sweeps:
        raise unknown_name(f"sweep in {runs}:", name, sweeps)
    load_experiment(name, runs)  # its mistakes are said before a copy of them is made
    _, content = read_file(name, runs)
    path = target.absolute()
    above = [folder for folder in path.parents if folder.name == "experiments"]
    if path.suffix != ".yaml" or not above:
        raise UserError(
            f"{target}: an experiment file is a .yaml in a folder `experiments`, for example experiments/{name}.yaml."
        )
    folder = above[0]
    called = path.relative_to(folder).with_suffix("").as_posix()
    if path.exists() or path.is_symlink():
        raise UserError(f"{target} is there already; give another name, or move or delete it.")
    if called in (files := experiment_files()):
        raise UserError(f"{target}: there is an experiment {called} already, {files[called]}; give another name.")
    content = {**content, "experiment": {**content["experiment"], "name": called}}
    atomic_write(path, as_text(content, f"Made of the sweep {name}; its command is sweep.json beside its runs."))
    known = [experiments_dir(), *(own / "experiments" for own in own_dirs())]
    is_known = any(folder.resolve() == each.resolve() for each in known)
    return called, None if is_known else target.parents[len(path.relative_to(folder).parts)]
