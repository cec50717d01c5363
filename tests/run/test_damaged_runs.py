"""Run folders as crashes, disks and people leave them: told by the name of the file and left, while all else goes on.

The runs are those of an earlier version: a finished one, which is damaged, and one that was killed.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
from pathlib import Path

import pytest
import yaml

from damage import KINDS, fuzzed, put_any, spoil
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.run.folder import RunFolder, prepare
from indexnet.run.freezing.settle import settled_before
from indexnet.run.record import DamagedRunError, Record
from indexnet.run.run_sets import read_curve, read_per_image, read_pictures, read_run
from indexnet.sweep.launch import run_sweep
from indexnet.sweep.pool import Outcome, left_to_run
from indexnet.sweep.status import read_state
from rights_support import without_rights

SETTING = Path("runs/quickstart/photos-smoke")
DONE = SETTING / "hin" / "seed=0"
KILLED = SETTING / "max_unpool" / "seed=0"
FILES = ("config.yaml", "record.json", "progress.json", ".lock", "per_image.csv", "csv/metrics.csv",
         "pictures/pictures.json", "console.log", "../../sweep.json")  # fmt: skip


@pytest.fixture
def configs(fresh):
    return [RunFolder(path).config() for path in (DONE, KILLED)]


def _pretended(jobs, **_):
    """Pretend that every job which needs a process comes to its end."""
    ended = []
    left_to_run(jobs, False, ended.append)
    before = {outcome.job.folder: outcome for outcome in ended}
    return [before.get(job.folder) or Outcome(job, "done") for job in jobs]


def _sweep(configs, launch=_pretended, **options):
    return run_sweep(configs, get_launch=lambda: launch, **options)


def _exit_code(capsys, *arguments):
    """Return a command's exit code and what it has said; a traceback comes through."""
    capsys.readouterr()
    code = main([str(word) for word in arguments])
    said = capsys.readouterr()
    return code, said.out + said.err


def _meet(file, configs, capsys, *, report=True):
    """Let every command meet the damage: each tells it by name or goes on, and the other run is done."""
    settled_before(configs[0])
    code, said = _exit_code(capsys, "status", "quickstart")
    assert code == 0
    for folder in (DONE, KILLED):
        assert read_state(folder, "psnr").row == folder.parent.name
    if report:
        code, said = _exit_code(capsys, "report", "quickstart", "--output", "report", "--overwrite")
        assert code == 0, said
    try:
        first, second = _sweep(configs, arguments=["-m", "experiments=quickstart"])
    except UserError as error:  # a configuration that may be another run's is nobody's to leave
        if f"{DONE} holds a run with another configuration" not in str(error):
            raise
    else:
        assert second.status == "done"
        assert first.status in ("before", "done") or file.name in first.reason, first
    code, said = _exit_code(capsys, "job", DONE) if RunFolder(DONE).path.joinpath("record.json").is_file() else (0, "")
    assert code in (0, 5) or (code == 2 and (file.name in said or "config.yaml" in said)), said


@pytest.mark.parametrize("name", FILES)
def test_no_damage_of_a_file_ends_in_a_traceback_or_stops_the_others(name, fresh, configs, capsys):
    kinds = KINDS if name in ("config.yaml", "record.json", ".lock") else KINDS[len(name) % 3 :: 3]
    for number, kind in enumerate(kinds):
        fresh()
        spoil(DONE / name, kind, random.Random(number))
        _meet(DONE / name, configs, capsys, report=number == 1)


@pytest.mark.long
@pytest.mark.nightly
def test_five_hundred_mutations(fresh, configs, capsys):
    for number in range(500):
        rng = random.Random(number)
        name, kind = rng.choice(FILES), rng.choice(("bytes",) * 3 + KINDS)
        fresh()
        spoil(DONE / name, kind, rng)
        try:
            _meet(DONE / name, configs, capsys)
        except BaseException as error:
            raise AssertionError(f"mutation {number}: {kind} of {name}") from error


def test_a_configuration_without_a_group_is_told_and_left(fresh, configs, capsys):
    content = yaml.safe_load((DONE / "config.yaml").read_text())
    groups = [key for key, value in content.items() if isinstance(value, dict) and key not in ("protocol", "uncut")]
    for group in groups:
        rest = {key: value for key, value in content.items() if key != group}
        (DONE / "config.yaml").write_text(yaml.safe_dump(rest))
        first, second = _sweep(configs)
        assert (first.status, second.status) == ("failed", "done")
        assert f"config.yaml lacks {group}." in first.reason
        code, said = _exit_code(capsys, "job", DONE)
        assert code == 2
        assert f"config.yaml lacks {group}." in said


