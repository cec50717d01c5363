"""The training stream: what a step sees follows from (seed, step) alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexnet.core.errors import UserError
from indexnet.data import Dataset
from indexnet.run import loader
from indexnet.run.loader import StepStream, build_data, evaluation_loader, total_steps, train_loader
from indexnet.run.schema import BudgetConfig, TrainingConfig


class Numbers(Dataset):
    """Sample i is (i, a random number)."""

    split = "train"

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self):
        return self.count

    def sample(self, index, rng):
        return {"x": torch.tensor([float(index), rng.random()]), "name": str(index)}

    def name(self, index):
        return str(index)

    def fingerprint(self):
        return "numbers"


def _flat(lists):
    return list(itertools.chain.from_iterable(lists))


def _step_keys(stream, accumulate):
    batches = list(stream)
    return [_flat(batches[i : i + accumulate]) for i in range(0, len(batches), accumulate)]


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 40),
    steps=st.integers(1, 12),
    start=st.integers(0, 12),
    accumulate=st.sampled_from([1, 2, 4]),
    world=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 5),
)
def test_a_step_sees_the_same_samples_however_it_is_split(count, steps, start, accumulate, world, seed):
    batch = accumulate * world * 2
    start = min(start, steps)
    whole = _step_keys(StepStream(count, batch, steps, seed), 1)
    options = {"start": start, "accumulate": accumulate, "world": world}
    ranks = [_step_keys(StepStream(count, batch, steps, seed, rank=r, **options), accumulate) for r in range(world)]
    for i, step in enumerate(range(start, steps)):
        assert sorted(_flat(rank[i] for rank in ranks)) == sorted(whole[step])
        assert len({len(rank[i]) for rank in ranks}) == 1


@given(count=st.integers(1, 30), seed=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_every_epoch_holds_every_sample_once(count, seed):
    keys = _flat(StepStream(count, count, 3, seed))
    for epoch in range(3):
        assert sorted(index for e, index in keys if e == epoch) == list(range(count))


def test_epochs_differ_in_order_and_seeds_too():
    orders = [tuple(i for _, i in _flat(StepStream(20, 20, 1, seed))) for seed in range(3)]
    keys = _flat(StepStream(20, 20, 2, 0))
    orders.append(tuple(i for e, i in keys if e == 1))
    assert len(set(orders)) == 4


def test_overfit_repeats_the_first_batch():
    batches = list(StepStream(20, 4, 3, 0, overfit=True))
    assert batches[0] == batches[1] == batches[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers):
    stream = StepStream(7, 4, 5, 3, start=1)
    seen = [batch["x"] for batch in train_loader(Numbers(7), stream, workers)]
    expected = [
        torch.stack([Numbers(7).sample(i, np.random.default_rng((loader.SAMPLE, 3, e, i)))["x"] for e, i in keys])
        for keys in StepStream(7, 4, 5, 3, start=1)
    ]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


@pytest.mark.parametrize(("count", "world", "limit"), [(7, 1, None), (7, 2, None), (7, 3, 5), (2, 3, None)])
def test_ranks_share_a_test_set_without_repeats(count, world, limit):
    names = [
        name
        for rank in range(world)
        for batch in evaluation_loader(Numbers(count), 2, 0, rank=rank, world=world, limit=limit)
        for name in batch["name"]
    ]
    assert sorted(names, key=int) == [str(i) for i in range(min(count, limit or count))]


def test_total_steps():
    training, uncapped = TrainingConfig(16, 320, epochs=30), BudgetConfig("paper")
    assert total_steps(training, uncapped, 43100) == 80812  # the paper says "around 90,000"
    assert total_steps(replace(training, steps=10), uncapped, 43100) == 10
    assert total_steps(training, replace(uncapped, max_steps=3), 43100) == 3
    assert total_steps(replace(training, epochs=1), uncapped, 2) == 1


def test_the_streams_of_order_samples_and_data_sets_differ():
    """numpy drops trailing zeros of a key: seed 0, epoch 0 must not fall together with another stream."""
    keys = [(loader.ORDER, 0, 0), (loader.SAMPLE, 0, 0, 0), (0, 0, 0), (0, 0), (0,)]
    first = {tuple(np.random.default_rng(key).integers(0, 1 << 30, 4)) for key in keys[:3]}
    assert len(first) == 3
    assert tuple(np.random.default_rng(keys[2]).random(2)) == tuple(np.random.default_rng(keys[4]).random(2))


def test_a_size_that_does_not_fit_is_named_by_the_key_of_runs():
    with pytest.raises(UserError, match=r"training\.size"):
        build_data({"name": "scenes"}, "matting", 8)
