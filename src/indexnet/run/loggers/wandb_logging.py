"""The W&B run of a run folder: how it starts, goes on and ends.

There is one for every run folder, with an id that is kept in it, so two jobs never share one and a resumed job
continues its own.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import itertools
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.core.escape import csv_text
from indexnet.core.files import atomic_write
from indexnet.core.readers import read_csv
from indexnet.core.registry import unknown_name
from indexnet.run.experiments.experiment import COST_CELLS, known_metrics
from indexnet.run.experiments.tables import load_experiment
from indexnet.run.folder import RunFolder
from indexnet.run.loggers.wandb_identity import kept_id
from indexnet.run.loggers.wandb_names import (
    LOSS,
    PER_IMAGE,
    RECORD,
    STEP,
    metric_key,
    picture_key,
    printed_key,
    setting_tag,
    validation_key,
)
from indexnet.run.record import Record
from indexnet.run.run_sets import finite, read_pictures, read_run
from indexnet.run.schema import MODES

_ALIASES = {"dryrun": "offline", "run": "online", "shared": "online"}  # what WANDB_MODE may say as well
_EXIT_CODES = {"done": 0, "failed": 1, "diverged": 5}
_INTERRUPTED = 255  # W&B calls it killed
_TEMPORARY = ".temporary"  # in the folder of W&B's files
_made: list[Path] = []  # what wandb made when it was imported, and uses until the process ends
_FINISH_TIMEOUT = 60  # seconds to wait for uploads at the end of a run, unless WANDB_FINISH_TIMEOUT says another


def settle_mode(mode: str) -> str:
    """Return ``online``, ``offline``, ``disabled`` or, where it depends on who is logged in, ``auto``.

    Args:
        mode: the key ``logger.mode``; where that is ``auto``, the environment variable ``WANDB_MODE`` decides.

    Raises:
        UserError: an unknown mode.
    """
    said = "logger.mode"
    if mode == "auto" and os.environ.get("WANDB_MODE"):
        mode, said = os.environ["WANDB_MODE"], "WANDB_MODE"
        mode = _ALIASES.get(mode, mode)
    if mode not in MODES:
        raise unknown_name(said, mode, MODES)
    return mode


class UnusableError(UserError):
    """W&B cannot be used as asked for: nothing that is wrong with the run, which can begin once that is mended."""


def check_use(mode: str) -> None:
    """Refuse a mode that cannot be had here, without starting a run.

    Args:
        mode: from :func:`settle_mode`.

    Raises:
        UnusableError: wandb is missing, or the mode is ``online`` and the server cannot be used.
    """
    if mode == "disabled":
        return
    _need_wandb()
    if mode == "online":
        with tempfile.TemporaryDirectory() as folder, _environment(Path(folder)):
            _usable_mode(mode)


def _need_wandb() -> None:
    if importlib.util.find_spec("wandb") is None:
        raise UnusableError("logger.wandb=true needs the package wandb: pip install wandb, or give logger.wandb=false.")


def printed_values(name: str | None, row: str | None) -> dict[str, float | str]:
    """Return what the paper printed for a row of an experiment: metric, ``params`` and ``gflops`` -> cell.

    Numbers where the cell is a plain one, else the cell as printed (``+4.99K``); nothing for a run outside a table.
    """
    if name is None:
        return {}
    try:
        experiment = load_experiment(name)
    except UserError:  # the file has changed since the run was frozen; the run is still what it is
        return {}
    printed = next((each.printed for each in experiment.rows if each.name == row), {})
    cells = {column.metric: printed.get(column.printed, "") for column in experiment.columns if column.printed}
    cells |= {cell: printed.get(cell, "") for cell in COST_CELLS}
    return {key: _plain(cell) for key, cell in cells.items() if cell}


def _plain(cell: str) -> float | str:
    value = finite(cell)
    return cell if value is None or cell.startswith("+") else value


def start_run(
    folder: RunFolder,
    record: Record,
    content: Mapping[str, Any],
    project: str,
    mode: str,
    start: int,
    rows: Sequence[Mapping[str, str]] | None,
) -> Any:
    """Start the W&B run of a folder, or continue it.

    Args:
        folder: of the run.
        record: of the run as it begins, with the name of its data.
        content: its frozen configuration, to be shown.
        project: of W&B.
        mode: from :func:`settle_mode`, but not ``disabled``.
        start: optimizer steps that are done already.
        rows: what was logged up to there, as lines of ``csv/metrics.csv``, as far as it is known; None: nothing is.

    Raises:
        UnusableError: wandb is missing, or the mode is ``online`` and the server cannot be used.
    """
    _need_wandb()
    for left in (folder.path / "wandb" / _TEMPORARY).glob("*"):  # of a try that was killed; nobody else is at work here
        if left.name != str(os.getpid()):
            shutil.rmtree(left, ignore_errors=True)
    with _environment(folder.path):
        import wandb

        mode = _usable_mode(mode)
        identity = kept_id(folder, str(record.config_hash), content["data"].get("root"))
        whole = start == 0 or (rows is not None and _are_whole(rows, start))
        if mode == "offline" and not whole:
            rows = None  # in the earlier log
        elif mode == "offline":
            # A killed process leaves a log whose end, and maybe whose beginning, was never written. The new one holds
            # everything: what the killed try logged stands in ``rows``.
            for old in (folder.path / "wandb").glob(f"offline-run-*-{identity}"):
                shutil.rmtree(old)
        row, experiment, printed = record.row, record.experiment, printed_values(record.experiment, record.row)
        single = "-".join(filter(None, [record.task, *(record.resampling.get(key) for key in ("name", "family"))]))
        printed = {printed_key(key): value for key, value in printed.items()}
        settings = wandb.Settings(
            silent=True,
            console="off",  # it is in console.log
            init_timeout=30,
            finish_timeout_raises=True,
            disable_job_creation=True,
        )
        if "WANDB_FINISH_TIMEOUT" not in os.environ:
            settings.finish_timeout = _FINISH_TIMEOUT
        try:
            run = wandb.init(
                project=project,
                name=f"{row or single}-seed{record.seed}",
                id=identity,
                dir=str(folder.path),
                group=experiment or record.task,
                job_type=row or "single",
                tags=_tags(record),
                config={**content, **printed},
                mode=mode,  # type: ignore[arg-type]
                # Without "allow", what a server has of the run is replaced: right for a run that begins, and for an
                # offline log, which is whole.
                resume=None if start == 0 or (mode == "offline" and whole) else "allow",
                # never in a run that somebody else has open in this process, which Lightning's logger would take
                reinit="create_new",
                settings=settings,
            )
        except wandb.errors.Error as error:
            if mode == "offline":
                raise
            raise _offline_instead(f"W&B does not take the run ({_line(error)})") from error
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        for metric, best in _best(str(record.task)).items():
            run.define_metric(validation_key(metric), step_metric=STEP, step_sync=True, summary=f"{best},last")
        run.summary.update({key: value for key, value in printed.items() if isinstance(value, float)})
        _log_again(run, rows or ())
    where = f"{run.url}" if mode == "online" else f"offline; `wandb sync {folder.path / 'wandb'}` uploads it"
    print(f"W&B run {identity}: {where}", flush=True)
    return run


def _tags(record: Record) -> list[str]:
    data, budget = str(record.data.name), str(record.budget)
    names = (str(record.task), record.resampling["name"], budget, data, setting_tag(data, budget))
    return list(dict.fromkeys((*(record.experiment.split("/") if record.experiment else ()), *names, *record.tags)))


def _best(task: str) -> dict[str, str]:
    """Return for each metric of a task which of its values is the best, ``min`` or ``max``."""
    from indexnet.tasks import get_task

    facts = known_metrics()
    names = [name for name in get_task(task).metric_names if name in facts]
    return {name: "max" if facts[name].higher_is_better else "min" for name in names}


def _usable_mode(mode: str) -> str:
    """Return ``online`` where the server is there and takes the key, else ``offline``.

    Raises:
        UnusableError: ``online`` is asked for, and cannot be.
    """
    import wandb

    if mode == "offline":
        return mode
    for patient in (mode == "online", False):  # a busy machine may take longer than W&B waits: once more
        try:
            if wandb.login(prompt=False, verify=True):
                return "online"
            why = "no key is configured, `wandb login` does it"
            break
        except wandb.errors.Error as error:
            late = "did not respond in time" in str(error)
            why = "no answer" if late else _line(error)
            if not (late and patient):
                break
    if mode == "auto" and not why.startswith("no key"):
        print(f"indexnet: W&B cannot be used online ({why}): logging offline.", file=sys.stderr)
    if mode == "auto":
        return "offline"
    raise _offline_instead(f"W&B cannot be used online ({why})")


def _offline_instead(what: str) -> UnusableError:
    return UnusableError(f"{what}; give logger.mode=offline to log to files that `wandb sync` uploads later.")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _are_whole(rows: Sequence[Mapping[str, str]], start: int) -> bool:
    """Return whether rows are all that was logged before a step: the loss at one in so many, from the beginning on.

    They are not where an earlier try had no CSV logger.
    """
    steps = sorted({int(row["step"]) for row in rows if row.get(LOSS)})
    gaps = [after - before for before, after in itertools.pairwise([-1, *steps, start - 1])]
    return bool(steps) and len(set(gaps[:-1])) == 1 and gaps[-1] < gaps[0]


def _log_again(run: Any, rows: Sequence[Mapping[str, str]]) -> None:
    """Log what an earlier try logged and the run does not have: all of it offline, what was still on its way online."""
    seen = run.summary.get(STEP)
    for row in rows:
        step = int(row["step"])
        if seen is None or step > seen:
            values = {key: float(value) for key, value in row.items() if value and key != "step"}
            run.log({**values, STEP: step})


def finish_run(run: Any, folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Hand over the record, and of a finished run its metrics, pictures and per-image values; then close the run.

    What goes wrong here is shown, and changes nothing of a run whose record is written.
    """
    import wandb

    said = f"indexnet: {folder.path}: the record is complete, but W&B"
    with _environment(folder.path):
        try:
            _log_results(run, folder, record)
        except wandb.errors.Error as error:
            print(f"{said} did not take all of it ({_line(error)}).", file=sys.stderr)
        except Exception:
            traceback.print_exc()
            print(f"{said} did not take all of it.", file=sys.stderr)
        try:
            run.finish(exit_code=_EXIT_CODES.get(record["status"], _INTERRUPTED))
        except TimeoutError:
            upload = f"wandb sync --include-online {folder.path / 'wandb'}"
            waited = f"{run.settings.finish_timeout:g} s"
            print(f"{said} did not answer for {waited}; `{upload}` uploads the rest.", file=sys.stderr)
        except Exception as error:  # its service process has died
            print(f"{said} could not be closed ({_line(error)}).", file=sys.stderr)


