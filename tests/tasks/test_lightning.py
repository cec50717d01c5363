"""Every task with a plain ``Trainer`` and plain ``DataLoader``s: what a user of Lightning does without a run."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, default_collate

from indexnet.core.errors import UserError
from indexnet.inference.loading import load, load_task
from indexnet.metrics import get_metric
from indexnet.networks import create_network
from indexnet.networks.architectures.autoencoder import Autoencoder
from indexnet.networks.checkpoint import load_checkpoint
from indexnet.run.datamodule import DataModule
from indexnet.run.loader import build_data
from indexnet.tasks import Task, create_task, get_task, list_tasks

TINY = "test_efficientnet"  # of timm
HIN = {"name": "indexnet", "family": "hin"}
PHOTOS, SCENES = ({"name": name, "train_count": 4, "test_count": 3} for name in ("photos", "scenes"))
PARTS = {  # network, data, side of a training sample, options of the task
    "denoising": ({"name": "dncnn", "depth": 3, "width": 8}, PHOTOS, 32, {"sigma": 15}),
    "depth": ({"name": "fastdepth", "encoder": TINY, "resampling": HIN}, SCENES, 64, {}),
    "edges": ({"name": "autoencoder", "widths": [4, 8]}, PHOTOS, 32, {}),
    "matting": ({"name": "matting_unet", "encoder": TINY, "context": "none", "resampling": HIN},
                SCENES, 64, {"region": "image"}),
    "portrait": ({"name": "pspm", "encoder": {"name": "mobilenetv2_released", "width": 0.25}, "sharing": "late"},
                 SCENES, 64, {}),
    "reconstruction": ({"name": "autoencoder", "widths": [4, 8]}, PHOTOS, 32, {}),
    "segmentation": ({"name": "fastdepth", "encoder": TINY, "out_channels": 8}, SCENES, 64, {"classes": [*"abcdefgh"]}),
}  # fmt: skip
NAMES = list_tasks()
OPTIMIZER, SCHEDULE = {"name": "adam", "lr": 0.001}, {"name": "multistep", "milestones": [3], "gamma": 0.1}


class StepSeed(pl.Callback):
    """Noise that follows from the step, so that resumed and whole trainings can be compared."""

    def on_train_batch_start(self, trainer, module, batch, index):
        torch.manual_seed(trainer.global_step)


def build(name, **changes):
    torch.manual_seed(0)
    network, _, _, options = PARTS[name]
    return create_task(name, network, **{"optimizer": OPTIMIZER, "schedule": SCHEDULE, **options, **changes})


def samples(name, split):
    data = build_data(PARTS[name][1], name, PARTS[name][2])
    chosen = data.train() if split == "train" else next(iter(data.tests().values()))
    return [chosen.sample(index, np.random.default_rng(index)) for index in range(len(chosen))]


def loader(chosen, batch_size=2):
    return DataLoader(chosen, batch_size=batch_size)


def trainer(folder, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    options = {"enable_checkpointing": any(isinstance(each, ModelCheckpoint) for each in callbacks), **options}
    return pl.Trainer(default_root_dir=folder, callbacks=[StepSeed(), *callbacks], **{**quiet, **options})


def weights(task):
    return {key: value.clone() for key, value in task.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def measured(task, chosen, split=""):
    """The metrics by hand, sample by sample."""
    metrics, rows = task.create_metrics(), []
    task.eval()
    for sample in chosen:
        batch = task.prepare(default_collate([sample]))
        rows += task.measure(task.predict(batch), batch, metrics, split)
    return {name: metric.compute().item() for name, metric in metrics.items()}, rows


def near(numbers, prefix):
    return {f"{prefix}{name}": pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in numbers.items()}


@pytest.fixture(scope="module", params=NAMES)
def trained(request, tmp_path_factory):
    """A task after two epochs of two steps, the best of which was saved."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    task, train, test = build(name), samples(name, "train"), samples(name, "test")
    first = task.metric_names[0]
    mode = "max" if get_metric(first).info.higher_is_better else "min"
    best = ModelCheckpoint(folder / "best", monitor=f"val/{first}", mode=mode)
    used = trainer(folder, best, ModelCheckpoint(folder, filename="last"), max_epochs=2, log_every_n_steps=1)
    used.fit(task, loader(train), loader(test))
    return SimpleNamespace(name=name, task=task, train=train, test=test, best=best, folder=folder, trainer=used)


def test_fit_validates_and_keeps_the_best(trained):
    keys = {f"val/{metric}" for metric in trained.task.metric_names}
    assert keys <= set(trained.trainer.callback_metrics)
    assert trained.trainer.progress_bar_metrics.keys() & keys == {f"val/{trained.task.metric_names[0]}"}
    assert trained.trainer.global_step == 4
    assert Path(trained.best.best_model_path).is_file()
    assert not trained.task.test_rows
    assert not [key for key in trained.task.state_dict() if not key.startswith("network.")]


