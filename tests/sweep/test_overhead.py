"""What a sweep costs beside its runs has a bound; measured at length: benchmarks/sweep_overhead.py."""

from __future__ import annotations

import sys
import time

from indexnet.cli import main
from indexnet.sweep import pool

MOST = 0.3
"""Seconds that a run may cost which was done before; it takes about a hundredth of that."""

_FINISH = """
import json, sys
with open(sys.argv[1] + "/record.json", "w") as file:
    json.dump({"schema": 1, "status": "done", "metrics": {"psnr": 1.5}}, file)
"""


def test_runs_that_are_done_take_no_time(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool, "job_command", lambda folder: [sys.executable, "-S", "-c", _FINISH, str(folder)])

    def sweep(seeds: int, n_jobs: int) -> float:
        begun = time.perf_counter()
        arguments = ["experiments=quickstart", "rows=max_unpool", f"seeds={','.join(map(str, range(seeds)))}"]
        assert main(["train", "-m", *arguments, "budget=smoke", f"hydra.launcher.n_jobs={n_jobs}"]) == 0
        return time.perf_counter() - begun

    few, many = 2, 22
    sweep(many, n_jobs=8)
    assert "22 of 22 runs done, in" in capsys.readouterr().out

    def refuse(*arguments: object) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(pool, "job_command", refuse)
    sweep(few, n_jobs=1)  # once for what is imported then
    each = (sweep(many, n_jobs=1) - sweep(few, n_jobs=1)) / (many - few)
    assert "22 of 22 runs done (22 before)" in capsys.readouterr().out
    assert each < MOST, f"{each:.3f} s for each finished run"
