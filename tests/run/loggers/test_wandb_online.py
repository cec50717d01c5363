"""What ``logger=wandb`` does online, with a server of our own that may go away."""

from __future__ import annotations

import time

import pytest

from indexnet.core.errors import UserError
from indexnet.core.files import write_json
from indexnet.run.job import run_job
from indexnet.run.loggers.create import finish_loggers
from indexnet.run.loggers.wandb_logging import finish_run
from indexnet.run.loggers.wandb_names import STEP
from wandb_offline import offline_runs
from wandb_runs import identity, loggers_of, loss_rows, prepare_tiny, record_of, start_wandb

pytestmark = pytest.mark.usefixtures("nobody")


def test_online_only_what_the_server_lacks_is_logged_again(tmp_path, server):
    folder = prepare_tiny(tmp_path)
    first = start_wandb(folder, "online", 0, [])
    run = identity(folder)
    for row in loss_rows([1, 3]):
        first.log({"train/loss": float(row["train/loss"]), STEP: int(row["step"])})
    finish_run(first, folder, record_of("running"))
    assert server.exit_code(run) == 255
    again = start_wandb(folder, "auto", 6, loss_rows([1, 3, 5]))
    again.log({"train/loss": 1 / 8, STEP: 7})
    write_json(folder.path / "record.json", record_of("done"))
    finish_run(again, folder, record_of("done"))
    assert [row[STEP] for row in server.history(run)] == [1, 3, 5, 7]
    assert server.exit_code(run) == 0
    assert {call["groupName"] for call in server.runs[run]} >= {"thesis/table3_2_reconstruction"}
    begun = start_wandb(folder, "online", 0, [])  # the folder was emptied: nothing of the old run is left
    begun.log({"train/loss": 2.0, STEP: 0})
    finish_run(begun, folder, record_of("done"))
    assert server.history(run)[0][STEP] == 0


def test_a_key_that_is_refused(tmp_path, server, capsys):
    server.accepts = False
    folder = prepare_tiny(tmp_path)
    with pytest.raises(
        UserError, match=r"W&B cannot be used online \(.*credentials.*\); give logger\.mode=offline"
    ) as e:
        start_wandb(folder, "online", 0, [])
    assert "\n" not in str(e.value)
    finish_run(start_wandb(folder, "auto", 0, []), folder, record_of("done"))
    assert "logging offline" in capsys.readouterr().err
    assert len(offline_runs(folder.path)) == 1


def test_online_without_a_key(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    folder = prepare_tiny(tmp_path)
    with pytest.raises(UserError, match=r"no key is configured, `wandb login` does it\); give logger\.mode=offline"):
        loggers_of(folder)


@pytest.mark.long
@pytest.mark.nightly
def test_online_without_a_network(tmp_path, server):
    server.silent = True
    folder = prepare_tiny(tmp_path)
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"W&B cannot be used online \(no answer\); give logger\.mode=offline"):
        start_wandb(folder, "online", 0, [])
    assert time.monotonic() - begun < 30


def test_a_network_that_goes_away_costs_the_upload_only(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "2")
    folder = prepare_tiny(tmp_path, "logger.tensorboard=false")
    loggers = loggers_of(folder)
    server.silent = True
    for step in range(5):
        loggers[1].log_metrics({"train/loss": 1.0}, step)
    finish_loggers(loggers, folder, record_of("done"))
    said = capsys.readouterr().err
    assert "W&B did not answer for 2 s; `wandb sync --include-online" in said
    assert "Traceback" not in said


@pytest.mark.long
def test_a_network_that_goes_away_does_not_stop_a_run(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "2")
    server.silent_after = "UpsertBucket"  # the run is there, and the network is not any more
    folder = prepare_tiny(tmp_path, "training.steps=6")
    assert run_job(folder.path) == 0
    assert folder.record().status == "done"
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "uploads the rest" in said
    assert identity(folder) in server.runs
