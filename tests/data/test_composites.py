"""Composites for training: order, caches, workers, damaged files."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from multiprocessing import active_children
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_support import write_backgrounds, write_foreground, write_matting_folder
from indexnet.core.errors import UserError
from indexnet.data.io.images import read_image
from indexnet.data.matting import Foreground, pair_foregrounds
from indexnet.data.matting.pipelines.base import list_pipelines
from indexnet.data.matting.train_composites import TrainingComposites
from indexnet.run.callbacks import SkippedFiles
from indexnet.run.job import run_job
from indexnet.run.loader import StepStream, one_sentence, train_loader
from run_support import prepare_run

KEYS = ("image", "alpha", "trimap", "fg", "bg")


def parts(root, foregrounds=3, backgrounds=12):
    if not root.is_dir() or not any(root.iterdir()):
        write_matting_folder(root, foregrounds, backgrounds)
    return pair_foregrounds(root / "fg", root / "alpha"), sorted((root / "bg").iterdir())


def make(root, pipeline="dim", per_foreground=4, size=16, **options):
    foregrounds, backgrounds = parts(root)
    return TrainingComposites("train", "mine", foregrounds, backgrounds, per_foreground, pipeline, size, **options)


def drawn(split, index, seed=0):
    return split.sample(index, np.random.default_rng((seed, index)))


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in KEYS)


def test_samples_are_named_grouped_and_paired_by_the_rule(tmp_path):
    split = make(tmp_path)
    assert len(split) == 12
    assert [split.name(k) for k in (0, 5, 11)] == ["thing 0_0", "thing 1_1", "thing 2_3"]
    assert [split.group(k) for k in (0, 5, 11)] == ["thing 0", "thing 1", "thing 2"]
    for index in (-1, 12):
        with pytest.raises(IndexError):
            split.sample(index, np.random.default_rng(0))
    background = read_image(split.backgrounds[5])  # larger than the foreground: neither scaled nor moved
    height, width = 40, 36
    windows = np.lib.stride_tricks.sliding_window_view(background[:height, :width], (16, 16, 3))[:, :, 0]
    seen = [np.rint(drawn(split, 5, seed)["bg"].numpy().transpose(1, 2, 0) * 255) for seed in range(20)]
    found = [(windows == crop).all((2, 3, 4)).any() or (windows == crop[:, ::-1]).all((2, 3, 4)).any() for crop in seen]
    assert any(found)  # those of the sample's own scale
    assert set(drawn(split, 0)) == {*KEYS, "name"}


def test_unpaired_backgrounds_are_drawn(tmp_path):
    foregrounds, backgrounds = parts(tmp_path)
    split = TrainingComposites("train", "mine", foregrounds, backgrounds[:2], 50, "dim", 16, paired=False)
    assert len(split) == 150
    pair = [
        TrainingComposites("train", "m", foregrounds, [path] * 2, 50, "dim", 16, paired=False)
        for path in backgrounds[:2]
    ]
    counts = [0, 0]
    for seed in range(20):
        sample = drawn(split, 7, seed)
        counts = [count + same(sample, drawn(one, 7, seed)) for count, one in zip(counts, pair, strict=True)]
    assert sum(counts) == 20
    assert min(counts) > 0
    with pytest.raises(UserError, match="need 150 backgrounds, but there are 2"):
        TrainingComposites("train", "mine", foregrounds, backgrounds[:2], 50, "dim", 16)
    with pytest.raises(UserError, match=r"^data=mine has no background\.$"):
        TrainingComposites("train", "mine", foregrounds, [], 50, "dim", 16, paired=False)


def test_too_few_backgrounds_are_refused_without_a_list_of_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr("indexnet.data.matting.compositing.Pair", None)  # 73,600 of them in a published set
    assert len(make(tmp_path)) == 12
    with pytest.raises(UserError, match="need 15 backgrounds, but there are 12"):
        make(tmp_path, per_foreground=5)


@pytest.mark.parametrize("pipeline", list_pipelines())
def test_samples_follow_from_their_generator_whatever_is_cached(pipeline, tmp_path):
    reference = make(tmp_path / "data", pipeline, cache=False)
    mapped = make(tmp_path / "data", pipeline, cache=str(tmp_path / "cache"))
    assert f"in {tmp_path / 'cache'}" in mapped.prepare()
    copied = pickle.loads(pickle.dumps(mapped))
    for index in range(12):
        wanted = drawn(reference, index)
        assert not same(wanted, drawn(reference, index, seed=1))
        assert all(same(wanted, drawn(split, index)) for split in (mapped, copied))
    assert reference.fingerprint() == mapped.fingerprint()
    assert reference.fingerprint() != make(tmp_path / "data", pipeline, size=24).fingerprint()


def test_a_cache_folder_is_written_once_and_knows_changed_files(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    split = make(tmp_path / "data", cache=str(folder))
    split.prepare()
    files = sorted(folder.iterdir())
    assert len(files) == 3
    os.utime(split.foregrounds[1].alpha, (1, 1))
    changed = make(tmp_path / "data", cache=str(folder))
    with monkeypatch.context() as broken:
        broken.setattr("indexnet.data.matting.train_composites.read_foreground", None)
        with pytest.raises(TypeError):
            changed.prepare()
    changed.prepare()
    assert len(list(folder.iterdir())) == 4
    monkeypatch.setattr("indexnet.data.matting.train_composites.read_foreground", None)
    third = make(tmp_path / "data", cache=str(folder))
    third.prepare()
    array = third.store[0][0]
    assert not array.flags.writeable
    assert isinstance(array, np.memmap)


def test_an_interrupted_cache_is_completed(tmp_path, monkeypatch):
    split = make(tmp_path / "data", cache=str(tmp_path / "cache"))
    split.sample(0, np.random.default_rng(0))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    split.prepare(reads=1)  # not worth it
    assert len(list((tmp_path / "cache").iterdir())) == 1
    split.prepare()
    assert len(list((tmp_path / "cache").iterdir())) == 3


@pytest.mark.parametrize("cache", ["ture", 3, None])
def test_a_cache_that_is_none_is_refused(cache, tmp_path):
    with pytest.raises(UserError, match=r"data.cache must be auto, true or false, or a folder such as \./cache; got"):
        make(tmp_path, cache=cache)


def test_colours_are_estimated_once(tmp_path, monkeypatch):
    calls = []

    def estimate(image, alpha):
        calls.append(image.shape)
        return 255 - image

    monkeypatch.setattr("indexnet.data.matting.estimate.estimate_foreground", estimate)
    for _ in range(2):
        split = estimated(tmp_path / "data", cache=str(tmp_path / "cache"))
        split.prepare()
    assert len(calls) == 3
    assert np.array_equal(split.store[1][0], 255 - read_image(split.foregrounds[1].colour))


def estimated(root, **options):
    foregrounds, backgrounds = parts(root)
    foregrounds = [Foreground(item.name, item.colour, item.alpha, True) for item in foregrounds]
    return TrainingComposites("train", "mine", foregrounds, backgrounds, 4, "dim", 16, **options)


def test_colours_without_pymatting_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymatting", None)
    with pytest.raises(UserError, match=r"^the estimate of foreground colours needs pymatting; .*indexnet\[matting\]"):
        estimated(tmp_path)
    assert len(make(tmp_path)) == 12


def test_one_thread_at_a_time_estimates(tmp_path, monkeypatch):
    inside, used = threading.Lock(), []

    def estimate(image, alpha):
        assert inside.acquire(blocking=False)
        time.sleep(0.02)
        inside.release()
        used.append(sys.modules["numba"].config.THREADING_LAYER)
        return image

    monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(config=SimpleNamespace(THREADING_LAYER="default")))
    fake = SimpleNamespace(estimate_foreground_ml=estimate, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pymatting", fake)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)  # threads of the store
    estimated(tmp_path, cache=True).prepare()
    assert used == ["workqueue"] * 3  # the layer that forks survive


FORKED = """
import sys
from pathlib import Path
import numpy as np
from test_composites import batches, drawn, estimated, same

