"""The tail's Triton kernels without a GPU: run by Triton's interpreter, and compiled for GPUs that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from indexnet.ops import triton_form
from indexnet.resampling.fused.operators import by_triton

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@needs_triton
@pytest.mark.long
def test_in_the_interpreter():
    # in a process of its own: Triton is one or the other from the moment it is imported
    file = Path(__file__).with_name("interpreted_tail.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "INDEXNET_TRITON": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, env=environment, cwd=file.parents[2], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@needs_triton
@pytest.mark.long
@pytest.mark.parametrize("capability", [75, 90])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", ["_pool", "_pool_backward", "_upsample", "_upsample_backward"])
def test_a_gpu_compiler_takes_the_kernels(name, shared, capability, monkeypatch, tmp_path):
    # which refuses what the interpreter does not mind: branches of two shapes, say
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from indexnet.resampling.fused import kernels

    kernel = getattr(kernels, name)
    constants = {"SHARED": shared, "C": 4, "J": 64, "fw": 1, "lw": 1, "pw": 1}
    pointers = kernel.arg_names[: kernel.arg_names.index("channels")]
    types = {each: "*fp32" if each in pointers else "i32" for each in kernel.arg_names}
    source = ASTSource(kernel, {**types, **dict.fromkeys(constants, "constexpr")}, constants)
    assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]


def test_it_is_for_cuda_and_off_at_first():
    with FakeTensorMode():  # no device is needed to ask
        x, logits = torch.empty(1, 3, 4, 4, device="cuda"), torch.empty(1, 1, 4, 2, 2, device="cuda")
    assert not by_triton(x, logits)
    with triton_form():
        assert by_triton(x, logits) == (find_spec("triton") is not None)
        assert by_triton(x.bfloat16(), logits) == by_triton(x, logits)
        assert not by_triton(x.double(), logits.double())
        assert not by_triton(torch.empty(1, 3, 4, 4), torch.empty(1, 1, 4, 2, 2))
    assert not by_triton(x, logits)
