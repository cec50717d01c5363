"""FastDepth's MobileNetV1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from encoder_support import FASTDEPTH, random_state
from indexnet.core.errors import UserError
from indexnet.networks import create_encoder
from indexnet.networks.encoders import timm_chain
from indexnet.resampling import create_resampling


def fastdepth_layout(form: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights in one of the known layouts, and what the encoder must hold."""
    state = random_state(create_encoder(FASTDEPTH, 3))
    if form == "own":
        return state, state
    if form == "timm":
        import timm

        named = random_state(timm.create_model("mobilenetv1_100", num_classes=3))
        values = [value for key, value in named.items() if not key.startswith("classifier")]
        return named, dict(zip(state, values, strict=True))  # both run through the layers in the same order
    prefix = {"imagenet": "module.model.", "fastdepth": "conv"}[form]
    named, blocks = {}, list(dict.fromkeys(key[:9] for key in state))  # units.3.0
    for key, value in state.items():
        named[f"{prefix}{blocks.index(key[:9])}{key[9:]}"] = value
    if form == "imagenet":
        return named | {"module.fc.weight": torch.zeros(2, 2)}, state
    return named | {"decode_conv1.0.0.weight": torch.zeros(2, 1, 5, 5)}, state


@pytest.mark.parametrize("form", ["own", "timm", "imagenet", "fastdepth"])
def test_mobilenetv1_loads_every_known_layout(form, tmp_path):
    named, expected = fastdepth_layout(form)
    torch.save({"state_dict": named}, tmp_path / "mobilenet.pth.tar")
    encoder = create_encoder(FASTDEPTH, 4, pretrained=str(tmp_path / "mobilenet.pth.tar"))
    for key, value in encoder.state_dict().items():
        if key == "units.0.0.0.weight":
            assert value[:, 3].eq(0).all()
            value = value[:, :3]
        assert torch.equal(value, expected[key]), key


def test_mobilenetv1_refuses_other_weights(tmp_path):
    torch.save({"layer1.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(
        UserError, match=r"holds no MobileNetV1 weights by names of timm or FastDepth .*'layer1.weight'"
    ):
        create_encoder(FASTDEPTH, 3, pretrained=str(tmp_path / "other.pth"))
    torch.save({"conv0.0.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"\d+ of \d+ tensors are missing"):
        create_encoder(FASTDEPTH, 3, pretrained=str(tmp_path / "short.pth"))


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
