"""The contract of data sets, on every registered one."""

from __future__ import annotations

import contextlib
import inspect
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, RandomSampler
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset as TorchSubset

from data_support import MATTING_WRITERS, PORTRAIT_WRITERS, WRITERS, build, same, write_idx
from indexnet.core.errors import UserError
from indexnet.core.registry import option_names
from indexnet.data import IGNORE, create_data, get_data, list_data
from indexnet.data.base import NoSplitError
from indexnet.data.holdout import HeldOut, hold_out
from indexnet.data.io import skimage_photographs

NAMES = [info.name for info in list_data()]
KEYS = {
    "matting": {"image", "alpha", "trimap", "fg", "bg", "name"},
    "portrait": {"image", "alpha", "trimap", "name"},
    "reconstruction": {"image", "name"},
    "denoising": {"image", "name"},
    "segmentation": {"image", "label", "name"},
    "depth": {"image", "depth", "name"},
}
CASES = [(info.name, task) for info in list_data() for task in info.tasks]


def test_roots_that_no_folder_can_have(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in [name for name in NAMES if "root" in option_names(get_data(name))]:
        for root in ("a\0b", "x/" * 3000, "loop"):
            with pytest.raises(UserError, match=r"data\.root="):
                create_data(name, root=str(tmp_path / root))


@pytest.mark.parametrize(
    ("name", "task"), [(info.name, task) for info in list_data() if info.layout for task in info.tasks]
)
def test_a_description_needs_no_files(name, task):
    data = create_data(name, root="/nowhere", task=task)
    for ask in (data.train, data.tests):
        with pytest.raises(
            UserError, match=r"/nowhere.* (does not exist|holds)|for testing only|no mattes to train with"
        ):
            ask()


def splits(data):
    found = [*data.tests().values(), *filter(None, [data.validation()])]
    with contextlib.suppress(
        *[NoSplitError] * data.name.startswith(("alphamatting", "ppm"))
    ):  # which are for testing only
        found.append(data.train())
    return found


@pytest.mark.parametrize(("name", "task"), CASES)
def test_samples_are_what_the_task_expects(name, task, root):
    data = build(name, task, root)
    assert data.name == name
    for split in splits(data):
        for index in range(min(3, len(split))):
            sample = split.sample(index, np.random.default_rng(index))
            fixed = name in MATTING_WRITERS and split.split != "train"  # photographs and finished composites
            expected = KEYS[task] - ({"fg", "bg"} if fixed else set())
            expected -= {"alpha"} if name == "alphamatting_test" else set()
            if task == "portrait" or name in PORTRAIT_WRITERS:  # layers are neither needed nor in the way
                assert sample.keys() - {"fg", "bg"} == KEYS["portrait"]
            else:
                assert sample.keys() == expected
            assert sample["name"] == split.name(index)
            image = sample["image"]
            assert image.dtype == torch.float32
            assert image.is_contiguous()
            assert image.ndim == 3
            assert image.shape[0] == data.channels
            assert image.min() >= 0
            assert image.max() <= 1
            for key, channels in (("alpha", 1), ("trimap", 1), ("fg", 3), ("bg", 3), ("depth", 1)):
                if key in sample:
                    assert sample[key].shape == (channels, *image.shape[1:])
                    assert sample[key].dtype == torch.float32
                    assert sample[key].min() >= 0
            if task == "matting":
                allowed = torch.tensor([0, 128 / 255, 1])
                assert torch.isin(sample["trimap"], allowed).all()
                assert "alpha" not in sample or sample["alpha"].max() <= 1
            if task == "segmentation":
                assert sample["label"].shape == image.shape[1:]
                assert sample["label"].dtype == torch.int64
                assert torch.isin(sample["label"], torch.tensor([*range(len(data.classes)), IGNORE])).all()


@pytest.mark.parametrize(("name", "task"), CASES)
def test_samples_repeat_and_travel_kept_or_not(name, task, root):
    cached = "cache" in inspect.signature(get_data(name)).parameters
    kept = splits(build(name, task, root, **{"cache": True} if cached else {}))
    for split, again in zip(splits(build(name, task, root, **{"cache": False} if cached else {})), kept, strict=True):
        assert split.prepare() == ""
        assert "decoded once, " in again.prepare() or not hasattr(again, "store")
        copy = pickle.loads(pickle.dumps(again))
        for index in (0, 1):
            first = split.sample(index, np.random.default_rng(5))
            assert all(same(first, each.sample(index, np.random.default_rng(5))) for each in (split, again, copy))
            other = split.sample(index, np.random.default_rng(6))
            if split.split != "train":
                assert same(first, other)  # only training augments
        assert not torch.equal(
            split.sample(0, np.random.default_rng(5))["image"][..., :20, :20], other["image"][..., :20, :20]
        )
        assert len({split.name(i) for i in range(len(split))}) == len(split)
        with pytest.raises(IndexError):
            split.sample(len(split), np.random.default_rng(0))
        with pytest.raises(IndexError):
            split.verify(len(split))
        assert split.fingerprint() == again.fingerprint() == copy.fingerprint()
        assert len(split.fingerprint()) == 64


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in WRITERS | MATTING_WRITERS]
)  # those have tests of their own
def test_fingerprints_tell_splits_and_options_apart(name, root):
    task = get_data(name).info.tasks[0]
    prints = [split.fingerprint() for split in splits(build(name, task, root))]
    changed = {
        "photos": {"size": 16},
        "scenes": {"seed": 1, "size": 48, "test_count": 6},
        "mnist": {"root": str(root), "fit": "pad"},
        "fashion_mnist": {"root": str(root)},
    }[name]
    prints.append(create_data(name, **changed).test().fingerprint())
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_refuses_foreign_tasks_and_options(name, root):
    options = {"root": str(root)} if "root" in inspect.signature(get_data(name)).parameters else {}
    foreign = {task for info in list_data() for task in info.tasks} - set(get_data(name).info.tasks)
    for task in foreign:
        with pytest.raises(UserError, match=f"no targets for the task '{task}'; it serves"):
            create_data(name, task=task, **options)
    with pytest.raises(UserError, match=r"has no option 'tsak'\. Did you mean 'task'"):
        create_data(name, tsak="x")


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'scenes'"):
        create_data("scene")


