"""Configuration and run folders: composed, checked, frozen, never overwritten."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from indexnet.commands.train import train
from indexnet.core.errors import UserError
from indexnet.core.locks import exclusive
from indexnet.core.paths import conf_dir
from indexnet.data import get_data
from indexnet.run.config import compose, freeze
from indexnet.run.folder import RunFolder, difference, prepare, run_path
from indexnet.run.identity import config_hash, is_place, places
from indexnet.run.later_keys import FIRST_LOSSES
from indexnet.run.schema import ExperimentConfig, network_spec, read_config
from indexnet.tasks import get_task
from run_support import refused


def _frozen(*overrides):
    return freeze(compose(["task=reconstruction", *overrides]))


def _options(group):
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("resampling.familly=hin", "resampling.family"),
        ("resampling=indexnt", "'indexnet'"),
        ("resamplin=indexnet", "'resampling'"),
        ("training.stepz=3", "training.steps"),
        ("+trainig=3", "training"),
        ("+training.stepz=3", "training.steps"),
        ("+resampling.familly=hin", "family"),
        ("+data.chanels=3", "channels"),
        ("+network.width=3", "widths"),
        ("training.batch_size=7 trainer.devices=2", "multiple of 2"),
        ("training.batch_size=zero", "positive integer"),
        ("training.steps=null training.epochs=null", "training.steps"),
        ("optimizer.foo=1", "optimizer.lr"),
        ("+optimizer.foo=1", "foo"),
        ("trainer.checkpoint_every=0", "trainer.checkpoint_every=0 must be auto or a positive integer"),
        ("trainer.num_workers=foo", "trainer.num_workers"),
        ("trainer.gradient_clip_val=foo", "trainer.gradient_clip_val"),
        ("trainer.compile=maybe", "true or false"),
        ("debug.overfit=maybe", "true or false"),
        ("network.widths=foo", "network"),
        ("task.costs_size=foo", "task.costs_size"),
        ("schedule.milestones=5", "schedule.milestones=5 must be a list of epochs"),
        ("schedule.name=cosin", "unknown schedule 'cosin'. Did you mean 'cosine'?"),
        ("training.epochs=null training.steps=3", "schedule=multistep counts in epochs"),
        ("budget.max_steps=foo", "budget.max_steps"),
        ("budget=smoke trainer.devices=4", "budget.max_batch_size=2"),
        ("training.size=8", "training.size=8 is too small"),
        ("resampling=null", "resampling"),
        ("task=null", "task"),
        ("encoder=resnet34", "brings its own encoder; give encoder=none"),
        ("resampling.normalization=foo", "normalization"),
        ("experiments=tpami/table3_mating", "'tpami/table3_matting'"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_nearest_key(override, sentence):
    with refused(sentence):
        _frozen(*override.split())


_LABELLED = ("camvid", "sunrgbd", "ade20k", "segmentation_folder")
_GROUPS = ("data", "resampling", "optimizer", "schedule", "logger", "budget", "debug")


def _choices():
    """Every option of every group at least once, one of each at a time: they say nothing of each other."""
    options = {group: [each for each in _options(group) if each != "timm"] for group in _GROUPS}
    options["resampling"].remove("none")  # which takes another network
    for number in range(max(map(len, options.values()))):
        yield {group: names[number % len(names)] for group, names in options.items()}
    yield {"resampling": "none"}


def _suits(group, option):
    """What else has to be said for an option."""
    if group == "data":
        return {
            **{name: ["task=segmentation"] for name in _LABELLED},
            "train400": ["task=denoising"],
            "segmentation_folder": ["task=segmentation", "data.classes=[a,b]"],
        }.get(
            option,
            # a network that every operator suits
            ["task=depth", "network=matting_unet", "network.in_channels=3", "encoder=mobilenetv2_released"]
            if option.startswith("nyuv2")
            else ["task=matting"] if "matting" in get_data(option).info.tasks and option != "scenes" else [],
        )  # fmt: skip
    more = {("resampling", "none"): ["task=denoising", "network=dncnn"],
            ("schedule", "plateau"): ["training.validate_every=0.5"]}  # fmt: skip
    return more.get((group, option), [])


@pytest.mark.parametrize("chosen", _choices(), ids=lambda chosen: "-".join(chosen.values()))
def test_every_option_of_every_group_freezes(chosen):
    words = [word for each in chosen.items() for word in (*_suits(*each), "=".join(each))]
    config = _frozen(*words)
    assert json.loads(json.dumps(config)) == config
    for group, option in chosen.items():
        assert config[group].get("name", option) == option or group in ("logger", "debug")


def test_every_option_is_chosen():
    for group in _GROUPS:
        chosen = {each[group] for each in _choices() if group in each}
        assert chosen == {each for each in _options(group) if each != "timm"}  # which stands for all that have no file


def _pairs():
    """Every network for every task; the quick tests show each for one, in turn."""
    tasks = _options("task")
    for number, network in enumerate(_options("network")):
        for each, task in enumerate(tasks):
            later = [pytest.mark.long, pytest.mark.nightly] * (each != number % len(tasks))
            yield pytest.param(task, network, marks=later)


@pytest.mark.parametrize(("task", "network"), _pairs())
def test_every_task_and_network_freezes(task, network):
    words = [f"task={task}", f"network={network}"]  # which brings its usual encoder
    if task == "segmentation" and network not in ("segnet", "upernet"):  # others name no classes
        with pytest.raises(UserError, match=r"task\.classes names 8 classes but the network"):
            freeze(compose(words))
        return
    if task == "portrait" and network != "pspm":
        with pytest.raises(UserError, match="predicts no trimap here"):
            freeze(compose(words))
        words.append("task.loss.segmentation=0")
    if network in ("segnet", "upernet") and task != "segmentation":
        words.append("network.classes=1")
    config = freeze(compose(words))
    assert config["network"]["name"] == network


def test_a_network_brings_its_usual_encoder_and_a_typed_one_goes_before_it():
    assert freeze(compose(["task=segmentation", "network=upernet"]))["encoder"]["name"] == "mobilenetv2_100"
    assert freeze(compose(["network=rmat", "encoder=mit_b0"]))["encoder"]["name"] == "mit_b0"
    assert freeze(compose(["encoder=resnet18", "task=matting"]))["encoder"]["name"] == "resnet18"


def test_auto_is_settled_by_the_encoders_weights(tmp_path):
    config = freeze(compose(["task=matting"]))
    assert config["encoder"]["freeze_bn"] is False
    assert config["optimizer"]["encoder_lr_multiplier"] == 1
    weights = tmp_path / "weights.pth"
    weights.touch()
    config = freeze(compose(["task=matting", f"encoder.pretrained={weights}"]))
    assert config["encoder"]["freeze_bn"] is True
    assert config["optimizer"]["encoder_lr_multiplier"] == 0.01
    with pytest.raises(UserError, match=r"encoder\.pretrained=nowhere\.pth is no file"):
        freeze(compose(["task=matting", "encoder.pretrained=nowhere.pth"]))


def test_a_constant_schedule_keeps_no_milestones():
    assert _frozen("schedule=constant")["schedule"] == {"name": "constant"}


def test_what_does_not_matter_may_change_until_the_run_is_done(tmp_path):
    folder = prepare(_frozen(f"paths.runs={tmp_path}", "trainer.num_workers=3"))
    assert prepare(_frozen(f"paths.runs={tmp_path}", "trainer.num_workers=0")).path == folder.path
    assert folder.config()["trainer"]["num_workers"] == 0


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"give paths\.runs="):
        prepare(_frozen(f"paths.runs={tmp_path}/file"))


@pytest.mark.parametrize("override", ["rows=a", "seeds=[0,1]"])
def test_rows_and_seeds_need_a_sweep(override):
    with pytest.raises(UserError, match="give -m"):
        train(["task=reconstruction", override])


def test_budget_caps_and_never_raises():
    config = _frozen("budget=smoke", "training.batch_size=64", "training.size=32")
    assert config["training"]["batch_size"] == 2
    assert config["training"]["size"] == 32


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ("task=reconstruction", "e82a9b24695d"),
        ("task=reconstruction budget=smoke seed=3", "afc4944a412f"),
        ("task=denoising", "847c90334ca2"),
        ("task=matting", "4bce1c47db03"),
        ("task=matting budget=small trainer.devices=2 logger=none", "a4e572d60f8b"),
        ("task=segmentation", "918135ee30c7"),
        ("task=depth schedule=constant training.steps=10", "6f472dc79923"),
        ("task=reconstruction resampling=indexnet trainer.accelerator=cpu", "335b0bbdefbd"),
        ("task=reconstruction resampling=indexnet trainer.accelerator=cpu trainer.accumulate_grad_batches=2 "
         "trainer.gradient_clip_val=1.5 trainer.devices=2", "658275c15cef"),
        ("task=reconstruction data=mnist data.root=/x trainer.num_workers=4", "c0940d2f2a5b"),
        ("task=segmentation data=camvid data.cache=true", "8ade128b30f9"),
        ("task=depth data=nyuv2_h5", "8e40d4970b64"),
        ("task=matting data=composition1k", "61e70cac333e"),
        ("task=denoising data=train400", "e29c4d74c598"),
        ("task=matting network=refinenet", "fae965ae34cd"),
        ("task=matting network=deep_matting encoder=vgg16_bn", "559af2ae884f"),
        ("task=matting split=validation data=scenes data.validation_count=10", "a01fce3a2d96"),
        ("experiments=quickstart resampling.family=hin experiment.row=hin", "05857ebb6c58"),
        ("experiments=tpami/table3_matting experiment.row=x", "f00eee0f3782"),
    ],
)  # fmt: skip
def test_the_hash_of_a_run_stays_what_earlier_versions_gave_it(words, known):
    assert config_hash(freeze(compose(words.split()))) == known


def test_the_hash_ignores_where_results_go():
    config = _frozen()
    assert config_hash(config) == config_hash(_frozen("paths.runs=elsewhere", "logger=none", "trainer.num_workers=3"))
    assert config_hash(_frozen("data=mnist", "paths.data=a")) == config_hash(_frozen("data=mnist", "paths.data=b"))
    assert config_hash(config) != config_hash(_frozen("seed=1"))
    assert config_hash(config) == config_hash({**config, "plugins": ["mine"]})  # where code comes from, not what it is
    assert config_hash(config) == config_hash({**config, "protocol": {}, "changes": []})


@pytest.mark.parametrize("task", sorted(FIRST_LOSSES))
def test_the_loss_that_there_was_before_there_was_a_choice_is_no_part_of_a_hash(task):
    plain = _frozen(f"task={task}")
    assert "loss" not in plain["task"]
    assert dict(get_task(task)(network_spec(plain)).weights) == FIRST_LOSSES[task]  # what such a run is trained with
    usual = ",".join(f"{term}: {weight:g}" for term, weight in FIRST_LOSSES[task].items())
    assert _frozen(f"task={task}", f"task.loss={{{usual}}}") == _frozen(f"task={task}", "task.loss=null") == plain


def test_a_loss_is_kept_without_what_has_no_weight():
    config = _frozen("task=depth", "task.loss.l1=0", "task.loss.log=1")
    assert config["task"]["loss"] == {"log": 1.0}
    assert config == _frozen("task=depth", "task.loss={l1: 0, log: 1.0}")
    assert "alignment" not in _frozen("task=matting")["task"]
    assert _frozen("task=matting", "task.alignment=reflect")["task"]["alignment"] == "reflect"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("task.loss.laplacain=1", "Did you mean 'task.loss.laplacian'?"),
        ("+task.loss.laplacain=0", "unknown term of task.loss 'laplacain'. Did you mean 'laplacian'?"),
        ("task.loss.alpha=-1", "task.loss.alpha=-1 must be a number of at least 0."),
        ("task.loss.alpha=0 task.loss.composition=0", "task.loss has no term of a weight above 0"),
        ("task.loss=laplacian", "task.loss='laplacian' must be a mapping or null."),
        ("task.alignment=pad", "task.alignment='pad' must be resize or reflect."),
    ],
)
def test_a_loss_that_cannot_be_is_one_sentence(words, said):
    with pytest.raises(UserError) as caught:
        _frozen("task=matting", *words.split())
    assert said in str(caught.value)


def test_places_are_marked_in_the_schema():
    assert places() == {
        *("paths", "logger", "plugins", "tags", "protocol", "changes", "uncut", "data.root", "data.cache"),
        *("trainer.num_workers", "trainer.enable_progress_bar", "trainer.timeout", "init.checkpoint"),
    }
    assert is_place("paths.runs")
    assert not is_place("trainer.devices")


def test_a_typed_view_of_a_frozen_configuration():
    config = _frozen("trainer.devices=2", "training.steps=7")
    assert read_config(config).trainer.devices == 2
    assert read_config(config).training.steps == 7
    assert read_config(config).experiment == ExperimentConfig(None, None, None)


def test_a_run_may_change_where_decoded_files_are_kept(tmp_path):
    words = ("task=segmentation", "data=camvid", f"paths.runs={tmp_path}")
    first = _frozen(*words)
    known = config_hash(first)
    folder = prepare(first)
    for cache in ("false", "true"):
        other = _frozen(*words, f"data.cache={cache}")
        assert config_hash(other) == known
        assert prepare(other).path == folder.path
        assert folder.config() == other
    assert "keys that do not matter" in difference(first, other)
    assert known != config_hash(_frozen(*words, "data.scale=[1,2]"))


def test_folders(tmp_path):
    config = _frozen(f"paths.runs={tmp_path}")
    folder = prepare(config)
    assert folder.path == run_path(config) == prepare(config).path
    assert folder.config() == config
    assert folder.status() == "new"
    assert folder.record() is None
    changed = {**config, "training": {**config["training"], "steps": 7}}
    changed["experiment"] = config["experiment"] = {"name": "t", "row": "r", "label": "R"}
    first = prepare(config)
    assert first.path == tmp_path / "t" / "photos-paper" / "r" / "seed=0"
    (first.path / "console.log").touch()  # begun
    with pytest.raises(UserError, match=r"training\.steps is None there and 7 here"):
        prepare(changed)


def test_a_table_needs_a_row(tmp_path):
    config = _frozen(f"paths.runs={tmp_path}")
    config["experiment"] = {"name": "t", "row": None, "label": None}
    with pytest.raises(UserError, match="-m experiments=t"):
        run_path(config)


def test_a_folder_is_held_by_one_process(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.lock():
        assert folder.locked()
        code = "import sys; from pathlib import Path; from indexnet.run.folder import RunFolder as F; "
        code += "print(F(Path(sys.argv[1])).locked())"
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert other.stdout.strip() == "True"
    assert not folder.locked()
    with exclusive(tmp_path / "x", "no"), pytest.raises(UserError, match="no"), exclusive(tmp_path / "x", "no"):
        pass


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match=r"no config\.yaml"):
        RunFolder(tmp_path).config()
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML"):
        RunFolder(tmp_path).config()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-m", "seed=0,1", "hydra.launcher.n_job=2"], "'hydra.launcher.n_job'. Did you mean 'hydra.launcher.n_jobs'?"),
        (["-m", "seed=0,1", "hydra.launcher.n_jobs=two"], "hydra.launcher.n_jobs=two: this key takes another kind"),
        (["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trial=2"], "Did you mean 'hydra.sweeper.n_trials'?"),
        (
            ["resampling.family=hin,m2o"],
            "resampling.family=hin,m2o is a list of values; give -m to sweep over them, or",
        ),
        (
            ["ckpt_path=a=b/c,d.ckpt"],
            "ckpt_path='a=b/c',d.ckpt is a list of values; give -m to sweep over them, or one "
            "value; quotes keep a comma: 'KEY=\"A,B\"'.",
        ),
        (['ckpt_path="a=b/c,d.ckpt"'], "there is no checkpoint ckpt_path=a=b/c,d.ckpt;"),
        (
            ["ckpt_path=run"],
            "ckpt_path=run is a folder, but a checkpoint file is needed; its last checkpoint is run/ch",
        ),
        (["-m", "optimizer.lr=interval(a,b)"], "interval(a,b) takes two numbers"),
        (["task=reconstruction", "data.root=/x"], "this data set reads no folder"),
        (["--config-dir", "/gone", "seed=1"], "--config-dir /gone: there is no such folder; name one that holds exper"),
        (["--config-path", "/gone"], "--config-path /gone: there is no such folder; leave it out."),
        (["--config-path", "gone"], "gone: there is no such folder; leave it out."),
        (["--config-name", "gone"], "--config-name gone: there is no such configuration; leave it out."),
        (["-m", "seed=0,1", "fail_fast=${nosuch}"], "fail_fast cannot be resolved"),
        (["-m", "seed=0,1", "plugins=???"], "plugins cannot be resolved"),
    ],
)
def test_mistakes_that_hydra_finds_are_said_with_a_remedy(
    arguments,
    sentence,
    mistake,
    tmp_path,
):
    from indexnet.cli import main

    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    mistake(main(["train", *arguments]), sentence)
