"""Batches whose content follows from (seed, epoch, index) alone.

Training is one stream of batches. The order of an epoch comes from (seed, epoch), a sample's randomness from (seed,
epoch, index); so a resumed run skips what is done, and the number of workers, devices or accumulated batches changes
nothing of which samples a step sees. What a loss draws (the noise of denoising) follows from (seed, step, process).
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, Sampler
from torch.utils.data import Dataset as TorchDataset

from indexnet.core.errors import UserError
from indexnet.core.machine import cores, die_with_parent, limit_reached
from indexnet.core.registry import option_names
from indexnet.data import Data, Dataset, create_data, get_data
from indexnet.data.base import digest
from indexnet.data.holdout import hold_out
from indexnet.run.schema import BudgetConfig, TrainingConfig

Key = tuple[int, int]

# First words of the keys of random streams. numpy ignores trailing zeros of a key, so (seed, epoch) alone would be the
# stream of sample 0, and (seed, epoch, index) that of a data set that draws its samples from (seed, split, index).
ORDER, SAMPLE = 0x0DE2, 0x5A3D


class Keyed(TorchDataset[dict[str, Any]]):
    """A data set whose items are asked for by (epoch, index) and drawn from their own random stream.

    An index alone means epoch 0.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key | int) -> dict[str, Tensor | str]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        return self.dataset.sample(index, np.random.default_rng((SAMPLE, self.seed, epoch, index)))


class StepStream(Sampler[list[Key]]):
    """The batches of a whole training run, for one rank.

    Epochs follow each other without a gap and without a short last batch. The samples of one optimizer step are the
    same however they are split over accumulated batches and ranks.

    Args:
        count: samples in the data set.
        batch_size: samples of one optimizer step, over all ranks and accumulated batches.
        steps: optimizer steps of the run.
        seed: of the run.
        start: optimizer steps that are done already.
        accumulate: batches per optimizer step.
        rank: of this process, below ``world``.
        world: number of processes.
        overfit: give the first step's samples again and again.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        steps: int,
        seed: int,
        *,
        start: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        overfit: bool = False,
    ) -> None:
        self.count, self.batch_size, self.steps, self.seed = count, batch_size, steps, seed
        self.start, self.accumulate, self.rank, self.world = start, accumulate, rank, world
        self.overfit = overfit
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.steps * self.accumulate  # of the whole run, also when it is resumed: Lightning counts on from there

    def _key(self, position: int) -> Key:
        epoch, offset = divmod(position, self.count)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng((ORDER, self.seed, epoch)).permutation(self.count)
        return epoch, int(self._order[offset])

    def __iter__(self) -> Iterator[list[Key]]:
        part = self.batch_size // self.accumulate
        for step in range(self.start, self.steps):
            first = 0 if self.overfit else step * self.batch_size
            keys = [self._key(first + i) for i in range(self.batch_size)]
            for k in range(self.accumulate):
                yield keys[k * part : (k + 1) * part][self.rank :: self.world]


class EpochSampler(DistributedSampler[Key]):
    """The keys of one process's training samples, epoch after epoch, for anybody's ``DataLoader`` and ``Trainer``.

    In an epoch each sample is asked for at most once; what does not fill a last batch is left out, other samples each
    time. Where a sampler begins follows from the batches that are done, so that nothing needs to be skipped or saved.
    Lightning leaves a ``DistributedSampler`` as it is, and would put one of its own in the place of any other.

    Args:
        dataset: what is sampled.
        batch_size: samples of a batch in this process.
        seed: of the order.
        rank: of this process, below ``world``.
        world: number of processes; each gets its part of the samples of ``batch_size * world``.
        done: gives the batches that are done when an iterator is made; None: those before the epoch of ``set_epoch``.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world: int = 1,
        done: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(dataset, world, rank)
        self.batch_size, self.seed, self.done = batch_size, seed, done
        self.batches = len(dataset) // (batch_size * world)
        """Batches of an epoch."""

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[Key]:
        first = self.epoch * self.batches if self.done is None else self.done()
        count, size = len(self.dataset), self.batch_size * self.num_replicas  # type: ignore[arg-type]
        last, order = -1, np.empty(0, np.int64)
        for batch in range(first, first + self.batches):
            epoch, place = divmod(batch, self.batches)
            if epoch != last:
                last, order = epoch, np.random.default_rng((ORDER, self.seed, epoch)).permutation(count)
            for index in order[place * size : (place + 1) * size][self.rank :: self.num_replicas].tolist():
                yield epoch, index


class ShareSampler(DistributedSampler[int]):
    """One process's share of a split, in order: over all processes every sample exactly once.

    Args:
        dataset: the split.
        rank: of this process, below ``world``.
        world: number of processes.
        limit: take the first samples only, so many; None: all.
    """

    def __init__(self, dataset: Dataset, rank: int = 0, world: int = 1, limit: int | None = None) -> None:
        super().__init__(dataset, world, rank, shuffle=False)
        self.share = range(rank, len(dataset) if limit is None else min(limit, len(dataset)), world)

    def __len__(self) -> int:
        return len(self.share)

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)


_HELD_OUT = 0.1
"""Share of the training split that is held out where nothing else is said."""


def total_steps(training: TrainingConfig, budget: BudgetConfig, count: int) -> int:
    """Return the optimizer steps of a run: ``steps``, or ``epochs`` over ``count`` samples, within the budget."""
    steps = training.steps
    if steps is None:
        steps = max(1, round((training.epochs or 0) * count / training.batch_size))
    return min(steps, budget.max_steps or steps)


