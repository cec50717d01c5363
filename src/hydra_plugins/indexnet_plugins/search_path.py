"""The config groups and the experiment files on Hydra's search path, in a checkout and in an installed package."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class IndexnetSearchPath(SearchPathPlugin):
    """Adds ``conf/`` and the folder that holds ``experiments/`` as the group ``experiments``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append both folders."""
        from indexnet.core.paths import conf_dir, experiments_dir

        for path in (conf_dir(), experiments_dir().parent):
            search_path.append(provider="indexnet", path=f"file://{path}")
