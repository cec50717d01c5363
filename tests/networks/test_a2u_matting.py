"""The network of A2U matting: costs of its tables, both layouts, its encoder's weights."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from a2u_released import a2u_output, a2u_state
from indexnet.core.errors import UserError
from indexnet.interop import convert, from_released, recognise_released
from indexnet.networks import count_costs, create_network
from indexnet.networks.checkpoint import load_network
from indexnet.networks.layers import run_on_meta
from indexnet.resampling import get_resampling, list_resampling, watch_stages
from indexnet.tasks.optimizers import parameter_groups

BASELINE = 8_049_003
UP = {"pooling": "encoder"}  # the encoder strides, an operator only doubles


def a2u(**options: object) -> dict[str, object]:
    return {"name": "a2u", "activation": "none", **UP, **options}


# Table 4.2, and what Tables 4.3 and 4.5 add: the resampling, its parameters, GFLOPs where they are known
ROWS = {
    "nearest": ({"name": "nearest", **UP}, 0, "8.6075"),
    "bilinear": ({"name": "bilinear", **UP}, 0, "8.6075"),
    "carafe": ({"name": "carafe", **UP}, 263_824, None),
    "indexnet": ({"name": "indexnet", **UP}, 12_263_424, "19.9962"),
    "static-pw-cw": (a2u(dynamics="static", channel="cw", position="point"), 102_436, None),
    "static-cw": (a2u(dynamics="static", channel="cw"), 25_744, None),
    "hybrid-cw": (a2u(dynamics="hybrid", channel="cw"), 44_176, None),
    "hybrid-cs": (a2u(dynamics="hybrid"), 18_776, None),
    "dynamic-cw": (a2u(channel="cw"), 199_824, None),
    "dynamic-cs": (a2u(), 19_608, None),
    "dynamic-cs-d": (a2u(pooling="paired"), 38_184, None),
    "dynamic-cs-d with norms": ({"name": "a2u"}, 40_232, None),
    "the other released one": ({"name": "a2u", "channel": "cw"}, 220_448, None),
    "pooling by the maximum": ({"name": "nearest"}, 0, "9.3702"),
    "static-cs": (a2u(dynamics="static"), 344, None),
    "hybrid-cw, k_up=1": (a2u(dynamics="hybrid", channel="cw", k_up=1), 27_664, None),
    "hybrid-cw, k_up=5": (a2u(dynamics="hybrid", channel="cw", k_up=5), 77_200, None),
    "dynamic-cs, k_up=1": (a2u(k_up=1), 3_096, None),
    "dynamic-cs, k_up=5": (a2u(k_up=5), 52_632, None),
}


def meta(**options: object):
    with torch.device("meta"):
        return create_network("a2u_matting", **options)


@pytest.mark.parametrize("row", ROWS)
def test_rows_cost_what_is_printed_and_what_was_derived(row):
    resampling, parameters, gflops = ROWS[row]
    costs = count_costs(meta(resampling=resampling))
    assert (costs.parameters, costs.resampling_parameters) == (BASELINE + parameters, parameters)
    assert gflops is None or f"{costs.paper_gflops:.4f}" == gflops


def test_parts_have_the_published_numbers_of_parameters():
    network = meta()
    count = lambda module: sum(each.numel() for each in module.parameters())  # noqa: E731
    stem, pool, first, second, third = network.encoder.units
    stages = [count(stage) for stage in network.resampling.stages]
    assert [count(stem), count(pool), count(first)] == [12_672, 0, 221_952]
    assert [count(second[0]) + stages[2], count(second[1:])] == [240_202, 886_272]
    assert [count(third[0]) + stages[3], count(third[1:])] == [939_082, 3_542_016]
    assert stages == [5_066, 5_066, 10_058, 20_042]
    assert count(network.context) == 666_880
    assert [count(each) for each in network.decoder] == [48_448, 147_968, 193_152, 771_328]
    assert [count(each) for each in network.skips] == [2_432, 36_992, 73_984, 295_424]
    assert count(network.head) == 299


@pytest.mark.parametrize("name", [info.name for info in list_resampling()])
def test_every_operator_fits(name):
    pools = "pooling" in inspect.signature(get_resampling(name)).parameters  # or halves by its own rule
    network = meta(resampling={"name": name, **(UP if pools else {})}).eval()
    assert run_on_meta(network, (2, 4, 17, 21)).shape == (2, 1, 17, 21)


@pytest.mark.parametrize(("name", "options"), [("a2u", {}), ("indexnet", UP), ("freqfusion", UP)])
def test_gradients_reach_everything_and_guides_are_the_published_maps(name, options):
    torch.manual_seed(0)
    network = create_network("a2u_matting", resampling={"name": name, **options})
    with watch_stages(network.resampling) as seen:
        y = network(torch.rand(2, 4, 32, 48))
    assert y.shape == (2, 1, 32, 48)
    y.square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert [down.skip.shape[1:] for (down,) in seen] == [
        (64, 32, 48), (64, 16, 24), (128, 8, 12), (256, 4, 6)
    ]  # fmt: skip
    assert all(down.guide is not None for (down,) in seen)


def test_without_pooling_nearest_is_the_network_written_out():
    torch.manual_seed(0)
    network = create_network("a2u_matting", resampling={"name": "nearest", **UP}).eval()
    x = torch.rand(1, 4, 32, 48)
    stem, _, *groups = network.encoder.units
    with torch.no_grad():
        maps = [x, stem(x)]
        maps.append(groups[0](F.max_pool2d(maps[1], 3, 2, 1)))
        maps += [groups[1](maps[2])]
        d = network.context(groups[2](maps[3]))
        for skip, part, level in reversed(list(zip(network.skips, network.decoder, maps, strict=True))):
            d = part(F.interpolate(d, scale_factor=2, mode="nearest") + skip(level))
        assert torch.equal(network.head(d), network(x))
    leaks = [part.negative_slope for part in network.modules() if isinstance(part, nn.LeakyReLU)]
    assert set(leaks) == {0.01}


def test_groups_of_parameters_are_the_published_ones():
    network = meta()
    encoder, rest = {"units"}, {"resampling", "context", "skips", "decoder", "head"}
    full, reduced = parameter_groups(network, {"lr": 0.01, "encoder_lr_multiplier": 0.01})
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(each)].split(".")[0] for each in full["params"]} == rest
    assert {names[id(each)].split(".")[1] for each in reduced["params"]} == encoder
    assert (full["lr"], reduced["lr"]) == (0.01, pytest.approx(1e-4))
    assert sum(each.numel() for each in reduced["params"]) == 12_672 + 221_952 + 1_116_416 + 4_461_056


def test_frozen_norms_are_those_of_the_encoder_alone_also_in_training():
    network = create_network("a2u_matting", encoder={"name": "resnet34", "freeze_bn": True}).train()
    norms = {name: part for name, part in network.named_modules() if isinstance(part, nn.BatchNorm2d)}
    assert {name.split(".")[0] for name, part in norms.items() if not part.training} == {"encoder"}
    assert all(part.training for name, part in norms.items() if not name.startswith("encoder."))


def test_the_start_is_xaviers_with_the_gain_of_leaky_relu():
    torch.manual_seed(0)
    network = create_network("a2u_matting")
    for weight in (network.encoder.units[4][1].first[0].weight, network.decoder[3][0].first[0].weight):
        fans = 9 * (weight.shape[0] + weight.shape[1])
        assert weight.std().item() == pytest.approx((2 / (1 + 0.01**2)) ** 0.5 * (2 / fans) ** 0.5, rel=0.02)


@pytest.fixture(scope="module")
def timm_state():
    """A state dict by timm's names, RGB, with negative weights of norms."""
    import timm

    with torch.device("meta"):
        shapes = {key: value.shape for key, value in timm.create_model("resnet34").state_dict().items()}
    torch.manual_seed(1)
    state = {}
    for key, shape in shapes.items():
        if key.startswith(("layer4", "fc")):  # not used, and large
            state[key] = torch.zeros(1)
        elif len(shape) == 4:
            state[key] = torch.randn(shape) * (2 / shape[1:].numel()) ** 0.5
        elif len(shape) == 1:
            state[key] = torch.rand(shape) + 0.5 if "var" in key else 0.3 * torch.randn(shape)
    return state


