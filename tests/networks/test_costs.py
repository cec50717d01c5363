"""Counted costs against the papers' printed and derived figures, for inputs of 224x224."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from indexnet.core.errors import UserError
from indexnet.networks import Network, count_costs, create_network
from indexnet.resampling import Nearest, create_resampling
from indexnet.resampling.functional import crop_to

B11 = 3_753_259
# options, parameters (difference to B11 where it is a resampling's), printed GFLOPs, true multiply-adds in 1e9
INDEX_ROWS = [
    ("hin", False, False, 4_992, "4.09", 4.3901),
    ("hin", True, False, 262_304, "4.22", 4.5260),
    ("hin", True, True, 1_037_984, "4.61", 4.9463),
    ("o2o_modelwise", False, False, 16, "4.08", 4.3901),
    ("o2o_modelwise", True, False, 56, "4.08", 4.4026),
    ("o2o_modelwise", True, True, 152, "4.08", 4.4528),
    ("o2o_shared", False, False, 80, "4.08", 4.3901),
    ("o2o_shared", True, False, 280, "4.08", 4.4026),
    ("o2o_shared", True, True, 760, "4.08", 4.4528),
    ("o2o_unshared", False, False, 4_992, "4.09", 4.3901),
    ("o2o_unshared", True, False, 17_472, "4.10", 4.4026),
    ("o2o_unshared", True, True, 47_424, "4.15", 4.4528),
    ("m2o", False, False, 517_120, "4.34", 4.6619),
    ("m2o", True, False, 1_297_792, "4.73", 5.0822),
    ("m2o", True, True, 4_400_512, "6.30", 6.7633),
]
OTHER_ROWS = [
    ("matting_unet", {}, B11, "4.08", 4.3817),
    ("matting_unet", {"resampling": "holistic_max_index"}, B11, "4.08", 4.3817),
    ("matting_unet", {"resampling": "carafe"}, 4_062_047, "5.01", None),
    ("deep_matting", {}, 130_545_345, "32.34", None),
    # Printed 8.86M and 7.61: the exception that no construction reproduces.
    ("matting_unet", {"encoder": {"name": "mobilenetv2_released", "width": 1.4}}, 7_254_215, "7.67", 8.2391),
    # The released depthwise code, hidden width C.
    ("matting_unet", {"resampling": {"name": "indexnet", "family": "m2o", "expansion": 1}}, 5_953_515, "5.19", 5.5725),
]


# parameters and GFLOPs to the last digit of the derivation from the layer lists
MORE_ROWS = [
    ("dncnn", {}, 556_096, "25.8937"),
    ("dncnn_segnet", {}, 7_087_873, "18.1417"),
    ("dncnn_segnet", {"base_channels": 32}, 1_774_465, "4.5489"),
    ("dncnn_segnet", {"resampling": "carafe"}, 7_289_837, "19.1087"),
    ("dncnn_segnet", {"resampling": {"name": "carafe", "pooling": "avg"}}, 7_289_837, "19.1087"),
    ("dncnn_segnet", {"resampling": {"name": "carafe", "pooling": "encoder"}}, 7_289_837, "15.2327"),
    ("segnet", {}, 24_964_645, "24.7632"),
    ("segnet", {"resampling": "carafe"}, 25_347_673, "25.7507"),
    ("fastdepth", {"resampling": {"name": "nearest", "pooling": "encoder"}}, 3_960_930, "0.6861"),
    ("fastdepth", {"resampling": "nearest"}, 3_960_930, "1.0129"),
    ("fastdepth", {"resampling": {"name": "carafe", "pooling": "encoder"}}, 4_313_238, "1.6288"),
    ("fastdepth", {"resampling": "carafe"}, 4_313_238, "1.9556"),
]
# GFLOPs of linear, nonlinear and nonlinear with context
INDEX_GFLOPS = {
    "dncnn_segnet": {
        "hin": "18.1627 19.3006 22.7459",
        "o2o_modelwise": "18.1420 18.1423 18.1438",
        "o2o_shared": "18.1420 18.1423 18.1438",
        "o2o_unshared": "18.1627 18.1941 18.3197",
        "m2o": "20.4386 23.8839 37.6652",
    },
    "segnet": {
        "hin": "24.7860 26.4015 31.2824",
        "o2o_modelwise": "24.7634 24.7638 24.7653",
        "o2o_shared": "24.7634 24.7638 24.7653",
        "o2o_unshared": "24.7860 24.8202 24.9570",
        "m2o": "28.0171 32.8979 52.4214",
    },
    "fastdepth": {
        "hin": "1.0301 2.6485 7.5293",
        "o2o_modelwise": "1.0132 1.0135 1.0150",
        "o2o_shared": "1.0132 1.0135 1.0150",
        "o2o_unshared": "1.0301 1.0559 1.1591",
        "m2o": "4.2668 9.1477 28.6711",
    },
}
VARIANTS = ((False, False), (True, False), (True, True))


def meta(name: str, **options: object) -> Network:
    with torch.device("meta"):
        return create_network(name, **options)


@pytest.mark.parametrize(("family", "nonlinear", "context", "more", "gflops", "gmacs"), INDEX_ROWS)
def test_index_rows_cost_what_is_printed(family, nonlinear, context, more, gflops, gmacs):
    resampling = {"name": "indexnet", "family": family, "nonlinear": nonlinear, "context": context}
    costs = count_costs(meta("matting_unet", resampling=resampling), (4, 224, 224))
    assert costs.parameters == B11 + more
    assert costs.resampling_parameters == more
    assert f"{costs.paper_gflops:.2f}" == gflops
    assert costs.true_gmacs == pytest.approx(gmacs, abs=6e-5)


@pytest.mark.parametrize(("name", "options", "parameters", "gflops", "gmacs"), OTHER_ROWS)
def test_other_rows_cost_what_is_printed(name, options, parameters, gflops, gmacs):
    costs = count_costs(meta(name, **options))
    assert costs.parameters == parameters
    assert f"{costs.paper_gflops:.2f}" == gflops
    if gmacs is not None:
        assert costs.true_gmacs == pytest.approx(gmacs, abs=6e-5)


@pytest.mark.parametrize(("name", "options", "parameters", "gflops"), MORE_ROWS)
def test_layer_lists_cost_what_was_derived_from_the_tables(name, options, parameters, gflops):
    costs = count_costs(meta(name, **options))
    assert costs.parameters == parameters
    assert f"{costs.paper_gflops:.4f}" == gflops


@pytest.mark.parametrize("family", INDEX_GFLOPS["segnet"])
@pytest.mark.parametrize("name", INDEX_GFLOPS)
def test_index_networks_cost_what_was_derived(name, family):
    """Their parameters by the papers' formulas: tests/resampling/test_indexnet.py."""
    baseline = next(parameters for row, options, parameters, _ in MORE_ROWS if row == name)
    for (nonlinear, context), gflops in zip(VARIANTS, INDEX_GFLOPS[name][family].split(), strict=True):
        resampling = {"name": "indexnet", "family": family, "nonlinear": nonlinear, "context": context}
        costs = count_costs(meta(name, resampling=resampling))
        assert costs.parameters - baseline == costs.resampling_parameters
        assert f"{costs.paper_gflops:.4f}" == gflops