def test_validate_and_test_measure_as_the_task_does(trained):
    task, test = trained.task, trained.test
    numbers, rows = measured(task, test)
    used = trainer(trained.folder)
    for _ in range(2):  # fresh metrics each time
        assert used.validate(task, loader(test), verbose=False) == [near(numbers, "val/")]
        assert used.test(task, loader(test), verbose=False) == [near(numbers, "test/")]
        assert [row["name"] for row in task.test_rows] == sorted(row["name"] for row in rows)
        for row in rows:
            other = next(each for each in task.test_rows if each["name"] == row["name"])
            assert other == {key: value if key == "name" else pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True)
                             for key, value in row.items()}  # fmt: skip
        assert task.predictions_finite


def test_several_loaders_have_names(trained):
    task, test, first = trained.task, trained.test, trained.task.metric_names[0]
    used = trainer(trained.folder)
    parts = {"last": test[1:], "first": test[:1]}  # not in the order of the alphabet
    numbers = {name: measured(task, part)[0][first] for name, part in parts.items()}
    loaders = {name: loader(part) for name, part in parts.items()}
    for stage, run in (("val", used.validate), ("test", used.test)):
        for names, given in ((parts, loaders), (("0", "1"), list(loaders.values()))):
            results = run(task, given, verbose=False)
            found = [result[f"{stage}/{name}/{first}"] for name, result in zip(names, results, strict=True)]
            assert found == [pytest.approx(number, rel=1e-4, abs=1e-6) for number in numbers.values()]
    task.test_sets = ["a", "b"]
    used.test(task, list(loaders.values()), verbose=False)
    assert {row["name"].split("/")[0] for row in task.test_rows} == {"a", "b"}
    with pytest.raises(UserError, match=r"names 2 test splits \(a, b\), but there are 1 loaders"):
        used.test(task, loader(test), verbose=False)
    task.test_sets = ()


def test_predict_is_forward(trained):
    task, test = trained.task, trained.test
    used = trainer(trained.folder)
    first, second = used.predict(task, loader(test))
    assert set(first) == {"name", "prediction"}
    assert first["name"] + second["name"] == [sample["name"] for sample in test]
    batch = task.prepare(default_collate(test[:2]))
    task.eval()
    with torch.no_grad():
        assert torch.equal(task(batch), first["prediction"])
    needed = {"image", "name", task.guide}
    bare = [{key: value for key, value in sample.items() if key in needed} for sample in test]
    again = used.predict(task, loader(bare))
    assert torch.equal(again[1]["prediction"], second["prediction"])
    if task.guide is None:
        with torch.no_grad():
            assert task(batch["image"]).shape[-2:] == batch["image"].shape[-2:]
        return
    with pytest.raises(
        UserError, match=f"the task {trained.name} lacks '{task.guide}', which prediction needs; it has"
    ):
        task(batch["image"])


def test_what_a_batch_lacks_is_said(trained):
    task = trained.task
    lacking = [{"image": sample["image"], "name": sample["name"]} for sample in trained.train]
    used = trainer(trained.folder, max_epochs=1)
    if missing := task.missing_keys(lacking[0]):
        with pytest.raises(UserError, match=f"lacks '{missing[0]}', which training needs; it has image, name"):
            used.fit(task, loader(lacking))
        with pytest.raises(UserError, match=r"lacks '\w+', which \w+ needs|no ground-truth alpha"):
            used.test(task, loader([{**each, task.guide or "": each["image"][:1]} for each in lacking]))


def test_checkpoints_of_lightning_rebuild_the_task(trained):
    path = trained.folder / "last.ckpt"
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"] == dict(trained.task.hparams)
    assert set(content["indexnet"]["task"]) == {"name", *trained.task.options}
    for cls in (Task, type(trained.task)):
        task = cls.load_from_checkpoint(path)
        assert type(task) is type(trained.task)
        assert task.training
        assert task.hparams == trained.task.hparams
        assert equal(weights(task), weights(trained.task))
        assert task.optimizer_spec == OPTIMIZER
        assert task.schedule_spec == SCHEDULE
    changed = Task.load_from_checkpoint(path, map_location="cpu", optimizer={"name": "sgd", "lr": 0.5})
    assert changed.configure_optimizers()["optimizer"].param_groups[0]["lr"] == 0.5
    assert not load(path).training
    assert equal(weights(load(path)), weights(trained.task))
    assert load_task(path)[1]["task"] == content["indexnet"]["task"]
    again = type(trained.task)(**task.hparams)
    assert again.hparams == task.hparams
    other = get_task("depth" if trained.name != "depth" else "matting")
    with pytest.raises(UserError, match=f"a checkpoint of the task {trained.name}, not of {other.name}; use "):
        other.load_from_checkpoint(path)
    with pytest.raises(UserError, match="has no option 'colour'"):
        Task.load_from_checkpoint(path, colour=1)


