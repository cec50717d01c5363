"""Every network compiles as one graph, at any size, with every operator that it takes, and computes the same.

``backend="eager"`` traces and guards as any other backend does, and computes without a compiler.
"""

from __future__ import annotations

import pytest
import torch

from indexnet.core.errors import UserError
from indexnet.networks import create_network, list_networks
from indexnet.networks.recompute import checkpoint_activations
from network_support import NARROW_OPTIONS, OPERATORS, SMALL

NETWORKS = [info.name for info in list_networks()]
NOT_COMPILED: dict[tuple[str, str], str] = {}
"""Network and operator that cannot be compiled as one graph, and why: none."""
CHEAP = ("autoencoder", "dncnn", "fastdepth", "segnet")
LONG, NIGHTLY = [pytest.mark.long], [pytest.mark.long, pytest.mark.nightly]
FAMILIES = ("hin", "o2o_modelwise", "o2o_shared", "o2o_unshared", "m2o")


def build(network, resampling=None):
    """A small network; None where it does not take the operator."""
    torch.manual_seed(0)
    try:
        return create_network(network, **({"resampling": resampling} if resampling else {}), **SMALL[network])
    except UserError:
        return None


def compare(network, dynamic, sizes=((64, 96), (97, 67))):
    """Compile a network in one graph, and compare its output and gradients with those of the network as written."""
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, dynamic=dynamic, backend="eager")
    for size in sizes:
        results = []
        for run in (network, compiled):
            network.zero_grad()
            torch.manual_seed(1)
            output = run(torch.rand(2, network.in_channels, *size))
            output.square().mean().backward()
            results.append([output.detach(), *(each.grad for each in network.parameters() if each.grad is not None)])
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", [pytest.param(each, marks=LONG if each in CHEAP else NIGHTLY) for each in NETWORKS])
def test_every_network_with_its_own_operator(name, dynamic):
    compare(build(name), dynamic)


def _operator(name):
    return {"name": name, **NARROW_OPTIONS.get(name, {})}


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_with_every_operator_at_any_size(name, operator):
    network = build(name, _operator(operator))
    if network is None:
        pytest.skip(f"{name} does not take {operator}")
    if (name, operator) in NOT_COMPILED:
        pytest.xfail(NOT_COMPILED[name, operator])
    compare(network, dynamic=True)


@pytest.mark.long
@pytest.mark.parametrize("family", [pytest.param(each, marks=LONG if each == "m2o" else NIGHTLY) for each in FAMILIES])
def test_index_networks_in_half_precision_and_channels_last(family):
    network = build("autoencoder", {"name": "indexnet", "family": family}).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        compare(network, dynamic=False, sizes=[(24, 17)])


@pytest.mark.long
def test_what_is_computed_again_in_the_backward_pass():
    network = build("autoencoder", "indexnet")
    plain = build("autoencoder", "indexnet")
    checkpoint_activations(network)
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    x = torch.rand(2, network.in_channels, 24, 17)
    for run in (plain, compiled):
        run(x).square().mean().backward()
    torch.testing.assert_close(network.state_dict(), plain.state_dict())
    gradients = [[each.grad for each in one.parameters()] for one in (network, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
