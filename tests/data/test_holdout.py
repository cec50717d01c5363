"""A share of the training split is held out by groups: nothing that validates has been seen in training."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from data_support import build, make, names, same, write_camvid, write_h5, write_nyuv2, write_train400
from indexnet.core.errors import UserError
from indexnet.data import Dataset, create_data, list_data
from indexnet.data.holdout import hold_out
from indexnet.data.io import skimage_photographs

TEST_ONLY = ("alphamatting", "alphamatting_test", "ppm100")
TRAINED = [info.name for info in list_data() if info.name not in TEST_ONLY]


@dataclass
class Grouped(Dataset):
    """Samples of one random number; which group each is of is given."""

    members: list[str] = field(default_factory=list)
    split: str = "train"

    def __len__(self):
        return len(self.members)

    def name(self, index):
        self._check_index(index)
        return f"{self.members[index]}-{self.members[:index].count(self.members[index])}"

    def group(self, index):
        return self.members[index]

    def sample(self, index, rng):
        return {"x": torch.tensor(float(rng.random())), "name": self.name(index)}

    def fingerprint(self):
        return str(self.members)


def groups(split):
    return {split.group(index) for index in range(len(split))}


def random_set(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, rng.integers(2, 40), size=rng.integers(2, 60))
    members = [f"group {name}" for name, size in enumerate(sizes) for _ in range(size)]
    return Grouped([members[k] for k in rng.permutation(len(members))])


@pytest.mark.parametrize("seed", range(60))
def test_no_group_is_on_both_sides(seed):
    split, share = random_set(seed), float(np.random.default_rng((seed, 1)).uniform(0.01, 0.99))
    training, validation = hold_out(split, share, seed)
    assert training.split == "train"
    assert validation.split == "validation"
    assert sorted(names(training) + names(validation)) == sorted(names(split))
    assert groups(training)
    assert groups(validation)
    assert not groups(training) & groups(validation)
    # as near to the share as the largest group allows, where both sides may have more than one group
    slack = max(Counter(split.members).values())
    assert abs(len(validation) - share * len(split)) <= slack
    again = hold_out(split, share, seed)
    assert [names(part) for part in again] == [names(training), names(validation)]
    prints = {part.fingerprint() for part in (split, training, validation, *hold_out(split, share, seed + 1))}
    assert len(prints) == 5
    assert again[1].fingerprint() == validation.fingerprint()


def test_the_division_follows_the_names_of_groups_not_their_places():
    split = Grouped([f"thing {k // 3}" for k in range(300)])
    held = groups(hold_out(split, 0.2)[1])
    assert len(held) == 20
    backwards = Grouped(split.members[::-1])
    assert groups(hold_out(backwards, 0.2)[1]) == held
    moved = []
    for k in range(20):
        more = Grouped([f"new {k}"] * 3 + split.members)
        moved.append(len(groups(hold_out(more, 0.2)[1]) ^ held))
    assert max(moved) <= 2  # the new one, and one that it takes the place of
    assert groups(hold_out(split, 0.2, seed=1)[1]) != held


def test_validation_samples_never_change():
    training, validation = hold_out(Grouped(list("abcdefghij")), 0.5, 3)
    first = [validation.sample(k, np.random.default_rng(0))["x"] for k in range(len(validation))]
    assert first == [validation.sample(k, np.random.default_rng(k + 1))["x"] for k in range(len(validation))]
    assert len(set(first)) == len(first)  # each has a stream of its own
    other = hold_out(Grouped(list("abcdefghij")), 0.5, 4)[1]
    assert not set(first) & {other.sample(k, np.random.default_rng(0))["x"] for k in range(len(other))}
    drawn = [training.sample(0, np.random.default_rng(k))["x"] for k in range(5)]
    assert len(set(drawn)) == 5
    with pytest.raises(IndexError):
        validation.sample(len(validation), np.random.default_rng(0))
    with pytest.raises(IndexError):
        validation.name(-1)


@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5, "0.1", True, None, float("nan")])
def test_a_share_that_is_none(share):
    with pytest.raises(UserError, match="must be a number between 0 and 1"):
        hold_out(Grouped(list("abc")), share)


def test_what_cannot_be_divided():
    with pytest.raises(UserError, match=r"all 4 samples .* belong together \(one\)"):
        hold_out(Grouped(["one"] * 4), 0.25)
    with pytest.raises(UserError, match="seed"):
        hold_out(Grouped(list("abc")), 0.5, -1)


@pytest.mark.parametrize("name", TRAINED)
def test_every_data_set_is_divided(name, root):
    task = next(info.tasks[0] for info in list_data() if info.name == name)
    split = build(name, task, root).train()
    training, validation = hold_out(split, 0.34)
    assert len(training) + len(validation) == len(split)
    assert len(training) > 0
    assert len(validation) > 0
    assert len(set(names(validation))) == len(validation)
    for part in (training, validation):
        copy = pickle.loads(pickle.dumps(part))
        part.prepare()
        for index in range(len(part)):
            one, other = (each.sample(index, np.random.default_rng(7)) for each in (part, copy))
            assert one["name"] == part.name(index)
            assert same(one, other)
            part.verify(index)
        assert part.fingerprint() == copy.fingerprint()
        assert hasattr(part, "store") == hasattr(split, "store")
    if name != "photos":  # which has its own test
        assert not groups(training) & groups(validation)
        assert {**split.groups()} == dict(Counter(split.group(k) for k in range(len(split))))


def test_a_photograph_of_photos_is_held_out_whole():
    split = create_data("photos", train_count=203, size=100).train()
    training, validation = hold_out(split, 0.2)
    assert len(training) + len(validation) == 203
    files = [set(side.part.files) for side in (training, validation)]
    assert set.union(*files) == set(skimage_photographs.names("train"))
    assert not files[0] & files[1]
    assert abs(len(validation) - 40) <= 203 / len(split.files)
    with_few = hold_out(create_data("photos", train_count=1, size=16).train(), 0.1)
    assert [len(side) for side in with_few] == [1, 1]


def test_an_object_that_is_held_out_is_never_joined_to_another(tmp_path):
    """GCA's pipeline joins two foregrounds: without those of the other side."""
    data = make("matting_folder", tmp_path, pipeline="gca", per_foreground=1)
    for side in hold_out(data.train(), 0.4):
        assert {item.name for item in side.part.foregrounds} == groups(side)


