"""What makes a training faster, where it cannot be had, and that numbers stay what they are."""

from __future__ import annotations

import os
import subprocess

import pytest
import pytorch_lightning as pl
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from indexnet.core.errors import UserError
from indexnet.core.machine import cpu_has_bfloat16
from indexnet.run import acceleration
from indexnet.run.acceleration import Compiled, compile_errors, settle
from indexnet.run.callbacks import LoggedBar
from indexnet.run.config import compose, freeze
from indexnet.run.job import run_job
from indexnet.run.schema import read_config
from indexnet.tasks import create_task
from resume_support import ended_as, interrupted_at_step
from run_support import RECONSTRUCTION, command, losses, prepare_run, weights

SHORT = [*RECONSTRUCTION, "training.steps=3", "data.test_count=3"]
FAST = {"precision": "bf16-mixed", "channels_last": True, "compile": True, "fused_optimizer": True}
ADAM = {"name": "adam", "lr": 0.001}


def options(*words):
    return read_config(freeze(compose(["task=reconstruction", *words]))).trainer


def test_fast_is_four_options():
    plain, fast = options(), options("trainer=fast")
    assert {key: value for key, value in vars(fast).items() if value != vars(plain)[key]} == FAST


def test_what_a_run_can_have_it_gets(monkeypatch):
    monkeypatch.setattr(acceleration, "cpu_has_bfloat16", lambda: True)
    fast = options("trainer=fast")
    assert settle(fast, "cpu", ADAM) == (fast, [])
    assert settle(options("trainer=fast", "trainer.precision=32"), "gpu", {"name": "sgd"})[1] == []


