"""Whole networks: shapes, gradients, options, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from indexnet.core.errors import UserError
from indexnet.networks import Network, create_network, get_network, list_networks, without_pretrained
from indexnet.networks.layers import Head, initialize_weights, initialize_xavier, run_on_meta
from indexnet.resampling import list_resampling, watch_stages
from network_support import NARROW, NARROW_OPTIONS, OPERATORS, SMALL, STRIDED, TINY

# FastDepth's decoder is half as wide as its encoder: of what needs equal widths only index maps can be averaged.
UNEQUAL = {info.name for info in list_resampling() if info.equal_widths} - {"indexnet"}
FITTING = [(name, operator) for name in ("matting_unet", "autoencoder", "dncnn_segnet", "fastdepth", "pspm")
           for operator in OPERATORS if name != "fastdepth" or operator not in UNEQUAL]  # fmt: skip
FITTING += [("deep_matting", "max_unpool"), ("segnet", "max_unpool")]  # further ones without numbers, below


@pytest.mark.parametrize("initialize", [initialize_weights, initialize_xavier])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_last_kernel_of_one_channel_has_a_sum_that_is_not_negative(initialize, channels):
    turned = []
    for seed in range(12):
        head = Head(2, channels, 3)
        torch.manual_seed(seed)
        initialize(nn.Sequential(*head))  # as drawn
        drawn = head[1].weight.detach().clone()
        torch.manual_seed(seed)
        initialize(head)
        turned.append(channels == 1 and bool(drawn.sum() < 0))
        assert torch.equal(head[1].weight, -drawn if turned[-1] else drawn)
    assert set(turned) == ({False, True} if channels == 1 else {False})


@pytest.mark.parametrize("name", ["matting_unet", "a2u_matting", "deeplabv3plus", "refinenet", "pspm"])
def test_networks_with_one_channel_end_with_such_a_head(name):
    heads = [module for module in create_network(name, **SMALL.get(name, {})).modules() if isinstance(module, Head)]
    assert heads
    assert all(head[1].weight.shape[0] == 1 and head[1].weight.sum() >= 0 for head in heads)


@pytest.mark.parametrize("info", list_networks(), ids=lambda info: info.name)
def test_every_network_has_facts(info):
    assert get_network(info.name).info is info
    assert info.title
    assert info.paper
    assert info.description
    assert info.tasks


@pytest.mark.parametrize(("name", "operator"), FITTING)
def test_every_network_trains_over_every_operator(name, operator):
    torch.manual_seed(0)
    resampling = {"name": operator, **NARROW_OPTIONS.get(operator, {})}
    network = create_network(name, resampling=resampling, **SMALL[name])
    assert isinstance(network, Network)
    size = (24, 16) if name in ("autoencoder", "dncnn_segnet") else (64, 32)  # three halvings, five
    y = network(torch.randn(2, network.in_channels, *size))
    assert y.shape == (2, network.out_channels, *size)
    y.square().mean().backward()
    without = [key for key, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


HALVED = [("dncnn_segnet", operator) for operator in ("a2u", "fade", "sapa_b", "indexnet", "freqfusion")]


@pytest.mark.parametrize(("name", "operator"), [*HALVED, ("fastdepth", "a2u"), ("fastdepth", "semi_shift")])
def test_networks_that_stride_are_guided_by_the_map_before(name, operator):
    resampling = {"name": operator, "pooling": "encoder", **NARROW_OPTIONS.get(operator, {})}
    network = create_network(name, resampling=resampling, **SMALL[name])
    with watch_stages(network.resampling) as seen:
        y = network(torch.randn(2, network.in_channels, 64, 32))
    assert y.shape == (2, network.out_channels, 64, 32)
    y.square().mean().backward()
    assert all(p.grad is not None for p in network.resampling.parameters())
    for stage, (down,) in zip(network.resampling.stages, seen, strict=True):
        assert down.skip.shape[1:] == (stage.channels, *down.size)
        assert down.guide is not None


@pytest.mark.parametrize(
    "name",
    # the widths, and so the stages, are those of segnet
    ["segnet", pytest.param("deep_matting", marks=[pytest.mark.long, pytest.mark.nightly])],
)
@pytest.mark.parametrize("operator", OPERATORS)
def test_wide_networks_fit_every_operator(name, operator):
    with torch.device("meta"):
        network = create_network(name, resampling=operator, encoder="vgg16_bn").eval()
    assert [stage.channels for stage in network.resampling.stages] == [64, 128, 256, 512, 512]
    assert run_on_meta(network, (2, network.in_channels, 64, 32)).shape == (2, network.out_channels, 64, 32)


@pytest.mark.parametrize("fusion", ["concat", "skip", "none"])
@pytest.mark.parametrize("context", ["aspp", "none"])
@pytest.mark.parametrize("output_stride", [32, 16])
def test_every_row_of_the_design_table_is_a_configuration(fusion, context, output_stride):
    options = {"fusion": fusion, "context": context, "output_stride": output_stride, "decoder_kernel": 3}
    network = create_network("matting_unet", encoder=NARROW, out_channels=2, **options)
    assert network.size_multiple == output_stride
    assert len(network.resampling.stages) == {32: 5, 16: 4}[output_stride]
    x = torch.randn(2, 4, 32, 48)
    y = network(x)
    assert y.shape == (2, 2, 32, 48)
    decoder_inputs = [layer[0].in_channels for layer in network.decoder]
    assert decoder_inputs == [(2 if fusion == "concat" else 1) * c for c in (8, 4, 6, 8, 16, 24, 40)]


def test_fusion_sees_what_the_encoder_left():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 32, 32)
    outputs = {}
    for fusion in ("skip", "none"):
        torch.manual_seed(1)
        network = create_network("matting_unet", encoder=NARROW, fusion=fusion, context="none").eval()
        with torch.no_grad():
            outputs[fusion] = network(x)
    assert not torch.allclose(outputs["skip"], outputs["none"])


def test_the_output_is_not_clamped():
    torch.manual_seed(0)
    network = create_network("matting_unet", encoder=NARROW).eval()
    with torch.no_grad():
        network.head[1].weight.fill_(-1.0)
        assert network(torch.randn(1, 4, 32, 32)).min() < 0


def test_a_batch_of_one_is_refused_in_training_with_aspp_only():
    x = torch.randn(1, 4, 64, 64)
    network = create_network("matting_unet", encoder=NARROW)
    with pytest.raises(
        UserError,
        match=r"one image per device and step.*training.batch_size.*trainer.devices or trainer.accumulate_grad_batches",
    ):
        network(x)
    assert network.eval()(x).shape == (1, 1, 64, 64)
    assert create_network("matting_unet", encoder=NARROW, context="none")(x).shape == (1, 1, 64, 64)


def test_initialisation_is_the_released_one():
    torch.manual_seed(0)
    network = create_network("matting_unet")
    first = network.decoder[6][0].weight  # 96 outputs, 5x5
    assert first.std().item() == pytest.approx((2 / (25 * 96)) ** 0.5, rel=0.01)
    depthwise = network.encoder.units[6][1].conv[3].weight  # 960 outputs, 3x3: groups are ignored
    assert depthwise.std().item() == pytest.approx((2 / (9 * 960)) ** 0.5, rel=0.05)
    norm = network.encoder.units[0][1]
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()


def test_parameter_groups_split_encoder_and_rest():
    network = create_network("matting_unet", resampling={"name": "indexnet", "family": "m2o", "expansion": 1})
    encoder = sum(p.numel() for p in network.encoder_parameters())
    assert encoder == 1_812_000
    assert sum(p.numel() for p in network.parameters()) - encoder == 4_141_515
    assert list(create_network("autoencoder", widths=[4]).encoder_parameters()) == []


def test_same_options_and_seed_give_the_same_network():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create_network("matting_unet", encoder=NARROW, resampling="indexnet").state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("matting_unett", {}, "unknown network 'matting_unett'.*matting_unet"),
        ("matting_unet", {"fusionn": "skip"}, "no option 'fusionn'.*'fusion'"),
        ("matting_unet", {"fusion": "add"}, "'concat', 'skip' or 'none'"),
        ("matting_unet", {"context": "ppm"}, "'aspp' or 'none'"),
        ("matting_unet", {"decoder_kernel": 4}, "decoder_kernel.*odd"),
        ("matting_unet", {"output_stride": 8}, "output_stride.*32 or 16"),
        ("matting_unet", {"encoder": {"width": 1.0}}, "encoder must be a name or a mapping"),
        ("matting_unet", {"encoder": {"name": "mobilenetv2_released", "widht": 1.0}}, "'widht'.*'width'"),
        ("matting_unet", {"encoder": {"name": "mobilenetv2_released", "in_channels": 3}}, "no option 'in_channels'"),
        ("matting_unet", {"resampling": 3}, "resampling must be a name or a mapping"),
        ("matting_unet", {"resampling": "max_unpol", "encoder": NARROW}, "'max_unpool'"),
        ("autoencoder", {"widths": []}, "widths of autoencoder"),
        ("dncnn_segnet", {"base_channels": 0}, "base_channels of dncnn_segnet"),
        ("autoencoder", {"resampling": "none"}, "'none' is for networks that halve nothing, such as dncnn"),
        ("dncnn", {"resampling": "max_unpool"}, "dncnn halves nothing and cannot take resampling=max_unpool; .*none"),
        ("dncnn", {"resampling": {"name": "indexnet"}}, "cannot take resampling=indexnet"),
        ("dncnn", {"resampling": {"name": "none", "family": "hin"}}, "'none' has no option 'family'"),
        ("dncnn", {"depth": 1}, "depth of dncnn must be at least 2"),
        ("dncnn", {"encoder": "resnet34"}, "no option 'encoder'"),
        ("deep_matting", {"encoder": NARROW}, r"'mobilenetv2_released' has others between.*vgg16_bn"),
        ("segnet", {"classes": 0, "encoder": TINY}, "classes of segnet must be at least 1"),
        ("segnet", {"encoder": NARROW}, "'mobilenetv2_released' has layers after it; .*resnet34"),
        ("segnet", {"encoder": TINY, "resampling": STRIDED}, "network=segnet cannot take .*max, avg or conv"),
        (
            "matting_unet",
            {"encoder": NARROW, "resampling": STRIDED},
            "network=matting_unet cannot take resampling.pool",
        ),
        ("fastdepth", {"resampling": "max_unpool"}, "stage 1: the encoder map has 128 channels but the decoder map 64"),
        ("fastdepth", {"resampling": {"name": "max_unpool", "pooling": "encoder"}}, "no option 'pooling'"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        create_network(name, **options)


def test_without_pretrained_touches_nothing_else():
    options = {"encoder": {"name": "resnet34", "pretrained": True, "freeze_bn": True}, "fusion": "none"}
    assert without_pretrained(options) == {
        "encoder": {"name": "resnet34", "pretrained": False, "freeze_bn": True},
        "fusion": "none",
    }
    assert options["encoder"]["pretrained"] is True
    assert without_pretrained({"encoder": "resnet34"}) == {"encoder": "resnet34"}


# --- denoising, segmentation, depth ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "resampling"), [("dncnn", "none"), ("dncnn_segnet", "max_unpool"), ("dncnn_segnet", "indexnet")]
)
def test_a_residual_that_is_zero_gives_exactly_the_input(name, resampling):
    network = create_network(name, resampling=resampling).eval()
    torch.nn.init.zeros_(network.head.weight)
    if network.head.bias is not None:
        torch.nn.init.zeros_(network.head.bias)
    x = torch.randn(2, 1, 40, 33)
    with torch.no_grad():
        assert torch.equal(network(x), x)
        plain = create_network(name, resampling=resampling, residual=False).eval()
        plain.load_state_dict(network.state_dict())
        assert plain(x).eq(0).all()


def test_dncnn_is_its_layer_list():
    network = create_network("dncnn", in_channels=3)
    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [tuple(c.weight.shape[:2]) for c in convolutions] == [(64, 3), *[(64, 64)] * 15, (3, 64)]
    assert [c.bias is not None for c in convolutions] == [True] + [False] * 16
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules()) == 15
    assert len(network.resampling.stages) == 0
    with watch_stages(network.resampling) as seen:
        assert network(torch.randn(1, 3, 9, 1)).shape == (1, 3, 9, 1)
    assert seen == []
    network(torch.randn(2, 3, 16, 16)).mean().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert list(network.encoder_parameters()) == []
    assert get_network("dncnn")(resampling={"name": "none"}).out_channels == 1


def test_segnet_has_a_logit_per_class_and_a_pretrained_part():
    network = create_network("segnet", classes=11, encoder={"name": TINY, "freeze_bn": True})
    assert network.out_channels == 11
    assert network.encoder.freeze_bn
    own = {id(p) for p in network.encoder_parameters()}
    assert own == {id(p) for p in network.encoder.parameters()}
    assert [len(layers) for layers in network.decoder] == [2, 2, 3, 3, 3]
    resnet = create_network("segnet", classes=2, encoder="test_resnet").eval()
    with torch.no_grad():
        assert resnet(torch.randn(1, 3, 37, 50)).shape == (1, 2, 37, 50)


def test_fastdepth_is_never_negative_and_takes_other_encoders():
    network = create_network("fastdepth", **SMALL["fastdepth"]).eval()
    with torch.no_grad():
        assert network(torch.randn(2, 3, 64, 64)).min() >= 0
        for encoder in ("test_resnet", NARROW):
            other = create_network("fastdepth", encoder=encoder, resampling="indexnet").eval()
            assert other(torch.randn(1, 3, 45, 32)).shape == (1, 1, 45, 32)


def test_index_maps_are_as_wide_as_the_decoder_of_fastdepth():
    widths = (4, 8, 16, 32, 64)
    for family in ("m2o", "o2o_shared", "hin"):
        network = create_network("fastdepth", resampling={"name": "indexnet", "family": family}, **SMALL["fastdepth"])
        network.eval()
        with torch.no_grad(), watch_stages(network.resampling) as seen:
            network(torch.randn(1, 3, 64, 64))
        maps = [network.stage(n).index_maps(results[0].guide) for n, results in enumerate(seen)]
        assert [m.shape[1] for m in maps] == ([1] * 5 if family == "hin" else list(widths))
        assert all(m.min() > 0 and m.max() < 1 for m in maps)
    assert network.resampling.options["reduction"] == "mean"


@pytest.mark.parametrize("name", ["dncnn_segnet", "fastdepth"])
@pytest.mark.parametrize("operator", ["nearest", "bilinear", "carafe"])
def test_encoders_can_stride_by_themselves(name, operator):
    torch.manual_seed(0)
    pooled = create_network(name, resampling={"name": operator, "pooling": "max"}, **SMALL[name])
    network = create_network(name, resampling={"name": operator, "pooling": "encoder"}, **SMALL[name])
    assert network.state_dict().keys() == pooled.state_dict().keys()
    assert all(stage.strided for stage in network.resampling.stages)
    for size in ((32, 32), (37, 50), (17, 19)):
        with watch_stages(network.resampling) as seen:
            y = network(torch.randn(2, network.in_channels, *size))
        assert y.shape == (2, network.out_channels, *size)
        expected = size
        for results in seen:
            assert results[0].size == expected
            expected = ((expected[0] + 1) // 2, (expected[1] + 1) // 2)
            assert results[0].features.shape[2:] == expected
    y.mean().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "operator"),
    [(name, operator) for name in ("dncnn_segnet", "fastdepth") for operator in ("carafe", "indexnet")]
    + [
        (name, operator)
        for name in ("matting_unet", "autoencoder")
        for operator in ("max_unpool", "carafe", "indexnet")
    ]
    + [("segnet", "max_unpool"), ("segnet", "holistic_max_index")],
)
@pytest.mark.parametrize("size", [(37, 50), (17, 17)], ids=str)
def test_any_size_comes_back(name, operator, size):
    network = create_network(name, resampling=operator, **SMALL[name]).eval()
    assert network.size_multiple == (32 if name in ("matting_unet", "deep_matting") else 1)
    with torch.no_grad():
        assert network(torch.randn(1, network.in_channels, *size)).shape == (1, network.out_channels, *size)


@pytest.mark.long
@pytest.mark.parametrize("operator", ["max_unpool", "indexnet"])
def test_export_at_dynamic_sizes(operator):
    torch.manual_seed(0)
    network = create_network("matting_unet", encoder=NARROW, resampling=operator).eval()
    sizes = {2: 32 * torch.export.Dim("h", min=1, max=64), 3: 32 * torch.export.Dim("w", min=1, max=64)}
    exported = torch.export.export(network, (torch.randn(1, 4, 64, 96),), dynamic_shapes=(sizes,)).module()
    x = torch.randn(1, 4, 96, 160)
    with torch.no_grad():
        torch.testing.assert_close(exported(x), network(x), atol=1e-5, rtol=1e-5)
