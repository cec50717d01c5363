"""The frozen configurations of a sweep's jobs: composed once, looked up from then on.

Composing and checking a job imports torch and builds its network. What came of it is kept in ``<paths.runs>/.plans``,
under a key over everything that it followed from: the overrides, the content of all configuration files, the code. A
launch of a sweep that is done costs a few file reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.errors import UserError
from indexnet.core.files import read_json, write_json

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig


_RESOLVER = re.compile(r"\$\{\s*[\w.]+\s*:")
"""An interpolation that computes (``${oc.env:HOME}``, ``${now:}``): what it gives is not in any file."""
_MANY = 5000
_DAYS = 30


def frozen_jobs(
    config: DictConfig, context: HydraContext, job_overrides: Sequence[Sequence[str]], *, keep: bool = False
) -> list[dict[str, Any]]:
    """Compose and freeze the configuration of every job of a sweep, or look up what came of it before.

    Args:
        config: the sweep's own configuration, as Hydra composed it.
        context: Hydra's.
        job_overrides: of each job.
        keep: write down what is composed now, for the next time.

    Returns:
        One frozen configuration for each job, in order.

    Raises:
        UserError: a configuration does not work out; nothing has been written.
    """
    settled = _settled(config, context)
    configs, new = [], []
    for overrides in job_overrides:
        file = None if settled is None else _plan(settled, config, overrides)
        frozen = None if file is None else _look_up(file)
        if frozen is None:
            frozen = _freeze(config, context, overrides)
            if file is not None and keep:
                new.append((file, frozen))
        configs.append(frozen)
    with contextlib.suppress(OSError, UserError):  # a convenience: no reason to stop
        for file, frozen in new:
            _keep(file, frozen)
    return configs


def _freeze(config: DictConfig, context: HydraContext, overrides: Sequence[str]) -> dict[str, Any]:
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from indexnet.run.config import explain, freeze

    try:
        composed = context.config_loader.load_sweep_config(config, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides) from error
    own = [str(key) for key in composed if key != "hydra"]
    return freeze(OmegaConf.masked_copy(composed, own))


def _settled(config: DictConfig, context: HydraContext) -> str | None:
    """Return a digest of all that the jobs of a sweep share: configuration files, code, place.

    None where something cannot be told cheaply; then nothing is looked up.
    """
    import hydra
    import omegaconf

    import indexnet

    if config.hydra.searchpath:  # more sources, which only the composition itself finds
        return None
    parts: list[Any] = [indexnet.__version__, hydra.__version__, omegaconf.__version__, str(Path.cwd())]
    parts += [str(config.hydra.job.config_name), *_code()]
    for source in context.config_loader.get_sources():
        files = _source(source.scheme(), source.path)
        if files is None:
            return None
        parts.append([source.provider, files])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _code() -> list[list[Any]]:
    """Return path, size and time of change of every source file that makes configurations."""
    import hydra_plugins
    import indexnet

    found = []
    for package in (indexnet, hydra_plugins):  # a plugin may bring configurations, too
        for folder in package.__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                stat = path.stat()
                found.append([str(path), stat.st_size, stat.st_mtime_ns])
    return found


def _source(scheme: str, path: str) -> list[list[str]] | None:
    """Return name and digest of every file in one of Hydra's sources; None where what it gives cannot be told."""
    from indexnet.core.paths import data_root, experiments_dir

    if scheme == "structured" or path in ("hydra.conf", "pkg://hydra.conf"):
        return []  # of the code, and of Hydra's version
    if scheme != "file":
        return None
    folder = Path(path)
    # the folder that holds experiments/ is a source as a whole, the root of a checkout
    folder = experiments_dir() if folder == data_root() else folder
    found: list[list[str]] = []
    for file in _files(folder):
        if len(found) == _MANY:
            return None
        content = file.read_bytes()
        name = file.relative_to(folder)
        if name.parts[0] != "hydra" and _RESOLVER.search(content.decode("utf-8", "replace")):
            return None
        found.append([str(name), hashlib.sha256(content).hexdigest()])
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Yield all YAML files of a folder in order; CSV files beside them are no configuration.

    Links to folders are followed, as Hydra does, but never into a folder twice.
    """
    seen = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(where) / name for name in sorted(names) if name.endswith((".yaml", ".yml")))


def _plan(settled: str, config: DictConfig, overrides: Sequence[str]) -> Path | None:
    """Return the file of a job's plan; None where an override computes its value."""
    if any(_RESOLVER.search(text) for text in overrides):
        return None
    key = hashlib.sha256(json.dumps([settled, list(overrides)]).encode()).hexdigest()
    return _runs(config, overrides) / ".plans" / f"{key[:32]}.json"


def _runs(config: DictConfig, overrides: Sequence[str]) -> Path:
    """Return ``paths.runs`` of a job: the sweep's own configuration does not know what only jobs are given."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = [text for text in overrides if text.lstrip("+").startswith("paths.runs=")]
    if given:
        return Path(str(OverridesParser.create().parse_override(given[-1]).value()))
    return Path(str(config.paths.runs))


def _keep(file: Path, frozen: Mapping[str, Any]) -> None:
    """Write a plan, and remove those that nobody has needed for long."""
    write_json(file, {"config": frozen, "digest": _digest(frozen), "depends": _depends(frozen)})
    for old in file.parent.glob("*.json"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _DAYS * 86400:
                old.unlink()


def _look_up(file: Path) -> dict[str, Any] | None:
    """Return a frozen configuration as it was kept; None where there is none that is whole and still true."""
    try:
        plan = read_json(file)
        frozen, digest, depends = plan["config"], plan["digest"], plan["depends"]
        if not isinstance(frozen, dict) or digest != _digest(frozen) or depends != _depends(frozen):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return frozen


def _digest(frozen: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(frozen).encode()).hexdigest()  # in order: config.yaml is written from it


def _depends(frozen: Mapping[str, Any]) -> dict[str, str]:
    """Return what was there of the files that freezing looks at: those of the data set, and pretrained weights.

    A data set may settle channels and classes. Its folder is looked at two levels deep: a file deeper down that is
    replaced by one of the same name is noticed by the run, which checks its first sample.
    """
    paths = (frozen["data"].get("root"), frozen["encoder"].get("pretrained"))
    return {path: _state(path) for path in paths if isinstance(path, str)}


def _state(path: str) -> str:
    """Return a digest of names, sizes and times of change of a file, or of a folder's first two levels."""
    entries: list[tuple[str, int, int]] = []

    def look(where: str, depth: int) -> None:
        try:
            found = sorted(os.scandir(where), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in found:
            if len(entries) >= _MANY:
                return
            with contextlib.suppress(OSError):
                stat = entry.stat()
                entries.append((entry.path, stat.st_mtime_ns, 0 if entry.is_dir() else stat.st_size))
                if depth and entry.is_dir():
                    look(entry.path, depth - 1)

    try:
        stat = os.stat(path)
        entries.append((path, stat.st_mtime_ns, stat.st_size))
    except OSError:
        pass
    look(path, 1)
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()