def test_photos_of_training_and_test_are_disjoint():
    train, test = skimage_photographs.names("train"), skimage_photographs.names("test")
    assert not set(train) & set(test)
    assert all((skimage_photographs.folder() / name).is_file() for name in train + test)
    pictures = [skimage_photographs.load(name, 1) for name in train + test]
    small = np.stack([p[:100, :100].astype(float).ravel() for p in pictures])
    distances = ((small[:, None] - small[None]) ** 2).mean(-1) + 1e9 * np.eye(len(small))
    assert distances.min() > 10  # no photograph under two names


@pytest.mark.parametrize("channels", [1, 3])
def test_photo_patches_show_something(channels):
    test = create_data("photos", channels=channels, size=24, test_count=50).test()
    patches = torch.stack([test.sample(i, np.random.default_rng(0))["image"] for i in range(50)])
    assert patches.shape == (50, channels, 24, 24)
    assert (patches.std((1, 2, 3)) > 0.015).float().mean() > 0.95
    if channels == 3:
        assert (patches[:, 0] - patches[:, 2]).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("name", "options", "fragment"),
    [
        ("camvid", {"size": 0}, r"data\.size"),
        ("camvid", {"scale": [2, 0.5]}, r"data\.scale must be two numbers \[low, high\]"),
        ("camvid", {"scale": 1.0}, r"data\.scale"),
        ("camvid", {"scale": [0, 1]}, r"data\.scale"),
        ("camvid", {"scale": "12"}, r"data\.scale"),
        ("camvid", {"cache": 3}, r"data\.cache"),
        ("nyuv2", {"crop": "egien"}, r"data\.crop must be one of none, eigen"),
        ("nyuv2", {"evaluation": "all"}, r"data\.evaluation must be one of network, full"),
        ("nyuv2", {"size": 2}, "at least 8"),
        ("nyuv2", {"task": "segmentation", "crop": "eigen"}, r"data\.crop has no effect on the task segmentation"),
        ("nyuv2", {"scale": [1, 2]}, r"data\.scale has no effect on the task depth"),
        ("nyuv2", {"cache": "yes"}, r"data\.cache"),
        ("train400", {"stride": 0}, r"data\.stride"),
        ("train400", {"size": 4}, r"data\.size"),
        ("train400", {"scales": [1.5]}, r"data\.scales must be a list of different numbers .* at most 1; got \[1\.5\]"),
        ("train400", {"scales": []}, r"data\.scales"),
        ("train400", {"scales": 0.5}, r"data\.scales"),
        ("train400", {"scales": [1, 1]}, r"data\.scales"),
        ("train400", {"cache": "no"}, r"data\.cache"),
        ("matting_folder", {"pipeline": "dimm"}, r"data\.pipeline must be one of .*dim"),
        ("matting_folder", {"damaged": "ignore"}, r"data\.damaged must be one of refuse, skip"),
        ("matting_folder", {"per_foreground": 0}, r"data\.per_foreground must be a positive whole number"),
        ("matting_folder", {"test_per_foreground": True}, r"data\.test_per_foreground must be a positive"),
        ("matting_folder", {"size": 4}, r"data\.size must be"),
        ("matting_folder", {"foreground": "photos"}, r"data\.foreground must be one of colours, estimated"),
        ("matting_folder", {"validation": "yes"}, r"data\.validation must be one of True, False"),
        ("photos", {"size": 2}, "at least 8"),
        ("photos", {"channels": 2}, "1, 3"),
        ("photos", {"test_count": 0}, "test_count"),
        ("scenes", {"size": 8}, r"data\.size"),
        ("scenes", {"seed": -1}, r"data\.seed"),
    ],
)
def test_options_that_cannot_be(name, options, fragment):
    root = {} if name in ("photos", "scenes") else {"root": "/nowhere"}
    with pytest.raises(UserError, match=fragment):
        create_data(name, **root | options)


