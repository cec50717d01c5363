"""Runs that are measured on the validation split."""

from __future__ import annotations

import csv
import shutil

import pytest

from data_support import write_camvid
from indexnet.core.errors import UserError
from indexnet.run.job import run_job
from run_support import prepare_run

SCENES = ["task=depth", "encoder.width=0.25", "training.size=64", "budget=smoke", "data.train_count=2",
          "data.validation_count=3", "resampling=nearest", "trainer.accelerator=cpu"]  # fmt: skip


def test_a_run_measured_on_the_validation_split_reads_no_test_sample(tmp_path, monkeypatch, capsys):
    from indexnet.data.scenes.dataset import Scenes

    def untouchable(self):
        raise AssertionError("the test split")

    monkeypatch.setattr(Scenes, "test", untouchable)
    folder = prepare_run(tmp_path, *SCENES, "split=validation")
    assert run_job(folder.path) == 0
    record = folder.record()
    assert record.split == "validation"
    assert record.test_count == 2  # what the budget allows
    assert record.data.test.count == 3
    assert set(record.metrics) == {"depth_rmse", "rel", "log10", "delta1", "delta2", "delta3"}
    assert "testing on 2 images of the validation split" in capsys.readouterr().out
    with (folder.path / "per_image.csv").open() as file:
        assert all("validation" in row["name"] for row in csv.DictReader(file))
    assert prepare_run(tmp_path, *SCENES, "split=validation").path == folder.path
    assert prepare_run(tmp_path, *SCENES).path != folder.path


def test_a_validation_split_on_other_files_is_told_apart(tmp_path, monkeypatch):
    write_camvid(tmp_path / "one", counts=(("train", 2), ("val", 2), ("test", 1)))
    shutil.copytree(tmp_path / "one", tmp_path / "same")
    (tmp_path / "same" / "test.txt").write_text("")  # the test split does not matter
    write_camvid(tmp_path / "other", counts=(("train", 2), ("val", 1), ("test", 1)))
    words = ["task=segmentation", "data=camvid", "encoder=test_efficientnet", "training.size=32", "budget=smoke",
             "resampling=max_unpool", "trainer.accelerator=cpu", "split=validation"]  # fmt: skip
    folder = prepare_run(tmp_path / "runs", *words, f"data.root={tmp_path / 'one'}")
    assert run_job(folder.path) == 0
    assert folder.record().data.test.count == 2
    assert prepare_run(tmp_path / "runs", *words, f"data.root={tmp_path / 'same'}").path == folder.path
    with pytest.raises(UserError, match=r"holds a run on the files of data\.root=.*one, and data\.root=.*other has"):
        prepare_run(tmp_path / "runs", *words, f"data.root={tmp_path / 'other'}")


@pytest.mark.parametrize(("words", "sentence"), [
    (["split=validaton", "task=depth"], r"split='validaton' must be test or validation\."),
    (["split=validation", "task=reconstruction", "data=photos"], r"data=photos has no validation split; of those for "
     r"task=reconstruction, .*scenes can have one"),
    (["split=validation", "task=segmentation", "data=sunrgbd"], r"no validation split; of those for task=segmentation, "
     r"camvid, .*scenes.* can have one"),
    (["split=validation", "experiments=quickstart", "experiment.row=hin"], r"a table is measured on its test split"),
])  # fmt: skip
def test_a_split_that_cannot_be_is_refused(words, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        prepare_run(tmp_path, *words)
    assert not list(tmp_path.iterdir())


def test_a_validation_split_that_is_switched_off_is_refused(tmp_path):
    folder = prepare_run(tmp_path, *SCENES, "data.validation_count=0", "split=validation")
    with pytest.raises(UserError, match=r"data=scenes has no validation split as it is configured"):
        run_job(folder.path)
