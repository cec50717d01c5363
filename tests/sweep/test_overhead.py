"""A sweep whose runs are done costs next to nothing; measured: benchmarks/sweep_overhead.py."""

from __future__ import annotations

from indexnet.cli import main
from indexnet.core.files import write_json
from indexnet.run.folder import prepare
from indexnet.sweep import frozen


def test_runs_that_are_done_are_neither_frozen_nor_started(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["experiments=quickstart", "rows=max_unpool", f"seeds={','.join(map(str, range(22)))}", "budget=smoke"]
    configs, *_ = frozen.compose_sweep(arguments)
    assert [config["seed"] for config in configs] == list(range(22))
    for config in configs:
        write_json(prepare(config).path / "record.json", {"schema": 1, "status": "done", "metrics": {"psnr": 1.5}})

    def refuse(*_: object) -> None:
        raise AssertionError("a configuration was frozen")

    monkeypatch.setattr(frozen, "freeze", refuse)
    assert main(["train", "-m", *arguments]) == 0
    assert "22 of 22 runs done (22 before)" in capsys.readouterr().out
