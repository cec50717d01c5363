"""Index networks against the papers' literal form, the printed parameter counts and the column layout."""

from __future__ import annotations

import json
from itertools import product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from indexnet.benchmarks.base import BenchOptions
from indexnet.benchmarks.literal import PAIRS, LiteralStage
from indexnet.benchmarks.stages import measure
from indexnet.core.errors import UserError
from indexnet.resampling import create_resampling, fuse_columns, split_columns
from indexnet.resampling.functional import NORMALIZATIONS, normalise_indices, unpack_cells
from reference import literal_macs

FAMILIES = ("hin", "o2o_modelwise", "o2o_shared", "o2o_unshared", "m2o")
# (nonlinear, context, expansion): a linear network has no hidden layer to expand.
DESIGNS = [(False, False, 2), (False, True, 2), *product((True,), (False, True), (1, 2))]
CASES = [
    (family, *design, pair)
    for family, design, pair in product(FAMILIES, DESIGNS, PAIRS)
    if not (family == "hin" and design[2] == 1)
]


def pair_of(family, nonlinear, context, expansion=2, normalization=PAIRS[0], skip="indexed", channels=3):
    """The literal stage and the shipped one with its weights."""
    torch.manual_seed(0)
    literal = LiteralStage(channels, family, nonlinear, context, expansion, normalization, skip)
    for module in literal.modules():
        if isinstance(module, nn.BatchNorm2d):  # far from the identity, different in each column
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.uniform_(module.bias, -1.0, 1.0)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    resampling = create_resampling(
        "indexnet",
        [channels],
        family=family,
        nonlinear=nonlinear,
        context=context,
        expansion=expansion,
        normalization=normalization,
        skip=skip,
    )
    resampling.stages[0].index_network.load_state_dict(fuse_columns(literal.state_dict()))
    return literal, resampling


def run(stage, x):
    features, skip, guide, size = stage.down(x)
    return features, skip, stage.up(torch.tanh(features), guide, size)