def test_strides_of_the_encoder_cost_what_torch_counts_also_at_odd_sizes():
    from torch.utils.flop_counter import FlopCounterMode

    for name in ("dncnn_segnet", "fastdepth"):
        network = meta(name, resampling={"name": "nearest", "pooling": "encoder"}).eval()
        size = (network.in_channels, 77, 94)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, *size, device="meta"))
        costs = count_costs(network, size)
        assert costs.paper_macs == costs.true_macs == counter.get_total_flops() / 2


def test_a_network_without_stages_costs_its_convolutions():
    costs = count_costs(meta("dncnn", width=8, depth=3), (1, 10, 12))
    assert costs.resampling_parameters == 0
    assert costs.paper_macs == costs.true_macs == 9 * (8 + 64 + 8) * 120


def test_true_count_is_what_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    network = meta("matting_unet", resampling={"name": "indexnet", "family": "o2o_shared"}).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 4, 64, 96, device="meta"))
    assert count_costs(network, (4, 64, 96)).true_macs == counter.get_total_flops() / 2


def test_counting_leaves_a_real_network_as_it_was():
    network = create_network("autoencoder", resampling={"name": "indexnet", "family": "o2o_modelwise"}, widths=[4, 6])
    network.head.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    twice = [count_costs(network, (1, 16, 16)) for _ in range(2)]
    assert twice[0] == twice[1]
    assert network.training
    assert not network.head.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    with torch.no_grad():
        assert network(torch.rand(1, 1, 16, 16)).device.type == "cpu"


def test_costs_count_linear_layers_and_frozen_parameters():
    class Tiny(Network):
        encoder = None

        def __init__(self) -> None:
            super().__init__()
            self.in_channels = 2
            self.resampling = create_resampling("nearest", [2], pooling="avg")
            self.linear = nn.Linear(2, 3, bias=False)

        def forward(self, x):
            return self.linear(self.stage(0).down(x).features.flatten(2).transpose(1, 2))

    network = Tiny()
    costs = count_costs(network, (2, 8, 8))
    assert costs.true_macs == 6 * 16
    assert costs.paper_macs == 3 * 16 * 16  # numbers of the output times tokens, as the papers' tool counts
    network.linear.weight.requires_grad_(False)
    assert count_costs(network, (2, 8, 8)).parameters == 0


@pytest.mark.parametrize("name", ["autoencoder", "matting_unet"])  # they call up and up_and_skip
def test_an_operator_that_does_not_double_is_refused_by_name(name, monkeypatch):
    monkeypatch.setattr(Nearest, "up", lambda self, x, guide, size: crop_to(F.interpolate(x, scale_factor=4.0), size))
    with pytest.raises(UserError, match=r"^resampling 'nearest': a map of \d+x\d+ cannot be cut to \d+x\d+: up"):
        count_costs(meta(name, resampling={"name": "nearest"}))
