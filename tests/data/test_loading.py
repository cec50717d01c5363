"""Every split is a torch data set, in anybody's DataLoader."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, RandomSampler
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset as TorchSubset

from data_support import build
from indexnet.data import create_data, list_data
from indexnet.data.base import NoSplitError
from indexnet.data.holdout import hold_out

CASES = [(info.name, task) for info in list_data() for task in info.tasks]


def every_split(data):
    found = dict(data.tests())
    try:
        training = data.train()
    except NoSplitError:
        return found
    own = {"validation": data.validation()} if data.validation() else {}
    return found | {"train": training, **own, **{f"part {p.split}": p for p in hold_out(training, 0.34)}}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[k], other[k]) if isinstance(one[k], torch.Tensor) else one[k] == other[k] for k in one
    )


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_split_is_a_torch_data_set(name, task, root):
    for split in every_split(build(name, task, root)).values():
        assert isinstance(split, TorchDataset)
        assert same(split[-1], split[-1]) or split.split == "train"
        assert split[np.int64(0)]["name"] == split.name(0)
        assert split[-1]["name"] == split.name(len(split) - 1)
        for index in (len(split), -len(split) - 1):
            with pytest.raises(IndexError):
                split[index]
        if len(split) <= 16:
            assert [sample["name"] for sample in split] == [split.name(k) for k in range(len(split))]
        before = torch.get_rng_state()
        first = split[0]
        if split.split != "train":
            assert same(first, split.sample(0, np.random.default_rng(1)))
            assert torch.equal(torch.get_rng_state(), before)  # chance has no part in it
        torch.set_rng_state(before)
        assert same(split[0], first)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_plain_loader_batches_every_split_of_one_size(name, task, root):
    for split in every_split(build(name, task, root)).values():
        shapes = {tuple(split[k]["image"].shape) for k in range(len(split))}
        assert len(shapes) == 1 or not split.one_size
        if not split.one_size:
            continue
        torch.manual_seed(0)
        batches = list(DataLoader(split, batch_size=2, num_workers=2 if split.split == "train" else 0))
        assert [name for batch in batches for name in batch["name"]] == [split.name(k) for k in range(len(split))]
        assert batches[0]["image"].shape == (min(2, len(split)), *shapes.pop())


def test_a_loader_augments_anew_in_every_epoch_and_follows_the_seed():
    split = create_data("photos", size=32, train_count=4).train()
    loader = DataLoader(split, batch_size=2, num_workers=2)

    def epochs(seed):
        torch.manual_seed(seed)
        return [torch.cat([batch["image"] for batch in loader]) for _ in range(2)]

    first, second = epochs(0)
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(map(torch.equal, epochs(0), (first, second)))
    assert not torch.equal(epochs(1)[0], first)


def test_what_torch_builds_of_data_sets_works():
    train, test = (
        getattr(create_data("photos", size=16, train_count=6, test_count=4), side)() for side in ("train", "test")
    )
    assert len(ConcatDataset([train, test])) == 10
    assert len(train + test) == 10
    assert TorchSubset(test, [2])[0]["name"] == test.name(2)
    assert len(list(DataLoader(train, sampler=RandomSampler(train, num_samples=3)))) == 3
