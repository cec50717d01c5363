"""A whole sweep: its folders and its lock, what was asked for, its jobs, and what came of them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from indexnet.core.annotations import fits
from indexnet.core.console import tell, warn
from indexnet.core.errors import UserError, shown
from indexnet.core.files import UnwritableError, write_json
from indexnet.core.locks import exclusive
from indexnet.core.readers import DamagedFileError, read_json, read_mapping
from indexnet.run.folder import EARLIER, RunFolder, prepare, run_path, sweep_path
from indexnet.run.further_tests import missing_folder
from indexnet.run.loggers.wandb_logging import check_use, settle_mode
from indexnet.run.record import DamagedRunError
from indexnet.run.resume import BROKEN
from indexnet.run.schema import Rerun, read_config
from indexnet.sweep.order import check_sources, source_folder
from indexnet.sweep.pool import Job, Outcome, launch, needs_process
from indexnet.sweep.progress import announce, create_view, summarize

PARTLY = 3
"""Exit code: some of what was asked for has no result; all the rest has."""
LOCK = ".sweep"
"""The file in a sweep's folder that its launcher holds."""
_REQUESTS = "sweep.json"
_REQUEST: dict[str, Any] = {"arguments": list[str], "directory": str, "runs": list[str]}
_KEPT = 20


def prepare_jobs(
    configs: Sequence[Mapping[str, Any]],
    titles: Sequence[str] | None = None,
    rerun: Rerun = False,
    before_new: Callable[[], object] = lambda: None,
    kept: Collection[Path] = (),
) -> list[Job]:
    """Create the folders of frozen configurations, all or none; one that cannot be used is left, and its job says so.

    Args:
        configs: one for each job.
        titles: what tells the jobs apart; default their rows or folders.
        rerun: which finished runs are done again: their results are set aside, those of all before any job starts, so
            that an interrupted command goes on like any other.
        before_new: called once those that exist fit, before any is created.
        kept: folders of runs that ``rerun`` does not mean.

    Raises:
        UserError: two jobs have the same folder, a folder holds a run with another configuration, another process is
            at work in one whose results are to be set aside, or not one of the folders can be made.
    """
    paths = [run_path(config) for config in configs]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise UserError(
                f"two jobs of this sweep have the same folder {path}: the same configuration is asked for twice, or "
                "what tells the two apart is no part of the folder's name; sweep over one less."
            )
    new = [not os.path.isfile(path / "config.yaml") for path in paths]
    damaged: dict[Path, str] = {}
    unmade = 0
    for wanted in (False, True):  # those that exist are compared before any is created
        if wanted:
            before_new()
        for config, path, is_new in zip(configs, paths, new, strict=True):
            if is_new is wanted:
                try:
                    prepare(config)
                except (DamagedRunError, UnwritableError) as error:
                    damaged[path] = str(error)
                    unmade += isinstance(error.__cause__, UnwritableError)
    if unmade == len(paths) > 0:
        raise UserError(next(iter(damaged.values())))
    usable = [config for config, path in zip(configs, paths, strict=True) if path not in damaged]
    damaged |= _set_aside(usable, rerun, kept)
    jobs = []
    for index, (typed, path) in enumerate(zip(map(read_config, configs), paths, strict=True)):
        title = titles[index] if titles else typed.experiment.row or path.name
        devices, cpu = typed.trainer.local_devices, typed.trainer.accelerator == "cpu"
        after = source_folder(typed.content)
        source = typed.init.row or "" if after else ""
        jobs.append(Job(path.resolve(), title, typed.seed, devices, cpu, damaged.get(path, ""), after, source))
    return jobs


