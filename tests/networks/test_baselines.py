"""Rows B1 and B2 of the matting design table: DeepLabv3+ and light-weight RefineNet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from indexnet.core.errors import UserError
from indexnet.networks import count_costs, create_network, infer_alpha
from indexnet.networks.layers import ASPP, run_on_meta

NARROW = {"name": "mobilenetv2_released", "width": 0.25}
BOTH = pytest.mark.parametrize("name", ["deeplabv3plus", "refinenet"])
WIDTHS = {2: 24, 3: 32, 4: 64, 5: 96, 6: 160, 7: 320}


def conv_bn(inputs: int, outputs: int, kernel: int = 1) -> int:
    """Parameters of a convolution without bias and its normalisation."""
    return inputs * outputs * kernel**2 + 2 * outputs


def unlike_the_identity(network):
    """Give every normalisation running statistics of its own, so that a reference cannot leave one out."""
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
            layer.weight.data.uniform_(0.5, 1.5, generator=generator)
            layer.bias.data.normal_(0, 0.2, generator=generator)
    return network.eval()


def unit(state: dict[str, Tensor], name: str, x: Tensor, dilation: int = 1, first: int = 0) -> Tensor:
    """Convolution, normalisation, ReLU6 by the tensors of a state dict."""
    weight = state[f"{name}.{first}.weight"]
    groups = x.shape[1] // weight.shape[1]
    x = F.conv2d(x, weight, padding=dilation * (weight.shape[2] // 2), dilation=dilation, groups=groups)
    names = ("running_mean", "running_var", "weight", "bias")
    x = F.batch_norm(x, *(state[f"{name}.{first + 1}.{part}"] for part in names))
    return x.clamp(0, 6)


def resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)


def deeplab_by_the_list(state: dict[str, Tensor], levels: list[Tensor], x: Tensor) -> Tensor:
    """The decoder of B1, line by line of the layer list."""
    deepest, branches = levels[7], []
    branches.append(unit(state, "context.branches.0", deepest))
    for number, rate in enumerate((6, 12, 18), 1):
        depthwise = unit(state, f"context.branches.{number}", deepest, rate)
        branches.append(unit(state, f"context.branches.{number}", depthwise, first=3))
    pooled = unit(state, "context.pooled", deepest.mean((2, 3), keepdim=True))
    branches.append(pooled.expand(-1, -1, *deepest.shape[2:]))
    context = unit(state, "context.project", torch.cat(branches, 1))
    low = unit(state, "low", levels[2])
    y = torch.cat([resized(context, low), low], 1)
    y = unit(state, "decoder.1", unit(state, "decoder.0", y))
    y = F.conv2d(unit(state, "head.0", y), state["head.1.weight"])
    return resized(y, x)


def refinenet_by_the_list(state: dict[str, Tensor], levels: list[Tensor], x: Tensor) -> Tensor:
    """The decoder of B2, line by line of the layer list."""

    def pooled(number: int, y: Tensor) -> Tensor:
        top = y
        for link in range(4):
            top = unit(state, f"pooling.{number}.links.{link}", F.max_pool2d(top, 5, 1, 2))
            y = y + top
        return y

    side = {n: unit(state, f"lateral.{n}", levels[n]) for n in range(2, 8)}
    y = pooled(3, (side[7] + side[6]).clamp(0, 6))
    y = resized(unit(state, "adapt.2", y), side[5])
    y = pooled(2, (side[4] + side[5] + y).clamp(0, 6))
    y = resized(unit(state, "adapt.1", y), side[3])
    y = pooled(1, (side[3] + y).clamp(0, 6))
    y = resized(unit(state, "adapt.0", y), side[2])
    y = pooled(0, (side[2] + y).clamp(0, 6))
    y = F.conv2d(unit(state, "head.0", y), state["head.1.weight"], padding=2)
    return resized(y, x)


@pytest.mark.parametrize(
    ("name", "by_the_list", "reductions"),
    [
        ("deeplabv3plus", deeplab_by_the_list, (2, 2, 4, 8, 16, 16, 16, 16)),
        ("refinenet", refinenet_by_the_list, (2, 2, 4, 8, 16, 16, 32, 32)),
    ],
)
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (45, 70)])
def test_the_decoder_is_the_layer_list(name, by_the_list, reductions, size):
    torch.manual_seed(0)
    network = unlike_the_identity(create_network(name, encoder=NARROW))
    x = torch.randn(2, 4, *size)
    with torch.no_grad():
        _, levels = network.encoder(x)
        for level, reduction in zip(levels, reductions, strict=True):
            assert level.size == tuple(-(-side // reduction) for side in size)
        expected = by_the_list(network.state_dict(), [level.skip for level in levels], x)
        assert expected.std() > 1e-3
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_parameters_are_those_of_the_layer_lists():
    with torch.device("meta"):
        deeplab, refinenet = create_network("deeplabv3plus"), create_network("refinenet")
    encoder = 1_812_000  # of the released MobileNetV2 with four input channels
    context = conv_bn(320, 256) * 2 + 3 * (320 * 9 + 2 * 320 + conv_bn(320, 256)) + conv_bn(5 * 256, 256)
    decoder = conv_bn(24, 48) + conv_bn(304, 256, 5) + conv_bn(256, 256, 5)
    assert count_costs(deeplab).parameters == encoder + context + decoder + conv_bn(256, 1) + 1
    sides = sum(conv_bn(width, 256) for width in WIDTHS.values())
    chains = (4 * 4 + 3) * conv_bn(256, 256)
    assert count_costs(refinenet).parameters == encoder + sides + chains + conv_bn(256, 1, 5) + 25
    assert isinstance(deeplab.context, ASPP)


@BOTH
def test_any_size_trains_and_predicts(name):
    torch.manual_seed(0)
    network = create_network(name, encoder=NARROW)
    y = network(torch.randn(2, 4, 33, 65))
    assert y.shape == (2, 1, 33, 65)
    y.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    network.eval()
    with torch.no_grad():
        for size in ((1, 1), (17, 40), (64, 31)):
            assert network(torch.randn(1, 4, *size)).shape == (1, 1, *size)


@BOTH
def test_the_released_protocol_takes_them(name):
    import numpy as np

    network = create_network(name, encoder=NARROW)
    rng = np.random.default_rng(0)
    trimap = np.full((50, 70), 128, np.uint8)
    trimap[:, :20], trimap[:, -20:] = 0, 255
    alpha = infer_alpha(network, rng.integers(0, 256, (50, 70, 3), dtype=np.uint8), trimap)
    assert alpha.shape == (50, 70)
    assert (alpha[trimap != 128] == trimap[trimap != 128]).all()


@BOTH
def test_weights_of_an_encoder_at_stride_1_fit(name):
    """The strides are no weights: pre-trained encoders serve both."""
    given = create_network("matting_unet", encoder=NARROW).encoder.state_dict()
    network = create_network(name, encoder=NARROW)
    network.encoder.load_state_dict(given)
    assert len(network.resampling.stages) == 0


@BOTH
def test_other_encoders_and_strides(name):
    for encoder in ("resnet18", "mobilenetv2_035"):
        with torch.device("meta"):
            network = create_network(name, encoder=encoder, output_stride=32).eval()
        assert run_on_meta(network, (2, 4, 64, 32)).shape == (2, 1, 64, 32)
    other = create_network(name, encoder=NARROW, output_stride={"deeplabv3plus": 32, "refinenet": 16}[name]).eval()
    with torch.no_grad():
        assert other(torch.randn(1, 4, 40, 33)).shape == (1, 1, 40, 33)
    encoder = create_network("refinenet", encoder=NARROW).encoder
    assert [encoder.units_at(r) for r in (1, 2, 4, 8, 16, 32, 64)] == [[], [0, 1], [2], [3], [4, 5], [6, 7], []]


@BOTH
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"resampling": "indexnet"}, "cannot take resampling=indexnet; give resampling=none"),
        ({"decoder_kernel": 4}, "must be odd and positive, got 4"),
        ({"output_stride": 8}, "output_stride of an encoder is 32 or 16"),
    ],
)
def test_what_cannot_be_is_said(name, options, sentence):
    with pytest.raises(UserError, match=sentence):
        create_network(name, **{"encoder": NARROW, **options})