def test_a_plain_trainer_resumes(trained):
    whole = build(trained.name)
    trainer(trained.folder, max_epochs=3).fit(whole, loader(trained.train), loader(trained.test))
    resumed = build(trained.name)
    going_on = trainer(trained.folder, max_epochs=3)
    path = trained.folder / "last.ckpt"
    going_on.fit(resumed, loader(trained.train), loader(trained.test), ckpt_path=path, weights_only=True)
    assert going_on.global_step == 6
    assert equal(weights(resumed), weights(whole))
    assert equal(weights(Task.load_from_checkpoint(path)), weights(trained.task))  # the file is as it was


def test_validation_changes_no_training(trained):
    plain = build(trained.name)
    state = torch.get_rng_state()
    plain.create_metrics()
    assert torch.equal(torch.get_rng_state(), state)
    trainer(trained.folder, max_epochs=2, limit_val_batches=0).fit(plain, loader(trained.train))
    assert equal(weights(plain), weights(trained.task))


def test_averaged_weights_and_early_stopping(trained):
    """EMA deep-copies the task; its averages are what is validated."""
    first = trained.task.metric_names[0]
    ema = EMAWeightAveraging(decay=0.5, update_starting_at_step=0)
    task = build(trained.name)
    used = trainer(trained.folder, ema, EarlyStopping(f"val/{first}", patience=5), max_epochs=2)
    used.fit(task, loader(trained.train), loader(trained.test))
    assert not equal(weights(task), weights(trained.task))
    twin = copy.deepcopy(task)
    assert [list(metrics) for metrics in twin.val_metrics] == [list(task.metric_names)]
    assert equal(weights(twin), weights(task))
    used.validate(task, loader(trained.test), verbose=False)


