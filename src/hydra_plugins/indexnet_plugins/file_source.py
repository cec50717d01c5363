"""Hydra's reader of configuration files, without trust in them."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
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
from indexnet.core.readers import MAX_YAML_BYTES, DamagedFileError, parse_yaml, read_mapping, read_text, yaml_mistakes
from indexnet.run.schema import single_keys

_GLOBAL = "_global_"


class FileConfigSource(file_config_source.FileConfigSource):
    """Refuses a file that is damaged, too large or grows while it is read, in a sentence that names it.

    It is called as Hydra's own is, which Hydra's plugins otherwise refuse; :func:`install` puts it in its place.
    """

    def is_group(self, config_path: str) -> bool:
        """Whether a folder holds options; one that has the name of a single key, such as ``tests/``, does not."""
        return config_path not in single_keys() and super().is_group(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        """Load a file.

        Raises:
            DamagedFileError: it cannot be a file of the configuration.
        """
        file = Path(self.path, self._normalize_file_name(config_path))
        if not os.path.exists(file):
            return super().load_config(config_path)
        # A sweep composes the same files for every job; Hydra changes what it is given, so it gets a copy.
        text = read_text(file, max_bytes=MAX_YAML_BYTES)
        parsed = _parse_once(type(self), self.provider, self.path, config_path, text)
        return replace(parsed, config=copy.deepcopy(parsed.config))

    def parse(self, config_path: str, text: str) -> ConfigResult:
        """Check what a file says, and load it, as :meth:`load_config`."""
        file = Path(self.path, self._normalize_file_name(config_path))
        content = parse_yaml(text, str(file))
        mapping = {} if content is None else read_mapping(file, lambda _: content)
        _check_defaults(file, mapping.get("defaults"))
        with yaml_mistakes(str(file)):
            try:
                found = super().load_config(config_path)
            except (OSError, OmegaConfBaseException) as error:
                raise DamagedFileError(f"{file} is no file of the configuration: {error}.") from error
        _check_package(file, config_path, mapping, found.header.get("package"))
        return found


@lru_cache(maxsize=256)
def _parse_once(source: type[FileConfigSource], provider: str, path: str, config_path: str, text: str) -> ConfigResult:
    """Load a file that says ``text``; by what it says, not by its date."""
    return source(provider, path).parse(config_path, text)


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


def _check_package(file: Path, config_path: str, content: Mapping[str, Any], package: str | None) -> None:
    """Refuse a file that says more than the options of its group, or chooses other groups, and has not the line for it.

    Raises:
        DamagedFileError: the line is missing.
    """
    group, _, option = config_path.partition("/")
    defaults = [key for entry in content.get("defaults") or () if isinstance(entry, dict) for key in entry]
    beyond = group == "experiments" or group in content or any(key.startswith("override /") for key in defaults)
    if option and beyond and package != _GLOBAL:
        raise DamagedFileError(
            f"{file} must begin with the line `# @package {_GLOBAL}`: without it all that the file says is "
            f"put below {group}."
        )


def install() -> None:
    """Let Hydra read files through :class:`FileConfigSource`."""
    SourcesRegistry.instance().types["file"] = FileConfigSource