def test_patches_are_no_larger_than_photographs():
    with pytest.raises(UserError, match=r"data\.size=2000"):
        create_data("photos", size=2000).train()


def test_idx_compressed_or_not_resized_or_padded(tmp_path):
    images = write_idx(tmp_path / "train-images-idx3-ubyte.gz", 3, 0)
    write_idx(tmp_path / "plain/raw/train-images-idx3-ubyte", 3, 0, compress=False)
    padded = create_data("mnist", root=str(tmp_path), fit="pad").train()
    plain = create_data("mnist", root=str(tmp_path / "plain"), fit="pad").train()
    sample = padded.sample(1, np.random.default_rng(0))
    assert torch.equal(sample["image"], plain.sample(1, np.random.default_rng(0))["image"])
    assert padded.fingerprint() == plain.fingerprint()
    assert sample["image"].shape == (1, 32, 32)
    assert np.array_equal((sample["image"][0, 2:30, 2:30] * 255).round().numpy(), images[1])
    assert sample["image"].sum() == pytest.approx(images[1].sum() / 255, rel=1e-5)
    same_size = create_data("mnist", root=str(tmp_path), size=28).train().sample(2, np.random.default_rng(0))
    assert np.array_equal((same_size["image"][0] * 255).round().numpy(), images[2])
    with pytest.raises(UserError, match="use resize"):
        create_data("mnist", root=str(tmp_path), size=24, fit="pad").train()


def test_idx_files_missing_or_damaged(tmp_path):
    with pytest.raises(UserError, match=r"holds neither train-images-idx3-ubyte nor train-images-idx3-ubyte\.gz"):
        create_data("mnist", root=str(tmp_path)).train()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"not gzip")
    with pytest.raises(UserError, match="cannot be read"):
        create_data("mnist", root=str(tmp_path)).train()
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x01" + b"\x00" * 40)
    with pytest.raises(UserError, match="is not an idx file"):
        create_data("mnist", root=str(tmp_path)).test()


def test_the_real_digits(shared):
    data = create_data("mnist", root=str(shared / "data/MNIST"))
    test = data.test()
    assert len(test) == 10000
    image = test.sample(0, np.random.default_rng(0))["image"]
    assert image.shape == (1, 32, 32)
    assert 0.05 < image.mean() < 0.3


# --- every split is a torch data set, in anybody's DataLoader --------------------------------------------------------


def every_split(data):
    found = splits(data)
    return found + [part for split in found if split.split == "train" for part in hold_out(split, 0.34)]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_split_is_a_torch_data_set(name, task, root):
    for split in every_split(build(name, task, root)):
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
    for split in every_split(build(name, task, root)):
        if not split.one_size:
            continue
        held = isinstance(split, HeldOut) and name != "photos"  # of the others in this process: a process takes longer
        workers = 2 if split.split == "train" and not held else 0
        batches = list(DataLoader(split, batch_size=2, num_workers=workers))
        assert [name for batch in batches for name in batch["name"]] == [split.name(k) for k in range(len(split))]
        assert [len(batch["image"]) for batch in batches[:-1]] == [2] * (len(batches) - 1)
        assert len({batch["image"].shape[1:] for batch in batches}) == 1


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
