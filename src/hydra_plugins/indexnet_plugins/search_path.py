"""The config groups and the experiments, this package's and a person's own, on Hydra's search path."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from hydra_plugins.indexnet_plugins import file_source  # the module: Hydra takes every class here for a plugin
from indexnet.core.paths import conf_dir, experiments_dir, own_dirs


class IndexnetSearchPath(SearchPathPlugin):
    """Adds ``conf/`` and the folder that holds ``experiments/`` as the group ``experiments``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        file_source.install()
        known = {str(each.path) for each in search_path.get_path()}  # --config-dir is there already
        for path in (conf_dir(), experiments_dir().parent, *own_dirs()):
            if f"file://{path}" not in known:
                search_path.append(provider="indexnet", path=f"file://{path}")