def test_a_changed_value_is_known_by_the_record(fresh, configs, capsys):
    """A configuration that its record does not vouch for is damage; without a record it may be another run's."""
    text = (DONE / "config.yaml").read_text()
    (DONE / "config.yaml").write_text(text.replace("lr: 0.003", "lr: 0.005"))
    first, second = _sweep(configs)
    assert (first.status, second.status) == ("failed", "done")
    assert "config.yaml is not what record.json beside it was made with" in first.reason
    assert _exit_code(capsys, "job", DONE)[0] == 2
    (DONE / "record.json").unlink()
    with pytest.raises(UserError, match=r"holds a run with another configuration \(optimizer\.lr is 0\.005 there"):
        _sweep(configs)
    # a record of another configuration is no result of this one, either
    fresh()
    (DONE / "config.yaml").unlink()
    text = (DONE / "record.json").read_text()
    (DONE / "record.json").write_text(text.replace('"config_hash": "', '"config_hash": "0'))
    first, second = _sweep(configs)
    assert (first.status, second.status) == ("failed", "done")
    assert "config.yaml is missing, and record.json beside it is of another configuration" in first.reason
    assert not (DONE / "config.yaml").exists()


def test_notes_of_commands_that_are_damaged_are_kept_aside(fresh, configs, capsys):
    (SETTING / "sweep.json").write_text('{"requests": [{"arguments": 5}]}')
    code, said = _exit_code(capsys, "status", "quickstart")
    assert code == 0
    assert "sweep.json does not hold requests" in said
    _sweep(configs, arguments=["-m", "experiments=quickstart"])
    assert (SETTING / "sweep.json.broken").read_text() == '{"requests": [{"arguments": 5}]}'
    assert len(json.loads((SETTING / "sweep.json").read_text())["requests"]) == 1


def test_what_beside_a_record_is_damaged_is_said(fresh, capsys):
    for name in ("per_image.csv", "csv/metrics.csv", "pictures/pictures.json"):
        (DONE / name).write_bytes(b"\xff\xfe")
    run = read_run(DONE.absolute())
    assert (read_per_image(run), read_curve(run), read_curve(run, "val/psnr"), read_pictures(run)) == ({}, [], [], [])
    said = capsys.readouterr().err
    for name in ("per_image.csv", "metrics.csv", "pictures.json"):
        assert said.count(f"{name} is not UTF-8 text") == 1


def test_a_record_without_one_of_its_fields(fresh, capsys):
    content = json.loads((DONE / "record.json").read_text())
    for key in content:
        if key == "status":
            continue
        (DONE / "record.json").write_text(json.dumps({name: each for name, each in content.items() if name != key}))
        assert read_state(DONE, "psnr").status == "done"
        assert _exit_code(capsys, "job", DONE)[0] == 0
    (DONE / "record.json").write_text('{"status": "done"}')
    assert _exit_code(capsys, "report", "quickstart", "--output", "report")[0] == 0


@pytest.mark.parametrize(("path", "mode", "said"), [
    (DONE, 0, "seed=0 cannot be looked into (Permission denied); change its permissions, or give paths.runs="),
    (DONE, 0o444, "seed=0 cannot be looked into (Permission denied)"),
    (DONE.parent, 0, "seed=0 cannot be looked into (Permission denied)"),
    (DONE / "config.yaml", 0, "config.yaml cannot be read: Permission denied"),
    (DONE / "record.json", 0, "record.json cannot be read: Permission denied"),
    (KILLED, 0o555, "cannot be written"),
    (KILLED / ".lock", 0o444, ".lock cannot be written (Permission denied)"),
])  # fmt: skip
def test_what_may_not_be_read_or_written_is_told_and_left(path, mode, said, fresh, configs):
    (KILLED / ".lock").touch()
    configs[1]["tags"] = ["other"]  # which is written before the run goes on
    damaged = int(path.is_relative_to(KILLED))

    path.chmod(mode)
    try:
        outcomes = without_rights(_sweep, configs)
    finally:
        path.chmod(0o755)
    assert said in outcomes[damaged].reason
    assert [each.status for each in outcomes] == (["before", "failed"] if damaged else ["failed", "done"])


def test_a_row_folder_that_takes_no_new_run_is_told_and_left(fresh, configs):
    new = [config | {"seed": 1} for config in configs]
    DONE.parent.chmod(0o555)
    outcomes = without_rights(_sweep, new)
    assert [each.status for each in outcomes] == ["failed", "done"]
    made = "hin/seed=1 cannot be made (Permission denied); give paths.runs=ANOTHER_FOLDER."
    assert outcomes[0].reason.endswith(made)
    with pytest.raises(UserError, match=r"seed=1 cannot be made"):  # nothing is left to do
        without_rights(_sweep, new[:1])


