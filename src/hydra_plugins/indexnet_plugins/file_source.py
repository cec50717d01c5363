"""Hydra's reader of configuration files, without trust in them."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf.errors import OmegaConfBaseException

from indexnet.core.annotations import fits
from indexnet.core.errors import shown
from indexnet.core.readers import DamagedFileError, read_mapping, read_yaml, yaml_mistakes


class FileConfigSource(file_config_source.FileConfigSource):
    """Refuses a file that is damaged, too large or grows while it is read, in a sentence that names it.

    It is called as Hydra's own is, which Hydra's plugins otherwise refuse; :func:`install` puts it in its place.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """Load a file.

        Raises:
            DamagedFileError: it cannot be a file of the configuration.
        """
        file = Path(self.path, self._normalize_file_name(config_path))
        if not os.path.exists(file):
            return super().load_config(config_path)
        info = file.stat()
        # A sweep composes the same files for every job; Hydra changes what it is given, so it gets a copy.
        read = _read_once(
            type(self), self.provider, self.path, config_path, (info.st_ino, info.st_mtime_ns, info.st_size)
        )
        return replace(read, config=copy.deepcopy(read.config))

    def read(self, config_path: str) -> ConfigResult:
        """Load a file anew, as :meth:`load_config`."""
        file = Path(self.path, self._normalize_file_name(config_path))
        content = read_yaml(file)
        if content is not None:
            _check_defaults(file, read_mapping(file, lambda _: content).get("defaults"))
        with yaml_mistakes(str(file)):
            try:
                return super().load_config(config_path)
            except (OSError, OmegaConfBaseException) as error:
                raise DamagedFileError(f"{file} is no file of the configuration: {error}.") from error


@lru_cache(maxsize=256)
def _read_once(
    source: type[FileConfigSource], provider: str, path: str, config_path: str, stamp: tuple[int, int, int]
) -> ConfigResult:
    """Load a file that has not changed since ``stamp``."""
    return source(provider, path).read(config_path)


def _check_defaults(file: Path, defaults: Any) -> None:
    """Refuse a defaults list that Hydra would stumble over.

    Raises:
        DamagedFileError: it is one.
    """
    for entry in defaults if isinstance(defaults, list) else [defaults] if defaults is not None else []:
        pairs = entry.items() if isinstance(entry, dict) else [(entry, None)]
        well = isinstance(defaults, list) and len(pairs) == 1
        if not well or not all(isinstance(key, str) and fits(value, str | None | list[str]) for key, value in pairs):
            raise DamagedFileError(f"{file}: defaults must be a list of GROUP: OPTION, not {shown(entry)}.")


def install() -> None:
    """Let Hydra read files through :class:`FileConfigSource`."""
    SourcesRegistry.instance().types["file"] = FileConfigSource
