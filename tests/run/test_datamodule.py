"""The data module alone in plain Trainers: every data set, exact going on, several processes, mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning.callbacks import BasePredictionWriter, ModelCheckpoint
from torch.utils.data import DataLoader

from data_support import build, names, write_train400
from indexnet.core.errors import UserError
from indexnet.data import create_data, list_data
from indexnet.data.base import NoSplitError
from indexnet.run.datamodule import DataModule
from indexnet.run.loader import EpochSampler, StepStream
from module_support import Brightness, plain_trainer

CASES = [(info.name, task) for info in list_data() for task in info.tasks]
TEST_ONLY = ("alphamatting", "alphamatting_test", "ppm100")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on loaders


def photos(**options):
    given = {"task": "denoising", "batch_size": 2, "size": 16, "train_count": 8, "test_count": 5}
    return DataModule("photos", **{**given, **options})


def loader_names(loader):
    return [name for batch in loader for name in batch["name"]]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_every_data_set_goes_through_a_plain_trainer(name, task, root):
    data = build(name, task, root)
    dm, module, trainer = DataModule(data, holdout=0.34), Brightness(data.channels), plain_trainer(max_epochs=2)
    if name in TEST_ONLY:
        with pytest.raises(NoSplitError):
            trainer.fit(module, datamodule=dm)
    else:
        trainer.fit(module, datamodule=dm)
        steps = len(module.seen["fit"]) // 2
        assert steps == len(dm.train_set)
        for epoch in range(2):
            seen = module.seen["fit"][epoch * steps :][:steps]
            assert {each[0] for each in seen} == {epoch}
            assert sorted(n for _, batch, _ in seen for n in batch) == sorted(names(dm.train_set))
        own = data.validation()
        assert names(dm.val_set) == (names(own) if own else names(dm.val_set))
        # samples of photos are numbered on either side; that they show other photographs has a test of its own
        assert name == "photos" or not set(names(dm.val_set)) & {n for _, batch, _ in module.seen["fit"] for n in batch}
        assert torch.isfinite(trainer.callback_metrics["val/loss"])
        module.seen["validate"].clear()
        trainer.validate(module, datamodule=dm, verbose=False)
        once = list(module.seen["validate"])
        assert [n for batch, _ in once for n in batch] == names(dm.val_set)
        trainer.validate(module, datamodule=dm, verbose=False)
        assert module.seen["validate"][len(once) :] == once  # samples that validate never change
    trainer.test(module, datamodule=dm, verbose=False)
    assert list(module.seen["test"].values()) == [names(split) for split in dm.test_sets.values()]
    assert list(dm.test_sets) == list(data.tests())
    outputs = trainer.predict(module, datamodule=dm)
    assert module.seen["predict"] == module.seen["test"]
    flat = [each for part in outputs for each in (part if isinstance(part, list) else [part])]
    assert sum(map(len, flat)) == sum(map(len, dm.test_sets.values()))


def test_it_is_built_by_name_and_options():
    dm = photos(batch_size=3, holdout=0.3, seed=5)
    assert (dm.data.name, dm.data.task, dm.data.size, dm.data.train_count) == ("photos", "denoising", 16, 8)
    assert len(dm.train_set) + len(dm.val_set) == 8
    assert [len(batch["name"]) for batch in dm.val_dataloader()] == [len(dm.val_set)]  # of one size: full batches
    assert isinstance(dm.train_dataloader(), DataLoader)
    assert dm.test_sets.keys() == {""}
    assert DataModule("mnist", root="/nowhere").data.task == "reconstruction"  # the only one
    assert DataModule("scenes", "depth").data.size == create_data("scenes", task="depth").size
    own = DataModule("scenes", "matting", size=32, train_count=4, validation_count=3)
    assert [len(own.train_set), len(own.val_set)] == [4, 3]
    assert [len(batch["name"]) for batch in own.val_dataloader()] == [1, 1, 1]
    assert "Train dataloader: size=4" in str(own)
    everything = photos(holdout=0)
    assert len(everything.train_set) == 8
    assert everything.val_set is None
    assert everything.val_dataloader() == []


def test_what_is_held_out_is_the_same_for_every_seed():
    held = [names(photos(seed=seed, train_count=100).val_set) for seed in range(3)]
    assert held[0] == held[1] == held[2]


def test_without_a_trainer_the_sampler_says_which_epoch():
    loader = photos().train_dataloader()
    first, again = loader_names(loader), loader_names(loader)
    assert first == again
    loader.sampler.set_epoch(1)
    other = loader_names(loader)
    assert other != first
    assert len(set(other)) == len(first) == 6  # of 7 samples, in whole batches


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 40), batch=st.integers(1, 6), world=st.integers(1, 3), seed=st.integers(0, 3),
    done=st.integers(0, 50),
)  # fmt: skip
def test_an_epoch_sees_each_sample_at_most_once(count, batch, world, seed, done):
    split = create_data("photos", size=16, train_count=count).train()
    samplers = [EpochSampler(split, batch, seed, rank=r, world=world, done=lambda: done) for r in range(world)]
    shares = [list(sampler) for sampler in samplers]
    size = batch * world
    each = count // size
    assert {len(share) for share in shares} == {len(sampler) for sampler in samplers} == {each * batch}
    steps = [
        [key for share in shares for key in share[k * batch : (k + 1) * batch]] for k in range(each)
    ]  # of all processes
    for k, keys in enumerate(steps):
        assert {epoch for epoch, _ in keys} == {(done + k) // each}
    for epoch in {(done + k) // each for k in range(each)}:
        indices = [index for keys in steps for e, index in keys if e == epoch]
        assert len(set(indices)) == len(indices)
    if each and done % each == 0:  # a whole epoch; where batches fill it, that of a run of `indexnet train`
        assert len({index for keys in steps for _, index in keys}) == each * size
        if count == each * size:
            stream = list(StepStream(count, size, done + each, seed, start=done))
            assert [sorted(keys) for keys in steps] == [sorted(keys) for keys in stream]


class SaveOften(pl.Callback):
    """A checkpoint at every moment that a callback may choose."""

    def __init__(self, folder):
        self.folder, self.step = folder, 0

    def _save(self, trainer, when):
        trainer.save_checkpoint(self.folder / f"{trainer.fit_loop.total_batch_idx:02d}-{when}.ckpt")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step != self.step:  # gradients that are being added up are in no checkpoint
            self.step = trainer.global_step
            self._save(trainer, "batch")

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self._save(trainer, "validated")

    def on_train_epoch_end(self, trainer, module):
        self._save(trainer, "epoch")


@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": 2, "accumulate_grad_batches": 2, "val_check_interval": 2},
        {"max_epochs": 2, "limit_train_batches": 2},
        *(
            pytest.param(options, marks=[pytest.mark.long, pytest.mark.nightly])
            for options in (
                {},
                {"accumulate_grad_batches": 2},
                {"limit_train_batches": 2},
                {"val_check_interval": 2},
                {"max_steps": 7, "max_epochs": -1},
            )
        ),
    ],
)
def test_a_fit_goes_on_exactly_from_any_checkpoint(options, tmp_path):
    def fit(folder, workers=0, ckpt_path=None):
        torch.manual_seed(0)
        module, trainer = Brightness(1), plain_trainer(callbacks=[SaveOften(folder)], **{"max_epochs": 3, **options})
        torch.rand(workers + 1)  # what torch draws elsewhere does not matter
        trainer.fit(module, datamodule=photos(num_workers=workers), ckpt_path=ckpt_path, weights_only=True)
        return module, trainer.global_step

    whole, steps = fit(tmp_path)
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) > 6
    for number, path in enumerate(checkpoints):
        again, last = fit(tmp_path / "again", workers=2 if number % 4 == 0 else 0, ckpt_path=path)
        assert last == steps
        assert again.seen["fit"] == whole.seen["fit"][len(whole.seen["fit"]) - len(again.seen["fit"]) :], path.name
        for key, value in whole.state_dict().items():
            assert torch.equal(value, again.state_dict()[key]), f"{path.name}: {key}"


def test_epochs_differ_and_repeat():
    def seen(**options):
        module = Brightness(1)
        plain_trainer(max_epochs=2).fit(module, datamodule=photos(**options))
        return [(batch, total) for _, batch, total in module.seen["fit"]]

    first = seen()
    assert first == seen() == seen(num_workers=2)
    assert first != seen(seed=1)
    assert first[:3] != first[3:]


def test_a_fit_does_not_go_on_with_something_else(tmp_path):
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    plain_trainer(tmp_path, max_epochs=2, callbacks=[saving]).fit(Brightness(1), datamodule=photos())
    path = tmp_path / "step=2.ckpt"
    for options, words in (
        ({"batch_size": 1}, "batches of 2 samples and cannot go on with batches of 1 samples"),
        ({"seed": 1}, "seed=0 and cannot go on with seed=1"),
        ({"size": 24}, "other samples of data=photos"),
        ({"holdout": 0.4}, "other samples of data=photos"),
        ({"train_count": 9}, "other samples of data=photos"),
    ):
        with pytest.raises(UserError, match=words):
            plain_trainer(max_epochs=3).fit(Brightness(1), datamodule=photos(**options), ckpt_path=path)
    scenes = DataModule("scenes", "denoising", batch_size=2, size=16, train_count=8, test_count=1)
    with pytest.raises(UserError, match=r"data=photos and cannot go on with data=scenes"):
        plain_trainer(max_epochs=3).fit(Brightness(1), datamodule=scenes, ckpt_path=path)
    module = Brightness(1)  # to measure, a checkpoint serves any data
    plain_trainer().test(module, datamodule=photos(size=24), ckpt_path=path, verbose=False)
    assert len(module.seen["test"][0]) == 5


def test_a_checkpoint_holds_plain_data_that_rebuilds_the_module(tmp_path):
    trainer = plain_trainer(tmp_path)
    trainer.fit(Brightness(1), datamodule=photos(seed=3))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)["DataModule"]
    assert state == {"data": "photos", "seed": 3, "batch": 2, "done": 3, "fingerprint": state["fingerprint"]}
    again = DataModule.load_from_checkpoint(tmp_path / "x.ckpt", batch_size=4, weights_only=True)
    assert (again.seed, again.batch_size, again.data.train_count) == (3, 4, 8)
    assert names(again.val_set) == names(photos().val_set)


def test_named_test_sets_keep_their_order(tmp_path):
    write_train400(tmp_path)
    dm = DataModule("train400", "denoising", root=str(tmp_path), size=16)
    assert list(dm.test_sets) == ["bsd68", "set12"]
    assert [loader_names(loader) for loader in dm.test_dataloader()] == [["test001", "test002"], ["01", "02"]]
    assert len(plain_trainer().predict(Brightness(1), datamodule=dm)) == 2


@pytest.mark.parametrize("split", ["validation", "train"])
def test_another_split_is_predicted(split):
    dm, module = photos(predict_split=split), Brightness(1)
    assert sum(map(len, plain_trainer().predict(module, datamodule=dm))) == len(module.seen["predict"][0])
    assert module.seen["predict"][0] == names(dm.val_set if split == "validation" else dm.train_set)


def test_a_prediction_writer_learns_which_samples_a_batch_has():
    class Writer(BasePredictionWriter):
        found = ()

        def write_on_batch_end(self, trainer, module, prediction, indices, batch, batch_idx, dataloader_idx):
            self.found += ((tuple(indices), tuple(batch["name"])),)

    writer, dm = Writer("batch"), photos(test_batch_size=2)
    plain_trainer(callbacks=[writer]).predict(Brightness(1), datamodule=dm)
    assert [indices for indices, _ in writer.found] == [(0, 1), (2, 3), (4,)]
    assert all(tuple(dm.test_sets[""].name(k) for k in indices) == n for indices, n in writer.found)


def test_overfitting_a_batch_is_lightnings_own():
    module = Brightness(1)
    plain_trainer(max_epochs=3, overfit_batches=1).fit(module, datamodule=photos())
    assert len({(tuple(batch), total) for _, batch, total in module.seen["fit"]}) == 1


def test_images_are_decoded_once_where_they_are_read_often(tmp_path):
    write_train400(tmp_path)
    options = {"task": "denoising", "root": str(tmp_path), "size": 12, "batch_size": 2}
    for limits, kept in (({"max_epochs": 1}, True), ({"max_steps": 1}, False)):
        dm = DataModule("train400", holdout=0, **options)
        plain_trainer(**limits).fit(Brightness(1), datamodule=dm)
        assert (dm.train_set.store.kept is not None) is kept
    dm = DataModule("train400", **options)
    plain_trainer().fit(Brightness(1), datamodule=dm)
    assert dm.train_set.store.kept is dm.val_set.store.kept is not None


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("scene", "depth"), {}, r"unknown data set 'scene'\. Did you mean 'scenes'"),
        (("scenes", "dpeth"), {}, r"unknown task 'dpeth'\. Did you mean 'depth'"),
        (("photos", "depth"), {}, "'photos' has no targets for the task 'depth'"),
        (("scenes",), {}, r"say for which it is: task=matting or portrait or denoising"),
        (("scenes", "depth"), {"trian_count": 3}, r"no option 'trian_count'\. Did you mean 'train_count'"),
        (("alphamatting", "matting"), {"root": "x", "size": 32}, "no option 'size'"),
        (("camvid",), {}, "needs the option 'root'"),
        (("photos", "denoising"), {"batch_size": 0}, "batch_size must be a positive whole number"),
        (("photos", "denoising"), {"test_batch_size": 1.5}, "test_batch_size must be a positive"),
        (("photos", "denoising"), {"num_workers": -1}, "num_workers must be a positive"),
        (("photos", "denoising"), {"holdout": 1}, "holdout must be a number, 0 or more and below 1"),
        (("photos", "denoising"), {"seed": -1}, "seed must be a whole number"),
        (("photos", "denoising"), {"predict_split": "tset"}, "predict_split must be one of test, validation, train"),
        (("photos", "denoising"), {"size": 9999}, "data.size=9999 is larger"),
    ],
)
def test_mistakes(arguments, options, words):
    with pytest.raises(UserError, match=words) as caught:
        DataModule(*arguments, **options).setup("fit")
    assert "\n" not in str(caught.value)


def test_mistakes_with_a_data_set_that_exists():
    data = create_data("scenes", task="depth", seed=4, size=32)
    assert DataModule(data, "depth").data is data
    for options, words in (({"size": 16}, "size is an option"), ({"task": "matting"}, "built for the task depth"),
                           ({"train_count": 1}, "train_count is an option")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            DataModule(data, **options)


def test_mistakes_that_a_stage_finds(tmp_path):
    with pytest.raises(UserError, match=r"takes 16 samples \(batch_size=16, processes: 1\), but .* has 7"):
        plain_trainer().fit(Brightness(1), datamodule=photos(batch_size=16))
    for stage in ("validate", "predict"):
        dm = photos(holdout=0, predict_split="validation")
        with pytest.raises(UserError, match=r"no validation split as it is configured; give holdout=0\.1"):
            getattr(plain_trainer(), stage)(Brightness(1), datamodule=dm)
    with pytest.raises(UserError, match=f"{tmp_path}"):
        plain_trainer().fit(Brightness(3), datamodule=DataModule("camvid", root=str(tmp_path)))
    write_train400(tmp_path)
    dm = DataModule("train400", "reconstruction", root=str(tmp_path), size=12, test_batch_size=2)
    with pytest.raises(UserError, match="the images of the test split of data=train400 may differ in size"):
        plain_trainer().test(Brightness(1), datamodule=dm)
    with pytest.raises(NoSplitError, match="for testing only"):
        plain_trainer().fit(Brightness(3), datamodule=DataModule("alphamatting", "matting", root=str(tmp_path)))


SCRIPT = """
import json, sys
import indexnet
from indexnet.run.datamodule import DataModule
from module_support import Brightness, plain_trainer