def assert_same(literal, resampling, x, tolerance):
    stage = resampling.stages[0]
    x, y = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, actual = literal(x, torch.tanh), run(stage, y)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    torch.manual_seed(1)
    cotangents = [torch.randn_like(t) for t in expected]
    torch.autograd.backward(expected, cotangents)
    torch.autograd.backward(actual, cotangents)
    torch.testing.assert_close(y.grad, x.grad, rtol=tolerance, atol=tolerance)
    gradients = fuse_columns({name: p.grad for name, p in literal.named_parameters()})
    network = stage.index_network
    assert set(gradients) == {name for name, _ in network.named_parameters()}
    for name, p in network.named_parameters():
        scale = gradients[name].abs().max().clamp(min=1)  # sums over all positions and channels
        torch.testing.assert_close(p.grad / scale, gradients[name] / scale, rtol=tolerance, atol=tolerance)
    expected_state = fuse_columns(literal.state_dict())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected_state[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_equals_the_literal_form(case, mode):
    literal, resampling = pair_of(*case)
    literal, resampling = literal.double(), resampling.double()
    literal.train(mode == "train"), resampling.train(mode == "train")
    assert_same(literal, resampling, torch.randn(2, 3, 6, 8, dtype=torch.float64), 1e-10)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("design", DESIGNS[::-1], ids=str)
def test_equals_the_literal_form_in_single_precision(family, design):
    literal, resampling = pair_of(family, *design)
    assert_same(literal, resampling, torch.randn(2, 3, 6, 8), 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("skip", ["indexed", "raw"])
@pytest.mark.parametrize("size", [(7, 8), (4, 5), (3, 3)], ids=str)
def test_odd_sizes_equal_the_literal_form(family, skip, size):
    literal, resampling = pair_of(family, True, True, skip=skip)
    assert_same(literal.double(), resampling.double(), torch.randn(2, 3, *size, dtype=torch.float64), 1e-10)


def test_the_normalizations_are_the_papers():
    assert NORMALIZATIONS == PAIRS


def test_encoder_indices_of_the_default_cannot_reach_a_maximum():
    """Softmax of a sigmoid lies in [1 / (1 + 3e), e / (e + 3)]."""
    logits = torch.full((1, 1, 4, 1, 1), -100.0, dtype=torch.float64)
    logits[0, 0, 0] = 100
    encoder, decoder = normalise_indices(logits)
    e = torch.e
    assert encoder[0, 0, 0].item() == pytest.approx(e / (e + 3))
    assert normalise_indices(-logits)[0].min().item() == pytest.approx(1 / (1 + 3 * e))
    assert decoder.flatten().tolist() == pytest.approx([1, 0, 0, 0], abs=1e-12)


FORMULAS = {  # parameters of one stage: linear, linear + context, nonlinear, nonlinear + context
    "hin": lambda c: (16 * c, 64 * c, 8 * c**2 + 12 * c, 32 * c**2 + 12 * c),
    "o2o_modelwise": lambda c: (16, 64, 56, 152),
    "o2o_shared": lambda c: (16, 64, 56, 152),
    "o2o_unshared": lambda c: (16 * c, 64 * c, 56 * c, 152 * c),
    "m2o": lambda c: (16 * c**2, 64 * c**2, 40 * c**2 + 16 * c, 136 * c**2 + 16 * c),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("channels", [1, 5, 32])
def test_parameter_counts_are_the_printed_formulas(family, channels):
    with torch.device("meta"):
        counts = tuple(
            sum(p.numel() for p in create_resampling("indexnet", [channels], family=family, **options).parameters())
            for options in ({"nonlinear": False, "context": False}, {"nonlinear": False}, {"context": False}, {})
        )
    assert counts == FORMULAS[family](channels)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("design", DESIGNS, ids=str)
@pytest.mark.parametrize("size", [(8, 6), (7, 5)], ids=str)
def test_macs(family, design, size):
    literal, resampling = pair_of(family, *design)
    stage, x = resampling.stages[0], torch.randn(1, 3, *size)
    assert stage.paper_macs(*size) == literal_macs(literal, x)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        stage.down(x)
    assert 2 * stage.true_macs(*size) == counter.get_total_flops()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("design", DESIGNS, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_columns_round_trip(family, design, channels):
    literal, resampling = pair_of(family, *design, channels=channels)
    columns = literal.state_dict()
    fused = fuse_columns(columns)
    back = split_columns(fused, family)
    assert list(back) != []
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in columns.items()}
    assert all(torch.equal(back[k], v) for k, v in columns.items())
    assert set(fused) == set(resampling.stages[0].index_network.state_dict())


def test_columns_keep_the_batch_counter():
    literal, _ = pair_of("m2o", True, True)
    literal(torch.randn(2, 3, 4, 4))
    fused = fuse_columns(literal.state_dict())
    assert fused["norm.num_batches_tracked"].item() == 1
    assert fused["norm.num_batches_tracked"].dtype == torch.long
    assert split_columns(fused, "m2o")["indexnet3.1.num_batches_tracked"].item() == 1


def test_released_names_and_shapes_fit(shared):
    """Every listed configuration with index blocks: each stage's entries fuse into a network of that configuration."""
    listing = json.loads((shared / "specs" / "indexnet_matting_state_dicts.json").read_text())
    channels = {"index0": 32, "index2": 24, "index3": 32, "index4": 64, "index6": 160}
    families = {"hin": "hin", "m2o": "m2o", "o2o": "o2o_unshared", "shared": "o2o_shared", "modelwise": "o2o_modelwise"}
    fitted = 0
    for config, entries in listing.items():
        source, kind, *design = config.split("_")
        if kind not in families:
            continue
        for prefix, width in channels.items():
            state = {
                name.removeprefix(f"{prefix}."): torch.zeros(shape)
                for name, shape in entries
                if name.startswith(f"{prefix}.")
            }
            if not state:
                continue
            resampling = create_resampling(
                "indexnet",
                [width],
                family=families[kind],
                nonlinear="nl" in design,
                context="c" in design,
                expansion=1 if source == "code" else 2,
            )
            resampling.stages[0].index_network.load_state_dict(fuse_columns(state))
            fitted += 1
    assert fitted >= 5 * 3


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "found nothing"),
        ({"conv.weight": torch.zeros(1)}, "expected an entry 'indexnet1.0.weight'"),
        ({"indexnet1.0.weight": torch.zeros(1, 1, 2, 2)}, "no entry 'indexnet2.0.weight'"),
        ({"indexnet.0.weight": torch.zeros(4, 1, 2, 2), "extra": torch.zeros(1)}, "unexpected entry 'extra'"),
    ],
)
def test_foreign_columns_are_refused(state, message):
    with pytest.raises(UserError, match=message):
        fuse_columns(state)


def test_modelwise_owns_one_network():
    resampling = create_resampling("indexnet", [2, 3, 4], family="o2o_modelwise").double()
    assert all(key.startswith("network.") for key in resampling.state_dict())
    networks = {id(stage.index_network) for stage in resampling.stages}
    assert networks == {id(resampling.network)}
    gradients = []
    for stage, channels in zip(resampling.stages, (2, 3, 4), strict=True):
        resampling.zero_grad()
        stage.down(torch.randn(1, channels, 4, 4, dtype=torch.float64)).skip.square().sum().backward()
        gradients.append(resampling.network.first.weight.grad.abs().sum().item())
    assert min(gradients) > 0
    assert resampling.network.norm.num_batches_tracked.item() == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_initial_weights_have_the_released_spread(family):
    """Standard deviation sqrt(2 / (kernel area * output channels of one column)), groups ignored."""
    torch.manual_seed(0)
    networks = [create_resampling("indexnet", [16], family=family).stages[0].index_network for _ in range(40)]
    shared = family in ("o2o_modelwise", "o2o_shared")
    hidden, output = (2, 1) if shared else (32, 4 if family == "hin" else 16)
    first = torch.cat([n.first.weight.flatten() for n in networks])
    second = torch.cat([n.second.weight.flatten() for n in networks])
    assert first.std().item() == pytest.approx((2 / (16 * hidden)) ** 0.5, rel=0.1)
    assert second.std().item() == pytest.approx((2 / output) ** 0.5, rel=0.15)
    assert first.mean().abs().item() < 0.05