split = estimated(Path(sys.argv[1]), cache=False)
drawn(split, 0)  # what a run does before its workers are forked
for a, b in zip(batches(split, 0, 3), batches(split, 2, 3), strict=True):
    assert a["name"] == b["name"] and same(a, b)
print("the same")
"""


@pytest.mark.long
def test_workers_estimate_after_their_parent_has(tmp_path):
    if importlib.util.find_spec("pymatting") is None:
        pytest.skip("pymatting is not installed")
    parts(tmp_path)
    # not in this process, where other tests may have imported pymatting in their own way
    command = [sys.executable, "-c", FORKED, str(tmp_path)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])},
    )
    assert done.stdout.strip() == "the same", done.stderr


def batches(split, workers, steps=6):
    stream = StepStream(len(split), 4, steps, seed=3)
    return list(train_loader(split, stream, workers))


@pytest.mark.parametrize("pipeline", list_pipelines())
def test_the_number_of_workers_changes_no_sample(pipeline, tmp_path):
    split = make(tmp_path, pipeline)
    split.prepare()
    alone = batches(split, 0)
    for a, b in zip(alone, batches(split, 2), strict=True):
        assert a["name"] == b["name"]
        assert same(a, b)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_background_is_refused_or_skipped(workers, tmp_path):
    split = make(tmp_path, cache=True)
    bad, following = split.backgrounds[3], split.backgrounds[4]
    truncate(bad)
    split.prepare()
    others = set(active_children())
    with pytest.raises(UserError) as refused, one_sentence():
        batches(split, workers)
    assert set(active_children()) <= others  # its processes end with the error, not when garbage is collected
    assert str(refused.value).startswith(f"{bad} cannot be read as an image")
    assert "\n" not in str(refused.value)
    skipping = TrainingComposites("train", "mine", split.foregrounds, split.backgrounds, 4, "dim", 16, damaged="skip")
    skipping.prepare()
    seen = [pair for batch in batches(skipping, workers) for pair in zip(batch["name"], batch["skipped"], strict=True)]
    assert len(seen) == 24
    assert {name for name, text in seen if text} == {"thing 0_3"}
    assert all(str(bad) in text and "\n" not in text for _, text in seen if text)
    replaced = TrainingComposites(
        "train", "mine", split.foregrounds, [*split.backgrounds[:3], following, *split.backgrounds[4:]], 4, "dim", 16
    )
    assert same(drawn(skipping, 3), drawn(replaced, 3))


@pytest.mark.parametrize("cache", [True, False, "folder"])
def test_a_damaged_foreground_is_refused_or_skipped(cache, tmp_path):
    foregrounds, backgrounds = parts(tmp_path)
    truncate(foregrounds[2].alpha)
    cache = str(tmp_path / "cache") if cache == "folder" else cache

    def split(damaged):
        return TrainingComposites("train", "mine", foregrounds, backgrounds, 4, "dim", 16, cache, damaged)

    refusing = split("refuse")
    with pytest.raises(UserError, match="cannot be read as an image"):
        refusing.prepare() or [drawn(refusing, index) for index in range(12)]
    skipping = split("skip")
    skipping.prepare()
    wanted = TrainingComposites("train", "m", foregrounds[:1], backgrounds[8:], 4, "dim", 16)
    got = skipping.sample(9, np.random.default_rng(0))  # of the last foreground: the first takes its place
    assert str(foregrounds[2].alpha) in got["skipped"]
    assert got["name"] == "thing 2_1"
    assert same(got, wanted.sample(1, np.random.default_rng(0)))
    assert skipping.sample(0, np.random.default_rng(0))["skipped"] == ""
    with pytest.raises(UserError, match="cannot be read"):
        skipping.verify(9)


def test_a_second_foreground_that_was_skipped_is_listed_too(tmp_path):
    split = make(tmp_path, "gca", damaged="skip")
    truncate(split.foregrounds[2].alpha)  # the first takes its place
    bad = str(split.foregrounds[2].alpha)
    listed = [split.sample(0, np.random.default_rng(seed))["skipped"].splitlines() for seed in range(60)]
    met = [lines for lines in listed if lines]
    assert 3 <= len(met) <= 20  # half of the samples have a second foreground, a third of those this one
    assert all(len(lines) == 1 and lines[0].startswith(bad) for lines in met)
    own = [split.sample(8, np.random.default_rng(seed))["skipped"].splitlines() for seed in range(60)]
    assert all(len(lines) == 1 for lines in own)  # also where it is both


def test_a_run_without_a_readable_background_ends(tmp_path):
    split = make(tmp_path, damaged="skip")
    for path in split.backgrounds:
        truncate(path)
    with pytest.raises(UserError, match="cannot be read as an image"):
        drawn(split, 0)


class Trainer:
    world_size, is_global_zero = 1, True


def saved(callback, trainer=Trainer):
    checkpoint = {"callbacks": {}}
    callback.on_save_checkpoint(trainer, None, checkpoint)
    return checkpoint["callbacks"][callback.state_key]


def test_skipped_files_are_said_once_and_counted_over_tries(capsys):
    first = SkippedFiles()
    for text in (["", "a.jpg is bad."], ["a.jpg is bad.\nb.jpg is bad.", ""]):
        first.on_train_batch_start(Trainer, None, {"skipped": text}, 0)
    first.on_train_batch_start(Trainer, None, {"image": 0}, 0)
    assert saved(first) == {"found": {"a.jpg is bad.": 2, "b.jpg is bad.": 1}}
    assert capsys.readouterr().err.count("a.jpg is bad.") == 1
    second = SkippedFiles()
    second.load_state_dict(saved(first))
    second.on_train_batch_start(Trainer, None, {"skipped": ["b.jpg is bad.", "c.jpg is bad."]}, 0)
    second.on_train_end(Trainer, None)
    assert second.found == {"a.jpg is bad.": 2, "b.jpg is bad.": 2, "c.jpg is bad.": 1}
    said = capsys.readouterr()
    assert "b.jpg" not in said.err
    assert said.err.count("c.jpg is bad.") == 1
    assert "3 damaged files skipped, met 5 times in training" in said.out


def test_checkpoints_count_what_all_processes_have_met(monkeypatch):
    def gather(into, own):
        into[:] = [own, {"b.jpg is bad.": 3}]

    monkeypatch.setattr("indexnet.run.callbacks.dist.all_gather_object", gather)

    class Two(Trainer):
        world_size = 2

    callback = SkippedFiles()
    callback.load_state_dict({"found": {"b.jpg is bad.": 10}})
    callback.on_train_batch_start(Two, None, {"skipped": ["a.jpg is bad.", "b.jpg is bad."]}, 0)
    assert saved(callback, Two) == saved(callback, Two) == {"found": {"a.jpg is bad.": 1, "b.jpg is bad.": 14}}
    callback.on_train_end(Two, None)
    assert callback.found == {"a.jpg is bad.": 1, "b.jpg is bad.": 14}


@pytest.mark.long
def test_a_run_lists_the_files_that_it_went_without(tmp_path, capfd):
    root = tmp_path / "data"
    for part in ("train", "test"):
        for k in range(2):
            write_foreground(root / part / f"fg/{part}{k}.png", root / part / f"alpha/{part}{k}.png", k)
        write_backgrounds(root / part / "bg", [f"{part}{k}.jpg" for k in range(8)])
    bad = root / "train/bg/train1.jpg"
    truncate(bad)
    words = [
        "task=matting", "encoder.width=0.25", "training.steps=4", "training.batch_size=4", "training.size=32",
        "data=matting_folder", f"data.root={root}", "data.per_foreground=4", "data.test_per_foreground=1",
        "trainer.accelerator=cpu", "trainer.num_workers=2",
    ]  # fmt: skip
    folder = prepare_run(tmp_path / "skip", *words, "data.damaged=skip")
    assert run_job(folder.path) == 0
    listed = json.loads((folder.path / "record.json").read_text())["skipped_files"]
    assert listed["count"] == 1
    assert listed["files"] == [{"problem": listed["files"][0]["problem"], "samples": 2}]
    assert listed["files"][0]["problem"].startswith(str(bad))
    assert capfd.readouterr().err.count(str(bad)) == 1
    folder = prepare_run(tmp_path / "refuse", *words)
    with pytest.raises(UserError, match=r"train1\.jpg cannot be read as an image") as error:
        run_job(folder.path)
    assert "\n" not in str(error.value)


def test_a_pipeline_that_draws_backgrounds_needs_none_of_its_own_for_each_composite(tmp_path):
    foregrounds, backgrounds = parts(tmp_path)
    split = TrainingComposites("train", "mine", foregrounds, backgrounds[:2], 4, "a2u", 16)
    assert len(split) == 4 * len(foregrounds)
    assert same(drawn(split, 1), drawn(split, 1))
    others = [TrainingComposites("train", "mine", foregrounds, [path], 4, "a2u", 16) for path in backgrounds[:2]]
    for index in range(6):  # whatever the composite, a sample shows one of both
        assert len({split.sample(index, np.random.default_rng(seed))["bg"].numpy().tobytes() for seed in range(8)}) > 1
    assert len({split.fingerprint(), *(each.fingerprint() for each in others)}) == 3
    with pytest.raises(UserError, match="has no background"):
        TrainingComposites("train", "mine", foregrounds, [], 4, "a2u", 16)
