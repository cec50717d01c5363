"""Data sets for anybody's Trainer: ``trainer.fit(task, datamodule=DataModule("scenes", task="depth"))``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info
from torch.utils.data import DataLoader

from indexnet.core.errors import UserError
from indexnet.data import Data, Dataset, create_data, get_data
from indexnet.data.base import check_choice, check_count
from indexnet.data.holdout import HeldOut, hold_out
from indexnet.run.callbacks import StepSeed
from indexnet.run.loader import EpochSampler, evaluation_loader, train_loader
from indexnet.tasks import get_task

Loader = DataLoader[dict[str, Any]]


class DataModule(pl.LightningDataModule):
    """A data set as a ``LightningDataModule``: training, validation, test and prediction.

    Nothing is downloaded. The order of an epoch follows from (seed, epoch), a training sample from (seed, epoch,
    index), and what a loss or a dropout draws from (seed, batch, process), for which torch is seeded before every
    training batch. So a fit that Lightning resumes from any of its checkpoints, in the middle of an epoch as well, ends
    with the weights that it would have had, with any ``num_workers``. An epoch leaves out what does not fill a last
    batch.

    There is always something to validate on: the data set's own split, or a share of the training split that is held
    out and not trained on, whole groups of samples that belong together (see :mod:`indexnet.data.holdout`), the same
    for every ``seed``.

    On several processes each has its share: in training batches of ``batch_size`` samples, elsewhere every sample once.

    Args:
        data: name of the data set (``indexnet list data``); or a data set that was built with
            :func:`indexnet.data.create_data`, for those with an option that is called ``seed`` or ``size`` here too.
        task: name of the task, which says what samples carry; may be left out where the data set serves one alone.
        batch_size: samples of a training batch, on each device.
        size: side of a training sample in pixels; None: as the data set has it by itself, see its documentation.
        num_workers: processes that load samples; 0: this one does.
        holdout: share of the training split, 0 < holdout < 1, to validate on where the data set has no validation
            split; 0: train on everything, and validate nothing then.
        seed: of the order of training samples and of their augmentation; at least 0.
        test_batch_size: samples of a batch that is not for training; None: the task's own, see
            :class:`~indexnet.tasks.Task`. Images that differ in size come one by one.
        predict_split: what ``trainer.predict`` sees: ``"test"``, ``"validation"`` or ``"train"``.
        **options: the data set's own options, such as ``root``.

    Attributes:
        data: the data set, with ``channels`` and ``classes``.

    Raises:
        UserError: an argument or an option is unknown or impossible, here; files are missing, in :meth:`setup`.
    """

    def __init__(
        self,
        data: str | Data,
        task: str | None = None,
        batch_size: int = 1,
        size: int | None = None,
        num_workers: int = 0,
        holdout: float = 0.1,
        seed: int = 0,
        *,
        test_batch_size: int | None = None,
        predict_split: str = "test",
        **options: Any,
    ) -> None:
        super().__init__()
        self.data = _find_data(data, task, size, options)
        self.batch_size = check_count("batch_size", batch_size)
        self.num_workers = num_workers if num_workers == 0 else check_count("num_workers", num_workers)
        self.test_batch_size = None if test_batch_size is None else check_count("test_batch_size", test_batch_size)
        if isinstance(holdout, bool) or not isinstance(holdout, int | float) or not 0 <= holdout < 1:
            raise UserError(f"holdout must be a number, 0 or more and below 1; got {holdout!r}.")
        check_choice("predict_split", predict_split, ("test", "validation", "train"))
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UserError(f"seed must be a whole number, at least 0; got {seed!r}.")
        self.predict_split, self.seed, self.holdout = predict_split, seed, holdout
        if isinstance(data, str):  # plain data, which a checkpoint may hold
            arguments = {
                "task": task,
                "batch_size": batch_size,
                "size": size,
                "num_workers": num_workers,
                "holdout": holdout,
                "seed": seed,
                "test_batch_size": test_batch_size,
                "predict_split": predict_split,
            }  # given, because Lightning would take those of whoever calls this
            self.save_hyperparameters({"data": data, **arguments, **options}, logger=False)

    # --- splits --------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _own_validation(self) -> Dataset | None:
        return self.data.validation()

    @functools.cached_property
    def _parts(self) -> tuple[Dataset, Dataset | None]:
        """The training split, and what is held out of it."""
        train = self.data.train()
        if self.holdout == 0 or self._own_validation is not None:
            return train, None
        return hold_out(train, self.holdout)

    @property
    def train_set(self) -> Dataset:
        """The training split, without what is held out.

        Raises:
            NoSplitError: the data set is for testing only.
            UserError: files are missing, or nothing can be held out.
        """
        return self._parts[0]

    @property
    def val_set(self) -> Dataset | None:
        """The data set's validation split, or what is held out; None with ``holdout=0`` where there is no such split.

        Raises:
            NoSplitError: the data set is for testing only.
            UserError: files are missing, or nothing can be held out.
        """
        return self._parts[1] if self._own_validation is None else self._own_validation

    @functools.cached_property
    def test_sets(self) -> Mapping[str, Dataset]:
        """The test splits by name, in the order of their loaders; the name is empty where there is one alone.

        Raises:
            UserError: files are missing.
        """
        return self.data.tests()

    def splits(self, stage: str) -> list[Dataset]:
        """Return what a stage sees: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.

        Raises:
            NoSplitError: the data set is for testing only, and the stage is not.
            UserError: files are missing, nothing can be held out, or there is nothing to validate on.
        """
        kinds = {"fit": ("train", "validation"), "validate": ("validation",), "predict": (self.predict_split,)}
        found: list[Dataset] = []
        for kind in kinds.get(stage, ("test",)):
            if kind == "test":
                found += self.test_sets.values()
            elif kind == "train":
                found.append(self.train_set)
            elif self.val_set is not None:
                found.append(self.val_set)
            elif stage != "fit":
                raise UserError(
                    f"data={self.data.name} has no validation split as it is configured; give holdout=0.1, or "
                    f"{self.data.validation_remedy}."
                )
        return found

    def setup(self, stage: str) -> None:
        """Find the files of what a stage needs, and decode them once where memory allows.

        Raises:
            UserError: as :meth:`splits`, a file is damaged, or the training split has fewer samples than a batch.
        """
        for split in self.splits(stage):
            if said := split.prepare(self._reads(split) if stage == "fit" else len(split)):
                rank_zero_info(f"data {self.data.name}, {split.split}: {said}")
        if stage == "fit":
            count, wanted = len(self.train_set), self.batch_size * self._world
            if count < wanted:
                raise UserError(
                    f"a batch takes {wanted} samples (batch_size={self.batch_size}, processes: {self._world}), but the "
                    f"training split has {count}; give a smaller batch_size."
                )
            if self.trainer is not None:
                callbacks: list[pl.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
                callbacks[:] = [BatchSeed(self.seed), *(each for each in callbacks if not isinstance(each, BatchSeed))]

    def _reads(self, split: Dataset) -> int | None:
        """Return how many samples of a split a fit asks for, where that is known."""
        trainer = self.trainer
        if trainer is None or split is not self.train_set:
            return None
        batches = [trainer.max_steps * trainer.accumulate_grad_batches] if trainer.max_steps > 0 else []
        epochs = trainer.max_epochs or 0
        reads = [count * self.batch_size * self._world for count in batches] + [epochs * len(split)] * (epochs > 0)
        return min(reads, default=None)

    # --- loaders -------------------------------------------------------------------------------------------------

    @property
    def _world(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    def _done(self) -> int:
        assert self.trainer is not None
        return _batches_done(self.trainer)

    def train_dataloader(self) -> Loader:
        """Return the loader of epochs; without a Trainer, ``loader.sampler.set_epoch`` says of which one."""
        sampler = EpochSampler(
            self.train_set, self.batch_size, self.seed, rank=self._rank, world=self._world,
            done=None if self.trainer is None else self._done,
        )  # fmt: skip
        return train_loader(self.train_set, sampler, self.num_workers)

    def _loaders(self, stage: str) -> list[Loader]:
        loaders = []
        for split in self.splits(stage):
            if len(split) < self._world:
                raise UserError(
                    f"{self._world} processes are more than the {len(split)} images of the {split.split} split; use "
                    "fewer."
                )
            if self.test_batch_size not in (None, 1) and not split.one_size:
                raise UserError(
                    f"test_batch_size={self.test_batch_size}, but the images of the {split.split} split of "
                    f"data={self.data.name} may differ in size and come one by one; leave it out."
                )
            training = isinstance(split, HeldOut) or split.split == "train"
            own = self.batch_size if training else get_task(self.data.task).test_batch_size
            size = own if self.test_batch_size is None else self.test_batch_size
            loaders.append(evaluation_loader(split, size, self.num_workers, rank=self._rank, world=self._world))
        return loaders

    def val_dataloader(self) -> Loader | list[Loader]:
        """Return the loader of :attr:`val_set`; none where there is nothing to validate on."""
        return [] if self.val_set is None else self._loaders("validate")[0]

    def test_dataloader(self) -> list[Loader]:
        """Return a loader of each of :attr:`test_sets`, in their order."""
        return self._loaders("test")

    def predict_dataloader(self) -> Loader | list[Loader]:
        """Return the loader of what is predicted, or one of each test split where there are several."""
        loaders = self._loaders("predict")
        return loaders[0] if len(loaders) == 1 else loaders

    # --- going on ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a fit that goes on must find again, for checkpoints; where it goes on, its Trainer knows."""
        if self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return {}
        return {
            "data": self.data.name,
            "fingerprint": self._fingerprint,
            "batch": self.batch_size * self._world,
            "seed": self.seed,
            "done": self._done(),
        }

    @functools.cached_property
    def _fingerprint(self) -> str:
        return self.train_set.fingerprint()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare what a checkpoint was trained on with what a fit is to go on with.

        Raises:
            UserError: they differ.
        """
        if self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        remedy = "give the same, or load the weights alone with indexnet.load and train anew"
        for key, text in (("data", "data={}"), ("seed", "seed={}"), ("batch", "batches of {} samples")):
            now = self.state_dict()[key]
            if state_dict.get(key, now) != now:
                raise UserError(
                    f"the checkpoint was trained with {text.format(state_dict[key])} and cannot go on with "
                    f"{text.format(now)}; {remedy}."
                )
        if state_dict.get("fingerprint", self._fingerprint) != self._fingerprint:
            raise UserError(
                f"the checkpoint was trained on other samples of data={self.data.name}: other files, options or "
                f"holdout; {remedy}."
            )


class BatchSeed(StepSeed):
    """What a training batch draws (noise, dropout) follows from (seed, batch, process), whatever epoch it is in."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        super().on_train_batch_start(trainer, module, batch, _batches_done(trainer))


def _batches_done(trainer: pl.Trainer) -> int:
    """Return the training batches that are done, in all epochs of a fit and before it was resumed."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]


def _find_data(data: str | Data, task: str | None, size: int | None, options: Mapping[str, Any]) -> Data:
    """Build a data set, or check that nothing else is said of one that exists.

    Raises:
        UserError: a name or an option is unknown or impossible, or none can be given.
    """
    if isinstance(data, Data):
        given = [key for key, value in {"size": size, **options}.items() if value is not None]
        if given:
            raise UserError(f"{given[0]} is an option of the data set, which exists already; give it to create_data.")
        if task not in (None, data.task):
            raise UserError(f"task={task}, but data={data.name} was built for the task {data.task}; leave task out.")
        return data
    tasks = get_data(data).info.tasks
    if task is None and len(tasks) > 1:
        raise UserError(f"data={data} serves several tasks; say for which it is: task={' or '.join(tasks)}.")
    chosen = tasks[0] if task is None else task
    get_task(chosen)
    return create_data(data, task=chosen, **({} if size is None else {"size": size}), **options)
