"""A few steps of a run: what is left out, and where it ends."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl

from indexnet.benchmarks.short_run import Enough, train_briefly
from indexnet.core.errors import UserError
from indexnet.run.config import compose, freeze


@pytest.fixture
def content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return freeze(compose([
        "task=reconstruction", "resampling=max_unpool", "network.widths=[4,8]", "training.size=16",
        "training.batch_size=4", "training.steps=5", "data.train_count=8", "data.test_count=2",
        "trainer.accelerator=cpu", "trainer.num_workers=0",
    ]))  # fmt: skip


def test_a_run_without_weights_of_others_ends_where_enough_was_seen(content, tmp_path):
    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if index == 2:
                raise Enough

    record = train_briefly(content | {"ckpt_path": str(tmp_path / "gone.ckpt")}, Watch())
    assert record.parameters > 0
    assert not list(tmp_path.iterdir())


def test_a_run_that_ends_too_early_is_one_sentence_and_is_not_tested(content, capsys):
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            trainer.should_stop = True

        def on_test_start(self, trainer, module):
            raise AssertionError

    with pytest.raises(UserError, match=r"^the run ended at step 1, before all was measured: a callback or budget"):
        train_briefly(content, Stop())
    assert capsys.readouterr().out == ""
