"""Every network compiles as one graph, at any size, with every operator that it takes, and computes the same.

``backend="eager"`` traces and guards as any other backend does, and computes without a compiler.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from indexnet.core.errors import UserError
from indexnet.networks import create_network, list_networks
from indexnet.networks.recompute import checkpoint_activations
from network_support import NARROW_OPTIONS, OPERATORS, SMALL

NETWORKS = [info.name for info in list_networks()]
NOT_COMPILED: dict[str, str] = {}
"""Operators that cannot be compiled as one graph, and why: none."""
LONG, NIGHTLY = [pytest.mark.long], [pytest.mark.long, pytest.mark.nightly]
FAMILIES = ("hin", "o2o_modelwise", "o2o_shared", "o2o_unshared", "m2o")
ODD, EVEN = (67, 97), (64, 96)


def build(network, operator=None):
    """A small network; None where it does not take the operator."""
    torch.manual_seed(0)
    resampling = {"resampling": {"name": operator, **NARROW_OPTIONS.get(operator, {})}} if operator else {}
    try:
        return create_network(network, **resampling, **SMALL[network])
    except UserError:
        return None


def compare(network, *sizes, dynamic=False, backend="eager", dtype=torch.float64):
    """Compile a network in one graph, and compare outputs and gradients at some sizes with those of it as written.

    In double precision and with shifted norms, so that rounding takes no value to the other side of a kink of ReLU.
    """
    network.to(dtype)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, 0.2, 1.0)
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, dynamic=dynamic, backend=backend)
    for size in sizes:
        results = []
        for run in (network, compiled):
            network.zero_grad()
            torch.manual_seed(1)
            output = run(torch.rand(2, network.in_channels, *size).to(dtype))
            output.square().mean().backward()
            results.append([output.detach(), *(each.grad for each in network.parameters() if each.grad is not None)])
        tolerance = 1e-8 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(results[1], results[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [pytest.param(each, marks=LONG if each == "segnet" else NIGHTLY) for each in NETWORKS])
def test_every_network_at_any_size(name):
    """Two sizes as they come, then one graph for both."""
    network = build(name, "max_unpool" if name == "a2u_matting" else None)  # its own has hundreds of terms a stage
    compare(network, EVEN, ODD)
    compare(network, EVEN, ODD, dynamic=True)


@pytest.mark.parametrize(
    "operator", [pytest.param(each, marks=LONG if each == "indexnet" else NIGHTLY) for each in OPERATORS]
)
def test_every_operator_at_any_size(operator):
    torch.manual_seed(0)
    options = {"name": operator, **NARROW_OPTIONS.get(operator, {})}
    network = create_network("autoencoder", resampling=options, widths=[4], in_channels=1)
    compare(network, (24, 16), (17, 23), dynamic=True)


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_with_every_operator(name, operator):
    network = build(name, operator)
    if network is None:
        pytest.skip(f"{name} does not take {operator}")
    if operator in NOT_COMPILED:
        pytest.xfail(NOT_COMPILED[operator])
    compare(network, ODD)


@pytest.mark.parametrize("family", [pytest.param(each, marks=[] if each == "m2o" else NIGHTLY) for each in FAMILIES])
def test_index_networks_in_half_precision_and_channels_last(family):
    torch.manual_seed(0)
    resampling = {"name": "indexnet", "family": family}
    network = create_network("autoencoder", resampling=resampling, widths=[4, 6], in_channels=1)
    with torch.autocast("cpu", torch.bfloat16):
        compare(network.to(memory_format=torch.channels_last), (24, 17), dtype=torch.float32)


@pytest.mark.parametrize("operator", ["indexnet", pytest.param("fade", marks=NIGHTLY)])
def test_what_is_computed_again_in_the_backward_pass(operator):
    network, plain = build("autoencoder", operator), build("autoencoder", operator)
    checkpoint_activations(network)
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    x = torch.rand(2, network.in_channels, 24, 17)
    for run in (plain, compiled):
        run(x).square().mean().backward()
    torch.testing.assert_close(network.state_dict(), plain.state_dict())
    gradients = [[each.grad for each in one.parameters()] for one in (network, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiler_computes_the_same(family):
    torch.manual_seed(0)
    resampling = {"name": "indexnet", "family": family}
    network = create_network("autoencoder", resampling=resampling, widths=[4], in_channels=1)
    compare(network, (24, 16), backend="inductor", dtype=torch.float32)  # at odd sizes PyTorch 2.13's own code fails
