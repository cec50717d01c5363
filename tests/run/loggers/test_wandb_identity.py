"""Which W&B run a folder has: kept with it, and never that of another run."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from indexnet.core.files import write_json
from indexnet.run.folder import RunFolder
from indexnet.run.loggers.wandb_identity import first_id, kept_id
from wandb_runs import prepare_tiny, record_of


def test_the_id_stays_with_a_run_that_is_moved(tmp_path):
    first = RunFolder(tmp_path / "runs" / "a")
    known = kept_id(first, "c0ffee", "/data")
    assert re.fullmatch(r"[0-9a-f]{16}", known)
    assert kept_id(RunFolder(Path(os.path.relpath(first.path))), "c0ffee", "/data/renamed") == known
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    copy = RunFolder(tmp_path / "copy" / "a")
    assert kept_id(copy, "c0ffee", "/data") == kept_id(copy, "c0ffee", "/data") != known
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    new = kept_id(first, "c0ffee", "/data")  # a run that takes its place takes no more than that
    assert new != known
    moved = RunFolder(tmp_path / "elsewhere" / "a")
    assert kept_id(moved, "c0ffee", "/data") == known
    assert kept_id(first, "c0ffee", "/data") == new
    assert kept_id(moved, "c0ffef", "/data") != known  # another configuration


def test_the_id_of_a_run_of_an_earlier_version_follows_from_configuration_data_and_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    same = first_id(folder, "c0ffee", None)
    assert same == first_id(RunFolder(Path(os.path.relpath(folder.path))), "c0ffee", None)
    assert len(same) == 16
    others = [
        first_id(RunFolder(tmp_path / "elsewhere"), "c0ffee", None),
        first_id(folder, "c0ffef", None),
        first_id(folder, "c0ffee", "/data/other"),
    ]
    assert len({same, *others}) == 4
    for damage in ("", "[]", '{"id": 3}', '{"id": "../x"}'):
        write_json(folder.path / "wandb" / "run.json", None)
        (folder.path / "wandb" / "run.json").write_text(damage)
        assert kept_id(folder, "c0ffee", None) != same  # it has logged nothing
    (folder.path / "wandb" / "run-20200101_000000-c0ffee").mkdir()
    (folder.path / "wandb" / "run.json").unlink()
    assert kept_id(folder, "c0ffee", None) == kept_id(folder, "c0ffee", "/data/other") == same


def test_a_run_that_is_done_again_is_another_run(tmp_path):
    folder = prepare_tiny(tmp_path)
    first = kept_id(folder, "c0ffee", None)
    write_json(folder.path / "record.json", record_of("done"))
    with folder.lock():
        folder.set_aside()
    assert kept_id(folder, "c0ffee", None) != first
