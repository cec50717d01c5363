"""The portrait matting network: printed costs, soft trimaps, modulation, every way of sharing, what it refuses."""

from __future__ import annotations

import pytest
import torch

from indexnet.core.errors import UserError
from indexnet.networks import count_costs, create_network
from indexnet.networks.portrait_parts import FeatureModulation, trimap_prior

M2O = {"name": "indexnet", "family": "m2o", "nonlinear": True, "context": True}
NARROW = {"name": "mobilenetv2_released", "width": 0.25}
CASCADE = {"sharing": "cascade", "resampling": M2O}
CONCAT = {"prior": "soft3", "prior_fusion": "concat"}
PYRAMID = {"segmentation": "pspnet"}
# thesis, Tables 6.3, 6.4 and 6.7: options, parameters, GFLOPs to four digits, both as printed
COSTS = [
    ({"sharing": "none", "resampling": "none"}, 5_811_427, "4.6768", None),
    ({"sharing": "none", "resampling": "none", **PYRAMID}, 5_239_299, "0.9935", None),
    ({"sharing": "none"}, 5_811_427, "4.9752", None),
    ({"sharing": "none", **PYRAMID}, 5_239_299, "1.2919", None),
    (CASCADE, 13_965_198, "10.9756", ("13.97", "10.98")),
    ({**CASCADE, "prior": "soft3"}, 13_965_774, "11.0025", ("13.97", None)),
    ({**CASCADE, **PYRAMID}, 13_393_070, "7.2923", ("13.39", "7.29")),
    ({**CASCADE, "prior": "trimap", "encoder": "mobilenetv2_released"}, 8_153_771, "6.2988", ("8.15", "6.30")),
    ({**CASCADE, "prior": "unknown", "encoder": "mobilenetv2_released"}, 8_153_771, "6.2988", ("8.15", "6.30")),
    ({"sharing": "late"}, 6_743_838, "6.7695", ("6.74", "6.77")),
    ({"sharing": "fusion"}, 6_960_862, "6.8099", ("6.96", "6.81")),
    ({}, 5_900_830, "6.5334", ("5.90", "6.53")),
    ({"modulation": "shared"}, 5_956_483, "6.5335", ("5.96", None)),  # printed 6.54: the exception
    ({**PYRAMID, **CONCAT}, 5_330_502, "2.8554", ("5.33", "2.86")),
    (PYRAMID, 5_328_702, "2.8501", ("5.33", None)),
    ({"prior_fusion": "concat"}, 5_901_430, "6.5352", None),
]


@pytest.mark.parametrize(("options", "parameters", "gflops", "printed"), COSTS)
def test_costs_are_those_printed(options, parameters, gflops, printed):
    with torch.device("meta"):
        network = create_network("pspm", **options)
    costs = count_costs(network)
    assert costs.parameters == parameters
    assert f"{costs.paper_gflops:.4f}" == gflops
    if printed:
        assert f"{parameters / 1e6:.2f}" == printed[0]
        assert printed[1] is None or f"{costs.paper_gflops:.2f}" == printed[1]


def test_priors_of_sure_scores_are_one_a_half_and_zero():
    scores = torch.full((3, 3, 1, 1), -200.0)
    for image in range(3):
        scores[image, image] = 200.0
    for prior in ("soft1", "hard"):
        assert trimap_prior(scores, prior).flatten().tolist() == [1.0, 0.0, 0.5]
    assert torch.equal(trimap_prior(scores, "soft3")[:, :, 0, 0], torch.eye(3))
    unsure = torch.zeros(1, 3, 1, 1, requires_grad=True)
    assert trimap_prior(unsure, "soft1").item() == pytest.approx(0.5)
    assert not trimap_prior(unsure, "hard").requires_grad


def test_modulation_with_equal_halves_halves_the_map():
    modulation = FeatureModulation(16)
    torch.nn.init.zeros_(modulation.weigh[2].weight)
    torch.nn.init.zeros_(modulation.weigh[2].bias)
    first, second = modulation(torch.randn(2, 16, 3, 5))
    assert torch.equal(first, torch.full((2, 16, 1, 1), 0.5))
    assert torch.equal(second, first)


@pytest.mark.parametrize(
    "options",
    [
        {"sharing": "none", "resampling": "none"},
        {"sharing": "cascade", "resampling": "max_unpool"},
        {"sharing": "late", "modulation": "per_task"},
        {"sharing": "fusion", "segmentation": "pspnet", "prior": "soft3"},
        {"prior_fusion": "multiply", "modulation": "per_task"},
        {"prior_fusion": "concat", "modulation": "shared"},
    ],
)
def test_every_way_of_sharing_trains_all_its_weights(options):
    torch.manual_seed(0)
    network = create_network("pspm", encoder=NARROW, **options)
    y = network(torch.randn(2, 3, 64, 32))
    assert y.shape == (2, 4, 64, 32)
    y.square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []
    encoders = sum(p.numel() for p in network.encoder_parameters())
    alone = sum(p.numel() for p in network.encoder.parameters())
    assert encoders > 2 * alone if options.get("sharing") == "cascade" else encoders == alone
    assert len(set(network.state_dict())) == len(list(network.named_parameters())) + len(list(network.named_buffers()))


def test_only_the_loss_joins_late_decoders():
    """The gradient of alpha does not reach the decoder to the trimap, unless its trimap is fused."""
    for sharing, reaches in (("late", False), ("fusion", True), ("attention", True)):
        network = create_network("pspm", encoder=NARROW, sharing=sharing)
        network(torch.randn(2, 3, 32, 32))[:, :1].square().mean().backward()
        assert any(p.grad.any() for p in network.segmentation.parameters()) == reaches


def test_a_given_trimap_and_an_unknown_one_go_to_the_matting_network():
    torch.manual_seed(0)
    options = {"sharing": "cascade", "resampling": "max_unpool", "encoder": NARROW}
    given = create_network("pspm", prior="trimap", **options).eval()
    unknown = create_network("pspm", prior="unknown", **options).eval()
    unknown.load_state_dict(given.state_dict())
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(unknown(image), given(torch.cat([image, torch.full((1, 1, 32, 32), 128 / 255)], 1)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sharing": "early"}, "network.sharing='early' of pspm must be one of none, cascade, late"),
        ({"prior": "trimap"}, "is for network.sharing=cascade"),
        ({"sharing": "late", "prior": "hard"}, "does nothing with network.sharing=late"),
        ({"sharing": "none", "prior": "soft3"}, "give soft1"),
        ({"sharing": "late", "prior_fusion": "multiply"}, "is for network.sharing=attention"),
        ({"prior": "soft3"}, "give network.prior_fusion=concat"),
        ({"sharing": "cascade", "modulation": "shared"}, "is for shared encoders"),
        ({"sharing": "cascade", "prior": "unknown", "segmentation": "pspnet"}, "does nothing with network.prior"),
        ({"resampling": "none"}, "give an operator, such as resampling=max_unpool"),
        ({"encoder": "vgg11_bn"}, "vgg11_bn"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(options, words):
    with pytest.raises(UserError) as caught, torch.device("meta"):
        create_network("pspm", **options)
    assert words in str(caught.value)


def test_one_image_cannot_be_trained_on():
    for segmentation in ("deeplabv3plus", "pspnet"):
        network = create_network("pspm", encoder=NARROW, segmentation=segmentation)
        with pytest.raises(UserError, match="batch of one image"):
            network(torch.randn(1, 3, 32, 32))