def checkpoint_pause(took: float) -> float:
    """Return the seconds between two checkpoints with ``trainer.checkpoint_every=auto``.

    A minute, and more where writing one takes so long that it would cost more than a fiftieth of the time.

    Args:
        took: seconds that the last one took.
    """
    return max(60.0, 50 * took)


def log_interval(steps: int) -> int:
    """Return the optimizer steps between two logged ones, for a run of so many."""
    return max(1, min(50, steps // 100))


def process_rank() -> int:
    """Return this process's rank as its launcher names it in the environment; 0 for the first process of a run only."""
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return int(os.environ.get("NODE_RANK", "0")) + int(os.environ.get("LOCAL_RANK", "0"))


def rank_zero_say(text: str) -> None:
    """Print a line, in the first process of a run."""
    if process_rank() == 0:
        print(text, flush=True)


def rank_zero_remark(text: str) -> None:
    """Print on stderr, in the first process of a run, what it does otherwise than its configuration says."""
    if process_rank() == 0:
        print(text, file=sys.stderr, flush=True)


def worker_count(setting: int | str) -> int:
    """Return the number of loader processes: as given, or for ``auto`` none on two cores or fewer, else up to 8."""
    if setting != "auto":
        return int(setting)
    return 0 if cores() <= 2 else min(8, cores() - 1)


def train_loader(dataset: Dataset, stream: StepStream | EpochSampler, workers: int) -> DataLoader[dict[str, Any]]:
    """Build the loader of a training stream, or of epochs."""
    sampling: dict[str, Any] = {"batch_sampler": stream}
    if isinstance(stream, EpochSampler):
        sampling = {"sampler": stream, "batch_size": stream.batch_size}
    return DataLoader(
        Keyed(dataset, stream.seed),
        **sampling,
        collate_fn=dataset.collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )


def evaluation_loader(
    dataset: Dataset, batch_size: int, workers: int, *, rank: int = 0, world: int = 1, limit: int | None = None
) -> DataLoader[dict[str, Any]]:
    """Build the loader of a test set: each rank its share, every sample exactly once; one by one where sizes differ."""
    share = ShareSampler(dataset, rank, world, limit)
    batch_size = batch_size if dataset.one_size else 1
    return DataLoader(
        Keyed(dataset, 0),
        batch_size=batch_size,
        sampler=share,
        num_workers=workers if -(-len(share) // batch_size) > workers else 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )


def _start_worker(worker: int) -> None:
    import cv2

    if (ask := die_with_parent(os.getppid())) is not None:
        ask()  # torch's own look at the parent comes every five seconds only
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # the workers are the parallelism


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Give a mistake in a person's files, met by a loader's process, the form it has in this one: its sentence.

    So for what the machine has too little of, see :func:`indexnet.core.machine.limit_reached`.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        if not (said := limit_reached(error)):
            raise
        raise UserError(said) from None
    except UserError as error:
        lines = str(error).strip().splitlines()
        if len(lines) == 1:
            raise
        # the loader ends with the frames that hold it; left to the garbage collector, which closes its queues first, it
        # would wait five seconds for each of its processes
        traceback.clear_frames(error.__traceback__)
        _, _, sentence = lines[-1].partition("UserError: ")  # the last line of the worker's traceback
        raise UserError(sentence or lines[-1]) from None


def build_data(group: Mapping[str, Any], task: str, size: int) -> Data:
    """Build a data set.

    Args:
        group: its name and options, as the group ``data`` of a configuration has them.
        task: name of the task.
        size: side of a training sample, for data sets that cut them.

    Raises:
        UserError: an option or the size is wrong; the latter by the key of runs, ``training.size``.
    """
    options = {**group, "task": task}
    given = "size" not in options and "size" in option_names(get_data(options["name"]))
    if given:
        options["size"] = size
    try:
        return create_data(options.pop("name"), **options)
    except UserError as error:
        if given and "data.size" in str(error):
            raise UserError(str(error).replace("data.size", "training.size")) from error
        raise


def measured_splits(data: Data, split: str) -> Mapping[str, Dataset]:
    """Return the splits, by name, that a run is measured on: for ``test`` the test splits, for ``validation`` that one.

    Raises:
        UserError: the data set has no validation split as it is configured, or files are missing.
    """
    if split == "test":
        return data.tests()
    validation = data.validation()
    if validation is None:
        raise UserError(
            f"split=validation, but data={data.name} has no validation split as it is configured; "
            f"{data.validation_remedy}."
        )
    return {"": validation}


def training_splits(data: Data, training: TrainingConfig) -> tuple[Dataset, Dataset | None]:
    """Return what a run is trained on, and what it is validated on while it trains.

    That is the validation split of a data set that has one, else a share that is held out of the training split; the
    same one for every seed, and nothing (None) unless validation or a share is asked for.

    Raises:
        UserError: files are missing, or the training split is too small to hold anything out.
    """
    train, validation = data.train(), data.validation() if training.validate_every else None
    share = training.holdout
    if share == "auto":
        share = _HELD_OUT if training.validate_every and validation is None else 0.0
    if not share:
        return train, validation
    rest, held = hold_out(train, share)
    return rest, validation or held


def validation_interval(every: float, steps: int) -> int:
    """Return the optimizer steps between two validations, at most those of the run; below 1 it is a fraction of it."""
    return min(steps, max(1, round(every * steps) if every < 1 else int(every)))


def describe_splits(tests: Mapping[str, Dataset]) -> dict[str, Any]:
    """Describe test splits: how many samples and their fingerprint; of several splits also those of each."""
    parts = {name: {"count": len(data), "fingerprint": data.fingerprint()} for name, data in tests.items()}
    if "" in parts:
        return parts[""]
    return {"count": sum(len(data) for data in tests.values()), "fingerprint": digest(parts), "splits": parts}