def test_composites_keep_their_backgrounds(tmp_path):
    split = make("composition1k", tmp_path).train()
    before = {split.name(k): split.sample(k, np.random.default_rng(0))["bg"] for k in range(len(split))}
    for side in hold_out(split, 0.3):
        each = split.per_foreground
        for k, item in enumerate(side.part.foregrounds):
            first = list(split.foregrounds).index(item) * each
            assert side.part.backgrounds[k * each : (k + 1) * each] == split.backgrounds[first : first + each]
    assert len(before) == len(split)


def test_frames_of_one_video_or_scene_are_one_group(tmp_path):
    write_camvid(tmp_path / "camvid", (("0006R0_f", 3), ("0001TP", 4), ("own", 2), ("val", 2), ("test", 2)))
    lines = [(tmp_path / f"camvid/{name}.txt").read_text() for name in ("0006R0_f", "0001TP", "own")]
    (tmp_path / "camvid/train.txt").write_text("".join(lines).replace("0006R0_f_", "0006R0_f"))
    for path in (tmp_path / "camvid").glob("0006R0_f*/*"):
        path.rename(path.parent / path.name.replace("0006R0_f_", "0006R0_f"))
    camvid = create_data("camvid", root=str(tmp_path / "camvid"))
    assert dict(camvid.train().groups()) == {"0006R0": 3, "0001TP": 4, "own_0": 1, "own_1": 1}
    assert camvid.test().group(0) == "test_0"  # error bars of results that exist are over images

    write_nyuv2(tmp_path / "nyuv2", train=(7, 1, 2, 3, 9, 5, 8), test=(0, 4, 6))
    for task in ("depth", "segmentation"):
        nyuv2 = create_data("nyuv2", task=task, root=str(tmp_path / "nyuv2"))
        assert dict(nyuv2.train().groups()) == {"from 7": 3, "from 1": 3, "from 5": 1}
        assert nyuv2.test().group(0) == "0"

    for name in ("home_office_0001a/00002", "home_office_0001b/00002", "home_office_0002/00002", "home_office_0002/3"):
        write_h5(tmp_path / f"h5/train/{name}.h5")
    write_h5(tmp_path / "h5/val/official/00001.h5")
    frames = create_data("nyuv2_h5", root=str(tmp_path / "h5"))
    assert dict(frames.train().groups()) == {"home_office_0001": 2, "home_office_0002": 2}
    assert frames.test().group(0) == "official-00001"


def test_a_list_without_a_gap_is_divided_nevertheless(tmp_path):
    write_nyuv2(tmp_path, train=range(120), test=(120,), size=(16, 16))
    split = create_data("nyuv2", root=str(tmp_path)).train()
    assert list(split.groups().values()) == [50, 50, 20]


def test_patches_of_one_photograph_are_one_group(tmp_path):
    write_train400(tmp_path, train=4)
    split = create_data("train400", root=str(tmp_path), size=12).train()
    assert set(split.groups()) == {f"test_{k:03d}" for k in range(1, 5)}
    training, validation = hold_out(split, 0.25)
    assert groups(validation) == {validation.name(0).split("_x")[0]}
    assert len(validation) == split.groups()[validation.group(0)]
    assert not {name.split("_x")[0] for name in names(training)} & groups(validation)


@pytest.mark.parametrize("augment", ["da+alpha", "af+afb+ac"])
def test_scenes_that_are_held_out_are_not_augmented(augment):
    plain, changed = (
        hold_out(create_data("scenes", task="matting", size=32, train_count=12, augment=each).train(), 0.4)[1]
        for each in ("none", augment)
    )
    for index in range(len(plain)):
        assert same(*(each.sample(index, np.random.default_rng(0)) for each in (plain, changed)))