def mapillary(state):
    """The same by the names of mapillary's file, in data-parallel form."""
    renamed = {}
    for key, value in state.items():
        layer, *rest = key.split(".")
        if not layer.startswith("layer"):  # of the stem, and the classifier
            renamed[f"module.mod1.{key}"] = value
            continue
        block, part, *rest = rest
        part = f"proj_{('conv', 'bn')[int(rest.pop(0))]}" if part == "downsample" else f"convs.{part}"
        if rest != ["num_batches_tracked"]:
            name = ".".join([part, *rest])
            renamed[f"module.mod{int(layer[5]) + 1}.block{int(block) + 1}.{name}"] = value
    return renamed


def literal_encoder(state, x, in_place):
    """ResNet-34 up to its 11th block, from a state dict by timm's names."""

    def norm(y, name):
        weight = state[f"{name}.weight"]
        weight = weight.abs() + 1e-5 if in_place else weight
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(y, mean, var, weight, state[f"{name}.bias"], eps=1e-5)

    conv = lambda y, name, **options: F.conv2d(y, state[f"{name}.weight"], **options)  # noqa: E731
    y = F.leaky_relu(norm(conv(x, "conv1", stride=2, padding=3), "bn1"), 0.01)
    y = F.max_pool2d(y, 3, 2, 1)
    for layer, blocks in ((1, 3), (2, 4), (3, 4)):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            z = F.leaky_relu(norm(conv(y, f"{at}.conv1", stride=stride, padding=1), f"{at}.bn1"), 0.01)
            z = norm(conv(z, f"{at}.conv2", padding=1), f"{at}.bn2")
            if f"{at}.downsample.0.weight" in state:
                y = norm(conv(y, f"{at}.downsample.0", stride=stride), f"{at}.downsample.1")
            y = F.leaky_relu(z + y, 0.01)
    return y