def _log_results(run: Any, folder: RunFolder, record: Mapping[str, Any]) -> None:
    import wandb

    metrics = {metric_key(name): value for name, value in record["metrics"].items() if value is not None}
    run.summary.update({RECORD: dict(record), **metrics})
    file = folder.path / "record.json"
    if file.is_file():
        # in the W&B run's own folder, or W&B keeps a link to the absolute path
        copy = Path(run.dir) / file.name
        atomic_write(copy, file.read_bytes())
        run.save(str(copy), base_path=run.dir, policy="now")
    if record["status"] != "done":
        return
    shown: dict[str, Any] = {}
    for picture in read_pictures(read_run(folder.path)):
        image = wandb.Image(str(picture.path), caption=f"{picture.sample}: {picture.caption}")
        shown.setdefault(picture_key(picture.kind, picture.stage), []).append(image)
    if shown:
        run.log({**shown, STEP: record["steps"]})
    per_image = folder.path / "per_image.csv"
    if per_image.is_file():  # last: online, a table asks the server at once
        lines = [list(line.items()) for line in read_csv(per_image)]
        data = [[csv_text(name), *(float(cell) if cell else None for _, cell in cells)] for (_, name), *cells in lines]
        run.log({PER_IMAGE: wandb.Table(columns=[key for key, _ in lines[0]], data=data), STEP: record["steps"]})


