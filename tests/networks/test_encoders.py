"""Encoders: cut at their strides, loaded from files, frozen where asked."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from encoder_support import FASTDEPTH, RELEASED, layout, random_state
from indexnet.core.errors import UserError
from indexnet.networks import Encoder, create_encoder, create_network, list_encoders
from indexnet.networks.checkpoint import load_checkpoint
from indexnet.networks.encoders import timm_chain
from indexnet.networks.encoders.mobilenetv2_released import InvertedResidual
from indexnet.networks.encoders.weights import read_checkpoint
from indexnet.resampling import create_resampling

# name: (width, halved) of every unit
UNITS = {
    RELEASED: [(32, 1), (16, 0), (24, 1), (32, 1), (64, 1), (96, 0), (160, 1), (320, 0)],
    "mobilenetv2_100": [(32, 1), (16, 0), (24, 1), (32, 1), (64, 1), (96, 0), (160, 1), (320, 0)],
    "mobilenetv1_100": [(32, 1), (64, 0), (128, 1), (256, 1), (512, 1), (1024, 1)],
    "resnet34": [(64, 1), (64, 1), (64, 0), (128, 1), (256, 1), (512, 1)],
    "vgg11_bn": [(64, 1), (128, 1), (256, 1), (512, 1), (512, 1)],
}


def take_weights(encoder: Encoder, model: nn.Module) -> None:
    """Give an encoder the weights of timm's model that it was cut from."""
    by_name = {key.replace(".", "_"): value for key, value in model.state_dict().items()}
    encoder.load_state_dict({key: by_name[key.split(".", 2)[2].replace(".", "_")] for key in encoder.state_dict()})


def with_values(module: nn.Module) -> nn.Module:
    """Give a module that was built on the meta device random values, positive where a variance has to be."""
    generator = torch.Generator().manual_seed(0)
    for key, value in module.to_empty(device="cpu").state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator) * 0.1
            value.copy_(1 + drawn.abs() if key.endswith("running_var") else drawn)
    return module


def batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


@pytest.mark.parametrize("timm_name", [name for name in UNITS if name != RELEASED])
def test_timm_encoders_are_cut_at_their_strides(timm_name):
    with torch.device("meta"):
        encoder = create_encoder(timm_name, 4)
        resampling = create_resampling("max_unpool", encoder.stage_channels)
    assert [(w, int(h)) for w, h in zip(encoder.widths, encoder.halves, strict=True)] == UNITS[timm_name]
    image = torch.empty(2, 4, 64, 32, device="meta")
    x = image
    for unit, width in zip(encoder.units, encoder.widths, strict=True):  # every unit keeps the size
        x = unit(x)
        assert x.shape == (2, width, 64, 32)
    bottom, levels = encoder(image, resampling.stages)
    assert bottom.shape[2:] == (2, 1)
    assert [level.stage for level in levels if level.stage is not None] == [0, 1, 2, 3, 4]
    size = (64, 32)
    for level, width, halves in zip(levels, encoder.widths, encoder.halves, strict=True):
        assert level.skip.shape == (2, width, *size)
        assert level.size == size
        size = (size[0] // 2, size[1] // 2) if halves else size


@pytest.mark.parametrize("timm_name", ["mobilenetv2_035", "mobilenetv1_100", "resnet18"])
def test_timm_encoders_stride_as_timm_does(timm_name):
    model = timm_chain.create_timm_model(timm_name, 4).eval()
    torch.manual_seed(0)
    for layer in batch_norms(model):
        layer.running_mean.normal_(0, 0.1)
        layer.bias.data.normal_(0, 0.1)
    encoder = create_encoder(timm_name, 4, "stride").eval()
    take_weights(encoder, model)
    x = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder(x)[0], model(x)[-1])


def test_a_stage_in_place_of_a_pooling_layer_changes_nothing():
    """VGG halves by max pooling alone: with max pooling stages it must give timm's own features."""
    with torch.device("meta"):
        model = timm_chain.create_timm_model("vgg11_bn", 3).eval()
        encoder = create_encoder("vgg11_bn", 3).eval()
    model, encoder = with_values(model), encoder.to_empty(device="cpu")
    take_weights(encoder, model)
    x = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        bottom, levels = encoder(x, create_resampling("max_unpool", encoder.stage_channels).stages)
        features = model(x)
    assert torch.equal(bottom, features[-1])
    assert all(torch.equal(level.skip, feature) for level, feature in zip(levels, features, strict=False))


