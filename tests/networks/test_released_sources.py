"""Released checkpoints of other codes than index-network matting's own: named, renamed, with the same output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from indexnet.core.errors import UserError
from indexnet.interop import convert, from_released, recognise_released
from indexnet.networks import create_network
from indexnet.networks.checkpoint import load_network
from released import released_state


def noise(shape: tuple[int, ...], name: str) -> torch.Tensor:
    """Weights that keep activations in range, a function of name and shape."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    value = torch.randn(shape, generator=generator)
    if len(shape) == 4:
        return value * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
    return 1 + 0.1 * value.abs() if name.endswith(("running_var", "bn.weight")) else 0.1 * value


# --- Deep Matting ------------------------------------------------------------------------------------------------

VGG = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
HIDDEN = 8  # 4096 in the released file


def hlvgg_state() -> dict[str, torch.Tensor]:
    """Names and shapes of the released Deep Matting, with a narrow bottom and without counters of batches."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = 4
    for stage, (channels, units) in enumerate(VGG, 1):
        for unit in range(1, units + 1):
            shapes[f"conv{stage}{unit}.weight"] = (channels, width, 3, 3)
            shapes[f"conv{stage}{unit}.bias"] = (channels,)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"bn{stage}{unit}.{part}"] = (channels,)
            width = channels
    convolutions = {"conv6": (HIDDEN, 512, 7), "dconv6": (512, HIDDEN, 1), "dconv5": (512, 512, 5)}
    convolutions |= {"dconv4": (256, 512, 5), "dconv3": (128, 256, 5), "dconv2": (64, 128, 5), "dconv1": (64, 64, 5)}
    for name, (outputs, inputs, size) in (convolutions | {"alpha_pred": (1, 64, 5)}).items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, size, size), (outputs,)
    return {name: noise(shape, name) for name, shape in shapes.items()}


def hlvgg(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The released forward pass, in words of torch alone."""

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    indices = []
    for stage, (_, units) in enumerate(VGG, 1):
        for unit in range(1, units + 1):
            x = norm(f"bn{stage}{unit}", conv(f"conv{stage}{unit}", x)).relu()
        x, index = F.max_pool2d(x, 2, return_indices=True)
        indices.append(index)
    x = conv("dconv6", conv("conv6", x).relu()).relu()
    for stage in range(5, 0, -1):
        x = conv(f"dconv{stage}", F.max_unpool2d(x, indices[stage - 1], 2)).relu()
    return conv("alpha_pred", x)


@pytest.fixture(scope="module")
def deep() -> dict[str, torch.Tensor]:
    return hlvgg_state()


@pytest.mark.long  # timm makes all of VGG16 first
def test_deep_matting_computes_what_the_released_code_does(deep, tmp_path):
    x = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    state = {f"module.{key}": value for key, value in deep.items()}
    torch.save({"state_dict": state, "epoch": 24}, tmp_path / "deep_matting.pth.tar")
    convert(tmp_path / "deep_matting.pth.tar", tmp_path / "deep.ckpt")
    network, meta = load_network(tmp_path / "deep.ckpt")
    with torch.no_grad():
        torch.testing.assert_close(network(x), hlvgg(deep, x), atol=1e-4, rtol=1e-4)
    assert meta["network"]["name"] == "deep_matting"
    assert "non-commercial" in meta["notice"]


def test_the_released_deep_matting_has_the_printed_size(deep):
    options = recognise_released(deep | {"conv6.weight": torch.empty(4096, 512, 7, 7)})
    assert (options["name"], options["resampling"]) == ("deep_matting", {"name": "max_unpool"})
    with torch.device("meta"):
        network = create_network(**options)
    assert sum(p.numel() for p in network.parameters()) == 130_545_345  # 130.55M, official README


def test_damaged_deep_matting_is_refused_in_a_sentence(deep):
    cases = [
        ({k: v for k, v in deep.items() if k != "dconv3.weight"}, r"1 tensors are missing \(first: decoder.2.0.weight"),
        ({k: v for k, v in deep.items() if k != "conv6.weight"}, "entry 'conv6.weight' is missing"),
        (deep | {"conv11.weight": torch.zeros(4)}, r"entry 'conv11.weight' has the shape \(4,\)"),
        (deep | {"refine1.weight": torch.zeros(1)}, r"1 tensors are unknown \(first: refine1.weight"),
    ]
    for state, message in cases:
        with pytest.raises(UserError, match=message):
            from_released(state)
    with pytest.raises(UserError, match=r"no index networks .*leave family out"):
        from_released(deep, family="m2o")


