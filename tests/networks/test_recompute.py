"""Activation checkpointing: exactly the same numbers, and less that is kept for the backward pass."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from indexnet.networks import create_network, list_networks
from indexnet.networks.base import Network
from indexnet.networks.recompute import checkpoint_activations
from indexnet.resampling import watch_stages
from network_support import NARROW_OPTIONS, OPERATORS, SMALL

MODELWISE = {"name": "indexnet", "family": "o2o_modelwise"}
DROPPING = {**SMALL, "rmat": {"encoder": {"name": "mit_b0", "drop_path": 0.5}}}


def step(network, size=(32, 33)):
    """What a training step leaves: output, gradients, buffers, the next random number; and the bytes that it keeps."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    x = torch.rand(2, network.in_channels, *size)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(x)
    output.square().mean().backward()
    found = {"output": output.detach(), "random": torch.rand(1), **dict(network.named_buffers())}
    return found | {key: each.grad for key, each in network.named_parameters()}, sum(kept.values())


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def recomputed(network):
    other = copy.deepcopy(network)
    checkpoint_activations(other)
    assert other.state_dict().keys() == network.state_dict().keys()
    return other


WIDE = ("a2u_matting", "deep_matting")  # have no narrow form


@pytest.mark.parametrize(
    "name", [pytest.param(i.name, marks=[pytest.mark.long] if i.name in WIDE else []) for i in list_networks()]
)
def test_a_step_of_every_network_is_the_same(name):
    torch.manual_seed(0)
    network = create_network(name, **DROPPING[name])
    size = (32, 32) if name == "rmat" else (32, 33)
    other = recomputed(network)
    (plain, bytes_plain), (again, bytes_again) = step(network, size), step(other, size)
    assert_same(plain, again)
    assert bytes_again < 0.75 * bytes_plain


@pytest.mark.parametrize("operator", [*OPERATORS, MODELWISE], ids=[*OPERATORS, "modelwise"])
def test_a_step_with_every_operator_is_the_same(operator):
    torch.manual_seed(0)
    options = operator if isinstance(operator, dict) else {"name": operator, **NARROW_OPTIONS.get(operator, {})}
    network = create_network("autoencoder", resampling=options, **SMALL["autoencoder"])
    other = recomputed(network)
    assert_same(step(network, (24, 17))[0], step(other, (24, 17))[0])


def test_what_watches_stages_and_copies_of_a_network_leave_it_so():
    torch.manual_seed(0)
    network = create_network("autoencoder", resampling="indexnet", **SMALL["autoencoder"])
    other = recomputed(network)
    with watch_stages(other.resampling) as seen:
        assert_same(step(network)[0], step(other)[0])
    assert len(seen[0]) == 1
    third = copy.deepcopy(other)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(9.0)
    third.zero_grad()
    network.zero_grad()
    (plain, bytes_plain), (again, bytes_again) = step(network), step(third)
    assert_same(plain, again)
    assert bytes_again < 0.75 * bytes_plain
    assert not step_without_gradient(third)


def test_a_second_backward_pass_comes_to_the_same():
    torch.manual_seed(0)
    network = create_network("autoencoder", resampling="indexnet", **SMALL["autoencoder"])
    assert_same(*(left_by(each, passes=2) for each in (network, recomputed(network))))


def left_by(network, passes=1):
    """Gradients and buffers after backward passes over one output; what was kept is checked to be as it was."""
    loss = (
        network(torch.rand(2, network.in_channels, 16, 16, generator=torch.Generator().manual_seed(1))).square().mean()
    )
    for _ in range(passes):
        loss.backward(retain_graph=True)
    return {key: each.grad for key, each in network.named_parameters()} | dict(network.named_buffers())


class Scaled(nn.Sequential):
    """A chain with a way of its own to run."""

    def forward(self, x, *, scale=2.0):
        for layer in self:
            x = layer(x) * scale
        return x


class Chain(Network):
    """Parts behind a norm, whose outputs they may change in place."""

    in_channels = 4

    def __init__(self, *parts):
        super().__init__()
        self.norm, self.parts = nn.BatchNorm2d(4), nn.ModuleList(parts)
        self.resampling = nn.ModuleList()

    def forward(self, x):
        x = self.norm(x)
        for part in self.parts:
            x = part(x) + x  # what a part changed in place, as it is then
        return x


def conv():
    return nn.Conv2d(4, 4, 3, padding=1)


def active(*layers):
    return nn.Sequential(nn.LeakyReLU(0.5, inplace=True), *layers)


@pytest.mark.parametrize("parts", [
    lambda: [Scaled(conv(), nn.ReLU(), nn.BatchNorm2d(4))],
    lambda: [active(conv())],
    lambda: [nn.Sequential(nn.Identity(), *active(conv()))],
    lambda: [nn.Sequential(active(), conv(), nn.ReLU(inplace=True))],
    lambda: [Scaled(conv(), nn.ReLU(inplace=True)), Scaled(active(), conv())],
    lambda: [nn.Sequential(conv(), *(active(nn.BatchNorm2d(4), conv()) for _ in range(12)))],
], ids=["own forward", "at first", "after nothing", "deeper", "own forward, at first", "at cuts"])  # fmt: skip
def test_parts_that_run_otherwise_or_work_in_place_come_to_the_same(parts):
    torch.manual_seed(0)
    network = Chain(*parts())
    assert_same(*(left_by(each) for each in (network, recomputed(network))))


def step_without_gradient(network):
    with torch.no_grad():
        return network(torch.rand(2, network.in_channels, 16, 16)).requires_grad