def test_results_that_cannot_be_set_aside_are_told_and_left(fresh, configs):
    for path, named in ((DONE, ".lock"), (DONE / "checkpoints", "checkpoints")):
        path.chmod(0o555)
        first, second = without_rights(lambda: _sweep(configs, rerun=True))
        path.chmod(0o755)
        assert (first.status, second.status) == ("failed", "done")
        assert f"{DONE / named} cannot be written (Permission denied)" in first.reason
    first, _ = _sweep(configs, rerun=True)  # the move goes on where it was
    assert first.status == "done"
    assert [path.name for path in (DONE / "earlier").iterdir()] == ["1"]
    assert (DONE / "earlier" / "1" / "checkpoints" / "last.ckpt").is_file()


def _recorded(jobs, **_):
    """Do what :func:`_pretended` does, and leave a record as well."""
    outcomes = _pretended(jobs)
    for outcome in outcomes:
        if outcome.status == "done":
            Record(status="done").write(outcome.job.folder)
    return outcomes


@pytest.mark.parametrize("name", ["record.json", "config.yaml"])
def test_a_damaged_run_does_not_keep_the_others_from_being_done_again(name, fresh, configs):
    Record(status="done").write(KILLED)
    (DONE / name).write_text("[")
    for times in (1, 2):
        first, second = _sweep(configs, _recorded, rerun=True)
        assert (first.status, second.status) == ("failed", "done")
        assert RunFolder(KILLED).earlier_count() == times


@pytest.mark.parametrize("path", [DONE.parent, SETTING, SETTING.parent])
@pytest.mark.parametrize(
    "words", [["status", "quickstart"], ["status"], ["report", "quickstart", "--output", "report"]]
)
def test_results_that_may_not_be_read_are_not_taken_for_none(words, path, fresh, tmp_path, capsys):
    place = tmp_path / path  # said once a process, so each time another one
    place.chmod(0)
    try:
        code, said = without_rights(_exit_code, capsys, *words, "--runs", tmp_path / "runs")
    finally:
        place.chmod(0o755)
    assert code == 0
    assert said.count(f"{place} cannot be read (Permission denied); the runs in it are left out.") == 1, said


def test_places_that_are_neither_file_nor_folder_are_called_so(fresh, configs, capsys):
    (DONE / "progress.json").unlink(missing_ok=True)
    os.mkfifo(DONE / "progress.json")
    (KILLED / "csv" / "metrics.csv").unlink()
    (KILLED / "csv" / "metrics.csv").symlink_to("metrics.csv")
    first, second = _sweep(configs)
    assert "progress.json is no file or folder that can be used, and a run keeps a file there" in first.reason
    assert "metrics.csv is a link to no file or folder that can be used" in second.reason
    assert "console.log" not in capsys.readouterr().out


def test_runs_with_seeds_that_are_refused_now_are_whole(fresh, configs):
    content = copy.deepcopy(configs[0]) | {"seed": 2**32}
    folder = RunFolder(prepare(content).path)
    assert folder.config()["seed"] == 2**32
    for wrong in (-1, "0", 1.5):
        (folder.path / "config.yaml").write_text(yaml.safe_dump(content | {"seed": wrong}))
        with pytest.raises(DamagedRunError, match="seed="):
            folder.config()


def _any_record(fresh, capsys, data):
    fresh()
    content = json.loads((DONE / "record.json").read_text())
    put_any(data, content, 3)
    (DONE / "record.json").write_text(json.dumps(content))
    code, said = _exit_code(capsys, "job", DONE)
    assert code in (0, 5) or (code == 2 and "record.json" in said), said
    for command in (("status", "quickstart"), ("report", "quickstart", "--output", "report", "--overwrite")):
        assert _exit_code(capsys, *command)[0] == 0


def _any_configuration(fresh, configs, capsys, data):
    fresh()
    content = copy.deepcopy(configs[0])
    put_any(data, content, 1)
    (DONE / "config.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    with contextlib.suppress(UserError):
        prepare(configs[0])
    code, said = _exit_code(capsys, "job", DONE)
    assert code in (0, 5) or (code == 2 and "config.yaml" in said), said


test_records_with_values_of_any_kind, test_many_records = fuzzed(_any_record, 2, 250)
test_configurations_with_values_of_any_kind, test_many_configurations = fuzzed(_any_configuration, 20, 1500)