folder, workers = sys.argv[1], int(sys.argv[2])
dm = DataModule("photos", "denoising", batch_size=2, size=16, train_count=24, test_count=5, holdout=0.2,
                test_batch_size=1, num_workers=workers)
dm.val_set.indices = dm.val_set.indices[:3]  # an odd number
module = Brightness(1)
trainer = plain_trainer(devices=2, strategy="ddp", max_epochs=2, num_sanity_val_steps=0)
trainer.fit(module, datamodule=dm)
trainer.validate(module, datamodule=dm, verbose=False)
trainer.test(module, datamodule=dm, verbose=False)
trainer.predict(module, datamodule=dm, return_predictions=False)
module.seen["train_set"] = [dm.train_set.name(k) for k in range(len(dm.train_set))]
with open(f"{folder}/{trainer.global_rank}.json", "w") as file:
    json.dump(module.seen, file)
"""


@pytest.mark.long
@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.nightly), 2])
def test_two_processes_share_the_samples(workers, tmp_path):
    """With Lightning's default ``use_distributed_sampler=True``; a process that is left alone would hang."""
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "script.py", str(tmp_path), str(workers)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for epoch in range(2):
        steps = [[batch for e, batch, _ in rank["fit"] if e == epoch] for rank in (first, second)]
        assert len(steps[0]) == len(steps[1]) == len(first["train_set"]) // 4
        both = [name for rank in steps for batch in rank for name in batch]
        assert len(set(both)) == len(both) == len(steps[0]) * 4
    for kind, count in (("test", 5), ("predict", 5)):
        both = [name for rank in (first, second) for name in rank[kind]["0"]]
        assert len(set(both)) == len(both) == count
    validated = [[name for batch, _ in rank["validate"] for name in batch] for rank in (first, second)]
    assert [len(each) for each in validated] == [6, 3]  # two of the three samples in the first, in 3 validations
    assert not set(validated[0]) & set(validated[1])