def _set_aside(configs: Sequence[Mapping[str, Any]], rerun: Rerun, kept_out: Collection[Path]) -> dict[Path, str]:
    """Set results aside; return why that of a folder cannot be done. What starts from a run goes with it."""
    damaged: dict[Path, str] = {}
    again: set[Path] = set()
    if rerun is False:
        return damaged
    count = kept = 0
    for config in configs:
        folder = RunFolder(run_path(config))
        try:
            if folder.path in kept_out:
                continue
            follows = source_folder(config) in again and folder.status() in ("done", "diverged")
            if follows or folder.runs_again(rerun):
                with folder.lock():
                    if follows or folder.runs_again(rerun):
                        folder.set_aside()
                        count += 1
                again.add(folder.path.resolve())
                prepare(config)  # loggers, workers and places may be others this time
            elif rerun is True and folder.status() in ("done", "diverged"):
                kept += 1
        except (DamagedRunError, UnwritableError) as error:
            damaged[folder.path] = str(error)
    said = "true" if rerun is True else rerun
    if count:
        many = f"{count} finished runs, whose results are" if count > 1 else "a finished run, whose results are"
        tell(f"rerun={said} does again {many} kept in {EARLIER}/ of {'their folders' if count > 1 else 'its folder'}")
    if kept:
        tell(f"rerun=true goes on where it was interrupted: done again already {kept} of {len(configs)}")
    return damaged


def end_rerun(jobs: Sequence[Job]) -> None:
    """Note that a command has come to its end, where it has: then ``rerun=true`` would do the runs once more.

    What cannot be used is no part of it: no command would ever come to the end of that.
    """
    ended = []
    for folder in (RunFolder(job.folder) for job in jobs if not job.damaged):
        with contextlib.suppress(DamagedRunError):
            if folder.status() not in ("done", "diverged", "failed"):
                return
            ended.append(folder)
    for folder in ended:
        try:
            folder.end_rerun()
        except UnwritableError as error:
            warn(f"indexnet: {error}")


