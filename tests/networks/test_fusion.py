"""UperNet and the network of Hu et al.: costs, what guides, and an operator at every place."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from indexnet.core.errors import UserError
from indexnet.networks import Network, count_costs, create_network
from indexnet.networks.base import run_padded
from indexnet.networks.layers import run_on_meta
from indexnet.resampling import create_resampling, list_resampling

TINY = {"upernet": {"encoder": "test_efficientnet", "width": 8, "classes": 5}, "hu_depth": {"encoder": "test_resnet"}}
BOTH = pytest.mark.parametrize("name", TINY)
STRIDES = {"pooling": "encoder"}
BILINEAR, CARAFE = {"name": "bilinear", **STRIDES}, {"name": "carafe", **STRIDES}
LINEAR = {"name": "indexnet", "family": "hin", "nonlinear": False, "context": False, **STRIDES}
CONTEXT = {"name": "indexnet", "family": "hin", **STRIDES}
BLOCKS = [131_840, 2_100_224, 8_394_752, 33_566_720]  # 32 C^2 + 12 C of 64, 256, 512 and 1024 channels
COSTS = [
    ("upernet", BILINEAR, {}, 30_060_950, 0, "37.676"),
    ("upernet", BILINEAR, {"width": 256}, 12_137_366, 0, "9.831"),
    *(("upernet", LINEAR, {"upsample_at": at}, 30_060_950, 2_432, "37.676") for at in ("fpn", "mff", "both")),
    *(
        ("upernet", CARAFE, {"upsample_at": at, "width": width}, baseline, more, None)
        for width, baseline, counts in (
            (512, 30_060_950, {"fpn": 271_596, "mff": 543_192, "both": 814_788}),
            (256, 12_137_366, {"fpn": 222_444, "mff": 444_888, "both": 667_332}),
        )
        for at, more in counts.items()
    ),
    ("hu_depth", BILINEAR, {}, 67_569_473, 0, "71.566"),
    ("hu_depth", CONTEXT, {}, 67_569_473, sum(BLOCKS), None),
    ("hu_depth", CONTEXT, {"guide_stem": False}, 67_569_473, sum(BLOCKS[1:]), None),
    pytest.param(
        "hu_depth", BILINEAR, {"encoder": "legacy_senet154"}, 157_101_425, 0, "87.025", marks=pytest.mark.long
    ),
]


def meta(name: str, resampling: object = BILINEAR, **options: object) -> Network:
    with torch.device("meta"):
        return create_network(name, resampling=resampling, **options)


@pytest.mark.parametrize(("name", "resampling", "options", "baseline", "more", "gflops"), COSTS)
def test_they_cost_what_was_counted_from_their_layers(name, resampling, options, baseline, more, gflops):
    costs = count_costs(meta(name, resampling, **options))
    assert (costs.parameters, costs.resampling_parameters) == (baseline + more, more)
    if gflops is not None:
        assert f"{costs.paper_gflops:.3f}" == gflops


def test_index_blocks_of_hu_are_those_of_four_maps_and_the_output_has_half_the_size():
    network = meta("hu_depth", CONTEXT)
    assert [sum(p.numel() for p in stage.parameters()) for stage in network.resampling.stages] == BLOCKS
    assert sum(p.numel() for p in network.encoder.parameters()) == 23_508_032
    assert run_on_meta(network.eval(), (1, 3, 228, 304)).shape == (1, 1, 114, 152)
    assert f"{count_costs(meta('hu_depth'), (3, 228, 304)).paper_gflops:.2f}" == "99.68"


@BOTH
@pytest.mark.parametrize("resampling", [{"name": "nearest", "pooling": "conv"}, LINEAR, {"name": "pixel_shuffle"}])
def test_a_stage_counts_at_each_of_its_places(name, resampling):
    from torch.utils.flop_counter import FlopCounterMode

    network = meta(name, resampling, **TINY[name]).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, 96, 64, device="meta"))
    assert count_costs(network, (3, 96, 64)).true_macs == counter.get_total_flops() / 2


def test_assembly_by_one_guide_counts_at_each_place():
    small = {"encoder": "test_efficientnet", "width": 8}
    several, single = (meta("upernet", {"name": "a2u", **STRIDES}, upsample_at=at, **small) for at in ("both", "fpn"))
    more = sum(4 * 9 * 8 * count * size**2 for count, size in ((3, 28), (2, 14), (1, 7)))
    assert count_costs(several).paper_macs == count_costs(single).paper_macs
    assert count_costs(several).assembly_macs - count_costs(single).assembly_macs == more


def with_maps_of_one(network: Network) -> list[int]:
    """Let every index network predict maps of 1; returns a list that counts how often one is asked."""
    asked = [0] * len(network.resampling.stages)
    for number, stage in enumerate(network.resampling.stages):

        def ones(module, inputs, output, number=number):
            asked[number] += 1
            return torch.full_like(output, 50.0)

        stage.network.register_forward_hook(ones)
    return asked


@BOTH
@pytest.mark.parametrize("at", ["fpn", "mff", "both"])
def test_with_maps_of_one_they_upsample_by_nearest_neighbours(name, at):
    torch.manual_seed(0)
    guided = create_network(name, resampling=LINEAR, upsample_at=at, **TINY[name]).eval()
    nearest = create_network(name, resampling={"name": "nearest", **STRIDES}, upsample_at=at, **TINY[name]).eval()
    nearest.load_state_dict({k: v for k, v in guided.state_dict().items() if not k.startswith("resampling.")})
    asked = with_maps_of_one(guided)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(guided(image), nearest(image))
    assert set(asked) == {1}  # once per image, for the pyramid and the fusion alike


def test_the_fusion_doubles_step_by_step():
    network = create_network("upernet", resampling=LINEAR, **TINY["upernet"])
    with_maps_of_one(network)
    _, levels = network.encoder(torch.randn(1, 3, 64, 96), network.resampling.stages)
    assert [tuple(level.size) for level in levels if level.stage is not None] == [(16, 24), (8, 12), (4, 6)]
    decoding = network.doubling.run(network.resampling, levels, F.interpolate)
    x = torch.randn(1, 8, 2, 3)
    torch.testing.assert_close(decoding.fuse(x, 2), F.interpolate(x, scale_factor=8.0))
    bilinear = create_network("upernet", resampling=BILINEAR, **TINY["upernet"])
    _, levels = bilinear.encoder(torch.randn(1, 3, 64, 96), bilinear.resampling.stages)
    once = bilinear.doubling.run(bilinear.resampling, levels, lambda x, size: F.interpolate(x, size, mode="bilinear"))
    torch.testing.assert_close(once.fuse(x, 2), F.interpolate(x, scale_factor=8.0, mode="bilinear"))


UNEQUAL = {info.name for info in list_resampling() if info.equal_widths} - {"indexnet"}
OPTIONS = {"dysample": {"groups": 1}, "naf": {"heads": 1, "embedding": 16}, "lda_aqu": {"reduction": 2, "groups": 1},
           "freqfusion": {"groups": 1}, "sapa_d": {"groups": 1}, "indexnet": {"family": "hin"}}  # fmt: skip
HALVE_THEMSELVES = ("deconv", "pixel_shuffle", "holistic_max_index")
QUICK = ("bilinear", "a2u", "semi_shift", "pixel_shuffle")
OPERATORS = [
    pytest.param(info.name, marks=() if info.name in QUICK else pytest.mark.long)
    for info in list_resampling()
    if info.name not in UNEQUAL
]


@BOTH
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_that_takes_any_width_trains_at_every_place(name, operator):
    torch.manual_seed(0)
    pooling = {} if operator in HALVE_THEMSELVES else STRIDES
    resampling = {"name": operator, **pooling, **OPTIONS.get(operator, {})}
    network = create_network(name, resampling=resampling, upsample_at="both", **TINY[name])
    image = torch.randn(2, 3, 64, 96)
    y = network(image)
    assert y.shape[2:] == (64 // network.reduction, 96 // network.reduction)
    y.square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


@pytest.mark.parametrize("pooling", ["indexed", "conv"])
def test_stages_can_pool_in_the_place_of_strides(pooling):
    network = create_network("upernet", resampling={**CONTEXT, "pooling": pooling}, **TINY["upernet"])
    y = network(torch.randn(2, 3, 64, 96))
    assert y.shape == (2, 5, 16, 24)
    y.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())
    plain = create_network("upernet", resampling=BILINEAR, **TINY["upernet"])
    assert network.encoder.state_dict().keys() == plain.encoder.state_dict().keys()


@BOTH
@pytest.mark.parametrize("at", ["fpn", "mff", pytest.param("both", marks=pytest.mark.long)])
def test_gradients_reach_every_index_block(name, at):
    network = create_network(name, resampling=CONTEXT, upsample_at=at, **TINY[name])
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    for stage in network.resampling.stages:
        assert all(p.grad.abs().max() > 0 for p in stage.parameters())


@BOTH
def test_any_size_gives_a_map_of_that_size_in_use(name):
    network = create_network(name, resampling=LINEAR, **TINY[name]).eval()
    with torch.no_grad():
        assert run_padded(network, torch.rand(1, 3, 75, 61)).shape == (1, network.out_channels, 75, 61)


def test_what_cannot_be_is_one_sentence():
    def refused(name: str, **options: object) -> str:
        with pytest.raises(UserError) as error:
            create_network(name, **options)
        return str(error.value)

    assert "upsample_at='bth' of upernet" in refused("upernet", upsample_at="bth")
    assert "Did you mean 'both'?" in refused("upernet", upsample_at="bth")
    assert "leaves the upsampling of resampling=carafe unused" in refused(
        "upernet", resampling=CARAFE, upsample_at="none"
    )
    assert "24 channels but the decoder map 512" in refused("upernet", resampling={"name": "fade", **STRIDES})
    assert "width" in refused("upernet", width=0)
    assert "divides the width" in refused("hu_depth", encoder={"name": "mobilenetv2_released", "width": 0.0625})


def test_places_have_weights_of_their_own_only_where_upsampling_has_weights():
    counts = {}
    for operator, options in (("carafe", {"pooling": "conv"}), ("indexnet", {"family": "hin"}), ("nearest", {})):
        one = create_resampling(operator, [6, 8], [[4], [4]], **options)
        two = create_resampling(operator, [6, 8], [[4], [4, 4]], **options)
        counts[operator] = [sum(p.numel() for p in each.parameters()) for each in (one, two)]
        assert [len(two.stages_at(k)) for k in (0, 1)] == [1, 2 if operator == "carafe" else 1]
    pooling = (9 * 36 + 6) + (9 * 64 + 8)
    assert counts["carafe"] == [pooling + 2 * (64 * 4 + 57_764), pooling + 3 * (64 * 4 + 57_764)]
    assert counts["indexnet"][0] == counts["indexnet"][1]
    with pytest.raises(UserError, match="stage 1"):
        create_resampling("max_unpool", [4, 8], [[4], [8, 4]])


def test_upernet_starts_as_its_public_code_does():
    torch.manual_seed(0)
    network = create_network("upernet", **{**TINY["upernet"], "width": 64})
    decoder = [network.pooling, network.lateral, network.smooth, network.fuse, network.head]
    layers = [layer for part in decoder for layer in part.modules()]
    convolutions = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() > 5000]
    assert len(convolutions) >= 8
    for layer in convolutions:
        assert layer.weight.std().item() == pytest.approx((2 / layer.weight[0].numel()) ** 0.5, rel=0.05)
    norms = [layer for layer in layers if isinstance(layer, torch.nn.BatchNorm2d)]
    assert all((layer.weight == 1).all() for layer in norms)
    assert all(torch.allclose(layer.bias, torch.tensor(1e-4)) for layer in norms)


def test_a_stem_that_guides_nothing_changes_nothing():
    torch.manual_seed(0)
    with_stem = create_network("hu_depth", resampling=BILINEAR, **TINY["hu_depth"]).eval()
    without = create_network("hu_depth", resampling=BILINEAR, guide_stem=False, **TINY["hu_depth"]).eval()
    without.load_state_dict(with_stem.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(with_stem(image), without(image))