# --- MMEditing ---------------------------------------------------------------------------------------------------

PLACES = {"0": "conv", "1": "bn", "2": "conv"}


def to_mmediting(name: str) -> str:
    """MMEditing's name of one of the released index-network code."""
    module, _, rest = name.partition(".")
    if module == "layer0":
        place, end = rest.split(".")
        return f"backbone.encoder.layers.0.{PLACES[place]}.{end}"
    if module.startswith("layer"):
        block, _, place, end = rest.split(".")
        at = int(place)
        start = "conv" if module == "layer1" else "conv.1" if at > 2 else "conv.0"
        if module != "layer1":
            at -= 3
        kind = "" if at < 0 else "depthwise_conv." if at < 3 else "pointwise_conv."
        return f"backbone.encoder.layers.{module[5:]}.{block}.{start}.{kind}{('conv', 'bn', '')[at % 3]}.{end}"
    if module.startswith("index"):
        stage = [0, 2, 3, 4, 6].index(int(module[5:]))
        column, *places, end = rest.split(".")
        block = f"index_blocks.{int(column[8:]) - 1}" if column[8:] else "index_block"
        part = {"0": "0.conv", "1": "0.bn", "3": "1.conv"}[places[0]]
        return f"backbone.encoder.index_layers.{stage}.{block}.{part}.{end}"
    if module == "dconv_pp":
        part, *places, end = rest.split(".")
        at = int(places[-1])
        if part == "global_avg_pool":
            return f"backbone.encoder.dconv.convs.4.1.{('', 'conv', 'bn')[at]}.{end}"
        if part == "bottleneck_conv":
            return f"backbone.encoder.dconv.project.0.{('conv', 'bn')[at]}.{end}"
        kind = "" if part == "aspp1" else "depthwise_conv." if at < 3 else "pointwise_conv."
        return f"backbone.encoder.dconv.convs.{int(part[4:]) - 1}.{kind}{('conv', 'bn')[at % 3]}.{end}"
    if module.startswith("decoder_layer"):
        _, place, end = rest.split(".")
        return f"backbone.decoder.decoder_layers.{6 - int(module[13:])}.conv.{PLACES[place]}.{end}"
    first, *others = rest.split(".")
    return f"backbone.decoder.pred.{first}.{'.'.join([PLACES[others[0]], *others[1:]]) if first == '0' else others[0]}"


@pytest.mark.parametrize("configuration", ["code_o2o_nl", "code_hin_nl_c"])
def test_mmediting_gives_the_same_network_as_the_released_names(shared, configuration):
    official = released_state(shared, configuration)
    theirs = {to_mmediting(name): value for name, value in official.items()}
    assert len(theirs) == len(official)
    assert all(name.startswith("backbone.") for name in theirs)
    assert recognise_released(theirs) == recognise_released(official)
    network, expected = from_released(theirs).state_dict(), from_released(official).state_dict()
    assert network.keys() == expected.keys()
    assert all(torch.equal(value, network[key]) for key, value in expected.items())


def test_mmediting_names_are_those_of_its_modules(shared):
    """The names that a checkpoint of it has, one of each kind, written out."""
    theirs = {to_mmediting(name) for name in released_state(shared, "code_m2o_nl_c")}
    assert {
        "backbone.encoder.layers.0.conv.weight",
        "backbone.encoder.layers.0.bn.running_mean",
        "backbone.encoder.layers.1.0.conv.depthwise_conv.conv.weight",
        "backbone.encoder.layers.1.0.conv.pointwise_conv.bn.weight",
        "backbone.encoder.layers.2.1.conv.0.conv.weight",
        "backbone.encoder.layers.2.1.conv.1.depthwise_conv.bn.bias",
        "backbone.encoder.layers.7.0.conv.1.pointwise_conv.conv.weight",
        "backbone.encoder.index_layers.4.index_blocks.3.0.conv.weight",
        "backbone.encoder.index_layers.0.index_blocks.0.0.bn.running_var",
        "backbone.encoder.index_layers.1.index_blocks.2.1.conv.weight",
        "backbone.encoder.dconv.convs.0.conv.weight",
        "backbone.encoder.dconv.convs.3.depthwise_conv.conv.weight",
        "backbone.encoder.dconv.convs.3.pointwise_conv.bn.weight",
        "backbone.encoder.dconv.convs.4.1.conv.weight",
        "backbone.encoder.dconv.project.0.bn.bias",
        "backbone.decoder.decoder_layers.0.conv.conv.weight",
        "backbone.decoder.decoder_layers.6.conv.bn.bias",
        "backbone.decoder.pred.0.conv.weight",
        "backbone.decoder.pred.0.bn.weight",
        "backbone.decoder.pred.1.weight",
    } <= theirs


