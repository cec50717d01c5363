"""What only a CUDA device can show: `make test-gpu`."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec

import pytest
import torch

from indexnet.networks import create_network
from indexnet.networks.recompute import checkpoint_activations
from indexnet.ops import readable_form, triton_form
from indexnet.resampling import create_resampling, list_resampling
from indexnet.run.job import run_job
from network_support import NARROW
from run_support import Unsynchronised, job_process, prepare_run, weights
from tail_cases import HALVES, SHAPES, by_triton, check_foreign_strides, check_half, check_shape, maps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.parametrize("name", [info.name for info in list_resampling()])
def test_an_operator_computes_the_same_on_the_gpu(name):
    torch.manual_seed(0)
    resampling = create_resampling(name, channels=[8]).double()
    x, d = torch.rand(2, 8, 13, 18, dtype=torch.double), torch.rand(2, 8, 7, 9, dtype=torch.double)
    results = []
    for device in ("cpu", "cuda"):
        resampling.to(device)
        stage = resampling.stages[0]
        down = stage.down(x.to(device))
        results.append([t.cpu() for t in (down.features, down.skip, stage.up(d.to(device), down.guide, down.size))])
    for cpu, gpu in zip(*results, strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("task", ["matting", "reconstruction"])
def test_a_run_on_the_gpu(tmp_path, task, precision):
    overrides = [f"task={task}", f"trainer.precision={precision}", "training.steps=6", "training.batch_size=4"]
    overrides += ["training.size=64", "data.train_count=8", "data.test_count=2", "trainer.channels_last=true"]
    folder = prepare_run(tmp_path, *overrides, "trainer.accelerator=gpu")
    assert run_job(folder.path) == 0
    assert folder.record().status == "done"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_batch_norm_over_two_gpus_is_that_of_one(tmp_path):
    words = ["task=reconstruction", "training.steps=3", "training.batch_size=8", "data.train_count=16"]
    words += ["data.test_count=4", "resampling=bilinear", "trainer.accelerator=gpu", "optimizer.lr=0.001"]
    means = []
    for devices in (1, 2):
        folder = prepare_run(
            tmp_path / str(devices), *words, f"trainer.devices={devices}", "trainer.sync_batchnorm=true"
        )
        result = job_process(folder)
        assert result.returncode == 0, result.stderr
        means.append(next(value for key, value in weights(folder).items() if key.endswith("running_mean")))
    torch.testing.assert_close(means[0], means[1], rtol=1e-3, atol=1e-5)


@needs_triton
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("memory", ["first", "last"])
def test_triton_kernels_compute_what_the_readable_form_does(shape, shared, memory):
    check_shape(shape, shared, memory, "cuda")


@needs_triton
@pytest.mark.parametrize("halves", HALVES)
@pytest.mark.parametrize(("shared", "memory"), [(False, "first"), (True, "last")])
def test_triton_kernels_in_half_precision(halves, shared, memory):
    check_half(halves, shared, memory, "cuda")


@needs_triton
@pytest.mark.parametrize("shared", [False, True])
def test_triton_kernels_take_maps_that_lie_otherwise(shared):
    check_foreign_strides(shared, "cuda")


@needs_triton
@pytest.mark.parametrize("family", ["hin", "m2o"])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_compiled_stage_by_triton_kernels(family, memory):
    torch.manual_seed(0)
    stage = create_resampling("indexnet", channels=[24], family=family).cuda().stages[0]

    def through(x):
        down = stage.down(x)
        return down.skip, stage.up(down.features, down.guide, down.size)

    x = torch.randn(2, 24, 41, 64).cuda().to(memory_format=memory).requires_grad_()
    with readable_form():
        expected = through(x)
        upstream = [torch.randn_like(each) for each in expected]
        gradient = torch.autograd.grad(expected, x, upstream)
    with triton_form():
        found = torch.compile(through, fullgraph=True)(x)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(torch.autograd.grad(found, x, upstream), gradient, rtol=1e-3, atol=1e-3)


@needs_triton
def test_gradients_by_triton_kernels_are_the_same_every_time():
    x, logits = (each.requires_grad_() for each in maps((2, 300, 9, 33), True, device="cuda"))
    once, again = (torch.autograd.grad([each.sum() for each in by_triton(x, logits)], logits)[0] for _ in range(2))
    assert torch.equal(once, again)


TERMS = "task.loss={alpha: 1, composition: 1, laplacian: 1, gradient: 1, gradient_penalty: 1}"


@pytest.mark.parametrize("words", [
    ["trainer=fast", "task=matting", TERMS],
    ["trainer=fast", "trainer.compile=false", "task=matting", "resampling=freqfusion"],
    ["trainer=fast", "trainer.compile=false", "task=denoising", "resampling=nearest", "resampling.pooling=blur"],
    ["task=reconstruction", "trainer.enable_progress_bar=true"],
], ids=["matting", "operation by operation", "denoising", "with a bar"])  # fmt: skip
def test_no_step_waits_for_the_gpu_but_those_that_are_logged(tmp_path, words):
    before = Unsynchronised.watched
    words = [*words, "training.steps=20", "training.batch_size=4", "training.size=64", "data.train_count=8"]
    words += ["data.test_count=2", "trainer.accelerator=gpu", "trainer.log_every_n_steps=10", "trainer.num_workers=0"]
    folder = prepare_run(tmp_path, *words, "+callbacks.own={_target_: run_support.Unsynchronised}")
    assert run_job(folder.path) == 0
    assert folder.record().status == "done"
    assert Unsynchronised.watched - before == 15


def _gradients(network, x, half):
    """All gradients of a step, as one vector."""
    network.zero_grad()
    torch.manual_seed(1)
    with torch.autocast("cuda", torch.bfloat16) if half else nullcontext():
        output = network(x)
    output.float().square().mean().backward()
    return torch.cat([each.grad.float().flatten() for each in network.parameters()])


@pytest.mark.parametrize("family", ["hin", "o2o_shared", "m2o"])
def test_a_compiled_step_in_half_precision_is_no_further_from_the_exact_one_than_the_step_as_written(family):
    torch.manual_seed(0)
    resampling = {"name": "indexnet", "family": family}
    network = create_network("matting_unet", encoder=NARROW, resampling=resampling, context="none").cuda()
    x = torch.rand(4, 4, 64, 64, device="cuda")
    exact = _gradients(network, x, half=False)
    network.to(memory_format=torch.channels_last)
    written = _gradients(network, x, half=True)
    torch.compiler.reset()
    network.compile(fullgraph=True)
    compiled = _gradients(network, x, half=True)
    assert (written - exact).norm() > 0
    assert (compiled - exact).norm() <= 1.25 * (written - exact).norm() + 1e-3 * exact.norm()


def test_what_is_computed_again_takes_less_memory_and_comes_to_the_same():
    torch.manual_seed(0)
    network = create_network("matting_unet", encoder=NARROW, resampling="indexnet").cuda()
    x, found = torch.rand(4, 4, 256, 256, device="cuda"), []
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        for again in (False, True):
            if again:
                checkpoint_activations(network)
            _gradients(network, x, half=True)  # loads kernels
            torch.cuda.reset_peak_memory_stats()
            found.append((_gradients(network, x, half=True), torch.cuda.max_memory_allocated()))
    finally:
        torch.use_deterministic_algorithms(False)
    (plain, more), (recomputed, less) = found
    torch.testing.assert_close(recomputed, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))
    assert less < 0.75 * more