def test_known_encoders_exist():
    import timm

    assert RELEASED in list_encoders()
    assert FASTDEPTH in list_encoders()
    assert all(name in (RELEASED, FASTDEPTH) or timm.is_model(name) for name in list_encoders())


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        # one of each kind; the slowest in the nightly tests
        *(pytest.param(name, marks=[pytest.mark.nightly] * (name == "resnet50")) for name in list_encoders()),
        pytest.param("densenet121", marks=pytest.mark.nightly),
        "regnety_002",
        "mobilenetv3_large_100",
        pytest.param("resnet50d", marks=pytest.mark.nightly),
    ],
)
def test_matting_over_every_known_encoder(name):
    network = create_network("matting_unet", encoder=name, resampling="indexnet" if name == RELEASED else "bilinear")
    y = network(torch.randn(2, 4, 64, 64))
    assert y.shape == (2, 1, 64, 64)
    y.mean().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", ["mobilenetv2_100", "resnet34", RELEASED])
def test_output_stride_16_dilates(name):
    with torch.device("meta"):
        full, dilated = create_encoder(name, 4), create_encoder(name, 4, output_stride=16)
    assert sum(dilated.halves) == 4
    rates = {layer.dilation for layer in dilated.modules() if isinstance(layer, nn.Conv2d)}
    assert rates == {(1, 1), (2, 2)}
    x = torch.empty(1, full.widths[-2], 16, 16, device="meta")
    assert dilated.units[-1](x).shape[2:] == (16, 16)
    assert full.state_dict().keys() == dilated.state_dict().keys()


def test_released_dilation_starts_after_the_block_that_would_halve():
    with torch.device("meta"):
        encoder = create_encoder(RELEASED, 4, output_stride=16)
        resampling = create_resampling("nearest", encoder.stage_channels)
    rates = [[block.conv[-5].dilation[0] for block in layer] for layer in encoder.units[5:]]
    assert rates == [[1, 1, 1], [1, 2, 2], [2]]
    assert encoder(torch.empty(1, 4, 32, 32, device="meta"), resampling.stages)[0].shape == (1, 320, 2, 2)


def test_released_variant_pads_before_the_expansion():
    """Inside, a block equals one that pads in its depthwise convolution; at the border it must not."""
    torch.manual_seed(0)
    block = InvertedResidual(8, 8, 1, 1, 6).eval()
    for layer in batch_norms(block):
        layer.bias.data.normal_()
    plain = copy.deepcopy(block)
    plain.padding = 0
    plain.conv[3].padding = (1, 1)
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        ours, theirs = block(x), plain(x)
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1])
    assert (ours - theirs).abs()[..., 0, :].max() > 0.01


def test_widths_are_truncated():
    with torch.device("meta"):
        encoder = create_encoder(RELEASED, 4, width=1.4)
    assert encoder.widths == (44, 22, 33, 44, 89, 134, 224, 448)


@pytest.mark.parametrize("encoder", [{"name": RELEASED, "width": 0.35}, {"name": "mobilenetv2_035"}], ids=str)
def test_frozen_batch_norm_survives_train(encoder):
    options = {"encoder": {**encoder, "freeze_bn": True}, "resampling": {"name": "indexnet", "family": "o2o_shared"}}
    network = create_network("matting_unet", **options)
    assert network.encoder.freeze_bn
    norms = batch_norms(network.encoder)
    for _ in range(2):
        network.eval()
        network.train()
        assert network.encoder.training
        assert not any(layer.training for layer in norms)
        assert all(layer.training for layer in batch_norms(network.decoder))
        assert all(stage.network.norm.training for stage in network.resampling.stages)
    before = [layer.running_mean.clone() for layer in norms]
    network(torch.randn(2, 4, 32, 32)).mean().backward()
    assert all(torch.equal(layer.running_mean, mean) for layer, mean in zip(norms, before, strict=True))
    assert all(layer.weight.grad is not None for layer in norms)  # the affine parameters train on

    network.encoder.freeze_bn = False
    network.train()
    assert all(layer.training for layer in norms)
    network(torch.randn(2, 4, 32, 32))
    assert not any(torch.equal(layer.running_mean, mean) for layer, mean in zip(norms, before, strict=True))


def test_timm_weights_from_a_file(tmp_path):
    """The file of the whole classifier, as timm gives it, with names that differ from its features-only form."""
    import timm

    state = random_state(timm.create_model("resnet18", num_classes=7))
    torch.save(state, tmp_path / "weights.pth")
    encoder = create_encoder("resnet18", 4, pretrained=tmp_path / "weights.pth")
    first = encoder.units[0][0].weight
    assert torch.equal(first[:, :3], state["conv1.weight"])
    assert first[:, 3].eq(0).all()
    loaded = {key.split(".", 2)[2]: value for key, value in encoder.state_dict().items()}
    assert torch.equal(loaded["layer4.1.bn2.running_var"], state["layer4.1.bn2.running_var"])
    grey = create_encoder("resnet18", 1, pretrained=str(tmp_path / "weights.pth"))
    torch.testing.assert_close(grey.units[0][0].weight, state["conv1.weight"].sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("name", "form"),
    [(RELEASED, form) for form in ("csail", "released", "torchvision", "timm")]
    + [(FASTDEPTH, form) for form in ("own", "timm", "imagenet", "fastdepth")],
)
def test_own_encoders_load_every_known_layout(name, form, tmp_path):
    named, expected = layout(name, form)
    torch.save({"state_dict": named, "epoch": 3}, tmp_path / "weights.pth.tar")
    encoder = create_encoder(name, 4, pretrained=str(tmp_path / "weights.pth.tar"))
    state = encoder.state_dict()
    first = next(iter(state))
    assert state[first][:, 3].eq(0).all()
    state[first] = state[first][:, :3]
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in state.items())