def _of_tables(configs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [config for config in configs if config["experiment"]["name"] is not None]


@contextlib.contextmanager
def hold_tables(configs: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Hold the folder of every table of a sweep; single runs share one with unrelated ones, and their own locks do.

    Raises:
        UserError: another sweep holds one of them.
    """
    with contextlib.ExitStack() as locks:
        for folder in sorted({sweep_path(config) for config in _of_tables(configs)}):
            message = (
                f"another sweep is at work in {folder}; wait for it or stop it, or give paths.runs=ANOTHER_FOLDER."
            )
            locks.enter_context(exclusive(folder / LOCK, message))
        yield


def check_wandb(configs: Sequence[Mapping[str, Any]], retry_failed: bool, rerun: Rerun = False) -> None:
    """Refuse a W&B that the jobs which are left to run want and cannot use, before the first of them starts.

    Raises:
        UserError: wandb is missing, ``WANDB_MODE`` is unknown, or the mode is ``online`` and the server cannot be used.
    """
    modes = set()
    for config in configs:
        logger = read_config(config).logger
        if logger.wandb and needs_process(Job(run_path(config), "", 0), retry_failed, rerun):
            modes.add(settle_mode(logger.mode))
    for mode in sorted(modes):
        check_use(mode)


def check_roots(configs: Sequence[Mapping[str, Any]], retry_failed: bool, rerun: Rerun = False) -> None:
    """Refuse jobs none of which has its folder of data on this machine, before each of them finds out by itself.

    Raises:
        UserError: there are jobs to run, and the folders of all are missing.
    """
    left = [each for each in configs if needs_process(Job(run_path(each), "", 0), retry_failed, rerun)]
    missing = [missing_folder(each, os.path.isdir) for each in left]
    if not left or not all(missing):
        return
    key, name, root = next(each for each in missing if each is not None)
    if key == "tests":
        raise UserError(
            f"tests: {shown(root)} is no folder on this machine; give the one that holds {name}, "
            f"tests=[{{name: {name}, root: DIR}}], or leave {name} out of tests=[...]."
        )
    raise UserError(
        f"data.root={shown(root)} is no folder on this machine; give the one that holds data={name} (what lies in "
        "it: docs/data.md)."
    )


def run_sweep(
    configs: Sequence[Mapping[str, Any]],
    titles: Sequence[str] | None = None,
    *,
    n_jobs: int = 1,
    fail_fast: bool = False,
    retry_failed: bool = False,
    rerun: Rerun = False,
    arguments: Sequence[str] = (),
    kept: Collection[Path] = (),
    keep: Callable[[], str] = lambda: "",
    get_launch: Callable[[], Callable[..., list[Outcome]]] = lambda: launch,
) -> list[Outcome]:
    """Prepare and run frozen configurations, show how it goes, and say at the end what came of it.

    Args:
        configs: one for each job.
        titles: what tells the jobs apart; default their rows or folders.
        n_jobs: at a time.
        fail_fast: stop everything at the first job that fails.
        retry_failed: run those again that failed before.
        rerun: run those again that have ended: True all, ``"changed"`` those whose code has changed.
        arguments: of the command that asks for all this, which :func:`read_requests` gives back; empty: unknown.
        kept: folders of runs that ``rerun`` does not mean.
        keep: writes down what the sweep is, once nothing is in the way, and returns what to say of it.
        get_launch: returns what runs the prepared jobs and waits for them; called before any is prepared.

    Returns:
        One outcome for each job, in order.

    Raises:
        UserError: the folders cannot be prepared, another sweep is at work in them, or W&B cannot be used.
    """
    if n_jobs < 1:
        raise UserError(f"hydra.launcher.n_jobs={n_jobs} must be at least 1.")
    for typed in map(read_config, configs):
        if not isinstance(typed.trainer.devices, int):
            raise UserError(
                f"trainer.devices={typed.trainer.devices} chooses GPUs, and a sweep gives each run its own; give "
                f"trainer.devices={typed.trainer.local_devices}, and CUDA_VISIBLE_DEVICES=... for all of them."
            )
    folders = sorted({sweep_path(config) for config in configs})
    said: list[str] = []
    check_wandb(configs, retry_failed, rerun)
    if any(source_folder(config) for config in configs):
        left = [path for path in map(run_path, configs) if needs_process(Job(path, "", 0), retry_failed, rerun)]
        check_sources(configs, left)
    with hold_tables(configs):
        run = get_launch()
        jobs = prepare_jobs(configs, titles, rerun, lambda: said.append(keep()), kept)
        note_request(configs, arguments)
        announce(configs, n_jobs, said)
        started = time.monotonic()
        with create_view(len(jobs), n_jobs) as view:
            outcomes = run(jobs, n_jobs=n_jobs, fail_fast=fail_fast, retry_failed=retry_failed, view=view)
        end_rerun(jobs)
    summarize(outcomes, folders, time.monotonic() - started)
    return outcomes


def note_request(configs: Sequence[Mapping[str, Any]], arguments: Sequence[str]) -> None:
    """Keep in each table's folder which command asked for which of its runs, for ``indexnet status``.

    Args:
        configs: one for each job, as frozen.
        arguments: of ``indexnet train``; nothing is kept where there are none.
    """
    if not arguments:
        return
    runs: dict[Path, list[str]] = {}
    for config in _of_tables(configs):
        path = run_path(config)
        runs.setdefault(sweep_path(config), []).append(f"{path.parent.name}/{path.name}")
    kept = [text for text in arguments if not text.startswith(("retry_failed=", "rerun="))]
    for folder, names in runs.items():
        if complaint := _read_requests(folder)[1]:
            os.replace(folder / _REQUESTS, folder / f"{_REQUESTS}{BROKEN}")
            warn(f"indexnet: {complaint} It is kept as {_REQUESTS}{BROKEN}.")
        request = {"arguments": kept, "directory": str(Path.cwd()), "runs": names}
        before = read_requests(folder)
        after = [*(each for each in before if each != request), request][-_KEPT:]
        if after != before:
            write_json(folder / _REQUESTS, {"requests": after})


def read_requests(folder: Path) -> list[dict[str, Any]]:
    """Read what :func:`note_request` kept, oldest first.

    Returns:
        ``arguments`` (of ``indexnet train``), ``directory`` (where it was given) and ``runs`` (``ROW/seed=N``) of each
        command; empty where nothing is there, or where it is damaged, which is said.
    """
    found, complaint = _read_requests(folder)
    if complaint:
        warn(f"indexnet: {complaint} So it is not known which commands asked for these runs.")
    return found


def _read_requests(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Return what :func:`note_request` kept, and what is wrong with the file."""
    file = folder / _REQUESTS
    try:
        found: Any = read_mapping(file, read_json).get("requests")
    except FileNotFoundError:
        return [], ""
    except DamagedFileError as error:
        return [], str(error)
    asked = fits(found, list[dict[str, Any]])
    if not asked or not all(fits(each.get(key), hint) for each in found for key, hint in _REQUEST.items()):
        return [], f"{file} does not hold requests."
    return found, ""


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return 0 where every job has a result, 3 where some have none."""
    return 0 if all(outcome.status in ("done", "before") for outcome in outcomes) else PARTLY