def test_context_sees_one_pixel_beyond_the_cell():
    for context, reach in ((False, 2), (True, 4)):
        stage = create_resampling("indexnet", [1], nonlinear=False, context=context).stages[0]
        x = torch.randn(1, 1, 12, 12, requires_grad=True)
        stage.index_network(x)[0, 0, 0, 2, 3].backward()
        rows, columns = x.grad[0, 0].nonzero().T
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (reach, reach)
        margin = (reach - 2) // 2
        assert (rows.min(), columns.min()) == (4 - margin, 6 - margin)


def test_column_order_is_reading_order():
    """Column J of the released layout is the J-th position of a cell in reading order."""
    _literal, resampling = pair_of("o2o_shared", False, False, channels=1)
    columns = {f"indexnet{j}.0.weight": torch.full((1, 1, 2, 2), float(j)) for j in (1, 2, 3, 4)}
    stage = resampling.stages[0]
    stage.index_network.load_state_dict(fuse_columns(columns))
    down = stage.down(torch.full((1, 1, 4, 4), 0.1))
    cell = stage.index_maps(down.guide)[0, 0, :2, :2]
    torch.testing.assert_close(cell, torch.sigmoid(0.4 * torch.tensor([[1.0, 2.0], [3.0, 4.0]])))


@pytest.mark.parametrize(
    ("family", "kind", "form"),
    [
        ("m2o", "with context", "shipped"),
        ("m2o", "linear", "shipped"),
        ("o2o_shared", "with context", "shipped"),
        ("hin", "linear", "channels-last"),
    ],
)
def test_peak_memory_is_below_the_literal_form(family, kind, form):
    found = {
        figure.form: figure
        for figure in measure(family, kind, 2, 32, BenchOptions(turns=1))
        if figure.quantity == "memory"
    }
    assert found[form].reference_value > 5 * 2 * 32 * 32 * 32 * 4  # the accounting sees more than the input
    assert found[form].ratio < 1


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_of_index_maps_are_averaged_for_a_decoder_of_half_the_width(family):
    torch.manual_seed(0)
    options = {"family": family, "nonlinear": False, "context": False}
    wide = create_resampling("indexnet", [6], **options)
    half = create_resampling("indexnet", [6], [3], reduction="mean", **options)
    half.load_state_dict(wide.state_dict())
    x, d = torch.randn(2, 6, 7, 8), torch.randn(2, 3, 4, 4)
    ours, theirs = half.stages[0].down(x), wide.stages[0].down(x)
    # the encoder's half is untouched
    assert torch.equal(ours.features, theirs.features)
    assert torch.equal(ours.skip, theirs.skip)
    assert half.stages[0].paper_macs(7, 8) == wide.stages[0].paper_macs(7, 8)
    maps = wide.stages[0].index_maps(theirs.guide)
    if family != "hin":
        maps = (maps[:, 0::2] + maps[:, 1::2]) / 2
    torch.testing.assert_close(half.stages[0].index_maps(ours.guide), maps)
    doubled = d.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(half.stages[0].up(d, ours.guide, ours.size), (maps * doubled)[:, :, :7])


def test_equal_widths_are_not_reduced():
    mixed = create_resampling("indexnet", [4, 6], [4, 3], reduction="mean")
    assert [stage.pairs for stage in mixed.stages] == [False, True]
    assert not any(stage.pairs for stage in create_resampling("indexnet", [4, 6], [1, 3], family="hin").stages)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize(("family", "dtype"), [("m2o", torch.bfloat16), ("hin", torch.float32)])
def test_index_maps_are_in_single_precision_under_autocast(normalization, family, dtype):
    """Half-precision maps would differ from these by thousandths; what is pooled and doubled keeps its own dtype."""
    torch.manual_seed(0)
    stage = create_resampling("indexnet", [4], family=family, normalization=normalization).stages[0]
    x = torch.randn(2, 4, 8, 6).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        logits = stage.index_network(x)
        features, skip, guide, size = stage.down(x)
        up = stage.up(features, guide, size)
    assert logits.dtype == torch.bfloat16
    encoder, decoder = normalise_indices(logits.double(), normalization)
    assert guide.dtype == torch.float32
    torch.testing.assert_close(guide.double(), decoder, rtol=1e-6, atol=1e-7)
    assert features.dtype == skip.dtype == up.dtype == dtype
    weighted = unpack_cells(encoder) * x.double()
    one_rounding = {"rtol": 2**-8 if dtype == torch.bfloat16 else 1e-6, "atol": 1e-6}
    torch.testing.assert_close(skip.double(), weighted, **one_rounding)
    torch.testing.assert_close(features.double(), nn.functional.avg_pool2d(weighted, 2) * 4, **one_rounding)
