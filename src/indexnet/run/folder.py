"""The folder of one run: its path is built from names, its config never changes, one process at a time writes to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from indexnet.core.errors import UserError
from indexnet.core.files import UnwritableError, atomic_write, writing
from indexnet.core.locks import HeldError, exclusive, held
from indexnet.core.readers import DamagedFileError, read_mapping
from indexnet.run.identity import config_hash, is_place
from indexnet.run.record import DamagedRunError, Record, Status
from indexnet.run.schema import Rerun, TrainingConfig, flatten, read_config
from indexnet.run.schema_checks import check_frozen
from indexnet.run.trainer_options import with_present_names, with_trainer

EARLIER = "earlier"
"""The folder, in that of a run, of its earlier results: ``earlier/1/``, ``earlier/2/``, ..."""
_MOVING = ".moving"  # what the name of such a folder ends with until all has come
_AGAIN = ".again"  # a file in it, until the command has ended that had the run done again
_STAYS = ("config.yaml", ".lock", EARLIER)
_FILES = ("config.yaml", "record.json", "progress.json", "per_image.csv", "console.log", ".lock", "csv/metrics.csv")
_FOLDERS = ("checkpoints", "csv", "pictures", "tensorboard", EARLIER)


def run_path(config: Mapping[str, Any]) -> Path:
    """Return where a frozen configuration's results belong.

    ``<runs>/<experiment>/<data>-<budget>/<row>/seed=<n>``, or ``<runs>/single/<task>-<hash>`` without an experiment.
    """
    runs, experiment = Path(config["paths"]["runs"]), config["experiment"]
    if experiment["name"] is None:
        return runs / "single" / f"{config['task']['name']}-{config_hash(config)}"
    if experiment["row"] is None:
        raise UserError(
            f"experiments={experiment['name']} describes a table of several runs; launch it with -m "
            f"(`indexnet train -m experiments={experiment['name']}`), with rows=NAME for one of its rows."
        )
    setting = f"{config['data']['name']}-{config['budget']['name']}"
    return runs / str(experiment["name"]) / setting / str(experiment["row"]) / f"seed={config['seed']}"


def sweep_path(config: Mapping[str, Any]) -> Path:
    """Return the folder of a whole sweep: of one table on one data set at one budget, or of all single runs."""
    path = run_path(config)
    return path.parent if config["experiment"]["name"] is None else path.parent.parent


@dataclass(frozen=True)
class RunFolder:
    """One run's folder: ``config.yaml``, ``record.json``, ``per_image.csv``, ``checkpoints/``, logs, ``pictures/``.

    What the run came to before it was done again lies in ``earlier/<n>/``.
    """

    path: Path

    def config(self) -> dict[str, Any]:
        """Read the frozen configuration, its keys under their present names.

        Raises:
            UserError: the folder holds none.
            DamagedRunError: what it holds is none.
        """
        file = self.path / "config.yaml"
        try:
            config = dict(with_trainer(read_mapping(file), with_present_names))
            check_frozen(config, f"{file}")
        except FileNotFoundError:
            raise UserError(f"{self.path} is no run folder: it has no config.yaml.") from None
        except DamagedFileError as error:
            raise DamagedRunError(f"{error} Restore it, or move its folder away to run again.") from error
        return config

    def check_places(self) -> None:
        """Refuse a folder where a run keeps a file, and the other way round, what is neither, and what is locked away.

        Raises:
            DamagedRunError: there is one; the message names it.
        """
        try:
            os.listdir(self.path)
            os.lstat(self.path / "config.yaml")
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise DamagedRunError(
                f"{self.path} cannot be looked into ({error.strerror}); change its permissions, or give "
                "paths.runs=ANOTHER_FOLDER."
            ) from error
        for name in ("", *_FILES, *_FOLDERS):
            path, is_file = self.path / name, name in _FILES
            if os.path.lexists(path) and not (os.path.isfile if is_file else os.path.isdir)(path):
                neither = f"{'a link to ' if path.is_symlink() else ''}no file or folder that can be used"
                found = "a folder" if os.path.isdir(path) else "a file" if os.path.isfile(path) else neither
                kept = "keeps a file" if is_file else "keeps a folder" if name else "has its folder"
                raise DamagedRunError(f"{path} is {found}, and a run {kept} there; move it away.")

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Refuse the configuration of another run than the folder's record is of.

        Raises:
            DamagedRunError: it is, or the record cannot be read.
        """
        record = self.record()
        if record is not None and record.config_hash not in (None, config_hash(config)):
            file = self.path / "config.yaml"
            said = "is not what record.json beside it was made with; restore it"
            if not os.path.lexists(file):
                said = "is missing, and record.json beside it is of another configuration; restore both"
            raise DamagedRunError(f"{file} {said}, or move its folder away to run again.")

    def record(self) -> Record | None:
        """Read the record, or return None where there is none yet.

        Raises:
            DamagedRunError: it is damaged, or a newer version of this program wrote it.
        """
        return Record.read(self.path)

    def status(self) -> Status | Literal["new"]:
        """Return how far the run is; ``running`` also where it was killed, see :meth:`locked`.

        Raises:
            DamagedRunError: its record cannot be read.
        """
        record = self.record()
        return "new" if record is None else record.status

    def checkpoint(self) -> Path:
        """Return the path of the last checkpoint, whether it exists or not."""
        return self.path / "checkpoints" / "last.ckpt"

    def previous_checkpoint(self) -> Path:
        """Return the path of the checkpoint before the last one, which a run keeps while it trains."""
        return self.path / "checkpoints" / "previous.ckpt"

    def best_checkpoint(self) -> Path:
        """Return the path of the checkpoint that was best in validation."""
        return self.path / "checkpoints" / "best.ckpt"

    def came_to_nothing(self) -> bool:
        """Whether a run with other options may take its place: it has not begun, or failed before its first checkpoint.

        Raises:
            DamagedRunError: its record cannot be read.
        """
        status = self.status()
        begun = any((self.path / "checkpoints").glob("*"))
        untouched = status == "new" and set(os.listdir(self.path)) <= {"config.yaml", ".lock", EARLIER}
        return (untouched or (status == "failed" and not begun)) and not self.locked()

    def runs_again(self, rerun: Rerun) -> bool:
        """Whether a run has ended, ``done`` or ``diverged``, and is to be done again.

        Args:
            rerun: ``"changed"``: where its code has changed; True: in any case, but not where the same was asked for
                and did not come to its end, see :meth:`set_aside`.

        Raises:
            DamagedRunError: its record cannot be read.
        """
        if rerun is False:
            return False
        record = self.record()
        if record is None or record.status not in ("done", "diverged"):
            return False
        return bool(record.changed_code()) if rerun == "changed" else not self.done_again()

    def done_again(self) -> bool:
        """Whether a command has set the results aside and not ended yet, see :meth:`end_rerun`."""
        return any(os.path.isfile(file.parent / "record.json") for file in self._again())

    def set_aside(self) -> None:
        """Move the results of a run that has ended into ``earlier/<n>/``, all but ``config.yaml``, which is copied.

        Hold the folder's lock. The record moves first: a kill before leaves the run as it was, one after it a run that
        is new, whose :meth:`settle` moves the rest.

        Raises:
            UnwritableError: a file cannot be moved; DiskFullError where there is no room.
        """
        self.settle()
        earlier = self.path / EARLIER
        number = max((int(path.name) for path in earlier.glob("*") if path.name.isdecimal()), default=0) + 1
        moving = earlier / f"{number}{_MOVING}"
        with writing(moving):
            atomic_write(moving / "config.yaml", (self.path / "config.yaml").read_bytes())
            (moving / _AGAIN).touch()
            os.replace(self.path / "record.json", moving / "record.json")
        self.settle()

    def settle(self) -> None:
        """End a :meth:`set_aside` that was killed; hold the folder's lock.

        Raises:
            UnwritableError: a file cannot be moved.
        """
        for moving in (self.path / EARLIER).glob(f"*{_MOVING}"):
            if not os.path.isfile(moving / "record.json"):
                continue  # nothing has been moved: the results are still in their place
            for name in sorted(os.listdir(self.path)):
                if name not in _STAYS:
                    target = moving / name
                    while os.path.lexists(target):
                        target = target.with_name(f"{target.name}~")
                    with writing(self.path / name):
                        os.replace(self.path / name, target)
            with writing(moving):
                os.replace(moving, moving.with_suffix(""))

    def end_rerun(self) -> None:
        """Note that the command has ended that had the run done again: the next ``rerun=true`` does it once more.

        Raises:
            UnwritableError: it cannot be noted.
        """
        for file in self._again():
            with writing(file):
                file.unlink(missing_ok=True)

    def _again(self) -> list[Path]:
        return list((self.path / EARLIER).glob(f"*/{_AGAIN}"))

    def earlier_count(self) -> int:
        """Return how many earlier results have been set aside."""
        return sum(os.path.isfile(path / "record.json") for path in (self.path / EARLIER).glob("*"))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the kernel lets go when the process ends, however it ends.

        Raises:
            HeldError: another process holds it.
        """
        with exclusive(self.path / ".lock", f"{self.in_use}; wait for it or stop it."):
            yield

    @property
    def in_use(self) -> str:
        """What to say where another process is at work here."""
        return f"{self.path} is in use by another process"

    def locked(self) -> bool:
        """Return whether a process is at work here.

        Raises:
            UserError: the file system has no locks.
        """
        return held(self.path / ".lock")


def prepare(config: Mapping[str, Any]) -> RunFolder:
    """Create the folder of a frozen configuration, or find it.

    A folder whose record cannot be read is left as it is: whoever runs it is told.

    Raises:
        UserError: the folder exists with another configuration, and its run came to something; or with a run on other
            files.
        DamagedRunError: it cannot be made, or what it holds is damaged; other runs can go on.
        UnwritableError: it is there and cannot be written; likewise.
    """
    folder = RunFolder(run_path(config))
    file = folder.path / "config.yaml"
    folder.check_places()
    if os.path.isfile(file):
        there = folder.config()
        if config_hash(there) != config_hash(config):
            folder.check_config(there)
            if not folder.came_to_nothing():
                raise UserError(
                    f"{folder.path} holds a run with another configuration ({difference(there, config)}); "
                    "give paths.runs=ANOTHER_FOLDER, or move or delete that folder."
                )
            with folder.lock():
                if folder.status() == "failed":
                    folder.set_aside()
                atomic_write(file, yaml.safe_dump(dict(config), sort_keys=False))
            return folder
        if any((folder.path / EARLIER).glob(f"*{_MOVING}")):
            with contextlib.suppress(HeldError), folder.lock():
                folder.settle()
        try:
            _check_files(folder, there, config)
            if there == config or folder.status() == "done":
                return folder
        except DamagedRunError:
            return folder
        with contextlib.suppress(HeldError), folder.lock():  # loggers, workers and places may change from try to try
            atomic_write(file, yaml.safe_dump(dict(config), sort_keys=False))
        return folder
    folder.check_config(config)
    try:
        atomic_write(file, yaml.safe_dump(dict(config), sort_keys=False))
    except UnwritableError as error:
        reason = f"{folder.path} cannot be made ({error.reason}); give paths.runs=ANOTHER_FOLDER."
        raise DamagedRunError(reason) from error
    return folder


def _check_files(folder: RunFolder, there: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse to take a run for one on the files of another ``data.root``, unless both hold the same.

    Raises:
        UserError: they differ, or cannot be read.
    """
    old, new = (_roots(each) for each in (there, config))
    if old == new:
        return
    record = folder.record()
    if record is None or record.data.train.fingerprint is None:
        return
    from indexnet.run.further_tests import describe_further, further_splits
    from indexnet.run.loader import build_data, describe_splits, measured_splits, training_splits

    data = build_data(config["data"], config["task"]["name"], config["training"]["size"])
    tests = measured_splits(data, config.get("split", "test"))
    train, _ = training_splits(data, TrainingConfig(**config["training"]))
    further = describe_further(further_splits(read_config(config)))
    there_now = (train.fingerprint(), describe_splits(tests)["fingerprint"], further)
    if there_now != (record.data.train.fingerprint, record.data.test.fingerprint, record.data.tests):
        key = next(key for key in old if old[key] != new.get(key))
        raise UserError(
            f"{folder.path} holds a run on the files of {key}={old[key]}, and {key}={new.get(key)} has others; give "
            "paths.runs=ANOTHER_FOLDER, or move or delete that folder."
        )


def _roots(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the folders of a configuration's data sets, that of its own one first."""
    further = {f"tests.{each['name']}.root": each.get("root") for each in config.get("tests") or ()}
    return {"data.root": config["data"].get("root"), **further}


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Name the first key in which two configurations differ, with both values."""
    there, here = flatten(old), flatten(new)
    for key in there | here:
        if there.get(key) != here.get(key) and not is_place(key):
            return f"{key} is {there.get(key)!r} there and {here.get(key)!r} here"
    return "the difference is in keys that do not matter"
