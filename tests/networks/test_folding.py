"""Batch normalisation folded into convolutions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from indexnet.networks import create_network, list_networks
from indexnet.networks.folding import fold_norms

ENCODERS = {
    "upernet": "resnet18",
    "hu_depth": "resnet18",
    "segnet": "test_efficientnet",
    "deep_matting": "test_efficientnet",
}
OTHERS = {"deep_matting": {"hidden": 16}, "upernet": {"width": 16}}


@pytest.mark.parametrize("name", [info.name for info in list_networks()])
def test_every_network_folded_computes_the_same(name):
    torch.manual_seed(0)
    options = {"encoder": ENCODERS[name]} if name in ENCODERS else {}
    network = create_network(name, **options, **OTHERS.get(name, {})).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                for tensor, low, high in (
                    (module.running_mean, -0.1, 0.1),
                    (module.running_var, 0.9, 1.1),
                    (module.weight, 0.8, 1.2),
                ):
                    tensor.uniform_(low, high)
    image = torch.rand(1, network.in_channels, 64, 32, dtype=torch.float64)
    network.double()
    folded = copy.deepcopy(network)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert fold_norms(folded) + sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == norms
    if name in ("matting_unet", "a2u_matting", "dncnn_segnet", "fastdepth"):  # layers of this project
        assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) <= 0.2 * norms
    with torch.no_grad():
        torch.testing.assert_close(folded(image), network(image))


def test_what_is_not_folded():
    """Norms in training, of no convolution, of a convolution that others use as well, and with hooks."""
    conv = nn.Conv2d(2, 2, 1)
    network = nn.ModuleList(
        [
            nn.Sequential(conv, nn.BatchNorm2d(2)),
            nn.Sequential(conv, nn.BatchNorm2d(2)),
            nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)),
            nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)),
        ]
    )
    assert fold_norms(network.eval()) == 0
    assert fold_norms(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)).train()) == 0
    watched = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)).eval()
    watched[1].register_forward_hook(lambda *_: None)
    assert fold_norms(watched) == 0
