"""The sweeper of ``-m``: a table's rows and seeds, or the plain product of comma lists."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from indexnet.run.experiments import Experiment

_OWN = ("experiments", "rows", "seeds", "seed")
_IN_FOLDER = ("data", "data.name", "budget", "budget.name", "paths.runs")
"""Keys that lead to another folder anyway: a sweep over them needs no other name for the row."""
OWN_PROCESSES = ("process", "slurm", "submitit_slurm", "submitit_local")
"""Launchers that run every job in processes of its own, so that a run on several devices is sound."""


@dataclass
class _SweeperConf:
    _target_: str = "hydra_plugins.indexnet_plugins.sweeper.IndexnetSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="indexnet", node=_SweeperConf, provider="indexnet")


@dataclass(frozen=True)
class Setting:
    """One override of the command line with one value: its key, its whole text, and whether it is swept over."""

    key: str
    text: str
    swept: bool = False


@dataclass
class Request:
    """What a command line asks for."""

    experiments: list[str] = field(default_factory=list)
    rows: list[str] | None = None
    seeds: list[int] | None = None
    axes: list[list[Setting]] = field(default_factory=list)


class IndexnetSweeper(Sweeper):
    """Expands a command line into jobs and hands all of them to the launcher at once.

    Without ``experiments`` the jobs are the product of all choices (``a,b``), ranges and ``choice(...)``. With
    ``experiments=NAME`` they are its rows times its seeds times that product; ``rows=a,b`` and ``seeds=0,1`` select.
    """

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.context: HydraContext | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember the sweep's configuration and start the launcher."""
        self.config, self.context = config, hydra_context
        self.launcher = start_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run everything that the command line asks for.

        Raises:
            UserError: the command line asks for something that is not there, or that this launcher cannot run.
            SystemExit: some jobs have no result.
        """
        from hydra.core.utils import JobStatus

        assert self.config is not None
        assert self.context is not None
        assert self.launcher is not None
        overrides = OverridesParser.create(config_loader=self.context.config_loader).parse_overrides(arguments)
        jobs = list(expand(overrides))
        name = str(self.config.hydra.runtime.choices["hydra/launcher"])
        if name not in OWN_PROCESSES:
            self._refuse_devices(name, jobs)
        results = self.launcher.launch(jobs, initial_job_idx=0)
        if any(result.status is JobStatus.FAILED for result in results):
            raise SystemExit(3)
        return [results]

    def _refuse_devices(self, launcher: str, jobs: Sequence[list[str]]) -> None:
        """Refuse DDP under a launcher that runs jobs inside this process, or by repeating this command."""
        from indexnet.errors import UserError

        assert self.config is not None
        assert self.context is not None
        for overrides in jobs:
            trainer = self.context.config_loader.load_sweep_config(self.config, list(overrides)).trainer
            if trainer.devices != 1 or trainer.num_nodes != 1:
                raise UserError(
                    f"trainer.devices={trainer.devices} in a sweep needs hydra/launcher=process: under "
                    f"hydra/launcher={launcher} every further rank would repeat the whole sweep, and some jobs would "
                    "train on a part of the data without saying so. Leave hydra/launcher out."
                )


def start_launcher(context: HydraContext, task_function: TaskFunction, config: DictConfig) -> Launcher:
    """Start the launcher that a sweep's configuration names.

    The launchers of hydra-submitit-launcher compose a job on the cluster's node, and pass on what they were told of
    tasks, nodes and GPUs; ours, with the same settings, submit frozen runs with a task for each of their devices.
    """
    from hydra.core.plugins import Plugins
    from omegaconf import open_dict

    ours = "hydra_plugins.indexnet_plugins.cluster_launcher"
    for theirs, name in (("SlurmLauncher", "ClusterLauncher"), ("LocalLauncher", "LocalClusterLauncher")):
        if config.hydra.launcher._target_ == f"hydra_plugins.hydra_submitit_launcher.submitit_launcher.{theirs}":
            with open_dict(config):
                config.hydra.launcher._target_ = f"{ours}.{name}"
    return Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task_function, config=config)


def expand(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Yield the overrides of each job that a parsed command line asks for.

    Raises:
        UserError: an unknown experiment, row or seed, or a setting that rows make themselves.
    """
    from indexnet.errors import UserError

    request = _read(overrides)
    if not request.experiments:
        if request.rows is not None:
            raise UserError("rows=... selects rows of a table; give experiments=NAME too.")
        seeds = [[Setting("seed", f"seed={seed}", True) for seed in request.seeds]] if request.seeds is not None else []
        for point in itertools.product(*request.axes, *seeds):
            yield [setting.text for setting in point]
        return
    from indexnet.run.experiments import load_experiment

    for name in request.experiments:
        yield from _table(load_experiment(name), request)