_JWT = "SLURM_JWT"  # a cluster's key: wandb writes down what begins with SLURM_


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Let wandb write below the run's folder only, and leave no variable of its own behind: other jobs may follow.

    It makes temporary folders when it is imported, for pictures and tables on their way, which it removes only where
    the process ends in peace. They lie there, too.
    """

    def variables() -> dict[str, str]:
        return {key: value for key, value in os.environ.items() if key.startswith("WANDB_") or key == _JWT}

    before, own = variables(), folder / "wandb"
    for key in ("WANDB_MODE", "WANDB_RESUME", _JWT):  # settled already
        os.environ.pop(key, None)
    os.environ["WANDB_SILENT"] = "true"
    for name, place in (("DATA", ".data"), ("ARTIFACT", ".artifacts"), ("CACHE", ".cache")):
        os.environ[f"WANDB_{name}_DIR"] = str(own / place)
    temporary = own / _TEMPORARY / str(os.getpid())
    if not temporary.is_dir():
        temporary.mkdir(parents=True)
        atexit.register(_remove, temporary)
    for path in _made:  # as the folder may be gone that the first run of this process had
        path.mkdir(parents=True, exist_ok=True)
    tempdir, tempfile.tempdir = tempfile.tempdir, str(temporary)
    try:
        if "wandb" not in sys.modules:
            import wandb  # noqa: F401

            _made.extend(temporary.iterdir())
        yield
    finally:
        tempfile.tempdir = tempdir
        for key in variables():
            del os.environ[key]
        os.environ.update(before)


def _remove(temporary: Path) -> None:
    """Remove a process's temporary folder, and what it lies in where that is empty."""
    shutil.rmtree(temporary, ignore_errors=True)
    with contextlib.suppress(OSError):
        temporary.parent.rmdir()