@pytest.mark.parametrize("family", ["hin", "m2o"])
def test_linear_index_networks_of_mmediting(family):
    network = create_network(
        "matting_unet", resampling={"name": "indexnet", "family": family, "nonlinear": False, "context": False}
    ).eval()
    channels, theirs = (32, 24, 32, 64, 160), {}
    for stage, width in enumerate(channels):
        if family == "hin":
            theirs[f"backbone.encoder.index_layers.{stage}.index_block.conv.weight"] = noise(
                (4, width, 2, 2), str(stage)
            )
            continue
        shape = (width, width, 2, 2)
        for column in range(4):
            key = f"backbone.encoder.index_layers.{stage}.index_blocks.{column}.conv.weight"
            theirs[key] = noise(shape, f"{stage}{column}")
    own = network.state_dict()
    for key, value in own.items():
        if not key.startswith("resampling"):
            theirs[to_mmediting(official_name(key))] = value
    options = recognise_released(theirs)["resampling"]
    assert (options["family"], options["nonlinear"], options["context"]) == (family, False, False)
    again = from_released(theirs)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in own.items() if not k.startswith("resampling"))
    # the first stage's map of a constant: sigmoid of the sum of each column's weights
    x = torch.ones(1, 32, 4, 4)
    if family == "m2o":
        weights = [theirs[f"backbone.encoder.index_layers.0.index_blocks.{c}.conv.weight"] for c in range(4)]
        expected = torch.stack([w.sum((1, 2, 3)).sigmoid() for w in weights], 1).view(1, 128, 1, 1).expand(1, 128, 2, 2)
        stage = again.stage(0)
        maps = stage.index_maps(stage.down(x).guide)
        torch.testing.assert_close(maps, F.pixel_shuffle(expected, 2), atol=1e-5, rtol=1e-5)


def official_name(key: str) -> str:
    """The release's name of one of our names, index networks aside."""
    for own, released in (
        ("encoder.units.", "layer"),
        ("context.branches.0", "dconv_pp.aspp1.atrous_conv"),
        ("context.branches.1", "dconv_pp.aspp2.atrous_conv"),
        ("context.branches.2", "dconv_pp.aspp3.atrous_conv"),
        ("context.branches.3", "dconv_pp.aspp4.atrous_conv"),
        ("context.pooled.0", "dconv_pp.global_avg_pool.1"),
        ("context.pooled.1", "dconv_pp.global_avg_pool.2"),
        ("context.project", "dconv_pp.bottleneck_conv"),
        ("head", "pred"),
    ):
        if key.startswith(own):
            return released + key.removeprefix(own)
    _, layer, rest = key.split(".", 2)
    return f"decoder_layer{layer}.dconv.{rest}"


def test_mmediting_checkpoints_are_converted(shared, tmp_path):
    official = released_state(shared, "code_m2o_nl_c")
    state = {to_mmediting(name): value for name, value in official.items()}
    torch.save({"meta": {"iter": 78000, "mmedit_version": "0.16"}, "state_dict": state}, tmp_path / "indexnet.pth")
    convert(tmp_path / "indexnet.pth", tmp_path / "x.ckpt")
    network, meta = load_network(tmp_path / "x.ckpt")
    assert meta["notice"].startswith("Converted from a checkpoint of MMEditing")
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 4, 32, 32), dtype=np.float32))
    with torch.no_grad():
        assert torch.equal(network(x), from_released(official)(x))


def test_other_networks_of_mmediting_are_refused():
    state = {
        "backbone.encoder.layer1.0.weight": torch.zeros(64, 4, 3, 3),
        "backbone.decoder.deconv1.bias": torch.zeros(1),
    }
    with pytest.raises(UserError, match="network of MMEditing, but not its IndexNet"):
        from_released(state)