def test_a_loaded_network_first_ignores_the_trimap(tmp_path):
    torch.save(layout(RELEASED, "csail")[0], tmp_path / "weights.pth")
    encoder = {"name": RELEASED, "pretrained": str(tmp_path / "weights.pth")}
    network = create_network("matting_unet", encoder=encoder).eval()
    x = torch.randn(1, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(
            network.encoder.units[0](x), network.encoder.units[0](x * torch.tensor([1.0, 1, 1, 0])[:, None, None])
        )


def test_safetensors_are_read(tmp_path):
    from safetensors.torch import save_file

    state = random_state(create_encoder(RELEASED, 3))
    save_file({key.replace("units.", "layer"): value for key, value in state.items()}, tmp_path / "w.safetensors")
    encoder = create_encoder(RELEASED, 3, pretrained=str(tmp_path / "w.safetensors"))
    assert torch.equal(encoder.units[7][0].conv[6].weight, state["units.7.0.conv.6.weight"])


def test_wrong_files_are_explained(tmp_path):
    good = layout(RELEASED, "csail")[0]
    torch.save(good, tmp_path / "v2.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    torch.save({"other.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "pickled.pth")
    (tmp_path / "text.pth").write_text("not weights at all")
    (tmp_path / "text.safetensors").write_text("not weights at all")
    short = dict(list(good.items())[:40])
    torch.save(short, tmp_path / "short.pth")
    torch.save({"conv0.0.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "first.pth")
    cases = [
        (
            RELEASED,
            {"width": 1.4},
            "v2.pth",
            r"another shape \(first: units.0.0.weight is \(32, 3, 3, 3\), expected \(44, 4",
        ),
        (RELEASED, {}, "short.pth", r"\d+ of 3\d\d tensors are missing \(first: .*pretrained=false"),
        (RELEASED, {}, "other.pth", "holds no MobileNetV2 weights"),
        (FASTDEPTH, {}, "other.pth", "holds no MobileNetV1 weights by names of timm or FastDepth .*'other.weight'"),
        (FASTDEPTH, {}, "first.pth", r"\d+ of \d+ tensors are missing"),
        (RELEASED, {}, "list.pth", "holds a list, where a state dict"),
        (RELEASED, {}, "numbers.pth", "holds no tensors by name"),
        (RELEASED, {}, "pickled.pth", "pickled.pth is not a readable file of weights"),
        (RELEASED, {}, "text.pth", "text.pth is not a readable file of weights"),
        (RELEASED, {}, "text.safetensors", "text.safetensors is not a readable safetensors file"),
        (RELEASED, {}, "absent.pth", "there is no checkpoint .*absent.pth"),
        ("resnet18", {}, "v2.pth", "does not hold the weights of encoder 'resnet18': .* are missing"),
    ]
    for name, options, file, message in cases:
        with pytest.raises(UserError, match=message):
            create_encoder(name, 4, pretrained=str(tmp_path / file), **options)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("read", [read_checkpoint, load_checkpoint])
def test_a_damaged_byte_is_a_mistake_of_the_user(read, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {"a": torch.zeros(4)}}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(UserError):  # any other exception fails the test
            read(path)
    path = path.with_suffix(".safetensors")
    path.write_text("not weights at all")
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        read(path)


@pytest.mark.parametrize("name", [RELEASED, "mobilenetv2_100"])
def test_unreachable_weights_say_what_to_do(name, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nowhere")
    with pytest.raises(UserError, match=rf"'{name}' cannot be reached .*encoder.pretrained=PATH.*pretrained=false"):
        create_encoder(name, 4, pretrained=True)


def test_reachable_weights_are_mapped(monkeypatch):
    named, expected = layout(RELEASED, "timm")
    monkeypatch.setattr(timm_chain, "pretrained_state", lambda name, encoder: named)
    encoder = create_encoder(RELEASED, 4, pretrained=True)
    assert torch.equal(encoder.units[7][0].conv[7].running_var, expected["units.7.0.conv.7.running_var"])
    plain = create_encoder("mobilenetv2_100", 4, pretrained=True)
    assert torch.equal(plain.units[0][0].weight[:, :3], named["conv_stem.weight"])
    assert plain.units[0][0].weight[:, 3].eq(0).all()


def test_nothing_is_loaded_on_the_meta_device(monkeypatch):
    def refuse(*_):
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(timm_chain, "pretrained_state", refuse)
    with torch.device("meta"):
        assert isinstance(create_encoder(RELEASED, 4, pretrained=True), Encoder)
        assert isinstance(create_encoder("mobilenetv2_100", 4, pretrained=True), Encoder)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_tiny", "hrnet_w18_small"]
)
@pytest.mark.parametrize("downsampling", ["stage", "stride"])
def test_models_without_halvings_are_refused(name, downsampling):
    with (
        torch.device("meta"),
        pytest.raises(UserError, match=f"'{name}' cannot be opened at its strides: .*mobilenetv2_100"),
    ):
        create_encoder(name, 4, downsampling)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenetv2_10", {}, "unknown encoder 'mobilenetv2_10'. Did you mean 'mobilenetv2_1.0'\\?"),
        ("mobilenetv2_relased", {}, "Did you mean 'mobilenetv2_released'"),
        ("mobilenetv1_fastdept", {}, "Did you mean 'mobilenetv1_fastdepth'"),
        (FASTDEPTH, {"width": 0.01}, "encoder.width of .* at least 0.03125"),
        (FASTDEPTH, {"output_stride": 16}, "'mobilenetv1_fastdepth' has no output stride 16"),
        (FASTDEPTH, {"pretrained": True, "width": 0.5}, "no ImageNet weights at width 0.5"),
        ("mobilenetv2_100", {"width": 1.4}, "carry the width .*mobilenetv2_140"),
        (RELEASED, {"width": 0.01}, "encoder.width of .* at least 0.0625"),
        (RELEASED, {"output_stride": 8}, "output_stride of an encoder is 32 or 16, got 8"),
        (RELEASED, {"pretrained": 3}, "encoder.pretrained is true, false or the path"),
        (RELEASED, {"pretrained": True, "width": 0.5}, "no ImageNet weights at width 0.5"),
        (RELEASED, {"downsampling": "pool"}, "'stage' or 'stride'"),
        ("vgg11_bn", {"output_stride": 16}, "'vgg11_bn' has no output stride 16"),
        ("resnetblur50", {}, "'layer2' does not keep the size"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with torch.device("cpu" if "pretrained" in options else "meta"), pytest.raises(UserError, match=message):
        create_encoder(name, **{"in_channels": 4, **options})


def test_two_input_channels_have_no_rgb_weights(tmp_path):
    torch.save(layout(RELEASED, "csail")[0], tmp_path / "weights.pth")
    with pytest.raises(UserError, match="weights for 3 input channels cannot serve 2"):
        create_encoder(RELEASED, 2, pretrained=str(tmp_path / "weights.pth"))


# --- encoders of timm by name ----------------------------------------------------------------------------------------

TABLE = [line.split("|") for line in (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
         .partition("## Encoders")[2].splitlines() if line.startswith("| `")]  # fmt: skip
SUITS = {row[1].strip(" `"): [cell.strip() == "yes" for cell in row[2:6]] for row in TABLE}
MADE_FOR = {"matting_unet": "bilinear", "segnet": "max_unpool", "deep_matting": "max_unpool", "deeplabv3plus": "none"}


# one that works, one refused at its first layer and one whose features come from no chain
QUICK = ("resnet18", "convnext_atto", "vit_tiny_patch16_224")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name not in QUICK)) for name in SUITS])
def test_families_of_timm_work_in_a_network_or_are_refused(name):
    """On the meta device, as a run is checked before anything starts; docs/training.md says which work."""
    networks = [*MADE_FOR, "fastdepth", "refinenet"]
    for network, suits in zip(networks, [*SUITS[name], SUITS[name][0], SUITS[name][0]], strict=True):
        operator = MADE_FOR.get(network, "nearest" if network == "fastdepth" else "none")
        options = {"resampling": operator, "encoder": {"name": name, "freeze_bn": True}}
        options |= {"hidden": 8} if network == "deep_matting" else {}
        with torch.device("meta"), contextlib.nullcontext() if suits else pytest.raises(UserError) as refused:
            built = create_network(network, **options)
            channels = built.in_channels
        if not suits:
            assert name in str(refused.value)
            assert "\n" not in str(refused.value)
            continue
        assert built.train()(torch.empty(2, channels, 64, 96, device="meta")).shape[2:] == (64, 96)
        assert not any(layer.training for layer in batch_norms(built.encoder))
        assert len(list(built.encoder_parameters())) > 10
