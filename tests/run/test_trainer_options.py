"""The group ``trainer``: every argument of Lightning's Trainer is passed on, or refused with what to give instead."""

from __future__ import annotations

import contextlib
import inspect
import typing
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.plugins.precision import Precision as LightningPrecision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import DDPStrategy, StrategyRegistry

from indexnet.core.errors import UserError
from indexnet.core.paths import VARIABLE, conf_dir, experiments_dir
from indexnet.run.config import compose, freeze
from indexnet.run.folder import prepare, run_path
from indexnet.run.identity import config_hash
from indexnet.run.job import run_job
from indexnet.run.schema import TrainerConfig, read_config
from indexnet.run.trainer_options import OWN, PASSED, REFUSED, RENAMED, lightning_arguments, settle_trainer, table
from indexnet.sweep.launch import run_sweep
from run_support import RECONSTRUCTION, losses, prepare_run, refused, same, weights

SHORT = [*RECONSTRUCTION, "training.steps=2", "data.test_count=3"]

ARGUMENTS = [name for name in inspect.signature(pl.Trainer).parameters if name != "self"]


def _frozen(*overrides):
    return freeze(compose(["task=reconstruction", *overrides]))


def _trainer(*overrides):
    return _frozen(*overrides)["trainer"]


def test_the_table_covers_lightnings_trainer():
    assert sorted([*PASSED, *REFUSED]) == sorted(ARGUMENTS)
    assert {each.name for each in fields(TrainerConfig)} <= {*PASSED, *OWN}
    assert {each.name for each in fields(TrainerConfig)} >= {*PASSED}
    assert not set(OWN) & set(ARGUMENTS)
    assert not set(RENAMED) & {*PASSED, *REFUSED, *OWN}


def test_every_key_is_written_in_the_group():
    listed = yaml.safe_load((conf_dir() / "trainer" / "default.yaml").read_text())
    assert listed.keys() == {each.name for each in fields(TrainerConfig)}


@pytest.mark.parametrize("name", [*REFUSED, *RENAMED])
@pytest.mark.parametrize("plus", ["", "+"])
def test_what_the_run_decides_is_refused_with_what_to_give_instead(name, plus):
    with pytest.raises(UserError) as error:
        _frozen(f"{plus}trainer.{name}=1")
    said = str(error.value)
    assert said.startswith(f"trainer.{name} ")
    assert (RENAMED.get(name) or REFUSED.get(name)) in said
    assert said.endswith(".")
    assert "\n" not in said


def test_an_experiment_file_with_an_old_name_is_told(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    text = (experiments_dir() / "quickstart.yaml").read_text()
    text = text.replace("  channels_last: true", "  gradient_clip: 3\n  channels_last: true")
    (tmp_path / "experiments" / "old.yaml").write_text(text.replace("name: quickstart", "name: old"))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match=r"give trainer\.gradient_clip_val"):
        _frozen("experiments=old")


@pytest.mark.parametrize(
    ("override", "key", "frozen"),
    [
        ("precision=32", "precision", "32-true"),
        ('precision="16"', "precision", "16-mixed"),
        ("precision=bf16", "precision", "bf16-mixed"),
        ("precision=64", "precision", "64-true"),
        ("accelerator=cuda", "accelerator", "gpu"),
        ("devices=[0]", "devices", [0]),
        ('devices="0,1"', "devices", [0, 1]),
        ('devices="3,"', "devices", [3]),
        ('devices="2"', "devices", 2),
        ("profiler=simple", "profiler", "simple"),
        ("deterministic=warn", "deterministic", "warn"),
        ("log_every_n_steps=5", "log_every_n_steps", 5),
    ],
)
def test_a_value_is_frozen_in_one_spelling(override, key, frozen):
    assert _trainer(f"trainer.{override}")[key] == frozen


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("trainer.precision=8", "trainer.precision=8 must be one of 32-true, 16-mixed"),
        ("trainer.precision=transformer-engine", "trainer.precision='transformer-engine' must be one of"),
        ("trainer.accelerator=mps", "trainer.accelerator=mps is refused: metrics are summed in float64"),
        ("trainer.accelerator=gppu", "Did you mean 'gpu'?"),
        ("trainer.strategy=fsdp", "trainer.strategy=fsdp is refused: its checkpoints are parts"),
        ("trainer.strategy=ddp_spawn", "trainer.strategy=ddp_spawn is refused: it starts processes"),
        ("trainer.strategy=dpp", "no such strategy. Did you mean 'ddp'?"),
        ("trainer.strategy=ddp trainer.devices=4 trainer.accelerator=cpu", "give trainer.strategy=auto"),
        ("trainer.devices=0", "trainer.devices=0 must be"),
        ("trainer.devices=[]", "trainer.devices=[] must be"),
        ("trainer.devices=[1,1]", "trainer.devices=[1, 1] must be"),
        ("trainer.devices=two", "trainer.devices='two' must be"),
        ("trainer.devices=[0,1] trainer.accelerator=cpu", "trainer.devices=[0,1] chooses GPUs"),
        ("trainer.gradient_clip_algorithm=value", "give trainer.gradient_clip_val=NUMBER"),
        ("trainer.gradient_clip_algorithm=foo", "must be norm or value"),
        ("trainer.profiler=xla", "trainer.profiler='xla' must be"),
        ("trainer.log_every_n_steps=0", "must be auto or a positive integer"),
        ("trainer.deterministic=maybe", "trainer.deterministic='maybe' must be"),
    ],
)
def test_a_value_that_cannot_be_is_one_sentence(overrides, sentence):
    with refused(sentence):
        _frozen(*overrides.split())


