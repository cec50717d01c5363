"""Classes from several sizes of an image, against the steps of the public code in their own words."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from indexnet.networks import create_network
from indexnet.networks.scales import class_probabilities, scaled_size


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((480, 640), 300, (320, 416)),  # 300 x 400, each rounded up
        ((480, 640), 450, (480, 608)),
        ((640, 480), 600, (800, 608)),
        ((300, 1000), 450, (320, 1024)),  # the long side is 1000 already
        ((10, 10), 3, (32, 32)),
    ],
)
def test_sizes_are_multiples_of_32(size, side, expected):
    assert scaled_size(*size, side, 1000) == expected


def test_probabilities_are_averaged_at_the_images_size():
    torch.manual_seed(0)
    network = create_network("upernet", encoder="test_efficientnet", width=8, classes=3,
                             resampling={"name": "bilinear", "pooling": "encoder"}).eval()  # fmt: skip
    image = torch.randn(1, 3, 40, 50)
    with torch.no_grad():
        found = class_probabilities(network, image, [32, 64], 1000)
        expected = torch.zeros(1, 3, 40, 50)
        for size in ((32, 64), (64, 96)):
            # PIL's bilinear filter is as wide as the image shrinks
            seen = F.interpolate(image, size, mode="bilinear", antialias=True)
            scores = F.interpolate(network(seen), (40, 50), mode="bilinear")
            expected += scores.exp() / scores.exp().sum(1, keepdim=True) / 2
    torch.testing.assert_close(found, expected)
    assert found.argmax(1).unique().numel() > 1
