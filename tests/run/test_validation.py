"""Validation while training: it changes no number, survives every kill, and says what was best."""

from __future__ import annotations

import signal

import pytest
import torch

from indexnet.core.errors import UserError
from indexnet.run import callbacks
from indexnet.run.callback_options import create_callbacks
from indexnet.run.checkpoints import Monitor
from indexnet.run.config import compose, freeze
from indexnet.run.identity import config_hash
from indexnet.run.job import run_job
from resume_support import die, ended_as, forks, progress_that, result_of, start
from run_support import DENOISING, RECONSTRUCTION, curve, prepare_run, refused, same, weights

VALIDATED = [*DENOISING, "data.train_count=24", "trainer.checkpoint_every=2", "training.holdout=0.2"]
EVERYTHING = [*VALIDATED, "training.validate_every=3", "training.steps=9", "callbacks=[early_stopping,ema,lr_monitor]",
              "callbacks.ema.decay=0.5", "callbacks.early_stopping.patience=2"]  # fmt: skip


def rows(folder):
    """What was logged: step, and all that has a value."""
    found = [(row["step"], {key: value for key, value in row.items() if value}) for row in curve(folder)]
    return [(step, row) for step, row in found if not any(key.startswith("test/") for key in row)]


def best(folder):
    return torch.load(folder.best_checkpoint(), weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = prepare_run(tmp_path_factory.mktemp("whole"), *EVERYTHING)
    assert run_job(folder.path) == 0
    return folder


def test_validation_changes_no_number_of_training(tmp_path):
    without, with_it = (
        prepare_run(tmp_path / name, *VALIDATED, *words)
        for name, words in (("a", []), ("b", ["training.validate_every=2"]))
    )
    assert run_job(without.path) == run_job(with_it.path) == 0
    assert same(weights(without), weights(with_it))
    assert without.record().metrics == with_it.record().metrics
    assert without.record().data.train == with_it.record().data.train  # the share is held out of both
    assert without.record().data.validation == with_it.record().data.validation
    assert without.record().best is None
    assert not without.best_checkpoint().exists()
    assert [step for step, row in rows(with_it) if "val/psnr" in row] == ["1", "3", "5"]


def test_the_record_says_what_was_best_and_what_was_tested(whole, tmp_path):
    record, validated = (
        whole.record(),
        {int(step) + 1: float(row["val/psnr"]) for step, row in rows(whole) if "val/psnr" in row},
    )
    assert record.best["metric"] == "val/psnr"
    assert record.tested == "last"
    assert record.best["value"] == max(validated.values()) == validated[record.best["step"]]
    assert best(whole)["global_step"] == record.best["step"]
    assert record.data.validation.count > 0
    tested = prepare_run(tmp_path, *VALIDATED, "training.validate_every=3", "test_checkpoint=best")
    assert run_job(tested.path) == 0
    assert tested.record().tested == "best"


def test_the_tested_weights_are_those_of_the_best_checkpoint(tmp_path):
    words = [
        *VALIDATED,
        "training.validate_every=1",
        "optimizer.lr=0.3",
        "training.steps=8",
        "schedule=constant",
    ]  # which makes it worse
    last, chosen = prepare_run(tmp_path / "a", *words), prepare_run(tmp_path / "b", *words, "test_checkpoint=best")
    assert run_job(last.path) == run_job(chosen.path) == 0
    step = chosen.record().best["step"]
    assert step < 8
    assert last.record().best == chosen.record().best
    assert same(weights(last), weights(chosen))
    short = prepare_run(tmp_path / "c", *words, f"training.steps={step}")
    assert run_job(short.path) == 0
    assert short.record().metrics == chosen.record().metrics != last.record().metrics


def test_the_average_of_the_weights_is_what_is_validated_and_tested(whole):
    checkpoint = torch.load(whole.checkpoint(), weights_only=True)
    assert not same(checkpoint["state_dict"], checkpoint["current_model_state"])


def test_early_stopping_ends_the_run_and_the_record_says_where(tmp_path):
    words = [*VALIDATED, "training.steps=40", "training.validate_every=2", "optimizer.lr=0.3",
             "callbacks=early_stopping", "callbacks.early_stopping.patience=1"]  # fmt: skip
    folder = prepare_run(tmp_path, *words)
    assert run_job(folder.path) == 0
    record = folder.record()
    assert record.stopped == torch.load(folder.checkpoint(), weights_only=True)["global_step"] < 40
    (folder.path / "record.json").unlink()  # as if it had been killed before its test ended
    assert run_job(folder.path) == 0
    assert folder.record().stopped == record.stopped
    assert folder.record().metrics == record.metrics
    assert folder.record().best == record.best


def _at(hook, step):
    """Let a process kill itself in a hook of its progress, at a step."""

    def before():
        callbacks.Progress = progress_that(die, hook, step)

    return before


KILLS = [("on_train_batch_end", 5), ("on_validation_start", 6), ("on_validation_batch_start", 6),
         ("on_validation_batch_end", 3), ("on_validation_epoch_end", 6), ("on_validation_end", 6),
         ("on_validation_end", 9), ("on_train_batch_start", 6), ("on_train_batch_start", 7),
         ("on_train_epoch_end", 9), ("on_train_end", 9), ("on_test_batch_end", 9)]  # fmt: skip
QUICK = [("on_train_batch_end", 5, 3), ("on_validation_batch_end", 3, 2), ("on_validation_end", 6, 2),
         ("on_validation_end", 9, 3), ("on_test_batch_end", 9, 2)]  # fmt: skip
"""In training and in the middle of a validation, between the two, at the end, and in the test."""
MOMENTS = [
    pytest.param(*kill, every, marks=[pytest.mark.long, pytest.mark.nightly] * ((*kill, every) not in QUICK))
    for every in (2, 3) for kill in KILLS
]  # fmt: skip


@forks
@pytest.mark.parametrize(("hook", "step", "every"), MOMENTS)
def test_a_run_killed_anywhere_goes_on_exactly(hook, step, every, whole, tmp_path):
    folder = prepare_run(tmp_path, *EVERYTHING, f"trainer.checkpoint_every={every}")
    assert result_of(start(folder, _at(hook, step))) == -signal.SIGKILL
    assert result_of(start(folder)) == 0
    ended_as(whole, folder)
    assert rows(folder) == rows(whole)
    assert folder.record().best == whole.record().best
    there, here = (torch.load(each.checkpoint(), weights_only=True) for each in (whole, folder))
    for key in ("current_model_state", "state_dict"):
        assert same(there[key], here[key])
    for name, state in there["callbacks"].items():
        if name not in ("Progress", "SkippedFiles"):
            assert str(here["callbacks"][name]) == str(state)
    assert same(best(whole)["state_dict"], best(folder)["state_dict"])


# --- mistakes --------------------------------------------------------------------------------------------------------


MISTAKES = {
    "callbacks=early_stoping": "early_stopping",
    "+callbacks.mine={_target_: pytorch_lightning.callbacks.EarlyStoping}": "Did you mean 'EarlyStopping'",
    "+callbacks.mine={_target_: pytorch_lightning.callbacks.ModelCheckpoint}": "writes its own checkpoints",
    "+callbacks.mine={_target_: os.system}": "no pytorch_lightning.Callback",
    "+callbacks.mine={patience: 2}": "names no class",
    "callbacks=early_stopping": "there is none; give training.validate_every",
    "callbacks=[lr_monitor] callbacks.lr_monitor.logging_interval=2": "callbacks.lr_monitor.logging_interval=2",
    "callbacks=[lr_monitor] +callbacks.lr_monitor.interval=step": "has no option 'interval'",
    "training.validate_every=2 training.holdout=0": "leaves nothing to validate on",
    "callbacks=[ema,early_stoping]": "Did you mean 'early_stopping'?",
    "callbacks.ema.decay=0.9": "callbacks.ema is not chosen; give callbacks=ema too",
    "training.validate_every=2 callbacks=early_stopping callbacks.early_stopping.monitor=train/loss": "nobody logs",
    "training.validate_every=0": "must be a number of steps, or a fraction of the run below 1",
    "training.validate_every=1.5": "a number of steps, or a fraction",
    "training.holdout=1": "a share between 0 and 1",
    "trainer.monitor=val/psnr": "there is none; give training.validate_every",
    "training.validate_every=2 trainer.monitor=val/psnt": "Did you mean 'val/psnr'?",
    "training.validate_every=2 callbacks=early_stopping callbacks.early_stopping.monitor=val/x": "nobody logs 'val/x'",
    "test_checkpoint=best": "give training.validate_every",
    "test_checkpoint=first": "last or best",
    "ckpt_path=nowhere.ckpt": "there is no checkpoint ckpt_path=nowhere.ckpt",
}


@pytest.mark.parametrize(("words", "said"), MISTAKES.items())
def test_mistakes_are_one_sentence_before_anything_starts(words, said):
    given = [words] if words.startswith("+") else words.split()
    with refused(said):
        freeze(compose([*DENOISING, *given]))


def test_nothing_to_validate_on_is_one_sentence(tmp_path):
    words = ["task=depth", "data=scenes", "training.validate_every=2", "training.holdout=0", "training.steps=4"]
    folder = prepare_run(tmp_path, *words)  # whether scenes have a split is seen once they are built
    with pytest.raises(UserError, match=r"training\.holdout=0 leaves nothing to validate on"):
        run_job(folder.path)


def test_a_callback_that_raises_is_named_and_nothing_is_lost(tmp_path):
    own = "+callbacks.own={_target_: run_support.Failing}"
    folder = prepare_run(tmp_path, *VALIDATED, "training.validate_every=5", own)
    with pytest.raises(UserError, match=r"callbacks\.own failed: ValueError: no room for it \(.*run_support\.py"):
        run_job(folder.path)
    assert folder.record().status == "failed"
    assert folder.checkpoint().is_file()


def test_a_run_starts_from_given_weights_and_records_them(whole, tmp_path):
    words = [*DENOISING, f"ckpt_path={whole.checkpoint()}", "training.steps=1", "optimizer.lr=1e-12"]
    folder = prepare_run(tmp_path, *words)
    assert run_job(folder.path) == 0
    given, now = weights(whole), weights(folder)
    for key in given:
        if "running" not in key and "num_batches" not in key:
            assert torch.allclose(given[key], now[key], atol=1e-6)
    initial = folder.record().initial
    assert initial["path"] == str(whole.checkpoint())
    assert len(initial["sha256"]) == 64


def test_weights_of_another_network_are_refused(whole, tmp_path):
    with pytest.raises(UserError, match="holds the weights of another network, dncnn"):
        prepare_run(tmp_path, *DENOISING, "network.width=8", f"ckpt_path={whole.checkpoint()}")
    assert not list(tmp_path.iterdir())


def test_a_configuration_that_says_nothing_new_is_as_it_was():
    config = freeze(compose(RECONSTRUCTION))
    for key in ("callbacks", "test_checkpoint", "ckpt_path"):
        assert key not in config
    assert "validate_every" not in config["training"]
    assert "monitor" not in config["trainer"]
    assert config_hash(config) == config_hash(
        freeze(compose([*RECONSTRUCTION, "callbacks=none", "test_checkpoint=last"]))
    )


def test_a_callback_with_a_monitor_of_its_own_has_its_own_mode():
    modes = {"val/psnr": "max", "val/rmse": "min"}
    node = {"_target_": "pytorch_lightning.callbacks.EarlyStopping"}
    for monitor, mode in (("auto", "max"), ("val/psnr", "max"), ("val/rmse", "min")):
        (built,) = create_callbacks({"a": {**node, "monitor": monitor}}, Monitor("val/psnr", "max", 5), modes)
        assert (built.monitor, built.mode) == ("val/psnr" if monitor == "auto" else monitor, mode)
    with pytest.raises(UserError, match=r"callbacks\.a and callbacks\.b are the same"):
        create_callbacks({"a": node, "b": node}, Monitor("val/psnr", "max", 5), modes)


def test_a_state_that_is_no_plain_data_is_refused_at_the_first_checkpoint(tmp_path):
    folder = prepare_run(tmp_path, *VALIDATED, "+callbacks.own={_target_: run_support.Odd}")
    with pytest.raises(UserError, match="the state of the callback Odd is not plain data"):
        run_job(folder.path)
    assert not folder.checkpoint().exists()


@forks
def test_what_a_callback_counts_is_saved_with_its_step(tmp_path):
    words = [*VALIDATED, "+callbacks.own={_target_: run_support.Counting}"]
    folder = prepare_run(tmp_path, *words)
    assert result_of(start(folder, _at("on_train_batch_end", 5))) == -signal.SIGKILL
    assert run_job(folder.path) == 0
    assert torch.load(folder.checkpoint(), weights_only=True)["callbacks"]["Counting"] == {"begun": 6}


def test_a_best_checkpoint_of_another_try_is_not_tested(tmp_path):
    words = [*VALIDATED, "training.validate_every=2", "test_checkpoint=best"]
    folder = prepare_run(tmp_path, *words)
    assert run_job(folder.path) == 0
    content = best(folder)
    torch.save({**content, "global_step": content["global_step"] + 1}, folder.best_checkpoint())
    (folder.path / "record.json").unlink()
    with pytest.raises(UserError, match="a try that was killed came to other numbers"):
        run_job(folder.path)


def test_changed_initial_weights_are_said_and_a_file_that_is_gone_is_not_needed(whole, tmp_path, capsys):
    file = tmp_path / "given.ckpt"
    file.write_bytes(whole.checkpoint().read_bytes())
    words = [*DENOISING, f"ckpt_path={file}", "training.steps=1"]
    folder = prepare_run(tmp_path / "runs", *words)
    assert run_job(folder.path) == 0
    content = torch.load(file, weights_only=True)
    content["global_step"] = 0
    torch.save(content, file)
    assert folder.record().changed_code() == [str(file)]
    file.unlink()
    assert folder.record().changed_code() == []
    assert prepare_run(tmp_path / "runs", *words).path == folder.path