def _table(experiment: "Experiment", request: Request) -> Iterator[list[str]]:
    from indexnet.errors import UserError
    from indexnet.run.experiments import hydra_value

    rows = experiment.select(request.rows)
    seeds = experiment.seeds if request.seeds is None else request.seeds
    for row in rows:
        made = [override.partition("=")[0].lstrip("+~") for override in row.overrides]
        for setting in itertools.chain(*request.axes):
            if any(key == setting.key or key.startswith(f"{setting.key}.") for key in made):
                raise UserError(
                    f"{setting.text} would replace what row {row.name!r} of {experiment.name} is made of "
                    f"({', '.join(row.overrides)}); leave it out, or choose other rows with rows=NAME,NAME."
                )
    # seeds outermost: a sweep that is stopped half way leaves whole tables
    for seed, row, point in itertools.product(seeds, rows, itertools.product(*request.axes)):
        more = [setting.text for setting in point if setting.swept and setting.key not in _IN_FOLDER]
        name = "--".join([row.name, *(re.sub(r"[^A-Za-z0-9._-]+", "-", text) for text in more)])
        label = f"{row.label} ({', '.join(more)})" if more else row.label
        yield [
            f"experiments={experiment.name}",
            *row.overrides,
            *(setting.text for setting in point),
            f"experiment.row={hydra_value(name)}",
            f"experiment.label={hydra_value(label)}",
            f"seed={seed}",
        ]


def _read(overrides: Sequence[Override]) -> Request:
    """Sort a command line into what selects rows and seeds and what every job gets."""
    from indexnet.errors import UserError

    request = Request()
    for override in overrides:
        key = override.key_or_group
        if key not in _OWN:
            request.axes.append(_settings(override))
            continue
        values = _values(override)
        if values is None:
            continue
        for value in values:
            if values.count(value) > 1:
                raise UserError(f"{key}: {value} is given twice.")
        if key == "experiments":
            request.experiments = values
        elif key == "rows":
            request.rows = values
        elif request.seeds is not None:
            raise UserError("seeds= and seed= are both given; one of them is enough.")
        else:
            request.seeds = [_seed(key, value) for value in values]
    return request


def _seed(key: str, value: str) -> int:
    from indexnet.errors import UserError

    if not re.fullmatch(r"\d+", value):
        raise UserError(f"{key}={value}: a seed is an integer of at least 0.")
    return int(value)


def _values(override: Override) -> list[str] | None:
    """Return the values of an override as texts; a comma list and a list in brackets are the same, null is None."""
    if override.is_sweep_override():
        _check_discrete(override)
        return [text.strip("'\"") for text in override.sweep_string_iterator()]
    value = override.value()
    if value is None:
        return None
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _settings(override: Override) -> list[Setting]:
    key = override.key_or_group
    if not override.is_sweep_override():
        assert override.input_line is not None
        return [Setting(key, override.input_line)]
    _check_discrete(override)
    settings = [
        Setting(key, f"{override.get_key_element()}={value}", True) for value in override.sweep_string_iterator()
    ]
    if not settings:
        from indexnet.errors import UserError

        raise UserError(f"{override.input_line} matches nothing to sweep over.")
    return settings


def _check_discrete(override: Override) -> None:
    from indexnet.errors import UserError

    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} has no list of values to sweep over; give a comma list, choice(...) or range(...), "
            "or search it with hydra/sweeper=optuna."
        )