@pytest.mark.parametrize("in_place", [False, True])
def test_weights_by_the_names_of_timm_and_of_mapillary(timm_state, tmp_path, in_place):
    torch.save({"state_dict": mapillary(timm_state)} if in_place else timm_state, tmp_path / "weights.pth")
    encoder = {"name": "resnet34", "pretrained": str(tmp_path / "weights.pth")}
    network = create_network("a2u_matting", encoder=encoder, resampling={"name": "nearest", **UP}).eval()
    assert not network.encoder.units[0][0].weight[:, 3].any()  # of the trimap
    x = torch.rand(1, 4, 64, 48)
    with torch.no_grad():
        y, levels = network.encoder(x)
        wanted = literal_encoder(timm_state, x[:, :3], in_place)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    assert [tuple(level.skip.shape[1:]) for level in levels] == [(4, 64, 48), (64, 32, 24), (64, 16, 12), (128, 8, 6)]


def test_what_does_not_fit_is_one_sentence(tmp_path):
    for options, said in (
        ({"encoder": "vgg16_bn"}, r"give that, not 'vgg16_bn'"),
        ({"encoder": {"name": "resnet34", "width": 2.0}}, r"encoder.width is no option"),
        ({"encoder": {"name": "resnet34", "pretraind": True}}, r"pretrained"),
        ({"context": "psp"}, r"'aspp' or 'none'"),
        ({"resampling": "none"}, r"needs an operator"),
    ):
        with pytest.raises(UserError, match=said):
            meta(**options)
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth does not hold the weights of encoder 'resnet34'"):
        create_network("a2u_matting", encoder={"name": "resnet34", "pretrained": str(tmp_path / "other.pth")})
    with pytest.raises(UserError, match=r"network\.context=none"):
        create_network("a2u_matting")(torch.rand(1, 4, 32, 32))


@pytest.mark.parametrize(("channel", "k_up", "parameters"), [("cs", 3, 40_232), ("cw", 3, 220_448), ("cs", 1, None)])
def test_released_checkpoints_give_the_output_of_the_released_layers(channel, k_up, parameters):
    state = a2u_state(channel == "cw", k_up)
    found = recognise_released(state)["resampling"]
    assert {"name": "a2u", "channel": channel, "k_up": k_up, "k_en": 6}.items() <= found.items()
    network = from_released({f"module.{key}": value for key, value in state.items()})
    assert not any(part.training for part in network.modules())
    assert parameters in (None, sum(each.numel() for each in network.parameters()) - BASELINE)
    x = torch.rand(1, 4, 32, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = a2u_output(state, x, k_up)
        torch.testing.assert_close(network(x), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_a_converted_file_says_under_what_licence_and_a_damaged_one_what_is_missing(tmp_path):
    state = a2u_state()
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    convert(tmp_path / "model.pth", tmp_path / "model.ckpt")
    network, meta = load_network(tmp_path / "model.ckpt")
    assert network.info.name == "a2u_matting"
    assert "non-commercial" in meta["notice"]
    assert meta["task"] == {"name": "matting", "alignment": "reflect"}
    with pytest.raises(UserError, match="has no index networks"):
        from_released(state, "hin")
    with pytest.raises(UserError, match=r"A2U matting code, but 1 tensors are missing \(first: skips\.2\.0\.weight"):
        from_released({key: value for key, value in state.items() if key != "short2.0.weight"})
    wide = state | {"bilinear0.bconv_UP.1.weight": torch.zeros(72, 64, 1, 1)}  # of two groups
    with pytest.raises(UserError, match=r"72 logits at a position, but 4, 36 or 100"):
        from_released(wide)