def test_every_strategy_of_lightnings_is_known():
    accepted = []
    trainer = _trainer()
    for name in StrategyRegistry.available_strategies():
        with contextlib.suppress(UserError):
            accepted.append(settle_trainer({**trainer, "strategy": name})["strategy"])
            continue
        with pytest.raises(UserError, match=r"is refused: (?!no such strategy)"):
            settle_trainer({**trainer, "strategy": name})
    assert set(accepted) == {"ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"}


def test_every_precision_of_lightnings_is_known():
    from lightning_fabric.plugins.precision.precision import _PRECISION_INPUT

    known = {value for kind in typing.get_args(_PRECISION_INPUT) for value in typing.get_args(kind)}
    accepted = set(typing.get_args(typing.get_type_hints(TrainerConfig)["precision"]))
    assert {value for value in known if "transformer-engine" not in str(value)} == accepted
    assert LightningPrecision.precision in accepted
    for name in ("bf16-true", "16-true"):
        with pytest.raises(UserError, match=f"{name} is refused: test images .* give trainer.precision=.*16-mixed"):
            _frozen(f"trainer.precision={name}")


def test_all_devices_of_this_machine():
    count = max(1, torch.cuda.device_count())
    assert _trainer("trainer.devices=auto")["devices"] == count
    assert read_config(_frozen("trainer.devices=auto")).trainer.processes == count
    assert _trainer("trainer.devices=auto", "trainer.accelerator=cpu")["devices"] == 1
    if torch.cuda.device_count() == 0:
        with pytest.raises(UserError, match=r"this machine shows none; give trainer\.devices=1"):
            _frozen("trainer.devices=-1")


def test_processes_of_a_list_of_gpus():
    config = _frozen("trainer.devices=[0,2]", "trainer.num_nodes=2")
    assert read_config(config).trainer.processes == 4
    assert config_hash(config) == config_hash(_frozen("trainer.devices=2", "trainer.num_nodes=2"))


def test_gpus_that_are_not_there(tmp_path):
    folder = prepare_run(tmp_path, "task=reconstruction", "trainer.devices=[6,7]", "trainer.accelerator=gpu")
    with pytest.raises(UserError, match=r"give trainer\.accelerator=cpu|numbered from 0"):
        run_job(folder.path)


def test_what_is_said_already_changes_no_hash():
    plain = _frozen()
    assert plain["trainer"].keys() == {
        *("accelerator", "devices", "num_nodes", "precision", "accumulate_grad_batches", "sync_batchnorm"),
        *("gradient_clip_val", "channels_last", "compile", "num_workers", "checkpoint_every", "enable_progress_bar"),
    }
    for word in ("precision=32", "detect_anomaly=false", "strategy=auto", "accelerator=auto", "inference_mode=true"):
        assert config_hash(_frozen(f"trainer.{word}")) == config_hash(plain)
    for word in ("precision=bf16", "detect_anomaly=true", "benchmark=true", "profiler=simple"):
        assert config_hash(_frozen(f"trainer.{word}")) != config_hash(plain)


def test_a_configuration_under_earlier_names(tmp_path):
    """Same hash, same folder; it is read, and it is seen to be the same."""
    config = _frozen("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.5", f"paths.runs={tmp_path}")
    first = {new: old for old, new in RENAMED.items()}
    old = {**config, "trainer": {first.get(key, key): value for key, value in config["trainer"].items()}}
    assert old["trainer"]["accumulate"] == 2
    assert config_hash(old) == config_hash(config)
    assert read_config(old).trainer == read_config(config).trainer
    path = run_path(config)
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(old))
    assert prepare(config).config() == config


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = prepare_run(tmp_path_factory.mktemp("plain"), *SHORT)
    assert run_job(folder.path) == 0
    return folder


