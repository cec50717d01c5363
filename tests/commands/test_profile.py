"""``indexnet profile``: a trace and a page of some training steps, and nothing else."""

from __future__ import annotations

import json

import pytest
import torch

from indexnet.benchmarks.profile import PARTS
from indexnet.cli import main
from report_checker import check

TINY = [
    "task=reconstruction", "network.widths=[4,8]", "training.size=16", "training.batch_size=4", "training.steps=2",
    "data.train_count=8", "data.test_count=2", "trainer.accelerator=cpu", "trainer.num_workers=0",
]  # fmt: skip


def test_a_profile_is_a_trace_and_a_page(tmp_path, monkeypatch, capsys, mistake):
    monkeypatch.chdir(tmp_path)
    words = ["profile", *TINY, "resampling=max_unpool", "trainer.accumulate_grad_batches=2", "--steps", "2"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"trace.json", "profile.html"}

    events = json.loads((tmp_path / "profile/trace.json").read_text(encoding="utf-8"))["traceEvents"]
    names = [event.get("name") for event in events]
    assert [names.count(part) for part in PARTS] == [4, 4, 4, 2, 0]  # two batches a step; the rest has no range
    page = (tmp_path / "profile/profile.html").read_text(encoding="utf-8")
    text = "".join(check(page).text)
    for each in ("aten::convolution_backward", "max_unpool", "4 x 1 x 16 x 16", *PARTS):
        assert each in text
        assert each in said
    shares = [float(line.split()[1].rstrip("%")) for line in said.splitlines() if line.split(" ")[0] in PARTS]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert len(shares) == len(PARTS)

    mistake(main(words), "profile/trace.json exists; give --overwrite")


def test_what_is_estimated(tmp_path):
    from indexnet.benchmarks.profile import profile_training
    from indexnet.run.config import compose, freeze

    words = [*TINY, "resampling=nearest", "resampling.pooling=avg"]
    found = profile_training(freeze(compose(words)), 1, tmp_path / "trace.json", lambda text: None)
    with torch.device("meta"):
        from indexnet.networks import create_network
        from indexnet.networks.costs import count_costs

        options = {"resampling": {"name": "nearest", "pooling": "avg"}, "widths": [4, 8]}
        macs = count_costs(create_network("autoencoder", **options), (1, 16, 16)).true_macs
    assert found.flops == 2 * 3 * 4 * macs
    parameters = 4 * found.parameters
    assert found.traffic > 4 * parameters  # read twice, and Adam reads and writes more
    assert 0 < found.host < 1
    assert min(found.step_s, found.peak_flops, found.peak_bandwidth) > 0


def test_a_loss_that_diverges_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*TINY, "resampling=max_unpool", "optimizer=sgd", "optimizer.lr=1e30", "--steps", "2"]
    assert main(["profile", *words]) == 2
    sentence = "indexnet: the training loss became nan at step 2 of 10; a smaller optimizer.lr usually helps."
    assert capsys.readouterr().err.splitlines() == ["warming up", sentence]
    assert not list(tmp_path.iterdir())


def test_what_the_run_goes_on_without_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*TINY, "resampling=max_unpool", "optimizer=rmsprop", "trainer.fused_optimizer=true"]
    assert main(["profile", *words, "--steps", "1"]) == 0
    remark = "trainer.fused_optimizer=true does nothing: optimizer=rmsprop has no fused form"
    assert remark in capsys.readouterr().err.splitlines()


def test_a_network_that_is_not_compiled_is_profiled_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with torch.compiler.set_stance("force_eager"):
        assert main(["profile", *TINY, "resampling=max_unpool", "trainer.compile=true", "--steps", "1"]) == 0
    out, err = capsys.readouterr()
    assert "trainer.compile=true: the run goes on without" in err
    assert "not known of a compiled network" not in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--steps", "0"], "--steps 0 must be at least 1"),
        (["lr=0.1"], "optimizer.lr"),
        (["trainer.devices=2", "trainer.accelerator=cpu", "training.batch_size=4"], "give trainer.devices=1"),
        (["experiments=quickstart", "rows=hin,m2o"], "give rows=NAME: hin, m2o"),
    ],
)
def test_mistakes(words, sentence, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    mistake(main(["profile", *words]), sentence)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_too_short_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*TINY, "training.steps=null", "training.epochs=1", "schedule=constant"]
    assert main(["profile", *words, "resampling=max_unpool", "--steps", "1"]) == 2
    assert "the run ends before the 7 steps" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())
