"""FastDepth's MobileNetV1."""

from __future__ import annotations

import torch
from torch import nn

from encoder_support import FASTDEPTH, random_state
from indexnet.networks import create_encoder
from indexnet.networks.encoders import timm_chain
from indexnet.networks.imagenet import normalise
from indexnet.resampling import create_resampling


def test_mobilenetv1_strides_as_timm_does():
    model = timm_chain.create_timm_model("mobilenetv1_100", 3).eval()
    state = random_state(model)
    model.load_state_dict(state)
    encoder = create_encoder(FASTDEPTH, 3, "stride").eval()
    encoder.load_state_dict(dict(zip(encoder.state_dict(), state.values(), strict=True)))
    x = torch.rand(1, 3, 75, 64)
    with torch.no_grad():
        bottom, levels = encoder(x)
        torch.testing.assert_close(bottom, model(x)[-1])
        again, seen = encoder(x, create_resampling("nearest", encoder.stage_channels, pooling="encoder").stages)
    assert torch.equal(bottom, again)
    assert [level.stage for level in levels] == [None] * 6
    assert [level.stage for level in seen] == [0, 1, 2, 3, 4, None]
    assert [level.size for level in seen[:5]] == [(75, 64), (38, 32), (19, 16), (10, 8), (5, 4)]
    assert seen[0].skip is x


def test_mobilenetv1_halves_after_whole_blocks():
    strided, staged = create_encoder(FASTDEPTH, 3, "stride"), create_encoder(FASTDEPTH, 3)
    assert strided.state_dict().keys() == staged.state_dict().keys()
    assert strided.stage_channels == staged.stage_channels == (32, 128, 256, 512, 1024)
    assert create_encoder(FASTDEPTH, 3, width=0.25).widths == (8, 32, 64, 128, 256, 256)

    def strides(encoder):
        return [layer.stride[0] for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]

    assert set(strides(staged)) == {1}
    assert [n for n, stride in enumerate(strides(strided)) if stride == 2] == [0, 3, 7, 11, 23]
    convolutions = [layer for layer in strided.modules() if isinstance(layer, nn.Conv2d)]
    assert convolutions[23].weight.shape == (512, 1, 3, 3)  # block 12 of 0 to 13, the one to 1024 channels


def test_imagenet_weights_fit_how_images_are_normalised_here(monkeypatch):
    """timm's own model on images of mean and deviation 0.5 = ours on images normalised as everywhere here."""
    model = timm_chain.create_timm_model("mobilenetv1_100", 3)
    state = random_state(model)
    model.load_state_dict(state)
    model.eval()
    monkeypatch.setattr(timm_chain, "pretrained_state", lambda name, encoder: dict(state))
    encoder = create_encoder(FASTDEPTH, 3, pretrained=True).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        theirs = model.bn1(nn.functional.conv2d((image - 0.5) / 0.5, state["conv_stem.weight"], padding=1))
        ours = encoder.units[0](normalise(image))
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1], atol=1e-4, rtol=1e-4)