def test_what_it_cannot_have_is_a_sentence_and_it_goes_on(monkeypatch):
    monkeypatch.setattr(acceleration, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    fast = options("trainer=fast")
    settled, (slow,) = settle(fast, "cpu", ADAM)
    assert settled == fast
    assert "this processor has no bfloat16" in slow
    settled, (other,) = settle(fast, "gpu", ADAM)
    assert settled.precision == "32-true"
    assert settled.compile
    assert other.endswith("this GPU has no bfloat16, so the run computes in 32-true")
    settled, (unfused,) = settle(options("trainer.fused_optimizer=true"), "cpu", {"name": "rmsprop"})
    assert not settled.fused_optimizer
    assert unfused == "trainer.fused_optimizer=true does nothing: optimizer=rmsprop has no fused form"
    for given in ("fused=false", "foreach=true", "differentiable=true"):
        key, value = given.split("=")
        settled, (unfused,) = settle(options("trainer.fused_optimizer=true"), "cpu", {**ADAM, key: value == "true"})
        assert not settled.fused_optimizer
        assert unfused == f"trainer.fused_optimizer=true does nothing: optimizer.{given} asks for another form"
    assert settle(options("trainer.fused_optimizer=true"), "cpu", {**ADAM, "fused": True, "foreach": False})[1] == []
    clipped = options("trainer.fused_optimizer=true", "trainer.gradient_clip_val=1", "trainer.precision=16-mixed")
    settled, (unfused,) = settle(clipped, "cpu", ADAM)
    assert not settled.fused_optimizer
    assert "clips no gradients of fused optimizers" in unfused


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor : 0\nflags\t\t: fpu avx512_bf16 fma\n", True),
        ("processor : 0\nflags\t\t: fpu avx2\n", False),
        ("Features\t: fp asimd bf16\n", True),
        ("processor : 0\n", None),
    ],
)
def test_a_processor_says_whether_it_has_bfloat16(text, found, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_has_bfloat16(str(tmp_path / "cpuinfo")) is found
    assert cpu_has_bfloat16(str(tmp_path / "none")) is None


def _fit(task, compiled, folder):
    """Train three steps at one size, with a validation of images of four sizes after each."""

    def loader(sizes):
        torch.manual_seed(0)
        return DataLoader([{"image": torch.rand(1, side, 20), "name": str(side)} for side in sizes])

    torch.compiler.reset()
    trainer = pl.Trainer(
        max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False, default_root_dir=folder,
        enable_model_summary=False, accelerator="cpu", num_sanity_val_steps=0, callbacks=[compiled],
    )  # fmt: skip
    trainer.fit(task, loader([16]), loader([16, 18, 21, 24]))
    return float(trainer.callback_metrics["train/loss"])


def _task():
    torch.manual_seed(0)
    return create_task("reconstruction", {"name": "autoencoder", "widths": [4, 8]}, {"name": "sgd", "lr": 0.1})


@pytest.mark.filterwarnings("ignore:.*")
def test_a_network_is_compiled_once_whatever_sizes_it_is_validated_at(tmp_path, capsys):
    task, plain = _task(), _task()
    compiled = Compiled(task.network, "eager")
    loss = _fit(task, compiled, tmp_path)
    assert (compiled.graphs, compiled.problems) == (1, [])
    assert capsys.readouterr().out.splitlines()[-1].startswith("compiling took ")
    assert loss == pytest.approx(_fit(plain, pl.Callback(), tmp_path), rel=1e-5)
    assert task.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.filterwarnings("ignore:.*")
def test_a_network_that_cannot_be_compiled_is_trained_as_it_is(tmp_path, capsys):
    task, plain = _task(), _task()
    compiled = Compiled(task.network, "no_such_backend")
    assert _fit(task, compiled, tmp_path) == _fit(plain, pl.Callback(), tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if "trainer.compile" in line]
    assert len(said) == 1
    assert said[0].startswith("trainer.compile=true: the run goes on without, for the network cannot be compiled: Inva")
    assert compiled.graphs == 0


class _Pieces(torch.nn.Module):
    def forward(self, x):
        x = x * 2
        torch._dynamo.graph_break()
        return x + 1


def _said_by_steps(capsys, fails, *sizes):
    """What is said after each step of a network of two pieces, some of which a backend does not compile."""
    torch.compiler.reset()
    met = []

    def backend(graph, inputs):
        met.append(graph)
        if len(met) in fails:
            raise ValueError(f"piece {len(met)}")
        return graph.forward

    network, said = _Pieces(), []
    compiled = Compiled(network, backend, clock=lambda: 0.0)
    compiled.on_train_start(None, network)
    for size in sizes:
        compiled.on_train_batch_start(None, network, None, 0)
        assert torch.equal(network(torch.ones(size)), torch.full((size,), 3.0))
        compiled.on_train_batch_end(None, network)
        said.append("".join(capsys.readouterr()).splitlines())
    return said


A_PIECE = "trainer.compile=true: a piece of the network runs as it is written, for it cannot be compiled: ValueError: "


@pytest.mark.filterwarnings("ignore:.*")
def test_what_is_said_of_pieces_is_true_and_said_once_whenever_it_comes(capsys):
    assert _said_by_steps(capsys, {1}, 4, 4, 4, 4) == [[A_PIECE + "piece 1"], [], ["compiling took 0 s"], []]
    later = _said_by_steps(capsys, {3}, 4, 4, 4, 5, 6)
    assert later == [[], [], ["compiling took 0 s, in 2 pieces"], [A_PIECE + "piece 3"], []]


def test_a_failure_of_a_run_that_is_not_compiled_is_not_put_down_to_a_compiler(tmp_path, monkeypatch):
    def fail(*arguments):
        raise AssertionError("expected size 3")

    monkeypatch.setattr(type(_task()), "training_step", fail)
    with pytest.raises(AssertionError, match="expected size 3"):
        run_job(prepare_run(tmp_path, *SHORT).path)


def test_what_only_the_backward_pass_shows_is_one_sentence():
    from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException

    sentence = r"^the network cannot be compiled: TorchDynamoException: line one; give trainer\.compile=false\.$"
    with pytest.raises(UserError, match=sentence), compile_errors(True):
        raise TorchDynamoException("line one\nline two")
    assert issubclass(BackendCompilerFailed, TorchDynamoException)
    with pytest.raises(UserError, match=r"AssertionError: expected size 4==4"), compile_errors(True):
        raise AssertionError("expected size 4==4, stride 1==391 at dim=1")
    with pytest.raises(AssertionError, match="two and two"), compile_errors(True):
        raise AssertionError("two and two")
    with pytest.raises(ValueError, match="another"), compile_errors(True):
        raise ValueError("another")


class CountingBar(LoggedBar):
    """Notes at which steps of a training it reads numbers."""

    def __init__(self):
        super().__init__()
        self.read, self.shown = [], []

    def get_metrics(self, trainer, module):
        found = super().get_metrics(trainer, module)
        self.read.append(trainer.global_step)
        self.shown.append(found["train/loss"])
        return found


class NumbersRead(TorchDispatchMode):
    """Counts numbers that are read from tensors, each of which would wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class ReadAt(pl.Callback):
    """Notes the steps, from their beginning to that of the next one, in which a number is read."""

    def __init__(self):
        self.steps, self.mode, self.before = [], NumbersRead(), 0

    def on_train_batch_start(self, trainer, *arguments):
        self.note(trainer)

    def on_train_end(self, trainer, module):
        self.note(trainer)

    def note(self, trainer):
        if self.mode.count > self.before:
            self.steps.append(trainer.global_step)
        self.before = self.mode.count


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(("batches", "accumulated", "every"), [(25, 1, 1), (26, 2, 1), (25, 1, 10)])
def test_nobody_reads_a_number_between_steps_that_are_logged(batches, accumulated, every, tmp_path):
    torch.manual_seed(0)
    task = create_task("reconstruction", {"name": "autoencoder", "widths": [4]}, {"name": "sgd", "lr": 0.1})
    task.loss_in_bar, task.log_every = False, every  # as a run on a GPU has it, with and without a person's callbacks
    loader = DataLoader([{"image": torch.rand(1, 8, 8), "name": str(i)} for i in range(batches)])
    bar, reads, steps = CountingBar(), ReadAt(), batches // accumulated
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=1, log_every_n_steps=10, accumulate_grad_batches=accumulated,
        callbacks=[bar, reads], logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu",
        default_root_dir=tmp_path,
    )  # fmt: skip
    with reads.mode:
        trainer.fit(task, loader)
    assert bar.read == [*range(10, steps, 10), steps, steps]  # the last: the end of the training
    assert set(reads.steps) - {0} == {*range(10, steps, 10), steps}
    assert bar.train_progress_bar.completed == batches
    assert all(isinstance(loss, float) for loss in bar.shown)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = prepare_run(tmp_path_factory.mktemp("plain"), *SHORT)
    assert run_job(folder.path) == 0
    return folder


def test_computing_activations_again_changes_no_number(plain, tmp_path):
    folder = prepare_run(tmp_path, *SHORT, "trainer.checkpoint_activations=true")
    assert run_job(folder.path) == 0
    ended_as(plain, folder)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_fused_optimizer_takes_the_same_steps(optimizer, tmp_path):
    found = []
    for fused in ("false", "true"):
        words = [*SHORT, f"optimizer={optimizer}", f"trainer.fused_optimizer={fused}"]
        folder = prepare_run(tmp_path / fused, *words)
        assert run_job(folder.path) == 0
        found.append(weights(folder))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_a_machine_without_a_compiler_trains_fast_as_far_as_it_can(tmp_path):
    folder = prepare_run(tmp_path, *SHORT, "trainer=fast")
    done = subprocess.run(
        command("job", folder.path), capture_output=True, text=True, env={**os.environ, "CXX": "no-compiler"}
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("trainer.compile=true")]
    assert len(said) == 1
    assert "no-compiler" in said[0]
    assert folder.record().status == "done"


@pytest.mark.long
def test_a_compiled_run_goes_on_exactly_and_its_weights_have_their_names(tmp_path, capsys):
    words = [*RECONSTRUCTION, "resampling=nearest", "trainer.compile=true", "trainer.checkpoint_every=2"]
    whole, cut = prepare_run(tmp_path / "whole", *words), prepare_run(tmp_path / "cut", *words)
    assert run_job(whole.path) == 0
    assert "compiling took" in capsys.readouterr().out
    with interrupted_at_step(3):
        run_job(cut.path)
    assert run_job(cut.path) == 0
    assert "going on from step 2 of 6" in capsys.readouterr().out
    ended_as(whole, cut)
    plain = prepare_run(tmp_path / "plain", *words, "trainer.compile=false")
    assert run_job(plain.path) == 0
    assert weights(plain).keys() == weights(whole).keys()
    assert [float(loss) for _, loss in losses(whole)] == pytest.approx([float(loss) for _, loss in losses(plain)])
    torch.testing.assert_close(weights(whole), weights(plain), rtol=1e-3, atol=1e-5)


@pytest.mark.long
def test_two_hundred_steps_in_half_precision_come_to_the_same_loss(tmp_path):
    """The losses of the last fifty steps agree within 2 %, after they have fallen to less than a half."""
    words = [*RECONSTRUCTION, "training.steps=200", "training.batch_size=8", "data.train_count=200"]
    words += ["trainer.log_every_n_steps=1", "optimizer.lr=0.01", "resampling.context=false"]
    curves = []
    for extra in ([], ["trainer=fast", "trainer.compile=false"]):
        folder = prepare_run(tmp_path / str(len(extra)), *words, *extra)
        assert run_job(folder.path) == 0
        curves.append(torch.tensor([float(loss) for _, loss in losses(folder)]))
    full, half = curves
    assert len(full) == len(half) == 200
    assert not torch.equal(full, half)
    assert full[-50:].mean() < 0.5 * full[:10].mean()
    assert float(half[-50:].mean()) == pytest.approx(float(full[-50:].mean()), rel=0.02)
    assert (half - full).abs().mean() < 0.03 * full.mean()