@pytest.fixture
def torch_flags():
    """Lightning sets flags of this process that no run takes back."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]


UNCHANGED = [
    "accelerator=auto",
    "strategy=ddp",
    "devices=auto",
    "num_nodes=1",
    "log_every_n_steps=1",
    "enable_progress_bar=true",
    "enable_model_summary=true",
    "deterministic=warn",
    "benchmark=true",
    "inference_mode=false",
    "profiler=simple",
    "detect_anomaly=true",
    "sync_batchnorm=true",
]
"""Arguments that change no number of this network, on a CPU."""

CHANGED = ["precision=bf16", "accumulate_grad_batches=2", "gradient_clip_val=0.01", "gradient_clip_algorithm=value"]


def test_every_argument_that_is_passed_on_is_run():
    assert sorted(word.partition("=")[0] for word in (*UNCHANGED, *CHANGED)) == sorted(PASSED)


QUICK = ["log_every_n_steps=1", "sync_batchnorm=true", "profiler=simple", "gradient_clip_algorithm=value"]
"""What the test looks closer at."""


@pytest.mark.parametrize("word", [
    word if word in QUICK else pytest.param(word, marks=[pytest.mark.long, pytest.mark.nightly])
    for word in (*UNCHANGED, *CHANGED)
])  # fmt: skip
def test_a_run_with_an_argument(word, plain, tmp_path, torch_flags, capsys):
    words = [f"trainer.{word}"]
    if word.startswith("accelerator") and torch.cuda.is_available():
        pytest.skip("the run would be on another device")
    if word.startswith("gradient_clip_algorithm"):
        words.append("trainer.gradient_clip_val=0.001")
    folder = prepare_run(tmp_path, *SHORT, *words)
    assert run_job(folder.path) == 0
    record, (said, remarks) = folder.record(), capsys.readouterr()
    assert (record.status, record.steps, record.test_count) == ("done", 2, 3)
    assert same(weights(folder), weights(plain)) is (word in UNCHANGED)
    if word.split("=")[0] in ("strategy", "sync_batchnorm"):
        assert f"trainer.{word} does nothing on one device" in remarks
    if word == "enable_model_summary=true":
        assert "Trainable params" in said
    if word == "log_every_n_steps=1":
        assert [step for step, _ in losses(folder)] == ["0", "1"]
    if word == "profiler=simple":
        assert "training_step" in next((folder.path / "profiler").glob("fit-simple*.txt")).read_text()


@pytest.mark.parametrize("word", [
    "precision=bf16-mixed",
    *(pytest.param(word, marks=[pytest.mark.long, pytest.mark.nightly])
      for word in ("precision=64", "profiler=advanced", "profiler=pytorch", "deterministic=true")),
])  # fmt: skip
def test_a_run_with_another_value(word, tmp_path, torch_flags, capsys):
    folder = prepare_run(tmp_path, *SHORT, f"trainer.{word}")
    assert run_job(folder.path) == 0
    assert "Traceback" not in capsys.readouterr().err
    assert (folder.path / "pictures" / "pictures.json").is_file()
    assert (folder.path / "profiler").is_dir() is word.startswith("profiler")


class _Recorded(DDPStrategy):
    """Keeps what it is made with."""

    def __init__(self, **given):
        super().__init__(**given)
        self.given = given


def test_what_lightning_is_given(tmp_path, monkeypatch):
    """A group that says nothing gives what runs always had; each of Lightning's names reaches Lightning."""
    monkeypatch.setattr("pytorch_lightning.strategies.DDPStrategy", _Recorded)

    def arguments(*words, accelerator="cpu"):
        trainer = read_config(_frozen("training.batch_size=12", *(f"trainer.{word}" for word in words))).trainer
        settings = {"accelerator": accelerator, "processes": trainer.processes, "log_interval": 7, "folder": tmp_path}
        return lightning_arguments(vars(trainer), **settings)

    said = {name: value.default for name, value in inspect.signature(pl.Trainer).parameters.items()}
    own = {"accelerator": "cpu", "devices": 1, "precision": "32-true", "log_every_n_steps": 7}
    same_thing = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "deterministic", "benchmark"), False)
    expected = {name: said[name] for name in PASSED} | own | same_thing | {"gradient_clip_algorithm": "norm"}
    given = arguments("enable_progress_bar=false")
    assert type(given.pop("profiler")) is PassThroughProfiler  # as Lightning itself makes of None
    assert expected.pop("profiler") is None
    assert given == expected
    assert arguments()["strategy"] == "auto"
    for words, accelerator, unused in (
        (["devices=2"], "cpu", False),
        (["devices=3"], "cpu", True),
        (["devices=3"], "gpu", False),
        (["devices=2", "strategy=ddp_find_unused_parameters_true"], "cpu", True),
        (["devices=2", "strategy=ddp"], "cpu", False),
    ):
        given = arguments(*words, accelerator=accelerator)["strategy"].given
        assert given["find_unused_parameters"] is unused
        assert given["timeout"] >= timedelta(days=1)  # one waits for the others' shares of an evaluation
    assert arguments("devices=[0,1]", accelerator="gpu")["devices"] == [0, 1]
    assert not arguments("sync_batchnorm=true")["sync_batchnorm"]


def test_the_docs_have_the_table():
    page = (Path(__file__).parents[2] / "docs" / "trainer.md").read_text(encoding="utf-8")
    assert table() in page


def test_a_sweep_gives_each_run_its_own_gpus(tmp_path):
    config = _frozen("trainer.devices=[0,1]", f"paths.runs={tmp_path}")
    with pytest.raises(UserError, match=r"trainer\.devices=\[0, 1\] chooses GPUs.*CUDA_VISIBLE_DEVICES"):
        run_sweep([config], ["a"])
    assert not list(tmp_path.iterdir())