@pytest.mark.long
def test_a_sixth_task_is_no_exception():
    """The task of docs/adding_a_task.md, as a plugin, through this file."""
    root = Path(__file__).resolve().parents[2]
    places = [str(root / "src"), str(root / "tests" / "edges")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-v", "-k", "edges", "-p", "no:cacheprovider"], cwd=root,
        env={**os.environ, "INDEXNET_PLUGINS": "edges", "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("name", ["depth", "segmentation"])  # metrics over all pixels, which are no means over images
def test_two_processes_measure_as_one(name, tmp_path):
    chosen = [*samples(name, "test"), *samples(name, "train")[:1]]  # Lightning would repeat one of an odd number
    numbers, _ = measured(build(name), chosen)
    several = trainer(tmp_path, devices=2, strategy="ddp_fork")
    assert several.validate(build(name), loader(chosen, 1), verbose=False) == [near(numbers, "val/")]
    assert several.test(build(name), loader(chosen, 1), verbose=False) == [near(numbers, "test/")]


# --- once, whatever the task -----------------------------------------------------------------------------------------


def reconstruction(**changes):
    return build("reconstruction", **changes)


def fitted(task, folder, *callbacks, **options):
    chosen = samples("reconstruction", "train")
    used = trainer(folder, *callbacks, max_steps=1, **options)
    used.fit(task, loader(chosen), loader(chosen[:1]))
    return used


def test_hyperparameters_are_logged_only_where_that_is_asked_for(tmp_path):
    for wanted in (False, True):
        task, logger = reconstruction(), CSVLogger(tmp_path, version=str(wanted))
        assert task.hparams == {"network": PARTS["reconstruction"][0], "optimizer": OPTIMIZER, "schedule": SCHEDULE}
        if wanted:
            task.save_hyperparameters(dict(task.hparams))
        fitted(task, tmp_path, logger=logger)
        written = Path(logger.log_dir) / "hparams.yaml"
        assert (written.is_file() and "autoencoder" in written.read_text()) is wanted


def test_what_a_subclass_saves_comes_back(tmp_path):
    """A subclass of a person's own need not be registered, and saves its arguments as Lightning's users do."""

    class Weighted(get_task("reconstruction")):
        def __init__(self, network, optimizer=None, schedule=None, *, weight=1.0):
            super().__init__(network, optimizer, schedule)
            self.save_hyperparameters()
            self.weight = weight

    task = Weighted(PARTS["reconstruction"][0], weight=0.5)
    fitted(task, tmp_path, ModelCheckpoint(tmp_path, filename="own"))
    assert Weighted.load_from_checkpoint(tmp_path / "own.ckpt").weight == 0.5
    assert Weighted.load_from_checkpoint(tmp_path / "own.ckpt", weight=2.0).hparams.weight == 2.0


def test_networks_that_exist_are_saved_if_somebody_knows_how_to_build_them(tmp_path):
    network = create_network("autoencoder", widths=[4, 8])
    task = create_task({"name": "reconstruction"}, network)
    fitted(task, tmp_path, ModelCheckpoint(tmp_path, filename="known"))
    path = tmp_path / "known.ckpt"
    assert load_checkpoint(path)["indexnet"]["network"] == {"name": "autoencoder", "widths": [4, 8]}
    assert equal(weights(Task.load_from_checkpoint(path)), weights(task))
    into = Autoencoder(widths=[4, 8])
    assert Task.load_from_checkpoint(path, network=into).network is into
    assert equal({f"network.{key}": value for key, value in into.state_dict().items()}, weights(task))
    unknown = create_task("reconstruction", into)
    fitted(unknown, tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint can say how to build this network.*create_network"):
        fitted(unknown, tmp_path, ModelCheckpoint(tmp_path, filename="unknown"))


def test_mistakes_in_loading_are_one_sentence(tmp_path):
    fitted(reconstruction(), tmp_path, ModelCheckpoint(tmp_path, filename="own"))
    path = tmp_path / "own.ckpt"
    for options, words in (
        ({"network": {"name": "autoencoder", "widths": [4, 6]}}, "its weights do not fit the network"),
        ({"hparams_file": "hparams.yaml"}, "hparams_file is not read"),
        ({"weights_only": False}, "weights_only=False is refused"),
    ):
        with pytest.raises(UserError, match=words):
            Task.load_from_checkpoint(path, **options)
    with pytest.raises(UserError, match="there is no checkpoint"):
        Task.load_from_checkpoint(tmp_path / "none.ckpt")
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["network.head.bias"]
    torch.save(content, path)
    with pytest.raises(UserError, match=r"head\.bias"):
        Task.load_from_checkpoint(path)
    assert Task.load_from_checkpoint(path, strict=False).network.head.bias is not None


class TwoSets(pl.LightningDataModule):
    """A data module that says what its test splits are called."""

    def setup(self, stage):
        chosen = samples("reconstruction", "test")
        self.test_sets = {"near": chosen[:1], "far": chosen[1:]}

    def test_dataloader(self):
        return [loader(chosen) for chosen in self.test_sets.values()]


def test_a_data_module_names_its_test_splits(tmp_path):
    task, data, used = reconstruction(), TwoSets(), trainer(tmp_path)
    used.test(task, datamodule=data, verbose=False)
    assert {row["name"].split("/")[0] for row in task.test_rows} == {"near", "far"}
    # not the splits of the data module, which the trainer still has
    used.test(task, data.test_dataloader(), verbose=False)
    assert {row["name"].split("/")[0] for row in task.test_rows} == {"0", "1"}


def test_noise_of_ones_own_is_kept():
    task = build("denoising").eval()
    batch = default_collate(samples("denoising", "test")[:1])
    noisy = batch["image"] + 0.2
    with torch.no_grad():
        assert torch.equal(task.predict_step({"noisy": noisy, **batch}, 0)["prediction"], task(noisy))
        assert not torch.equal(task.predict_step(batch, 0)["prediction"], task(noisy))
    with pytest.raises(UserError, match="a batch of the task denoising lacks 'name', which prediction needs"):
        task.predict_step({"image": noisy}, 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_way_with_the_data_module(name, tmp_path):
    data, side = dict(PARTS[name][1]), PARTS[name][2]
    module = DataModule(data.pop("name"), task=name, batch_size=2, size=side, num_workers=0, holdout=0.3, **data)
    task, keys = build(name), get_task(name).metric_names
    kept = ModelCheckpoint(tmp_path, monitor=f"val/{keys[0]}")
    used = trainer(tmp_path, kept, EarlyStopping(f"val/{keys[0]}", patience=5), max_epochs=1, log_every_n_steps=1)
    used.fit(task, datamodule=module)
    (validated,) = used.validate(task, datamodule=module, verbose=False)
    assert set(validated) == {f"val/{key}" for key in keys}
    (tested,) = used.test(task, datamodule=module, verbose=False)
    assert set(tested) == {f"test/{key}" for key in keys}
    predictions = used.predict(task, datamodule=module)
    count = sum(len(each["prediction"]) for each in predictions)
    assert count == sum(len(each["name"]) for each in predictions) == PARTS[name][1]["test_count"]
    assert len(task.test_rows) == count
    again = Task.load_from_checkpoint(kept.best_model_path)
    assert type(again) is type(task)
    assert equal(weights(again), load_checkpoint(kept.best_model_path)["state_dict"])
